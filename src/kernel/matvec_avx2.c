/* matvec_avx2.c - AVX2 and FMA: two rows at a time, each row in four sums of 8 lanes (elements 0-7, 8-15, 16-23 and 24-31 of
 * every 32). A row's operations are the same in a pair and alone. */
#include "kernel/convert.h"
#include "kernel/matvec.h"

#include <immintrin.h>

enum { GROUP = 2 };

#define INLINE static inline __attribute__((always_inline))

INLINE float fold(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

INLINE __m256 scale_of(const uint16_t *h) { return _mm256_cvtph_ps(_mm_set1_epi16((short)*h)); }

/* Eight weights from element i on. */
typedef __m256 (*load_8)(const void *w, int64_t i);
typedef float (*load_1)(const void *w, int64_t i);

INLINE __m256 load_f32(const void *w, int64_t i) { return _mm256_loadu_ps((const float *)w + i); }
INLINE float one_f32(const void *w, int64_t i) { return ((const float *)w)[i]; }
INLINE __m256 load_f16(const void *w, int64_t i) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)((const uint16_t *)w + i)));
}
INLINE float one_f16(const void *w, int64_t i) { return fvi_convert_f16(((const uint16_t *)w)[i]); }
INLINE __m256 load_bf16(const void *w, int64_t i) {
    __m128i half = _mm_loadu_si128((const void *)((const uint16_t *)w + i));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
INLINE float one_bf16(const void *w, int64_t i) { return fvi_bf16_to_f32(((const uint16_t *)w)[i]); }

INLINE void plain_group(const char *base, int n_rows, size_t stride, int64_t n_in, const float *x, float *y, load_8 load,
                        load_1 one) {
    __m256 sum[GROUP][4];
    for (int r = 0; r < n_rows; r++) {
        sum[r][0] = sum[r][1] = sum[r][2] = sum[r][3] = _mm256_setzero_ps();
    }
    int64_t i = 0;
    for (; i + 32 <= n_in; i += 32) {
        for (int part = 0; part < 4; part++) {
            __m256 xv = _mm256_loadu_ps(x + i + 8 * part);
            for (int r = 0; r < n_rows; r++) {
                sum[r][part] = _mm256_fmadd_ps(load(base + (size_t)r * stride, i + 8 * part), xv, sum[r][part]);
            }
        }
    }
    for (int r = 0; r < n_rows; r++) {
        float rest = 0;
        for (int64_t k = i; k < n_in; k++) {
            rest += one(base + (size_t)r * stride, k) * x[k];
        }
        __m256 s = _mm256_add_ps(_mm256_add_ps(sum[r][0], sum[r][2]), _mm256_add_ps(sum[r][1], sum[r][3]));
        y[r] = fold(s) + rest;
    }
}

INLINE void plain_rows(const void *w, int64_t rows, size_t stride, int64_t n_in, const float *x, float *y, load_8 load,
                       load_1 one) {
    const char *base = w;
    int64_t r = 0;
    for (; r + GROUP <= rows; r += GROUP) {
        plain_group(base + (size_t)r * stride, GROUP, stride, n_in, x, y + r, load, one);
    }
    for (; r < rows; r++) {
        plain_group(base + (size_t)r * stride, 1, stride, n_in, x, y + r, load, one);
    }
}

static void rows_f32(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    plain_rows(w, rows, (size_t)n_in * 4, n_in, x, y, load_f32, one_f32);
}
static void rows_f16(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    plain_rows(w, rows, (size_t)n_in * 2, n_in, x, y, load_f16, one_f16);
}
static void rows_bf16(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    plain_rows(w, rows, (size_t)n_in * 2, n_in, x, y, load_bf16, one_bf16);
}

/* ---- quantised: a block's contribution to a row's sum; x points at the block's 32 elements ---- */

INLINE __m256 signed_8(const int8_t *q) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)q))); }
INLINE __m256i unsigned_8(const uint8_t *q) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)q)); }
INLINE __m256 low_nibble(__m256i q, int offset) {
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_and_si256(q, _mm256_set1_epi32(15)), _mm256_set1_epi32(offset)));
}
INLINE __m256 high_nibble(__m256i q, int offset) {
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(q, 4), _mm256_set1_epi32(offset)));
}

INLINE __m256 block_q8_0(const void *blocks, int64_t b, const float *x, __m256 sum) {
    const fvi_block_q8_0 *block = (const fvi_block_q8_0 *)blocks + b;
    __m256 part = _mm256_mul_ps(signed_8(block->q), _mm256_loadu_ps(x));
    part = _mm256_fmadd_ps(signed_8(block->q + 8), _mm256_loadu_ps(x + 8), part);
    part = _mm256_fmadd_ps(signed_8(block->q + 16), _mm256_loadu_ps(x + 16), part);
    part = _mm256_fmadd_ps(signed_8(block->q + 24), _mm256_loadu_ps(x + 24), part);
    return _mm256_fmadd_ps(scale_of(&block->scale), part, sum);
}

INLINE __m256 block_q4_0(const void *blocks, int64_t b, const float *x, __m256 sum) {
    const fvi_block_q4_0 *block = (const fvi_block_q4_0 *)blocks + b;
    __m256i q0 = unsigned_8(block->q), q1 = unsigned_8(block->q + 8);
    __m256 part = _mm256_mul_ps(low_nibble(q0, 8), _mm256_loadu_ps(x));
    part = _mm256_fmadd_ps(low_nibble(q1, 8), _mm256_loadu_ps(x + 8), part);
    part = _mm256_fmadd_ps(high_nibble(q0, 8), _mm256_loadu_ps(x + 16), part);
    part = _mm256_fmadd_ps(high_nibble(q1, 8), _mm256_loadu_ps(x + 24), part);
    return _mm256_fmadd_ps(scale_of(&block->scale), part, sum);
}

INLINE __m256 block_q4_1(const void *blocks, int64_t b, const float *x, __m256 sum) {
    const fvi_block_q4_1 *block = (const fvi_block_q4_1 *)blocks + b;
    __m256 scale = scale_of(&block->scale), least = scale_of(&block->least);
    __m256i q0 = unsigned_8(block->q), q1 = unsigned_8(block->q + 8);
    __m256 part = _mm256_mul_ps(_mm256_fmadd_ps(scale, low_nibble(q0, 0), least), _mm256_loadu_ps(x));
    part = _mm256_fmadd_ps(_mm256_fmadd_ps(scale, low_nibble(q1, 0), least), _mm256_loadu_ps(x + 8), part);
    part = _mm256_fmadd_ps(_mm256_fmadd_ps(scale, high_nibble(q0, 0), least), _mm256_loadu_ps(x + 16), part);
    part = _mm256_fmadd_ps(_mm256_fmadd_ps(scale, high_nibble(q1, 0), least), _mm256_loadu_ps(x + 24), part);
    return _mm256_add_ps(sum, part);
}

typedef __m256 (*add_block)(const void *blocks, int64_t b, const float *x, __m256 sum);

INLINE void quant_group(const char *base, int n_rows, size_t stride, int64_t n_in, const float *x, float *y, add_block add) {
    __m256 sum[GROUP];
    for (int r = 0; r < n_rows; r++) {
        sum[r] = _mm256_setzero_ps();
    }
    for (int64_t b = 0; b < n_in / FVI_BLOCK; b++) {
        for (int r = 0; r < n_rows; r++) {
            sum[r] = add(base + (size_t)r * stride, b, x + b * FVI_BLOCK, sum[r]);
        }
    }
    for (int r = 0; r < n_rows; r++) {
        y[r] = fold(sum[r]);
    }
}

INLINE void quant_rows(const void *w, int64_t rows, size_t block_bytes, int64_t n_in, const float *x, float *y, add_block add) {
    const char *base = w;
    size_t stride = (size_t)(n_in / FVI_BLOCK) * block_bytes;
    int64_t r = 0;
    for (; r + GROUP <= rows; r += GROUP) {
        quant_group(base + (size_t)r * stride, GROUP, stride, n_in, x, y + r, add);
    }
    for (; r < rows; r++) {
        quant_group(base + (size_t)r * stride, 1, stride, n_in, x, y + r, add);
    }
}

static void rows_q8_0(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    quant_rows(w, rows, sizeof(fvi_block_q8_0), n_in, x, y, block_q8_0);
}
static void rows_q4_0(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    quant_rows(w, rows, sizeof(fvi_block_q4_0), n_in, x, y, block_q4_0);
}
static void rows_q4_1(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    quant_rows(w, rows, sizeof(fvi_block_q4_1), n_in, x, y, block_q4_1);
}

void fvi_matvec_avx2(fvi_matvec_ops *ops) {
    *ops = (fvi_matvec_ops){.rows = {[FV_F32] = rows_f32,
                                     [FV_F16] = rows_f16,
                                     [FV_BF16] = rows_bf16,
                                     [FV_Q8_0] = rows_q8_0,
                                     [FV_Q4_0] = rows_q4_0,
                                     [FV_Q4_1] = rows_q4_1}};
}
