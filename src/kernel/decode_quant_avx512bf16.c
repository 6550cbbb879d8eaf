/* decode_quant_avx512bf16.c - weights times quantised V by bf16 dot products, V read where it lies.
 *
 * The integers of both formats are bf16 numbers as they stand, so nothing is lost in widening them; weights times scales are
 * rounded to bf16, as weights are before bf16 values. Two keys enter an output at once: half the multiply-adds of the f32 form,
 * for two more cheap operations a register of V. */
#include "kernel/decode_quant_avx512_inline.h"

enum { PAIRS = FVI_LEAF / 2 };

/* weight[r][b][t]: keys 2 t and 2 t + 1 of row r times their scales in block `block` + b; 0 past the end, whose scales are not
 * looked at. */
INLINE void pair_weights(const float *p, int rows, const fvi_rows *v, int block, int blocks,
                         uint32_t weight[GROUP][BLOCKS][PAIRS]) {
    for (int j = 0; j < v->n; j += 2 * LANES) {
        UNROLL for (int b = 0; b < blocks; b++) {
            const uint16_t *scale = v->scale + (block + b) * FVI_LEAF + j;
            __m512 low = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(v->n - j), scale));
            __m512 high = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(v->n - j - LANES), scale + LANES));
            UNROLL for (int r = 0; r < rows; r++) {
                __m512 x = _mm512_mul_ps(_mm512_load_ps(p + r * FVI_LEAF + j), low);
                __m512 y = _mm512_mul_ps(_mm512_load_ps(p + r * FVI_LEAF + j + LANES), high);
                _mm512_store_si512(&weight[r][b][j / 2], (__m512i)_mm512_cvtne2ps_pbh(y, x));
            }
        }
    }
}

/* Pairs of bf16 of two rows' 16 int8: an f32 of so small an integer ends in 16 zero bits. */
INLINE __m512i pairs_q8_0(const unsigned char *a, const unsigned char *b) {
    __m512 x = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)a)));
    __m512 y = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)b)));
    return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(_mm512_castps_si512(x), 16), _mm512_castps_si512(y));
}

/* bf16 of -8 .. 7, twice: the permutation looks at 5 bits of a word, of which the fifth is another element's. */
INLINE __m512i nibble_table(void) {
    static const uint16_t value[32] = {0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80, 0x0000, 0x3f80, 0x4000,
                                       0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040,
                                       0xc000, 0xbf80, 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0};
    return _mm512_loadu_si512(value);
}

/* The two registers of a block's 32 elements, of two rows. */
INLINE void widen(const unsigned char *a, const unsigned char *b, fv_dtype dtype, __m512i table, __m512i y[PER_BLOCK]) {
    if (dtype == FV_Q8_0) {
        y[0] = pairs_q8_0(a, b);
        y[1] = pairs_q8_0(a + LANES, b + LANES);
    } else {
        __m512i low = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)a));
        __m512i high = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)b));
        __m512i both = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
        y[0] = _mm512_permutexvar_epi16(both, table);
        y[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(both, 4), table);
    }
}

INLINE void value_block(const float *p, int rows, const float *alpha, const fvi_rows *v, int c, int d_pad, float *out,
                        int columns, fv_dtype dtype) {
    uint32_t weight[GROUP][BLOCKS][PAIRS] __attribute__((aligned(64)));
    __m512 acc[GROUP][WIDE];
    __m512i y[WIDE], table = nibble_table();
    int blocks = columns / PER_BLOCK, block_bytes = dtype == FV_Q8_0 ? FVI_QUANT_BLOCK : FVI_QUANT_BLOCK / 2;
    pair_weights(p, rows, v, c / FVI_QUANT_BLOCK, blocks, weight);
    UNROLL for (int r = 0; r < rows; r++) {
        __m512 a = _mm512_set1_ps(alpha[r]);
        UNROLL for (int i = 0; i < columns; i++) {
            acc[r][i] = _mm512_mul_ps(_mm512_load_ps(out + (int64_t)r * d_pad + c + LANES * i), a);
        }
    }
    const unsigned char *row = (const unsigned char *)v->data + c / FVI_QUANT_BLOCK * block_bytes;
    for (int j = 0; j < v->n; j += 2, row += 2 * v->row_bytes) {
        const unsigned char *next = j + 1 < v->n ? row + v->row_bytes : row; /* of weight 0 */
        ask_line(v, j, c, columns);
        UNROLL for (int b = 0; b < blocks; b++) {
            widen(row + b * block_bytes, next + b * block_bytes, dtype, table, y + b * PER_BLOCK);
        }
        UNROLL for (int r = 0; r < rows; r++) {
            UNROLL for (int i = 0; i < columns; i++) {
                __m512bh x = (__m512bh)_mm512_set1_epi32((int)weight[r][i / PER_BLOCK][j / 2]);
                acc[r][i] = _mm512_dpbf16_ps(acc[r][i], x, (__m512bh)y[i]);
            }
        }
        ask_line(v, j + 1, c, columns);
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

void fvi_decode_quant_avx512bf16(fvi_decode_ops *ops) {
    ops->v[FV_Q8_0] = (fvi_decode_v){"avx512bf16", pv_q8_0};
    ops->v[FV_Q4_0] = (fvi_decode_v){"avx512bf16", pv_q4_0};
}
