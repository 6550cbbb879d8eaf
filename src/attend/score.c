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

static void bias(const fvi_score_tile *t) {
    const fv_tensor *b = &t->run->bias;
    for (int64_t r = 0; r < t->n; r++) {
        int64_t i = fvi_item_query(t->item, t->plan->share, t->first + r);
        const float *x =
            (const float *)fvi_tensor_at(b, t->item->sequence, fvi_row_head(t->item, t->plan->share, t->first + r), i);
        float *s = t->s + r * FVI_LEAF;
        for (int j = 0; j < t->leaf->n; j++) {
            float value = x[(t->leaf->key != NULL ? t->leaf->key[j] : t->leaf_key + j) * b->stride[3]];
            s[j] += value * (float)FVI_LOG2E;
            if (value == -INFINITY) {
                t->seen[r] &= ~(UINT64_C(1) << j);
            }
        }
    }
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
