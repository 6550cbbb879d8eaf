/* tile_amx.c - qk and pv of the bf16 tile on AMX (tdpbf16ps); packing and soften are those of tile_avx512bf16.c.
 *
 * A pass multiplies 32 rows by 32 columns: four accumulator tiles, two tiles of rows, two of columns, so that each load feeds
 * two products. Packed operands are in the tiles' own layout. Rows that are no multiple of 16 take tiles of fewer rows: a row's
 * bits do not depend on its company. */
#include "kernel/tile_avx512_inline.h"

#include <string.h>

/* The operand of ldtilecfg. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t column_bytes[16];
    uint8_t rows[16];
} tile_config;

enum { TILE = 16, STEP = 32 }; /* rows and columns of a tile; elements of a chain that one product takes */

/* Tiles 0..3 accumulate (rows x columns: 0 1 / 2 3), 4 and 5 are rows, 6 and 7 columns. `low` rows in the second tile. */
static void configure(int rows) {
    tile_config c;
    memset(&c, 0, sizeof c);
    c.palette = 1;
    int top = rows < TILE ? rows : TILE, low = rows > TILE ? rows - TILE : 1;
    for (int t = 0; t < 8; t++) {
        c.column_bytes[t] = 64;
        c.rows[t] = TILE;
    }
    c.rows[0] = c.rows[1] = c.rows[4] = (uint8_t)top;
    c.rows[2] = c.rows[3] = c.rows[5] = (uint8_t)low;
    _tile_loadconfig(&c);
}

/* C (rows, 32 columns) += A B over `steps` steps; all strides in bytes. `two`: more than 16 rows. */
INLINE void multiply(const char *a, int64_t a_stride, const char *b, int64_t b_stride, int steps, bool two) {
    for (int t = 0; t < steps; t++, a += STEP * 2, b += TILE * b_stride) {
        _tile_loadd(6, b, b_stride);
        _tile_loadd(7, b + 64, b_stride);
        _tile_loadd(4, a, a_stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (two) {
            _tile_loadd(5, a + TILE * a_stride, a_stride);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
}

static void scale_rows(float *s, int rows, float scale) {
    __m512 by = _mm512_set1_ps(scale);
    for (int i = 0; i < rows * FVI_LEAF; i += LANES) {
        _mm512_store_ps(s + i, _mm512_mul_ps(_mm512_load_ps(s + i), by));
    }
}

INLINE void qk_pass(const char *q, int64_t q_stride, const char *kt, int steps, float *s, bool two) {
    enum { STRIDE = FVI_LEAF * 4 };
    for (int j = 0; j < FVI_LEAF; j += 2 * TILE) {
        _tile_zero(0);
        _tile_zero(1);
        if (two) {
            _tile_zero(2);
            _tile_zero(3);
        }
        multiply(q, q_stride, kt + 4 * j, STRIDE, steps, two);
        _tile_stored(0, s + j, STRIDE);
        _tile_stored(1, s + j + TILE, STRIDE);
        if (two) {
            _tile_stored(2, s + TILE * FVI_LEAF + j, STRIDE);
            _tile_stored(3, s + TILE * FVI_LEAF + j + TILE, STRIDE);
        }
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

static void rescale(float *out, int rows, const float *alpha, int d_pad) {
    for (int r = 0; r < rows; r++) {
        __m512 a = _mm512_set1_ps(alpha[r]);
        for (int c = 0; c < d_pad; c += LANES) {
            float *x = out + (int64_t)r * d_pad + c;
            _mm512_store_ps(x, _mm512_mul_ps(_mm512_load_ps(x), a));
        }
    }
}

/* 32 columns of output. */
INLINE void pv_pass(const char *p, const char *vt, int64_t v_stride, char *out, bool two) {
    char *low = out + TILE * v_stride; /* rows of out and of packed V are equally long */
    _tile_loadd(0, out, v_stride);
    _tile_loadd(1, out + 64, v_stride);
    if (two) {
        _tile_loadd(2, low, v_stride);
        _tile_loadd(3, low + 64, v_stride);
    }
    multiply(p, FVI_LEAF * 4, vt, v_stride, FVI_LEAF / STEP, two);
    _tile_stored(0, out, v_stride);
    _tile_stored(1, out + 64, v_stride);
    if (two) {
        _tile_stored(2, low, v_stride);
        _tile_stored(3, low + 64, v_stride);
    }
}

/* The last 16 columns of a width that is no multiple of 32. */
INLINE void pv_narrow(const char *p, const char *vt, int64_t v_stride, char *out, bool two) {
    char *low = out + TILE * v_stride;
    _tile_loadd(0, out, v_stride);
    if (two) {
        _tile_loadd(2, low, v_stride);
    }
    for (int t = 0; t < FVI_LEAF / STEP; t++) {
        _tile_loadd(6, vt + t * TILE * v_stride, v_stride);
        _tile_loadd(4, p + t * STEP * 2, FVI_LEAF * 4);
        _tile_dpbf16ps(0, 4, 6);
        if (two) {
            _tile_loadd(5, p + TILE * FVI_LEAF * 4 + t * STEP * 2, FVI_LEAF * 4);
            _tile_dpbf16ps(2, 5, 6);
        }
    }
    _tile_stored(0, out, v_stride);
    if (two) {
        _tile_stored(2, low, v_stride);
    }
}

INLINE void pv_rows(const char *p, const char *vt, int d_pad, char *out, bool two) {
    int c = 0;
    for (; c + 2 * TILE <= d_pad; c += 2 * TILE) {
        pv_pass(p, vt + 4 * c, d_pad * 4, out + 4 * c, two);
    }
    if (c < d_pad) {
        pv_narrow(p, vt + 4 * c, d_pad * 4, out + 4 * c, two);
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
    ops->qk = qk;
    ops->pv = pv;
}
