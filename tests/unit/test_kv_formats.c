/* test_kv_formats.c - what quantised keys and values cost the default model: perplexity, facts found again, bytes. */
#include "fovea/fovea.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TEXT = 400000 };

typedef struct fixture {
    fv_context *ctx;
    fv_model *model;
    char *text;
} fixture;

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    FILE *file = fopen("models/data/moby-dick.txt", "rb");
    f->text = calloc(TEXT + 1, 1);
    bool read = file != NULL && fread(f->text, 1, TEXT, file) == TEXT;
    if (file != NULL) {
        fclose(file);
    }
    *state = f;
    return !read || fv_context_create(NULL, &f->ctx) != FV_OK ||
           fv_model_open(f->ctx, "models/fovea-27m-32k-q8_0.gguf", NULL, &f->model) != FV_OK;
}

static int teardown(void **state) {
    fixture *f = *state;
    fv_model_destroy(f->model);
    fv_context_destroy(f->ctx);
    free(f->text);
    free(f);
    return 0;
}

static double perplexity(const fixture *f, const char *recipe) {
    fv_perplexity_options o = fv_perplexity_options_default();
    fv_perplexity_result r;
    o.text = f->text;
    o.size = strlen(f->text);
    o.context = 2048;
    o.windows = 3;
    o.recipe = recipe;
    if (fv_perplexity(f->model, &o, &r) != FV_OK) {
        fail_msg("%s: %s", recipe, fv_message(f->ctx));
    }
    print_message("perplexity %.3f with %s\n", r.perplexity, recipe);
    return r.perplexity;
}

static void perplexity_is_kept(void **state) {
    const fixture *f = *state;
    double bf16 = perplexity(f, "kv=bf16"), q8 = perplexity(f, "kv=q8_0"), q8_turned = perplexity(f, "kv=q8_0:rotate=1");
    double q4 = perplexity(f, "kv=q4_0"), q4_turned = perplexity(f, "kv=q4_0:rotate=1"), mixed = perplexity(f, "kv=q8_0/q4_0");
    assert_true(fabs(q8 - bf16) <= 0.005 * bf16);
    assert_true(fabs(q8_turned - bf16) <= 0.005 * bf16);
    assert_true(fabs(q4 - bf16) <= 0.05 * bf16);
    assert_true(fabs(q4_turned - bf16) <= 0.05 * bf16);
    assert_true(fabs(mixed - bf16) <= 0.02 * bf16);
}

/* Generated tokens too, which take K and V in place. */
static void facts_are_found(void **state) {
    const fixture *f = *state;
    static const int64_t lengths[] = {2500};
    static const char *const recipes[] = {"kv=q8_0", "kv=q8_0/q4_0:rotate=1"};
    fv_compare_options o = fv_compare_options_default();
    const fv_facts facts = fv_facts_builtin();
    o.facts = facts.fact, o.n_facts = facts.n;
    o.text = f->text, o.size = strlen(f->text);
    o.lengths = lengths, o.n_lengths = 1;
    o.recipes = recipes, o.n_recipes = 2;
    o.rows = 20;
    fv_compare *c;
    if (fv_compare_run(f->model, &o, &c) != FV_OK) {
        fail_msg("%s", fv_message(f->ctx));
    }
    const fv_compare_row *dense = fv_compare_row_at(c, 0);
    for (int i = 1; i <= 2; i++) {
        const fv_compare_row *row = fv_compare_row_at(c, i);
        print_message("%s: forced %d, greedy %d of %d; KL %.2g; %zu bytes of %zu\n", recipes[i - 1], row->forced, row->greedy,
                      row->facts, row->kl, row->kv_bytes, dense->kv_bytes);
        assert_true(row->facts == dense->facts && row->forced == dense->forced && row->greedy == dense->greedy);
        assert_true(row->kl < 0.02 && !row->kv_masked_only);
        assert_true(row->kv_bytes < 0.55 * (double)dense->kv_bytes);
    }
    assert_true(dense->facts >= 6 && dense->greedy >= dense->facts - 1);
    fv_compare_destroy(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(perplexity_is_kept), cmocka_unit_test(facts_are_found)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
