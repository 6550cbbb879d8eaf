/* tile_amx.c - packing, qk and pv of the bf16 tile on AMX (tdpbf16ps); queries are packed as in tile_avx512bf16.c.
 *
 * A pass multiplies 32 rows by 32 columns: four accumulator tiles, two tiles of rows, two of columns, so that each load feeds
 * two products. K and V are packed as tiles, each of 1 KB, in the order in which a pass takes them. Rows that are no multiple of
 * 16 take tiles of fewer rows: a row's bits do not depend on its company. */
#include "kernel/tile_amx_inline.h"
#include "kernel/tile_pack_inline.h"

static void pack_k(const void *k, int64_t row_bytes, int n, int d, void *kt) { pack_keys(k, row_bytes, n, d, kt, true); }
static void pack_v(const void *v, int64_t row_bytes, int n, int d, void *vt) { pack_values(v, row_bytes, n, d, vt, true); }

static void scale_rows(float *s, int rows, float scale) {
    __m512 by = _mm512_set1_ps(scale);
    for (int i = 0; i < rows * FVI_LEAF; i += LANES) {
        _mm512_store_ps(s + i, _mm512_mul_ps(_mm512_load_ps(s + i), by));
    }
}

INLINE void qk_pass(const char *q, int64_t q_stride, const char *kt, int steps, float *s, bool two) {
    for (int j = 0; j < FVI_LEAF; j += 2 * TILE) {
        zero_sums(two);
        for (int t = 0; t < steps; t++, kt += PAIR_BYTES) {
            multiply_step(q + t * STEP * 2, q_stride, kt, two);
        }
        store_sums((char *)(s + j), FVI_LEAF * 4, two);
    }
}

static void qk(const void *qt, int rows, int d, const void *kt, float scale, float *s) {
    int64_t width = fvi_tile_half_width(d);
    const char *q = qt;
    float *to = s;
    for (int left = rows; left > 0; left -= 2 * TILE, q += 2 * TILE * width * 2, to += 2 * TILE * FVI_LEAF) {
        if (left == rows || left < 2 * TILE) {
            configure(left < 2 * TILE ? left : 2 * TILE);
        }
        if (left > TILE) {
            qk_pass(q, width * 2, kt, (int)width / STEP, to, true);
        } else {
            qk_pass(q, width * 2, kt, (int)width / STEP, to, false);
        }
    }
    _tile_release();
    scale_rows(s, rows, scale);
}

/* 32 columns of output. */
INLINE void pv_pass(const char *p, const char *vt, char *out, int64_t stride, bool two) {
    load_sums(out, stride, two);
    for (int t = 0; t < FVI_LEAF / STEP; t++) {
        multiply_step(p + t * STEP * 2, FVI_LEAF * 4, vt + t * PAIR_BYTES, two);
    }
    store_sums(out, stride, two);
}

/* The last 16 columns of a width that is no multiple of 32. */
INLINE void pv_narrow(const char *p, const char *vt, char *out, int64_t stride, bool two) {
    char *low = out + TILE * stride;
    settle();
    _tile_loadd(0, out, stride);
    if (two) {
        _tile_loadd(2, low, stride);
    }
    for (int t = 0; t < FVI_LEAF / STEP; t++) {
        _tile_loadd(6, vt + t * TILE_BYTES, TILE_ROW);
        _tile_loadd(4, p + t * STEP * 2, FVI_LEAF * 4);
        _tile_dpbf16ps(0, 4, 6);
        if (two) {
            _tile_loadd(5, p + TILE * FVI_LEAF * 4 + t * STEP * 2, FVI_LEAF * 4);
            _tile_dpbf16ps(2, 5, 6);
        }
    }
    _tile_stored(0, out, stride);
    if (two) {
        _tile_stored(2, low, stride);
    }
    settle();
}

INLINE void pv_rows(const char *p, const char *vt, int d_pad, char *out, bool two) {
    int c = 0;
    for (; c + 2 * TILE <= d_pad; c += 2 * TILE) {
        pv_pass(p, vt + c / TILE * PAIR_BYTES, out + 4 * c, d_pad * 4, two);
    }
    if (c < d_pad) {
        pv_narrow(p, vt + c / TILE * PAIR_BYTES, out + 4 * c, d_pad * 4, two);
    }
}

static void pv(const float *p, int rows, const float *alpha, const void *vt, int d_pad, float *out) {
    rescale(out, rows, alpha, d_pad);
    for (int left = rows; left > 0; left -= 2 * TILE, p += 2 * TILE * FVI_LEAF, out += 2 * TILE * (int64_t)d_pad) {
        if (left == rows || left < 2 * TILE) {
            configure(left < 2 * TILE ? left : 2 * TILE);
        }
        if (left > TILE) {
            pv_rows((const char *)p, vt, d_pad, (char *)out, true);
        } else {
            pv_rows((const char *)p, vt, d_pad, (char *)out, false);
        }
    }
    _tile_release();
}

void fvi_tile_amx(fvi_tile_ops *ops) {
    ops->name = "amx";
    ops->row_block = 2 * TILE;
    ops->tiles = true;
    ops->pack_k[FV_BF16] = pack_k;
    ops->pack_v[FV_BF16] = pack_v;
    ops->qk = qk;
    ops->pv = pv;
}
