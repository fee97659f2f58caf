/*
 * tokenizer.c: byte-level BPE. First the vocabulary out of the model file, then text -> tokens,
 * then the stream of tokens -> text. Knows nothing of chat. The byte alphabet is GPT-2's; what
 * counts as equal is Hugging Face's `tokenizers`.
 */
#include "ml/tokenizer.h"

#include "ml/bpe.h"

#define NONE     TOKEN_NONE
#define KIND_END 0x80u /* flag beside the kind: ends a generation */

/* The texts of special tokens as a tree, siblings in a list. */
struct twig {
    u32 child, sibling, token;
    u8 byte;
};

struct tokenizer {
    const struct pretok *pretok;
    u32 vocab, bos, eos;
    bool adds_bos;
    u8 *kind;   /* token_kind, maybe with KIND_END */
    u32 *start; /* token t is text[start[t] .. start[t + 1]] */
    char *text;
    struct names words; /* the normal tokens by text */
    u32 byte[256];      /* token of a single byte */
    struct bpe bpe;
    struct twig *twig; /* twig 0 is the root */
    u32 twig_count;
};

static err load_vocabulary(struct tokenizer *t, const struct gguf *gguf, struct arena *arena,
                           struct text *reason);
static err load_merges(struct tokenizer *t, const struct gguf *gguf, struct arena *arena,
                       struct text *reason);
static err load_specials(struct tokenizer *t, const struct gguf *gguf, struct arena *arena,
                         struct text *reason);

err tokenizer_open(struct tokenizer **tok, const struct gguf *gguf, struct arena *arena,
                   struct text *reason)
{
    struct tokenizer *t = arena_new(arena, struct tokenizer, 1);
    struct str model = {}, pre = {};

    if (t == NULL)
        return gguf_refuse(reason, E_NOMEM, "no memory for the tokenizer");
    if (gguf_str(gguf, "tokenizer.ggml.model", &model) != OK || !str_eq(model, STR("gpt2")))
        return gguf_refuse(reason, E_UNSUPPORTED, "tokenizer model \"%.*s\", want gpt2",
                           (int)model.len, model.ptr);
    if (gguf_str(gguf, "tokenizer.ggml.pre", &pre) == OK)
        t->pretok = pretok_find(pre);
    if (t->pretok == NULL)
        return gguf_refuse(reason, E_UNSUPPORTED, "unknown pre-tokenizer \"%.*s\"", (int)pre.len,
                           pre.ptr);
    TRY(load_vocabulary(t, gguf, arena, reason));
    TRY(load_merges(t, gguf, arena, reason));
    TRY(load_specials(t, gguf, arena, reason));
    *tok = t;
    return OK;
}

/* ---- loading ---- */

/*
 * GPT-2 writes each byte as a printable character: printable Latin-1 as itself, the 68 others as
 * U+0100 and on. Returns the bytes written, or text.len + 1 when a character is none of these.
 */
static usize bytes_of_word(struct str text, char *out)
{
    usize n = 0, at = 0, len;
    u32 c;

    for (; at < text.len; at += len) {
        len = utf8_decode(str_slice(text, at, text.len), &c);
        if (len == 0 || c > 0x100 + 67 || c <= ' ' || (c >= 0x7f && c <= 0xa0) || c == 0xad)
            return text.len + 1;
        if (c >= 0x100) /* the 33 below '!', the 34 from DEL on, the soft hyphen */
            c = c < 0x100 + 33 ? c - 0x100 : c < 0x100 + 67 ? c - 0x100 - 33 + 0x7f : 0xad;
        out[n++] = (char)c;
    }
    return n;
}

static struct str token_text(const void *table, u32 token)
{
    const struct tokenizer *t = table;

    return (struct str){t->text + t->start[token], t->start[token + 1] - t->start[token]};
}

/* One token's bytes behind those of the tokens before it, and normal ones into the index. */
static err add_token(struct tokenizer *t, u32 token, struct str word, i64 kind, struct text *reason)
{
    char *to = t->text + t->start[token];
    usize len = word.len;
    bool is_word = false;

    if (kind < TOKEN_NORMAL || kind > TOKEN_BYTE)
        return gguf_refuse(reason, E_FORMAT, "token %u has type %ld, want 1 to 6", token, kind);
    t->kind[token] = (u8)kind;
    if (kind == TOKEN_NORMAL) {
        len = bytes_of_word(word, to);
        is_word = len > 0 && len <= word.len;
        len = min_u64(len, word.len);
    }
    if (!is_word)
        memcpy(to, word.ptr, len);
    t->start[token + 1] = t->start[token] + (u32)len;
    if (is_word && names_put(&t->words, token) != OK)
        return gguf_refuse(reason, E_FORMAT, "token %u: its text \"%.*s\" is there twice", token,
                           (int)min_u64(word.len, 64), word.ptr);
    return OK;
}

static err load_vocabulary(struct tokenizer *t, const struct gguf *gguf, struct arena *arena,
                           struct text *reason)
{
    const struct gguf_key *tokens, *kinds;
    usize bytes = 0;

    if (gguf_array(gguf, "tokenizer.ggml.tokens", GGUF_STRING, &tokens) != OK ||
        gguf_array(gguf, "tokenizer.ggml.token_type", GGUF_I32, &kinds) != OK)
        return gguf_refuse(reason, E_FORMAT, "no tokenizer.ggml.tokens or token_type");
    if (tokens->count != kinds->count || tokens->count == 0 || tokens->count > TOKEN_VOCAB_MAX)
        return gguf_refuse(reason, E_FORMAT, "%u tokens and %u token types, want equal, 1 to %u",
                           tokens->count, kinds->count, TOKEN_VOCAB_MAX);
    t->vocab = tokens->count;
    for (u32 i = 0; i < t->vocab; i++) {
        if (gguf_at_str(tokens, i).len > TOKEN_BYTES_MAX)
            return gguf_refuse(reason, E_LIMIT, "token %u is over %u bytes", i, TOKEN_BYTES_MAX);
        bytes += gguf_at_str(tokens, i).len;
    }
    t->kind = arena_new(arena, u8, t->vocab);
    t->start = arena_new(arena, u32, t->vocab + 1);
    t->text = arena_new(arena, char, bytes + 1);
    t->words = (struct names){.table = t, .name = token_text};
    if (!t->kind || !t->start || !t->text || names_init(&t->words, arena, t->vocab) != OK)
        return gguf_refuse(reason, E_NOMEM, "no memory for %u tokens", t->vocab);
    for (u32 i = 0; i < t->vocab; i++)
        TRY(add_token(t, i, gguf_at_str(tokens, i), gguf_at_int(kinds, i), reason));
    for (u32 i = 0; i < ARRAY_LEN(t->byte); i++)
        t->byte[i] = names_find(&t->words, (struct str){(const char[]){(char)i}, 1});
    return OK;
}

/*
 * "left right", all three words of the vocabulary. A merge into a special token is not in the index
 * of words and so can never happen. False: the merge is left out.
 */
static bool parse_merge(const struct tokenizer *t, struct str text, struct merge *merge)
{
    char bytes[2 * TOKEN_BYTES_MAX];
    struct str right, left = str_cut(text, ' ', &right);
    usize left_len, right_len;

    if (left.len > TOKEN_BYTES_MAX || right.len > TOKEN_BYTES_MAX)
        return false;
    left_len = bytes_of_word(left, bytes);
    if (left_len > left.len || left_len == 0)
        return false;
    right_len = bytes_of_word(right, bytes + left_len);
    if (right_len > right.len || right_len == 0)
        return false;
    merge->left = names_find(&t->words, (struct str){bytes, left_len});
    merge->right = names_find(&t->words, (struct str){bytes + left_len, right_len});
    merge->into = names_find(&t->words, (struct str){bytes, left_len + right_len});
    return merge->left != NONE && merge->right != NONE && merge->into != NONE;
}

static err load_merges(struct tokenizer *t, const struct gguf *gguf, struct arena *arena,
                       struct text *reason)
{
    const struct gguf_key *merges;
    u32 left_out = 0;

    if (gguf_array(gguf, "tokenizer.ggml.merges", GGUF_STRING, &merges) != OK)
        return gguf_refuse(reason, E_FORMAT, "no tokenizer.ggml.merges");
    if (merges->count > TOKEN_MERGES_MAX)
        return gguf_refuse(reason, E_LIMIT, "%u merges, at most %u", merges->count,
                           TOKEN_MERGES_MAX);
    if (bpe_init(&t->bpe, arena, t->start, merges->count) != OK)
        return gguf_refuse(reason, E_NOMEM, "no memory for %u merges", merges->count);
    for (u32 i = 0; i < merges->count; i++) {
        struct str text = gguf_at_str(merges, i);
        struct merge merge;

        if (str_find_char(text, ' ') == text.len)
            return gguf_refuse(reason, E_FORMAT, "merge %u has no space", i);
        if (!parse_merge(t, text, &merge) || !bpe_add(&t->bpe, &merge))
            left_out++;
    }
    if (left_out > 0)
        log_warn("model", "%u of %u merges left out: said twice, or not of words of the vocabulary",
                 left_out, merges->count);
    return OK;
}

/* ---- special tokens ---- */

static bool is_special(u32 kind)
{
    return kind == TOKEN_CONTROL || kind == TOKEN_USER_DEFINED || kind == TOKEN_UNKNOWN;
}

static u32 twig_find(const struct tokenizer *t, u32 parent, char byte)
{
    u32 at = t->twig[parent].child;

    while (at != 0 && t->twig[at].byte != (u8)byte)
        at = t->twig[at].sibling;
    return at;
}

static void twig_add(struct tokenizer *t, u32 token)
{
    struct str text = token_text(t, token);
    u32 at = 0, next;

    for (usize i = 0; i < text.len; i++, at = next) {
        next = twig_find(t, at, text.ptr[i]);
        if (next != 0)
            continue;
        next = t->twig_count++;
        t->twig[next] = (struct twig){0, t->twig[at].child, NONE, (u8)text.ptr[i]};
        t->twig[at].child = next;
    }
    if (at != 0 && t->twig[at].token == NONE) /* of equal texts the first one counts */
        t->twig[at].token = token;
}

/* The longest special token that starts at `at`; a control token must end within `control_end`. */
static u32 special_at(const struct tokenizer *t, struct str text, usize at, usize control_end)
{
    u32 twig = 0, found = NONE;

    for (usize i = at; i < text.len; i++) {
        u32 token;

        twig = twig_find(t, twig, text.ptr[i]);
        if (twig == 0)
            break;
        token = t->twig[twig].token;
        if (token != NONE && (i < control_end || tokenizer_kind(t, token) == TOKEN_USER_DEFINED))
            found = token;
    }
    return found;
}

static err load_id(const struct gguf *gguf, const char *key, u32 vocab, u32 *token,
                   struct text *reason)
{
    err e = gguf_u32(gguf, key, token);

    if (e == E_NOTFOUND)
        return OK;
    if (e != OK || *token >= vocab)
        return gguf_refuse(reason, E_FORMAT, "%s is no token of %u", key, vocab);
    return OK;
}

static void mark_ends(struct tokenizer *t)
{
    static const char *const texts[] = {
        "<|im_end|>",      "<|eot_id|>",    "<|eom_id|>", "<|end|>", "<|endoftext|>",
        "<|end_of_text|>", "<end_of_turn>", "<EOT>",      "</s>",    "<｜end▁of▁sentence｜>"};

    for (u32 i = 0; i < ARRAY_LEN(texts); i++) {
        u32 token = tokenizer_find(t, str_of(texts[i]));

        if (token != NONE && is_special(t->kind[token]))
            t->kind[token] |= KIND_END;
    }
}

static err load_specials(struct tokenizer *t, const struct gguf *gguf, struct arena *arena,
                         struct text *reason)
{
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    usize bytes = 1;
    u32 id[ARRAY_LEN(ends)] = {NONE, NONE, NONE};

    for (u32 i = 0; i < t->vocab; i++)
        bytes += is_special(t->kind[i]) ? token_text(t, i).len : 0;
    t->twig = arena_new(arena, struct twig, bytes);
    if (t->twig == NULL)
        return gguf_refuse(reason, E_NOMEM, "no memory for special tokens");
    t->twig[0].token = NONE;
    t->twig_count = 1;
    for (u32 i = 0; i < t->vocab; i++) {
        if (is_special(t->kind[i]))
            twig_add(t, i);
    }
    mark_ends(t);
    for (u32 i = 0; i < ARRAY_LEN(ends); i++) {
        TRY(load_id(gguf, ends[i], t->vocab, &id[i], reason));
        if (id[i] != NONE)
            t->kind[id[i]] |= KIND_END;
    }
    t->eos = id[0];
    t->bos = NONE;
    TRY(load_id(gguf, "tokenizer.ggml.bos_token_id", t->vocab, &t->bos, reason));
    t->adds_bos = t->pretok->adds_bos && t->bos != NONE;
    if (gguf_bool(gguf, "tokenizer.ggml.add_bos_token", &t->adds_bos) == OK && t->adds_bos &&
        t->bos == NONE)
        return gguf_refuse(reason, E_FORMAT, "add_bos_token without a bos_token_id");
    return OK;
}

/* ---- questions ---- */

u32 tokenizer_vocab(const struct tokenizer *t)
{
    return t->vocab;
}

u32 tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

u32 tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->adds_bos;
}

bool tokenizer_is_end(const struct tokenizer *t, u32 token)
{
    return token < t->vocab && (t->kind[token] & KIND_END);
}

enum token_kind tokenizer_kind(const struct tokenizer *t, u32 token)
{
    return token < t->vocab ? (enum token_kind)(t->kind[token] & ~KIND_END) : TOKEN_UNUSED;
}

struct str tokenizer_text(const struct tokenizer *t, u32 token)
{
    return token < t->vocab ? token_text(t, token) : (struct str){"", 0};
}

u32 tokenizer_find(const struct tokenizer *t, struct str text)
{
    u32 token = text.len == 0 ? NONE : special_at(t, text, 0, text.len);

    if (token != NONE && token_text(t, token).len == text.len)
        return token;
    return names_find(&t->words, text);
}

/* ---- text to tokens ---- */

static void put_token(struct token_list *out, u32 token)
{
    if (out->count < out->max)
        out->token[out->count] = token;
    out->count++;
}

static void encode_word(struct tokenizer *t, struct str word, struct token_list *out)
{
    u32 places = 0, whole = NONE;

    if (t->pretok->ignore_merges && word.len <= TOKEN_BYTES_MAX)
        whole = names_find(&t->words, word);
    if (whole != NONE) {
        put_token(out, whole);
        return;
    }
    for (usize i = 0; i < word.len; i++) { /* a byte without a token is left out, as if unsaid */
        u32 token = t->byte[(u8)word.ptr[i]];

        if (token != NONE)
            t->bpe.symbol[places++] = token;
    }
    bpe_word(&t->bpe, places);
    for (u32 i = 0; i < places; i = bpe_next(&t->bpe, i))
        put_token(out, t->bpe.symbol[i]);
}

/* ---- whole texts ---- */

static void encode_words(struct tokenizer *t, struct str text, struct token_list *out)
{
    while (text.len > 0) {
        usize len = pretok_next(t->pretok, text);

        encode_word(t, str_slice(text, 0, len), out);
        text = str_slice(text, len, text.len);
    }
}

/* The joined text of all parts; *text.ptr is NULL when the scratch is full. */
static struct str join(struct arena *scratch, const struct ml_part *part, u32 part_count)
{
    usize len = 0, at = 0;
    char *to;

    for (u32 i = 0; i < part_count; i++)
        len += part[i].text.len;
    to = len > BPE_PLACES_MAX ? NULL : arena_alloc(scratch, len + 1, 1);
    for (u32 i = 0; to != NULL && i < part_count; at += part[i++].text.len)
        memcpy(to + at, part[i].text.ptr, part[i].text.len);
    return (struct str){to, len};
}

/* Neighbours of one kind count as one part: where the run of them that starts with *next ends. */
static usize run_end(const struct ml_part *part, u32 part_count, u32 *next, usize end)
{
    enum ml_part_kind kind = part[*next].kind;

    while (*next < part_count && part[*next].kind == kind)
        end += part[(*next)++].text.len;
    return end;
}

static void encode_joined(struct tokenizer *t, struct str text, const struct ml_part *part,
                          u32 part_count, struct token_list *out)
{
    usize from = 0, at = 0, end = 0, control_end = 0;

    for (u32 next = 0, token; at < text.len;) {
        while (at >= end) {
            enum ml_part_kind kind = part[next].kind;

            end = run_end(part, part_count, &next, end);
            control_end = kind == ML_PART_TEMPLATE ? end : 0;
        }
        token = special_at(t, text, at, control_end);
        if (token == NONE) {
            at++;
            continue;
        }
        encode_words(t, str_slice(text, from, at), out);
        put_token(out, token);
        at += token_text(t, token).len;
        from = at;
    }
    encode_words(t, str_slice(text, from, at), out);
}

err tokenizer_encode(struct tokenizer *t, struct arena *scratch, const struct ml_part *part,
                     u32 part_count, struct token_list *out)
{
    usize mark = arena_mark(scratch);
    struct str text = join(scratch, part, part_count);

    t->bpe.symbol = arena_new(scratch, u32, text.len + 1);
    t->bpe.before = arena_new(scratch, u32, text.len + 1);
    t->bpe.after = arena_new(scratch, u32, text.len + 1);
    if (text.ptr == NULL || !t->bpe.symbol || !t->bpe.before || !t->bpe.after) {
        arena_reset(scratch, mark);
        return E_NOMEM;
    }
    encode_joined(t, text, part, part_count, out);
    arena_reset(scratch, mark);
    return out->count > out->max ? E_LIMIT : OK;
}

/* ---- streaming: Unicode 15, table 3-7 (well-formed UTF-8) ---- */

/* Whether more bytes could make this one character. */
static bool is_unfinished(const char *ptr, u32 len)
{
    u8 first = (u8)ptr[0], second = (u8)ptr[1];
    u32 need = first < 0xc2 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 1;
    u8 low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    u8 high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;

    if (len >= need || (len > 1 && (second < low || second > high)))
        return false;
    return len < 3 || ((u8)ptr[2] & 0xc0) == 0x80;
}

void utf8_stream_put(struct utf8_stream *s, struct str bytes, struct text *out)
{
    for (usize i = 0; i < bytes.len; i++) {
        u32 code;

        s->held[s->held_len++] = bytes.ptr[i];
        if (utf8_decode((struct str){s->held, s->held_len}, &code) == s->held_len) {
            text_put(out, (struct str){s->held, s->held_len});
            s->held_len = 0;
        } else if (!is_unfinished(s->held, s->held_len)) {
            i -= s->held_len > 1; /* the last byte may start a character of its own */
            s->held_len = 1;
            utf8_stream_end(s, out);
        }
    }
}

void utf8_stream_end(struct utf8_stream *s, struct text *out)
{
    if (s->held_len > 0)
        text_put(out, STR("\uFFFD"));
    s->held_len = 0;
}
