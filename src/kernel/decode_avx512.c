/* decode_avx512.c - products of generated tokens for AVX-512: f32, f16 and bf16 rows widened in registers.
 *
 * qk: up to 4 rows by 4 keys (1 by 16, 2 by 8) in 16 accumulators, so that one fold turns them into 16 scores and a widened
 * piece of K serves all rows. pv: up to 4 rows by 64 columns. */
#include "kernel/decode_avx512_inline.h"

static int64_t q_bytes(int d) { return fvi_round_up(d, LANES) * (int64_t)sizeof(float); }

static void pack_q(const float *q, int d, void *qt) {
    float *to = qt;
    for (int c = 0; c < d; c += LANES) {
        _mm512_store_ps(to + c, _mm512_maskz_loadu_ps(first(d - c), q + c));
    }
}

/* 16 elements of type `dtype`, a constant where this is inlined; those outside the mask are not read and 0. */
INLINE __m512 widen(const unsigned char *row, int c, __mmask16 mask, fv_dtype dtype) {
    if (dtype == FV_F32) {
        return _mm512_maskz_loadu_ps(mask, row + 4 * c);
    }
    __m256i h = mask == 0xffff ? _mm256_loadu_si256((const void *)(row + 2 * c)) : _mm256_maskz_loadu_epi16(mask, row + 2 * c);
    return dtype == FV_F16 ? _mm512_cvtph_ps(h) : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* ---- qk ------------------------------------------------------------------------------------------------------------ */

INLINE void score_step(const float *q, int64_t width, const unsigned char *const key[LANES], int c, __mmask16 mask, int rows,
                       int keys, fv_dtype dtype, __m512 acc[LANES], const ahead *next, int64_t way) {
    int size = dtype == FV_F32 ? 4 : 2;
    __m512 x[GROUP];
    UNROLL for (int r = 0; r < rows; r++) { x[r] = _mm512_load_ps(q + r * width + c); }
    way += ask_first(next, size * c, size * LANES, keys);
    int64_t stride = ask_stride(next, size * LANES);
    UNROLL for (int j = 0; j < keys; j++, way += stride) {
        __m512 y = widen(key[j], c, mask, dtype);
        if (64 * j < size * LANES * keys) {
            ask_for(key[0], way);
        }
        UNROLL for (int r = 0; r < rows; r++) { acc[r * keys + j] = _mm512_fmadd_ps(x[r], y, acc[r * keys + j]); }
    }
}

INLINE void score_rows(const float *q, int rows, int d, const fvi_rows *k, float scale, float *s, int keys, const ahead *next,
                       fv_dtype dtype) {
    const unsigned char *key[LANES];
    int64_t width = fvi_round_up(d, LANES);
    for (int j = 0; j < k->n; j += keys) {
        __m512 acc[LANES];
        point_at(k, j, keys, key);
        UNROLL for (int i = 0; i < LANES; i++) { acc[i] = _mm512_setzero_ps(); }
        int64_t way = way_ahead(next, j, keys);
        int c = 0;
        for (; c + LANES <= d; c += LANES) {
            score_step(q, width, key, c, 0xffff, rows, keys, dtype, acc, next, way);
        }
        if (c < d) {
            score_step(q, width, key, c, first(d - c), rows, keys, dtype, acc, next, way);
        }
        store_scores(_mm512_mul_ps(fold16(acc, true), _mm512_set1_ps(scale)), rows, keys, s + j);
    }
}

INLINE void score_rows_f32(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s, int keys,
                           const ahead *next) {
    score_rows(q, rows, d, k, scale, s, keys, next, FV_F32);
}
INLINE void score_rows_f16(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s, int keys,
                           const ahead *next) {
    score_rows(q, rows, d, k, scale, s, keys, next, FV_F16);
}
INLINE void score_rows_bf16(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s, int keys,
                            const ahead *next) {
    score_rows(q, rows, d, k, scale, s, keys, next, FV_BF16);
}

static void qk_f32(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    multiply_keys(q, q_bytes(d), rows, d, k, scale, s, 4, score_rows_f32);
}
static void qk_f16(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    multiply_keys(q, q_bytes(d), rows, d, k, scale, s, 2, score_rows_f16);
}
static void qk_bf16(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    multiply_keys(q, q_bytes(d), rows, d, k, scale, s, 2, score_rows_bf16);
}

/* ---- pv ------------------------------------------------------------------------------------------------------------ */

INLINE void value_block(const float *p, int rows, const float *alpha, const fvi_rows *v, const sweep *w, int d, int d_pad,
                        float *out, int columns, const ahead *next, fv_dtype dtype) {
    __m512 acc[GROUP][WIDE], y[WIDE];
    __mmask16 last = first(d - w->c - LANES * (columns - 1));
    out += w->c;
    UNROLL for (int r = 0; r < rows; r++) {
        __m512 a = _mm512_set1_ps(alpha[r]);
        UNROLL for (int i = 0; i < columns; i++) {
            acc[r][i] = _mm512_mul_ps(_mm512_load_ps(out + (int64_t)r * d_pad + LANES * i), a);
        }
    }
    int size = dtype == FV_F32 ? 4 : 2;
    asking asks = asking_of(v, w, next, size * LANES * columns, size);
    const unsigned char *row = (const unsigned char *)v->data + w->from * v->row_bytes + (int64_t)size * w->c;
    for (int j = 0; j < w->keys; j++, row += v->row_bytes) {
        int64_t way = asked_at(&asks, j);
        UNROLL for (int i = 0; i < columns; i += 64 / (size * LANES)) { ask_for(v->data, way + size * LANES * i); }
        UNROLL for (int i = 0; i + 1 < columns; i++) { y[i] = widen(row, LANES * i, 0xffff, dtype); }
        y[columns - 1] = widen(row, LANES * (columns - 1), last, dtype);
        UNROLL for (int r = 0; r < rows; r++) {
            __m512 x = _mm512_set1_ps(p[r * FVI_LEAF + w->from + j]);
            UNROLL for (int i = 0; i < columns; i++) { acc[r][i] = _mm512_fmadd_ps(x, y[i], acc[r][i]); }
        }
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int i = 0; i < columns; i++) { _mm512_store_ps(out + (int64_t)r * d_pad + LANES * i, acc[r][i]); }
    }
}

INLINE void value_block_f32(const float *p, int rows, const float *alpha, const fvi_rows *v, const sweep *w, int d, int d_pad,
                            float *out, int columns, const ahead *next) {
    value_block(p, rows, alpha, v, w, d, d_pad, out, columns, next, FV_F32);
}
INLINE void value_block_f16(const float *p, int rows, const float *alpha, const fvi_rows *v, const sweep *w, int d, int d_pad,
                            float *out, int columns, const ahead *next) {
    value_block(p, rows, alpha, v, w, d, d_pad, out, columns, next, FV_F16);
}
INLINE void value_block_bf16(const float *p, int rows, const float *alpha, const fvi_rows *v, const sweep *w, int d, int d_pad,
                             float *out, int columns, const ahead *next) {
    value_block(p, rows, alpha, v, w, d, d_pad, out, columns, next, FV_BF16);
}

static void pv_f32(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out) {
    multiply_weights(p, rows, alpha, v, d, d_pad, out, 4, value_block_f32);
}
static void pv_f16(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out) {
    multiply_weights(p, rows, alpha, v, d, d_pad, out, 2, value_block_f16);
}
static void pv_bf16(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out) {
    multiply_weights(p, rows, alpha, v, d, d_pad, out, 2, value_block_bf16);
}

void fvi_decode_avx512(fvi_decode_ops *ops) {
    static const char name[] = "avx512";
    ops->k[FV_F32] = (fvi_decode_k){name, q_bytes, pack_q, qk_f32};
    ops->k[FV_F16] = (fvi_decode_k){name, q_bytes, pack_q, qk_f16};
    ops->k[FV_BF16] = (fvi_decode_k){name, q_bytes, pack_q, qk_bf16};
    ops->v[FV_F32] = (fvi_decode_v){name, pv_f32};
    ops->v[FV_F16] = (fvi_decode_v){name, pv_f16};
    ops->v[FV_BF16] = (fvi_decode_v){name, pv_bf16};
}
