/* test_moa.c - MoA's elastic spans, alpha + beta N, in the blocks of the official layouts. */
#include "npy_golden.h"
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

/* Two layers of four heads, each with a rule of its own, from a profile. */
static void profile_holds(fv_context *ctx) {
    heads x = heads_make(4, 4, 2, 640, 32);
    fv_recipe *recipe = NULL;
    fv_profile *profile = NULL;
    fv_plan *plan = NULL;
    CHECK(fv_recipe_parse(ctx, "prefill=moa:fallback=0", &recipe) == FV_OK, "%s", fv_message(ctx));
    CHECK(fv_profile_create(ctx, "moa", 2, 4, &profile) == FV_OK, "%s", fv_message(ctx));
    pattern rule[8];
    for (int k = 0; k < 8; k++) {
        rule[k] = (pattern){64 * (k % 3) - 64, k / 8.0};
        CHECK(fv_profile_set(profile, k / 4, k % 4, &rule[k].alpha, 2) == FV_OK, "%s", fv_message(ctx));
    }
    CHECK(fv_recipe_attach(recipe, FV_PREFILL, profile) == FV_OK, "%s", fv_message(ctx));
    fv_problem problem = fv_problem_default();
    problem.h_q = 4;
    problem.h_kv = 2;
    problem.n_q = problem.n_kv = x.n;
    problem.d_k = problem.d_v = x.d;
    problem.causal = true;
    problem.recipe = recipe;
    CHECK(fv_plan_create(ctx, &problem, &plan) == FV_OK, "%s", fv_message(ctx));
    size_t bytes = (fv_plan_workspace(plan) + 63) / 64 * 64;
    void *workspace = aligned_alloc(64, bytes);
    for (int layer = 0; layer < 2; layer++) {
        selection s = {x.h_q, x.n, calloc((size_t)(x.h_q * x.n), (size_t)x.n), 0};
        fv_run run = part_run(&x, 0, x.n, x.n);
        run.layer = layer;
        CHECK(fv_plan_index(plan, &run, workspace, bytes, take_tile, &s) == FV_OK, "%s", fv_message(ctx));
        int64_t differ = 0;
        for (int64_t p = 0; p < x.h_q * x.n * x.n; p++) {
            where w = {4, 2, p / x.n / x.n, layer, x.n, true};
            int64_t i = p / x.n % x.n, j = p % x.n;
            differ += s.at[p] != (j <= i && moa_sees(&rule[layer * 4 + w.head], &w, i, j));
        }
        CHECK(differ == 0, "a profile's rules on layer %d: %lld pairs differ", layer, (long long)differ);
        free(s.at);
    }
    free(workspace);
    fv_plan_destroy(plan);
    fv_recipe_destroy(recipe);
    heads_free(&x);
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
    profile_holds(ctx);
    static const char *const golden[][2] = {
        {"select/moa/half", "prefill=moa:alpha=0:beta=0.5:fallback=0"},
        {"select/moa/negative", "prefill=moa:alpha=-128:beta=0.875:fallback=0"},
        {"select/moa/fixed", "prefill=moa:alpha=200:beta=0:fallback=0"},
    };
    heads x = heads_make(1, 1, 1, 640, 32);
    for (int k = 0; k < 3; k++) {
        selection s = select_all(ctx, golden[k][1], &x, true);
        golden_bits_hold(golden[k][0], golden[k][1], s.at, s.h * s.n * s.n);
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
