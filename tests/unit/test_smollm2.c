/* test_smollm2.c - a published model, in its own chat form, greedily. Skipped where models/get has not fetched the file, but not
 * in CI. */
#include "fovea/fovea.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char path[] = "models/SmolLM2-135M-Instruct.Q4_1.gguf";

static fv_context *ctx;

#define assert_ok(call)                                                                                                          \
    do {                                                                                                                         \
        fv_status status_ = (call);                                                                                              \
        if (status_ != FV_OK) {                                                                                                  \
            fail_msg("%s: %s: %s", #call, fv_status_name(status_), fv_message(ctx));                                             \
        }                                                                                                                        \
    } while (0)

/* Greedy text until an end token. */
static void answer(fv_model *model, fv_session *s, char *out, size_t capacity) {
    const fv_vocab *vocab = fv_model_vocab(model);
    fv_sampler *sampler;
    fv_detokenizer state = {0};
    size_t used = 0, size;
    assert_ok(fv_sampler_create(ctx, NULL, &sampler));
    for (int i = 0; i < 40; i++) {
        int32_t id;
        assert_ok(fv_sample(sampler, fv_session_logits(s), fv_vocab_size(vocab), &id));
        if (fv_vocab_is_end(vocab, id)) {
            break;
        }
        assert_ok(fv_detokenize(ctx, vocab, &state, id, false, out + used, capacity - used - 1, &size));
        used += size;
        assert_ok(fv_session_step(s, id));
    }
    out[used] = '\0';
    fv_sampler_destroy(sampler);
}

static void ask(fv_model *model, fv_session *s, const char *question, bool first, char *out, size_t capacity) {
    fv_tokens t = {0};
    assert_ok(fv_chat_turn(model, NULL, question, strlen(question), first, &t));
    assert_ok(fv_session_feed(s, t.id, t.n, NULL));
    assert_ok(fv_session_finish(s));
    fv_tokens_release(ctx, &t);
    answer(model, s, out, capacity);
    print_message("%s\n  %s\n", question, out);
}

static void test_capital_of_france(void **state) {
    (void)state;
    char text[1024];
    fv_model *model;
    fv_session *s;
    fv_model_facts facts;
    assert_ok(fv_model_open(ctx, path, NULL, &model));
    fv_model_describe(model, &facts);
    assert_string_equal(facts.prompt_form, "chatml");
    assert_int_equal(facts.layers, 30);
    assert_int_equal(facts.h_q, 9);
    assert_int_equal(facts.h_kv, 3);
    assert_int_equal(facts.parameters, 134515008);
    assert_ok(fv_session_create(model, NULL, &s));
    ask(model, s, "What is the capital of France?", true, text, sizeof text);
    assert_string_equal(text, "The capital of France is Paris.");
    ask(model, s, "And of Italy?", false, text, sizeof text);
    assert_non_null(strstr(text, "Rome"));
    fv_session_destroy(s);
    fv_model_destroy(model);
}

int main(void) {
    if (access(path, R_OK) != 0) {
        const char *ci = getenv("CI");
        printf("%s is not there: models/get smollm2-135m fetches it\n", path);
        return ci != NULL && strcmp(ci, "true") == 0 ? 1 : 77;
    }
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_capital_of_france)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fv_context_destroy(ctx);
    return failed;
}
