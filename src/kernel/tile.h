/* tile.h - the three stages of the CPU tile (qk, soften, pv) and the packing before them.
 *
 * A tile is up to 64 keys (a leaf) against any number of query rows. Scores, weights' sums and outputs are f32; the operands of
 * products are packed in one of two forms, f32 or, for bf16 K and V where the processor has bf16 dot products, pairs of bf16.
 * The arithmetic of a row is fixed, so that its bits do not depend on which rows stand beside it (within one table):
 *   qk      each score is one chain over c = 0 .. d-1 from 0, then one product with the scale
 *   soften  scores are logarithms to the base 2 (the scale brings the factor); the leaf's maximum; the sum of the 64 weights in
 * the order that each file states pv      each output is rescaled once, then takes one chain over j = 0 .. 63 A chain is of fused
 * multiply-adds (portable C may round products and sums apart: it has its own bits), or of dot products of pairs.
 *
 * Buffers are 64-byte aligned unless said otherwise. d_pad = fvi_tile_pad(d_v): widths are padded with zeros to 16 columns.
 */
#ifndef FVI_KERNEL_TILE_H
#define FVI_KERNEL_TILE_H

#include "base/base.h"

enum { FVI_LEAF = 64, FVI_FOLD_LEAVES = 8 }; /* keys of a leaf; leaves that a fold takes at most */

static inline int64_t fvi_tile_pad(int64_t d) { return fvi_round_up(d, 16); }
/* Elements of a packed row of Q, and of a packed column of K, in the form of pairs. */
static inline int64_t fvi_tile_half_width(int64_t d) { return fvi_round_up(d, 32); }

/* Where a pair of bf16 stands in packed K, and in packed V, counted in pairs: pair c of key j, and pair j of column c. In rows,
 * or as tiles of 16 rows of 16 pairs: two tiles side by side, then the two below them, then the next 32 keys or columns (of which
 * V may have 16 at the end, in tiles one below the other). */
static inline int64_t fvi_tile_key_pair(bool tiles, int64_t d, int64_t j, int64_t c) {
    return tiles ? ((j / 32 * (fvi_tile_half_width(d) / 32) + c / 16) * 2 + j / 16 % 2) * 256 + c % 16 * 16 + j % 16 : c * 64 + j;
}
static inline int64_t fvi_tile_value_pair(bool tiles, int64_t d_pad, int64_t j, int64_t c) {
    int64_t wide = d_pad - c / 32 * 32 < 32 ? 1 : 2;
    return tiles ? c / 32 * 1024 + (j / 16 * wide + c / 16 % 2) * 256 + j % 16 * 16 + c % 16 : j * d_pad + c;
}

/* Leaves that are folded into many rows at once: operands of qk, soften and pv. */
typedef struct fvi_tile_fold {
    const void *qt, *kt, *vt;   /* packed leaves one after the other, as fvi_tile_packed_k and _v count them */
    int leaves, rows, d, d_pad; /* rows: a multiple of row_block */
    float scale;
    const uint64_t *seen[FVI_FOLD_LEAVES]; /* (rows) of each leaf: bit j: the row sees key j; NULL: all rows see all keys */
    float *s; /* room for row_block rows of scores, and of weights for FVI_FOLD_LEAVES leaves: fvi_tile_fold_rows */
    float *m, *sum, *out;
} fvi_tile_fold;

/* Rows of K or V of one leaf, wherever they are: element (j, c) at data + j * row_bytes + c * size of dtype. Unaligned. */
typedef struct fvi_tile_ops {
    const char *name; /* "c", "avx2", "avx512", "avx512bf16", "amx" */
    int row_block;    /* rows that one pass of qk and pv works on: tiles are best a multiple of it */
    bool half;        /* the form: pairs of bf16, else f32 */
    bool tiles;       /* of pairs: K and V are packed as tiles, else in rows */

    /* qt: rows of fvi_tile_q_bytes from q (rows, d; contiguous, unaligned). Half: rounded to bf16, zeros past d. */
    void (*pack_q)(const float *q, int rows, int d, void *qt);

    /* Keys of one leaf, n <= 64, zeros for the others. f32: kt[c][j] (d, 64). Half: pairs kt[c / 2][j] = (k_j[c], k_j[c+1]) of
     * (half width / 2, 64), each at fvi_tile_key_pair. Indexed by fv_dtype: f32, f16, bf16; half: bf16 only. */
    void (*pack_k[3])(const void *k, int64_t row_bytes, int n, int d, void *kt);

    /* Values of one leaf, zeros elsewhere. f32: vt[j][c] (64, d_pad). Half: pairs vt[j / 2][c] = (v_j[c], v_(j+1)[c]) of
     * (32, d_pad), each at fvi_tile_value_pair. */
    void (*pack_v[3])(const void *v, int64_t row_bytes, int n, int d, void *vt);

    /* s (rows, 64) = scale * (q times kt). */
    void (*qk)(const void *qt, int rows, int d, const void *kt, float scale, float *s);

    /* For each row r: with x = s[r][0..63] (-inf where hidden), m' = max(m[r], max x) and ref = m' (0 if m' is -inf):
     *   s[r][j] = 2^(x_j - ref), alpha[r] = 2^(m[r] - ref), sum[r] = sum[r] * alpha[r] + sum of the weights, m[r] = m'.
     * Half: the weights are left as 64 bf16 in the first half of the row's place, summed before they were rounded.
     * 2^-inf is 0 exactly, 2^0 is 1 exactly, NaN stays NaN; a weight's relative error is at most 2^-22.4 (half: 2^-18 before it
     * is rounded to bf16, and of the sum), weights below 2^-126 may be 0. m, sum, alpha unaligned.
     * AMX: m' = m[r] where no weight then exceeds 2^8 as it is rounded; m is a reference of the row, and at most 8 below its
     * maximum: from -inf it becomes 0 where max x is in 0 .. 8 and no key is hidden. */
    void (*soften)(float *s, int rows, float *m, float *sum, float *alpha);

    /* out (rows, d_pad): out[r] = out[r] * alpha[r] + sum_j p[r][j] vt[j]. p as soften leaves it. */
    void (*pv)(const float *p, int rows, const float *alpha, const void *vt, int d_pad, float *out);

    /* The three in one, leaf after leaf, to the same bits; false, and nothing done, where it cannot (a width that it does not
     * take). Weights of keys that a row does not see are 0; their values must be finite. NULL in forms that gain nothing. */
    bool (*fold)(const fvi_tile_fold *fold);
} fvi_tile_ops;

static inline int64_t fvi_tile_q_bytes(const fvi_tile_ops *ops, int64_t d) {
    return ops->half ? fvi_tile_half_width(d) * 2 : d * 4;
}
/* Bytes of a leaf of packed K, and of packed V. */
static inline int64_t fvi_tile_packed_k(const fvi_tile_ops *ops, int64_t d) { return fvi_tile_q_bytes(ops, d) * FVI_LEAF; }
static inline int64_t fvi_tile_packed_v(const fvi_tile_ops *ops, int64_t d) {
    return fvi_tile_pad(d) * FVI_LEAF * (ops->half ? 2 : 4);
}
/* Rows of 64 floats that a fold needs room for. */
static inline int64_t fvi_tile_fold_rows(const fvi_tile_ops *ops) { return ops->row_block * (1 + FVI_FOLD_LEAVES / 2); }
/* Enough for packed K, and for packed V, of either form. */
static inline int64_t fvi_tile_k_bytes(int64_t d) { return fvi_tile_half_width(d) * FVI_LEAF * 4; }
static inline int64_t fvi_tile_v_bytes(int64_t d) { return fvi_tile_pad(d) * FVI_LEAF * 4; }

/* The f32 form: portable C first, then overwritten level by level up to what `cpu` allows. */
void fvi_tile_init(const fvi_cpu *cpu, fvi_tile_ops *ops);
/* The form of pairs; false, and an empty table, where the processor has no bf16 dot products. */
bool fvi_tile_init_half(const fvi_cpu *cpu, fvi_tile_ops *ops);

/* The rungs of the ladders; only those of the target processor are built. */
void fvi_tile_c(fvi_tile_ops *ops);
void fvi_tile_avx2(fvi_tile_ops *ops);
void fvi_tile_avx512(fvi_tile_ops *ops);
void fvi_tile_avx512bf16(fvi_tile_ops *ops);
void fvi_tile_amx(fvi_tile_ops *ops); /* over fvi_tile_avx512bf16 */
void fvi_tile_amx_fold(fvi_tile_ops *ops);

#endif
