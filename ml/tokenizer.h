/*
 * tokenizer.h: text to tokens and back, byte-level BPE (tokenizer.ggml.model = gpt2) with the
 * file's own vocabulary, merges and pre-tokenizer. Results equal Hugging Face's `tokenizers` on
 * the concatenated text. Knows nothing of chat.
 */
#ifndef NOHOST_TOKENIZER_H
#define NOHOST_TOKENIZER_H

#include "ml/gguf.h"

#define TOKEN_NONE       0xffffffffu
#define TOKEN_VOCAB_MAX  (1u << 20)
#define TOKEN_MERGES_MAX (1u << 20)
#define TOKEN_BYTES_MAX  1024u /* text of one token */
/* What tokenizer_encode needs of the scratch arena, at worst, for a text of so many bytes. */
#define TOKEN_SCRATCH_BYTES(text_bytes) (14 * (usize)(text_bytes) + 4096)

// clang-format off
enum token_kind { /* numbers of tokenizer.ggml.token_type */
    TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER_DEFINED, TOKEN_UNUSED, TOKEN_BYTE
};
// clang-format on

struct tokenizer;
struct tokenizer_facts {
    u32 vocab, bos, eos; /* TOKEN_NONE when the file names none */
    bool adds_bos;       /* the file's wish for a plain prompt */
};

/* Tables live in the arena; the GGUF's memory is not used afterwards. Refusals are gguf_refuse's:
 * E_UNSUPPORTED (model or pre-tokenizer that is not known), E_FORMAT, E_LIMIT, E_NOMEM. */
err tokenizer_open(struct tokenizer **tok, const struct gguf *gguf, struct arena *arena,
                   struct text *reason);

const struct tokenizer_facts *tokenizer_facts(const struct tokenizer *tok);
/* Ends a generation: eos, eot, eom, <|im_end|>, ... */
bool tokenizer_is_end(const struct tokenizer *tok, u32 token);
enum token_kind tokenizer_kind(const struct tokenizer *tok, u32 token);
/* The token's own bytes, maybe half a character; empty when there is no such token. */
struct str tokenizer_text(const struct tokenizer *tok, u32 token);
/* The token of exactly this text, special tokens first; TOKEN_NONE. */
u32 tokenizer_find(const struct tokenizer *tok, struct str text);

/* Caller's memory for `max` tokens. count may pass max: then the first max tokens are there. */
struct token_list {
    u32 *token;
    u32 max, count;
};

/* Appends. Control tokens are recognised in TEMPLATE parts only and never across the border to a
 * USER part; the text between them is tokenized as if the parts were one string. E_LIMIT: more than
 * max, all are counted. E_NOMEM: scratch too small. The scratch is given back. */
err tokenizer_encode(struct tokenizer *tok, struct arena *scratch, const struct ml_part *part,
                     u32 part_count, struct token_list *out);

/* ---- pretok.c ---- */

/* One row per pre-tokenizer: how its regular expression differs from the others of the family. */
struct pretok {
    const char *names;  /* of tokenizer.ggml.pre, separated by spaces */
    bool cl100k;        /* as OpenAI's of that name: a word takes one character in front that is no
                           letter, number or line end (else a space only), contractions ('s, 'll)
                           are of both cases, line ends stick to punctuation, close white space */
    bool split_numbers; /* each number is a text of its own, before everything else */
    bool marks;         /* combining marks count as letters */
    u32 numbers_max;    /* characters of one number; 0: any, after an optional space */
    bool ignore_merges; /* a word that is a token is that token */
    bool adds_bos;      /* when the file does not say */
};

/* NULL when the name is not known. */
const struct pretok *pretok_find(struct str name);
/* Bytes of the first word of a text that is not empty. */
usize pretok_next(const struct pretok *pretok, struct str text);

/* ---- bpe.c: merges the symbols of one word; tokens are numbers that have a length in bytes ----
 */

#define BPE_NONE       TOKEN_NONE
#define BPE_PLACES_MAX 0x7fffffffu

struct merge {
    u32 left, right, into; /* tokens; the length of `into` is the sum of the others' */
};

/* One byte of the word. */
struct bpe_place {
    u32 symbol; /* the token that starts here; at the last byte of a merged one, its first */
    u32 rank;   /* of its merge with the next symbol, or BPE_NONE */
    u32 best;   /* of node i of the tree: the place below it that merges first */
};

struct bpe {
    const u32 *start;    /* token t has start[t + 1] - start[t] bytes */
    struct merge *merge; /* by rank */
    u32 merge_count;
    struct names pairs;
    struct bpe_place *place; /* the caller's, as long as the word */
};

/* E_NOMEM. */
err bpe_init(struct bpe *bpe, struct arena *arena, const u32 *start, u32 merges_max);
/* The merge of the next rank. False: its pair has a rank already, or the table is too crowded. */
bool bpe_add(struct bpe *bpe, const struct merge *merge);
/* place[0 .. places) hold tokens of one byte; what is left starts at 0 and bpe_next of that. */
void bpe_word(struct bpe *bpe, u32 places);
u32 bpe_next(const struct bpe *bpe, u32 place);

#endif
