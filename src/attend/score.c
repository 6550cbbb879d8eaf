/* score.c - the score parts: soft cap, ALiBi, additive bias; and hiding.
 *
 * ALiBi: Press, Smith, Lewis: Train Short, Test Long, ICLR 2022. Soft cap: Gemma 2 technical report, 2024. */
#include "attend/score.h"

#include <math.h>

static void soft_cap(const fvi_score_tile *t) {
    float cap = t->plan->problem.soft_cap * (float)FVI_LOG2E;
    for (int64_t i = 0; i < t->n * FVI_LEAF; i++) {
        t->s[i] = cap * tanhf(t->s[i] / cap);
    }
}

static void alibi(const fvi_score_tile *t) {
    for (int64_t r = 0; r < t->n; r++) {
        int64_t position = fvi_row_position(t->item, t->plan->share, t->first + r);
        float slope = t->run->alibi_slopes[fvi_row_head(t->item, t->plan->share, t->first + r)] * (float)FVI_LOG2E;
        float *s = t->s + r * FVI_LEAF;
        for (int j = 0; j < t->leaf->n; j++) {
            int64_t distance = position - fvi_key_position(t->leaf, j);
            s[j] -= slope * (float)(distance < 0 ? -distance : distance);
        }
    }
}

static const float *bias_row(const fv_plan *plan, const fv_run *run, const fvi_item *item, int64_t row) {
    return (const float *)fvi_tensor_at(&run->bias, item->sequence, fvi_row_head(item, plan->share, row),
                                        fvi_item_query(item, plan->share, row));
}

/* Bits of the n keys from x on that are not -inf. Mostly all or none are, which a sweep without branches finds out. */
static uint64_t shown_bits(const float *x, int64_t stride, int n) {
    uint64_t bits = 0;
    if (stride == 1 && n == FVI_LEAF) {
        int hidden = 0;
        for (int j = 0; j < FVI_LEAF; j++) {
            hidden += x[j] == -INFINITY;
        }
        if (hidden == 0 || hidden == FVI_LEAF) {
            return hidden == 0 ? UINT64_MAX : 0;
        }
    }
    for (int j = 0; j < n; j++) {
        bits |= (uint64_t)(x[j * stride] != -INFINITY) << j;
    }
    return bits;
}

static void add_row(const float *x, int64_t stride, int n, float *s) {
    if (stride == 1 && n == FVI_LEAF) {
        for (int j = 0; j < FVI_LEAF; j++) {
            s[j] += x[j] * (float)FVI_LOG2E;
        }
        return;
    }
    for (int j = 0; j < n; j++) {
        s[j] += x[j * stride] * (float)FVI_LOG2E;
    }
}

/* A row's bias of a leaf's keys: where it lies, or, of columns, put side by side in `room`. */
static const float *bias_of(const fvi_score_tile *t, const float *row, int64_t *stride, float room[FVI_LEAF]) {
    if (t->leaf->key == NULL) {
        return row + t->leaf_key * *stride;
    }
    for (int j = 0; j < t->leaf->n; j++) {
        room[j] = row[t->leaf->key[j] * *stride];
    }
    *stride = 1;
    return room;
}

static void bias(const fvi_score_tile *t) {
    float room[FVI_LEAF];
    const float *last = NULL, *x = NULL;
    uint64_t shown = 0;
    int64_t stride = 1;
    if (t->leaf->entries) { /* a bias is of keys */
        return;
    }
    for (int64_t r = 0; r < t->n; r++) {
        const float *row = bias_row(t->plan, t->run, t->item, t->first + r);
        if (row != last) { /* one bias for all heads */
            last = row;
            stride = t->run->bias.stride[3];
            x = bias_of(t, row, &stride, room);
            shown = shown_bits(x, stride, t->leaf->n);
        }
        add_row(x, stride, t->leaf->n, t->s + r * FVI_LEAF);
        t->seen[r] &= shown;
    }
}

bool fvi_score_hides_leaf(const fv_plan *plan, const fv_run *run, const fvi_item *item, int64_t leaf_key, int n) {
    if (!plan->problem.has_bias) {
        return false;
    }
    int64_t step = run->bias.stride[1] == 0 ? plan->share : 1, stride = run->bias.stride[3];
    for (int64_t r = 0; r < item->n_rows * plan->share; r += step) {
        if (shown_bits(bias_row(plan, run, item, r) + leaf_key * stride, stride, n) != 0) {
            return false;
        }
    }
    return true;
}

void fvi_score_parts(const fvi_score_tile *tile) {
    const fv_problem *p = &tile->plan->problem;
    if (p->soft_cap > 0) {
        soft_cap(tile);
    }
    if (p->has_alibi) {
        alibi(tile);
    }
    if (p->has_bias) {
        bias(tile);
    }
}

void fvi_score_hide(const fvi_score_tile *tile) { tile->plan->rowop.hide(tile->n, tile->seen, tile->s); }
