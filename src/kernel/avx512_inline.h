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

/* exp(x) for x <= 0 or NaN: x = n ln 2 + r with |r| <= ln 2 / 2, n by adding 1.5 * 2^23 + 127, which leaves the bits of 2^n
 * at the low end; e^r = 1 + r + r^2 q(r), q minimax in relative error, 2^-28. */
INLINE __m512 exp_negative(__m512 x) {
    const __m512 magic = _mm512_set1_ps(0x1.8p23f + 127.0f);
    __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.33654f), _CMP_NLT_UQ);
    __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(0x1.715476p0f), magic);
    __m512 n = _mm512_sub_ps(t, magic);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0x1.6a23d0p-10f), r, _mm512_set1_ps(0x1.123a20p-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.5558f2p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.555492p-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.fffffcp-2f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r);
    __m512 scale = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(t), 23));
    return _mm512_maskz_fmadd_ps(normal, p, scale, scale);
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
