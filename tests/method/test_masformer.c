/* test_masformer.c - MASFormer's schedule: all at the first layers, then blocks or a window (figure 1 of the paper). */
#include "pattern_test.h"

typedef struct pattern {
    int64_t dense, size, form;
} pattern;

static bool masformer_sees(const void *arg, const where *w, int64_t i, int64_t j) {
    const pattern *p = arg;
    int64_t apart = i > j ? i - j : j - i;
    return w->layer < p->dense || (p->form == 1 ? apart < p->size : i / p->size == j / p->size);
}

static void masformer_holds(fv_context *ctx, pattern p) {
    char recipe[120];
    snprintf(recipe, sizeof recipe, "prefill=masformer:dense=%d:size=%d:form=%d:fallback=0", (int)p.dense, (int)p.size,
             (int)p.form);
    pattern_holds(ctx, recipe, 3, true, masformer_sees, &p);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    for (int form = 0; form < 2; form++) {
        masformer_holds(ctx, (pattern){0, 64, form});
        masformer_holds(ctx, (pattern){0, 1, form});
        masformer_holds(ctx, (pattern){0, 150, form});
        masformer_holds(ctx, (pattern){1, 37, form});
        masformer_holds(ctx, (pattern){2, 1024, form});
    }
    heads x = heads_make(3, 4, 2, 500, 32);
    dense_holds(ctx, "prefill=masformer:dense=1:size=8:fallback=0", &x);
    dense_holds(ctx, "prefill=masformer:dense=0:size=500:fallback=0", &x);
    dense_holds(ctx, "prefill=masformer:dense=0:size=500:form=1:fallback=0", &x);
    heads_free(&x);
    nested_hold(ctx,
                (const char *const[]){"prefill=masformer:dense=4:size=32:fallback=0",
                                      "prefill=masformer:dense=4:size=128:fallback=0",
                                      "prefill=masformer:dense=4:size=128:form=1:fallback=0",
                                      "prefill=masformer:dense=4:size=512:form=1:fallback=0"},
                4, 4);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
