/* tile_pack_inline.h - packing of a leaf's K and V as pairs of bf16, in either order of tile.h. */
#ifndef FVI_TILE_PACK_INLINE_H
#define FVI_TILE_PACK_INLINE_H

#include "kernel/tile_avx512_inline.h"

/* Up to 16 keys by 32 elements (16 pairs): a transpose of pairs. */
INLINE void pack_key_block(const unsigned char *k, int64_t row_bytes, int n, int d, uint32_t *kt, int stride) {
    __m512 v[LANES];
    __mmask32 mask = d >= 32 ? UINT32_MAX : (UINT32_C(1) << d) - 1;
    UNROLL for (int j = 0; j < LANES; j++) {
        const unsigned char *row = k + j * row_bytes;
        __m512i x = j >= n ? _mm512_setzero_si512() : d >= 32 ? _mm512_loadu_si512(row) : _mm512_maskz_loadu_epi16(mask, row);
        v[j] = _mm512_castsi512_ps(x);
    }
    transpose16(v);
    UNROLL for (int c = 0; c < LANES; c++) { _mm512_store_ps((float *)(kt + c * stride), v[c]); }
}

INLINE void pack_keys(const void *k, int64_t row_bytes, int n, int d, void *kt, bool tiles) {
    for (int j = 0; j < FVI_LEAF; j += LANES) {
        const unsigned char *rows = (const unsigned char *)k + j * row_bytes;
        prefetch_rows(rows, row_bytes, LANES, 2 * d);
        for (int c = 0; c < d; c += 32) {
            uint32_t *to = (uint32_t *)kt + fvi_tile_key_pair(tiles, d, j, c / 2);
            if (n - j >= LANES && d - c >= 32) {
                pack_key_block(rows + 2 * c, row_bytes, LANES, 32, to, tiles ? LANES : FVI_LEAF);
            } else {
                pack_key_block(rows + 2 * c, row_bytes, n - j, d - c, to, tiles ? LANES : FVI_LEAF);
            }
        }
    }
}

/* Which of the 32 + 32 halves of two rows go to the 16 pairs of columns 0..15 and 16..31. */
INLINE __m512i pair_order(int column) {
    uint16_t order[32];
    for (int i = 0; i < LANES; i++) {
        order[2 * i] = (uint16_t)(column + i);
        order[2 * i + 1] = (uint16_t)(32 + column + i);
    }
    return _mm512_loadu_si512(order);
}

/* 32 columns of all rows, or the last 16: tiles come out one after the other. */
INLINE void pack_columns(const unsigned char *v, int64_t row_bytes, int n, __mmask32 mask, uint32_t *to, int stride, int second) {
    const __m512i low = pair_order(0), high = pair_order(LANES);
    for (int j = 0; j < FVI_LEAF; j += 2, v += 2 * row_bytes, to += stride) {
        to += second > LANES && j == FVI_LEAF / 2 ? second : 0; /* the tile beside has been written */
        prefetch_rows(v, row_bytes, 2, 1);
        __m512i a = j < n ? _mm512_maskz_loadu_epi16(mask, v) : _mm512_setzero_si512();
        __m512i b = j + 1 < n ? _mm512_maskz_loadu_epi16(mask, v + row_bytes) : _mm512_setzero_si512();
        _mm512_store_si512(to, _mm512_permutex2var_epi16(a, low, b));
        if (second > 0) {
            _mm512_store_si512(to + second, _mm512_permutex2var_epi16(a, high, b));
        }
    }
}

INLINE void pack_values(const void *v, int64_t row_bytes, int n, int d, void *vt, bool tiles) {
    const unsigned char *rows = v;
    int d_pad = (int)fvi_tile_pad(d), stride = tiles ? LANES : d_pad;
    for (int c = 0; c < d_pad; c += 32, rows += 64) {
        uint32_t *to = (uint32_t *)vt + fvi_tile_value_pair(tiles, d_pad, 0, c);
        __mmask32 mask = d - c >= 32 ? UINT32_MAX : (UINT32_C(1) << (d - c)) - 1;
        if (c + LANES < d_pad) {
            pack_columns(rows, row_bytes, n, mask, to, stride, tiles ? LANES * LANES : LANES);
        } else {
            pack_columns(rows, row_bytes, n, mask, to, stride, 0);
        }
    }
}

#endif
