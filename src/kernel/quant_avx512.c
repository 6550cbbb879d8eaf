/* quant_avx512.c - quant.h for AVX-512: a block is two registers. */
#include "kernel/avx512_inline.h"

#include "kernel/quant_inline.h"

/* ---- quantising ---------------------------------------------------------------------------------------------------- */

INLINE __m512i size_bits(__m512 x) { return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)); }

INLINE float scale_of(uint32_t largest, float d, uint16_t *scale) {
    uint16_t h = (uint16_t)_cvtss_sh(d, _MM_FROUND_TO_NEAREST_INT);
    bool held = largest < 0x7f800000 && (h & 0x7fff) < 0x7c00;
    *scale = held ? h : 0x7e00;
    return held && (h & 0x7fff) != 0 ? 1.0f / d : 0.0f;
}

static void q8_0(const float *x, int d, void *row, uint16_t *scale) {
    int8_t *q = row;
    for (; d > 0; d -= FVI_QUANT_BLOCK, x += FVI_QUANT_BLOCK, q += FVI_QUANT_BLOCK, scale += FVI_QUANT_ROWS) {
        __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + LANES);
        uint32_t largest = _mm512_reduce_max_epu32(_mm512_max_epu32(size_bits(a), size_bits(b)));
        float by = scale_of(largest, _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128((int)largest))) / 127.0f, scale);
        if (by == 0) {
            _mm256_storeu_si256((__m256i *)q, _mm256_setzero_si256());
            continue;
        }
        __m512 y = _mm512_set1_ps(by);
        _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(a, y))));
        _mm_storeu_si128((__m128i *)(q + LANES), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(b, y))));
    }
}

INLINE __m512i nibbles(__m512 x, __m512 by) {
    __m512i n = _mm512_cvttps_epi32(_mm512_add_ps(_mm512_mul_ps(x, by), _mm512_set1_ps(8.5f)));
    return _mm512_min_epi32(n, _mm512_set1_epi32(15));
}

static void q4_0(const float *x, int d, void *row, uint16_t *scale) {
    uint8_t *q = row;
    for (; d > 0; d -= FVI_QUANT_BLOCK, x += FVI_QUANT_BLOCK, q += FVI_QUANT_BLOCK / 2, scale += FVI_QUANT_ROWS) {
        __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + LANES);
        __m512i size_a = size_bits(a), size_b = size_bits(b);
        uint32_t largest = _mm512_reduce_max_epu32(_mm512_max_epu32(size_a, size_b));
        __m512i most = _mm512_set1_epi32((int)largest);
        uint32_t at = _mm512_cmpeq_epi32_mask(size_a, most) | (uint32_t)_mm512_cmpeq_epi32_mask(size_b, most) << LANES;
        float by = scale_of(largest, x[__builtin_ctz(at)] / -8.0f, scale);
        if (by == 0) {
            _mm_storeu_si128((__m128i *)q, _mm_set1_epi8((char)0x88));
            continue;
        }
        __m512 y = _mm512_set1_ps(by);
        __m512i both = _mm512_or_si512(nibbles(a, y), _mm512_slli_epi32(nibbles(b, y), 4));
        _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(both));
    }
}

/* ---- widening ------------------------------------------------------------------------------------------------------ */

static void f32_from_q8_0(const void *rows, int64_t row_bytes, const uint16_t *scale, int n, int d, float *out) {
    for (int j = 0; j < n; j++) {
        const uint8_t *row = (const uint8_t *)rows + j * row_bytes;
        for (int c = 0; c < d; c += LANES, out += LANES) {
            __m512 by = _mm512_set1_ps(_cvtsh_ss(scale[c / FVI_QUANT_BLOCK * FVI_QUANT_ROWS + j]));
            __m512i q = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(row + c)));
            _mm512_storeu_ps(out, _mm512_mul_ps(_mm512_cvtepi32_ps(q), by));
        }
    }
}

static void f32_from_q4_0(const void *rows, int64_t row_bytes, const uint16_t *scale, int n, int d, float *out) {
    const __m512 value = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    for (int j = 0; j < n; j++) {
        const uint8_t *row = (const uint8_t *)rows + j * row_bytes;
        for (int c = 0; c < d; c += FVI_QUANT_BLOCK, out += FVI_QUANT_BLOCK) {
            __m512 by = _mm512_set1_ps(_cvtsh_ss(scale[c / FVI_QUANT_BLOCK * FVI_QUANT_ROWS + j]));
            __m512i q = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(row + c / 2)));
            _mm512_storeu_ps(out, _mm512_mul_ps(_mm512_permutexvar_ps(q, value), by));
            _mm512_storeu_ps(out + LANES, _mm512_mul_ps(_mm512_permutexvar_ps(_mm512_srli_epi32(q, 4), value), by));
        }
    }
}

/* ---- rotation ------------------------------------------------------------------------------------------------------ */

/* One stage within a register: sums where the lane's bit is clear, differences where it is set. */
INLINE __m512 stage(__m512 x, __m512 partner, __mmask16 set) {
    __m512i sign = _mm512_maskz_set1_epi32(set, (int)0x80000000);
    return _mm512_add_ps(partner, _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(x), sign)));
}

static void rotate(float *x, int d) {
    if (fvi_rotation_width(d) < LANES) {
        quant_rotate_from(x, d, 1);
        return;
    }
    for (int c = 0; c < d; c += LANES) {
        __m512 v = _mm512_loadu_ps(x + c);
        v = stage(v, _mm512_permute_ps(v, 0xb1), 0xaaaa);
        v = stage(v, _mm512_permute_ps(v, 0x4e), 0xcccc);
        v = stage(v, _mm512_shuffle_f32x4(v, v, 0xb1), 0xf0f0);
        v = stage(v, _mm512_shuffle_f32x4(v, v, 0x4e), 0xff00);
        _mm512_storeu_ps(x + c, v);
    }
    quant_rotate_from(x, d, LANES);
}

void fvi_quant_avx512(fvi_quant_ops *ops) {
    ops->name = "avx512";
    ops->quantise[FV_Q8_0] = q8_0;
    ops->quantise[FV_Q4_0] = q4_0;
    ops->to_f32[FV_Q8_0] = f32_from_q8_0;
    ops->to_f32[FV_Q4_0] = f32_from_q4_0;
    ops->rotate = rotate;
}
