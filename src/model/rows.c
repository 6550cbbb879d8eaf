/* rows.c - blocks of 16 rows are the items of a loop: small enough for an even share, large enough to be worth a hand-out. */
#include "model/rows.h"
#include "base/threads.h"

enum { ROWS = 16 };

typedef struct span {
    int64_t from, n;
} span;

static span block(int64_t item, int64_t m) {
    int64_t from = item * ROWS;
    return (span){from, fvi_min(ROWS, m - from)};
}

typedef struct norm_job {
    const fvi_rowop_ops *ops;
    int64_t m, d;
    float *x;
    const float *add, *weight;
    float eps;
    float *out;
} norm_job;

static void norm_work(void *arg, int64_t item, int worker) {
    const norm_job *j = arg;
    (void)worker;
    span s = block(item, j->m);
    float *x = j->x + s.from * j->d, *out = j->out + s.from * j->d;
    if (j->add != NULL) {
        fvi_add_rmsnorm(j->ops, s.n, j->d, x, j->add + s.from * j->d, j->weight, j->eps, out);
    } else {
        fvi_rmsnorm(j->ops, s.n, j->d, x, j->weight, j->eps, out);
    }
}

void fvi_rows_norm(fv_context *ctx, const fvi_rowop_ops *ops, int64_t m, int64_t d, float *x, const float *add,
                   const float *weight, float eps, float *out) {
    norm_job job = {ops, m, d, x, add, weight, eps, out};
    fvi_parallel(ctx, fvi_ceil_div(m, ROWS), norm_work, &job);
}

typedef struct add_job {
    const fvi_rowop_ops *ops;
    int64_t m, d;
    float *x;
    const float *y;
} add_job;

static void add_work(void *arg, int64_t item, int worker) {
    const add_job *j = arg;
    (void)worker;
    span s = block(item, j->m);
    j->ops->add(s.n * j->d, j->x + s.from * j->d, j->y + s.from * j->d);
}

void fvi_rows_add(fv_context *ctx, const fvi_rowop_ops *ops, int64_t m, int64_t d, float *x, const float *y) {
    add_job job = {ops, m, d, x, y};
    fvi_parallel(ctx, fvi_ceil_div(m, ROWS), add_work, &job);
}

typedef struct swiglu_job {
    const fvi_rowop_ops *ops;
    int64_t m, d;
    float *gate;
    const float *up;
} swiglu_job;

static void swiglu_work(void *arg, int64_t item, int worker) {
    const swiglu_job *j = arg;
    (void)worker;
    span s = block(item, j->m);
    float *gate = j->gate + s.from * j->d;
    fvi_swiglu(j->ops, s.n, j->d, gate, j->up + s.from * j->d, gate);
}

void fvi_rows_swiglu(fv_context *ctx, const fvi_rowop_ops *ops, int64_t m, int64_t d, float *gate, const float *up) {
    swiglu_job job = {ops, m, d, gate, up};
    fvi_parallel(ctx, fvi_ceil_div(m, ROWS), swiglu_work, &job);
}

typedef struct rope_job {
    const fvi_rowop_ops *ops;
    const fvi_rows_rope_args *a;
    int64_t m;
} rope_job;

static void rope_work(void *arg, int64_t item, int worker) {
    const rope_job *j = arg;
    const fvi_rows_rope_args *a = j->a;
    (void)worker;
    span s = block(item, j->m);
    const float *cos_sin = a->cos_sin + s.from * a->rotated;
    fvi_rope(j->ops, s.n, a->h_q, a->d_k, a->rotated, a->interleaved, cos_sin, a->q + s.from * a->h_q * a->d_k);
    fvi_rope(j->ops, s.n, a->h_kv, a->d_k, a->rotated, a->interleaved, cos_sin, a->k + s.from * a->h_kv * a->d_k);
}

void fvi_rows_rope(fv_context *ctx, const fvi_rowop_ops *ops, int64_t m, const fvi_rows_rope_args *args) {
    rope_job job = {ops, args, m};
    fvi_parallel(ctx, fvi_ceil_div(m, ROWS), rope_work, &job);
}
