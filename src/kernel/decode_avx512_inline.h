/* decode_avx512_inline.h - the frame that the AVX-512 forms of the products of generated tokens share: rows and keys cut into
 * blocks of 16 accumulators, scores folded and stored, the next leaf asked for. */
#ifndef FVI_DECODE_AVX512_INLINE_H
#define FVI_DECODE_AVX512_INLINE_H

#include "kernel/avx512_inline.h"
#include "kernel/decode.h"

enum { GROUP = 4, WIDE = 8 };              /* rows of a block; its columns in registers, at most */
enum { AHEAD_K = 10240, AHEAD_V = 16384 }; /* bytes asked for ahead: a half sweep of V leaves 4 KB of it behind at once */

/* Where keys j .. j + keys - 1 are; past the leaf's end its last row stands in, whose score is dropped. */
INLINE void point_at(const fvi_rows *k, int j, int keys, const unsigned char *key[LANES]) {
    UNROLL for (int i = 0; i < keys; i++) {
        int at = j + i < k->n ? j + i : k->n - 1;
        key[i] = (const unsigned char *)k->data + at * k->row_bytes;
    }
}

/* What is asked for ahead of its time: so many bytes or a leaf further on, in this leaf or the next one. A line at a time between
 * the products and in the order of addresses, since bursts and jumps to and fro leave memory idle; and without a branch. */
typedef struct ahead {
    int64_t row_bytes, next; /* next: from row n of this leaf, were there one, to row 0 of the next leaf */
    int rows, n;             /* rows ahead, a multiple of 8 */
    bool together;           /* rows follow each other without gaps */
} ahead;

/* Of rows of `bytes` bytes. Later passes over a leaf ask for what they are at. */
INLINE ahead ahead_of(const fvi_rows *rows, int64_t bytes, int64_t distance, int pass) {
    int far = (int)fvi_min(fvi_round_up(fvi_max(distance / bytes, 1), 8), FVI_LEAF);
    uintptr_t end = (uintptr_t)rows->data + (uintptr_t)(rows->n * rows->row_bytes);
    return (ahead){.row_bytes = rows->row_bytes,
                   .next = rows->next == NULL || pass > 0 ? 0 : (int64_t)((uintptr_t)rows->next - end),
                   .rows = pass > 0 ? 0 : far,
                   .n = rows->n,
                   .together = rows->row_bytes == bytes};
}

/* From rows j .. j + keys - 1 to those that are asked for meanwhile. */
INLINE int64_t way_ahead(const ahead *a, int j, int keys) {
    int rows = (a->rows + keys - 1) / keys * keys;
    return rows * a->row_bytes + (j + rows < a->n ? 0 : a->next);
}

/* A prefetch never faults. Not into the second cache: each line is read once a token. */
INLINE void ask_for(const unsigned char *row, int64_t way) {
    _mm_prefetch((const char *)((uintptr_t)row + (uintptr_t)way), _MM_HINT_NTA);
}

/* While a step takes 64 or 32 bytes, `step`, from byte `at` on of each of several keys, key number i of them brings the line
 * ask_first + i * ask_stride; where steps take half a line, the first half of the keys brings one each. */
INLINE int64_t ask_first(const ahead *a, int64_t at, int step, int keys) {
    return a->together ? at * keys : step == 64 ? at : at / 64 * 64 + (at % 64 != 0 ? a->row_bytes : 0);
}
INLINE int64_t ask_stride(const ahead *a, int step) { return a->together ? 64 : 64 / step * a->row_bytes; }

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
typedef void score_rows_fn(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s, int keys, const ahead *next);

INLINE void multiply_keys(const void *qt, int64_t q_bytes, int rows, int d, const fvi_rows *k, float scale, float *s,
                          int64_t element, score_rows_fn *form) {
    const char *q = qt;
    float *to = s;
    int passes = (rows + GROUP - 1) / GROUP;
    for (int pass = 0; pass < passes; pass++, q += GROUP * q_bytes, to += GROUP * FVI_LEAF) {
        ahead next = ahead_of(k, d * element, AHEAD_K, pass);
        switch (rows - GROUP * pass) {
        case 1:
            form(q, 1, d, k, scale, to, LANES, &next);
            break;
        case 2:
            form(q, 2, d, k, scale, to, 8, &next);
            break;
        case 3:
            form(q, 3, d, k, scale, to, 4, &next);
            break;
        default:
            form(q, 4, d, k, scale, to, 4, &next);
            break;
        }
    }
    clear_scores(k->n, rows, s);
}

/* V's rows are swept in whole, or, where that would take more registers than there are, 32 of them in one half of 8 registers of
 * columns and then in the other: they are still in the first cache then. */
enum { SWEPT = 32 };
typedef struct sweep {
    int from, keys;   /* of the leaf */
    int c;            /* the first column */
    int half, halves; /* which of 1 or 2 */
} sweep;

/* What is asked for while key j of a sweep is met: as many bytes as are read, way + j * stride from V's first row, and from key
 * `turn` on in the next leaf. */
typedef struct asking {
    int64_t way, stride, next;
    int turn;
} asking;

/* Two halves bring whole rows together, if those follow each other, in the order of addresses and evenly. */
INLINE asking asking_of(const fvi_rows *v, const sweep *w, const ahead *next, int64_t bytes, int64_t element) {
    int left = v->n - next->rows - w->from, half = w->half * w->keys;
    int64_t way = (w->from + next->rows) * v->row_bytes;
    if (w->halves == 2 && v->row_bytes == 2 * bytes) {
        return (asking){way + half * bytes, bytes, next->next, 2 * left - half};
    }
    return (asking){way + w->c * element, v->row_bytes, next->next, left};
}

INLINE int64_t asked_at(const asking *a, int j) { return a->way + j * a->stride + (j < a->turn ? 0 : a->next); }

/* Outputs of a few rows, `columns` registers from column w->c on, multiplied by alpha first: likewise for constant rows and
 * columns. */
typedef void value_block_fn(const float *p, int rows, const float *alpha, const fvi_rows *v, const sweep *w, int d, int d_pad,
                            float *out, int columns, const ahead *next);

/* Registers that are taken where `left` are left. */
INLINE int columns_of(int left) { return left >= 8 ? 8 : left >= 6 ? 6 : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

INLINE void sweep_halves(const float *p, int rows, const float *alpha, const fvi_rows *v, int c, int d, int d_pad, float *out,
                         const ahead *next, value_block_fn *form) {
    static const float one[GROUP] = {1, 1, 1, 1};
    for (int from = 0; from < v->n; from += SWEPT) {
        int keys = v->n - from < SWEPT ? v->n - from : SWEPT;
        for (int half = 0; half < 2; half++) {
            sweep w = {from, keys, c + half * LANES * WIDE / 2, half, 2};
            form(p, rows, from == 0 ? alpha : one, v, &w, d, d_pad, out, WIDE / 2, next);
        }
    }
}

/* From column c on; returns how many registers were taken. Four rows of 8 or 6 registers would not leave enough for V. */
INLINE int multiply_columns(const float *p, int rows, const float *alpha, const fvi_rows *v, int c, int d, int d_pad, float *out,
                            const ahead *next, value_block_fn *form) {
    const sweep all = {0, v->n, c, 0, 1};
    int columns = columns_of((d_pad - c) / LANES);
    if (columns > 4 && rows > 2) {
        if (columns == 8) {
            sweep_halves(p, rows, alpha, v, c, d, d_pad, out, next, form);
            return columns;
        }
        columns = 4;
    }
    switch (columns) {
    case 8:
        form(p, rows, alpha, v, &all, d, d_pad, out, 8, next);
        break;
    case 6:
        form(p, rows, alpha, v, &all, d, d_pad, out, 6, next);
        break;
    case 4:
        form(p, rows, alpha, v, &all, d, d_pad, out, 4, next);
        break;
    case 2:
        form(p, rows, alpha, v, &all, d, d_pad, out, 2, next);
        break;
    default:
        form(p, rows, alpha, v, &all, d, d_pad, out, 1, next);
        break;
    }
    return columns;
}

INLINE void multiply_weights(const float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out,
                             int64_t element, value_block_fn *form) {
    int blocks = (rows + GROUP - 1) / GROUP;
    for (int block = 0; block < blocks;
         block++, rows -= GROUP, p += GROUP * FVI_LEAF, alpha += GROUP, out += GROUP * (int64_t)d_pad) {
        ahead next = ahead_of(v, d * element, AHEAD_V, block);
        for (int c = 0, columns; c < d_pad; c += LANES * columns) {
            switch (rows) {
            case 1:
                columns = multiply_columns(p, 1, alpha, v, c, d, d_pad, out, &next, form);
                break;
            case 2:
                columns = multiply_columns(p, 2, alpha, v, c, d, d_pad, out, &next, form);
                break;
            case 3:
                columns = multiply_columns(p, 3, alpha, v, c, d, d_pad, out, &next, form);
                break;
            default:
                columns = multiply_columns(p, 4, alpha, v, c, d, d_pad, out, &next, form);
                break;
            }
        }
    }
}

#endif
