/*
 * tokenizer.c: byte-level BPE. First the vocabulary out of the model file, then text -> tokens,
 * then the stream of tokens -> text. Knows nothing of chat. The byte alphabet is GPT-2's; what
 * counts as equal is Hugging Face's `tokenizers`.
 */
#include "ml/tokenizer.h"

#define NONE     TOKEN_NONE
#define KIND_END 0x80u /* flag beside the kind: ends a generation */

/* The texts of special tokens as a tree, siblings in a list. */
struct twig {
    u32 child, sibling, token;
    char byte;
};

struct tokenizer {
    const struct pretok *pretok;
    struct tokenizer_facts facts;
    u8 *kind;   /* token_kind, maybe with KIND_END */
    u32 *start; /* token t is text[start[t] .. start[t + 1]] */
    char *text;
    struct names words; /* the normal tokens by text */
    u32 byte[256];      /* token of a single byte */
    struct bpe bpe;
    struct twig *twig; /* twig 0 is the root */
    u32 twig_count;
};

/* What a tokenizer is loaded with. */
struct load {
    const struct gguf *gguf;
    struct arena *arena;
    struct text *reason;
};

/* ---- words of the vocabulary ---- */

/*
 * GPT-2 writes each byte as a printable character: printable Latin-1 as itself, the 68 others as
 * U+0100 and on. Returns the bytes written, 0 when a character is none of these.
 */
static usize bytes_of_word(struct str text, char *out)
{
    usize n = 0, len;
    u32 c;

    for (; text.len > 0; text = str_slice(text, len, text.len)) {
        len = utf8_decode(text, &c);
        if (len == 0 || c > 0x100 + 67 || c <= ' ' || (c >= 0x7f && c <= 0xa0) || c == 0xad)
            return 0;
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
    usize len = kind == TOKEN_NORMAL ? bytes_of_word(word, to) : 0;

    if (kind < TOKEN_NORMAL || kind > TOKEN_BYTE)
        return gguf_refuse(reason, E_FORMAT, "token %u has type %ld, want 1 to 6", token, kind);
    if (len == 0)
        memcpy(to, word.ptr, word.len);
    t->kind[token] = (u8)kind;
    t->start[token + 1] = t->start[token] + (u32)(len > 0 ? len : word.len);
    if (len > 0 && names_put(&t->words, token) != OK)
        return gguf_refuse(reason, E_FORMAT, "token %u is there twice", token);
    return OK;
}

static err load_vocabulary(struct tokenizer *t, const struct load *load)
{
    const struct gguf_key *tokens, *kinds;
    struct str rest, word;

    if (gguf_array(load->gguf, "tokenizer.ggml.tokens", GGUF_STRING, &tokens) != OK ||
        gguf_array(load->gguf, "tokenizer.ggml.token_type", GGUF_I32, &kinds) != OK)
        return gguf_refuse(load->reason, E_FORMAT, "no tokenizer.ggml.tokens or token_type");
    t->facts.vocab = tokens->count;
    if (t->facts.vocab != kinds->count || t->facts.vocab == 0 || t->facts.vocab > TOKEN_VOCAB_MAX)
        return gguf_refuse(load->reason, E_FORMAT, "%u tokens and %u types, want equal, 1 to %u",
                           t->facts.vocab, kinds->count, TOKEN_VOCAB_MAX);
    t->kind = arena_new(load->arena, u8, t->facts.vocab);
    t->start = arena_new(load->arena, u32, t->facts.vocab + 1);
    t->text = arena_new(load->arena, char, tokens->data.len - 8 * t->facts.vocab + 1);
    t->words = (struct names){.table = t, .name = token_text};
    if (!t->kind || !t->start || !t->text ||
        names_init(&t->words, load->arena, t->facts.vocab) != OK)
        return gguf_refuse(load->reason, E_NOMEM, "no memory for %u tokens", t->facts.vocab);
    rest = tokens->data;
    for (u32 i = 0; i < t->facts.vocab; i++) {
        word = gguf_cut_str(&rest);
        if (word.len > TOKEN_BYTES_MAX)
            return gguf_refuse(load->reason, E_LIMIT, "token %u has %lu bytes", i, word.len);
        TRY(add_token(t, i, word, (i64)gguf_number(kinds, i), load->reason));
    }
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

    if (text.len > sizeof(bytes))
        return false;
    left_len = bytes_of_word(left, bytes);
    right_len = bytes_of_word(right, bytes + left_len);
    merge->left = names_find(&t->words, (struct str){bytes, left_len});
    merge->right = names_find(&t->words, (struct str){bytes + left_len, right_len});
    merge->into = names_find(&t->words, (struct str){bytes, left_len + right_len});
    return merge->left != NONE && merge->right != NONE && merge->into != NONE;
}

static err load_merges(struct tokenizer *t, const struct load *load)
{
    const struct gguf_key *merges;
    struct str rest;
    u32 left_out = 0;

    if (gguf_array(load->gguf, "tokenizer.ggml.merges", GGUF_STRING, &merges) != OK ||
        merges->count > TOKEN_MERGES_MAX)
        return gguf_refuse(load->reason, E_FORMAT, "want up to %u tokenizer.ggml.merges",
                           TOKEN_MERGES_MAX);
    if (bpe_init(&t->bpe, load->arena, t->start, merges->count) != OK)
        return gguf_refuse(load->reason, E_NOMEM, "no memory for %u merges", merges->count);
    rest = merges->data;
    for (u32 i = 0; i < merges->count; i++) {
        struct str text = gguf_cut_str(&rest);
        struct merge merge;

        if (str_find_char(text, ' ') == text.len)
            return gguf_refuse(load->reason, E_FORMAT, "merge %u has no space", i);
        left_out += !parse_merge(t, text, &merge) || !bpe_add(&t->bpe, &merge);
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

    while (at != 0 && t->twig[at].byte != byte)
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
        next = ++t->twig_count;
        t->twig[next] = (struct twig){0, t->twig[at].child, NONE, text.ptr[i]};
        t->twig[at].child = next;
    }
    if (t->twig[at].token == NONE) /* of equal texts the first one counts */
        t->twig[at].token = token;
}

/* The longest special token that starts at `at`; a control token must end within `control_end`. */
static u32 special_at(const struct tokenizer *t, struct str text, usize at, usize control_end)
{
    u32 twig = 0, found = NONE;

    for (usize i = at; i < text.len; i++) {
        twig = twig_find(t, twig, text.ptr[i]);
        if (twig == 0)
            break;
        u32 token = t->twig[twig].token;
        if (token != NONE && (i < control_end || tokenizer_kind(t, token) == TOKEN_USER_DEFINED))
            found = token;
    }
    return found;
}

static err load_id(const struct tokenizer *t, const struct load *load, const char *key, u32 *token)
{
    err e = gguf_u32(load->gguf, key, token);

    if (e != E_NOTFOUND && (e != OK || *token >= t->facts.vocab))
        return gguf_refuse(load->reason, E_FORMAT, "%s is no token of %u", key, t->facts.vocab);
    return OK;
}

static err load_ends(struct tokenizer *t, const struct load *load)
{
    static const char *const texts[] = {
        "<|im_end|>",      "<|eot_id|>",    "<|eom_id|>", "<|end|>", "<|endoftext|>",
        "<|end_of_text|>", "<end_of_turn>", "<EOT>",      "</s>",    "<｜end▁of▁sentence｜>"};
    static const char *const keys[] = {"tokenizer.ggml.eom_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eos_token_id"};

    for (u32 i = 0; i < ARRAY_LEN(texts); i++) {
        u32 token = tokenizer_find(t, str_of(texts[i]));

        if (token != NONE && is_special(t->kind[token]))
            t->kind[token] |= KIND_END;
    }
    for (u32 i = 0; i < ARRAY_LEN(keys); i++) {
        t->facts.eos = NONE; /* the last of the keys */
        TRY(load_id(t, load, keys[i], &t->facts.eos));
        if (t->facts.eos != NONE)
            t->kind[t->facts.eos] |= KIND_END;
    }
    return OK;
}

static err load_specials(struct tokenizer *t, const struct load *load)
{
    usize bytes = 1;
    u32 adds_bos;

    for (u32 i = 0; i < t->facts.vocab; i++)
        bytes += is_special(t->kind[i]) ? token_text(t, i).len : 0;
    t->twig = arena_new(load->arena, struct twig, bytes);
    if (t->twig == NULL)
        return gguf_refuse(load->reason, E_NOMEM, "no memory for special tokens");
    for (u32 i = 0; i < t->facts.vocab; i++) {
        if (is_special(t->kind[i]) && token_text(t, i).len > 0)
            twig_add(t, i);
    }
    TRY(load_ends(t, load));
    t->facts.bos = NONE;
    TRY(load_id(t, load, "tokenizer.ggml.bos_token_id", &t->facts.bos));
    adds_bos = t->pretok->adds_bos && t->facts.bos != NONE;
    (void)!gguf_u32(load->gguf, "tokenizer.ggml.add_bos_token", &adds_bos);
    t->facts.adds_bos = adds_bos != 0;
    if (t->facts.adds_bos && t->facts.bos == NONE)
        return gguf_refuse(load->reason, E_FORMAT, "add_bos_token without a bos_token_id");
    return OK;
}

err tokenizer_open(struct tokenizer **tok, const struct gguf *gguf, struct arena *arena,
                   struct text *reason)
{
    struct tokenizer *t = *tok = arena_new(arena, struct tokenizer, 1);
    struct load load = {gguf, arena, reason};
    struct str model = {}, pre = {};

    if (t == NULL)
        return gguf_refuse(reason, E_NOMEM, "no memory for the tokenizer");
    (void)!gguf_str(gguf, "tokenizer.ggml.model", &model);
    (void)!gguf_str(gguf, "tokenizer.ggml.pre", &pre);
    t->pretok = pretok_find(pre);
    if (t->pretok == NULL || !str_eq(model, STR("gpt2")))
        return gguf_refuse(reason, E_UNSUPPORTED, "tokenizer \"%.*s\" with pre-tokenizer \"%.*s\"",
                           (int)min_u64(model.len, 32), model.ptr, (int)min_u64(pre.len, 32),
                           pre.ptr);
    TRY(load_vocabulary(t, &load));
    TRY(load_merges(t, &load));
    return load_specials(t, &load);
}

/* ---- questions ---- */

const struct tokenizer_facts *tokenizer_facts(const struct tokenizer *t)
{
    return &t->facts;
}

bool tokenizer_is_end(const struct tokenizer *t, u32 token)
{
    return token < t->facts.vocab && (t->kind[token] & KIND_END);
}

enum token_kind tokenizer_kind(const struct tokenizer *t, u32 token)
{
    return token < t->facts.vocab ? (enum token_kind)(t->kind[token] & ~KIND_END) : TOKEN_UNUSED;
}

struct str tokenizer_text(const struct tokenizer *t, u32 token)
{
    return token < t->facts.vocab ? token_text(t, token) : STR("");
}

u32 tokenizer_find(const struct tokenizer *t, struct str text)
{
    u32 token = special_at(t, text, 0, text.len);

    return token != NONE && token_text(t, token).len == text.len ? token
                                                                 : names_find(&t->words, text);
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
    u32 places = 0, whole = t->pretok->ignore_merges ? names_find(&t->words, word) : NONE;

    if (whole != NONE) {
        put_token(out, whole);
        return;
    }
    for (usize i = 0; i < word.len; i++) { /* a byte without a token is left out, as if unsaid */
        u32 token = t->byte[(u8)word.ptr[i]];

        if (token != NONE)
            t->bpe.place[places++].symbol = token;
    }
    bpe_word(&t->bpe, places);
    for (u32 i = 0; i < places; i = bpe_next(&t->bpe, i))
        put_token(out, t->bpe.place[i].symbol);
}

static void encode_words(struct tokenizer *t, struct str text, struct token_list *out)
{
    for (usize len; text.len > 0; text = str_slice(text, len, text.len)) {
        len = pretok_next(t->pretok, text);
        encode_word(t, str_slice(text, 0, len), out);
    }
}

/* `text` is that of all parts. */
static void encode_joined(struct tokenizer *t, struct str text, const struct ml_part *part,
                          u32 part_count, struct token_list *out)
{
    usize from = 0, at = 0, end = 0;

    for (u32 i = 0; i < part_count; i++) {
        end += part[i].text.len;
        if (i + 1 < part_count && part[i + 1].kind == part[i].kind)
            continue; /* neighbours of one kind count as one part */
        while (at < end) {
            u32 token = special_at(t, text, at, part[i].kind == ML_PART_TEMPLATE ? end : 0);

            if (token == NONE) {
                at++;
                continue;
            }
            encode_words(t, str_slice(text, from, at), out);
            put_token(out, token);
            from = at += token_text(t, token).len;
        }
    }
    encode_words(t, str_slice(text, from, text.len), out);
}

err tokenizer_encode(struct tokenizer *t, struct arena *scratch, const struct ml_part *part,
                     u32 part_count, struct token_list *out)
{
    usize mark = arena_mark(scratch), len = 0;
    struct text text = {};

    for (u32 i = 0; i < part_count; i++)
        len += part[i].text.len;
    if (len <= BPE_PLACES_MAX) {
        text = (struct text){arena_new(scratch, char, len + 1), 0, len, false};
        t->bpe.place = arena_new(scratch, struct bpe_place, len + 1);
    }
    if (text.ptr == NULL || t->bpe.place == NULL) {
        arena_reset(scratch, mark);
        return E_NOMEM;
    }
    for (u32 i = 0; i < part_count; i++)
        text_put(&text, part[i].text);
    encode_joined(t, text_str(&text), part, part_count, out);
    arena_reset(scratch, mark);
    return out->count > out->max ? E_LIMIT : OK;
}
