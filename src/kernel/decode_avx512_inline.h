/* decode_avx512_inline.h - the frame that the AVX-512 forms of the products of generated tokens share: rows and keys cut into
 * blocks of 16 accumulators, scores folded and stored, the next leaf asked for. */
#ifndef FVI_DECODE_AVX512_INLINE_H
#define FVI_DECODE_AVX512_INLINE_H

#include "kernel/avx512_inline.h"
#include "kernel/decode.h"

enum { GROUP = 4, COLUMNS = 4, WIDE = 8 }; /* rows and columns of a block, in registers; columns where it has one row */

/* Where keys j .. j + keys - 1 are; past the leaf's end its last row stands in, whose score is dropped. */
INLINE void point_at(const fvi_rows *k, int j, int keys, const unsigned char *key[LANES]) {
    UNROLL for (int i = 0; i < keys; i++) {
        int at = j + i < k->n ? j + i : k->n - 1;
        key[i] = (const unsigned char *)k->data + at * k->row_bytes;
    }
}

/* Bytes from .. from + bytes - 1 of row j of the next leaf, into the second cache. A prefetch never faults. */
INLINE void ask_for(const fvi_rows *rows, int j, int64_t from, int64_t bytes) {
    const char *row = (const char *)((uintptr_t)rows->next + (uintptr_t)(j * rows->row_bytes + from));
    for (int64_t at = 0; rows->next != NULL && at < bytes; at += 64) {
        _mm_prefetch(row + at, _MM_HINT_T1);
    }
}

/* Lane r * keys + i of v: the score of row r with the i-th key from s on. */
INLINE void store_scores(__m512 v, int rows, int keys, float *s) {
    if (keys == LANES) {
        _mm512_store_ps(s, v);
    } else if (keys == 8) {
        _mm256_store_ps(s, _mm512_castps512_ps256(v));
        _mm256_store_ps(s + FVI_LEAF, _mm512_extractf32x8_ps(v, 1));
    } else {
        _mm_store_ps(s, _mm512_castps512_ps128(v));
        _mm_store_ps(s + FVI_LEAF, _mm512_extractf32x4_ps(v, 1));
        if (rows > 2) {
            _mm_store_ps(s + 2 * FVI_LEAF, _mm512_extractf32x4_ps(v, 2));
        }
        if (rows > 3) {
            _mm_store_ps(s + 3 * FVI_LEAF, _mm512_extractf32x4_ps(v, 3));
        }
    }
}

/* Blocks of keys may reach past the leaf's end: what they left there. */
static inline void clear_scores(int n, int rows, float *s) {
    for (int r = 0; n < FVI_LEAF && r < rows; r++) {
        for (int j = n; j < FVI_LEAF; j++) {
            s[r * FVI_LEAF + j] = 0;
        }
    }
}

/* Scores of up to 4 rows with a leaf, `keys` at once: each form brings its own, for constant rows and keys. */
typedef void score_rows_fn(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s, int keys);

INLINE void multiply_keys(const void *qt, int64_t q_bytes, int rows, int d, const fvi_rows *k, float scale, float *s,
                          score_rows_fn *form) {
    const char *q = qt;
    int left = rows;
    float *to = s;
    for (; left >= GROUP; left -= GROUP, q += GROUP * q_bytes, to += GROUP * FVI_LEAF) {
        form(q, 4, d, k, scale, to, 4);
    }
    switch (left) {
    case 1:
        form(q, 1, d, k, scale, to, LANES);
        break;
    case 2:
        form(q, 2, d, k, scale, to, 8);
        break;
    case 3:
        form(q, 3, d, k, scale, to, 4);
        break;
    default:
        break;
    }
    clear_scores(k->n, rows, s);
}

/* Outputs of up to 4 rows, `columns` registers from column c on: likewise for constant rows and columns. */
typedef void value_block_fn(const float *p, int rows, const float *alpha, const fvi_rows *v, int c, int d, int d_pad, float *out,
                            int columns);

INLINE void multiply_columns(const float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out,
                             value_block_fn *form) {
    int c = 0;
    for (; rows == 1 && c + LANES * WIDE <= d_pad; c += LANES * WIDE) {
        form(p, rows, alpha, v, c, d, d_pad, out, WIDE);
    }
    for (; c + LANES * COLUMNS <= d_pad; c += LANES * COLUMNS) {
        form(p, rows, alpha, v, c, d, d_pad, out, COLUMNS);
    }
    for (; c + LANES * 2 <= d_pad; c += LANES * 2) {
        form(p, rows, alpha, v, c, d, d_pad, out, 2);
    }
    if (c < d_pad) {
        form(p, rows, alpha, v, c, d, d_pad, out, 1);
    }
}

INLINE void multiply_weights(const float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out,
                             value_block_fn *form) {
    for (; rows >= GROUP; rows -= GROUP, p += GROUP * FVI_LEAF, alpha += GROUP, out += GROUP * (int64_t)d_pad) {
        multiply_columns(p, 4, alpha, v, d, d_pad, out, form);
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
}

#endif
