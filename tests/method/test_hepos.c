/* test_hepos.c - head-wise strides over a source of another length than the queries, never in a causal prompt. */
#include "npy_golden.h"
#include "pattern_test.h"

/* n_q queries over n keys: what the run weighs, by this test's own sum. */
static void cross_holds(fv_context *ctx, int64_t stride, int64_t n_q, int64_t n, int64_t h_kv) {
    char recipe[80];
    snprintf(recipe, sizeof recipe, "prefill=hepos:stride=%d:fallback=0", (int)stride);
    heads x = heads_make((uint64_t)(n + n_q), 4, h_kv, n_q > n ? n_q : n, 32);
    prepared p = prepare(ctx, recipe, &x, n_q, false);
    fv_run run = part_run(&x, 0, n_q, n);
    fv_run_stats stats = {0};
    float *lse = malloc((size_t)(4 * n_q) * sizeof *lse);
    run.lse = lse;
    run.stats = &stats;
    fv_status status = fv_plan_run(p.plan, &run, p.workspace, p.bytes);
    CHECK(status == FV_OK, "%s: %s", recipe, fv_message(ctx));
    prepared_free(&p);
    uint64_t pairs = 0;
    double worst = 0;
    for (int64_t row = 0; row < 4 * n_q; row++) {
        int64_t head = row / n_q, kv = head / (4 / h_kv), i = row % n_q;
        double sum = 0, out[32] = {0};
        for (int64_t j = 0; j < n; j++) {
            double score = 0;
            for (int c = 0; c < 32 && j % stride == head % stride; c++) {
                score += (double)x.q[(head * x.n + i) * 32 + c] * x.k[(kv * x.n + j) * 32 + c] / sqrt(32.0);
            }
            double w = j % stride == head % stride ? exp(score) : 0;
            pairs += j % stride == head % stride;
            sum += w;
            for (int c = 0; c < 32; c++) {
                out[c] += w * x.v[(kv * x.n + j) * 32 + c];
            }
        }
        worst = sum > 0 ? fmax(worst, fabs(log(sum) - lse[row])) : worst;
        CHECK(sum > 0 || lse[row] == -INFINITY, "%s: a row without keys has a log-sum-exp", recipe);
        for (int c = 0; c < 32; c++) {
            worst = fmax(worst, fabs((sum > 0 ? out[c] / sum : 0) - x.out[(head * x.n + i) * 32 + c]));
        }
    }
    CHECK(pairs == stats.exact_pairs, "%s, %lld x %lld: weighed %llu pairs, the formula has %llu", recipe, (long long)n_q,
          (long long)n, (unsigned long long)stats.exact_pairs, (unsigned long long)pairs);
    CHECK(worst < 2e-5, "%s, %lld x %lld: off by %g", recipe, (long long)n_q, (long long)n, worst);
    free(lse);
    heads_free(&x);
}

static void refused(fv_context *ctx, const char *recipe, bool causal) {
    fv_recipe *r = NULL;
    fv_plan *plan = NULL;
    fv_problem problem = fv_problem_default();
    problem.h_q = problem.h_kv = 6;
    problem.n_q = problem.n_kv = problem.d_k = problem.d_v = 32;
    problem.causal = causal;
    CHECK(fv_recipe_parse(ctx, recipe, &r) == FV_OK, "%s", fv_message(ctx));
    problem.recipe = r;
    CHECK(fv_plan_create(ctx, &problem, &plan) == FV_ERR_UNSUPPORTED, "%s with 6 heads, causal %d, goes through", recipe, causal);
    fv_recipe_destroy(r);
}

static bool hepos_sees(const void *arg, const where *w, int64_t i, int64_t j) {
    (void)i;
    int64_t stride = *(const int64_t *)arg;
    return (j - w->head) % stride == 0;
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    static const int64_t stride[] = {1, 2, 4}, size[][2] = {{1, 1}, {3, 63}, {65, 200}, {200, 65}, {70, 700}, {64, 2}};
    for (int a = 0; a < 3; a++) {
        for (int b = 0; b < 6; b++) {
            cross_holds(ctx, stride[a], size[b][0], size[b][1], 2);
            cross_holds(ctx, stride[a], size[b][0], size[b][1], 4);
        }
        heads x = heads_make(1, 8, 2, 200, 64);
        char recipe[80];
        snprintf(recipe, sizeof recipe, "prefill=hepos:stride=%d:fallback=0", (int)stride[a]);
        selection s = select_all(ctx, recipe, &x, false);
        pattern_equals(recipe, &s, (where){8, 2, 0, 0, 200, false}, hepos_sees, &stride[a]);
        free(s.at);
        heads_free(&x);
    }
    refused(ctx, "prefill=hepos:stride=3", true);
    refused(ctx, "prefill=hepos:stride=4", false);
    heads x = heads_make(1, 8, 8, 202, 32);
    selection s = select_all(ctx, "prefill=hepos:stride=4:fallback=0", &x, false);
    golden_bits_hold("select/hepos/stride-4", "prefill=hepos:stride=4:fallback=0", s.at, s.h * s.n * s.n);
    free(s.at);
    heads_free(&x);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
