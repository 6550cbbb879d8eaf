/* test_alike.c - the toy selects what its description says, by a function of the test's own; see docs/adding-a-method.md. */
#include "../index_test.h"

typedef struct mean_key {
    double at[64];
} mean_key;

static mean_key mean_of(const heads *x, int64_t kv, int64_t b) {
    mean_key mean = {{0}};
    const int64_t n = x->n - 64 * b < 64 ? x->n - 64 * b : 64;
    for (int64_t i = 0; i < n * x->d; i++) {
        mean.at[i % x->d] += (double)x->k[(kv * x->n + 64 * b) * x->d + i] / (double)n;
    }
    return mean;
}

static double likeness(const heads *x, int64_t kv, int64_t a, int64_t b) {
    const mean_key p = mean_of(x, kv, a), q = mean_of(x, kv, b);
    double sum = 0;
    for (int64_t c = 0; c < x->d; c++) {
        sum += p.at[c] * q.at[c];
    }
    return sum;
}

static void set_holds(fv_context *ctx, int64_t h_q, int64_t h_kv, int64_t n, double least) {
    char recipe[64];
    snprintf(recipe, sizeof recipe, "prefill=alike:least=%g", least);
    heads x = heads_make(7, h_q, h_kv, n, 32);
    selection s = select_all(ctx, recipe, &x, true);
    int64_t wrong = 0;
    for (int64_t h = 0; h < h_q; h++) {
        for (int64_t own = 0; own * 64 < n; own++) {
            for (int64_t b = 0; b * 64 < n; b++) {
                const bool right = b == own || (b < own && likeness(&x, h / (h_q / h_kv), own, b) >= least);
                for (int64_t i = own * 64; i < n && i < own * 64 + 64; i++) {
                    for (int64_t j = b * 64; j < n && j < b * 64 + 64; j++) {
                        wrong += s.at[(h * n + i) * n + j] != (right && j <= i);
                    }
                }
            }
        }
    }
    CHECK(wrong == 0, "%s, n %d: %lld pairs differ", recipe, (int)n, (long long)wrong);
    run_holds(ctx, recipe, &x, &s, 7);
    chunks_hold(ctx, recipe, &x, &s, 128);
    free(s.at);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    set_holds(ctx, 4, 2, 700, 0);
    set_holds(ctx, 2, 2, 200, 0.3);
    set_holds(ctx, 1, 1, 63, 0);
    set_holds(ctx, 1, 1, 1, 0);
    heads x = heads_make(3, 4, 2, 700, 32);
    dense_holds(ctx, "prefill=alike:least=-1e9", &x);
    const double few = missing_mass(ctx, "prefill=alike:least=0.5", &x), many = missing_mass(ctx, "prefill=alike:least=-0.5", &x);
    CHECK(many < few, "missing %g where products are at least 0.5, %g where at least -0.5", few, many);
    heads_run(ctx, "prefill=delta(alike):gamma=16", &x); /* wrappers take it as any other */
    heads_free(&x);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
