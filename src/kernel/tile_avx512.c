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

static void qk(const void *qt, int rows, int d, const void *kt, float scale, float *s) {
    multiply_scores(qt, rows, d, kt, scale, s, accumulate);
}

static void pv(const float *p, int rows, const float *alpha, const void *vt, int d_pad, float *out) {
    multiply_values(p, rows, alpha, vt, d_pad, FVI_LEAF, out, accumulate);
}

/* ---- soften -------------------------------------------------------------------------------------------------------- */

/* The weights of a row in place of its scores; their sum by lanes, (v0 + v1) + (v2 + v3), which fold16 then folds. */
INLINE __m512 weigh64(float *s, __m512 ref) {
    __m512 v[COLUMNS];
    UNROLL for (int i = 0; i < COLUMNS; i++) {
        v[i] = exp2_negative(_mm512_sub_ps(_mm512_load_ps(s + LANES * i), ref), false);
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
