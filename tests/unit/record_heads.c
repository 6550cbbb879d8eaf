/* record_heads.c - for tests/golden/real: queries, keys and values of a few heads, as a model has them over a book's first pages.
 *
 *   record_heads MODEL TEXT DIRECTORY
 * writes for each recording NAMEq.npy (heads, tokens, d), NAMEk.npy and NAMEv.npy (1, tokens, d), all f16: query heads of a layer
 * and the KV head that they share, q and k turned by their positions. The prompt is BOS and the first tokens of the text. It
 * looks at heads in the place of a method that is calibrated. */
#include "base/base.h"
#include "npy.h"
#include "select/calibrate.h"

#include "attend/recipe.h"
#include "fovea/fovea.h"

#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 3, TOKENS = 1500, D = 64, RECORDINGS = 2, TEXT_BYTES = 1 << 14 };

/* Query heads first .. first + heads - 1 of a layer, which share a KV head. */
static const struct {
    const char *name;
    int64_t layer, first, heads, tokens;
} recording[RECORDINGS] = {{"", 4, 0, 3, 768}, {"long-", 6, 4, 2, 1500}};

static struct {
    float q[HEADS][TOKENS * D], k[TOKENS * D], v[TOKENS * D];
} seen[RECORDINGS]; /* a calibration has no argument of its own; heads are written by threads of their own */

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
    for (int r = 0; r < RECORDINGS; r++) {
        const int64_t head = sight->head - recording[r].first, n = recording[r].tokens;
        if (sight->layer != recording[r].layer || head < 0 || head >= recording[r].heads) {
            continue;
        }
        sight->rows(sight, FVI_SIDE_Q, 0, n, seen[r].q[head]);
        if (head == 0) {
            sight->rows(sight, FVI_SIDE_K, 0, n, seen[r].k);
            sight->rows(sight, FVI_SIDE_V, 0, n, seen[r].v);
        }
    }
}

static const fvi_calibration watching = {.memory_bytes = a_byte, .add = look, .most = nothing};
static const fvi_selector recorder = {.calibration = &watching};

static fv_status run(fv_model *model, const char *text, size_t size) {
    fv_context *ctx = fv_model_context(model);
    fv_model_facts f;
    fv_model_describe(model, &f);
    if (f.d_k != D || f.d_v != D || f.layers != 8 || f.h_q != 8 || f.h_kv != 2) {
        return fvi_fail(ctx, FV_ERR_UNSUPPORTED, "this records a model of 8 layers, 8 query heads and 2 KV heads, width %d", D);
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

static bool write(const char *directory, const char *name, const char *side, const float *x, int64_t heads, int64_t tokens) {
    char path[1024], error[512];
    static uint16_t half[HEADS * TOKENS * D];
    for (int64_t i = 0; i < heads * tokens * D; i++) {
        half[i] = fvi_f32_to_f16(x[i / (tokens * D) * TOKENS * D + i % (tokens * D)]);
    }
    snprintf(path, sizeof path, "%s/%s%s.npy", directory, name, side);
    const npy array = {.dtype = FV_F16, .rank = 3, .shape = {heads, tokens, D}, .data = half};
    bool right = npy_write(path, &array, error, sizeof error);
    if (!right) {
        fprintf(stderr, "record_heads: %s\n", error);
    }
    return right;
}

static bool write_all(const char *directory) {
    bool right = true;
    for (int r = 0; r < RECORDINGS && right; r++) {
        const char *name = recording[r].name;
        const int64_t n = recording[r].tokens;
        right = write(directory, name, "q", seen[r].q[0], recording[r].heads, n) &&
                write(directory, name, "k", seen[r].k, 1, n) && write(directory, name, "v", seen[r].v, 1, n);
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
    return status != FV_OK || !write_all(argv[3]);
}
