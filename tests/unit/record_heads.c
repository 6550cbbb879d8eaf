/* record_heads.c - for tests/golden/real: queries, keys and values of one layer, as a model has them over a book's first pages.
 *
 *   record_heads MODEL TEXT DIRECTORY
 * writes q.npy (HEADS, TOKENS, d), k.npy and v.npy (1, TOKENS, d), all f16: the first query heads of the layer and the KV head
 * that they share, q and k turned by their positions. The prompt is BOS and the first tokens of the text. It looks at heads in
 * the place of a method that is calibrated. */
#include "base/base.h"
#include "npy.h"
#include "select/calibrate.h"

#include "attend/recipe.h"
#include "fovea/fovea.h"

#include <stdio.h>
#include <stdlib.h>

enum { LAYER = 4, HEADS = 3, TOKENS = 768, D = 64, TEXT_BYTES = 1 << 14 };

static struct {
    float q[HEADS][TOKENS * D], k[TOKENS * D], v[TOKENS * D];
} seen; /* a calibration has no argument of its own; heads are written by threads of their own */

static size_t a_byte(const fvi_calibrate_facts *facts) {
    (void)facts;
    return 1;
}

static int64_t nothing(const fvi_calibrate_facts *facts) {
    (void)facts;
    return 0;
}

static void look(const fvi_calibrate_facts *facts, const fvi_select *s, void *memory, void *scratch) {
    (void)facts;
    (void)memory;
    (void)scratch;
    const fvi_sight *sight = s->sight;
    if (sight->layer == LAYER && sight->head < HEADS) {
        sight->rows(sight, FVI_SIDE_Q, 0, TOKENS, seen.q[sight->head]);
    }
    if (sight->layer == LAYER && sight->head == 0) {
        sight->rows(sight, FVI_SIDE_K, 0, TOKENS, seen.k);
        sight->rows(sight, FVI_SIDE_V, 0, TOKENS, seen.v);
    }
}

static const fvi_calibration recording = {.memory_bytes = a_byte, .add = look, .most = nothing};
static const fvi_selector recorder = {.calibration = &recording};

static fv_status run(fv_model *model, const char *text, size_t size) {
    fv_context *ctx = fv_model_context(model);
    fv_model_facts f;
    fv_model_describe(model, &f);
    if (f.d_k != D || f.d_v != D || f.layers <= LAYER || f.h_q / f.h_kv < HEADS) {
        return fvi_fail(ctx, FV_ERR_UNSUPPORTED,
                        "this records a model of more than %d layers, width %d, %d query heads a KV head", LAYER, D, HEADS);
    }
    fv_tokens tokens = {0};
    fv_recipe *recipe = NULL;
    fv_calibration *calibration = NULL;
    fv_session *session = NULL;
    const fv_calibration_options shape = {
        .layers = f.layers, .h_q = f.h_q, .h_kv = f.h_kv, .d_k = f.d_k, .d_v = f.d_v, .tokens = TOKENS, .prompts = 1};
    fv_status status = fv_tokenize(ctx, fv_model_vocab(model), text, size, false, &tokens);
    if (status == FV_OK && tokens.n < TOKENS) {
        status = fvi_fail(ctx, FV_ERR_RANGE, "the text has %lld tokens, %d are recorded", (long long)tokens.n, TOKENS);
    }
    status = status == FV_OK ? fv_recipe_parse(ctx, "prefill=minference", &recipe) : status;
    if (status == FV_OK) {
        tokens.id[0] = fv_vocab_bos(fv_model_vocab(model));
        recipe->choice[FV_PREFILL].selector = &recorder;
        status = fv_calibration_create(ctx, recipe, &shape, &calibration);
    }
    const fv_session_options options = {.kv_dtype = FV_F32, .context = TOKENS, .calibration = calibration};
    status = status == FV_OK ? fv_session_create(model, &options, &session) : status;
    status = status == FV_OK ? fv_session_feed(session, tokens.id, TOKENS, NULL) : status;
    status = status == FV_OK ? fv_session_finish(session) : status;
    fv_session_destroy(session);
    fv_calibration_destroy(calibration);
    fv_recipe_destroy(recipe);
    fv_tokens_release(ctx, &tokens);
    return status;
}

static bool write(const char *directory, const char *name, const float *x, int64_t heads) {
    char path[1024], error[512];
    static uint16_t half[HEADS * TOKENS * D];
    for (int64_t i = 0; i < heads * TOKENS * D; i++) {
        half[i] = fvi_f32_to_f16(x[i]);
    }
    snprintf(path, sizeof path, "%s/%s.npy", directory, name);
    const npy array = {.dtype = FV_F16, .rank = 3, .shape = {heads, TOKENS, D}, .data = half};
    bool right = npy_write(path, &array, error, sizeof error);
    if (!right) {
        fprintf(stderr, "record_heads: %s\n", error);
    }
    return right;
}

int main(int argc, char **argv) {
    static char text[TEXT_BYTES];
    FILE *in = argc == 4 ? fopen(argv[2], "rb") : NULL;
    fv_context *ctx = NULL;
    if (in == NULL || fv_context_create(NULL, &ctx) != FV_OK) {
        fprintf(stderr, "usage: record_heads MODEL TEXT DIRECTORY\n");
        return 2;
    }
    size_t size = fread(text, 1, sizeof text, in);
    fclose(in);
    fv_model *model = NULL;
    fv_status status = fv_model_open(ctx, argv[1], NULL, &model);
    status = status == FV_OK ? run(model, text, size) : status;
    if (status != FV_OK) {
        fprintf(stderr, "record_heads: %s: %s\n", fv_status_name(status), fv_message(ctx));
    }
    fv_model_destroy(model);
    fv_context_destroy(ctx);
    return status != FV_OK || !write(argv[3], "q", seen.q[0], HEADS) || !write(argv[3], "k", seen.k, 1) ||
           !write(argv[3], "v", seen.v, 1);
}
