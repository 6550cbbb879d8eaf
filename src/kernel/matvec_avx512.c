/* matvec_avx512.c - AVX-512: four rows at a time, so that x is loaded once for four, each row in one or two sums of 16 lanes.
 *
 * Quantised types sum quants times x within a block and add scale times that to the row's sum, so a weight costs a widening
 * load, a conversion and a multiply-add. A row's operations are the same in a group of four and alone. */
#include "kernel/convert.h"
#include "kernel/matvec.h"

#include <immintrin.h>

enum { GROUP = 4 };

#define INLINE static inline __attribute__((always_inline))

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

INLINE void plain_group(const void *w, int n_rows, size_t stride, int64_t n_in, const float *x, float *y, load_16 load) {
    const char *base = w;
    __m512 even[GROUP], odd[GROUP];
    for (int r = 0; r < n_rows; r++) {
        even[r] = odd[r] = _mm512_setzero_ps();
    }
    int64_t i = 0;
    for (; i + 32 <= n_in; i += 32) {
        __m512 x0 = _mm512_loadu_ps(x + i), x1 = _mm512_loadu_ps(x + i + 16);
        for (int r = 0; r < n_rows; r++) {
            even[r] = _mm512_fmadd_ps(load(base + (size_t)r * stride, i, 0xffff), x0, even[r]);
            odd[r] = _mm512_fmadd_ps(load(base + (size_t)r * stride, i + 16, 0xffff), x1, odd[r]);
        }
    }
    for (; i < n_in; i += 16) {
        __mmask16 mask = n_in - i >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << (n_in - i)) - 1);
        __m512 x0 = _mm512_maskz_loadu_ps(mask, x + i);
        for (int r = 0; r < n_rows; r++) {
            even[r] = _mm512_fmadd_ps(load(base + (size_t)r * stride, i, mask), x0, even[r]);
        }
    }
    for (int r = 0; r < n_rows; r++) {
        y[r] = _mm512_reduce_add_ps(_mm512_add_ps(even[r], odd[r]));
    }
}

INLINE void plain_rows(const void *w, int64_t rows, size_t stride, int64_t n_in, const float *x, float *y, load_16 load) {
    const char *base = w;
    int64_t r = 0;
    for (; r + GROUP <= rows; r += GROUP) {
        plain_group(base + (size_t)r * stride, GROUP, stride, n_in, x, y + r, load);
    }
    for (; r < rows; r++) {
        plain_group(base + (size_t)r * stride, 1, stride, n_in, x, y + r, load);
    }
}

static void rows_f32(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    plain_rows(w, rows, (size_t)n_in * 4, n_in, x, y, load_f32);
}
static void rows_f16(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    plain_rows(w, rows, (size_t)n_in * 2, n_in, x, y, load_f16);
}
static void rows_bf16(const void *w, int64_t rows, int64_t n_in, const float *x, float *y) {
    plain_rows(w, rows, (size_t)n_in * 2, n_in, x, y, load_bf16);
}

/* ---- quantised: a block's contribution to a row's sum, x0 and x1 being the block's 32 elements of x ---- */

INLINE __m512 block_q8_0(const void *blocks, int64_t b, __m512 x0, __m512 x1, __m512 sum) {
    const fvi_block_q8_0 *block = (const fvi_block_q8_0 *)blocks + b;
    __m512 part = _mm512_mul_ps(bytes_of(block->q), x0);
    part = _mm512_fmadd_ps(bytes_of(block->q + 16), x1, part);
    return _mm512_fmadd_ps(scale_of(&block->scale), part, sum);
}

INLINE __m512 block_q4_0(const void *blocks, int64_t b, __m512 x0, __m512 x1, __m512 sum) {
    const fvi_block_q4_0 *block = (const fvi_block_q4_0 *)blocks + b;
    __m512i q = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)block->q));
    __m512i low = _mm512_sub_epi32(_mm512_and_si512(q, _mm512_set1_epi32(15)), _mm512_set1_epi32(8));
    __m512i high = _mm512_sub_epi32(_mm512_srli_epi32(q, 4), _mm512_set1_epi32(8));
    __m512 part = _mm512_mul_ps(_mm512_cvtepi32_ps(low), x0);
    part = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), x1, part);
    return _mm512_fmadd_ps(scale_of(&block->scale), part, sum);
}

INLINE __m512 block_q4_1(const void *blocks, int64_t b, __m512 x0, __m512 x1, __m512 sum) {
    const fvi_block_q4_1 *block = (const fvi_block_q4_1 *)blocks + b;
    __m512i q = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)block->q));
    __m512 scale = scale_of(&block->scale), least = scale_of(&block->least);
    __m512 low = _mm512_cvtepi32_ps(_mm512_and_si512(q, _mm512_set1_epi32(15)));
    __m512 high = _mm512_cvtepi32_ps(_mm512_srli_epi32(q, 4));
    sum = _mm512_fmadd_ps(_mm512_fmadd_ps(scale, low, least), x0, sum);
    return _mm512_fmadd_ps(_mm512_fmadd_ps(scale, high, least), x1, sum);
}

typedef __m512 (*add_block)(const void *blocks, int64_t b, __m512 x0, __m512 x1, __m512 sum);

INLINE void quant_group(const char *base, int n_rows, size_t stride, int64_t n_in, const float *x, float *y, add_block add) {
    __m512 sum[GROUP];
    for (int r = 0; r < n_rows; r++) {
        sum[r] = _mm512_setzero_ps();
    }
    for (int64_t b = 0; b < n_in / FVI_BLOCK; b++) {
        __m512 x0 = _mm512_loadu_ps(x + b * FVI_BLOCK), x1 = _mm512_loadu_ps(x + b * FVI_BLOCK + 16);
        for (int r = 0; r < n_rows; r++) {
            sum[r] = add(base + (size_t)r * stride, b, x0, x1, sum[r]);
        }
    }
    for (int r = 0; r < n_rows; r++) {
        y[r] = _mm512_reduce_add_ps(sum[r]);
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

void fvi_matvec_avx512(fvi_matvec_ops *ops) {
    *ops = (fvi_matvec_ops){.rows = {[FV_F32] = rows_f32,
                                     [FV_F16] = rows_f16,
                                     [FV_BF16] = rows_bf16,
                                     [FV_Q8_0] = rows_q8_0,
                                     [FV_Q4_0] = rows_q4_0,
                                     [FV_Q4_1] = rows_q4_1}};
}
