/* avx512_inline.h - what kernels for AVX-512 share: lanes and masks, a transpose, the exponential, folds across lanes. */
#ifndef FVI_AVX512_INLINE_H
#define FVI_AVX512_INLINE_H

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)") /* the other spelling is heeded too late to keep arrays in registers */
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { LANES = 16 };

INLINE __mmask16 first(int64_t n) { return (__mmask16)(n >= LANES ? 0xffff : n <= 0 ? 0 : (1 << n) - 1); }

/* v[row] lane column -> v[column] lane row: pairs of rows, fours of rows, then a 4 x 4 transpose of 128-bit lanes. */
INLINE void transpose16(__m512 v[LANES]) {
    __m512 t[LANES];
    UNROLL for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
    }
    UNROLL for (int i = 0; i < LANES; i += 4) {
        __m512d a = _mm512_castps_pd(t[i]), b = _mm512_castps_pd(t[i + 1]);
        __m512d c = _mm512_castps_pd(t[i + 2]), d = _mm512_castps_pd(t[i + 3]);
        v[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        v[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        v[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        v[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    UNROLL for (int e = 0; e < 4; e++) {
        __m512 a = _mm512_shuffle_f32x4(v[e], v[4 + e], 0x44), b = _mm512_shuffle_f32x4(v[e], v[4 + e], 0xee);
        __m512 c = _mm512_shuffle_f32x4(v[8 + e], v[12 + e], 0x44), d = _mm512_shuffle_f32x4(v[8 + e], v[12 + e], 0xee);
        v[e] = _mm512_shuffle_f32x4(a, c, 0x88);
        v[4 + e] = _mm512_shuffle_f32x4(a, c, 0xdd);
        v[8 + e] = _mm512_shuffle_f32x4(b, d, 0x88);
        v[12 + e] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}

/* 2^x for x <= 0 or NaN: f = x - floor(x), 2^f = 1 + f q(f), minimax in relative error: 2^-23.5, or 2^-18.4 where the result is
 * rounded to bf16 (`brief`). scalef multiplies by 2^floor(x); -inf gives f = 0 and 0 exactly, NaN stays NaN. */
INLINE __m512 exp2_negative(__m512 x, _Bool brief) {
    __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC), p;
    if (brief) {
        p = _mm512_fmadd_ps(_mm512_set1_ps(0x1.b7f75cp-7f), f, _mm512_set1_ps(0x1.abf854p-5f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.ee2454p-3f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.62d6c6p-1f));
    } else {
        p = _mm512_fmadd_ps(_mm512_set1_ps(0x1.e96912p-10f), f, _mm512_set1_ps(0x1.277c1cp-7f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.c91c10p-5f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.ebdb6ap-3f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.62e4bap-1f));
    }
    return _mm512_scalef_ps(_mm512_fmadd_ps(p, f, _mm512_set1_ps(1)), x);
}

INLINE __m512 fold(__m512 a, __m512 b, _Bool add) { return add ? _mm512_add_ps(a, b) : _mm512_max_ps(a, b); }

/* Lane r = the 16 lanes of v[r] folded, halves onto halves: 8, 4, 2, 1. Each step folds two registers into one. */
INLINE __m512 fold16(const __m512 v[LANES], _Bool add) {
    __m512 t[8], u[4], w[2];
    UNROLL for (int i = 0; i < 8; i++) {
        __m512 a = v[i + (i & 4)], b = v[i + (i & 4) + 4];
        t[i] = fold(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee), add);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        u[i] = fold(_mm512_shuffle_f32x4(t[i], t[i + 4], 0x88), _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd), add);
    }
    UNROLL for (int i = 0; i < 2; i++) {
        __m512d a = _mm512_castps_pd(u[2 * i]), b = _mm512_castps_pd(u[2 * i + 1]);
        w[i] = fold(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)), add);
    }
    return fold(_mm512_shuffle_ps(w[0], w[1], 0x88), _mm512_shuffle_ps(w[0], w[1], 0xdd), add);
}

#endif
