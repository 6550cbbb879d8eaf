/* wordop.h - words of 64 keys each, behind a run-time table: their numbers, and how many rows have them. All levels agree. */
#ifndef FVI_KERNEL_WORDOP_H
#define FVI_KERNEL_WORDOP_H

#include "base/base.h"

enum { FVI_TALLY_PLANES = 8, FVI_TALLY_WORDS = 8, FVI_NUMBERS_OVER = 16 };

/* How many rows have each key of eight words: bit j of plane[k][i] is worth 2^k rows that have key j of word i. */
typedef struct fvi_tally {
    _Alignas(64) uint64_t plane[FVI_TALLY_PLANES][FVI_TALLY_WORDS];
    _Alignas(64) uint64_t over[FVI_TALLY_WORDS]; /* rows are too many for the planes */
} fvi_tally;

typedef struct fvi_word_ops {
    /* Numbers of the bits of word[i] & mask[i], i < n, bit j of word i being first + 64 i + j, ascending; returns how many. Up to
     * FVI_NUMBERS_OVER elements of `out` past them may be overwritten. */
    int (*numbers)(const uint64_t *word, const uint64_t *mask, int n, int32_t first, int32_t *out);
    /* at[i] = base + key[i] * row_bytes, i < n. */
    void (*addresses)(const int32_t *key, int n, const void *base, int64_t row_bytes, const void **at);
    /* Adds the eight words that stand at each of row[0] .. row[rows - 1], anywhere, to a tally. */
    void (*tally)(const uint64_t *const *row, int rows, fvi_tally *tally);
    /* rows[i] = how many rows have the keys of key[i], summed over them; of keys that too many rows have, anything. */
    void (*visits)(const fvi_tally *tally, const uint64_t key[FVI_TALLY_WORDS], int64_t rows[FVI_TALLY_WORDS]);
} fvi_word_ops;

/* Portable C first, then overwritten level by level up to what `cpu` allows. */
void fvi_word_init(const fvi_cpu *cpu, fvi_word_ops *ops);

void fvi_word_c(fvi_word_ops *ops);
void fvi_word_avx512(fvi_word_ops *ops);
void fvi_word_avx512vbmi2(fvi_word_ops *ops); /* numbers */

#endif
