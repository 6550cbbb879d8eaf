/* matvec_avx512.c - AVX-512: one row after the other, in two sums of 16 lanes.
 *
 * Weights are read once per token, from memory or a far cache, and the matrix is met as the one long run that it is: taking four
 * rows at a time, to load x once for four, halves the speed of that read. Each step also asks for the bytes AHEAD of it. */
#include "kernel/matvec_inline.h"

#include <immintrin.h>

enum { AHEAD = 8192 };

#define INLINE static inline __attribute__((always_inline))

/* May lie beyond the matrix: a prefetch never faults. */
INLINE void prefetch(const char *at, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) {
        _mm_prefetch((const void *)((uintptr_t)at + i + AHEAD), _MM_HINT_T0);
    }
}

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

static void quantise(int64_t n_in, const float *x, fvi_matvec_x *out) { matvec_quantise(n_in, x, out); }

void fvi_matvec_avx512(fvi_matvec_ops *ops) {
    ops->rows[FV_F32] = rows_f32;
    ops->rows[FV_F16] = rows_f16;
    ops->rows[FV_BF16] = rows_bf16;
    ops->quantise = quantise;
}
