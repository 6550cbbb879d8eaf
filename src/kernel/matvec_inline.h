/* matvec_inline.h - x to int8 blocks for kernel/matvec.h, in plain C without branches, compiled once for each level; the same
 * bits at all of them. */
#ifndef FVI_MATVEC_INLINE_H
#define FVI_MATVEC_INLINE_H

#include "kernel/convert.h"
#include "kernel/matvec.h"

/* The block's scale, and what to multiply x with. Magnitudes are compared as bits, where NaN is above infinity. */
static inline float matvec_scale(const float *x, float *inverse) {
    uint32_t most = 0;
    for (int i = 0; i < FVI_BLOCK; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    float largest;
    memcpy(&largest, &most, sizeof largest);
    *inverse = 0;
    if (most >= 0x7f800000) {
        return fvi_bf16_to_f32(0x7fc0);
    }
    if (largest < 0x1p-100f) {
        return 0;
    }
    *inverse = 127.0f / largest;
    return largest / 127.0f;
}

static inline void matvec_block(const float *x, int8_t *q, int32_t *start, float *scale, float *mass) {
    const float magic = 0x1.8p23f; /* its low digits take up the whole number nearest to what is added */
    float inverse, s = matvec_scale(x, &inverse);
    int32_t whole[FVI_BLOCK];
    for (int i = 0; i < FVI_BLOCK; i++) {
        float sum = (inverse == 0 ? 0 : x[i] * inverse) + magic;
        memcpy(&whole[i], &sum, sizeof sum);
        whole[i] -= 0x4b400000;
        q[i] = (int8_t)whole[i];
    }
    for (int l = 0; l < 8; l++) {
        int32_t sum = whole[4 * l] + whole[4 * l + 1] + whole[4 * l + 2] + whole[4 * l + 3];
        start[l] = -128 * sum;
        scale[l] = s;
        mass[l] = s * (float)sum;
    }
}

static inline void matvec_quantise(int64_t n_in, const float *x, fvi_matvec_x *out) {
    for (int64_t i = 0; i < n_in; i += FVI_BLOCK) {
        int half = (int)(i / FVI_BLOCK % 2);
        fvi_matvec_x *to = out + i / 64;
        matvec_block(x + i, to->q + 32 * half, to->start + 8 * half, to->scale + 8 * half, to->mass + 8 * half);
    }
    if (n_in % 64 != 0) {
        fvi_matvec_x *last = out + n_in / 64;
        memset(last->q + 32, 0, 32);
        memset(last->start + 8, 0, 32);
        memset(last->scale + 8, 0, 32);
        memset(last->mass + 8, 0, 32);
    }
}

#endif
