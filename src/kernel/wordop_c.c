/* wordop_c.c - wordop.h in portable C, and the choice of a level. */
#include "kernel/wordop.h"

/* Four at a time: how many a word has cannot be foreseen, and a branch for each would be. */
static int numbers(const uint64_t *word, const uint64_t *mask, int n, int32_t first, int32_t *out) {
    int32_t *key = out;
    for (int i = 0; i < n; i++, first += 64) {
        uint64_t left = word[i] & mask[i];
        int bits = fvi_count_bits(left);
        for (int32_t *to = key; left != 0; to += 4) {
            for (int k = 0; k < 4; k++) {
                to[k] = first + __builtin_ctzll(left | UINT64_C(1) << 63);
                left &= left - (left != 0);
            }
        }
        key += bits;
    }
    return (int)(key - out);
}

static void addresses(const int32_t *key, int n, const void *base, int64_t row_bytes, const void **at) {
    for (int i = 0; i < n; i++) {
        at[i] = (const uint8_t *)base + key[i] * row_bytes;
    }
}

static void tally(const uint64_t *const *row, int rows, fvi_tally *t) {
    for (int r = 0; r < rows; r++) {
        for (int i = 0; i < FVI_TALLY_WORDS; i++) {
            uint64_t carry = row[r][i];
            for (int k = 0; k < FVI_TALLY_PLANES; k++) {
                uint64_t both = t->plane[k][i] & carry;
                t->plane[k][i] ^= carry;
                carry = both;
            }
            t->over[i] |= carry;
        }
    }
}

static void visits(const fvi_tally *t, const uint64_t key[FVI_TALLY_WORDS], int64_t rows[FVI_TALLY_WORDS]) {
    for (int i = 0; i < FVI_TALLY_WORDS; i++) {
        rows[i] = 0;
        for (int k = 0; k < FVI_TALLY_PLANES; k++) {
            rows[i] += (int64_t)fvi_count_bits(t->plane[k][i] & key[i]) << k;
        }
    }
}

void fvi_word_c(fvi_word_ops *ops) { *ops = (fvi_word_ops){numbers, addresses, tally, visits}; }

void fvi_word_init(const fvi_cpu *cpu, fvi_word_ops *ops) {
    fvi_word_c(ops);
#if defined(__x86_64__)
    if (cpu->avx512) {
        fvi_word_avx512(ops);
    }
    if (cpu->avx512_vbmi2) {
        fvi_word_avx512vbmi2(ops);
    }
#else
    (void)cpu;
#endif
}
