/* decode_c.c - products of generated tokens in portable C: level 0.
 *
 * A score has 16 lanes over the width, folded halves onto halves: 8, 4, 2, 1. Products and sums are rounded apart. */
#include "kernel/decode.h"

#include <string.h>

enum { LANES = 16 };

static int64_t q_bytes(int d) { return fvi_round_up(d, LANES) * (int64_t)sizeof(float); }

/* Zeros past d. */
static void pack_q(const float *q, int d, void *qt) {
    memset(qt, 0, (size_t)q_bytes(d));
    memcpy(qt, q, (size_t)d * sizeof *q);
}

/* n <= 16 elements of a row from element c on, zeros behind them. */
typedef void load_fn(const unsigned char *row, int c, int n, float *out);

static void load_f32(const unsigned char *row, int c, int n, float *out) { memcpy(out, row + 4 * c, (size_t)n * sizeof *out); }

static void load_f16(const unsigned char *row, int c, int n, float *out) {
    uint16_t h[LANES];
    memcpy(h, row + 2 * c, (size_t)n * sizeof *h);
    for (int l = 0; l < n; l++) {
        out[l] = fvi_f16_to_f32(h[l]);
    }
}

static void load_bf16(const unsigned char *row, int c, int n, float *out) {
    uint16_t h[LANES];
    memcpy(h, row + 2 * c, (size_t)n * sizeof *h);
    for (int l = 0; l < n; l++) {
        out[l] = fvi_bf16_to_f32(h[l]);
    }
}

static float fold(float lane[LANES]) {
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int l = 0; l < half; l++) {
            lane[l] += lane[l + half];
        }
    }
    return lane[0];
}

static void widen(const fvi_rows *rows, int j, int d, load_fn *load, float *out) {
    const unsigned char *row = (const unsigned char *)rows->data + j * rows->row_bytes;
    for (int c = 0; c < d; c += LANES) {
        memset(out + c, 0, LANES * sizeof *out);
        load(row, c, (int)fvi_min(LANES, d - c), out + c);
    }
}

static void qk(const float *q, int rows, int d, const fvi_rows *k, float scale, float *s, load_fn *load) {
    int64_t width = q_bytes(d) / (int64_t)sizeof *q;
    float key[256];
    memset(s, 0, (size_t)rows * FVI_LEAF * sizeof *s);
    for (int j = 0; j < k->n; j++) {
        widen(k, j, d, load, key);
        for (int r = 0; r < rows; r++) {
            float lane[LANES] = {0};
            for (int c = 0; c < width; c += LANES) {
                for (int l = 0; l < LANES; l++) {
                    lane[l] += q[r * width + c + l] * key[c + l];
                }
            }
            s[r * FVI_LEAF + j] = scale * fold(lane);
        }
    }
}

static void pv(const float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out, load_fn *load) {
    float value[256];
    for (int r = 0; r < rows; r++) {
        for (int c = 0; c < d; c++) {
            out[r * d_pad + c] *= alpha[r];
        }
    }
    for (int j = 0; j < v->n; j++) {
        widen(v, j, d, load, value);
        for (int r = 0; r < rows; r++) {
            for (int c = 0; c < d; c++) {
                out[r * d_pad + c] += p[r * FVI_LEAF + j] * value[c];
            }
        }
    }
}

static void qk_f32(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    qk(q, rows, d, k, scale, s, load_f32);
}
static void qk_f16(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    qk(q, rows, d, k, scale, s, load_f16);
}
static void qk_bf16(const void *q, int rows, int d, const fvi_rows *k, float scale, float *s) {
    qk(q, rows, d, k, scale, s, load_bf16);
}
static void pv_f32(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out) {
    pv(p, rows, alpha, v, d, d_pad, out, load_f32);
}
static void pv_f16(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out) {
    pv(p, rows, alpha, v, d, d_pad, out, load_f16);
}
static void pv_bf16(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out) {
    pv(p, rows, alpha, v, d, d_pad, out, load_bf16);
}

void fvi_decode_c(fvi_decode_ops *ops) {
    ops->k[FV_F32] = (fvi_decode_k){"c", q_bytes, pack_q, qk_f32};
    ops->k[FV_F16] = (fvi_decode_k){"c", q_bytes, pack_q, qk_f16};
    ops->k[FV_BF16] = (fvi_decode_k){"c", q_bytes, pack_q, qk_bf16};
    ops->v[FV_F32] = (fvi_decode_v){"c", pv_f32};
    ops->v[FV_F16] = (fvi_decode_v){"c", pv_f16};
    ops->v[FV_BF16] = (fvi_decode_v){"c", pv_bf16};
}
