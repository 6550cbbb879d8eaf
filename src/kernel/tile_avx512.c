/* tile_avx512.c - the attention tile for AVX-512.
 *
 * qk and pv are the same outer-product microkernel: 6 rows by 64 columns in 24 accumulators, fed by 4 loads and 6 broadcasts a
 * step, so that arithmetic and not loading is the limit. A row's chain has nothing to do with how rows and columns were cut
 * into blocks. soften works on 16 rows together: their maxima and sums are folded across registers, and each row's
 * correction is a lane of one exponential. */
#include "kernel/tile.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)") /* the other spelling is heeded too late to keep arrays in registers */
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { LANES = 16, ROWS = 6, COLUMNS = 4 };

static __mmask16 first(int64_t n) { return (__mmask16)(n >= LANES ? 0xffff : n <= 0 ? 0 : (1 << n) - 1); }

/* ---- packing ------------------------------------------------------------------------------------------------------- */

/* 16 elements from `p`, those outside the mask neither read nor anything but 0. `dtype` is a constant where this is inlined. */
INLINE __m512 widen(const void *p, __mmask16 mask, fv_dtype dtype) {
    if (dtype == FV_F32) {
        return _mm512_maskz_loadu_ps(mask, p);
    }
    __m256i h = mask == 0xffff ? _mm256_loadu_si256(p) : _mm256_maskz_loadu_epi16(mask, p);
    return dtype == FV_F16 ? _mm512_cvtph_ps(h) : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

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

INLINE void pack_k_block(const unsigned char *k, int64_t row_bytes, int n, int d, float *kt, fv_dtype dtype) {
    __m512 v[LANES];
    __mmask16 mask = first(d);
    UNROLL for (int j = 0; j < LANES; j++) { v[j] = j < n ? widen(k + j * row_bytes, mask, dtype) : _mm512_setzero_ps(); }
    transpose16(v);
    UNROLL for (int c = 0; c < LANES; c++) {
        if (c < d) {
            _mm512_store_ps(kt + c * FVI_LEAF, v[c]);
        }
    }
}

INLINE void pack_k(const void *k, int64_t row_bytes, int n, int d, float *kt, fv_dtype dtype) {
    int64_t size = dtype == FV_F32 ? 4 : 2;
    for (int j = 0; j < FVI_LEAF; j += LANES) {
        const unsigned char *rows = (const unsigned char *)k + j * row_bytes;
        for (int c = 0; c < d; c += LANES) {
            float *to = kt + c * FVI_LEAF + j;
            if (n - j >= LANES && d - c >= LANES) {
                pack_k_block(rows + c * size, row_bytes, LANES, LANES, to, dtype);
            } else {
                pack_k_block(rows + c * size, row_bytes, n - j, d - c, to, dtype);
            }
        }
    }
}

INLINE void pack_v(const void *v, int64_t row_bytes, int n, int d, float *vt, fv_dtype dtype) {
    int64_t d_pad = fvi_tile_pad(d), size = dtype == FV_F32 ? 4 : 2;
    for (int j = 0; j < FVI_LEAF; j++, vt += d_pad) {
        const unsigned char *row = (const unsigned char *)v + j * row_bytes;
        for (int64_t c = 0; c < d_pad; c += LANES) {
            _mm512_store_ps(vt + c, j < n ? widen(row + c * size, first(d - c), dtype) : _mm512_setzero_ps());
        }
    }
}

static void pack_k_f32(const void *k, int64_t row_bytes, int n, int d, float *kt) { pack_k(k, row_bytes, n, d, kt, FV_F32); }
static void pack_k_f16(const void *k, int64_t row_bytes, int n, int d, float *kt) { pack_k(k, row_bytes, n, d, kt, FV_F16); }
static void pack_k_bf16(const void *k, int64_t row_bytes, int n, int d, float *kt) { pack_k(k, row_bytes, n, d, kt, FV_BF16); }
static void pack_v_f32(const void *v, int64_t row_bytes, int n, int d, float *vt) { pack_v(v, row_bytes, n, d, vt, FV_F32); }
static void pack_v_f16(const void *v, int64_t row_bytes, int n, int d, float *vt) { pack_v(v, row_bytes, n, d, vt, FV_F16); }
static void pack_v_bf16(const void *v, int64_t row_bytes, int n, int d, float *vt) { pack_v(v, row_bytes, n, d, vt, FV_BF16); }

/* ---- the microkernel ----------------------------------------------------------------------------------------------- */

/* acc[r][i] += sum over t of a[r * a_stride + t] * b[t * b_stride + 16 i ..]; rows and columns are constants where inlined. */
INLINE void accumulate(const float *a, int64_t a_stride, const float *b, int64_t b_stride, int steps, int rows, int columns,
                       __m512 acc[ROWS][COLUMNS]) {
    for (int t = 0; t < steps; t++, b += b_stride) {
        __m512 x[COLUMNS];
        UNROLL for (int i = 0; i < columns; i++) { x[i] = _mm512_load_ps(b + LANES * i); }
        UNROLL for (int r = 0; r < rows; r++) {
            __m512 y = _mm512_set1_ps(a[r * a_stride + t]);
            UNROLL for (int i = 0; i < columns; i++) { acc[r][i] = _mm512_fmadd_ps(y, x[i], acc[r][i]); }
        }
    }
}

INLINE void qk_rows(const float *q, int rows, int d, const float *kt, float *s) {
    __m512 acc[ROWS][COLUMNS];
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int i = 0; i < COLUMNS; i++) { acc[r][i] = _mm512_setzero_ps(); }
    }
    accumulate(q, d, kt, FVI_LEAF, d, rows, COLUMNS, acc);
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int i = 0; i < COLUMNS; i++) { _mm512_store_ps(s + r * FVI_LEAF + LANES * i, acc[r][i]); }
    }
}

static void qk(const float *q, int rows, int d, const float *kt, float *s) {
    for (; rows >= ROWS; rows -= ROWS, q += (int64_t)ROWS * d, s += ROWS * FVI_LEAF) {
        qk_rows(q, ROWS, d, kt, s);
    }
    switch (rows) {
    case 1:
        qk_rows(q, 1, d, kt, s);
        break;
    case 2:
        qk_rows(q, 2, d, kt, s);
        break;
    case 3:
        qk_rows(q, 3, d, kt, s);
        break;
    case 4:
        qk_rows(q, 4, d, kt, s);
        break;
    case 5:
        qk_rows(q, 5, d, kt, s);
        break;
    default:
        break;
    }
}

INLINE void pv_block(const float *p, const float *alpha, const float *vt, int d_pad, float *out, int rows, int columns) {
    __m512 acc[ROWS][COLUMNS];
    UNROLL for (int r = 0; r < rows; r++) {
        __m512 a = _mm512_set1_ps(alpha[r]);
        UNROLL for (int i = 0; i < columns; i++) {
            acc[r][i] = _mm512_mul_ps(_mm512_load_ps(out + (int64_t)r * d_pad + LANES * i), a);
        }
    }
    accumulate(p, FVI_LEAF, vt, d_pad, FVI_LEAF, rows, columns, acc);
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int i = 0; i < columns; i++) { _mm512_store_ps(out + (int64_t)r * d_pad + LANES * i, acc[r][i]); }
    }
}

/* Five registers of columns are cut 3 + 2: a single one has too few chains to hide the latency. */
INLINE void pv_rows(const float *p, int rows, const float *alpha, const float *vt, int d_pad, float *out) {
    for (int left = d_pad / LANES, columns; left > 0; left -= columns, vt += LANES * columns, out += LANES * columns) {
        columns = left == 5 ? 3 : left < COLUMNS ? left : COLUMNS;
        switch (columns) {
        case 1:
            pv_block(p, alpha, vt, d_pad, out, rows, 1);
            break;
        case 2:
            pv_block(p, alpha, vt, d_pad, out, rows, 2);
            break;
        case 3:
            pv_block(p, alpha, vt, d_pad, out, rows, 3);
            break;
        default:
            pv_block(p, alpha, vt, d_pad, out, rows, COLUMNS);
            break;
        }
    }
}

static void pv(const float *p, int rows, const float *alpha, const float *vt, int d_pad, float *out) {
    for (; rows >= ROWS; rows -= ROWS, p += ROWS * FVI_LEAF, alpha += ROWS, out += (int64_t)ROWS * d_pad) {
        pv_rows(p, ROWS, alpha, vt, d_pad, out);
    }
    switch (rows) {
    case 1:
        pv_rows(p, 1, alpha, vt, d_pad, out);
        break;
    case 2:
        pv_rows(p, 2, alpha, vt, d_pad, out);
        break;
    case 3:
        pv_rows(p, 3, alpha, vt, d_pad, out);
        break;
    case 4:
        pv_rows(p, 4, alpha, vt, d_pad, out);
        break;
    case 5:
        pv_rows(p, 5, alpha, vt, d_pad, out);
        break;
    default:
        break;
    }
}

/* ---- soften -------------------------------------------------------------------------------------------------------- */

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

INLINE __m512 fold(__m512 a, __m512 b, bool add) { return add ? _mm512_add_ps(a, b) : _mm512_max_ps(a, b); }

/* Lane r = the 16 lanes of v[r] folded, halves onto halves: 8, 4, 2, 1. Each step folds two registers into one. */
INLINE __m512 fold16(const __m512 v[LANES], bool add) {
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

INLINE __m512 max64(const float *s) {
    return _mm512_max_ps(_mm512_max_ps(_mm512_load_ps(s), _mm512_load_ps(s + 16)),
                         _mm512_max_ps(_mm512_load_ps(s + 32), _mm512_load_ps(s + 48)));
}

/* The weights of a row in place of its scores; their sum by lanes, (v0 + v1) + (v2 + v3), which fold16 then folds. */
INLINE __m512 weigh64(float *s, __m512 ref) {
    __m512 v[COLUMNS];
    UNROLL for (int i = 0; i < COLUMNS; i++) {
        v[i] = exp_negative(_mm512_sub_ps(_mm512_load_ps(s + LANES * i), ref));
        _mm512_store_ps(s + LANES * i, v[i]);
    }
    return _mm512_add_ps(_mm512_add_ps(v[0], v[1]), _mm512_add_ps(v[2], v[3]));
}

static void soften16(float *s, int rows, float *m, float *sum, float *alpha) {
    const __m512 hidden = _mm512_set1_ps(-__builtin_inff());
    __m512 part[LANES];
    float ref[LANES] __attribute__((aligned(64)));
    __mmask16 mask = first(rows);
    for (int r = 0; r < LANES; r++) {
        part[r] = r < rows ? max64(s + r * FVI_LEAF) : hidden;
    }
    __m512 old = _mm512_mask_loadu_ps(hidden, mask, m);
    __m512 top = _mm512_max_ps(fold16(part, false), old);
    __m512 zeroed = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(top, hidden, _CMP_NEQ_UQ), top);
    __m512 correction = exp_negative(_mm512_sub_ps(old, zeroed));
    _mm512_store_ps(ref, zeroed);
    for (int r = 0; r < LANES; r++) {
        part[r] = r < rows ? weigh64(s + r * FVI_LEAF, _mm512_set1_ps(ref[r])) : _mm512_setzero_ps();
    }
    __m512 total = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, sum), correction, fold16(part, true));
    _mm512_mask_storeu_ps(m, mask, top);
    _mm512_mask_storeu_ps(alpha, mask, correction);
    _mm512_mask_storeu_ps(sum, mask, total);
}

static void soften(float *s, int rows, float *m, float *sum, float *alpha) {
    for (int r = 0; r < rows; r += LANES) {
        soften16(s + r * FVI_LEAF, rows - r < LANES ? rows - r : LANES, m + r, sum + r, alpha + r);
    }
}

void fvi_tile_avx512(fvi_tile_ops *ops) {
    *ops = (fvi_tile_ops){
        .name = "avx512",
        .row_block = ROWS,
        .pack_k = {pack_k_f32, pack_k_f16, pack_k_bf16},
        .pack_v = {pack_v_f32, pack_v_f16, pack_v_bf16},
        .qk = qk,
        .soften = soften,
        .pv = pv,
    };
}
