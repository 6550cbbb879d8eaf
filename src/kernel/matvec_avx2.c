/* matvec_avx2.c - AVX2 and FMA: one row after the other, in four sums of 8 lanes (elements 0-7, 8-15, 16-23 and 24-31 of every
 * 32), or for the quantised types in two. Each step asks for the bytes AHEAD of it; matvec_avx512.c says why. */
#include "kernel/convert.h"
#include "kernel/matvec.h"

#include <immintrin.h>

enum { AHEAD = 4096 };

#define INLINE static inline __attribute__((always_inline))

/* May lie beyond the matrix: a prefetch never faults. */
INLINE void prefetch(const char *at, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) {
        _mm_prefetch((const void *)((uintptr_t)at + i + AHEAD), _MM_HINT_T0);
    }
}
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

INLINE void plain_rows(const void *w, int64_t rows, size_t width, int64_t n_in, const float *x, float *y, load_8 load,
                       load_1 one) {
    const char *row = w;
    for (int64_t r = 0; r < rows; r++, row += (size_t)n_in * width) {
        __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
        int64_t i = 0;
        for (; i + 32 <= n_in; i += 32) {
            prefetch(row + (size_t)i * width, 32 * width);
            for (int part = 0; part < 4; part++) {
                sum[part] = _mm256_fmadd_ps(load(row, i + 8 * part), _mm256_loadu_ps(x + i + 8 * part), sum[part]);
            }
        }
        float rest = 0;
        for (; i < n_in; i++) {
            rest += one(row, i) * x[i];
        }
        y[r] = fold(_mm256_add_ps(_mm256_add_ps(sum[0], sum[2]), _mm256_add_ps(sum[1], sum[3]))) + rest;
    }
}

static void rows_f32(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    plain_rows(w, rows, 4, n_in, x, y, load_f32, one_f32);
}
static void rows_f16(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    plain_rows(w, rows, 2, n_in, x, y, load_f16, one_f16);
}
static void rows_bf16(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    plain_rows(w, rows, 2, n_in, x, y, load_bf16, one_bf16);
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

INLINE __m256 block_q8_0(const void *at, const float *x, __m256 sum) {
    const fvi_block_q8_0 *block = at;
    __m256 part = _mm256_mul_ps(signed_8(block->q), _mm256_loadu_ps(x));
    part = _mm256_fmadd_ps(signed_8(block->q + 8), _mm256_loadu_ps(x + 8), part);
    part = _mm256_fmadd_ps(signed_8(block->q + 16), _mm256_loadu_ps(x + 16), part);
    part = _mm256_fmadd_ps(signed_8(block->q + 24), _mm256_loadu_ps(x + 24), part);
    return _mm256_fmadd_ps(scale_of(&block->scale), part, sum);
}

INLINE __m256 block_q4_0(const void *at, const float *x, __m256 sum) {
    const fvi_block_q4_0 *block = at;
    __m256i q0 = unsigned_8(block->q), q1 = unsigned_8(block->q + 8);
    __m256 part = _mm256_mul_ps(low_nibble(q0, 8), _mm256_loadu_ps(x));
    part = _mm256_fmadd_ps(low_nibble(q1, 8), _mm256_loadu_ps(x + 8), part);
    part = _mm256_fmadd_ps(high_nibble(q0, 8), _mm256_loadu_ps(x + 16), part);
    part = _mm256_fmadd_ps(high_nibble(q1, 8), _mm256_loadu_ps(x + 24), part);
    return _mm256_fmadd_ps(scale_of(&block->scale), part, sum);
}

INLINE __m256 block_q4_1(const void *at, const float *x, __m256 sum) {
    const fvi_block_q4_1 *block = at;
    __m256 scale = scale_of(&block->scale), least = scale_of(&block->least);
    __m256i q0 = unsigned_8(block->q), q1 = unsigned_8(block->q + 8);
    __m256 part = _mm256_mul_ps(_mm256_fmadd_ps(scale, low_nibble(q0, 0), least), _mm256_loadu_ps(x));
    part = _mm256_fmadd_ps(_mm256_fmadd_ps(scale, low_nibble(q1, 0), least), _mm256_loadu_ps(x + 8), part);
    part = _mm256_fmadd_ps(_mm256_fmadd_ps(scale, high_nibble(q0, 0), least), _mm256_loadu_ps(x + 16), part);
    part = _mm256_fmadd_ps(_mm256_fmadd_ps(scale, high_nibble(q1, 0), least), _mm256_loadu_ps(x + 24), part);
    return _mm256_add_ps(sum, part);
}

typedef __m256 (*add_block)(const void *at, const float *x, __m256 sum);

INLINE void quant_rows(const void *w, int64_t rows, size_t block_bytes, int64_t n_in, const float *x, float *y, add_block add) {
    const char *block = w;
    for (int64_t r = 0; r < rows; r++) {
        __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        int64_t i = 0;
        for (; i + 2 * FVI_BLOCK <= n_in; i += 2 * FVI_BLOCK, block += 2 * block_bytes) {
            prefetch(block, 2 * block_bytes);
            sum[0] = add(block, x + i, sum[0]);
            sum[1] = add(block + block_bytes, x + i + FVI_BLOCK, sum[1]);
        }
        if (i < n_in) {
            sum[0] = add(block, x + i, sum[0]);
            block += block_bytes;
        }
        y[r] = fold(_mm256_add_ps(sum[0], sum[1]));
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
