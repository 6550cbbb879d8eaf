/* test_recipe.c - recipes: normal forms, and messages that say where and what would be right. */
#include "alloc_fail.h"
#include "fovea/attention.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static fv_context *ctx;

static int begin(void **state) {
    (void)state;
    return fv_context_create(NULL, &ctx) != FV_OK;
}

static int end(void **state) {
    (void)state;
    fv_context_destroy(ctx);
    return 0;
}

static void normal_forms(void **state) {
    (void)state;
    static const char *const form[][2] = {
        {"", "prefill=dense,decode=dense"},
        {"dense", "prefill=dense,decode=dense"},
        {"window", "prefill=window:size=1024,decode=window:size=1024"},
        {"window:size=7", "prefill=window:size=7,decode=window:size=7"},
        {"decode=sinks:size=32", "prefill=dense,decode=sinks:sinks=64:size=32"},
        {"prefill=window:size=5,kv=bf16", "prefill=window:size=5,decode=dense,kv=bf16"},
        {"kv=f16/bf16", "prefill=dense,decode=dense,kv=f16/bf16"},
        {"kv=q8_0", "prefill=dense,decode=dense,kv=q8_0"},
        {"prefill=longheads:fallback=0,kv=q8_0", "prefill=longheads:chunk=256:length=4096:fallback=0,kv=q8_0"},
        {"kv=q8_0/q8_0:rotate=0", "prefill=dense,decode=dense,kv=q8_0"},
        {"kv=q8_0/q4_0:rotate=1", "prefill=dense,decode=dense,kv=q8_0/q4_0:rotate=1"},
        {"kv=q4_0:rotate=1,window:size=7", "prefill=window:size=7,decode=window:size=7,kv=q4_0:rotate=1"},
    };
    for (size_t i = 0; i < sizeof form / sizeof *form; i++) {
        fv_recipe *r;
        assert_int_equal(fv_recipe_parse(ctx, form[i][0], &r), FV_OK);
        assert_string_equal(fv_recipe_text(r), form[i][1]);
        fv_recipe *again; /* a normal form is its own */
        assert_int_equal(fv_recipe_parse(ctx, fv_recipe_text(r), &again), FV_OK);
        assert_string_equal(fv_recipe_text(again), form[i][1]);
        fv_recipe_destroy(again);
        fv_recipe_destroy(r);
    }
}

static void what_a_recipe_tells(void **state) {
    (void)state;
    fv_recipe *r;
    fv_cache_desc d = {.k_dtype = FV_I32, .v_dtype = FV_I32};
    assert_int_equal(fv_recipe_parse(ctx, "window,kv=f32:rotate=1/q4_0", &r), FV_OK);
    assert_true(fv_recipe_masks_only(r));
    assert_true(fv_recipe_kv(r, &d));
    assert_int_equal(d.k_dtype, FV_F32);
    assert_int_equal(d.v_dtype, FV_Q4_0);
    assert_true(d.rotate_k && !d.rotate_v);
    fv_recipe_destroy(r);
    assert_int_equal(fv_recipe_parse(ctx, "dense", &r), FV_OK);
    assert_false(fv_recipe_masks_only(r));
    assert_false(fv_recipe_kv(r, &d));
    assert_int_equal(d.k_dtype, FV_F32);
    fv_recipe_destroy(r);
}

static void refused(void **state) {
    (void)state;
    static const char *const wrong[][2] = {
        {"wndow", "column 1: 'wndow': no such method"},
        {"prefill=dense,decode=windw:size=4", "column 22: 'windw': no such method"},
        {"prefil=dense", "no such axis; there are prefill, decode and kv"},
        {"window:size=0", "column 13: '0': size takes a number from 1"},
        {"window:size=-5", "size takes a number from 1"},
        {"window:size=", "size takes a number from 1"},
        {"window:size=12x", "size takes a number from 1"},
        {"window:size=nan", "size takes a number from 1"},
        {"window:sise=4", "window has no such parameter; size"},
        {"dense:size=4", "the method has no parameters"},
        {"gqa", "follows from the shapes"},
        {"el-attention", "rotary positions"},
        {"decode=fusemax", "a tool"},
        {"prefill=lean-attention", "does not work on that axis"},
        {"dilated:fallback=2", "fallback is 0 (never) or 1"},
        {"window@x.json", "takes no profile"},
        {"kv=q3_k", "not a format of the cache"},
        {"kv=q4_1", "there are f32, f16, bf16, q8_0 and q4_0"},
        {"kv=q8_0/", "column 9: '': not a format of the cache"},
        {"kv=q4_0:rotate=2", "column 9: 'rotate=2': a format's one parameter is rotate, 0 or 1"},
        {"kv=q4_0:", "one parameter is rotate"},
        {"kv=q4_0:spin=1/q8_0", "one parameter is rotate"},
        {"kv=f16,kv=f32", "a second format"},
        {"dense,dense", "a second method for the same axis"},
        {"window,decode=dense", "a second method for the same axis"},
        {",", "no such method"},
        {"=", "no such axis"},
        {"prefill=", "no such method"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        fv_recipe *r;
        assert_int_equal(fv_recipe_parse(ctx, wrong[i][0], &r), FV_ERR_ARGUMENT);
        assert_null(r);
        if (strstr(fv_message(ctx), wrong[i][1]) == NULL) {
            fail_msg("'%s' gives \"%s\", which lacks \"%s\"", wrong[i][0], fv_message(ctx), wrong[i][1]);
        }
    }
    char long_text[400];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    fv_recipe *r;
    assert_int_equal(fv_recipe_parse(ctx, long_text, &r), FV_ERR_ARGUMENT);
}

static void registry_is_sound(void **state) {
    (void)state;
    const fv_method *method, *before = NULL;
    int n = 0;
    for (; (method = fv_method_at(n)) != NULL; n++) {
        assert_true(before == NULL || strcmp(before->name, method->name) < 0);
        assert_ptr_equal(fv_method_find(method->name), method);
        assert_true(method->title[0] != '\0' && (method->has & FV_HAS_FORWARD));
        assert_true(method->axes != 0 || method->not_a_choice != NULL); /* a tool */
        for (int i = 0; i < method->n_parameters; i++) {
            const fv_method_parameter *p = &method->parameters[i];
            assert_true(p->least <= p->value && p->value <= p->most && p->help[0] != '\0');
        }
        before = method;
    }
    assert_true(n >= 4);
    assert_null(fv_method_find("no such"));
}

static void failing_memory(void **state) {
    (void)state;
    int n = 1;
    for (;; n++) {
        alloc_fail a;
        fv_context *c = alloc_fail_begin(&a, 1);
        alloc_fail_arm(&a, n);
        fv_recipe *r = NULL;
        fv_plan *plan = NULL;
        fv_status status = fv_recipe_parse(c, "window", &r);
        if (status == FV_OK) {
            fv_problem p = fv_problem_default();
            p.n_q = p.n_kv = 100;
            p.d_k = p.d_v = 64;
            p.recipe = r;
            status = fv_plan_create(c, &p, &plan);
        }
        fv_plan_destroy(plan);
        fv_recipe_destroy(r);
        bool failed = atomic_load(&a.failed);
        assert_int_equal(alloc_fail_end(&a, c), 0);
        assert_int_equal(status, failed ? FV_ERR_MEMORY : FV_OK);
        if (!failed) {
            break;
        }
    }
    assert_true(n > 1);
    printf("recipe and plan: %d allocations made to fail\n", n - 1);
}

static size_t workspace_of(int64_t n_q, int64_t n_kv) {
    fv_problem p = fv_problem_default();
    p.h_q = 8;
    p.h_kv = 2;
    p.n_q = n_q;
    p.n_kv = n_kv;
    p.d_k = p.d_v = 64;
    fv_plan *plan;
    assert_int_equal(fv_plan_create(ctx, &p, &plan), FV_OK);
    size_t bytes = fv_plan_workspace(plan);
    fv_plan_destroy(plan);
    return bytes;
}

/* A session file may ask for a context of 2^30: its scratch must not follow. */
static void workspace_is_bounded(void **state) {
    (void)state;
    assert_true(workspace_of(512, 1 << 30) < (size_t)256 << 20);
    assert_true(workspace_of(1 << 20, 1 << 20) < (size_t)256 << 20);
    assert_true(workspace_of(32768, 32768) < 2 * workspace_of(4096, 4096) + ((size_t)64 << 20));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(normal_forms),   cmocka_unit_test(what_a_recipe_tells),
                                       cmocka_unit_test(refused),        cmocka_unit_test(registry_is_sound),
                                       cmocka_unit_test(failing_memory), cmocka_unit_test(workspace_is_bounded)};
    return cmocka_run_group_tests(tests, begin, end);
}
