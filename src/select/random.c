/* random.c - keys at random: the yardstick that any selection has to beat, and the load that the executor is measured with.
 *
 * No paper. Blocks of 64 keys are drawn for each head and query tile, or single columns for each head, or keys for each row, by a
 * hash of their numbers. What a tile has of blocks or columns includes its own block and the first one, and each row its own key,
 * so that no row is empty. Rows take their own keys from one long string of random words, each from another place on. */
#include "select/select.h"

#include <string.h>

enum { DENSITY, COLUMNS, SEED, SHARED, PLACES = 4096 };
enum { BY_BLOCKS, BY_COLUMNS, BY_ROWS };

/* splitmix64 of the four numbers. */
static uint64_t hash(uint64_t seed, uint64_t head, uint64_t tile, uint64_t what) {
    uint64_t x =
        seed * 0x9e3779b97f4a7c15u ^ head * 0xbf58476d1ce4e5b9u ^ tile * 0x94d049bb133111ebu ^ what * 0xd6e8feb86659fd93u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Uniform in [0, 1). */
static double draw(uint64_t seed, uint64_t head, uint64_t tile, uint64_t what) {
    return (double)(hash(seed, head, tile, what) >> 11) * 0x1p-53;
}

static uint64_t draw_word(const fvi_select *s, uint64_t tile, int64_t b, double density) {
    uint64_t word = 0;
    for (int j = 0; j < FVI_BLOCK; j++) {
        double x = draw((uint64_t)s->value[SEED], (uint64_t)s->sight->head, tile, (uint64_t)(b * FVI_BLOCK + j));
        word |= (uint64_t)(x < density) << j;
    }
    return word;
}

/* A word of the string: each bit is set with the density, rounded to 16 binary digits; each takes a word of random bits. */
static uint64_t string_word(const fvi_select *s, int64_t b, double density) {
    const int64_t digits = (int64_t)(density * 0x1p16 + 0.5);
    uint64_t word = 0;
    for (int k = 0; k < 16 && digits < 0x10000; k++) {
        uint64_t bits = hash((uint64_t)s->value[SEED], (uint64_t)s->sight->head, UINT64_MAX - 1, (uint64_t)(b * 16 + k));
        word = digits >> k & 1 ? word | bits : word & bits;
    }
    return digits < 0x10000 ? word : UINT64_MAX;
}

/* Words of columns, and behind them the string of words that rows take theirs from. */
static size_t head_bytes(const double *value, const fvi_extent *extent) {
    size_t blocks = (size_t)fvi_ceil_div(extent->n_kv, FVI_BLOCK);
    return (blocks + (value[COLUMNS] == BY_ROWS ? blocks + PLACES : 0)) * sizeof(uint64_t);
}

/* Columns are the same for all tiles of a head. */
static void prepare(const fvi_select *s) {
    uint64_t *column = s->head_state;
    const int64_t blocks = fvi_ceil_div(s->sight->n_kv, FVI_BLOCK);
    const bool rows = s->value[COLUMNS] == BY_ROWS;
    const double shared = rows ? s->value[SHARED] : 1;
    for (int64_t b = 0; s->value[COLUMNS] != BY_BLOCKS && b < blocks; b++) {
        column[b] = shared > 0 ? draw_word(s, UINT64_MAX, b, s->value[DENSITY] * shared) : 0;
    }
    for (int64_t b = 0; rows && b < blocks + PLACES; b++) {
        column[blocks + b] = string_word(s, b, s->value[DENSITY] * (1 - shared));
    }
}

/* ---- keys for each row ---- */

typedef struct row_lists { /* in seen_state, (64, blocks) words behind it */
    int64_t first, blocks;
    uint64_t *word;
} row_lists;

static size_t seen_bytes(const double *value, const fvi_extent *extent) {
    size_t words = (size_t)(FVI_BLOCK * fvi_ceil_div(extent->n_kv, FVI_BLOCK));
    return value[COLUMNS] == BY_ROWS ? 64 + words * sizeof(uint64_t) : 0;
}

static const uint64_t *row_words(const void *arg, int64_t position) {
    const row_lists *x = arg;
    return x->word + (position - x->first) * x->blocks;
}

static uint64_t seen(const void *arg, int64_t position, int64_t block) { return row_words(arg, position)[block]; }

static void tile_of_rows(const fvi_select *s, const fvi_query_tile *q, int64_t end, fvi_index *index) {
    row_lists *x = s->seen_state;
    const uint64_t *column = s->head_state, *string = column + index->blocks;
    *x = (row_lists){q->first, index->blocks, (uint64_t *)((uint8_t *)s->seen_state + 64)};
    for (int64_t i = 0; i < FVI_BLOCK; i++) {
        const int64_t position = q->first + i, own = position / FVI_BLOCK;
        uint64_t *word = x->word + i * x->blocks;
        double at = draw((uint64_t)s->value[SEED], (uint64_t)s->sight->head, (uint64_t)position, UINT64_MAX);
        const uint64_t *from = string + (int64_t)(at * PLACES);
        for (int64_t b = 0; b < end; b++) {
            word[b] = column[b] | from[b];
            index->key[b] |= word[b];
        }
        if (position >= 0 && own < end) {
            word[own] |= UINT64_C(1) << position % FVI_BLOCK;
            index->key[own] |= word[own];
        }
    }
    for (int64_t b = 0; b < end; b++) {
        fvi_index_add_apart(index, b, 0);
    }
    index->seen = seen;
    index->row = row_words;
    index->seen_arg = x;
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const int64_t end = s->sight->causal ? fvi_min(index->blocks, q->last / FVI_BLOCK + 1) : index->blocks;
    if (s->value[COLUMNS] == BY_ROWS) {
        tile_of_rows(s, q, end, index);
        return;
    }
    for (int64_t b = 0; b < end; b++) {
        uint64_t tile = (uint64_t)(q->first / FVI_BLOCK);
        if (s->value[COLUMNS] == BY_COLUMNS) {
            index->key[b] |= ((const uint64_t *)s->head_state)[b];
        } else if (draw((uint64_t)s->value[SEED], (uint64_t)s->sight->head, tile, (uint64_t)b) < s->value[DENSITY]) {
            fvi_index_add_block(index, b);
        }
    }
    fvi_index_add(index, 0, FVI_BLOCK);
    fvi_index_add(index, q->first, q->last + 1);
}

const fvi_selector fvi_select_random = {.query_block = 64,
                                        .scope = FVI_SCOPE_TILE,
                                        .head_bytes = head_bytes,
                                        .seen_bytes = seen_bytes,
                                        .prepare = prepare,
                                        .tile = tile};
