/* test_delta.c - Delta Attention's correction: rows of another method plus what every gamma-th of them lost, by a reference that
 * runs dense and sparse attention apart; and the audit, which runs a head densely where it lost too much. */
#include "index_test.h"

enum { TAIL = 128 };

static float *copy_out(const heads *x) {
    size_t bytes = (size_t)(x->h_q * x->n * x->d) * sizeof(float);
    float *copy = malloc(bytes);
    memcpy(copy, x->out, bytes);
    return copy;
}

/* What row i of a head must be: dense in the tail and at anchors, else sparse + dense - sparse of the anchor before. */
static double expected(const heads *x, const float *dense, const float *sparse, int64_t gamma, int64_t head, int64_t i,
                       int64_t c) {
    int64_t anchor = i - i % gamma, at = (head * x->n + i) * x->d + c, from = (head * x->n + anchor) * x->d + c;
    if (i >= x->n - (x->n % gamma + TAIL)) {
        return dense[at];
    }
    return (double)sparse[at] + dense[from] - sparse[from];
}

static void holds(fv_context *ctx, const char *inner, int64_t gamma, int64_t n) {
    heads x = heads_make((uint64_t)(n + gamma), 4, 2, n, 32);
    char sparse_text[128], text[160];
    snprintf(sparse_text, sizeof sparse_text, "prefill=%s", inner);
    snprintf(text, sizeof text, "prefill=delta(%s):gamma=%d", inner, (int)gamma);
    heads_run(ctx, "", &x);
    float *dense = copy_out(&x);
    heads_run(ctx, sparse_text, &x);
    float *sparse = copy_out(&x);
    fv_run_stats stats = heads_run(ctx, text, &x);
    double worst = 0;
    for (int64_t i = 0; i < 4 * n * 32; i++) {
        int64_t c = i % 32, row = i / 32 % n, head = i / 32 / n;
        worst = fmax(worst, fabs(x.out[i] - expected(&x, dense, sparse, gamma, head, row, c)));
    }
    CHECK(worst < 1e-5, "%s, n %lld: off by %g", text, (long long)n, worst);
    CHECK(stats.visited_pairs <= 2 * stats.eligible_pairs, "%s: visited pairs", text);
    free(dense);
    free(sparse);
    heads_free(&x);
}

/* Keys that follow a slow drift, so that neighbouring rows lose alike, as the paper finds them to. */
static void drift(heads *x) {
    for (int64_t i = 0; i < x->h_q * x->n; i++) {
        for (int64_t c = 0; c < x->d; c++) {
            x->q[i * x->d + c] = 0.1f * x->q[i * x->d + c] + (c % 7 == i / x->n % 7 ? 2.0f : 0);
        }
    }
}

static double error_of(fv_context *ctx, const char *recipe, heads *x, const float *dense) {
    double error = 0, size = 0;
    heads_run(ctx, recipe, x);
    for (int64_t i = 0; i < x->h_q * x->n * x->d; i++) {
        error += ((double)x->out[i] - dense[i]) * ((double)x->out[i] - dense[i]);
        size += (double)dense[i] * dense[i];
    }
    return sqrt(error / size);
}

static void corrects(fv_context *ctx) {
    heads x = heads_make(11, 4, 2, 1200, 32);
    drift(&x);
    heads_run(ctx, "", &x);
    float *dense = copy_out(&x);
    double before = error_of(ctx, "prefill=sinks:sinks=4:size=64", &x, dense);
    double far = error_of(ctx, "prefill=delta(sinks:sinks=4:size=64):gamma=16", &x, dense);
    double near = error_of(ctx, "prefill=delta(sinks:sinks=4:size=64):gamma=4", &x, dense);
    CHECK(far < before && near < far, "error %g, corrected every 16 rows %g, every 4 %g", before, far, near);
    CHECK(error_of(ctx, "prefill=delta(dense):gamma=64", &x, dense) < 1e-6, "a correction of dense changes it");
    free(dense);
    heads_free(&x);
}

static fv_run_stats audit(fv_context *ctx, heads *x, const char *recipe, float most) {
    fv_recipe *r = NULL;
    CHECK(fv_recipe_parse(ctx, recipe, &r) == FV_OK, "%s: %s", recipe, fv_message(ctx));
    fv_problem p = fv_problem_default();
    p.h_q = x->h_q;
    p.h_kv = x->h_kv;
    p.n_q = p.n_kv = x->n;
    p.d_k = p.d_v = x->d;
    p.causal = true;
    p.recipe = r;
    p.max_error = most;
    fv_plan *plan = NULL;
    CHECK(fv_plan_create(ctx, &p, &plan) == FV_OK, "%s: %s", recipe, fv_message(ctx));
    size_t bytes = fv_plan_workspace(plan);
    void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
    fv_run run = part_run(x, 0, x->n, x->n);
    fv_run_stats stats = {0};
    run.lse = x->lse;
    run.stats = &stats;
    CHECK(fv_plan_run(plan, &run, workspace, bytes) == FV_OK, "%s: %s", recipe, fv_message(ctx));
    free(workspace);
    fv_plan_destroy(plan);
    fv_recipe_destroy(r);
    return stats;
}

/* Head 1 attends far back from row `far` on, all other rows near by: only it must be run densely. */
static void audits(fv_context *ctx, const char *recipe, int64_t far) {
    heads x = heads_make(21, 4, 4, 900, 32);
    for (int64_t head = 0; head < 4; head++) {
        for (int64_t i = 0; i < x.n; i++) {
            float *q = x.q + (head * x.n + i) * x.d, *k = x.k + (head * x.n + i) * x.d;
            for (int64_t c = 0; c < x.d; c++) {
                q[c] = 0.01f * q[c] + (c == 0 ? (head == 1 && i >= far ? -40.0f : 40.0f) : 0);
                k[c] = 0.01f * k[c] + (c == 0 ? 0.01f * (float)i : 0);
            }
        }
    }
    heads_run(ctx, "", &x);
    float *dense = copy_out(&x);
    heads_run(ctx, recipe, &x);
    float *sparse = copy_out(&x);
    fv_run_stats stats = audit(ctx, &x, recipe, 0.05f);
    CHECK(stats.audited_heads == 4 && stats.dense_heads == 1 && stats.worst_error > 0.05,
          "%s: %llu of %llu heads dense, worst %g", recipe, (unsigned long long)stats.dense_heads,
          (unsigned long long)stats.audited_heads, stats.worst_error);
    size_t bytes = (size_t)(x.n * x.d) * sizeof(float);
    for (int64_t head = 0; head < 4; head++) {
        const float *want = head == 1 ? dense : sparse;
        CHECK(memcmp(x.out + head * x.n * x.d, want + head * x.n * x.d, bytes) == 0, "%s: head %lld is not what it should be",
              recipe, (long long)head);
    }
    stats = audit(ctx, &x, recipe, 1e9f);
    CHECK(stats.dense_heads == 0 && memcmp(x.out, sparse, 4 * bytes) == 0, "%s: an audit that all pass changes something",
          recipe);
    free(dense);
    free(sparse);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    static const int64_t length[] = {1, 63, 129, 200, 700};
    for (int i = 0; i < 5; i++) {
        holds(ctx, "window:size=40", 64, length[i]);
        holds(ctx, "window:size=40", 7, length[i]);
        holds(ctx, "dilated:size=20:dilation=3:fallback=0", 64, length[i]);
    }
    corrects(ctx);
    for (int64_t far = 0; far <= 836; far += 836) { /* all rows, or only the last 64 */
        audits(ctx, "prefill=window:size=64", far);
        audits(ctx, "prefill=dilated:size=64:dilation=1:fallback=0", far);
    }
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
