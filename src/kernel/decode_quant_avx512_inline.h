/* decode_quant_avx512_inline.h - the frame of weights times quantised V: rows and columns cut into blocks of registers, the next
 * leaf asked for. Widths are multiples of 32. */
#ifndef FVI_DECODE_QUANT_AVX512_INLINE_H
#define FVI_DECODE_QUANT_AVX512_INLINE_H

#include "kernel/avx512_inline.h"
#include "kernel/decode_quant_inline.h"
#include "kernel/quant.h"

enum { GROUP = 4, WIDE = 8 }; /* rows of a block; its columns in registers where it has one row, half as many elsewhere */
enum { PER_BLOCK = FVI_QUANT_BLOCK / LANES, BLOCKS = WIDE / PER_BLOCK };

/* The next leaf is row_bytes lines of integers and, behind them, its scales: lines c / 64 * 64 + j and on, one for each j and 64
 * columns. */
INLINE void ask_line(const fvi_rows *v, int j, int c, int columns) {
    for (int part = c / 64; v->next != NULL && part < c / 64 + (columns + 3) / 4; part++) {
        if (part * 64 + j < v->row_bytes) {
            _mm_prefetch((const char *)((uintptr_t)v->next + (uintptr_t)(part * 64 + j) * 64), _MM_HINT_T0);
        }
    }
}

/* Outputs of up to 4 rows, `columns` registers from column c on: each form brings its own, for constant rows and columns. */
typedef void value_block_fn(const float *p, int rows, const float *alpha, const fvi_rows *v, int c, int d_pad, float *out,
                            int columns);

INLINE void multiply_columns(const float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out,
                             value_block_fn *form) {
    int c = 0;
    for (; rows == 1 && c + LANES * WIDE <= d; c += LANES * WIDE) {
        form(p, rows, alpha, v, c, d_pad, out, WIDE);
    }
    for (; c + LANES * WIDE / 2 <= d; c += LANES * WIDE / 2) {
        form(p, rows, alpha, v, c, d_pad, out, WIDE / 2);
    }
    if (c < d) {
        form(p, rows, alpha, v, c, d_pad, out, PER_BLOCK);
    }
}

INLINE void multiply_weights(const float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out,
                             value_block_fn *form) {
    for (; rows >= GROUP; rows -= GROUP, p += GROUP * FVI_LEAF, alpha += GROUP, out += GROUP * (int64_t)d_pad) {
        multiply_columns(p, GROUP, alpha, v, d, d_pad, out, form);
    }
    switch (rows) {
    case 1:
        multiply_columns(p, 1, alpha, v, d, d_pad, out, form);
        break;
    case 2:
        multiply_columns(p, 2, alpha, v, d, d_pad, out, form);
        break;
    case 3:
        multiply_columns(p, 3, alpha, v, d, d_pad, out, form);
        break;
    default:
        break;
    }
    decode_end_leaf(v, d);
}

#endif
