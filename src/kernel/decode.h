/* decode.h - products of a generated token's few query rows with one leaf of K and of V, read where they lie.
 *
 * A prompt packs a leaf once and multiplies it with hundreds of rows (tile.h). A generated token has one to a few rows for each
 * KV head, and its time is that of reading K and V once; so nothing is packed: lanes run over the width, K's elements meet Q's
 * in the order in which both are stored, and a score's lanes are folded at the end. Weights are f32 as the tile's f32 form of
 * soften leaves them, and soften itself is the tile's.
 *
 * K and V are independent, each a table by its type. The arithmetic of a row is fixed within one table, whatever rows stand
 * beside it:
 *   qk   lane l sums the products of the elements l, l + lanes, ... ; the lanes are folded in the order that each file states;
 *        one product with the scale
 *   pv   each output is rescaled once, then takes one chain over j = 0 .. n-1 (bf16: over pairs j, j+1)
 * Quantised K takes Q quantised likewise, and products of integers: exact within a block of 32, one chain over the blocks.
 * Quantised V takes weights multiplied by its scales (and then rounded to bf16, where the
 * processor has bf16 dot products).
 * Keys n .. 63 of a leaf are never read; their scores are written as 0 (the caller hides them), and their weights must be 0.
 */
#ifndef FVI_KERNEL_DECODE_H
#define FVI_KERNEL_DECODE_H

#include "kernel/tile.h"

enum { FVI_KV_DTYPES = FV_Q4_0 + 1 };

/* Rows of K or of V of one leaf: element (j, c) of row j at data + j * row_bytes. f32, f16, bf16: unaligned. q8_0 and
 * q4_0: d int8 or d / 2 bytes, d a multiple of 32, rows side by side from a multiple of 64 on, row j's block i with the f16
 * scale scale[i * 64 + j]: see quant.h. */
typedef struct fvi_rows {
    const void *data;
    int64_t row_bytes;
    const uint16_t *scale;
    const void *next; /* rows of the leaf after this one, which the kernel asks for meanwhile; never read, may be NULL.
                       * Quantised: the scales are behind its 64 rows */
    int n;            /* 1..64 */
} fvi_rows;

/* Products with K of one type. */
typedef struct fvi_decode_k {
    const char *name;                                /* of the level: "c", "avx2", "avx512", "avx512bf16", "avx512vnni" */
    int64_t (*q_bytes)(int d);                       /* of a packed row of Q, a multiple of 64 */
    void (*pack_q)(const float *q, int d, void *qt); /* one row; q unaligned, qt 64-byte aligned */
    /* s (rows, 64), 64-byte aligned, = scale * (q times k) */
    void (*qk)(const void *qt, int rows, int d, const fvi_rows *k, float scale, float *s);
} fvi_decode_k;

/* Products with V of one type: out (rows, d_pad), 64-byte aligned: out[r] = out[r] * alpha[r] + sum_j p[r][j] v[j]; the columns
 * past d stay 0. p (rows, 64), 64-byte aligned, may be overwritten. */
typedef struct fvi_decode_v {
    const char *name;
    void (*pv)(float *p, int rows, const float *alpha, const fvi_rows *v, int d, int d_pad, float *out);
} fvi_decode_v;

/* Products of one row with up to 64 rows of K, or of V, that lie anywhere, each at its address: the bits of qk and pv of the same
 * rows side by side. NULL in forms that have none: rows are put side by side first. */
typedef void fvi_decode_qk_apart(const void *qt, int d, const void *const *key, int n, float scale, float *s);
typedef void fvi_decode_pv_apart(float *p, float alpha, const void *const *value, int n, int d, int d_pad, float *out);

/* A row's weights, the addresses of 64 rows of V, and its outputs. */
typedef struct fvi_apart_leaf {
    float *p;
    float alpha;
    const void *const *value;
    float *out;
} fvi_apart_leaf;

/* The bits of pv_apart of either row. NULL where two rows are no faster than one after the other. */
typedef void fvi_decode_pv_two(const fvi_apart_leaf row[2], int d, int d_pad);

typedef struct fvi_decode_ops {
    fvi_decode_k k[FVI_KV_DTYPES];
    fvi_decode_v v[FVI_KV_DTYPES];
    fvi_decode_qk_apart *qk_apart[FVI_KV_DTYPES];
    fvi_decode_pv_apart *pv_apart[FVI_KV_DTYPES];
    fvi_decode_pv_two *pv_two[FVI_KV_DTYPES];
} fvi_decode_ops;

/* Portable C first, then overwritten level by level up to what `cpu` allows. */
void fvi_decode_init(const fvi_cpu *cpu, fvi_decode_ops *ops);

/* The rungs; only those of the target processor are built. */
void fvi_decode_c(fvi_decode_ops *ops);
void fvi_decode_avx2(fvi_decode_ops *ops);
void fvi_decode_avx512(fvi_decode_ops *ops);
void fvi_decode_avx512bf16(fvi_decode_ops *ops);
/* Of quantised rows. */
void fvi_decode_quant_c(fvi_decode_ops *ops);
void fvi_decode_quant_avx2(fvi_decode_ops *ops);
void fvi_decode_quant_avx512(fvi_decode_ops *ops);     /* V; K stays with the level below */
void fvi_decode_quant_avx512bf16(fvi_decode_ops *ops); /* V */
void fvi_decode_quant_avx512vnni(fvi_decode_ops *ops); /* K */

#endif
