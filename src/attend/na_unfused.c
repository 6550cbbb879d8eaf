/* na_unfused.c - neighborhood attention in three stages over memory: all scores written out, their softmax, then the mixes.
 *
 * Hassani et al.: Faster Neighborhood Attention, NeurIPS 2024, section 3.1: the unfused form, one product for scores (a row of
 * `window` numbers a query), a softmax, one product for values. The paper's batched products work on tiles; here a query's row
 * is a loop over its keys. It is what the fused form is compared with: memory grows with window x tokens, and K and V are read
 * again for each query. */
#include "attend/source.h"
#include "base/threads.h"
#include "fovea/experimental.h"
#include "select/neighborhood.h"

#include <math.h>
#include <string.h>

enum { ROWS = 64, WIDTH = 256 }; /* queries of a work item; the largest width */

typedef struct unfused {
    fvi_na na;
    const fv_tensor *q, *k, *v, *out;
    int64_t n, h_q, group, keys; /* keys: the most that a query sees */
    float scale;
    float *score; /* (h_q, n, keys) */
} unfused;

/* Calls of a row's keys in ascending order. */
typedef struct key_walk {
    fvi_na_reach at[FVI_NA_AXES];
    int64_t x[FVI_NA_AXES];
    bool more;
} key_walk;

static key_walk keys_of(const fvi_na *na, int64_t token) {
    key_walk w = {.more = true};
    for (int k = FVI_NA_AXES - 1; k >= 0; k--) {
        w.at[k] = fvi_na_sees(&na->axis[k], token % na->axis[k].size);
        w.x[k] = w.at[k].first;
        token /= na->axis[k].size;
    }
    return w;
}

static int64_t next_key(const fvi_na *na, key_walk *w) {
    int64_t key = (w->x[0] * na->axis[1].size + w->x[1]) * na->axis[2].size + w->x[2];
    int k = FVI_NA_AXES - 1;
    while (k >= 0 && (w->x[k] += na->axis[k].dilation) > w->at[k].last) {
        w->x[k] = w->at[k].first;
        k--;
    }
    w->more = k >= 0;
    return key;
}

static void load(const fv_tensor *t, int64_t head, int64_t row, float *out) {
    fvi_load_row(t->dtype, fvi_tensor_at(t, 0, head, row), t->stride[3], t->shape[3], out);
}

/* Work item i is of head i / blocks, queries first .. end - 1. */
static int64_t item_of(const unfused *u, int64_t i, int64_t *first, int64_t *end) {
    int64_t blocks = fvi_ceil_div(u->n, ROWS);
    *first = i % blocks * ROWS;
    *end = fvi_min(*first + ROWS, u->n);
    return i / blocks;
}

static void score_rows(void *arg, int64_t i, int worker) {
    const unfused *u = arg;
    float q[WIDTH], k[WIDTH];
    int64_t first, end, head = item_of(u, i, &first, &end);
    (void)worker;
    for (int64_t r = first; r < end; r++) {
        float *s = u->score + (head * u->n + r) * u->keys;
        load(u->q, head, r, q);
        int64_t n = 0;
        for (key_walk w = keys_of(&u->na, r); w.more; n++) {
            load(u->k, head / u->group, next_key(&u->na, &w), k);
            float sum = 0;
            for (int64_t c = 0; c < u->q->shape[3]; c++) {
                sum += q[c] * k[c];
            }
            s[n] = sum * u->scale;
        }
        for (; n < u->keys; n++) {
            s[n] = -INFINITY;
        }
    }
}

static void weigh_rows(void *arg, int64_t i, int worker) {
    const unfused *u = arg;
    int64_t first, end, head = item_of(u, i, &first, &end);
    (void)worker;
    for (int64_t r = first; r < end; r++) {
        float *s = u->score + (head * u->n + r) * u->keys, top = -INFINITY, sum = 0;
        for (int64_t j = 0; j < u->keys; j++) {
            top = fmaxf(top, s[j]);
        }
        for (int64_t j = 0; j < u->keys; j++) {
            s[j] = expf(s[j] - top);
            sum += s[j];
        }
        for (int64_t j = 0; j < u->keys; j++) {
            s[j] /= sum;
        }
    }
}

static void mix_rows(void *arg, int64_t i, int worker) {
    const unfused *u = arg;
    float v[WIDTH], mix[WIDTH];
    int64_t first, end, head = item_of(u, i, &first, &end), d = u->v->shape[3];
    (void)worker;
    for (int64_t r = first; r < end; r++) {
        const float *s = u->score + (head * u->n + r) * u->keys;
        memset(mix, 0, sizeof mix);
        for (key_walk w = keys_of(&u->na, r); w.more; s++) {
            load(u->v, head / u->group, next_key(&u->na, &w), v);
            for (int64_t c = 0; c < d; c++) {
                mix[c] += *s * v[c];
            }
        }
        fvi_store_row(u->out->dtype, mix, d, fvi_tensor_at(u->out, 0, head, r), u->out->stride[3]);
    }
}

static bool is_of(const fv_tensor *t, int64_t h, int64_t n, int64_t d) {
    return t->rank == 4 && t->shape[0] == 1 && t->shape[1] == h && t->shape[2] == n && t->shape[3] == d && t->dtype >= FV_F32 &&
           t->dtype <= FV_BF16;
}

static fv_status check(fv_context *ctx, const unfused *u) {
    int64_t h_kv = u->k->shape[1], d_k = u->q->shape[3], d_v = u->v->shape[3];
    bool widths = d_k >= 1 && d_k <= WIDTH && d_v >= 1 && d_v <= WIDTH && u->h_q >= 1 && h_kv >= 1 && u->h_q % h_kv == 0;
    if (!widths || !is_of(u->q, u->h_q, u->n, d_k) || !is_of(u->k, h_kv, u->n, d_k) || !is_of(u->v, h_kv, u->n, d_v) ||
        !is_of(u->out, u->h_q, u->n, d_v)) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "fv_na_unfused: q, k, v and out must be (1, heads, %lld, width) of f32, f16 or bf16, with widths of 1 to "
                        "256 and a multiple of k's heads for q and out",
                        (long long)u->n);
    }
    return FV_OK;
}

fv_status fv_na_unfused(fv_context *ctx, const fv_gna *problem, const fv_tensor *q, const fv_tensor *k, const fv_tensor *v,
                        float scale, const fv_tensor *out) {
    unfused u = {.q = q, .k = k, .v = v, .out = out, .h_q = q->shape[1], .scale = scale, .keys = 1};
    fv_status status = fvi_na_of_gna(ctx, problem, &u.na, &u.n);
    status = status == FV_OK ? check(ctx, &u) : status;
    if (status != FV_OK) {
        return status;
    }
    u.group = u.h_q / k->shape[1];
    u.scale = scale != 0 ? scale : 1 / sqrtf((float)q->shape[3]);
    for (int a = 0; a < FVI_NA_AXES; a++) {
        u.keys *= u.na.axis[a].window;
    }
    size_t row = (size_t)u.keys * sizeof(float), rows = (size_t)(u.h_q * u.n);
    u.score = fvi_alloc(ctx, rows, row);
    if (u.score == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "fv_na_unfused: no memory for %zu rows of %lld scores", rows, (long long)u.keys);
    }
    int64_t items = u.h_q * fvi_ceil_div(u.n, ROWS);
    fvi_parallel(ctx, items, score_rows, &u);
    fvi_parallel(ctx, items, weigh_rows, &u);
    fvi_parallel(ctx, items, mix_rows, &u);
    fvi_release(ctx, u.score, rows, row);
    return fvi_cancelled(ctx) ? fvi_fail(ctx, FV_ERR_CANCELLED, "cancelled") : FV_OK;
}
