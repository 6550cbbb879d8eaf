/* test_windows.c - dense, window and sinks: the keys they see, counted and weighed against a slow reference. */
#include "method_test.h"

/* A window of `size` keys that ends at the query, and the first `sinks` keys; size 0: all. */
typedef struct pattern {
    int64_t sinks, size;
} pattern;

static bool pattern_sees(const void *arg, int64_t i, int64_t j) {
    const pattern *p = arg;
    return j <= i && (p->size == 0 || i - j < p->size || j < p->sinks);
}

static void holds(fv_context *ctx, const char *recipe, pattern p, int64_t n) {
    heads x = heads_make((uint64_t)(n + p.size), 4, 2, n, 32);
    fv_run_stats stats = heads_run(ctx, recipe, &x);
    double worst = worst_row(&x, pattern_sees, &p, n > 300 ? 37 : 1);
    CHECK(worst < 2e-5, "%s, n %lld: off by %g", recipe, (long long)n, worst);
    uint64_t pairs = pairs_seen(&x, pattern_sees, &p);
    CHECK(stats.exact_pairs == pairs, "%s, n %lld: weighed %llu pairs, the pattern has %llu", recipe, (long long)n,
          (unsigned long long)stats.exact_pairs, (unsigned long long)pairs);
    CHECK(stats.eligible_pairs == (uint64_t)(4 * n * (n + 1) / 2), "%s: eligible pairs", recipe);
    CHECK(stats.visited_pairs >= pairs && stats.visited_pairs <= stats.eligible_pairs, "%s: visited pairs", recipe);
    heads_free(&x);
}

static bool same_bits(const heads *a, const heads *b) {
    size_t bytes = (size_t)(a->h_q * a->n * a->d) * sizeof(float);
    return memcmp(a->out, b->out, bytes) == 0 && memcmp(a->lse, b->lse, (size_t)(a->h_q * a->n) * sizeof(float)) == 0;
}

/* A window that reaches everything is dense, bit for bit. */
static void degenerate_is_dense(fv_context *ctx) {
    heads dense = heads_make(5, 4, 2, 333, 64), other = heads_make(5, 4, 2, 333, 64);
    heads_run(ctx, "", &dense);
    static const char *const recipe[] = {"window:size=333", "sinks:sinks=4:size=333", "sinks:sinks=333:size=1"};
    for (int i = 0; i < 3; i++) {
        heads_run(ctx, recipe[i], &other);
        CHECK(same_bits(&dense, &other), "%s differs from dense", recipe[i]);
    }
    heads_free(&dense);
    heads_free(&other);
}

/* Mass that is missing: 1 - exp(lse - lse of dense), summed over rows. */
static double missing_mass(fv_context *ctx, const char *recipe, heads *x, const float *dense_lse) {
    double missing = 0;
    heads_run(ctx, recipe, x);
    for (int64_t i = 0; i < x->h_q * x->n; i++) {
        missing += 1 - exp((double)x->lse[i] - dense_lse[i]);
    }
    return missing;
}

static void more_budget_misses_less(fv_context *ctx) {
    heads x = heads_make(9, 4, 2, 1000, 32);
    heads_run(ctx, "", &x);
    size_t bytes = (size_t)(x.h_q * x.n) * sizeof(float);
    float *dense = malloc(bytes);
    memcpy(dense, x.lse, bytes);
    double before = INFINITY;
    for (int size = 16; size <= 1024; size *= 4) {
        char recipe[64];
        snprintf(recipe, sizeof recipe, "window:size=%d", size);
        double missing = missing_mass(ctx, recipe, &x, dense);
        CHECK(missing < before, "%s misses %g, a quarter of it %g", recipe, missing, before);
        snprintf(recipe, sizeof recipe, "sinks:sinks=8:size=%d", size);
        CHECK(missing_mass(ctx, recipe, &x, dense) <= missing, "%s misses more than the window alone", recipe);
        before = missing;
    }
    free(dense);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    static const int64_t length[] = {1, 63, 64, 65, 200, 1031};
    for (int i = 0; i < 6; i++) {
        holds(ctx, "dense", (pattern){0, 0}, length[i]);
        holds(ctx, "window:size=1", (pattern){0, 1}, length[i]);
        holds(ctx, "window:size=64", (pattern){0, 64}, length[i]);
        holds(ctx, "window:size=100", (pattern){0, 100}, length[i]);
        holds(ctx, "sinks:sinks=4:size=50", (pattern){4, 50}, length[i]);
        holds(ctx, "sinks:sinks=65:size=129", (pattern){65, 129}, length[i]);
    }
    degenerate_is_dense(ctx);
    more_budget_misses_less(ctx);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
