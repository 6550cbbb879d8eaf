/* turn.c - see turn.h. */
#include "attend/turn.h"

#include "attend/products.h"

#include <math.h>
#include <string.h>

enum { NEAR = 256, FAR_MOST = 4096, D_MOST = 256 }; /* positions past FAR_MOST * NEAR take their sines one by one */

/* ---- the table ---- */

static void fill_angles(const double *frequency, int64_t pairs, double position, float *cos_sin) {
    for (int64_t j = 0; j < pairs; j++) {
        cos_sin[2 * j] = (float)cos(position * frequency[j]);
        cos_sin[2 * j + 1] = (float)sin(position * frequency[j]);
    }
}

fv_status fvi_turns_create(fv_plan *plan) {
    const fv_rope *rope = &plan->problem.rope;
    fvi_turns *t = &plan->turns;
    plan->places = plan->choice.selector->places && rope->width > 0;
    if (!plan->places) {
        return FV_OK;
    }
    const int64_t far = fvi_min(fvi_ceil_div(plan->problem.n_kv, NEAR) + 1, FAR_MOST), width = rope->width;
    t->width = width;
    t->interleaved = rope->interleaved;
    t->n_far = far;
    t->frequency = fvi_alloc(plan->ctx, (size_t)(width / 2), sizeof *t->frequency);
    t->near = fvi_alloc(plan->ctx, (size_t)(NEAR * width), sizeof *t->near);
    t->far = fvi_alloc(plan->ctx, (size_t)(far * width), sizeof *t->far);
    if (t->frequency == NULL || t->near == NULL || t->far == NULL) {
        return fvi_fail(plan->ctx, FV_ERR_MEMORY, "no memory for a table of %lld angles", (long long)((NEAR + far) * width));
    }
    memcpy(t->frequency, rope->frequency, (size_t)(width / 2) * sizeof *t->frequency);
    for (int64_t i = 0; i < NEAR; i++) {
        fill_angles(t->frequency, width / 2, (double)i, t->near + i * width);
    }
    for (int64_t i = 0; i < far; i++) {
        fill_angles(t->frequency, width / 2, (double)(i * NEAR), t->far + i * width);
    }
    plan->problem.rope.frequency = t->frequency; /* the caller's may be gone by the run */
    return FV_OK;
}

void fvi_turns_release(fv_plan *plan) {
    fvi_turns *t = &plan->turns;
    fvi_release(plan->ctx, t->frequency, (size_t)(t->width / 2), sizeof *t->frequency);
    fvi_release(plan->ctx, t->near, (size_t)(NEAR * t->width), sizeof *t->near);
    fvi_release(plan->ctx, t->far, (size_t)(t->n_far * t->width), sizeof *t->far);
}

static void angles(const fvi_turns *t, int64_t by, float *cos_sin) {
    const int64_t size = by < 0 ? -by : by;
    if (size / NEAR >= t->n_far) {
        fill_angles(t->frequency, t->width / 2, (double)by, cos_sin);
        return;
    }
    const float *a = t->near + size % NEAR * t->width, *b = t->far + size / NEAR * t->width, sign = by < 0 ? -1 : 1;
    for (int64_t j = 0; j < t->width; j += 2) {
        cos_sin[j] = a[j] * b[j] - a[j + 1] * b[j + 1];
        cos_sin[j + 1] = sign * (a[j + 1] * b[j] + a[j] * b[j + 1]);
    }
}

void fvi_turn_row(const fv_plan *plan, int64_t by, float *row) {
    const fvi_turns *t = &plan->turns;
    float cos_sin[D_MOST];
    if (by == 0) {
        return;
    }
    angles(t, by, cos_sin);
    if (t->interleaved) {
        plan->rowop.turn_pairs(t->width, cos_sin, row);
    } else {
        plan->rowop.turn_halves(t->width, cos_sin, row);
    }
}

/* ---- queries ---- */

void fvi_turn_remember(const fv_plan *plan, const fvi_scratch *scratch, int64_t row, int64_t position) {
    const int64_t d = plan->problem.d_k;
    memcpy(scratch->plain + row * d, scratch->q_row, (size_t)d * sizeof(float));
    scratch->place[row] = position;
}

/* Packs row `row`, whose query stands at `position`, as it is at `place`. */
static void turn_query(const fv_plan *plan, const fvi_scratch *scratch, int64_t row, int64_t position, int64_t place) {
    const int64_t d = plan->problem.d_k;
    if (scratch->place[row] == place) {
        return;
    }
    memcpy(scratch->q_row, scratch->plain + row * d, (size_t)d * sizeof(float));
    fvi_turn_row(plan, place - position, scratch->q_row);
    fvi_products_pack_query(plan, scratch, row);
    scratch->place[row] = place;
}

/* ---- keys ---- */

/* Packs the leaf's keys, turned on by[j] (NULL: as they are). */
static void pack(const fv_plan *plan, const fvi_leaf *leaf, const int64_t *by, const fvi_scratch *scratch, void *kt) {
    const int64_t d = plan->problem.d_k;
    const fv_dtype dtype = scratch->ops->half ? FV_BF16 : FV_F32;
    const int64_t bytes = (int64_t)fv_dtype_bytes(dtype, d);
    float row[D_MOST];
    for (int j = 0; j < leaf->n; j++) {
        fvi_load_row(leaf->k_dtype, leaf->k + j * leaf->k_row_bytes, 1, d, row);
        if (by != NULL) {
            fvi_turn_row(plan, by[j], row);
        }
        fvi_store_row(dtype, row, d, (uint8_t *)scratch->turned + j * bytes, 1);
    }
    scratch->ops->pack_k[dtype](scratch->turned, bytes, leaf->n, (int)d, kt);
}

void fvi_turn_plain_keys(const fv_plan *plan, fvi_leaf *leaf, const fvi_scratch *scratch) {
    const int64_t d = plan->problem.d_k;
    for (int j = 0; j < leaf->n; j++) {
        float *row = scratch->leaf + j * d;
        fvi_load_row(leaf->k_dtype, leaf->k + j * leaf->k_row_bytes, 1, d, row);
        plan->quant.rotate(row, (int)d); /* its own inverse */
    }
    leaf->k = (const uint8_t *)scratch->leaf;
    leaf->k_dtype = FV_F32;
    leaf->k_row_bytes = d * (int64_t)sizeof(float);
    pack(plan, leaf, NULL, scratch, leaf->kt);
}

/* Keys of an open leaf, as rows of a set find them. */
typedef struct found {
    int64_t at[FVI_LEAF]; /* where they stand */
    float part[FVI_LEAF];
    bool between; /* some part is not 0 */
} found;

/* Looks where the set has the leaf's keys, and packs them so if they are not yet. */
static void find_keys(const fv_plan *plan, const fvi_places *places, int64_t set, fvi_leaf *leaf, const fvi_scratch *scratch,
                      found *f) {
    int64_t high[FVI_LEAF], low[FVI_LEAF];
    f->between = false;
    if (set != 0) {
        for (int j = 0; j < leaf->n; j++) {
            f->at[j] = fvi_key_position(leaf, j);
        }
        places->keys(places, set, f->at, leaf->n, high, low, f->part);
        for (int j = 0; j < leaf->n; j++) {
            f->between = f->between || f->part[j] != 0;
            high[j] -= f->at[j];
            low[j] -= f->at[j];
        }
    }
    if (leaf->set != set) {
        pack(plan, leaf, set != 0 ? high : NULL, scratch, leaf->kt);
        if (f->between) {
            pack(plan, leaf, low, scratch, scratch->kt_low);
        }
        leaf->set = set;
    }
}

/* Scores of the item's rows first .. first + n - 1, which find keys alike, with an open leaf. */
static void score_alike(const fv_plan *plan, const fv_run *run, const fvi_item *item, const fvi_places *places, int64_t set,
                        fvi_leaf *leaf, const fvi_scratch *scratch, int64_t first, int64_t n, float *s) {
    found f;
    find_keys(plan, places, set, leaf, scratch, &f);
    fvi_products_scores(plan, leaf, scratch, first, n, s);
    if (!f.between) {
        return;
    }
    fvi_leaf low = *leaf;
    low.kt = scratch->kt_low;
    fvi_products_scores(plan, &low, scratch, first, n, scratch->s_low);
    for (int64_t r = 0; r < n; r++, s += FVI_LEAF) {
        const float *below = scratch->s_low + r * FVI_LEAF;
        for (int j = 0; j < leaf->n; j++) {
            s[j] += (below[j] - s[j]) * f.part[j];
        }
        if (places->add != NULL) {
            const fvi_place row = {run->layer, fvi_row_head(item, plan->share, first + r),
                                   fvi_row_position(item, plan->share, first + r)};
            places->add(places, set, &row, leaf->n, f.at, f.part, s);
        }
    }
}

void fvi_turn_scores(const fv_plan *plan, const fv_run *run, const fvi_item *item, const fvi_places *places, int64_t block,
                     fvi_leaf *leaf, const fvi_scratch *scratch, int64_t first, int64_t n, float *s) {
    int64_t from = first, set = -1;
    for (int64_t r = first; r < first + n; r++) {
        const int64_t position = fvi_row_position(item, plan->share, r);
        int64_t next = set, place = places->query(places, position, block, &next);
        if (place == FVI_NOWHERE) { /* whatever comes out is hidden */
            continue;
        }
        turn_query(plan, scratch, r, position, place);
        if (set >= 0 && next != set) {
            score_alike(plan, run, item, places, set, leaf, scratch, from, r - from, s + (from - first) * FVI_LEAF);
            from = r;
        }
        set = next;
    }
    score_alike(plan, run, item, places, fvi_max(set, 0), leaf, scratch, from, first + n - from, s + (from - first) * FVI_LEAF);
}
