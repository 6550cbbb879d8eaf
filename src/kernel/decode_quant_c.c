/* decode_quant_c.c - products of generated tokens with quantised rows in portable C: level 0. */
#include "kernel/decode_quant_inline.h"

/* The integers of one block. */
typedef void block_fn(const uint8_t *row, int block, int8_t q[FVI_QUANT_BLOCK]);

static void block_q8_0(const uint8_t *row, int block, int8_t q[FVI_QUANT_BLOCK]) {
    memcpy(q, row + block * FVI_QUANT_BLOCK, FVI_QUANT_BLOCK);
}

static void block_q4_0(const uint8_t *row, int block, int8_t q[FVI_QUANT_BLOCK]) {
    enum { HALF = FVI_QUANT_BLOCK / 2 };
    for (int i = 0; i < HALF; i++) {
        q[i] = (int8_t)((row[block * HALF + i] & 15) - 8);
        q[i + HALF] = (int8_t)((row[block * HALF + i] >> 4) - 8);
    }
}

static void pack_q(const float *q, int d, void *qt) { decode_pack_q(q, d, qt); }

static int32_t dot(const int8_t *a, const int8_t *b) {
    int32_t sum = 0;
    for (int c = 0; c < FVI_QUANT_BLOCK; c++) {
        sum += a[c] * b[c];
    }
    return sum;
}

static void qk(const void *qt, int rows, int d, const fvi_rows *k, float scale, float *s, block_fn *block) {
    memset(s, 0, (size_t)rows * FVI_LEAF * sizeof *s);
    for (int j = 0; j < k->n; j++) {
        for (int i = 0; i < d / FVI_QUANT_BLOCK; i++) {
            int8_t key[FVI_QUANT_BLOCK];
            block((const uint8_t *)k->data + j * k->row_bytes, i, key);
            float by = fvi_convert_f16(k->scale[i * FVI_LEAF + j]);
            for (int r = 0; r < rows; r++) {
                decode_query q = decode_query_at(qt, r, d);
                s[r * FVI_LEAF + j] += (float)dot(q.q + i * FVI_QUANT_BLOCK, key) * (by * q.scale[i]);
            }
        }
    }
    for (int i = 0; i < rows * FVI_LEAF; i++) {
        s[i] = i % FVI_LEAF < k->n ? s[i] * scale : 0.0f;
    }
}

static void pv(const float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out, block_fn *block) {
    for (int r = 0; r < rows; r++) {
        for (int c = 0; c < d; c++) {
            out[r * d_pad + c] *= alpha[r];
        }
    }
    for (int j = 0; j < v->n; j++) {
        for (int i = 0; i < d / FVI_QUANT_BLOCK; i++) {
            int8_t value[FVI_QUANT_BLOCK];
            block((const uint8_t *)v->data + j * v->row_bytes, i, value);
            float by = fvi_convert_f16(v->scale[i * FVI_LEAF + j]);
            for (int r = 0; r < rows; r++) {
                float weight = p[r * FVI_LEAF + j] * by, *to = out + r * d_pad + i * FVI_QUANT_BLOCK;
                for (int c = 0; c < FVI_QUANT_BLOCK; c++) {
                    to[c] += weight * (float)value[c];
                }
            }
        }
    }
}

static void qk_q8_0(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    qk(q, rows, d, k, scale, s, block_q8_0);
}
static void qk_q4_0(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    qk(q, rows, d, k, scale, s, block_q4_0);
}
static void pv_q8_0(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out) {
    pv(p, rows, alpha, v, d, d_pad, out, block_q8_0);
}
static void pv_q4_0(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out) {
    pv(p, rows, alpha, v, d, d_pad, out, block_q4_0);
}

void fvi_decode_quant_c(fvi_decode_ops *ops) {
    ops->k[FV_Q8_0] = (fvi_decode_k){"c", decode_q_bytes, pack_q, qk_q8_0};
    ops->k[FV_Q4_0] = (fvi_decode_k){"c", decode_q_bytes, pack_q, qk_q4_0};
    ops->v[FV_Q8_0] = (fvi_decode_v){"c", pv_q8_0};
    ops->v[FV_Q4_0] = (fvi_decode_v){"c", pv_q4_0};
}
