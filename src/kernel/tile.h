/* tile.h - the three stages of the CPU tile (qk, soften, pv) and the packing before them.
 *
 * A tile is up to 64 keys (a leaf) against any number of query rows. All of it is f32. The arithmetic of a row is fixed, so
 * that its bits do not depend on which rows stand beside it (within one instruction set):
 *   qk      each score is one chain of fused multiply-adds over c = 0 .. d-1, from 0
 *   soften  the leaf's maximum; the sum of the 64 weights in the order that sum64 of each file states
 *   pv      each output is rescaled once, then takes one chain of fused multiply-adds over j = 0 .. 63
 * (portable C may round products and sums apart: it has its own bits.)
 *
 * Buffers are 64-byte aligned unless said otherwise. d_pad = fvi_tile_pad(d_v): widths are padded with zeros to 16 floats.
 */
#ifndef FVI_KERNEL_TILE_H
#define FVI_KERNEL_TILE_H

#include "base/base.h"

enum { FVI_LEAF = 64 };

static inline int64_t fvi_tile_pad(int64_t d) { return fvi_round_up(d, 16); }

/* Rows of K or V of one leaf, wherever they are: element (j, c) at data + j * row_bytes + c * size of dtype. Unaligned. */
typedef struct fvi_tile_ops {
    const char *name; /* "c", "avx2", "avx512" */
    int row_block;    /* rows that one pass of qk and pv works on: tiles are best a multiple of it */

    /* kt[c][j] (d, 64) = key j, element c, for j < n; 0 for n <= j < 64. Indexed by fv_dtype: f32, f16, bf16. */
    void (*pack_k[3])(const void *k, int64_t row_bytes, int n, int d, float *kt);

    /* vt[j][c] (64, d_pad) = value j, element c, for j < n, c < d; 0 elsewhere. */
    void (*pack_v[3])(const void *v, int64_t row_bytes, int n, int d, float *vt);

    /* s (rows, 64) = q (rows, d; contiguous, unaligned) times kt. */
    void (*qk)(const float *q, int rows, int d, const float *kt, float *s);

    /* For each row r: with x = s[r][0..63] (-inf where hidden), m' = max(m[r], max x) and ref = m' (0 if m' is -inf):
     *   s[r][j] = exp(x_j - ref), alpha[r] = exp(m[r] - ref), sum[r] = sum[r] * alpha[r] + sum of s[r], m[r] = m'.
     * exp(-inf) is 0 exactly, exp(0) is 1 exactly, NaN stays NaN; its relative error is at most 2^-22.5, weights below 2^-126
     * may be 0. m, sum, alpha unaligned. */
    void (*soften)(float *s, int rows, float *m, float *sum, float *alpha);

    /* out (rows, d_pad): out[r] = out[r] * alpha[r] + sum_j p[r][j] vt[j]. p (rows, 64), vt (64, d_pad). */
    void (*pv)(const float *p, int rows, const float *alpha, const float *vt, int d_pad, float *out);
} fvi_tile_ops;

/* Portable C first, then overwritten level by level up to what `cpu` allows. */
void fvi_tile_init(const fvi_cpu *cpu, fvi_tile_ops *ops);

/* The rungs of the ladder; only those of the target processor are built. */
void fvi_tile_c(fvi_tile_ops *ops);
void fvi_tile_avx2(fvi_tile_ops *ops);
void fvi_tile_avx512(fvi_tile_ops *ops);

#endif
