/* test_chat.c - a first turn in the plain form is BOS and the text's ids where the model wants BOS, a later turn the ids alone.
 */
#include "fovea/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char path[] = "models/fovea-27m-32k-q8_0.gguf";
static const char text[] = "Call me Ishmael. <|end|> is text.";

static fv_context *ctx;
static fv_model *model;

static int start(void **state) {
    (void)state;
    fv_context_options options = {1, FV_LEVEL_BEST, NULL};
    return fv_context_create(&options, &ctx) != FV_OK || fv_model_open(ctx, path, NULL, &model) != FV_OK;
}

static int stop(void **state) {
    (void)state;
    fv_model_destroy(model);
    fv_context_destroy(ctx);
    return 0;
}

static void turn_is(bool first, const fv_tokens *ids) {
    fv_tokens got = {0};
    assert_int_equal(fv_chat_turn(model, "plain", text, strlen(text), first, &got), FV_OK);
    assert_int_equal(got.n, ids->n + first);
    if (first) {
        assert_int_equal(got.id[0], fv_vocab_bos(fv_model_vocab(model)));
    }
    assert_memory_equal(got.id + first, ids->id, (size_t)ids->n * sizeof *ids->id);
    fv_tokens_release(ctx, &got);
}

static void plain_turns(void **state) {
    (void)state;
    const fv_vocab *vocab = fv_model_vocab(model);
    assert_true(fv_vocab_add_bos(vocab));
    assert_int_equal(fv_vocab_bos(vocab), 0);
    fv_tokens ids = {0};
    assert_int_equal(fv_tokenize(ctx, vocab, text, strlen(text), false, &ids), FV_OK);
    assert_true(ids.n > 0 && ids.id[0] != 0);
    turn_is(true, &ids);
    turn_is(false, &ids);
    fv_tokens_release(ctx, &ids);
}

int main(void) {
    if (access(path, R_OK) != 0) {
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(plain_turns)};
    return cmocka_run_group_tests(tests, start, stop);
}
