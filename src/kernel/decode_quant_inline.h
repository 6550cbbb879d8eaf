/* decode_quant_inline.h - what the products of generated tokens with quantised rows share: the packed row of Q.
 *
 * Q is quantised as K is, to int8 in blocks of 32, but with f32 scales: d integers, then d / 32 scales, then the d / 32 sums of
 * the integers. The product of a block is then an integer, exact; so is what an offset of K's integers adds to it, offset times
 * the sum of Q's. A row that is not finite gets scales of NaN, a block of zeros (or of next to nothing) a scale of 0. */
#ifndef FVI_DECODE_QUANT_INLINE_H
#define FVI_DECODE_QUANT_INLINE_H

#include "kernel/decode.h"
#include "kernel/quant_inline.h"

static inline int64_t decode_q_bytes(int d) { return fvi_round_up(d + d / FVI_QUANT_BLOCK * 8, 64); }

/* A core fetches ahead where lines are read in the order of addresses, be they in its first cache already, and stops where that
 * order breaks off. Rows that are read across, and scales, which are read before the rows that they stand behind, are therefore
 * read once more in their order: from memory that made 0.7 of its speed 0.9. */
static inline void decode_read_on(const void *from, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64) {
        (void)*((const volatile char *)from + at);
    }
}

/* When a leaf of rows of width d has been met: the next one's scales, which are behind its 64 rows, are asked for, and this one's
 * are read in their order; a leaf that is not whole is the last. */
static inline void decode_end_leaf(const fvi_rows *rows, int d) {
    int64_t bytes = 2 * FVI_LEAF * (d / FVI_QUANT_BLOCK);
    uintptr_t scales = (uintptr_t)rows->next + (uintptr_t)(FVI_LEAF * rows->row_bytes);
    for (int64_t at = 0; rows->next != NULL && at < bytes; at += 64) {
        __builtin_prefetch((const void *)(scales + (uintptr_t)at), 0, 3);
    }
    if (rows->n == FVI_LEAF) {
        decode_read_on(rows->scale, bytes);
    }
}

typedef struct decode_query {
    const int8_t *q;
    const float *scale;
    const int32_t *sum;
} decode_query;

static inline decode_query decode_query_at(const void *qt, int64_t row, int d) {
    const unsigned char *at = (const unsigned char *)qt + row * decode_q_bytes(d);
    const unsigned char *scale = at + d, *sum = scale + d / FVI_QUANT_BLOCK * sizeof(float);
    return (decode_query){(const int8_t *)at, (const float *)scale, (const int32_t *)sum};
}

static inline void decode_pack_q(const float *x, int d, void *qt) {
    memset(qt, 0, (size_t)decode_q_bytes(d));
    int8_t *q = qt;
    float *scale = (float *)(q + d);
    int32_t *sum = (int32_t *)(scale + d / FVI_QUANT_BLOCK);
    for (int i = 0; i < d / FVI_QUANT_BLOCK; i++, x += FVI_QUANT_BLOCK, q += FVI_QUANT_BLOCK) {
        uint32_t largest = quant_largest(x);
        float size;
        memcpy(&size, &largest, sizeof size);
        bool finite = largest < 0x7f800000;
        bool some = finite && size > 0x1p-100f; /* below, a reciprocal might overflow; no score would show it */
        scale[i] = some ? size / 127.0f : finite ? 0.0f : NAN;
        float by = some ? 127.0f / size : 0.0f;
        for (int c = 0; c < FVI_QUANT_BLOCK && some; c++) {
            float y = x[c] * by + 0x1.8p23f;
            uint32_t bits;
            memcpy(&bits, &y, sizeof bits);
            q[c] = (int8_t)bits;
            sum[i] += q[c];
        }
    }
}

#endif
