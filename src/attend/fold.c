/* fold.c - running softmax states: emptying, merging left to right, and the end of a row. */
#include "attend/tile.h"

#include <math.h>
#include <string.h>

void fvi_fold_clear(const fv_plan *plan, fvi_fold *fold, int64_t rows) {
    for (int64_t r = 0; r < rows; r++) {
        fold->m[r] = -INFINITY;
        fold->sum[r] = 0;
    }
    memset(fold->out, 0, (size_t)(rows * plan->d_pad) * sizeof(float));
}

/* 2^(m - to), where an empty state (-inf) counts nothing. */
static float factor(float m, float to) { return m == -INFINITY ? 0.0f : m == to ? 1.0f : exp2f(m - to); }

void fvi_fold_merge(const fv_plan *plan, fvi_fold *total, const fvi_fold *piece, int64_t rows) {
    for (int64_t r = 0; r < rows; r++) {
        float m = fmaxf(total->m[r], piece->m[r]);
        float a = factor(total->m[r], m), b = factor(piece->m[r], m);
        if (piece->m[r] != -INFINITY || piece->sum[r] != 0) {
            total->m[r] = m;
            total->sum[r] = total->sum[r] * a + piece->sum[r] * b;
            plan->rowop.mix(plan->d_pad, total->out + r * plan->d_pad, a, piece->out + r * plan->d_pad, b);
        }
    }
}

/* One entry more; without a value (NULL) it takes part in the sum alone. */
static void add_entry(const fv_plan *plan, float logit, const float *value, float *m, float *sum, float *out) {
    float top = fmaxf(*m, logit);
    if (logit == -INFINITY) {
        return;
    }
    float a = factor(*m, top), w = factor(logit, top);
    *sum = *sum * a + w;
    *m = top;
    for (int64_t c = 0; c < plan->d_pad; c++) {
        out[c] *= a;
    }
    for (int64_t c = 0; value != NULL && c < plan->problem.d_v; c++) {
        out[c] += w * value[c];
    }
}

void fvi_tile_more(const fv_plan *plan, const fvi_item *item, const fvi_sieve *sieve, fvi_fold *fold) {
    for (int64_t r = 0; sieve->more != NULL && r < item->n_rows * plan->share; r++) {
        fvi_more more = sieve->more(sieve->arg, fvi_row_position(item, plan->share, r), fold->m[r]);
        add_entry(plan, more.log_weight, more.value, &fold->m[r], &fold->sum[r], fold->out + r * plan->d_pad);
    }
}

/* A row of output, normalised, to where it belongs. */
static void put_row(const fv_plan *plan, const fv_run *run, float *out, float sum, uint8_t *to) {
    int64_t d = plan->problem.d_v;
    bool turn = run->cache != NULL && run->cache->desc.rotate_v;
    bool in_place = run->out.dtype == FV_F32 && run->out.stride[3] == 1 && !turn;
    float *row = in_place ? (float *)to : out;
    fvi_ask_row(&run->out, to);
    if (sum == 0) {
        memset(row, 0, (size_t)d * sizeof *row);
    } else {
        plan->rowop.scale(d, out, 1 / sum, row);
    }
    if (turn) {
        plan->quant.rotate(out, (int)d);
    }
    if (!in_place) {
        fvi_store_row(run->out.dtype, out, d, to, run->out.stride[3]);
    }
}

void fvi_tile_finish(const fv_plan *plan, const fv_run *run, const fvi_item *item, fvi_fold *fold) {
    const fv_problem *p = &plan->problem;
    int64_t rows = item->n_rows * plan->share, batch = p->packed || item->compact ? 0 : item->sequence;
    int64_t n_rows_out = run->out.shape[2];
    for (int64_t r = 0; r < rows; r++) {
        float *out = fold->out + r * plan->d_pad;
        int64_t head = fvi_row_head(item, plan->share, r), i = item->q_start + fvi_item_query(item, plan->share, r);
        i = item->compact ? item->row0 + r / plan->share : i;
        if (p->has_sink_logits) {
            add_entry(plan, run->sink_logits[head] * (float)FVI_LOG2E, NULL, &fold->m[r], &fold->sum[r], out);
        }
        float sum = fold->sum[r];
        put_row(plan, run, out, sum, fvi_tensor_at(&run->out, batch, head, i));
        if (run->lse != NULL) {
            run->lse[(batch * p->h_q + head) * n_rows_out + i] =
                sum == 0 ? -INFINITY : (fold->m[r] + log2f(sum)) * (float)FVI_LN2;
        }
    }
}
