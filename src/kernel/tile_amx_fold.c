/* tile_amx_fold.c - soften on AMX, and several leaves folded into many rows at once.
 *
 * A fold takes a block of 32 rows through all leaves: scores of one leaf after the other in L1, weights of all of them beside,
 * then the values' products with the output in tile registers over all leaves. Loading and storing 32 rows of output takes
 * as long as the values' products of one leaf, so eight leaves a fold cost little more than half of what one does.
 *
 * That is open only to a row whose weights stay relative to one number: soften keeps a row's reference, which the first leaf that
 * it sees gives it, as long as no weight exceeds 2^8, though the row's maximum rise, and rescales to the new maximum where one
 * does. Few leaves do. A row's scores decide it, leaf by leaf, so the bits are those of the stages apart. */
#include "kernel/tile_amx_inline.h"

#ifdef __clang__
#pragma clang diagnostic ignored "-Wpass-failed" /* sanitized builds leave in loops whose ends inlining would make constants */
#endif

enum { BLOCK = 2 * TILE, SCORES = BLOCK * FVI_LEAF, P_BYTES = SCORES * 2 };

/* ---- soften -------------------------------------------------------------------------------------------------------- */

/* A row's scores with a leaf: scaled as they are read; those of keys that `seen` has not count as -inf. */
typedef struct score_row {
    const float *s;
    uint64_t seen;
    float scale;
} score_row;

INLINE void load_scores(const score_row *row, bool all, __m512 x[COLUMNS]) {
    const __m512 hidden = _mm512_set1_ps(-__builtin_inff()), scale = _mm512_set1_ps(row->scale);
    UNROLL for (int i = 0; i < COLUMNS; i++) {
        x[i] = _mm512_mul_ps(_mm512_load_ps(row->s + LANES * i), scale);
        x[i] = all ? x[i] : _mm512_mask_mov_ps(hidden, (__mmask16)(row->seen >> LANES * i), x[i]);
    }
}

/* Weights as bf16, and their sum by lanes before they are rounded. `bare`: the reference is 0. */
INLINE __m512 weigh(const __m512 x[COLUMNS], float reference, bool bare, __m512i p[2]) {
    __m512 v[COLUMNS], ref = _mm512_set1_ps(reference);
    UNROLL for (int i = 0; i < COLUMNS; i++) { v[i] = exp2_negative(bare ? x[i] : _mm512_sub_ps(x[i], ref), true); }
    p[0] = (__m512i)_mm512_cvtne2ps_pbh(v[1], v[0]);
    p[1] = (__m512i)_mm512_cvtne2ps_pbh(v[3], v[2]);
    return _mm512_add_ps(_mm512_add_ps(v[0], v[1]), _mm512_add_ps(v[2], v[3]));
}

/* Where rows of weights go: `row` bytes from one to the next, its second half `half` bytes after its first. */
typedef struct weight_place {
    char *to;
    int row, half;
} weight_place;

INLINE void store_weights(const __m512i p[2], weight_place at) {
    _mm512_store_si512(at.to, p[0]);
    _mm512_store_si512(at.to + at.half, p[1]);
}

/* A row that a weight takes beyond 2^8. */
static __attribute__((noinline)) __m512 weigh_anew(score_row row, float *m, float *alpha, weight_place at) {
    __m512 x[COLUMNS];
    __m512i p[2];
    load_scores(&row, false, x);
    float top = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3])));
    top = top > *m ? top : *m;
    float reference = top == -__builtin_inff() ? 0 : top;
    *alpha = _mm512_cvtss_f32(exp2_negative(_mm512_set1_ps(*m - reference), false));
    *m = top;
    __m512 sum = weigh(x, reference, false, p);
    store_weights(p, at);
    return sum;
}

/* Weights that are infinite or NaN are, as integers, beyond 2^8 too. */
INLINE __m512 weigh_row(const score_row *row, bool all, float reference, bool bare, float *m, float *alpha, weight_place at) {
    const __m512i most = _mm512_set1_epi16(0x4380);
    __m512 x[COLUMNS];
    __m512i p[2];
    load_scores(row, all, x);
    __m512 sum = weigh(x, reference, bare, p);
    if (__builtin_expect(_mm512_cmpgt_epu16_mask(_mm512_max_epu16(p[0], p[1]), most) != 0, 0)) {
        return weigh_anew(*row, m, alpha, at);
    }
    store_weights(p, at);
    return sum;
}

INLINE score_row row_of(const float *s, const uint64_t *seen, float scale, int r, int rows) {
    return (score_row){s + r * FVI_LEAF, seen == NULL || r >= rows ? UINT64_MAX : seen[r], scale};
}

/* Rows without a reference take one, all at once: in a first leaf all rows do. It is 0 where the row sees all keys of the leaf
 * and its maximum is in 0 .. 8, which saves the subtraction from then on; else the maximum. (Of a few keys one may be most of the
 * sum: beside its own score its weight is 1 exactly.) */
static __attribute__((noinline)) __m512 first_references(const float *s, const uint64_t *seen, int rows, float scale, __m512 m,
                                                         __mmask16 fresh) {
    const __m512 hidden = _mm512_set1_ps(-__builtin_inff()), most = _mm512_set1_ps(8), zero = _mm512_setzero_ps();
    __m512 top[LANES];
    __mmask16 near = 0;
    for (int r = 0; r < LANES; r++) {
        score_row row = row_of(s, seen, scale, r < rows ? r : 0, rows);
        __m512 x[COLUMNS];
        load_scores(&row, false, x);
        top[r] = _mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3]));
        __m512 least = _mm512_min_ps(_mm512_min_ps(x[0], x[1]), _mm512_min_ps(x[2], x[3]));
        near |= (__mmask16)((_mm512_cmp_ps_mask(least, hidden, _CMP_EQ_OQ) == 0) << r);
    }
    __m512 reference = fold16(top, false);
    near &= _mm512_cmp_ps_mask(reference, zero, _CMP_GE_OQ) & _mm512_cmp_ps_mask(reference, most, _CMP_LE_OQ);
    return _mm512_mask_mov_ps(m, fresh, _mm512_mask_mov_ps(reference, near, zero));
}

/* Weights of up to 16 rows, and their sums. */
INLINE __m512 weigh_rows(const float *s, const uint64_t *seen, int rows, float scale, const float *reference, bool bare, float *m,
                         float *alpha, weight_place at) {
    __m512 part[LANES];
    for (int r = 0; r < LANES; r++, at.to += at.row) {
        score_row row = row_of(s, seen, scale, r, rows);
        part[r] = r < rows ? weigh_row(&row, seen == NULL, reference[r], bare, m + r, alpha + r, at) : _mm512_setzero_ps();
    }
    return fold16(part, true);
}

/* Up to 16 rows; seen: NULL where all rows see all keys. */
INLINE void weigh16(const float *s, const uint64_t *seen, int rows, float scale, float *m, float *sum, float *alpha,
                    weight_place at) {
    const __m512 none = _mm512_set1_ps(-__builtin_inff());
    float reference[LANES] __attribute__((aligned(64)));
    __mmask16 mask = first(rows);
    __m512 top = _mm512_maskz_loadu_ps(mask, m);
    __mmask16 fresh = _mm512_cmp_ps_mask(top, none, _CMP_EQ_OQ);
    if (fresh != 0) {
        top = first_references(s, seen, rows, scale, top, fresh);
        _mm512_mask_storeu_ps(m, mask, top);
        top = _mm512_mask_mov_ps(top, _mm512_cmp_ps_mask(top, none, _CMP_EQ_OQ), _mm512_setzero_ps());
    }
    _mm512_store_ps(reference, top);
    _mm512_mask_storeu_ps(alpha, mask, _mm512_maskz_mov_ps((__mmask16)~fresh, _mm512_set1_ps(1)));
    bool bare = _mm512_cmp_ps_mask(top, _mm512_setzero_ps(), _CMP_NEQ_UQ) == 0;
    __m512 more = bare ? weigh_rows(s, seen, rows, scale, reference, true, m, alpha, at)
                       : weigh_rows(s, seen, rows, scale, reference, false, m, alpha, at);
    __m512 old = _mm512_maskz_loadu_ps(mask, sum), by = _mm512_maskz_loadu_ps(mask, alpha);
    _mm512_mask_storeu_ps(sum, mask, _mm512_fmadd_ps(old, by, more));
}

static void soften(float *s, int rows, float *m, float *sum, float *alpha) {
    for (int r = 0; r < rows; r += LANES) {
        float *place = s + r * FVI_LEAF;
        weigh16(place, NULL, rows - r < LANES ? rows - r : LANES, 1, m + r, sum + r, alpha + r,
                (weight_place){(char *)place, FVI_LEAF * 4, TILE_ROW});
    }
}

/* ---- products ------------------------------------------------------------------------------------------------------ */

/* The first step of a pass is loaded before the sums of the pass before are stored: loads wait for stores before them, and those
 * for their sums. */
INLINE void load_operands(const char *a, int64_t a_stride, const char *b) {
    settle();
    _tile_stream_loadd(6, b, TILE_ROW);
    _tile_loadd(4, a, a_stride);
    _tile_stream_loadd(7, b + TILE_BYTES, TILE_ROW);
    _tile_loadd(5, a + TILE * a_stride, a_stride);
}

INLINE void multiply_loaded(void) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* What products are over: of common widths known to the compiler, which leaves neither loops nor branches between them. */
typedef struct widths {
    int steps, d_pad; /* of a score; of the output */
} widths;

/* Scores of a block with a leaf, not scaled. */
INLINE void multiply_keys(const fvi_tile_fold *f, widths d, int block, int leaf) {
    const int64_t q_stride = d.steps * STEP * 2;
    const char *q = (const char *)f->qt + block * BLOCK * q_stride, *kt = (const char *)f->kt + leaf * q_stride * FVI_LEAF;
    load_operands(q, q_stride, kt);
    UNROLL for (int j = 0; j < 2; j++) {
        zero_sums(true);
        multiply_loaded();
        UNROLL for (int t = 1; t < d.steps; t++) {
            multiply_step(q + t * STEP * 2, q_stride, kt + (j * d.steps + t) * PAIR_BYTES, true);
        }
        if (j == 0) {
            load_operands(q, q_stride, kt + d.steps * PAIR_BYTES);
        }
        store_sums((char *)(f->s + j * BLOCK), FVI_LEAF * 4, true);
    }
}

/* What a block of rows has of some leaves, one after the other. */
typedef struct weights {
    int n, leaf[FVI_FOLD_LEAVES];
    float alpha[FVI_FOLD_LEAVES][BLOCK];
    const char *p; /* of each leaf (32, 64) bf16: columns 0..31 of all rows, then the others */
} weights;

INLINE bool moved(const float *alpha) {
    const __m512 one = _mm512_set1_ps(1);
    __mmask16 top = _mm512_cmp_ps_mask(_mm512_loadu_ps(alpha), one, _CMP_NEQ_UQ);
    return (top | _mm512_cmp_ps_mask(_mm512_loadu_ps(alpha + LANES), one, _CMP_NEQ_UQ)) != 0;
}

/* Four rows of the columns of output that come next. */
INLINE void ask_for_sums(const char *sums, int64_t stride) {
    UNROLL for (int r = 0; r < BLOCK / FVI_FOLD_LEAVES; r++) {
        _mm_prefetch(sums + r * stride, _MM_HINT_T0);
        _mm_prefetch(sums + r * stride + 64, _MM_HINT_T0);
    }
}

/* Output of a block: leaves from .. to - 1 of those weighed. */
INLINE void multiply_weights(const fvi_tile_fold *f, widths d, const weights *w, int from, int to, float *out) {
    const int64_t stride = d.d_pad * 4, leaf_bytes = stride * (FVI_LEAF / 2);
    const char *vt = f->vt, *first_values = vt + w->leaf[from] * leaf_bytes, *first_p = w->p + from * P_BYTES;
    load_operands(first_p, TILE_ROW, first_values);
    UNROLL for (int c = 0; c < d.d_pad; c += BLOCK) {
        char *sums = (char *)(out + c);
        const char *next = sums + BLOCK * 4;
        load_sums(sums, stride, true);
        multiply_loaded();
        multiply_step(first_p + PAIR_BYTES, TILE_ROW, first_values + c / TILE * PAIR_BYTES + PAIR_BYTES, true);
        for (int i = from + 1; i < to; i++, next += BLOCK / FVI_FOLD_LEAVES * stride) {
            const char *p = w->p + i * P_BYTES, *values = vt + w->leaf[i] * leaf_bytes + c / TILE * PAIR_BYTES;
            ask_for_sums(next, stride);
            multiply_step(p, TILE_ROW, values, true);
            multiply_step(p + PAIR_BYTES, TILE_ROW, values + PAIR_BYTES, true);
        }
        if (c + BLOCK < d.d_pad) {
            load_operands(first_p, TILE_ROW, first_values + (c + BLOCK) / TILE * PAIR_BYTES);
        }
        store_sums(sums, stride, true);
    }
}

/* Output stays in tiles from one leaf to the next unless a row is rescaled between them. */
INLINE void take_values(const fvi_tile_fold *f, widths d, const weights *w, float *out) {
    for (int from = 0, to; from < w->n; from = to) {
        to = from + 1;
        while (to < w->n && !moved(w->alpha[to])) {
            to++;
        }
        rescale(out, BLOCK, w->alpha[from], d.d_pad);
        multiply_weights(f, d, w, from, to, out);
    }
}

/* ---- both ---------------------------------------------------------------------------------------------------------- */

typedef enum sight { NOTHING, SOME, ALL } sight;

INLINE sight sight_of(const uint64_t *seen) {
    __m512i any = _mm512_setzero_si512(), all = _mm512_set1_epi64(-1);
    for (int r = 0; r < BLOCK; r += 8) {
        __m512i x = _mm512_loadu_si512(seen + r);
        any = _mm512_or_si512(any, x);
        all = _mm512_and_si512(all, x);
    }
    return _mm512_test_epi64_mask(any, any) == 0 ? NOTHING : _mm512_cmpneq_epi64_mask(all, _mm512_set1_epi64(-1)) ? SOME : ALL;
}

INLINE void weigh_block(const fvi_tile_fold *f, int block, const uint64_t *seen, float *alpha, char *p) {
    settle();
    for (int r = 0; r < BLOCK; r += LANES) {
        int row = block * BLOCK + r;
        weigh16(f->s + r * FVI_LEAF, seen == NULL ? NULL : seen + r, LANES, f->scale, f->m + row, f->sum + row, alpha + r,
                (weight_place){p + r * TILE_ROW, TILE_ROW, PAIR_BYTES});
    }
    settle();
}

INLINE void fold_block(const fvi_tile_fold *f, widths d, int block) {
    char *p = (char *)(f->s + SCORES);
    weights w = {.p = p};
    for (int leaf = 0; leaf < f->leaves; leaf++) {
        const uint64_t *seen = f->seen[leaf] == NULL ? NULL : f->seen[leaf] + block * BLOCK;
        sight in_sight = seen == NULL ? ALL : sight_of(seen);
        if (in_sight == NOTHING) {
            continue;
        }
        multiply_keys(f, d, block, leaf);
        if (in_sight == ALL) {
            weigh_block(f, block, NULL, w.alpha[w.n], p + w.n * P_BYTES);
        } else {
            weigh_block(f, block, seen, w.alpha[w.n], p + w.n * P_BYTES);
        }
        w.leaf[w.n++] = leaf;
    }
    take_values(f, d, &w, f->out + (int64_t)block * BLOCK * d.d_pad);
}

INLINE void fold_blocks(const fvi_tile_fold *f, widths d) {
    configure(BLOCK);
    for (int block = 0; block < f->rows / BLOCK; block++) {
        fold_block(f, d, block);
    }
    _tile_release();
}

static __attribute__((noinline)) void fold_64(const fvi_tile_fold *f) { fold_blocks(f, (widths){2, 64}); }
static __attribute__((noinline)) void fold_128(const fvi_tile_fold *f) { fold_blocks(f, (widths){4, 128}); }
static __attribute__((noinline)) void fold_any(const fvi_tile_fold *f, widths d) { fold_blocks(f, d); }

static bool fold_leaves(const fvi_tile_fold *fold) {
    widths d = {(int)fvi_tile_half_width(fold->d) / STEP, fold->d_pad};
    if (d.d_pad % BLOCK != 0) {
        return false;
    }
    if (d.steps == 2 && d.d_pad == 64) {
        fold_64(fold);
    } else if (d.steps == 4 && d.d_pad == 128) {
        fold_128(fold);
    } else {
        fold_any(fold, d);
    }
    return true;
}

void fvi_tile_amx_fold(fvi_tile_ops *ops) {
    ops->soften = soften;
    ops->fold = fold_leaves;
}
