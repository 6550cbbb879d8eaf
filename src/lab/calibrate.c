/* calibrate.c - a method's profile for a model: prompts from a text run densely while the method looks at their heads. What
 * some methods want to know is no head's alone but the model's answer: they run it themselves. */
#include "lab/calibrate_moa.h"

#include <stdio.h>
#include <string.h>

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
    const int64_t apart = tokens->n / o->prompts; /* prompts come from all over the text */
    fv_status status = FV_OK;
    for (c->prompt = 0; c->prompt < o->prompts && status == FV_OK; c->prompt++) {
        status = watch(c, tokens->id + c->prompt * apart, o->tokens);
    }
    return status;
}

static fv_status find(calibrating *c, const fv_recipe *recipe, fv_tokens *tokens, fv_profile **out) {
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
    fv_status status = fv_calibration_create(fv_model_context(c->model), recipe, &options, &c->calibration);
    if (status == FV_OK) {
        status = watch_all(c, tokens);
    }
    if (status == FV_OK) {
        status = fv_calibration_find(c->calibration, out);
    }
    fv_calibration_destroy(c->calibration);
    return status;
}

/* Methods that run the model themselves. */
static const struct {
    const char *method;
    fv_status (*find)(fv_model *model, const fv_calibrate_options *options, fv_tokens *tokens, fv_profile **out);
} on_models[] = {{"moa", fvi_calibrate_moa}};

static fv_status find_by(fv_model *model, const fv_calibrate_options *options, const fv_recipe *recipe, fv_tokens *tokens,
                         fv_profile **out) {
    for (size_t i = 0; i < sizeof on_models / sizeof *on_models; i++) {
        if (strcmp(on_models[i].method, fv_recipe_method(recipe, FV_PREFILL)) == 0) {
            return on_models[i].find(model, options, tokens, out);
        }
    }
    calibrating c = {.options = options, .model = model};
    return find(&c, recipe, tokens, out);
}

static fv_status tokenize(fv_model *model, const fv_calibrate_options *o, fv_tokens *tokens) {
    fv_context *ctx = fv_model_context(model);
    fv_status status = fv_tokenize(ctx, fv_model_vocab(model), o->text, o->size, false, tokens);
    if (status == FV_OK && tokens->n < o->tokens * o->prompts) {
        status = fvi_fail(ctx, FV_ERR_RANGE,
                          "calibrate: the text has %lld tokens, %lld prompts of %lld need %lld: give a longer text or fewer",
                          (long long)tokens->n, (long long)o->prompts, (long long)o->tokens, (long long)(o->tokens * o->prompts));
    }
    return status;
}

fv_status fv_calibrate(fv_model *model, const fv_calibrate_options *options, fv_profile **out) {
    fv_context *ctx = fv_model_context(model);
    *out = NULL;
    if (options->text == NULL || options->tokens < 1 || options->prompts < 1) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "calibrate: give a text, and at least 1 prompt of at least 1 token");
    }
    fv_recipe *recipe;
    fv_tokens tokens = {0};
    fv_status status = fv_recipe_parse(ctx, options->recipe, &recipe);
    if (status != FV_OK) {
        return status;
    }
    status = tokenize(model, options, &tokens);
    if (status == FV_OK) {
        status = find_by(model, options, recipe, &tokens, out);
    }
    if (status == FV_OK) {
        fv_profile_set_model(*out, fv_model_fingerprint(model));
    }
    fv_tokens_release(ctx, &tokens);
    fv_recipe_destroy(recipe);
    return status;
}
