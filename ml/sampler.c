/*
 * sampler.c: logits -> a token and its log-probabilities. Owns what temperature, top-k, top-p and
 * min-p mean and the generator behind them; must not know whose sequence it is. The temperature
 * comes first, then top-k, then top-p of what is left, then min-p, as in vLLM. The generator is
 * xoshiro256** seeded by splitmix64 (Blackman and Vigna).
 *
 * Each filter keeps the best tokens down to some place in the order "higher logit, then lower id".
 * Finding that place needs no sorted vocabulary: a histogram over the distance from the best logit
 * says in which bucket it lies, and only that bucket is sorted.
 */
#include "ml/mathf.h"
#include "ml/priv.h"

#define BUCKETS_PER_NAT 16.0f

static u64 splitmix(u64 *state)
{
    u64 z = (*state += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

void rng_start(struct rng *rng, const struct ml_sampling *how)
{
    u64 seed = how->seed;

    if (!how->has_seed)
        random_bytes(&seed, sizeof(seed));
    for (u32 i = 0; i < ARRAY_LEN(rng->s); i++)
        rng->s[i] = splitmix(&seed);
}

static u64 rotate(u64 x, u32 by) { return (x << by) | (x >> (64 - by)); }

/* 0 <= result < 1, 53 bits. */
static f64 rng_unit(struct rng *rng)
{
    u64 *s = rng->s, result = rotate(s[1] * 5, 7) * 9, shifted = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate(s[3], 45);
    return (f64)(result >> 11) * 0x1p-53;
}

/* ---- eight at a time: the vocabulary is gone through several times for each token ---- */

#define LANES 8u
typedef f32 lanes __attribute__((vector_size(4 * LANES)));
typedef i32 masks __attribute__((vector_size(4 * LANES)));

static lanes choose(masks mask, lanes a, lanes b)
{
    return (lanes)((mask & (masks)a) | (~mask & (masks)b));
}

/* Behind the end the lanes hold `pad`. */
static lanes load(const f32 *from, u32 at, u32 count, f32 pad)
{
    f32 part[LANES];
    lanes v;

    for (u32 i = 0; i < LANES && at + LANES > count; i++)
        part[i] = at + i < count ? from[at + i] : pad;
    memcpy(&v, at + LANES > count ? part : from + at, sizeof(v));
    return v;
}

/* e^x for x <= 0: 2^n times the series of the rest, within 2 ulp; 0 below -87. */
static lanes exp_lanes(lanes x)
{
    const f32 round = 0x1.8p23f, term[] = {1 / 5040.f, 1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f,
                                           1 / 2.f, 1, 1};
    masks large = x > -87.0f;
    lanes shifted = x * 1.44269504f + round, n = shifted - round;
    lanes rest = x - n * 0x1.62e4p-1f - n * 0x1.7f7d1cp-20f; /* ln 2 in two pieces */
    lanes sum = rest * 0 + term[0];

    for (u32 i = 1; i < ARRAY_LEN(term); i++)
        sum = sum * rest + term[i];
    masks power = (masks)shifted << 23;
    return (lanes)(((masks)sum + power) & large);
}

err sampler_init(struct sampler *s, struct arena *arena, u32 vocab)
{
    *s = (struct sampler){.vocab = vocab};
    s->weight = arena_alloc_array(arena, round_up(vocab, LANES), sizeof(f32), sizeof(lanes));
    s->member = arena_new(arena, u32, vocab);
    return s->weight && s->member ? OK : E_NOMEM;
}

static err find_best(const struct sampler *s, const f32 *logit, u32 *best)
{
    lanes most = load(logit, 0, min_u32(s->vocab, LANES), logit[0]), v;
    masks bad = {};
    f32 max = logit[0];
    u32 t = 0;

    for (u32 at = 0; at < s->vocab; at += LANES) {
        v = load(logit, at, s->vocab, logit[0]);
        most = choose(v > most, v, most);
        bad |= v != v;
    }
    for (u32 i = 0; i < LANES; i++) {
        max = most[i] > max ? most[i] : max;
        t |= (u32)bad[i];
    }
    if (t || max - max != 0) {
        log_error("sampler", "want numbers for logits and a finite best one");
        return E_DEVICE;
    }
    while (logit[t] != max)
        t++;
    *best = t;
    return OK;
}

/* ---- where the kept tokens end ---- */

struct cut { /* the last token that is kept */
    f32 logit;
    u32 token;
};

static bool kept(const f32 *logit, u32 t, struct cut cut)
{
    return logit[t] > cut.logit || (logit[t] == cut.logit && t <= cut.token);
}

static u32 bucket_of(f32 distance)
{
    f32 place = distance * BUCKETS_PER_NAT;

    return place < SAMPLER_BUCKETS - 1 ? (u32)place : SAMPLER_BUCKETS - 1;
}

/* Weights by the tempered distribution, where the best one's is 1. Returns what all weigh. */
static f64 weigh(struct sampler *s, const f32 *logit, f32 max, f32 temperature)
{
    f64 sum = 0;

    for (u32 at = 0; at < s->vocab; at += LANES) {
        lanes v = exp_lanes((load(logit, at, s->vocab, -(f32)MATH_INF) - max) / temperature);
        memcpy(s->weight + at, &v, sizeof(v));
        sum += (f64)(((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7])));
    }
    return sum;
}

static void fill_buckets(struct sampler *s, const f32 *logit, f32 max)
{
    memset(s->count, 0, sizeof(s->count));
    memset(s->mass, 0, sizeof(s->mass));
    for (u32 t = 0; t < s->vocab; t++) {
        u32 bucket = bucket_of(max - logit[t]);
        s->count[bucket]++;
        s->mass[bucket] += (f64)s->weight[t];
    }
}

/* The tokens of a bucket, best first. */
static u32 sort_bucket(struct sampler *s, const f32 *logit, f32 max, u32 bucket)
{
    u32 count = 0;

    for (u32 t = 0; t < s->vocab; t++)
        if (bucket_of(max - logit[t]) == bucket)
            s->member[count++] = t;
    for (u32 gap = count / 2; gap > 0; gap = gap == 2 ? 1 : gap * 5 / 11)
        for (u32 i = gap; i < count; i++) {
            u32 t = s->member[i], at = i;
            struct cut here = {logit[t], t};
            for (; at >= gap && !kept(logit, s->member[at - gap], here); at -= gap)
                s->member[at] = s->member[at - gap];
            s->member[at] = t;
        }
    return count;
}

/* The shortest row of best tokens that has `count_min` of them or weighs `mass_min`; *mass is what
 * it weighs. */
static struct cut find_cut(struct sampler *s, const f32 *logit, f32 max, u32 count_min, f64 *mass)
{
    f64 mass_min = *mass, sum = 0;
    u32 bucket = 0, seen = 0;

    while (bucket < SAMPLER_BUCKETS - 1 && seen + s->count[bucket] < count_min &&
           sum + s->mass[bucket] < mass_min) {
        seen += s->count[bucket];
        sum += s->mass[bucket++];
    }
    u32 count = sort_bucket(s, logit, max, bucket);
    struct cut cut = {-(f32)MATH_INF, 0};
    for (u32 i = 0; i < count; i++) {
        cut = (struct cut){logit[s->member[i]], s->member[i]};
        sum += (f64)s->weight[s->member[i]];
        if (++seen >= count_min || sum >= mass_min)
            break;
    }
    *mass = sum;
    return cut;
}

static u32 draw_tempered(struct sampler *s, const f32 *logit, u32 best,
                         const struct ml_sampling *how, struct rng *rng)
{
    struct cut cut = {-(f32)MATH_INF, UINT_MAX};
    f32 max = logit[best];
    f64 mass = weigh(s, logit, max, how->temperature), sum = 0;
    u32 count = how->top_k && how->top_k < s->vocab ? how->top_k : s->vocab, last = best;

    if (count < s->vocab || how->top_p < 1)
        fill_buckets(s, logit, max);
    if (count < s->vocab) {
        mass = MATH_INF;
        cut = find_cut(s, logit, max, count, &mass);
    }
    if (how->top_p < 1) {
        mass *= (f64)how->top_p;
        cut = find_cut(s, logit, max, count, &mass);
    }
    f32 least = how->min_p > 0 ? max + how->temperature * mathf_log(how->min_p) : cut.logit;
    if (least > cut.logit)
        cut = (struct cut){least, UINT_MAX};
    for (u32 t = 0; t < s->vocab; t++) {
        s->weight[t] = kept(logit, t, cut) ? s->weight[t] : 0;
        sum += (f64)s->weight[t];
    }
    f64 target = rng_unit(rng) * sum;
    for (u32 t = 0; t < s->vocab && target >= 0; t++) {
        target -= (f64)s->weight[t];
        last = s->weight[t] > 0 ? t : last;
    }
    return last;
}

/* ---- log-probabilities, always of the untempered distribution ---- */

static void report(struct sampler *s, const f32 *logit, u32 best,
                   const struct ml_sampling *how, struct draw *out)
{
    u32 max = min_u32(how->top_logprobs, min_u32(ML_TOP_LOGPROBS_MAX, s->vocab));
    f64 sum = weigh(s, logit, logit[best], 1);


    for (u32 t = 0; t < s->vocab; t++) {
        u32 at = out->top_count;
        if (at == max && (max == 0 || logit[t] <= logit[out->top[max - 1].token]))
            continue;
        out->top_count = at < max ? at + 1 : max;
        for (at = out->top_count - 1; at > 0 && logit[t] > logit[out->top[at - 1].token]; at--)
            out->top[at] = out->top[at - 1];
        out->top[at] = (struct ml_top){.token = t};
    }
    f64 log_sum = (f64)logit[best] + math_log(sum);
    for (u32 i = 0; i < out->top_count; i++)
        out->top[i].logprob = (f32)((f64)logit[out->top[i].token] - log_sum);
    out->logprob = (f32)((f64)logit[out->token] - log_sum);
}

err sampler_draw(struct sampler *s, const f32 *logit, const struct ml_sampling *how,
                 struct rng *rng, struct draw *out)
{
    u32 best;

    *out = (struct draw){};
    TRY(find_best(s, logit, &best));
    out->token = best;
    if (how->temperature > 0)
        out->token = draw_tempered(s, logit, best, how, rng);
    if (how->logprobs)
        report(s, logit, best, how, out);
    return OK;
}
