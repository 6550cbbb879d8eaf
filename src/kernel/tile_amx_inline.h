/* tile_amx_inline.h - what the AMX kernels of the attention tile share: the tiles' configuration and a step of products. */
#ifndef FVI_TILE_AMX_INLINE_H
#define FVI_TILE_AMX_INLINE_H

#include "kernel/tile_avx512_inline.h"

#include <string.h>

/* The operand of ldtilecfg. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t column_bytes[16];
    uint8_t rows[16];
} tile_config;

/* Rows and columns of a tile; elements of a chain that one product takes; bytes of a tile's row, of a tile and of two. */
enum { TILE = 16, STEP = 32, TILE_ROW = 64, TILE_BYTES = TILE * TILE_ROW, PAIR_BYTES = 2 * TILE_BYTES };

/* Compilers do not know that a tile load reads memory: what was stored before has to be there. */
INLINE void settle(void) { __asm__ volatile("" ::: "memory"); }

/* Tiles 0..3 accumulate (rows x columns: 0 1 / 2 3), 4 and 5 are rows, 6 and 7 columns. `low` rows in the second tile. */
INLINE void configure(int rows) {
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
    __asm__ volatile("" ::"r"(&c) : "memory");
    _tile_loadconfig(&c);
}

/* C (rows, 32 columns) += A B over one step; the rows' stride in bytes; b: two tiles. `two`: more than 16 rows.
 *
 * K and V are read once for 32 rows, from the second cache: a load that does not keep them in the first leaves it to queries,
 * scores and weights, which all are read again. */
INLINE void multiply_step(const char *a, int64_t a_stride, const char *b, bool two) {
    settle();
    _tile_stream_loadd(6, b, TILE_ROW);
    _tile_loadd(4, a, a_stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_stream_loadd(7, b + TILE_BYTES, TILE_ROW);
    _tile_dpbf16ps(1, 4, 7);
    if (two) {
        _tile_loadd(5, a + TILE * a_stride, a_stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

INLINE void zero_sums(bool two) {
    _tile_zero(0);
    _tile_zero(1);
    if (two) {
        _tile_zero(2);
        _tile_zero(3);
    }
}

INLINE void load_sums(const char *from, int64_t stride, bool two) {
    settle();
    _tile_loadd(0, from, stride);
    _tile_loadd(1, from + 64, stride);
    if (two) {
        _tile_loadd(2, from + TILE * stride, stride);
        _tile_loadd(3, from + TILE * stride + 64, stride);
    }
}

INLINE void store_sums(char *to, int64_t stride, bool two) {
    _tile_stored(0, to, stride);
    _tile_stored(1, to + 64, stride);
    if (two) {
        _tile_stored(2, to + TILE * stride, stride);
        _tile_stored(3, to + TILE * stride + 64, stride);
    }
    settle();
}

/* out[r] *= alpha[r]. A leaf seldom raises a row's maximum: then alpha is 1, and the row is left alone. */
INLINE void rescale(float *out, int rows, const float *alpha, int d_pad) {
    const __m512 one = _mm512_set1_ps(1);
    for (int r = 0; r < rows; r += LANES) {
        __mmask16 here = first(rows - r);
        uint32_t moved = _mm512_mask_cmp_ps_mask(here, _mm512_maskz_loadu_ps(here, alpha + r), one, _CMP_NEQ_UQ);
        for (; moved != 0; moved &= moved - 1) {
            int i = r + __builtin_ctz(moved);
            __m512 a = _mm512_set1_ps(alpha[i]);
            for (int c = 0; c < d_pad; c += LANES) {
                float *x = out + (int64_t)i * d_pad + c;
                _mm512_store_ps(x, _mm512_mul_ps(_mm512_load_ps(x), a));
            }
        }
    }
}

#endif
