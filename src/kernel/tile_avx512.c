/* tile_avx512.c - the attention tile for AVX-512.
 *
 * qk and pv are the same outer-product microkernel: 6 rows by 64 columns in 24 accumulators, fed by 4 loads and 6 broadcasts a
 * step, so that arithmetic and not loading is the limit. A row's chain has nothing to do with how rows and columns were cut
 * into blocks. soften works on 16 rows together: their maxima and sums are folded across registers, and each row's
 * correction is a lane of one exponential. */
#include "kernel/tile_avx512_inline.h"

#include <string.h>

/* ---- packing ------------------------------------------------------------------------------------------------------- */

/* 16 elements from `p`, those outside the mask neither read nor anything but 0. `dtype` is a constant where this is inlined. */
INLINE __m512 widen(const void *p, __mmask16 mask, fv_dtype dtype) {
    if (dtype == FV_F32) {
        return _mm512_maskz_loadu_ps(mask, p);
    }
    __m256i h = mask == 0xffff ? _mm256_loadu_si256(p) : _mm256_maskz_loadu_epi16(mask, p);
    return dtype == FV_F16 ? _mm512_cvtph_ps(h) : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
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
        prefetch_rows(rows, row_bytes, LANES, d * size);
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
        prefetch_rows(row, row_bytes, 1, d * size);
        for (int64_t c = 0; c < d_pad; c += LANES) {
            _mm512_store_ps(vt + c, j < n ? widen(row + c * size, first(d - c), dtype) : _mm512_setzero_ps());
        }
    }
}

static void pack_k_f32(const void *k, int64_t row_bytes, int n, int d, void *kt) { pack_k(k, row_bytes, n, d, kt, FV_F32); }
static void pack_k_f16(const void *k, int64_t row_bytes, int n, int d, void *kt) { pack_k(k, row_bytes, n, d, kt, FV_F16); }
static void pack_k_bf16(const void *k, int64_t row_bytes, int n, int d, void *kt) { pack_k(k, row_bytes, n, d, kt, FV_BF16); }
static void pack_v_f32(const void *v, int64_t row_bytes, int n, int d, void *vt) { pack_v(v, row_bytes, n, d, vt, FV_F32); }
static void pack_v_f16(const void *v, int64_t row_bytes, int n, int d, void *vt) { pack_v(v, row_bytes, n, d, vt, FV_F16); }
static void pack_v_bf16(const void *v, int64_t row_bytes, int n, int d, void *vt) { pack_v(v, row_bytes, n, d, vt, FV_BF16); }

static void pack_q(const float *q, int rows, int d, void *qt) { memcpy(qt, q, (size_t)rows * (size_t)d * sizeof *q); }

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

INLINE void qk_rows(const float *q, int rows, int d, const float *kt, float scale, float *s) {
    __m512 acc[ROWS][COLUMNS], by = _mm512_set1_ps(scale);
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int i = 0; i < COLUMNS; i++) { acc[r][i] = _mm512_setzero_ps(); }
    }
    accumulate(q, d, kt, FVI_LEAF, d, rows, COLUMNS, acc);
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int i = 0; i < COLUMNS; i++) { _mm512_store_ps(s + r * FVI_LEAF + LANES * i, _mm512_mul_ps(acc[r][i], by)); }
    }
}

static void qk(const void *qt, int rows, int d, const void *packed, float scale, float *s) {
    const float *q = qt, *kt = packed;
    for (; rows >= ROWS; rows -= ROWS, q += (int64_t)ROWS * d, s += ROWS * FVI_LEAF) {
        qk_rows(q, ROWS, d, kt, scale, s);
    }
    switch (rows) {
    case 1:
        qk_rows(q, 1, d, kt, scale, s);
        break;
    case 2:
        qk_rows(q, 2, d, kt, scale, s);
        break;
    case 3:
        qk_rows(q, 3, d, kt, scale, s);
        break;
    case 4:
        qk_rows(q, 4, d, kt, scale, s);
        break;
    case 5:
        qk_rows(q, 5, d, kt, scale, s);
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

static void pv(const float *p, int rows, const float *alpha, const void *packed, int d_pad, float *out) {
    const float *vt = packed;
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

/* The weights of a row in place of its scores; their sum by lanes, (v0 + v1) + (v2 + v3), which fold16 then folds. */
INLINE __m512 weigh64(float *s, __m512 ref) {
    __m512 v[COLUMNS];
    UNROLL for (int i = 0; i < COLUMNS; i++) {
        v[i] = exp_negative(_mm512_sub_ps(_mm512_load_ps(s + LANES * i), ref));
        _mm512_store_ps(s + LANES * i, v[i]);
    }
    return _mm512_add_ps(_mm512_add_ps(v[0], v[1]), _mm512_add_ps(v[2], v[3]));
}

static void soften(float *s, int rows, float *m, float *sum, float *alpha) {
    for (int r = 0; r < rows; r += LANES) {
        soften16(s + r * FVI_LEAF, rows - r < LANES ? rows - r : LANES, m + r, sum + r, alpha + r, weigh64);
    }
}

void fvi_tile_avx512(fvi_tile_ops *ops) {
    *ops = (fvi_tile_ops){
        .name = "avx512",
        .row_block = ROWS,
        .pack_q = pack_q,
        .pack_k = {pack_k_f32, pack_k_f16, pack_k_bf16},
        .pack_v = {pack_v_f32, pack_v_f16, pack_v_bf16},
        .qk = qk,
        .soften = soften,
        .pv = pv,
    };
}
