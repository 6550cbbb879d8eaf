/* decode_avx2.c - products of generated tokens for AVX2 and FMA: rows widened in registers.
 *
 * qk: rows by keys in 8 accumulators, 1 x 8, 2 x 4 or 4 x 2, which one fold turns into 8 scores; a score's 8 lanes are folded
 * halves onto halves: 4, 2, 1. pv: rows by columns in 8 accumulators likewise. */
#include "kernel/decode.h"

#include "kernel/avx2_inline.h"

enum { GROUP = 4 }; /* rows of a block, at most */

static int64_t q_bytes(int d) { return fvi_round_up(d, 16) * (int64_t)sizeof(float); }

static void pack_q(const float *q, int d, void *qt) {
    memset(qt, 0, (size_t)q_bytes(d));
    memcpy(qt, q, (size_t)d * sizeof *q);
}

INLINE int64_t size_of(fv_dtype dtype) { return dtype == FV_F32 ? 4 : 2; }

INLINE void ask_for(const fvi_rows *rows, int j, int64_t from, int64_t bytes) {
    const char *row = (const char *)((uintptr_t)rows->next + (uintptr_t)(j * rows->row_bytes + from));
    for (int64_t at = 0; rows->next != NULL && at < bytes; at += 64) {
        _mm_prefetch(row + at, _MM_HINT_T1);
    }
}

/* ---- qk ------------------------------------------------------------------------------------------------------------ */

INLINE void score_step(const float *q, int64_t width, const unsigned char *const key[LANES], int c, int64_t n, int rows, int keys,
                       fv_dtype dtype, __m256 acc[LANES]) {
    UNROLL for (int j = 0; j < keys; j++) {
        __m256 y = widen(key[j] + c * size_of(dtype), n, dtype);
        UNROLL for (int r = 0; r < rows; r++) {
            acc[r * keys + j] = _mm256_fmadd_ps(_mm256_load_ps(q + r * width + c), y, acc[r * keys + j]);
        }
    }
}

/* Past the leaf's end its last row stands in: those scores are cleared. */
INLINE void score_block(const float *q, int rows, int d, const fvi_rows *k, int j, float scale, float *s, int keys,
                        fv_dtype dtype) {
    const unsigned char *key[LANES];
    __m256 acc[LANES];
    float score[LANES] __attribute__((aligned(32)));
    UNROLL for (int i = 0; i < LANES; i++) { acc[i] = _mm256_setzero_ps(); }
    for (int i = 0; i < keys; i++) {
        key[i] = (const unsigned char *)k->data + fvi_min(j + i, k->n - 1) * k->row_bytes;
        ask_for(k, j + i, 0, d * size_of(dtype));
    }
    int c = 0;
    for (; c + LANES <= d; c += LANES) {
        score_step(q, fvi_round_up(d, 16), key, c, LANES, rows, keys, dtype, acc);
    }
    if (c < d) {
        score_step(q, fvi_round_up(d, 16), key, c, d - c, rows, keys, dtype, acc);
    }
    _mm256_store_ps(score, _mm256_mul_ps(fold8(acc, true), _mm256_set1_ps(scale)));
    for (int r = 0; r < rows; r++) {
        for (int i = 0; i < keys; i++) {
            s[r * FVI_LEAF + j + i] = j + i < k->n ? score[r * keys + i] : 0;
        }
    }
}

INLINE void score_rows(const float *q, int rows, int d, const fvi_rows *k, float scale, float *s, int keys, fv_dtype dtype) {
    memset(s, 0, (size_t)rows * FVI_LEAF * sizeof *s);
    for (int j = 0; j < k->n; j += keys) {
        score_block(q, rows, d, k, j, scale, s, keys, dtype);
    }
}

INLINE void qk(const void *qt, int rows, int d, const fvi_rows *k, float scale, float *s, fv_dtype dtype) {
    const float *q = qt;
    int64_t width = fvi_round_up(d, 16);
    for (; rows >= GROUP; rows -= GROUP, q += GROUP * width, s += GROUP * FVI_LEAF) {
        score_rows(q, 4, d, k, scale, s, 2, dtype);
    }
    if (rows >= 2) {
        score_rows(q, 2, d, k, scale, s, 4, dtype);
        q += 2 * width;
        s += 2 * FVI_LEAF;
    }
    if (rows % 2 != 0) {
        score_rows(q, 1, d, k, scale, s, 8, dtype);
    }
}

static void qk_f32(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    qk(q, rows, d, k, scale, s, FV_F32);
}
static void qk_f16(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    qk(q, rows, d, k, scale, s, FV_F16);
}
static void qk_bf16(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    qk(q, rows, d, k, scale, s, FV_BF16);
}

/* ---- pv ------------------------------------------------------------------------------------------------------------ */

INLINE void value_block(const float *p, int rows, const float *alpha, const fvi_rows *v, int c, int d, int d_pad, float *out,
                        int columns, fv_dtype dtype) {
    __m256 acc[GROUP][LANES];
    bool whole = c + LANES * columns <= d;
    UNROLL for (int r = 0; r < rows; r++) {
        __m256 a = _mm256_set1_ps(alpha[r]);
        UNROLL for (int i = 0; i < columns; i++) {
            acc[r][i] = _mm256_mul_ps(_mm256_load_ps(out + (int64_t)r * d_pad + c + LANES * i), a);
        }
    }
    const unsigned char *row = (const unsigned char *)v->data + c * size_of(dtype);
    for (int j = 0; j < v->n; j++, row += v->row_bytes) {
        UNROLL for (int i = 0; i < columns; i++) {
            __m256 y = widen(row + LANES * i * size_of(dtype), whole ? LANES : d - c - LANES * i, dtype);
            UNROLL for (int r = 0; r < rows; r++) {
                acc[r][i] = _mm256_fmadd_ps(_mm256_broadcast_ss(p + r * FVI_LEAF + j), y, acc[r][i]);
            }
        }
        ask_for(v, j, c * size_of(dtype), LANES * columns * size_of(dtype));
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int i = 0; i < columns; i++) { _mm256_store_ps(out + (int64_t)r * d_pad + c + LANES * i, acc[r][i]); }
    }
}

INLINE void value_rows(const float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out, int columns,
                       fv_dtype dtype) {
    int c = 0;
    for (; c + LANES * columns <= d_pad; c += LANES * columns) {
        value_block(p, rows, alpha, v, c, d, d_pad, out, columns, dtype);
    }
    for (; c < d_pad; c += LANES * 2) {
        value_block(p, rows, alpha, v, c, d, d_pad, out, 2, dtype);
    }
}

INLINE void pv(const float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out, fv_dtype dtype) {
    for (; rows >= GROUP; rows -= GROUP, p += GROUP * FVI_LEAF, alpha += GROUP, out += GROUP * (int64_t)d_pad) {
        value_rows(p, 4, alpha, v, d, d_pad, out, 2, dtype);
    }
    if (rows >= 2) {
        value_rows(p, 2, alpha, v, d, d_pad, out, 4, dtype);
        p += 2 * FVI_LEAF;
        alpha += 2;
        out += 2 * (int64_t)d_pad;
    }
    if (rows % 2 != 0) {
        value_rows(p, 1, alpha, v, d, d_pad, out, 8, dtype);
    }
}

static void pv_f32(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out) {
    pv(p, rows, alpha, v, d, d_pad, out, FV_F32);
}
static void pv_f16(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out) {
    pv(p, rows, alpha, v, d, d_pad, out, FV_F16);
}
static void pv_bf16(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out) {
    pv(p, rows, alpha, v, d, d_pad, out, FV_BF16);
}

void fvi_decode_avx2(fvi_decode_ops *ops) {
    static const char name[] = "avx2";
    ops->k[FV_F32] = (fvi_decode_k){name, q_bytes, pack_q, qk_f32};
    ops->k[FV_F16] = (fvi_decode_k){name, q_bytes, pack_q, qk_f16};
    ops->k[FV_BF16] = (fvi_decode_k){name, q_bytes, pack_q, qk_bf16};
    ops->v[FV_F32] = (fvi_decode_v){name, pv_f32};
    ops->v[FV_F16] = (fvi_decode_v){name, pv_f16};
    ops->v[FV_BF16] = (fvi_decode_v){name, pv_bf16};
}
