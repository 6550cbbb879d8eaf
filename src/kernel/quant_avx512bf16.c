/* quant_avx512bf16.c - quantised rows to bf16. A scale is at least 2^-24 or 0, so no product is subnormal and the processor's
 * conversion gives the bits of the portable one. */
#include "kernel/avx512_inline.h"

#include "kernel/quant.h"

/* The scales of n rows as f32, scale[i][j]; those of rows from n on are not read. */
INLINE void widen_scales(const uint16_t *scale, int n, int d, float wide[8][FVI_QUANT_ROWS]) {
    for (int i = 0; i < d / FVI_QUANT_BLOCK; i++) {
        for (int j = 0; j < n; j += LANES) {
            __m256i h = _mm256_maskz_loadu_epi16(first(n - j), scale + i * FVI_QUANT_ROWS + j);
            _mm512_storeu_ps(&wide[i][j], _mm512_cvtph_ps(h));
        }
    }
}

static void from_q8_0(const void *rows, int64_t row_bytes, const uint16_t *scale, int n, int d, uint16_t *out) {
    float wide[8][FVI_QUANT_ROWS];
    widen_scales(scale, n, d, wide);
    for (int j = 0; j < n; j++) {
        const uint8_t *row = (const uint8_t *)rows + j * row_bytes;
        for (int i = 0; i < d / FVI_QUANT_BLOCK; i++, row += FVI_QUANT_BLOCK, out += FVI_QUANT_BLOCK) {
            __m512 by = _mm512_set1_ps(wide[i][j]);
            __m512 a = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)row)));
            __m512 b = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(row + LANES))));
            _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(b, by), _mm512_mul_ps(a, by)));
        }
    }
}

static void from_q4_0(const void *rows, int64_t row_bytes, const uint16_t *scale, int n, int d, uint16_t *out) {
    const __m512 value = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    float wide[8][FVI_QUANT_ROWS];
    widen_scales(scale, n, d, wide);
    for (int j = 0; j < n; j++) {
        const uint8_t *row = (const uint8_t *)rows + j * row_bytes;
        for (int i = 0; i < d / FVI_QUANT_BLOCK; i++, row += FVI_QUANT_BLOCK / 2, out += FVI_QUANT_BLOCK) {
            __m512 by = _mm512_set1_ps(wide[i][j]);
            __m512i q = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)row));
            __m512 a = _mm512_permutexvar_ps(q, value), b = _mm512_permutexvar_ps(_mm512_srli_epi32(q, 4), value);
            _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(b, by), _mm512_mul_ps(a, by)));
        }
    }
}

void fvi_quant_avx512bf16(fvi_quant_ops *ops) {
    ops->name = "avx512bf16";
    ops->to_bf16[FV_Q8_0] = from_q8_0;
    ops->to_bf16[FV_Q4_0] = from_q4_0;
}
