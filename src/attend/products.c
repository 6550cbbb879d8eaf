/* products.c - see products.h. */
#include "attend/products.h"

#include "attend/turn.h"

#include <string.h>

void fvi_products_pick(const fv_plan *plan, const fv_run *run, fvi_scratch *scratch) {
    fv_dtype k = run->cache != NULL ? run->cache->desc.k_dtype : run->k.dtype;
    fv_dtype v = run->cache != NULL ? run->cache->desc.v_dtype : run->v.dtype;
    bool decode = fvi_plan_in_place(plan);
    scratch->ops = &plan->ops[fvi_plan_pairs(plan, k, v)];
    scratch->key = decode ? &plan->decode.k[k] : NULL;
    scratch->value = decode ? &plan->decode.v[v] : NULL;
    scratch->list_k = &plan->decode.k[k];
    scratch->list_v = &plan->decode.v[v];
    scratch->list_qk = plan->decode.qk_apart[k];
    scratch->list_pv = plan->decode.pv_apart[v];
    scratch->list_two = plan->decode.pv_two[v];
}

void *fvi_products_query(const fv_plan *plan, const fvi_scratch *scratch, int64_t row) {
    int64_t d = plan->problem.d_k;
    int64_t bytes = scratch->key != NULL ? scratch->key->q_bytes((int)d) : fvi_tile_q_bytes(scratch->ops, d);
    return (uint8_t *)scratch->q + row * bytes;
}

void *fvi_products_list_query(const fv_plan *plan, const fvi_scratch *scratch, int64_t row) {
    return (uint8_t *)scratch->list_q + row * scratch->list_k->q_bytes((int)plan->problem.d_k);
}

void fvi_products_pack_query(const fv_plan *plan, const fvi_scratch *scratch, int64_t row) {
    int d = (int)plan->problem.d_k;
    if (scratch->key != NULL) {
        scratch->key->pack_q(scratch->q_row, d, fvi_products_query(plan, scratch, row));
    } else {
        scratch->ops->pack_q(scratch->q_row, 1, d, fvi_products_query(plan, scratch, row));
    }
    if (plan->indexed) {
        scratch->list_k->pack_q(scratch->q_row, d, fvi_products_list_query(plan, scratch, row));
    }
}

int64_t fvi_products_batch(const fv_plan *plan, const fvi_scratch *scratch, bool in_place) {
    bool several = in_place && (scratch->key != NULL || (scratch->ops->fold != NULL && !plan->choice.selector->places));
    return several ? plan->batch : 1;
}

void fvi_products_open_keys(const fv_plan *plan, fvi_leaf *leaf, int slot, const fvi_scratch *scratch) {
    if (scratch->key == NULL) {
        uint8_t *kt = (uint8_t *)scratch->kt + slot * fvi_tile_packed_k(scratch->ops, plan->problem.d_k);
        fvi_leaf_widen(&plan->quant, scratch->ops->half, plan->problem.d_k, plan->problem.d_v, scratch->gather, leaf);
        leaf->kt = kt;
        leaf->set = 0;
        if (scratch->unrotate) {
            fvi_turn_plain_keys(plan, leaf, scratch);
        } else {
            scratch->ops->pack_k[leaf->k_dtype](leaf->k, leaf->k_row_bytes, leaf->n, (int)plan->problem.d_k, kt);
        }
        leaf->vt = (uint8_t *)scratch->vt + slot * fvi_tile_packed_v(scratch->ops, plan->problem.d_v);
    }
}

void fvi_products_open_values(const fv_plan *plan, const fvi_leaf *leaf, const fvi_scratch *scratch) {
    if (scratch->key == NULL) {
        scratch->ops->pack_v[leaf->v_dtype](leaf->v, leaf->v_row_bytes, leaf->n, (int)plan->problem.d_v, leaf->vt);
    }
}

static fvi_rows key_rows(const fvi_leaf *leaf) {
    return (fvi_rows){
        .data = leaf->k, .row_bytes = leaf->k_row_bytes, .scale = leaf->k_scale, .next = leaf->k_next, .n = leaf->n};
}

static fvi_rows value_rows(const fvi_leaf *leaf) {
    return (fvi_rows){
        .data = leaf->v, .row_bytes = leaf->v_row_bytes, .scale = leaf->v_scale, .next = leaf->v_next, .n = leaf->n};
}

void fvi_products_scores(const fv_plan *plan, const fvi_leaf *leaf, const fvi_scratch *scratch, int64_t first, int64_t n,
                         float *s) {
    const fv_problem *p = &plan->problem;
    const void *q = fvi_products_query(plan, scratch, first);
    if (scratch->key != NULL) {
        fvi_rows k = key_rows(leaf);
        scratch->key->qk(q, (int)n, (int)p->d_k, &k, plan->scale, s);
    } else {
        scratch->ops->qk(q, (int)n, (int)p->d_k, leaf->kt, plan->scale, s);
    }
}

void fvi_products_values(const fv_plan *plan, const fvi_leaf *leaf, const fvi_scratch *scratch, float *s, int64_t n,
                         const float *alpha, float *out) {
    if (scratch->value != NULL) {
        fvi_rows v = value_rows(leaf);
        scratch->value->pv(s, (int)n, alpha, &v, (int)plan->problem.d_v, (int)plan->d_pad, out);
    } else {
        scratch->ops->pv(s, (int)n, alpha, leaf->vt, (int)plan->d_pad, out);
    }
}

bool fvi_products_fold(const fv_plan *plan, const fvi_scratch *scratch, int leaves, int64_t n,
                       const uint64_t *const seen[FVI_FOLD_LEAVES], fvi_fold *fold) {
    fvi_tile_fold operands = {
        .qt = fvi_products_query(plan, scratch, 0),
        .kt = scratch->kt,
        .vt = scratch->vt,
        .leaves = leaves,
        .rows = (int)n,
        .d = (int)plan->problem.d_k,
        .d_pad = (int)plan->d_pad,
        .scale = plan->scale,
        .s = scratch->s,
        .m = fold->m,
        .sum = fold->sum,
        .out = fold->out,
    };
    memcpy(operands.seen, seen, (size_t)leaves * sizeof *seen);
    return scratch->ops->fold(&operands);
}

/* ---- values that are not finite ------------------------------------------------------------------------------------ */

/* By exponents, as integers: a sum of floats would be one long chain. */
static bool finite_32(const uint32_t *x, int64_t n) {
    uint32_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        bad |= (x[i] & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}

static bool finite_16(const uint16_t *x, int64_t n, uint16_t exponent) {
    uint32_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        bad |= (x[i] & exponent) == exponent;
    }
    return bad == 0;
}

static bool finite_row(const uint8_t *row, fv_dtype dtype, int64_t d) {
    if (dtype == FV_F32) {
        return finite_32((const uint32_t *)row, d);
    }
    return finite_16((const uint16_t *)row, d, dtype == FV_F16 ? 0x7c00 : 0x7f80);
}

bool fvi_products_finite(const fv_plan *plan, const fvi_leaf *leaf, const fvi_scratch *scratch) {
    if (scratch->value == NULL) {
        int64_t n = plan->d_pad * (scratch->ops->tiles ? FVI_LEAF : fvi_round_up(leaf->n, 2));
        return scratch->ops->half ? finite_16(leaf->vt, n, 0x7f80) : finite_32(leaf->vt, n);
    }
    bool finite = true;
    if (fvi_quantised(leaf->v_dtype)) { /* only a scale can be none */
        for (int64_t i = 0; i < plan->problem.d_v / FVI_QUANT_BLOCK; i++) {
            finite = finite && finite_16(leaf->v_scale + i * FVI_QUANT_ROWS, leaf->n, 0x7c00);
        }
        return finite;
    }
    for (int j = 0; j < leaf->n; j++) {
        finite = finite && finite_row(leaf->v + j * leaf->v_row_bytes, leaf->v_dtype, plan->problem.d_v);
    }
    return finite;
}

/* A copy of packed V in which the values of unseen keys are zero. */
static void hide_packed(const fv_plan *plan, const fvi_leaf *leaf, const fvi_scratch *scratch, uint64_t seen) {
    const uint8_t *from = leaf->vt;
    const bool half = scratch->ops->half, tiles = scratch->ops->tiles;
    const int64_t d_pad = plan->d_pad, size = half ? 2 : 4;
    memcpy(scratch->vt_row, from, (size_t)fvi_tile_v_bytes(plan->problem.d_v) / (half ? 2 : 1));
    for (int64_t j = 0; j < FVI_LEAF; j++) {
        for (int64_t c = 0; c < d_pad && !(seen >> j & 1); c++) {
            int64_t at = half ? 2 * fvi_tile_value_pair(tiles, d_pad, j / 2, c) + j % 2 : j * d_pad + c;
            memset((uint8_t *)scratch->vt_row + at * size, 0, (size_t)size);
        }
    }
}

/* The same where scales alone can be not finite. */
static fvi_rows hide_scales(const fv_plan *plan, const fvi_leaf *leaf, const fvi_scratch *scratch, uint64_t seen) {
    uint16_t *scale = scratch->vt_row;
    for (int64_t i = 0; i < plan->problem.d_v / FVI_QUANT_BLOCK; i++) {
        for (int j = 0; j < FVI_QUANT_ROWS; j++) {
            scale[i * FVI_QUANT_ROWS + j] = seen >> j & 1 ? leaf->v_scale[i * FVI_QUANT_ROWS + j] : 0;
        }
    }
    fvi_rows rows = value_rows(leaf);
    rows.scale = scale;
    return rows;
}

/* A copy of rows of V in which those of unseen keys are zero. */
static fvi_rows hide_rows(const fv_plan *plan, const fvi_leaf *leaf, const fvi_scratch *scratch, uint64_t seen) {
    if (fvi_quantised(leaf->v_dtype)) {
        return hide_scales(plan, leaf, scratch, seen);
    }
    size_t row = fv_dtype_bytes(leaf->v_dtype, plan->problem.d_v);
    for (int j = 0; j < leaf->n; j++) {
        uint8_t *to = (uint8_t *)scratch->vt_row + (size_t)j * row;
        if (seen >> j & 1) {
            memcpy(to, leaf->v + j * leaf->v_row_bytes, row);
        } else {
            memset(to, 0, row);
        }
    }
    return (fvi_rows){.data = scratch->vt_row, .row_bytes = (int64_t)row, .n = leaf->n};
}

void fvi_products_values_apart(const fv_plan *plan, const fvi_leaf *leaf, const fvi_scratch *scratch, float *s, int64_t n,
                               const float *alpha, const uint64_t *seen, float *out) {
    for (int64_t r = 0; r < n; r++, s += FVI_LEAF, out += plan->d_pad) {
        if (scratch->value != NULL) {
            fvi_rows v = hide_rows(plan, leaf, scratch, seen[r]);
            scratch->value->pv(s, 1, alpha + r, &v, (int)plan->problem.d_v, (int)plan->d_pad, out);
        } else {
            hide_packed(plan, leaf, scratch, seen[r]);
            scratch->ops->pv(s, 1, alpha + r, scratch->vt_row, (int)plan->d_pad, out);
        }
    }
}
