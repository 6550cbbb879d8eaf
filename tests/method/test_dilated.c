/* test_dilated.c - the dilated window; and, by its means, blocks and columns of an index that differ from row to row. */
#include "index_test.h"

typedef struct pattern {
    int64_t size, dilation;
} pattern;

static bool pattern_sees(const pattern *p, int64_t i, int64_t j) {
    return j <= i && (i - j) % p->dilation == 0 && (i - j) / p->dilation < p->size;
}

static void holds(fv_context *ctx, pattern p, int64_t n) {
    char recipe[80];
    snprintf(recipe, sizeof recipe, "prefill=dilated:size=%d:dilation=%d:fallback=0", (int)p.size, (int)p.dilation);
    heads x = heads_make((uint64_t)(n + p.size), 4, 2, n, 32);
    selection s = select_all(ctx, recipe, &x, true);
    for (int64_t i = 0; i < 4 * n * n; i++) {
        CHECK(s.at[i] == pattern_sees(&p, i / n % n, i % n), "%s, n %lld: row %lld and key %lld", recipe, (long long)n,
              (long long)(i / n % n), (long long)(i % n));
    }
    run_holds(ctx, recipe, &x, &s, n > 300 ? 37 : 1);
    chunks_hold(ctx, recipe, &x, &s, 64);
    chunks_hold(ctx, recipe, &x, &s, 53);
    chunks_hold(ctx, recipe, &x, &s, 300); /* several tiles, the first of them begun */
    free(s.at);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    /* two threads on every machine: more would share out a prompt tile by tile, and no tiles would be folded side by side */
    const fv_context_options two = {.threads = 2};
    if (fv_context_create(&two, &ctx) != FV_OK) {
        return 1;
    }
    static const int64_t length[] = {1, 63, 64, 65, 200, 700};
    for (int i = 0; i < 6; i++) {
        holds(ctx, (pattern){1, 1}, length[i]);
        holds(ctx, (pattern){100, 1}, length[i]);
        holds(ctx, (pattern){100, 2}, length[i]);
        holds(ctx, (pattern){50, 7}, length[i]);
        holds(ctx, (pattern){5, 100}, length[i]);
        holds(ctx, (pattern){1000, 64}, length[i]);
    }
    heads x = heads_make(3, 4, 2, 500, 32);
    dense_holds(ctx, "prefill=dilated:size=500:dilation=1:fallback=0", &x);
    double half = missing_mass(ctx, "prefill=dilated:size=500:dilation=2:fallback=0", &x);
    double eighth = missing_mass(ctx, "prefill=dilated:size=500:dilation=8:fallback=0", &x);
    CHECK(half > 0 && eighth > half, "missing mass %g of every second key, %g of every eighth", half, eighth);
    heads_free(&x);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
