/* quant_avx2.c - quant.h for AVX2: the portable loops, but for q8_0's rounding. */
#include "kernel/quant_inline.h"

#include <immintrin.h>

enum { LANES = 8, PARTS = FVI_QUANT_BLOCK / LANES };

static uint32_t largest_of(const __m256 x[PARTS]) {
    __m256i most = _mm256_setzero_si256(), sizes = _mm256_set1_epi32(0x7fffffff);
    for (int i = 0; i < PARTS; i++) {
        most = _mm256_max_epu32(most, _mm256_and_si256(_mm256_castps_si256(x[i]), sizes));
    }
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1)));
}

static void q8_0(const float *x, int d, void *row, uint16_t *scale) {
    /* packing works within halves: fours of the four parts come out in this order */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    int8_t *q = row;
    for (; d > 0; d -= FVI_QUANT_BLOCK, x += FVI_QUANT_BLOCK, q += FVI_QUANT_BLOCK, scale += FVI_QUANT_ROWS) {
        __m256 part[PARTS];
        __m256i n[PARTS];
        for (int i = 0; i < PARTS; i++) {
            part[i] = _mm256_loadu_ps(x + i * LANES);
        }
        uint32_t largest = largest_of(part);
        float size;
        memcpy(&size, &largest, sizeof size);
        float by = quant_scale(largest, size / 127.0f, scale);
        if (by == 0) {
            memset(q, 0, FVI_QUANT_BLOCK);
            continue;
        }
        for (int i = 0; i < PARTS; i++) {
            n[i] = _mm256_cvtps_epi32(_mm256_mul_ps(part[i], _mm256_set1_ps(by)));
        }
        __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3]));
        _mm256_storeu_si256((__m256i *)q, _mm256_permutevar8x32_epi32(bytes, order));
    }
}

void fvi_quant_avx2(fvi_quant_ops *ops) {
    *ops = quant_plain("avx2");
    ops->quantise[FV_Q8_0] = q8_0;
}
