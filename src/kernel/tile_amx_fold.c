/* tile_amx_fold.c - a leaf folded into many rows at once: qk, soften and pv of the bf16 tile with their parts interleaved.
 *
 * The products of AMX need one operation in 16 cycles, and soften needs the ports that they leave idle; but a core looks only a
 * few hundred operations ahead, so the two have to stand side by side in the program. Blocks of 32 rows pass through three
 * stages: while block b is softened, the first half of its rows goes with the values' products of block b - 1, the second half
 * with the keys' products of block b + 1. Scores of two blocks are in L1 at a time.
 *
 * A row gets the bits that the three stages apart would give it: the scores are scaled as they are read. */
#include "kernel/tile_amx_inline.h"

enum { BLOCK = 2 * TILE, SCORES = BLOCK * FVI_LEAF };

/* Half a block on its way from scores to weights. */
typedef struct softening {
    float *s;
    const uint64_t *seen; /* NULL: all */
    float *sum;
    int row; /* the next */
    __m512 scale, correction, part[LANES];
    float ref[LANES] __attribute__((aligned(64)));
} softening;

INLINE void load_scores(const softening *w, int r, __m512 x[COLUMNS]) {
    const float *s = w->s + r * FVI_LEAF;
    if (w->seen == NULL) {
        UNROLL for (int i = 0; i < COLUMNS; i++) { x[i] = _mm512_load_ps(s + LANES * i); }
    } else {
        const __m512 hidden = _mm512_set1_ps(-__builtin_inff());
        uint64_t seen = w->seen[r];
        UNROLL for (int i = 0; i < COLUMNS; i++) {
            x[i] = _mm512_mask_load_ps(hidden, (__mmask16)(seen >> LANES * i), s + LANES * i);
        }
    }
}

/* The maxima: of scores before they are scaled, which changes nothing, since the scale is positive. */
INLINE void find_maxima(softening *w, float *m, float *alpha) {
    const __m512 hidden = _mm512_set1_ps(-__builtin_inff());
    for (int r = 0; r < LANES; r++) {
        __m512 x[COLUMNS];
        load_scores(w, r, x);
        w->part[r] = _mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3]));
    }
    __m512 old = _mm512_loadu_ps(m);
    __m512 top = _mm512_max_ps(_mm512_mul_ps(fold16(w->part, false), w->scale), old);
    __m512 zeroed = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(top, hidden, _CMP_NEQ_UQ), top);
    w->correction = exp2_negative(_mm512_sub_ps(old, zeroed), false);
    _mm512_store_ps(w->ref, zeroed);
    _mm512_storeu_ps(m, top);
    _mm512_storeu_ps(alpha, w->correction);
}

INLINE void weigh(softening *w, int r) {
    __m512 v[COLUMNS], ref = _mm512_set1_ps(w->ref[r]);
    load_scores(w, r, v);
    UNROLL for (int i = 0; i < COLUMNS; i++) { v[i] = exp2_negative(_mm512_sub_ps(_mm512_mul_ps(v[i], w->scale), ref), true); }
    float *s = w->s + r * FVI_LEAF;
    _mm512_store_si512(s, (__m512i)_mm512_cvtne2ps_pbh(v[1], v[0]));
    _mm512_store_si512(s + LANES, (__m512i)_mm512_cvtne2ps_pbh(v[3], v[2]));
    w->part[r] = _mm512_add_ps(_mm512_add_ps(v[0], v[1]), _mm512_add_ps(v[2], v[3]));
}

/* Weighs as large a part of the rows as `done` is of `all`. */
INLINE void advance(softening *w, int done, int all) {
    for (; w->row * all < LANES * done; w->row++) {
        weigh(w, w->row);
    }
}

INLINE softening begin(const fvi_tile_fold *f, int block, int half) {
    int64_t row = block * BLOCK + half * LANES;
    softening w;
    w.s = f->s + block % 2 * SCORES + half * LANES * FVI_LEAF;
    w.seen = f->seen == NULL ? NULL : f->seen + row;
    w.sum = f->sum + row;
    w.row = 0;
    w.scale = _mm512_set1_ps(f->scale);
    find_maxima(&w, f->m + row, f->alpha + row);
    return w;
}

INLINE void end(softening *w) {
    advance(w, 1, 1);
    _mm512_storeu_ps(w->sum, _mm512_fmadd_ps(_mm512_loadu_ps(w->sum), w->correction, fold16(w->part, true)));
    settle();
}

/* Scores of a block, not scaled; beside them, rows are weighed. */
INLINE void multiply_keys(const fvi_tile_fold *f, int block, softening *beside) {
    enum { STRIDE = FVI_LEAF * 4 };
    int64_t q_stride = fvi_tile_half_width(f->d) * 2;
    const char *q = (const char *)f->qt + block * BLOCK * q_stride, *kt = f->kt;
    int steps = (int)q_stride / (2 * STEP);
    for (int j = 0; j < 2; j++) {
        zero_sums(true);
        for (int t = 0; t < steps; t++) {
            multiply_step(q + t * STEP * 2, q_stride, kt + j * BLOCK * 4 + t * TILE * STRIDE, STRIDE, true);
            if (beside != NULL) {
                advance(beside, j * steps + t + 1, 2 * steps);
            }
        }
        store_sums((char *)(f->s + block % 2 * SCORES + j * BLOCK), STRIDE, true);
    }
}

/* Output of a block; beside it, rows are weighed. */
INLINE void multiply_weights(const fvi_tile_fold *f, int block, softening *beside) {
    enum { P_STRIDE = FVI_LEAF * 4, STEPS = FVI_LEAF / STEP };
    int64_t stride = f->d_pad * 4;
    float *out = f->out + (int64_t)block * BLOCK * f->d_pad;
    const char *p = (const char *)(f->s + block % 2 * SCORES), *vt = f->vt;
    rescale(out, BLOCK, f->alpha + block * BLOCK, f->d_pad);
    int passes = f->d_pad / BLOCK;
    for (int j = 0; j < passes; j++) {
        char *to = (char *)(out + j * BLOCK);
        load_sums(to, stride, true);
        for (int t = 0; t < STEPS; t++) {
            multiply_step(p + t * STEP * 2, P_STRIDE, vt + j * BLOCK * 4 + t * TILE * stride, stride, true);
            if (beside != NULL) {
                advance(beside, j * STEPS + t + 1, passes * STEPS);
            }
        }
        store_sums(to, stride, true);
    }
}

INLINE void fold_blocks(const fvi_tile_fold *f, int blocks) {
    multiply_keys(f, 0, NULL);
    for (int b = 0; b < blocks; b++) {
        softening top = begin(f, b, 0);
        if (b > 0) {
            multiply_weights(f, b - 1, &top);
        }
        end(&top);
        softening low = begin(f, b, 1);
        if (b + 1 < blocks) {
            multiply_keys(f, b + 1, &low);
        }
        end(&low);
    }
    multiply_weights(f, blocks - 1, NULL);
}

static bool fold_leaf(const fvi_tile_fold *fold) {
    int blocks = fold->rows / BLOCK;
    if (fold->d_pad % BLOCK != 0 || !(fold->scale > 0)) {
        return false;
    }
    if (blocks == 0) {
        return true;
    }
    configure(BLOCK);
    if (fold->seen == NULL) {
        fvi_tile_fold whole = *fold;
        whole.seen = NULL;
        fold_blocks(&whole, blocks);
    } else {
        fold_blocks(fold, blocks);
    }
    _tile_release();
    return true;
}

void fvi_tile_amx_fold(fvi_tile_ops *ops) { ops->fold = fold_leaf; }
