/* test_alloc_model.c - every n-th allocation fails, n = 1 until a run succeeds: a model is opened, a session made, fed, finished,
 * stepped, forked, saved and loaded, and text goes through the vocabulary. Whatever fails says so, and nothing stays behind. */
#include "alloc_fail.h"
#include "fovea/fovea.h"
#include "tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char model_path[64], session_path[80];

typedef struct things {
    const char *recipe;
    fv_model *model;
    fv_session *s, *fork, *loaded;
    fv_sampler *sampler;
    fv_tokens tokens;
} things;

static int ignore_row(void *user, int64_t position, const float *logits) {
    (void)user;
    (void)position;
    (void)logits;
    return 0;
}

static fv_status use_session(fv_context *ctx, things *t) {
    static const fv_feed rows = {.on_logits = ignore_row, .logits_every = 3};
    const fv_session_options o = {.recipe = t->recipe, .kv_dtype = FV_F16, .context = 400, .chunk = 32};
    fv_status status = fv_session_create(t->model, &o, &t->s);
    if (status == FV_OK) {
        status = fv_session_feed(t->s, t->tokens.id, t->tokens.n, &rows);
    }
    if (status == FV_OK) {
        status = fv_session_finish(t->s);
    }
    if (status == FV_OK) {
        status = fv_sampler_create(
            ctx, &(fv_sampler_options){.temperature = 1, .top_p = 0.9f, .repeat_penalty = 1.1f, .repeat_last = 8}, &t->sampler);
    }
    int32_t id = 0;
    if (status == FV_OK) {
        status = fv_sample(t->sampler, fv_session_logits(t->s), 101, &id);
    }
    if (status == FV_OK) {
        status = fv_session_step(t->s, id);
    }
    if (status == FV_OK) {
        status = fv_session_fork(t->s, &t->fork);
    }
    return status == FV_OK ? fv_session_step(t->fork, id) : status; /* writes to a shared page */
}

static fv_status use_file(things *t) {
    fv_status status = fv_session_save(t->fork, session_path);
    if (status == FV_OK) {
        status = fv_session_load(t->model, session_path, &t->loaded);
    }
    return status == FV_OK ? fv_session_step(t->loaded, 1) : status;
}

static fv_status use_all(fv_context *ctx, things *t) {
    fv_status status = fv_model_open(ctx, model_path, NULL, &t->model);
    for (int i = 0; i < 4 && status == FV_OK; i++) {
        status = fv_chat_turn(t->model, "chatml", "plenty-of-words,one-letter-a-token", 34, i == 0, &t->tokens);
    }
    if (status == FV_OK) {
        status = use_session(ctx, t);
    }
    return status == FV_OK ? use_file(t) : status;
}

static void drop(fv_context *ctx, things *t) {
    fv_session_destroy(t->loaded);
    fv_session_destroy(t->fork);
    fv_session_destroy(t->s);
    fv_sampler_destroy(t->sampler);
    fv_tokens_release(ctx, &t->tokens);
    fv_model_destroy(t->model);
}

static void check_model(tiny_model m, const char *recipe) {
    tiny_write(&m, model_path);
    snprintf(session_path, sizeof session_path, "%s.session", model_path);
    for (long long n = 1;; n++) {
        alloc_fail a;
        things t = {.recipe = recipe};
        fv_context *ctx = alloc_fail_begin(&a, 1);
        assert_non_null(ctx);
        alloc_fail_arm(&a, n);
        fv_status status = use_all(ctx, &t);
        char message[512];
        snprintf(message, sizeof message, "%s", fv_message(ctx));
        drop(ctx, &t);
        if (alloc_fail_end(&a, ctx) != 0) {
            fail_msg("allocation %lld: %lld blocks left, %d wrong sizes, %d overruns", n, (long long)a.blocks, a.mismatched,
                     a.overrun);
        }
        if (!a.failed) {
            assert_int_equal(status, FV_OK);
            print_message("%lld allocations failed one by one, model %s\n", n - 1, fv_dtype_name(m.dtype));
            break;
        }
        if (status != FV_ERR_MEMORY || message[0] == '\0') {
            fail_msg("allocation %lld: %s, \"%s\"", n, fv_status_name(status), message);
        }
    }
    unlink(session_path);
    unlink(model_path);
}

static void test_each_allocation(void **state) {
    (void)state;
    tiny_model m = tiny_default();
    check_model(m, "window:size=30");
    check_model(m, "prefill=longheads:chunk=64:length=192"); /* positions of its own, and a state from token to token */
    m.dtype = FV_Q4_1;
    m.tied = false;
    check_model(m, "window:size=30");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_allocation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
