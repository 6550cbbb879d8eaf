/* decode_quant_avx512_inline.h - asking for the next leaf of quantised rows while this one's values are multiplied. */
#ifndef FVI_DECODE_QUANT_AVX512_INLINE_H
#define FVI_DECODE_QUANT_AVX512_INLINE_H

#include "kernel/decode_avx512_inline.h"
#include "kernel/quant.h"

/* The next leaf is row_bytes lines of integers and, behind them, its scales: lines c / 64 * 64 + j and on, one for each j and 64
 * columns, the scales' with the first columns. */
INLINE void ask_line(const fvi_rows *v, int j, int c, int columns) {
    for (int part = c / 64; v->next != NULL && part < c / 64 + (columns + 3) / 4; part++) {
        if (part * 64 + j < v->row_bytes) {
            _mm_prefetch((const char *)((uintptr_t)v->next + (uintptr_t)(part * 64 + j) * 64), _MM_HINT_T1);
        }
    }
}

INLINE void ask_scales(const fvi_rows *v, int d) {
    for (int line = 0; v->next != NULL && line < 2 * d / FVI_QUANT_BLOCK; line++) {
        _mm_prefetch((const char *)((uintptr_t)v->next + (uintptr_t)(v->row_bytes + line) * 64), _MM_HINT_T1);
    }
}

#endif
