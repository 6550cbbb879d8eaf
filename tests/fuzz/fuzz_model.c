/* fuzz_model.c - any bytes as the head of a model file: metadata and tensor directory, behind which the weights are made up. It
 * is refused, or it can be run. */
#include "base/rng.h"
#include "fuzz.h"
#include "model/arch.h"

/* More than any model that is worth the time; what claims more weights is refused for its size. */
enum { WEIGHTS = 1 << 18, MOST_TOKENS = 4096, MOST_WIDTH = 1024 };

static alloc_fail memory;
static fv_context *ctx;
static uint8_t *filler;

static void start(void) {
    ctx = alloc_fail_begin(&memory, 1);
    filler = malloc(WEIGHTS);
    FUZZ_CHECK(ctx != NULL && filler != NULL);
    fvi_rng rng = {3};
    for (size_t i = 0; i < WEIGHTS; i++) {
        filler[i] = (uint8_t)fvi_rng_next(&rng);
    }
}

static void run(fv_model *model, const fv_model_facts *f) {
    fv_session_options o = fv_session_options_default();
    fv_session *s;
    const int32_t id[3] = {0, (int32_t)(f->n_vocab - 1), (int32_t)(f->n_vocab / 2)};
    o.context = f->context < 64 ? f->context : 64;
    if (fv_session_create(model, &o, &s) != FV_OK) {
        return;
    }
    const int64_t n = o.context < 3 ? o.context : 3;
    if (fv_session_feed(s, id, n, NULL) == FV_OK && fv_session_finish(s) == FV_OK) {
        FUZZ_CHECK(fv_session_logits(s) != NULL && fv_session_position(s) == n);
        (void)fv_session_step(s, id[1]);
    }
    fv_session_destroy(s);
}

static void talk(fv_model *model) {
    static const char *const form[] = {NULL, "plain", "chatml"};
    fv_tokens t = {NULL, 0, 0};
    for (int i = 0; i < 3; i++) {
        (void)fv_chat_turn(model, form[i], "ab a", 4, true, &t);
        (void)fv_chat_turn(model, form[i], "", 0, false, &t);
    }
    for (int64_t i = 0; i < t.n; i++) {
        FUZZ_CHECK(t.id[i] >= 0 && t.id[i] < fv_vocab_size(fv_model_vocab(model)));
    }
    fv_tokens_release(ctx, &t);
}

static void open_model(const char *path) {
    fv_model *model;
    fv_status status = fv_model_open(ctx, path, NULL, &model);
    if (status != FV_OK) {
        FUZZ_CHECK(model == NULL && fv_message(ctx)[0] != '\0');
        return;
    }
    fv_model_facts f;
    fv_model_describe(model, &f);
    FUZZ_CHECK(f.layers > 0 && f.d_model > 0 && f.n_vocab > 0 && f.context > 0 && f.h_q % f.h_kv == 0);
    FUZZ_CHECK(f.architecture != NULL && f.name != NULL && f.license != NULL && f.prompt_form != NULL);
    FUZZ_CHECK(fv_model_vocab(model) != NULL && fv_model_fingerprint(model) != 0);
    talk(model);
    if (f.n_vocab <= MOST_TOKENS && f.d_model <= MOST_WIDTH && f.d_ffn <= MOST_WIDTH) {
        run(model, &f);
    }
    fv_model_destroy(model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (ctx == NULL) {
        start();
    }
    fuzz_file file = fuzz_open(data, size);
    FUZZ_CHECK(write(file.fd, filler, WEIGHTS) == WEIGHTS);
    long long blocks = memory.blocks;
    alloc_fail_arm(&memory, fuzz_failing(data, size) * 4);
    open_model(file.path);
    alloc_fail_arm(&memory, 0);
    FUZZ_CHECK(memory.blocks == blocks && memory.mismatched == 0 && memory.overrun == 0);
    fuzz_close(&file);
    return 0;
}
