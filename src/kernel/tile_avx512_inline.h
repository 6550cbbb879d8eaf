/* tile_avx512_inline.h - the frames that the AVX-512 forms of the attention tile share: products in blocks of 6 rows by 4
 * registers, soften on 16 rows together. */
#ifndef FVI_TILE_AVX512_INLINE_H
#define FVI_TILE_AVX512_INLINE_H

#include "kernel/avx512_inline.h"
#include "kernel/tile.h"

enum { ROWS = 6, COLUMNS = 4, AHEAD = 32 };

/* Rows are asked for AHEAD rows before they are packed, into the second cache: a generated token reads each row once, from
 * memory, and what lies between two leaves is arithmetic. An address beyond the rows is harmless: a prefetch never faults. */
INLINE void prefetch_rows(const unsigned char *row, int64_t row_bytes, int rows, int64_t bytes) {
    for (int j = 0; j < rows; j++) {
        for (int64_t at = 0; at < bytes; at += 64) {
            _mm_prefetch((const void *)((uintptr_t)row + (uintptr_t)((AHEAD + j) * row_bytes + at)), _MM_HINT_T1);
        }
    }
}

/* The products of qk and pv. An operand's unit is 32 bits: an f32, or a pair of bf16; strides and steps count units. Each form
 * brings its microkernel: acc[r][i] += sum over t of a[r * a_stride + t] times b[t * b_stride + 16 i ..], for constant rows
 * and columns. */
typedef void accumulate_fn(const float *a, int64_t a_stride, const float *b, int64_t b_stride, int steps, int rows, int columns,
                           __m512 acc[ROWS][COLUMNS]);

INLINE void score_rows(const float *q, int rows, int steps, const float *kt, float scale, float *s, accumulate_fn *accumulate) {
    __m512 acc[ROWS][COLUMNS], by = _mm512_set1_ps(scale);
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int i = 0; i < COLUMNS; i++) { acc[r][i] = _mm512_setzero_ps(); }
    }
    accumulate(q, steps, kt, FVI_LEAF, steps, rows, COLUMNS, acc);
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int i = 0; i < COLUMNS; i++) { _mm512_store_ps(s + r * FVI_LEAF + LANES * i, _mm512_mul_ps(acc[r][i], by)); }
    }
}

INLINE void multiply_scores(const float *q, int rows, int steps, const float *kt, float scale, float *s,
                            accumulate_fn *accumulate) {
    for (; rows >= ROWS; rows -= ROWS, q += (int64_t)ROWS * steps, s += ROWS * FVI_LEAF) {
        score_rows(q, ROWS, steps, kt, scale, s, accumulate);
    }
    switch (rows) {
    case 1:
        score_rows(q, 1, steps, kt, scale, s, accumulate);
        break;
    case 2:
        score_rows(q, 2, steps, kt, scale, s, accumulate);
        break;
    case 3:
        score_rows(q, 3, steps, kt, scale, s, accumulate);
        break;
    case 4:
        score_rows(q, 4, steps, kt, scale, s, accumulate);
        break;
    case 5:
        score_rows(q, 5, steps, kt, scale, s, accumulate);
        break;
    default:
        break;
    }
}

INLINE void value_block(const float *p, const float *alpha, const float *vt, int d_pad, int steps, float *out, int rows,
                        int columns, accumulate_fn *accumulate) {
    __m512 acc[ROWS][COLUMNS];
    UNROLL for (int r = 0; r < rows; r++) {
        __m512 a = _mm512_set1_ps(alpha[r]);
        UNROLL for (int i = 0; i < columns; i++) {
            acc[r][i] = _mm512_mul_ps(_mm512_load_ps(out + (int64_t)r * d_pad + LANES * i), a);
        }
    }
    accumulate(p, FVI_LEAF, vt, d_pad, steps, rows, columns, acc);
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int i = 0; i < columns; i++) { _mm512_store_ps(out + (int64_t)r * d_pad + LANES * i, acc[r][i]); }
    }
}

/* Five registers of columns are cut 3 + 2: a single one has too few chains to hide the latency. */
INLINE void value_rows(const float *p, int rows, const float *alpha, const float *vt, int d_pad, int steps, float *out,
                       accumulate_fn *accumulate) {
    for (int left = d_pad / LANES, columns; left > 0; left -= columns, vt += LANES * columns, out += LANES * columns) {
        columns = left == 5 ? 3 : left < COLUMNS ? left : COLUMNS;
        switch (columns) {
        case 1:
            value_block(p, alpha, vt, d_pad, steps, out, rows, 1, accumulate);
            break;
        case 2:
            value_block(p, alpha, vt, d_pad, steps, out, rows, 2, accumulate);
            break;
        case 3:
            value_block(p, alpha, vt, d_pad, steps, out, rows, 3, accumulate);
            break;
        default:
            value_block(p, alpha, vt, d_pad, steps, out, rows, COLUMNS, accumulate);
            break;
        }
    }
}

INLINE void multiply_values(const float *p, int rows, const float *alpha, const float *vt, int d_pad, int steps, float *out,
                            accumulate_fn *accumulate) {
    for (; rows >= ROWS; rows -= ROWS, p += ROWS * FVI_LEAF, alpha += ROWS, out += (int64_t)ROWS * d_pad) {
        value_rows(p, ROWS, alpha, vt, d_pad, steps, out, accumulate);
    }
    switch (rows) {
    case 1:
        value_rows(p, 1, alpha, vt, d_pad, steps, out, accumulate);
        break;
    case 2:
        value_rows(p, 2, alpha, vt, d_pad, steps, out, accumulate);
        break;
    case 3:
        value_rows(p, 3, alpha, vt, d_pad, steps, out, accumulate);
        break;
    case 4:
        value_rows(p, 4, alpha, vt, d_pad, steps, out, accumulate);
        break;
    case 5:
        value_rows(p, 5, alpha, vt, d_pad, steps, out, accumulate);
        break;
    default:
        break;
    }
}

INLINE __m512 max64(const float *s) {
    return _mm512_max_ps(_mm512_max_ps(_mm512_load_ps(s), _mm512_load_ps(s + 16)),
                         _mm512_max_ps(_mm512_load_ps(s + 32), _mm512_load_ps(s + 48)));
}

/* Up to 16 rows; `weigh` turns a row of scores into weights and gives their sum by lanes, which fold16 then folds. */
INLINE void soften16(float *s, int rows, float *m, float *sum, float *alpha, __m512 (*weigh)(float *, __m512)) {
    const __m512 hidden = _mm512_set1_ps(-__builtin_inff());
    __m512 part[LANES];
    float ref[LANES] __attribute__((aligned(64)));
    __mmask16 mask = first(rows);
    for (int r = 0; r < LANES; r++) {
        part[r] = r < rows ? max64(s + r * FVI_LEAF) : hidden;
    }
    __m512 old = _mm512_mask_loadu_ps(hidden, mask, m);
    __m512 top = _mm512_max_ps(fold16(part, false), old);
    __m512 zeroed = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(top, hidden, _CMP_NEQ_UQ), top);
    __m512 correction = exp2_negative(_mm512_sub_ps(old, zeroed), false);
    _mm512_store_ps(ref, zeroed);
    for (int r = 0; r < LANES; r++) {
        part[r] = r < rows ? weigh(s + r * FVI_LEAF, _mm512_set1_ps(ref[r])) : _mm512_setzero_ps();
    }
    __m512 total = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, sum), correction, fold16(part, true));
    _mm512_mask_storeu_ps(m, mask, top);
    _mm512_mask_storeu_ps(alpha, mask, correction);
    _mm512_mask_storeu_ps(sum, mask, total);
}

#endif
