/*
 * sampler.c: logits -> a token and its log-probabilities. Owns what temperature, top-k, top-p and
 * min-p mean and the generator behind them; must not know whose sequence it is. The temperature
 * comes first, then top-k, then top-p of what is left, then min-p, as in vLLM. The generator is
 * splitmix64 (Steele, Lea and Flood).
 *
 * A token and its weight are one number that sorts as "heavier, then lower id". Filters keep the
 * heaviest: a partition around a pivot says on which side they end, and only that side is
 * partitioned again, so that the vocabulary is never sorted.
 */
#include "ml/mathf.h"
#include "ml/priv.h"

void rng_start(struct rng *rng, const struct ml_sampling *how)
{
    rng->state = how->seed;
    if (!how->has_seed)
        random_bytes(&rng->state, sizeof(rng->state));
}

/* 0 <= result < 1, 53 bits. */
static f64 rng_unit(struct rng *rng)
{
    u64 z = (rng->state += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (f64)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

/* ---- weights: eight at a time, for every logit counts in each sum ---- */

#define LANES 8u
typedef f32 lanes __attribute__((vector_size(4 * LANES)));
typedef i32 masks __attribute__((vector_size(4 * LANES)));
typedef u64 keys __attribute__((vector_size(8 * LANES)));

err sampler_init(struct sampler *s, struct arena *arena, u32 vocab)
{
    *s = (struct sampler){.vocab = vocab, .key = arena_new(arena, u64, round_up(vocab, LANES))};
    return s->key ? OK : E_NOMEM;
}

/* e^x for x <= 0: 2^n times the series of the rest, within 2 ulp; 0 below -87. */
static lanes exp_lanes(lanes x)
{
    static const f32 term[] = {1 / 5040.f, 1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f, 1 / 2.f, 1, 1};
    const f32 round = 0x1.8p23f;
    masks large = x > -87.0f;
    lanes shifted = x * 1.44269504f + round, n = shifted - round, sum = {};
    lanes rest = x - n * 0x1.62e4p-1f - n * 0x1.7f7d1cp-20f; /* ln 2 in two pieces */

    for (u32 i = 0; i < ARRAY_LEN(term); i++)
        sum = sum * rest + term[i];
    masks power = (masks)shifted << 23;
    return (lanes)(((masks)sum + power) & large);
}

static u32 token_of(u64 key)
{
    return ~(u32)key;
}

static f32 weight_of(u64 key)
{
    u32 bits = (u32)(key >> 32);
    f32 weight;

    memcpy(&weight, &bits, sizeof(weight));
    return weight;
}

/* Keys of all tokens by the tempered distribution, where the best weighs 1. Returns what all do. */
static f64 weigh(struct sampler *s, const f32 *logit, f32 max, f32 temperature)
{
    const keys first = {~0u, ~1u, ~2u, ~3u, ~4u, ~5u, ~6u, ~7u};
    f64 sum = 0;

    for (u32 at = 0; at < s->vocab; at += LANES) {
        lanes v = (lanes){} - (f32)MATH_INF; /* behind the vocabulary */
        if (at + LANES <= s->vocab)
            memcpy(&v, logit + at, sizeof(v));
        else
            memcpy(&v, logit + at, (s->vocab - at) * sizeof(f32));
        v = exp_lanes((v - max) / temperature);
        keys key = __builtin_convertvector((masks)v, keys) << 32 | (first - at);
        memcpy(s->key + at, &key, sizeof(key));
        sum += (f64)(((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7])));
    }
    return sum;
}

/* ---- filters ---- */

/* Moves the heaviest to the front, as few as are `count_min` or weigh `mass_min`; returns how
 * many. *mass is what they weigh. */
static u32 keep(u64 *key, u32 count, u32 count_min, f64 mass_min, f64 *mass)
{
    u32 begin = 0, end = count;

    *mass = 0;
    while (begin < end && begin < count_min && *mass < mass_min) {
        u32 at = begin, middle = begin + (end - begin) / 2;
        u64 pivot = key[middle];
        f64 above = 0;

        key[middle] = key[end - 1];
        for (u32 i = begin; i < end - 1; i++) { /* without a branch: it could not be predicted */
            u64 here = key[i];
            bool heavier = here > pivot;
            key[i] = key[at];
            key[at] = here;
            above += heavier ? (f64)weight_of(here) : 0;
            at += heavier;
        }
        key[end - 1] = key[at];
        key[at] = pivot;
        if (at >= count_min || *mass + above >= mass_min) {
            end = at;
        } else {
            *mass += above + (f64)weight_of(pivot);
            begin = at + 1;
        }
    }
    return begin;
}

static u32 draw_tempered(struct sampler *s, const f32 *logit, u32 best,
                         const struct ml_sampling *how, struct rng *rng)
{
    f64 mass = weigh(s, logit, logit[best], how->temperature);
    u32 count = s->vocab, left = 0;

    if (how->top_k && how->top_k < count)
        count = keep(s->key, count, how->top_k, MATH_INF, &mass);
    if (how->top_p < 1)
        count = keep(s->key, count, count, mass * (f64)how->top_p, &mass);
    mass = 0;
    for (u32 i = 0; i < count; i++)
        if (weight_of(s->key[i]) >= how->min_p) {
            mass += (f64)weight_of(s->key[i]);
            s->key[left++] = s->key[i];
        }
    f64 target = rng_unit(rng) * mass;
    for (u32 i = 0; i < left; i++)
        if ((target -= (f64)weight_of(s->key[i])) < 0)
            return token_of(s->key[i]);
    return best;
}

/* ---- log-probabilities, always of the untempered distribution ---- */

static void report(struct sampler *s, const f32 *logit, u32 best, const struct ml_sampling *how,
                   struct draw *out)
{
    u32 max = min_u32(how->top_logprobs, min_u32(ML_TOP_LOGPROBS_MAX, s->vocab));
    f64 log_sum = (f64)logit[best] + math_log(weigh(s, logit, logit[best], 1));

    for (u32 t = 0; t < s->vocab; t++) {
        u32 at = out->top_count;
        if (at == max && (max == 0 || logit[t] <= logit[out->top[max - 1].token]))
            continue;
        out->top_count = at < max ? at + 1 : max;
        for (at = out->top_count - 1; at > 0 && logit[t] > logit[out->top[at - 1].token]; at--)
            out->top[at] = out->top[at - 1];
        out->top[at] = (struct ml_top){t, (f32)((f64)logit[t] - log_sum), {}};
    }
    out->logprob = (f32)((f64)logit[out->token] - log_sum);
}

err sampler_draw(struct sampler *s, const f32 *logit, const struct ml_sampling *how,
                 struct rng *rng, struct draw *out)
{
    f32 max = logit[0];
    bool bad = false;
    u32 best = 0;

    for (u32 t = 0; t < s->vocab; t++) {
        bad |= logit[t] != logit[t];
        if (logit[t] > max) {
            max = logit[t];
            best = t;
        }
    }
    if (bad || max - max != 0) {
        log_error("sampler", "want numbers for logits and a finite best one");
        return E_DEVICE;
    }
    *out = (struct draw){.token = best};
    if (how->temperature > 0)
        out->token = draw_tempered(s, logit, best, how, rng);
    if (how->logprobs)
        report(s, logit, best, how, out);
    return OK;
}
