/* avx2_inline.h - what kernels for AVX2 share: lanes, loads of any type, folds across lanes. */
#ifndef FVI_AVX2_INLINE_H
#define FVI_AVX2_INLINE_H

#include "base/base.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)") /* the other spelling is heeded too late to keep arrays in registers */
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { LANES = 8 };

/* 8 elements from `p`, of which only the first n are read; the others are 0. `dtype` is a constant where this is inlined. */
INLINE __m256 widen(const void *p, int64_t n, fv_dtype dtype) {
    unsigned char part[32] = {0};
    if (n < LANES) {
        memcpy(part, p, n > 0 ? (size_t)n * (dtype == FV_F32 ? 4 : 2) : 0);
        p = part;
    }
    if (dtype == FV_F32) {
        return _mm256_loadu_ps(p);
    }
    __m128i h = _mm_loadu_si128(p);
    return dtype == FV_F16 ? _mm256_cvtph_ps(h) : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

INLINE __m256 fold(__m256 a, __m256 b, bool add) { return add ? _mm256_add_ps(a, b) : _mm256_max_ps(a, b); }

/* Lane r = the 8 lanes of v[r] folded, halves onto halves: 4, 2, 1. Each step folds two registers into one. */
INLINE __m256 fold8(const __m256 v[LANES], bool add) {
    __m256 t[4], u[2];
    UNROLL for (int i = 0; i < 4; i++) {
        t[i] = fold(_mm256_permute2f128_ps(v[i], v[i + 4], 0x20), _mm256_permute2f128_ps(v[i], v[i + 4], 0x31), add);
    }
    UNROLL for (int i = 0; i < 2; i++) {
        __m256 a = t[2 * i], b = t[2 * i + 1];
        u[i] = fold(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee), add);
    }
    return fold(_mm256_shuffle_ps(u[0], u[1], 0x88), _mm256_shuffle_ps(u[0], u[1], 0xdd), add);
}

#endif
