/* tile_avx512bf16.c - the attention tile with bf16 dot products (vdpbf16ps): operands are pairs of bf16, sums f32.
 *
 * The same outer-product microkernel as in tile_avx512.c, at two elements of a chain an instruction: 24 accumulators, 4 loads
 * and 6 broadcasts of pairs a step. Packed K is pairs over c for 64 keys, packed V pairs over j for a row of columns. */
#include "kernel/tile_avx512_inline.h"
#include "kernel/tile_pack_inline.h"

enum { PAIRS = FVI_LEAF / 2 };

/* ---- packing ------------------------------------------------------------------------------------------------------- */

static void pack_q(const float *q, int rows, int d, void *qt) {
    int width = (int)fvi_tile_half_width(d);
    uint16_t *to = qt;
    for (int r = 0; r < rows; r++, q += d, to += width) {
        for (int c = 0; c < width; c += LANES) {
            __m512 x = _mm512_maskz_loadu_ps(first(d - c), q + c);
            _mm256_store_si256((__m256i *)(to + c), (__m256i)_mm512_cvtneps_pbh(x));
        }
    }
}

static void pack_k(const void *k, int64_t row_bytes, int n, int d, void *kt) { pack_keys(k, row_bytes, n, d, kt, false); }
static void pack_v(const void *v, int64_t row_bytes, int n, int d, void *vt) { pack_values(v, row_bytes, n, d, vt, false); }

/* ---- the microkernel ----------------------------------------------------------------------------------------------- */

INLINE void accumulate(const float *a, int64_t a_stride, const float *b, int64_t b_stride, int steps, int rows, int columns,
                       __m512 acc[ROWS][COLUMNS]) {
    for (int t = 0; t < steps; t++, b += b_stride) {
        __m512bh x[COLUMNS];
        UNROLL for (int i = 0; i < columns; i++) { x[i] = (__m512bh)_mm512_load_ps(b + LANES * i); }
        UNROLL for (int r = 0; r < rows; r++) {
            __m512bh y = (__m512bh)_mm512_set1_ps(a[r * a_stride + t]);
            UNROLL for (int i = 0; i < columns; i++) { acc[r][i] = _mm512_dpbf16_ps(acc[r][i], y, x[i]); }
        }
    }
}

static void qk(const void *qt, int rows, int d, const void *kt, float scale, float *s) {
    multiply_scores(qt, rows, (int)fvi_tile_half_width(d) / 2, kt, scale, s, accumulate);
}

static void pv(const float *p, int rows, const float *alpha, const void *vt, int d_pad, float *out) {
    multiply_values(p, rows, alpha, vt, d_pad, PAIRS, out, accumulate);
}

/* ---- soften -------------------------------------------------------------------------------------------------------- */

/* Weights as bf16 in the first half of the row's place; their sum is taken before they are rounded. */
INLINE __m512 weigh64_half(float *s, __m512 ref) {
    __m512 v[COLUMNS];
    UNROLL for (int i = 0; i < COLUMNS; i++) { v[i] = exp2_negative(_mm512_sub_ps(_mm512_load_ps(s + LANES * i), ref), true); }
    _mm512_store_si512(s, (__m512i)_mm512_cvtne2ps_pbh(v[1], v[0]));
    _mm512_store_si512(s + LANES, (__m512i)_mm512_cvtne2ps_pbh(v[3], v[2]));
    return _mm512_add_ps(_mm512_add_ps(v[0], v[1]), _mm512_add_ps(v[2], v[3]));
}

static void soften(float *s, int rows, float *m, float *sum, float *alpha) {
    for (int r = 0; r < rows; r += LANES) {
        soften16(s + r * FVI_LEAF, rows - r < LANES ? rows - r : LANES, m + r, sum + r, alpha + r, weigh64_half);
    }
}

void fvi_tile_avx512bf16(fvi_tile_ops *ops) {
    *ops = (fvi_tile_ops){
        .name = "avx512bf16",
        .row_block = ROWS,
        .half = true,
        .pack_q = pack_q,
        .pack_k = {[FV_BF16] = pack_k},
        .pack_v = {[FV_BF16] = pack_v},
        .qk = qk,
        .soften = soften,
        .pv = pv,
    };
}
