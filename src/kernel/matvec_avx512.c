/* matvec_avx512.c - AVX-512: one row after the other, in two sums of 16 lanes.
 *
 * Weights are read once per token, from memory or a far cache, and the matrix is met as the one long run that it is: taking four
 * rows at a time, to load x once for four, halves the speed of that read. Each step also asks for the bytes AHEAD of it.
 *
 * Quantised types sum quants times x within a block and add scale times that to the row's sum, so a weight costs a widening
 * load, a conversion and a multiply-add. */
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
INLINE __m512 scale_of(const uint16_t *h) { return _mm512_cvtph_ps(_mm256_set1_epi16((short)*h)); }
INLINE __m512 bytes_of(const int8_t *q) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)q))); }

/* ---- f32, f16, bf16 ---- */

INLINE __m512 load_f32(const void *w, int64_t i, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, (const float *)w + i); }
INLINE __m512 load_f16(const void *w, int64_t i, __mmask16 mask) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)w + i));
}
INLINE __m512 load_bf16(const void *w, int64_t i, __mmask16 mask) {
    __m256i half = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)w + i);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

typedef __m512 (*load_16)(const void *w, int64_t i, __mmask16 mask);

INLINE void plain_rows(const void *w, int64_t rows, size_t width, int64_t n_in, const float *x, float *y, load_16 load) {
    const char *row = w;
    for (int64_t r = 0; r < rows; r++, row += (size_t)n_in * width) {
        __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
        int64_t i = 0;
        for (; i + 32 <= n_in; i += 32) {
            prefetch(row + (size_t)i * width, 32 * width);
            even = _mm512_fmadd_ps(load(row, i, 0xffff), _mm512_loadu_ps(x + i), even);
            odd = _mm512_fmadd_ps(load(row, i + 16, 0xffff), _mm512_loadu_ps(x + i + 16), odd);
        }
        for (; i < n_in; i += 16) {
            __mmask16 mask = n_in - i >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << (n_in - i)) - 1);
            even = _mm512_fmadd_ps(load(row, i, mask), _mm512_maskz_loadu_ps(mask, x + i), even);
        }
        y[r] = _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
    }
}

static void rows_f32(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    plain_rows(w, rows, 4, n_in, x, y, load_f32);
}
static void rows_f16(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    plain_rows(w, rows, 2, n_in, x, y, load_f16);
}
static void rows_bf16(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    plain_rows(w, rows, 2, n_in, x, y, load_bf16);
}

/* ---- quantised: a block's contribution to a row's sum; x points at the block's 32 elements ---- */

INLINE __m512 block_q8_0(const void *at, const float *x, __m512 sum) {
    const fvi_block_q8_0 *block = at;
    __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
    __m512 part = _mm512_mul_ps(bytes_of(block->q), x0);
    part = _mm512_fmadd_ps(bytes_of(block->q + 16), x1, part);
    return _mm512_fmadd_ps(scale_of(&block->scale), part, sum);
}

INLINE __m512 block_q4_0(const void *at, const float *x, __m512 sum) {
    const fvi_block_q4_0 *block = at;
    __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
    __m512i q = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)block->q));
    __m512i low = _mm512_sub_epi32(_mm512_and_si512(q, _mm512_set1_epi32(15)), _mm512_set1_epi32(8));
    __m512i high = _mm512_sub_epi32(_mm512_srli_epi32(q, 4), _mm512_set1_epi32(8));
    __m512 part = _mm512_mul_ps(_mm512_cvtepi32_ps(low), x0);
    part = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), x1, part);
    return _mm512_fmadd_ps(scale_of(&block->scale), part, sum);
}

INLINE __m512 block_q4_1(const void *at, const float *x, __m512 sum) {
    const fvi_block_q4_1 *block = at;
    __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
    __m512i q = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)block->q));
    __m512 scale = scale_of(&block->scale), least = scale_of(&block->least);
    __m512 low = _mm512_cvtepi32_ps(_mm512_and_si512(q, _mm512_set1_epi32(15)));
    __m512 high = _mm512_cvtepi32_ps(_mm512_srli_epi32(q, 4));
    sum = _mm512_fmadd_ps(_mm512_fmadd_ps(scale, low, least), x0, sum);
    return _mm512_fmadd_ps(_mm512_fmadd_ps(scale, high, least), x1, sum);
}

typedef __m512 (*add_block)(const void *at, const float *x, __m512 sum);

INLINE void quant_rows(const void *w, int64_t rows, size_t block_bytes, int64_t n_in, const float *x, float *y, add_block add) {
    const char *block = w;
    for (int64_t r = 0; r < rows; r++) {
        __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
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
        y[r] = _mm512_reduce_add_ps(_mm512_add_ps(sum[0], sum[1]));
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

void fvi_matvec_avx512(fvi_matvec_ops *ops) {
    *ops = (fvi_matvec_ops){.rows = {[FV_F32] = rows_f32,
                                     [FV_F16] = rows_f16,
                                     [FV_BF16] = rows_bf16,
                                     [FV_Q8_0] = rows_q8_0,
                                     [FV_Q4_0] = rows_q4_0,
                                     [FV_Q4_1] = rows_q4_1}};
}
