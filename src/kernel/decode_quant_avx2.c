/* decode_quant_avx2.c - products of generated tokens with quantised rows for AVX2.
 *
 * qk: a block is a register of 32 bytes; |k| times q with k's sign goes through the product of unsigned and signed bytes, whose
 * pairs stay below 2 * 128 * 127 and so do not saturate; lanes over the width, folded once a key. pv: weights times scales for
 * one block of columns, then up to 2 rows by 32 columns. */
#include "kernel/decode_quant_inline.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 8, ROWS = 2, COLUMNS = FVI_QUANT_BLOCK / LANES };

static void pack_q(const float *q, int d, void *qt) { decode_pack_q(q, d, qt); }

/* The integers of one block, in the order of elements. */
INLINE __m256i block_of(const uint8_t *row, int block, fv_dtype dtype) {
    if (dtype == FV_Q8_0) {
        return _mm256_loadu_si256((const __m256i *)(row + block * FVI_QUANT_BLOCK));
    }
    __m128i x = _mm_loadu_si128((const __m128i *)(row + block * FVI_QUANT_BLOCK / 2));
    __m256i both = _mm256_set_m128i(_mm_srli_epi16(x, 4), x);
    return _mm256_sub_epi8(_mm256_and_si256(both, _mm256_set1_epi8(15)), _mm256_set1_epi8(8));
}

INLINE __m256 product(__m256i size, __m256i key, const int8_t *q) {
    __m256i signed_q = _mm256_sign_epi8(_mm256_load_si256((const __m256i *)q), key);
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_maddubs_epi16(size, signed_q), _mm256_set1_epi16(1)));
}

INLINE float fold(__m256 v) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

/* Up to 4 rows with one key. */
INLINE void score_key(const void *qt, int rows, int d, const fvi_rows *k, int j, float scale, float *s, fv_dtype dtype) {
    __m256 acc[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    const uint8_t *row = (const uint8_t *)k->data + j * k->row_bytes;
    for (int i = 0; i < d / FVI_QUANT_BLOCK; i++) {
        __m256i key = block_of(row, i, dtype), size = _mm256_abs_epi8(key);
        float by = _cvtsh_ss(k->scale[i * FVI_LEAF + j]);
        for (int r = 0; r < rows; r++) {
            decode_query q = decode_query_at(qt, r, d);
            __m256 x = product(size, key, q.q + i * FVI_QUANT_BLOCK);
            acc[r] = _mm256_fmadd_ps(x, _mm256_set1_ps(by * q.scale[i]), acc[r]);
        }
    }
    for (int r = 0; r < rows; r++) {
        s[r * FVI_LEAF + j] = scale * fold(acc[r]);
    }
}

INLINE void qk(const void *qt, int rows, int d, const fvi_rows *k, float scale, float *s, fv_dtype dtype) {
    memset(s, 0, (size_t)rows * FVI_LEAF * sizeof *s);
    for (int r = 0; r < rows; r += 4) {
        const unsigned char *q = (const unsigned char *)qt + r * decode_q_bytes(d);
        for (int j = 0; j < k->n; j++) {
            if (rows - r >= 4) {
                score_key(q, 4, d, k, j, scale, s + r * FVI_LEAF, dtype);
            } else {
                score_key(q, rows - r, d, k, j, scale, s + r * FVI_LEAF, dtype);
            }
        }
    }
}

INLINE void widen(const uint8_t *row, int block, fv_dtype dtype, __m256 y[COLUMNS]) {
    __m256i q = block_of(row, block, dtype);
    __m128i low = _mm256_castsi256_si128(q), high = _mm256_extracti128_si256(q, 1);
    y[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(low));
    y[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(low, LANES)));
    y[2] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high));
    y[3] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(high, LANES)));
}

/* Weights times the scales of one block. Scales of keys past the end are not looked at. */
INLINE void scale_weights(const float *p, int rows, const fvi_rows *v, int block, float *weight) {
    for (int j = 0; j < v->n; j++) {
        float by = _cvtsh_ss(v->scale[block * FVI_LEAF + j]);
        for (int r = 0; r < rows; r++) {
            weight[r * FVI_LEAF + j] = p[r * FVI_LEAF + j] * by;
        }
    }
}

INLINE void value_block(const float *p, int rows, const float *alpha, const fvi_rows *v, int block, int d_pad, float *out,
                        fv_dtype dtype) {
    float weight[ROWS * FVI_LEAF];
    __m256 acc[ROWS][COLUMNS], y[COLUMNS];
    out += block * FVI_QUANT_BLOCK;
    scale_weights(p, rows, v, block, weight);
    for (int r = 0; r < rows; r++) {
        for (int i = 0; i < COLUMNS; i++) {
            acc[r][i] = _mm256_mul_ps(_mm256_load_ps(out + r * d_pad + i * LANES), _mm256_set1_ps(alpha[r]));
        }
    }
    for (int j = 0; j < v->n; j++) {
        widen((const uint8_t *)v->data + j * v->row_bytes, block, dtype, y);
        for (int r = 0; r < rows; r++) {
            __m256 x = _mm256_set1_ps(weight[r * FVI_LEAF + j]);
            for (int i = 0; i < COLUMNS; i++) {
                acc[r][i] = _mm256_fmadd_ps(x, y[i], acc[r][i]);
            }
        }
    }
    for (int r = 0; r < rows; r++) {
        for (int i = 0; i < COLUMNS; i++) {
            _mm256_store_ps(out + r * d_pad + i * LANES, acc[r][i]);
        }
    }
}

INLINE void pv(const float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out, fv_dtype dtype) {
    for (int r = 0; r < rows; r += ROWS) {
        for (int i = 0; i < d / FVI_QUANT_BLOCK; i++) {
            if (rows - r >= ROWS) {
                value_block(p + r * FVI_LEAF, ROWS, alpha + r, v, i, d_pad, out + r * d_pad, dtype);
            } else {
                value_block(p + r * FVI_LEAF, 1, alpha + r, v, i, d_pad, out + r * d_pad, dtype);
            }
        }
    }
}

static void qk_q8_0(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    qk(q, rows, d, k, scale, s, FV_Q8_0);
}
static void qk_q4_0(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    qk(q, rows, d, k, scale, s, FV_Q4_0);
}
static void pv_q8_0(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out) {
    pv(p, rows, alpha, v, d, d_pad, out, FV_Q8_0);
}
static void pv_q4_0(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out) {
    pv(p, rows, alpha, v, d, d_pad, out, FV_Q4_0);
}

void fvi_decode_quant_avx2(fvi_decode_ops *ops) {
    ops->k[FV_Q8_0] = (fvi_decode_k){"avx2", decode_q_bytes, pack_q, qk_q8_0};
    ops->k[FV_Q4_0] = (fvi_decode_k){"avx2", decode_q_bytes, pack_q, qk_q4_0};
    ops->v[FV_Q8_0] = (fvi_decode_v){"avx2", pv_q8_0};
    ops->v[FV_Q4_0] = (fvi_decode_v){"avx2", pv_q4_0};
}
