/* vocab.h - inside a vocabulary: pieces as the bytes they stand for, merges as a table of pairs of ids, a cache of words.
 *
 * Both kinds of vocabulary come down to one machine. A byte-level one lists its merges; a SentencePiece-style one implies
 * them (two neighbours merge if their concatenation is a piece, the best score first), so loading writes them out as pairs
 * of ids too. What differs is how text is cut before (pretokenize.c, spm.c) and what the first symbols are: bytes or
 * characters.
 *
 * The word cache and the scratch are written during fv_tokenize, though the vocabulary is const there: one thread at a
 * time calls a context, and a vocabulary belongs to one context.
 */
#ifndef FVI_VOCAB_H
#define FVI_VOCAB_H

#include "fovea/model.h"
#include "model/gguf.h"

typedef enum fvi_vocab_kind { FVI_VOCAB_GPT2 = 0, FVI_VOCAB_SMOLLM, FVI_VOCAB_QWEN2, FVI_VOCAB_LLAMA } fvi_vocab_kind;

/* As in the files' token_type. */
typedef enum fvi_token_type {
    FVI_TOKEN_NORMAL = 1,
    FVI_TOKEN_UNKNOWN,
    FVI_TOKEN_CONTROL,
    FVI_TOKEN_USER,
    FVI_TOKEN_UNUSED,
    FVI_TOKEN_BYTE
} fvi_token_type;

/* left + right -> result; the lowest rank goes first. Empty slots have left == -1. */
typedef struct fvi_merge {
    int32_t left, right;
    int32_t rank, result;
} fvi_merge;

/* A word and its ids; size 0 is an empty slot. One line of the CPU's cache. */
enum { FVI_WORD_BYTES = 22, FVI_WORD_IDS = 10, FVI_WORD_SLOTS = 1 << 14 };
typedef struct fvi_word {
    uint8_t size, n;
    char bytes[FVI_WORD_BYTES];
    int32_t id[FVI_WORD_IDS];
} fvi_word;

typedef struct fvi_symbol fvi_symbol;

/* What one fv_tokenize works with; grows, is released at its end. */
typedef struct fvi_scratch {
    int32_t *unit; /* what is to be merged: the tokens of bytes or characters. -1: no token, never merges; past the vocabulary:
                      a character that is only part of tokens */
    int64_t units;
    int32_t *id; /* what became of it */
    int64_t ids, id_capacity;
    fvi_symbol *symbol;
    int64_t symbols;
    uint64_t *heap;
    int64_t heap_capacity;
    char *text; /* a stretch behind its space prefix */
    int64_t text_capacity;
} fvi_scratch;

enum { FVI_JOINT_WORDS = 1024 };

struct fv_vocab {
    fv_context *ctx;
    fvi_vocab_kind kind;
    int32_t n;

    char *bytes;     /* all pieces, one after the other: U+2581 is ' ', byte-level letters are bytes, byte tokens their byte */
    uint32_t *start; /* n + 1 */
    uint8_t *type;   /* n, fvi_token_type */
    size_t bytes_size, longest;

    int32_t bos, eos, eot, unknown; /* -1: none */
    bool add_bos, add_space_prefix;
    int32_t byte_id[256]; /* -1: none */

    int32_t *slot; /* open addressing over the pieces that text can become; -1 is empty. A power of two */
    size_t slots;

    fvi_merge *merge; /* likewise over pairs */
    size_t merge_slots;

    int32_t *special; /* control and user-defined tokens in the order of their bytes */
    int32_t specials;
    bool special_first[256], user_first[256]; /* bytes that a control or user-defined token, a user-defined one starts with */

    /* SentencePiece-style only, see spm.c */
    uint32_t *lone; /* characters that are in tokens but are none themselves, ascending; ids n, n + 1, ... */
    int64_t lones, lone_capacity;
    uint64_t *joint;    /* a bit for the hash of each pair of characters that stand side by side in some token */
    int32_t (*part)[2]; /* of unused tokens, n pairs; NULL if the vocabulary has none */

    fvi_word *word; /* FVI_WORD_SLOTS, by hash; a newcomer takes the slot */
};

/* Reads the tokenizer of an open file; `g` is not kept. FV_ERR_FORMAT names file and field. */
fv_status fvi_vocab_from_gguf(fv_context *ctx, const fvi_gguf *g, fv_vocab **out);

static inline size_t fvi_piece_size(const fv_vocab *v, int32_t id) { return v->start[id + 1] - v->start[id]; }
static inline const char *fvi_piece(const fv_vocab *v, int32_t id) { return v->bytes + v->start[id]; }
uint64_t fvi_hash(const char *bytes, size_t size);
/* The token that is exactly these bytes, of those that text can become; -1: none. */
int32_t fvi_vocab_find(const fv_vocab *v, const char *bytes, size_t size);

/* ---- merging (merge.c) ---- */

/* The table for `pairs` merges at most. False: no memory. */
bool fvi_merges_reserve(fv_vocab *v, size_t pairs);
/* A pair that is there already keeps its rank. */
void fvi_merges_add(fv_vocab *v, fvi_merge merge);

/* Room for n units; they are then the caller's to set. */
fv_status fvi_units_reserve(fv_context *ctx, fvi_scratch *scratch, size_t n);
/* Merges the first n units into scratch->id until no merge is left. `cut` is for tests: false takes a long piece as one, which
 * gives the same ids in more time. */
fv_status fvi_units_merge(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, size_t n, bool cut);
/* For tests: merges [0, cut) and [cut, n) apart, 0 < cut < n; *holds says whether that is proven to be the same. */
fv_status fvi_units_merge_at(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, size_t n, size_t cut, bool *holds);
void fvi_scratch_release(fv_context *ctx, fvi_scratch *scratch);

/* ---- words (bpe.c) ---- */

fv_status fvi_tokens_append(fv_context *ctx, fv_tokens *out, const int32_t *id, int64_t n);
/* Appends a word's ids if the cache has them. */
fv_status fvi_word_take(fv_context *ctx, const fv_vocab *v, const char *word, size_t size, fv_tokens *out, bool *hit);
/* Keeps the ids that out has from `first` on as those of a word, if they fit. */
void fvi_word_keep(const fv_vocab *v, const char *word, size_t size, const fv_tokens *out, int64_t first);

/* ---- a stretch of text without special tokens ---- */

fv_status fvi_bpe_encode(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, const char *text, size_t size, fv_tokens *out);
/* `prefix`: the stretch begins the text, where the space prefix goes. */
fv_status fvi_spm_encode(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, const char *text, size_t size, bool prefix,
                         fv_tokens *out);

/* ---- loading ---- */

/* The bytes that a byte-level token's letters stand for, size of them at most; -1 if it is not written in such letters. */
int64_t fvi_bpe_decode(const char *letters, size_t size, char *out);
fv_status fvi_bpe_load(fv_vocab *v, const fvi_gguf *g);
/* The score of each token. */
fv_status fvi_vocab_scores(const fv_vocab *v, const fvi_gguf *g, float *out);
fv_status fvi_spm_load(fv_vocab *v, const fvi_gguf *g);

#endif
