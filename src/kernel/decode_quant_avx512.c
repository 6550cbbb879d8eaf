/* decode_quant_avx512.c - weights times quantised V for AVX-512, where it lies.
 *
 * Up to 4 rows by 64 columns (1 by 128): the weights are multiplied with the scales first, 16 keys at once for each block of 32
 * columns; then each key's integers are widened in registers, for all rows, and enter one chain of each output. */
#include "kernel/decode_quant_avx512_inline.h"

/* weight[r][b][j] = p[r][j] times the scale of key j in block `block` + b; scales of keys past the end are not looked at. */
INLINE void scale_weights(const float *p, int rows, const fvi_rows *v, int block, int blocks,
                          float weight[GROUP][BLOCKS][FVI_LEAF]) {
    for (int j = 0; j < v->n; j += LANES) {
        __mmask16 mask = first(v->n - j);
        UNROLL for (int b = 0; b < blocks; b++) {
            __m512 by = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, v->scale + (block + b) * FVI_LEAF + j));
            UNROLL for (int r = 0; r < rows; r++) {
                _mm512_store_ps(&weight[r][b][j], _mm512_mul_ps(_mm512_load_ps(p + r * FVI_LEAF + j), by));
            }
        }
    }
}

/* Two registers of a block's 32 integers. */
INLINE void widen(const unsigned char *at, fv_dtype dtype, __m512 y[PER_BLOCK]) {
    __m128i x = _mm_loadu_si128((const __m128i *)at);
    if (dtype == FV_Q8_0) {
        y[0] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(x));
        y[1] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(at + LANES))));
    } else {
        /* the permutation looks at the low 4 bits of a lane: a table of -8 .. 7 */
        const __m512 value = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
        __m512i q = _mm512_cvtepu8_epi32(x);
        y[0] = _mm512_permutexvar_ps(q, value);
        y[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(q, 4), value);
    }
}

INLINE void value_block(const float *p, int rows, const float *alpha, const fvi_rows *v, int c, int d_pad, float *out,
                        int columns, fv_dtype dtype) {
    float weight[GROUP][BLOCKS][FVI_LEAF] __attribute__((aligned(64)));
    __m512 acc[GROUP][WIDE], y[WIDE];
    int blocks = columns / PER_BLOCK, block_bytes = dtype == FV_Q8_0 ? FVI_QUANT_BLOCK : FVI_QUANT_BLOCK / 2;
    scale_weights(p, rows, v, c / FVI_QUANT_BLOCK, blocks, weight);
    UNROLL for (int r = 0; r < rows; r++) {
        __m512 a = _mm512_set1_ps(alpha[r]);
        UNROLL for (int i = 0; i < columns; i++) {
            acc[r][i] = _mm512_mul_ps(_mm512_load_ps(out + (int64_t)r * d_pad + c + LANES * i), a);
        }
    }
    const unsigned char *row = (const unsigned char *)v->data + c / FVI_QUANT_BLOCK * block_bytes;
    for (int j = 0; j < v->n; j++, row += v->row_bytes) {
        UNROLL for (int b = 0; b < blocks; b++) { widen(row + b * block_bytes, dtype, y + b * PER_BLOCK); }
        UNROLL for (int r = 0; r < rows; r++) {
            UNROLL for (int i = 0; i < columns; i++) {
                acc[r][i] = _mm512_fmadd_ps(_mm512_set1_ps(weight[r][i / PER_BLOCK][j]), y[i], acc[r][i]);
            }
        }
        ask_line(v, j, c, columns);
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int i = 0; i < columns; i++) { _mm512_store_ps(out + (int64_t)r * d_pad + c + LANES * i, acc[r][i]); }
    }
}

INLINE void value_block_q8_0(const float *p, int rows, const float *alpha, const fvi_rows *v, int c, int d_pad, float *out,
                             int columns) {
    value_block(p, rows, alpha, v, c, d_pad, out, columns, FV_Q8_0);
}
INLINE void value_block_q4_0(const float *p, int rows, const float *alpha, const fvi_rows *v, int c, int d_pad, float *out,
                             int columns) {
    value_block(p, rows, alpha, v, c, d_pad, out, columns, FV_Q4_0);
}

static void pv_q8_0(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out) {
    multiply_weights(p, rows, alpha, v, d, d_pad, out, value_block_q8_0);
}
static void pv_q4_0(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out) {
    multiply_weights(p, rows, alpha, v, d, d_pad, out, value_block_q4_0);
}

void fvi_decode_quant_avx512(fvi_decode_ops *ops) {
    ops->v[FV_Q8_0] = (fvi_decode_v){"avx512", pv_q8_0};
    ops->v[FV_Q4_0] = (fvi_decode_v){"avx512", pv_q4_0};
}
