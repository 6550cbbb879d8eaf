/* wordop_avx512vbmi2.c - numbers of bits by compressing the 64 of a word at once, as bytes. */
#include "kernel/wordop.h"

#include <immintrin.h>

enum { LANES = 16 };

static int numbers(const uint64_t *word, const uint64_t *mask, int n, int32_t first, int32_t *out) {
    _Alignas(64) static const int8_t place[64] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                                  16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
                                                  32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47,
                                                  48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
    const __m512i all = _mm512_load_si512(place);
    int32_t *to = out;
    for (int i = 0; i < n; i++, first += 64) {
        const uint64_t left = word[i] & mask[i];
        const int bits = __builtin_popcountll(left);
        _Alignas(64) int8_t key[64];
        /* What follows the numbers is anything; were it 0, the register would have to wait for the word before. */
        const __m512i base = _mm512_set1_epi32(first), found = _mm512_mask_compress_epi8(all, left, all);
        _mm512_storeu_si512(to, _mm512_add_epi32(base, _mm512_cvtepi8_epi32(_mm512_castsi512_si128(found))));
        if (bits > LANES) {
            _mm512_store_si512(key, found);
            for (int at = LANES; at < bits; at += LANES) {
                __m128i some = _mm_load_si128((const __m128i *)(const void *)(key + at));
                _mm512_storeu_si512(to + at, _mm512_add_epi32(base, _mm512_cvtepi8_epi32(some)));
            }
        }
        to += bits;
    }
    return (int)(to - out);
}

void fvi_word_avx512vbmi2(fvi_word_ops *ops) { ops->numbers = numbers; }
