/* calibrate.c - a method's profile for a model: prompts from a text run densely while the method looks at their heads. */
#include "lab/lab.h"

#include <stdio.h>

typedef struct calibrating {
    const fv_calibrate_options *options;
    fv_model *model;
    fv_calibration *calibration;
    int64_t prompt;
} calibrating;

fv_calibrate_options fv_calibrate_options_default(void) {
    return (fv_calibrate_options){.tokens = 4096, .prompts = 1, .recipe = "", .kv_dtype = FV_AUTO};
}

static int on_progress(void *user, int64_t done, int64_t total) {
    const calibrating *c = user;
    const fv_calibrate_options *o = c->options;
    if (o->progress == NULL) {
        return 0;
    }
    char what[64];
    snprintf(what, sizeof what, "prompt %lld of %lld", (long long)(c->prompt + 1), (long long)o->prompts);
    double share = total > 0 ? (double)done / (double)total : 1;
    return o->progress(o->user, what, ((double)c->prompt + share) / (double)o->prompts);
}

static fv_status watch(calibrating *c, int32_t *token, int64_t n) {
    fv_session_options options = fv_session_options_default();
    options.kv_dtype = c->options->kv_dtype;
    options.context = n;
    options.calibration = c->calibration;
    const int32_t bos = fvi_lab_bos(c->model);
    if (bos >= 0) {
        token[0] = bos;
    }
    fv_session *session;
    fv_status status = fv_session_create(c->model, &options, &session);
    if (status != FV_OK) {
        return status;
    }
    const fv_feed feed = {.progress = on_progress, .user = c};
    status = fv_session_feed(session, token, n, &feed);
    if (status == FV_OK) {
        status = fv_session_finish(session);
    }
    fv_session_destroy(session);
    return status;
}

static fv_status watch_all(calibrating *c, fv_tokens *tokens) {
    const fv_calibrate_options *o = c->options;
    if (tokens->n < o->tokens * o->prompts) {
        return fvi_fail(fv_model_context(c->model), FV_ERR_RANGE,
                        "calibrate: the text has %lld tokens, %lld prompts of %lld need %lld: give a longer text or fewer",
                        (long long)tokens->n, (long long)o->prompts, (long long)o->tokens, (long long)(o->tokens * o->prompts));
    }
    const int64_t apart = tokens->n / o->prompts; /* prompts come from all over the text */
    fv_status status = FV_OK;
    for (c->prompt = 0; c->prompt < o->prompts && status == FV_OK; c->prompt++) {
        status = watch(c, tokens->id + c->prompt * apart, o->tokens);
    }
    return status;
}

static fv_status find(calibrating *c, const fv_recipe *recipe, fv_profile **out) {
    const fv_calibrate_options *o = c->options;
    fv_model_facts f;
    fv_model_describe(c->model, &f);
    const fv_calibration_options options = {.layers = f.layers,
                                            .h_q = f.h_q,
                                            .h_kv = f.h_kv,
                                            .d_k = f.d_k,
                                            .d_v = f.d_v,
                                            .tokens = o->tokens,
                                            .prompts = o->prompts,
                                            .budget = o->budget};
    fv_context *ctx = fv_model_context(c->model);
    fv_status status = fv_calibration_create(ctx, recipe, &options, &c->calibration);
    fv_tokens tokens = {0};
    if (status == FV_OK) {
        status = fv_tokenize(ctx, fv_model_vocab(c->model), o->text, o->size, false, &tokens);
    }
    if (status == FV_OK) {
        status = watch_all(c, &tokens);
    }
    if (status == FV_OK) {
        status = fv_calibration_find(c->calibration, out);
    }
    if (status == FV_OK) {
        fv_profile_set_model(*out, fv_model_fingerprint(c->model));
    }
    fv_tokens_release(ctx, &tokens);
    fv_calibration_destroy(c->calibration);
    return status;
}

fv_status fv_calibrate(fv_model *model, const fv_calibrate_options *options, fv_profile **out) {
    fv_context *ctx = fv_model_context(model);
    *out = NULL;
    if (options->text == NULL || options->tokens < 1 || options->prompts < 1) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "calibrate: give a text, and at least 1 prompt of at least 1 token");
    }
    fv_recipe *recipe;
    fv_status status = fv_recipe_parse(ctx, options->recipe, &recipe);
    if (status == FV_OK) {
        calibrating c = {.options = options, .model = model};
        status = find(&c, recipe, out);
        fv_recipe_destroy(recipe);
    }
    return status;
}
