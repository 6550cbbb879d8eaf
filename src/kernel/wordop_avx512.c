/* wordop_avx512.c - wordop.h at level avx512: 16 numbers are compressed at once, and eight words are one register. */
#include "kernel/avx512_inline.h"
#include "kernel/wordop.h"

static int numbers(const uint64_t *word, const uint64_t *mask, int n, int32_t first, int32_t *out) {
    const __m512i step = _mm512_set1_epi32(LANES);
    __m512i number =
        _mm512_add_epi32(_mm512_set1_epi32(first), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    int32_t *to = out;
    for (int i = 0; i < n; i++) {
        uint64_t left = word[i] & mask[i];
        UNROLL for (int part = 0; part < 4; part++) {
            /* What follows the numbers is anything: were it 0, the register would have to wait for the numbers before. */
            __mmask16 in = (__mmask16)(left >> (LANES * part));
            _mm512_storeu_si512(to, _mm512_mask_compress_epi32(number, in, number));
            to += __builtin_popcount(in);
            number = _mm512_add_epi32(number, step);
        }
    }
    return (int)(to - out);
}

/* Whole registers are stored without a mask: what a masked store has written cannot be read at once. */
static void addresses(const int32_t *key, int n, const void *base, int64_t row_bytes, const void **at) {
    const __m512i first = _mm512_set1_epi64((int64_t)(uintptr_t)base), by = _mm512_set1_epi64(row_bytes);
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        __m512i number = _mm512_cvtepi32_epi64(_mm256_loadu_si256((const void *)(key + i)));
        _mm512_storeu_si512(at + i, _mm512_add_epi64(first, _mm512_mullo_epi64(number, by)));
    }
    for (; i < n; i++) {
        at[i] = (const uint8_t *)base + key[i] * row_bytes;
    }
}

static void tally(const uint64_t *const *row, int rows, fvi_tally *t) {
    __m512i plane[FVI_TALLY_PLANES], over = _mm512_load_si512(t->over);
    UNROLL for (int k = 0; k < FVI_TALLY_PLANES; k++) { plane[k] = _mm512_load_si512(t->plane[k]); }
    for (int r = 0; r < rows; r++) {
        __m512i carry = _mm512_loadu_si512(row[r]);
        UNROLL for (int k = 0; k < FVI_TALLY_PLANES; k++) {
            __m512i both = _mm512_and_si512(plane[k], carry);
            plane[k] = _mm512_xor_si512(plane[k], carry);
            carry = both;
        }
        over = _mm512_or_si512(over, carry);
    }
    UNROLL for (int k = 0; k < FVI_TALLY_PLANES; k++) { _mm512_store_si512(t->plane[k], plane[k]); }
    _mm512_store_si512(t->over, over);
}

static void visits(const fvi_tally *t, const uint64_t key[FVI_TALLY_WORDS], int64_t rows[FVI_TALLY_WORDS]) {
    for (int i = 0; i < FVI_TALLY_WORDS; i++) {
        int64_t sum = 0;
        UNROLL for (int k = 0; k < FVI_TALLY_PLANES; k++) { sum += (int64_t)_mm_popcnt_u64(t->plane[k][i] & key[i]) << k; }
        rows[i] = sum;
    }
}

void fvi_word_avx512(fvi_word_ops *ops) { *ops = (fvi_word_ops){numbers, addresses, tally, visits}; }
