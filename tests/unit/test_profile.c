/* test_profile.c - profiles in files and in recipes, what is wrong with a file said, calibration of a model, and each n-th
 * allocation of all of it failing. */
#include "alloc_fail.h"
#include "fovea/fovea.h"
#include "tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char model_path[64], profile_path[80];
static fv_context *ctx;

static void assert_ok(fv_status status) {
    if (status != FV_OK) {
        fail_msg("%s: %s", fv_status_name(status), fv_message(ctx));
    }
}

static void write_text(const char *text) {
    FILE *f = fopen(profile_path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void round_trip(void **state) {
    (void)state;
    fv_profile *p, *q;
    assert_ok(fv_profile_create(ctx, "moa", 2, 3, &p));
    assert_ok(fv_profile_set(p, 0, 1, (const double[]){1.5, -0.1}, 2));
    assert_ok(fv_profile_set(p, 1, 2, (const double[]){1e-300}, 1));
    assert_ok(fv_profile_set(p, 0, 1, (const double[]){3, 1.0 / 3, 7}, 3)); /* in place of the two */
    fv_profile_set_model(p, 0xfedcba9876543210u);
    assert_int_equal(fv_profile_set(p, 2, 0, (const double[]){1}, 1), FV_ERR_RANGE);
    assert_int_equal(fv_profile_set(p, 0, 0, (const double[]){INFINITY}, 1), FV_ERR_ARGUMENT);
    assert_ok(fv_profile_write(ctx, p, profile_path));
    assert_ok(fv_profile_read(ctx, profile_path, &q));
    assert_string_equal(fv_profile_method(q), "moa");
    assert_true(fv_profile_model(q) == 0xfedcba9876543210u && fv_profile_layers(q) == 2 && fv_profile_heads(q) == 3);
    for (int layer = 0; layer < 2; layer++) {
        for (int64_t head = 0; head < 3; head++) {
            int64_t n, m;
            const double *a = fv_profile_get(p, layer, head, &n), *b = fv_profile_get(q, layer, head, &m);
            assert_int_equal(n, m);
            assert_true(n == 0 || memcmp(a, b, (size_t)n * sizeof *a) == 0);
        }
    }
    fv_profile_destroy(p);
    fv_profile_destroy(q);
}

static void wrong_files_are_refused(void **state) {
    (void)state;
    static const char *const wrong[][2] = {
        {"", "no JSON from byte"},
        {"[1, 2", "no JSON from byte"},
        {"{\"fovea_profile\": 1}trailing", "no JSON from byte"},
        {"3", "the version must be 1"},
        {"{\"fovea_profile\": 2, \"method\": \"moa\", \"layers\": 1, \"heads\": 1, \"model\": \"\", \"numbers\": [[[1]]]}",
         "the version must be 1"},
        {"{\"fovea_profile\": 1, \"layers\": 1, \"heads\": 1, \"model\": \"\", \"numbers\": [[[1]]]}", "method, layers, heads"},
        {"{\"fovea_profile\": 1, \"method\": \"moa\", \"layers\": 1e9, \"heads\": 1, \"model\": \"\", \"numbers\": [[[1]]]}",
         "method, layers, heads"},
        {"{\"fovea_profile\": 1, \"method\": \"moa\", \"layers\": 65536, \"heads\": 65536, \"model\": \"\", \"numbers\": "
         "[[[1]]]}",
         "an entry for each layer"},
        {"{\"fovea_profile\": 1, \"method\": \"moa\", \"layers\": 1, \"heads\": 2, \"model\": \"\", \"numbers\": [[[1]]]}",
         "numbers"},
        {"{\"fovea_profile\": 1, \"method\": \"moa\", \"layers\": 2, \"heads\": 1, \"model\": \"\", \"numbers\": [[[1]], 7]}",
         "for each layer, a list"},
        {"{\"fovea_profile\": 1, \"method\": \"moa\", \"layers\": 1, \"heads\": 1, \"model\": \"\", \"numbers\": [[[1, \"x\"]]]}",
         "not a number"},
        {"{\"fovea_profile\": 1, \"method\": \"moa\", \"layers\": 1, \"heads\": 1, \"model\": \"\", \"numbers\": [[1]]}",
         "a list of numbers for each head"},
        {"{\"fovea_profile\": 1, \"method\": \"moa\", \"layers\": 1, \"heads\": 1, \"model\": \"xyz\", \"numbers\": [[[1]]]}",
         "16 hexadecimal digits"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        fv_profile *p;
        write_text(wrong[i][0]);
        assert_int_equal(fv_profile_read(ctx, profile_path, &p), FV_ERR_FORMAT);
        assert_null(p);
        if (strstr(fv_message(ctx), wrong[i][1]) == NULL || strstr(fv_message(ctx), profile_path) == NULL) {
            fail_msg("case %zu gives \"%s\", which lacks \"%s\" or the path", i, fv_message(ctx), wrong[i][1]);
        }
    }
    unlink(profile_path);
    fv_profile *p;
    assert_int_equal(fv_profile_read(ctx, profile_path, &p), FV_ERR_IO);
}

static void recipes_need_their_own(void **state) {
    (void)state;
    fv_recipe *r;
    char text[160];
    fv_plan *plan;
    write_text(
        "{\"fovea_profile\": 1, \"method\": \"moa\", \"layers\": 1, \"heads\": 1, \"model\": \"\", \"numbers\": [[[1, 0.5]]]}");
    snprintf(text, sizeof text, "prefill=minference@%s", profile_path);
    assert_int_equal(fv_recipe_load(ctx, text, &r), FV_ERR_ARGUMENT);
    assert_non_null(strstr(fv_message(ctx), "the profile is of moa"));
    snprintf(text, sizeof text, "prefill=moa@%s", profile_path);
    assert_ok(fv_recipe_parse(ctx, text, &r)); /* names it, and does not read it */
    fv_problem p = fv_problem_default();
    p.n_q = p.n_kv = 64;
    p.d_k = p.d_v = 16;
    p.causal = true;
    p.recipe = r;
    assert_int_equal(fv_plan_create(ctx, &p, &plan), FV_ERR_STATE);
    fv_recipe_destroy(r);
    assert_ok(fv_recipe_load(ctx, text, &r));
    p.recipe = r;
    assert_ok(fv_plan_create(ctx, &p, &plan));
    fv_plan_destroy(plan);
    fv_recipe_destroy(r);
}

/* Opens the model, calibrates, writes the profile, reads it in a session's recipe. */
static fv_status calibrate(fv_context *c, const char *method) {
    static char words[1200];
    char recipe[160];
    memset(words, 'a', sizeof words - 1);
    fv_model *model = NULL;
    fv_profile *profile = NULL;
    fv_session *session = NULL;
    fv_calibrate_options o = fv_calibrate_options_default();
    snprintf(recipe, sizeof recipe, "prefill=%s", method);
    o.text = words;
    o.size = sizeof words - 1;
    o.recipe = recipe;
    o.tokens = 150;
    o.budget = strcmp(method, "moa") == 0; /* prompts are too short for less */
    o.kv_dtype = FV_F32;
    fv_status status = fv_model_open(c, model_path, NULL, &model);
    if (status == FV_OK) {
        status = fv_calibrate(model, &o, &profile);
    }
    if (status == FV_OK) {
        status = fv_profile_write(c, profile, profile_path);
    }
    snprintf(recipe, sizeof recipe, "prefill=%.*s@%s", (int)strcspn(method, ":"), method, profile_path);
    const fv_session_options s = {.recipe = recipe, .kv_dtype = FV_F32, .context = 200, .chunk = 32};
    if (status == FV_OK) {
        status = fv_session_create(model, &s, &session);
    }
    fv_session_destroy(session);
    fv_profile_destroy(profile);
    fv_model_destroy(model);
    return status;
}

static void each_allocation_of_calibrating(void **state) {
    (void)state;
    static const char *const methods[] = {"minference", "top-theta:k=16", "dam", "sale:dense=0", "spargeattn", "dhsa", "moa"};
    for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
        for (long long n = 1;; n++) {
            alloc_fail a;
            fv_context *c = alloc_fail_begin(&a, 1);
            assert_non_null(c);
            alloc_fail_arm(&a, n);
            fv_status status = calibrate(c, methods[m]);
            char message[512];
            snprintf(message, sizeof message, "%s", fv_message(c));
            if (alloc_fail_end(&a, c) != 0) {
                fail_msg("%s, allocation %lld: %lld blocks left, %d wrong sizes, %d overruns", methods[m], n, (long long)a.blocks,
                         a.mismatched, a.overrun);
            }
            if (!a.failed) {
                if (status != FV_OK) {
                    fail_msg("%s: %s", methods[m], message);
                }
                print_message("%s: %lld allocations failed one by one\n", methods[m], n - 1);
                break;
            }
            if (status != FV_ERR_MEMORY || message[0] == '\0') {
                fail_msg("%s, allocation %lld: %s, \"%s\"", methods[m], n, fv_status_name(status), message);
            }
        }
    }
}

static int set_up(void **state) {
    (void)state;
    tiny_model m = tiny_default();
    tiny_write(&m, model_path);
    snprintf(profile_path, sizeof profile_path, "%s.json", model_path);
    return fv_context_create(&(fv_context_options){.threads = 1}, &ctx) != FV_OK;
}

static int tear_down(void **state) {
    (void)state;
    unlink(profile_path);
    unlink(model_path);
    fv_context_destroy(ctx);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip), cmocka_unit_test(wrong_files_are_refused),
                                       cmocka_unit_test(recipes_need_their_own),
                                       cmocka_unit_test(each_allocation_of_calibrating)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
