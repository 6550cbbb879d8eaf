/* test_moa.c - MoA's elastic spans by section 3.2 of the paper in the blocks of the official layouts. */
#include "golden_test.h"
#include "pattern_test.h"

typedef struct pattern {
    double alpha, beta;
} pattern;

static bool moa_sees(const void *arg, const where *w, int64_t i, int64_t j) {
    const pattern *p = arg;
    double span = floor(p->alpha / 64) + p->beta * (double)((w->n + 63) / 64);
    int64_t own = i / 64, key = j / 64, apart = own > key ? own - key : key - own;
    return key == 0 || apart == 0 || apart + 1 <= span || (!w->causal && own == 0);
}

static void moa_holds(fv_context *ctx, pattern p) {
    char recipe[100];
    snprintf(recipe, sizeof recipe, "prefill=moa:alpha=%g:beta=%g:fallback=0", p.alpha, p.beta);
    pattern_holds(ctx, recipe, 1, false, moa_sees, &p);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    moa_holds(ctx, (pattern){0, 0.5});
    moa_holds(ctx, (pattern){128, 0});
    moa_holds(ctx, (pattern){-200, 1});
    moa_holds(ctx, (pattern){-64, 0.125});
    moa_holds(ctx, (pattern){100, 0.3});
    moa_holds(ctx, (pattern){4096, 0});
    static const char *const golden[][2] = {
        {"moa/half", "prefill=moa:alpha=0:beta=0.5:fallback=0"},
        {"moa/negative", "prefill=moa:alpha=-128:beta=0.875:fallback=0"},
        {"moa/fixed", "prefill=moa:alpha=200:beta=0:fallback=0"},
    };
    heads x = heads_make(1, 1, 1, 640, 32);
    for (int k = 0; k < 3; k++) {
        selection s = select_all(ctx, golden[k][1], &x, true);
        golden_equals(golden[k][0], golden[k][1], &s);
        free(s.at);
    }
    dense_holds(ctx, "prefill=moa:alpha=0:beta=1:fallback=0", &x);
    dense_holds(ctx, "prefill=moa:alpha=640:beta=0:fallback=0", &x);
    heads_free(&x);
    nested_hold(ctx,
                (const char *const[]){"prefill=moa:beta=0:fallback=0", "prefill=moa:beta=0.25:fallback=0",
                                      "prefill=moa:beta=0.5:fallback=0", "prefill=moa:alpha=128:beta=0.5:fallback=0"},
                4, 0);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
