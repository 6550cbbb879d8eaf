/* tile_c.c - the attention tile in portable C: level 0, and the one that the others are read against.
 *
 * Loops run over 64 keys or 16 columns with no branch inside, so a compiler may spread them over whatever lanes it has;
 * products and sums are rounded apart. */
#include "kernel/tile.h"

#include <string.h>

enum { BLOCK = 16 };

static float load_f32(const unsigned char *p) {
    float f;
    memcpy(&f, p, sizeof f);
    return f;
}

static uint16_t load_u16(const unsigned char *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}

static void widen_f32(const unsigned char *row, int d, float *out) { memcpy(out, row, (size_t)d * sizeof *out); }

static void widen_f16(const unsigned char *row, int d, float *out) {
    for (int c = 0; c < d; c++) {
        out[c] = fvi_f16_to_f32(load_u16(row + 2 * c));
    }
}

static void widen_bf16(const unsigned char *row, int d, float *out) {
    for (int c = 0; c < d; c++) {
        out[c] = fvi_bf16_to_f32(load_u16(row + 2 * c));
    }
}

static void pack_k_f32(const void *k, int64_t row_bytes, int n, int d, void *packed) {
    float *kt = packed;
    memset(kt, 0, (size_t)d * FVI_LEAF * sizeof *kt);
    for (int j = 0; j < n; j++) {
        const unsigned char *row = (const unsigned char *)k + j * row_bytes;
        for (int c = 0; c < d; c++) {
            kt[c * FVI_LEAF + j] = load_f32(row + 4 * c);
        }
    }
}

static void pack_k_f16(const void *k, int64_t row_bytes, int n, int d, void *packed) {
    float *kt = packed;
    memset(kt, 0, (size_t)d * FVI_LEAF * sizeof *kt);
    for (int j = 0; j < n; j++) {
        const unsigned char *row = (const unsigned char *)k + j * row_bytes;
        for (int c = 0; c < d; c++) {
            kt[c * FVI_LEAF + j] = fvi_f16_to_f32(load_u16(row + 2 * c));
        }
    }
}

static void pack_k_bf16(const void *k, int64_t row_bytes, int n, int d, void *packed) {
    float *kt = packed;
    memset(kt, 0, (size_t)d * FVI_LEAF * sizeof *kt);
    for (int j = 0; j < n; j++) {
        const unsigned char *row = (const unsigned char *)k + j * row_bytes;
        for (int c = 0; c < d; c++) {
            kt[c * FVI_LEAF + j] = fvi_bf16_to_f32(load_u16(row + 2 * c));
        }
    }
}

static void pack_v_f32(const void *v, int64_t row_bytes, int n, int d, void *packed) {
    float *vt = packed;
    int64_t d_pad = fvi_tile_pad(d);
    memset(vt, 0, (size_t)(FVI_LEAF * d_pad) * sizeof *vt);
    for (int j = 0; j < n; j++) {
        widen_f32((const unsigned char *)v + j * row_bytes, d, vt + j * d_pad);
    }
}

static void pack_v_f16(const void *v, int64_t row_bytes, int n, int d, void *packed) {
    float *vt = packed;
    int64_t d_pad = fvi_tile_pad(d);
    memset(vt, 0, (size_t)(FVI_LEAF * d_pad) * sizeof *vt);
    for (int j = 0; j < n; j++) {
        widen_f16((const unsigned char *)v + j * row_bytes, d, vt + j * d_pad);
    }
}

static void pack_v_bf16(const void *v, int64_t row_bytes, int n, int d, void *packed) {
    float *vt = packed;
    int64_t d_pad = fvi_tile_pad(d);
    memset(vt, 0, (size_t)(FVI_LEAF * d_pad) * sizeof *vt);
    for (int j = 0; j < n; j++) {
        widen_bf16((const unsigned char *)v + j * row_bytes, d, vt + j * d_pad);
    }
}

static void pack_q(const float *q, int rows, int d, void *qt) { memcpy(qt, q, (size_t)rows * (size_t)d * sizeof *q); }

static void qk(const void *qt, int rows, int d, const void *packed, float scale, float *s) {
    const float *q = qt, *kt = packed;
    for (int r = 0; r < rows; r++, q += d, s += FVI_LEAF) {
        for (int j0 = 0; j0 < FVI_LEAF; j0 += BLOCK) {
            float acc[BLOCK] = {0};
            for (int c = 0; c < d; c++) {
                const float *key = kt + c * FVI_LEAF + j0;
                for (int j = 0; j < BLOCK; j++) {
                    acc[j] += q[c] * key[j];
                }
            }
            for (int j = 0; j < BLOCK; j++) {
                s[j0 + j] = scale * acc[j];
            }
        }
    }
}

/* 2^x for x <= 0 or NaN: x = n + f with |f| <= 1/2, n found by adding 1.5 * 2^23, whose last place is 1; 2^f = 1 + f q(f),
 * minimax in relative error, 2^-28. */
static inline float exp2_negative(float x) {
    const float magic = 0x1.8p23f;
    union {
        float f;
        uint32_t u;
    } t = {.f = x + magic}, scale;
    float f = x - (t.f - magic);
    float p = 0x1.416b50p-13f;
    p = p * f + 0x1.5f082ep-10f;
    p = p * f + 0x1.3b2de0p-7f;
    p = p * f + 0x1.c6af7cp-5f;
    p = p * f + 0x1.ebfbdcp-3f;
    p = (p * f + 0x1.62e430p-1f) * f;
    scale.u = (t.u + 127u) << 23;
    return x < -126 ? 0.0f : (p + 1.0f) * scale.f;
}

/* Lanes of 16: (v0 + v1) + (v2 + v3), then halves onto halves: 8, 4, 2, 1. */
static float sum64(const float *s) {
    float lane[BLOCK];
    for (int i = 0; i < BLOCK; i++) {
        lane[i] = (s[i] + s[i + 16]) + (s[i + 32] + s[i + 48]);
    }
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            lane[i] += lane[i + half];
        }
    }
    return lane[0];
}

static float max64(const float *s, float m) {
    float lane[BLOCK];
    for (int i = 0; i < BLOCK; i++) {
        lane[i] = m;
    }
    for (int j = 0; j < FVI_LEAF; j += BLOCK) {
        for (int i = 0; i < BLOCK; i++) {
            lane[i] = s[j + i] > lane[i] ? s[j + i] : lane[i];
        }
    }
    for (int i = 1; i < BLOCK; i++) {
        lane[0] = lane[i] > lane[0] ? lane[i] : lane[0];
    }
    return lane[0];
}

static void soften(float *s, int rows, float *m, float *sum, float *alpha) {
    for (int r = 0; r < rows; r++, s += FVI_LEAF) {
        float top = max64(s, m[r]), ref = top == -__builtin_inff() ? 0.0f : top;
        for (int j = 0; j < FVI_LEAF; j++) {
            s[j] = exp2_negative(s[j] - ref);
        }
        alpha[r] = exp2_negative(m[r] - ref);
        sum[r] = sum[r] * alpha[r] + sum64(s);
        m[r] = top;
    }
}

static void pv(const float *p, int rows, const float *alpha, const void *packed, int d_pad, float *out) {
    const float *vt = packed;
    for (int r = 0; r < rows; r++, p += FVI_LEAF, out += d_pad) {
        for (int c0 = 0; c0 < d_pad; c0 += BLOCK) {
            float acc[BLOCK];
            for (int c = 0; c < BLOCK; c++) {
                acc[c] = out[c0 + c] * alpha[r];
            }
            for (int j = 0; j < FVI_LEAF; j++) {
                const float *value = vt + (int64_t)j * d_pad + c0;
                for (int c = 0; c < BLOCK; c++) {
                    acc[c] += p[j] * value[c];
                }
            }
            memcpy(out + c0, acc, sizeof acc);
        }
    }
}

void fvi_tile_c(fvi_tile_ops *ops) {
    *ops = (fvi_tile_ops){
        .name = "c",
        .row_block = 1,
        .pack_q = pack_q,
        .pack_k = {pack_k_f32, pack_k_f16, pack_k_bf16},
        .pack_v = {pack_v_f32, pack_v_f16, pack_v_bf16},
        .qk = qk,
        .soften = soften,
        .pv = pv,
    };
}
