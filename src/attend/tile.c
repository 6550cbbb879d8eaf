/* tile.c - one piece of one item: leaf by leaf, packed once for all its rows, in three stages around a score tile in L1. */
#include "attend/tile.h"

#include <math.h>
#include <string.h>

/* bf16 and quantised keys and values take the form of pairs where there is one; anything else is widened to f32. */
static const fvi_tile_ops *ops_for(const fv_plan *plan, const fv_run *run) {
    fv_dtype k = run->cache != NULL ? run->cache->desc.k_dtype : run->k.dtype;
    fv_dtype v = run->cache != NULL ? run->cache->desc.v_dtype : run->v.dtype;
    return &plan->ops[plan->has_half && (k == FV_BF16 || fvi_quantised(k)) && (v == FV_BF16 || fvi_quantised(v))];
}

void fvi_scratch_cut(const fv_plan *plan, const fv_run *run, void *workspace, int worker, fvi_scratch *out) {
    const fvi_layout *at = &plan->at;
    uint8_t *base = (uint8_t *)workspace + (size_t)worker * at->thread_bytes;
    *out = (fvi_scratch){
        .q = base + at->q,
        .q_row = (float *)(base + at->q_row),
        .s = (float *)(base + at->s),
        .kt = base + at->kt,
        .vt = base + at->vt,
        .vt_row = base + at->vt_row,
        .alpha = (float *)(base + at->alpha),
        .gather = base + at->gather,
        .seen = (uint64_t *)(base + at->seen),
        .piece = {(float *)(base + at->m), (float *)(base + at->sum), (float *)(base + at->out)},
        .total = {(float *)(base + at->total_m), (float *)(base + at->total_sum), (float *)(base + at->total)},
        .stats = (fv_run_stats *)((uint8_t *)workspace + at->stats + (size_t)worker * 64),
        .ops = ops_for(plan, run),
    };
}

void fvi_tile_load_queries(const fv_plan *plan, const fv_run *run, const fvi_item *item, fvi_scratch *scratch) {
    int64_t d = plan->problem.d_k, rows = item->n_rows * plan->group, row_bytes = fvi_tile_q_bytes(scratch->ops, d);
    for (int64_t r = 0; r < rows; r++) {
        int64_t head = fvi_row_head(item, plan->group, r), i = item->q_start + item->row0 + r / plan->group;
        int64_t batch = plan->problem.packed ? 0 : item->sequence;
        fvi_load_row(run->q.dtype, fvi_tensor_at(&run->q, batch, head, i), run->q.stride[3], d, scratch->q_row);
        if (run->cache != NULL && run->cache->desc.rotate_k) {
            plan->quant.rotate(scratch->q_row, (int)d);
        }
        scratch->ops->pack_q(scratch->q_row, 1, (int)d, (uint8_t *)scratch->q + r * row_bytes);
    }
}

/* Bits of the leaf's keys that the rule shows to a query at `position`. */
static uint64_t rule_bits(const fvi_rule *rule, int64_t position, const fvi_leaf *leaf) {
    fvi_span span[2];
    int n = fvi_rule_spans(rule, position, INT64_MAX / 2, span);
    uint64_t bits = 0;
    for (int k = 0; k < n; k++) {
        if (leaf->position == NULL) {
            int64_t from = fvi_max(span[k].from - leaf->first, 0), to = fvi_min(span[k].to - leaf->first, leaf->n);
            if (from < to) {
                bits |= (UINT64_MAX >> (64 - (to - from))) << from;
            }
        } else {
            for (int j = 0; j < leaf->n; j++) {
                bits |= (uint64_t)(leaf->position[j] >= span[k].from && leaf->position[j] < span[k].to) << j;
            }
        }
    }
    return bits;
}

static uint64_t key_mask_bits(const fv_plan *plan, const fv_run *run, const fvi_item *item, int64_t leaf_key, int n) {
    uint64_t bits = n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1;
    if (plan->problem.has_key_mask) {
        int64_t base = plan->problem.packed ? item->k_start : item->sequence * run->k.shape[2];
        for (int j = 0; j < n; j++) {
            bits &= ~((uint64_t)(run->key_mask[base + leaf_key + j] == 0) << j);
        }
    }
    return bits;
}

/* True if all rows see all 64 keys of a leaf. */
static bool whole_leaf(const fv_plan *plan, const fvi_item *item, const fvi_rule *inside, const fvi_leaf *leaf) {
    if (leaf->n < FVI_LEAF || plan->problem.has_key_mask) {
        return false;
    }
    int64_t first = item->offset + item->row0, last = first + item->n_rows - 1;
    int64_t from = fvi_key_position(leaf, 0), to = fvi_key_position(leaf, FVI_LEAF - 1) + 1;
    return fvi_rule_sees_all(&plan->rule, first, last, from, to) && fvi_rule_sees_all(inside, first, last, from, to);
}

/* By exponents, as integers: a sum of floats would be one long chain. */
static bool all_finite(const void *packed, bool half, int64_t n) {
    uint32_t bad = 0;
    if (half) {
        const uint16_t *x = packed;
        for (int64_t i = 0; i < n; i++) {
            bad |= (x[i] & 0x7f80u) == 0x7f80u;
        }
        return bad == 0;
    }
    const uint32_t *x = packed;
    for (int64_t i = 0; i < n; i++) {
        bad |= (x[i] & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}

/* A copy of packed V in which the values of unseen keys are zero. */
static void hide_values(const fv_plan *plan, const fvi_scratch *scratch, uint64_t seen) {
    const uint8_t *from = scratch->vt;
    size_t size = scratch->ops->half ? 2 : 4, row = scratch->ops->half ? 2 * (size_t)plan->d_pad : (size_t)plan->d_pad;
    memcpy(scratch->vt_row, from, (size_t)fvi_tile_v_bytes(plan->problem.d_v) / (scratch->ops->half ? 2 : 1));
    for (size_t j = 0; j < FVI_LEAF; j++) {
        for (size_t c = 0; c < (size_t)plan->d_pad && !(seen >> j & 1); c++) {
            size_t at = scratch->ops->half ? j / 2 * row + 2 * c + j % 2 : j * row + c;
            memset((uint8_t *)scratch->vt_row + at * size, 0, size);
        }
    }
}

/* pv where a row may not see a value that is not finite: each row gets values of its own. */
static void pv_apart(const fv_plan *plan, const fvi_score_tile *t, const float *alpha, fvi_scratch *scratch, float *out) {
    for (int64_t r = 0; r < t->n; r++) {
        hide_values(plan, scratch, t->seen[r]);
        scratch->ops->pv(t->s + r * FVI_LEAF, 1, alpha + r, scratch->vt_row, (int)plan->d_pad, out + r * plan->d_pad);
    }
}

/* What a leaf is to the rows of an item. */
typedef struct leaf_view {
    fvi_leaf leaf;
    int64_t key; /* number of its first key */
    bool whole;
    bool finite;       /* looked at only if not whole */
    uint64_t key_bits; /* keys that exist and are not masked */
    const fvi_rule *inside;
} leaf_view;

/* Sets `seen` for rows first .. first + n - 1 and counts. */
static void look(const fv_plan *plan, const fvi_item *item, const leaf_view *view, int64_t first, int64_t n, uint64_t *seen,
                 fv_run_stats *stats) {
    fvi_rule triangle = {.causal = plan->problem.causal};
    for (int64_t r = 0; r < n; r++) {
        if (view->whole) {
            seen[r] = UINT64_MAX;
            stats->visited_pairs += FVI_LEAF;
            continue;
        }
        int64_t position = fvi_row_position(item, plan->group, first + r);
        seen[r] = view->key_bits & rule_bits(&plan->rule, position, &view->leaf) & rule_bits(view->inside, position, &view->leaf);
        stats->visited_pairs += (uint64_t)__builtin_popcountll(rule_bits(&triangle, position, &view->leaf));
    }
}

static void fold_rows(const fv_plan *plan, const fv_run *run, const fvi_item *item, const leaf_view *view, int64_t first,
                      int64_t n, fvi_scratch *scratch, fvi_fold *fold) {
    fvi_score_tile t = {plan, run, item, &view->leaf, view->key, first, n, scratch->s, scratch->seen};
    look(plan, item, view, first, n, t.seen, scratch->stats);
    int d = (int)plan->problem.d_k;
    const uint8_t *q = (const uint8_t *)scratch->q + first * fvi_tile_q_bytes(scratch->ops, d);
    scratch->ops->qk(q, (int)n, d, scratch->kt, plan->problem.scale, t.s);
    fvi_score_parts(&t);
    if (!view->whole || plan->problem.has_bias) {
        fvi_score_hide(&t);
    }
    for (int64_t r = 0; r < n; r++) {
        scratch->stats->exact_pairs += (uint64_t)__builtin_popcountll(t.seen[r]);
    }
    float *out = fold->out + first * plan->d_pad;
    scratch->ops->soften(t.s, (int)n, fold->m + first, fold->sum + first, scratch->alpha);
    if ((view->whole && !plan->problem.has_bias) || view->finite) {
        scratch->ops->pv(t.s, (int)n, scratch->alpha, scratch->vt, (int)plan->d_pad, out);
    } else {
        pv_apart(plan, &t, scratch->alpha, scratch, out);
    }
}

static void fold_leaf(const fv_plan *plan, const fv_run *run, const fvi_item *item, const fvi_source *source, int64_t leaf,
                      const fvi_rule *inside, fvi_scratch *scratch, fvi_fold *fold) {
    leaf_view view = {.key = leaf * FVI_LEAF, .inside = inside};
    fvi_source_leaf(source, leaf, scratch->gather, &view.leaf);
    const fvi_leaf *l = &view.leaf;
    view.whole = whole_leaf(plan, item, inside, l);
    view.key_bits = key_mask_bits(plan, run, item, view.key, l->n);
    fvi_leaf_widen(&plan->quant, scratch->ops->half, plan->problem.d_k, plan->problem.d_v, scratch->gather, &view.leaf);
    scratch->ops->pack_k[l->k_dtype](l->k, l->k_row_bytes, l->n, (int)plan->problem.d_k, scratch->kt);
    scratch->ops->pack_v[l->v_dtype](l->v, l->v_row_bytes, l->n, (int)plan->problem.d_v, scratch->vt);
    view.finite = (view.whole && !plan->problem.has_bias) ||
                  all_finite(scratch->vt, scratch->ops->half, plan->d_pad * fvi_round_up(l->n, 2));
    int64_t rows = item->n_rows * plan->group;
    for (int64_t r = 0; r < rows; r += plan->sub_rows) {
        fold_rows(plan, run, item, &view, r, fvi_min(plan->sub_rows, rows - r), scratch, fold);
    }
}

void fvi_tile_piece(const fv_plan *plan, const fv_run *run, const fvi_item *item, int64_t from, int64_t to, fvi_scratch *scratch,
                    fvi_fold *fold) {
    fvi_source source = {run->cache,    run->layer,    &run->k,   &run->v, plan->problem.packed ? 0 : item->sequence,
                         item->k_start, item->kv_head, item->n_kv};
    int64_t first = item->offset + item->row0;
    fvi_query_tile tile = {first, first + item->n_rows - 1, item->n_kv, item->kv_head};
    fvi_index chosen, index;
    plan->choice.selector->tile(plan->choice.value, &tile, &chosen);
    fvi_index_under_rule(&chosen, &plan->rule, &tile, &index);
    for (int k = 0; k < index.n; k++) {
        int64_t leaf = fvi_max(index.span[k].from, from / FVI_LEAF), end = fvi_min(index.span[k].to, fvi_ceil_div(to, FVI_LEAF));
        for (; leaf < end; leaf++) {
            fold_leaf(plan, run, item, &source, leaf, &index.rule, scratch, fold);
        }
    }
}
