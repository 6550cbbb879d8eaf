/* test_sparse_transformer.c - strided and fixed patterns against section 4.3 of the paper, and against the masks of
 * openai/sparse_attention (its layouts are numpy; its strided mask was read off the transposed sequence). */
#include "npy_golden.h"
#include "pattern_test.h"

typedef struct pattern {
    int64_t l, c, groups, form;
} pattern;

static bool has_part(const pattern *p, const where *w, int part) {
    return p->form == 1 || (p->form == 0 ? w->head : w->layer) % 2 == part;
}

static bool strided_sees(const void *arg, const where *w, int64_t i, int64_t j) {
    const pattern *p = arg;
    int64_t distance = i > j ? i - j : j - i;
    return (has_part(p, w, 0) && distance < p->l) || (has_part(p, w, 1) && distance % p->l == 0);
}

static bool fixed_sees(const void *arg, const where *w, int64_t i, int64_t j) {
    const pattern *p = arg;
    int64_t group = (p->form == 0 ? w->head / 2 : w->head) % p->groups, from_end = p->l - 1 - j % p->l;
    return (has_part(p, w, 0) && i / p->l == j / p->l) || (has_part(p, w, 1) && from_end / p->c == group);
}

static void strided_holds(fv_context *ctx, pattern p) {
    char recipe[100];
    snprintf(recipe, sizeof recipe, "prefill=sparse-strided:stride=%d:form=%d:fallback=0", (int)p.l, (int)p.form);
    pattern_holds(ctx, recipe, 2, false, strided_sees, &p);
}

static void fixed_holds(fv_context *ctx, pattern p) {
    char recipe[120];
    snprintf(recipe, sizeof recipe, "prefill=sparse-fixed:length=%d:cells=%d:groups=%d:form=%d:fallback=0", (int)p.l, (int)p.c,
             (int)p.groups, (int)p.form);
    pattern_holds(ctx, recipe, 2, true, fixed_sees, &p);
}

static void goldens_hold(fv_context *ctx) {
    static const struct {
        const char *name, *recipe;
        int layer;
    } golden[] = {
        {"select/sparse-transformer/local", "prefill=sparse-strided:stride=32:form=2:fallback=0", 0},
        {"select/sparse-transformer/strided", "prefill=sparse-strided:stride=6:form=2:fallback=0", 1},
        {"select/sparse-transformer/fixed-1", "prefill=sparse-fixed:length=64:cells=32:groups=1:fallback=0", 0},
        {"select/sparse-transformer/fixed-4", "prefill=sparse-fixed:length=96:cells=16:groups=4:fallback=0", 0},
    };
    heads x = heads_make(1, 4, 2, 192, 32);
    for (size_t k = 0; k < sizeof golden / sizeof *golden; k++) {
        selection s = select_layer(ctx, golden[k].recipe, &x, true, golden[k].layer);
        golden_bits_hold(golden[k].name, golden[k].recipe, s.at, s.h * s.n * s.n);
        free(s.at);
    }
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    for (int form = 0; form < 3; form++) {
        strided_holds(ctx, (pattern){.l = 1, .form = form});
        strided_holds(ctx, (pattern){.l = 7, .form = form});
        strided_holds(ctx, (pattern){.l = 128, .form = form});
        fixed_holds(ctx, (pattern){128, 32, 4, form});
        fixed_holds(ctx, (pattern){50, 7, 1, form});
    }
    strided_holds(ctx, (pattern){.l = 150, .form = 1});
    fixed_holds(ctx, (pattern){9, 3, 3, 1});
    fixed_holds(ctx, (pattern){300, 10, 2, 0});
    goldens_hold(ctx);

    heads x = heads_make(3, 4, 2, 500, 32);
    dense_holds(ctx, "prefill=sparse-strided:stride=500:form=1:fallback=0", &x);
    dense_holds(ctx, "prefill=sparse-strided:stride=1:form=1:fallback=0", &x);
    dense_holds(ctx, "prefill=sparse-fixed:length=500:fallback=0", &x);
    dense_holds(ctx, "prefill=sparse-fixed:length=128:cells=128:groups=1:fallback=0", &x);
    fv_recipe *r = NULL;
    fv_plan *plan = NULL;
    fv_problem problem = fv_problem_default();
    problem.n_q = problem.n_kv = problem.d_k = problem.d_v = 32;
    CHECK(fv_recipe_parse(ctx, "prefill=sparse-fixed:length=128:cells=64:groups=4", &r) == FV_OK, "%s", fv_message(ctx));
    problem.recipe = r;
    CHECK(fv_plan_create(ctx, &problem, &plan) == FV_ERR_UNSUPPORTED, "more cells than a segment has");
    fv_recipe_destroy(r);
    heads_free(&x);

    nested_hold(ctx,
                (const char *const[]){"prefill=sparse-strided:stride=128:form=2:fallback=0",
                                      "prefill=sparse-strided:stride=64:form=2:fallback=0",
                                      "prefill=sparse-strided:stride=16:form=2:fallback=0"},
                3, 1);
    nested_hold(ctx,
                (const char *const[]){"prefill=sparse-fixed:length=128:cells=8:groups=1:fallback=0",
                                      "prefill=sparse-fixed:length=128:cells=32:groups=1:fallback=0",
                                      "prefill=sparse-fixed:length=128:cells=100:groups=1:fallback=0"},
                3, 0);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
