/* perplexity.c - exp of the mean negative log-likelihood over the second halves of windows of a text. */
#include "lab/lab.h"

#include <math.h>
#include <stdio.h>

typedef struct scoring {
    const fv_perplexity_options *options;
    int64_t windows, window; /* how many; which */
    const int32_t *token;    /* of this window */
    int64_t n_vocab;
    double sum, total_cost; /* total_cost: of a window, for progress */
    int64_t scored;
    const fv_model *model;
} scoring;

fv_perplexity_options fv_perplexity_options_default(void) {
    return (fv_perplexity_options){.context = 4096, .recipe = "", .kv_dtype = FV_AUTO};
}

static int on_logits(void *user, int64_t position, const float *logits) {
    scoring *s = user;
    if (position + 1 < s->options->context) {
        s->sum += fvi_lab_lse(logits, s->n_vocab) - logits[s->token[position + 1]];
        s->scored++;
    }
    return 0;
}

static int on_progress(void *user, int64_t done, int64_t total) {
    scoring *s = user;
    (void)total;
    if (s->options->progress == NULL) {
        return 0;
    }
    char what[64];
    snprintf(what, sizeof what, "window %lld of %lld", (long long)(s->window + 1), (long long)s->windows);
    double share = fvi_lab_cost(s->model, done) / s->total_cost;
    return s->options->progress(s->options->user, what, ((double)s->window + share) / (double)s->windows);
}

/* One window in a session of its own: a recipe that drops entries could not be rolled back. */
static fv_status score_window(fv_model *model, scoring *s) {
    fv_session_options options = fv_session_options_default();
    options.recipe = s->options->recipe;
    options.kv_dtype = s->options->kv_dtype;
    options.max_error = s->options->max_error;
    options.context = s->options->context;
    options.beyond_trained = s->options->beyond_trained;
    fv_session *session;
    fv_status status = fv_session_create(model, &options, &session);
    if (status != FV_OK) {
        return status;
    }
    fv_feed feed = {.progress = on_progress, .on_logits = on_logits, .logits_from = s->options->context / 2 - 1, .user = s};
    status = fv_session_feed(session, s->token, s->options->context, &feed);
    if (status == FV_OK) {
        status = fv_session_finish(session);
    }
    fv_session_destroy(session);
    return status;
}

static fv_status score_windows(fv_model *model, scoring *s, fv_tokens *tokens) {
    int64_t context = s->options->context, there = tokens->n / context;
    int32_t bos = fvi_lab_bos(model);
    if (there == 0) {
        return fvi_fail(fv_model_context(model), FV_ERR_RANGE,
                        "perplexity: the text has %lld tokens, a window needs %lld: give a longer text or a smaller context",
                        (long long)tokens->n, (long long)context);
    }
    s->windows = s->options->windows > 0 ? fvi_min(s->options->windows, there) : there;
    for (s->window = 0; s->window < s->windows; s->window++) {
        s->token = tokens->id + s->window * context;
        if (bos >= 0) {
            tokens->id[s->window * context] = bos;
        }
        fv_status status = score_window(model, s);
        if (status != FV_OK) {
            return status;
        }
    }
    return FV_OK;
}

fv_status fv_perplexity(fv_model *model, const fv_perplexity_options *options, fv_perplexity_result *out) {
    fv_context *ctx = fv_model_context(model);
    *out = (fv_perplexity_result){0};
    if (options->text == NULL && options->size > 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "perplexity: there is no text");
    }
    if (options->context < 2 || options->windows < 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "perplexity: context is %lld, must be 2 or more; windows is %lld, must be 0 or more",
                        (long long)options->context, (long long)options->windows);
    }
    double start = fvi_seconds();
    scoring s = {.options = options, .model = model, .total_cost = fvi_lab_cost(model, options->context)};
    s.n_vocab = fvi_lab_n_vocab(model);
    fv_tokens tokens = {0};
    fv_status status = fv_tokenize(ctx, fv_model_vocab(model), options->text, options->size, false, &tokens);
    if (status == FV_OK) {
        status = score_windows(model, &s, &tokens);
    }
    fv_tokens_release(ctx, &tokens);
    if (status == FV_OK) {
        double nll = s.sum / (double)s.scored;
        *out = (fv_perplexity_result){
            .perplexity = exp(nll), .nll = nll, .scored = s.scored, .windows = s.windows, .seconds = fvi_seconds() - start};
    }
    return status;
}
