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

/* A word and its ids. An empty slot has size 0. One line of the CPU's cache. */
enum { FVI_WORD_BYTES = 22, FVI_WORD_IDS = 10 };
typedef struct fvi_word {
    uint8_t size, n;
    char bytes[FVI_WORD_BYTES];
    int32_t id[FVI_WORD_IDS];
} fvi_word;

/* Neighbours in a text that is being merged, as a list over an array. */
typedef struct fvi_symbol {
    int32_t previous, next; /* -1 at the ends */
    int32_t id;             /* -1: no token, never merges; past the vocabulary: a character that is only part of tokens */
    int32_t rank;           /* of the merge with the next one; -1: none */
} fvi_symbol;

typedef struct fvi_scratch {
    fvi_symbol *symbol;
    int64_t symbols;
    uint64_t *heap; /* rank << 32 | position */
    int64_t heap_capacity;
    char *text; /* a fragment behind its space prefix */
    int64_t text_capacity;
} fvi_scratch;

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
    size_t merges;

    int32_t *special; /* control and user-defined tokens in the order of their bytes */
    int32_t specials;
    bool special_first[256], user_first[256]; /* bytes that a control or user-defined token, a user-defined one starts with */

    /* SentencePiece-style only, see spm.c */
    uint32_t *lone; /* characters that are in tokens but are none themselves, ascending; ids n, n + 1, ... */
    int64_t lones, lone_capacity;
    uint64_t *joint;    /* a bit for the hash of each pair of characters that stand side by side in some token */
    int32_t (*part)[2]; /* of unused tokens, n pairs; NULL if the vocabulary has none */

    fvi_word *word; /* FVI_WORD_SLOTS */
};

/* Reads the tokenizer of an open file; `g` is not kept. FV_ERR_FORMAT names file and field. */
fv_status fvi_vocab_from_gguf(fv_context *ctx, const fvi_gguf *g, fv_vocab **out);

#endif
