/* calibrate_moa.c - MoA's profile of a model: influences of spans, search, choice.
 *
 * Fu et al.: MoA: Mixture of Sparse Attention for Automatic Large Language Model Compression, 2024 (arXiv 2406.14909), and
 * thu-nics/MoA (pipeline_profile.py). The paper estimates what hiding an attention weight A_ij does to the loss by its first
 * Taylor term, A_ij (dL/dA_ij - sum_k A_ik dL/dA_ik) / (1 - A_ij), adds up absolute values over what a rule hides, and takes the
 * dense model's own answers as what is to be predicted.
 *
 * Here it is a finite difference in place of the Taylor term: one head gets a span, all others stay dense, the prompt runs, and
 * the loss's growth is read off. It needs no gradients, so it works for every model that a session serves; it is the true effect
 * of hiding all of that at once, with signs, where the Taylor sum is an upper bound. The dense model's answers stand as the
 * target in expectation: over what the dense model would say next, the loss grows by exactly KL(dense || head with a span), which
 * is never negative and has no noise of sampling; taken at up to 64 rows of the prompt's second half. As in the paper,
 * what heads lose is added up as if they did not meet.
 *
 * Cost: (1 + heads x spans) prompts a length. Two lengths (n/2 and n; the paper has 2k, 4k, 8k) and up to six spans (one block,
 * 1/16, 1/8, 1/4, 1/2, 3/4 of the prompt) are measured; between them losses follow the logarithm of the span. Where products are
 * of bf16, a change of any size moves a distribution by some 1e-5 nats (on the default model), and spans that lose less are not
 * told apart. */
#include "lab/calibrate_moa.h"

#include "lab/compare.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK = 64, ROWS = 64, RULES = 256, BETAS = 9, NODES = 100000 };
static const double default_budget = 0.5, dense_rule[2] = {0, 1};

/* ---- the table ---- */

void fvi_moa_table_plan(int64_t tokens, int64_t heads, fvi_moa_table *out) {
    static const int64_t share[FVI_MOA_SPANS] = {0, 1, 2, 4, 8, 12}; /* of 16 */
    *out = (fvi_moa_table){.heads = heads};
    for (int e = 0; e < FVI_MOA_LENGTHS; e++) {
        out->length[e] = e == 0 ? tokens / 2 : tokens;
        const int64_t blocks = fvi_ceil_div(out->length[e], BLOCK);
        for (int k = 0; k < FVI_MOA_SPANS; k++) {
            const int64_t span = fvi_max(1, blocks * share[k] / 16), n = out->spans[e];
            if (span < blocks && (n == 0 || span > out->span[e][n - 1])) {
                out->span[e][out->spans[e]++] = span;
            }
        }
    }
}

static double *loss_at(const fvi_moa_table *t, int e, int64_t head) { return t->loss + (e * t->heads + head) * FVI_MOA_SPANS; }

double fvi_moa_table_loss(const fvi_moa_table *t, int e, int64_t head, int64_t blocks) {
    const int64_t *span = t->span[e], n = t->spans[e], all = fvi_ceil_div(t->length[e], BLOCK);
    const double *loss = loss_at(t, e, head);
    int64_t k = 0;
    while (k < n && span[k] <= blocks) {
        k++;
    }
    if (k == 0 || blocks >= all) {
        return k == 0 && n > 0 ? loss[0] : 0;
    }
    const double low = (double)span[k - 1], high = (double)(k < n ? span[k] : all), next = k < n ? loss[k] : 0;
    return loss[k - 1] + (next - loss[k - 1]) * log((double)blocks / low) / log(high / low);
}

void fvi_moa_table_release(fv_context *ctx, fvi_moa_table *t) {
    fvi_release(ctx, t->loss, (size_t)(FVI_MOA_LENGTHS * t->heads * FVI_MOA_SPANS), sizeof *t->loss);
    t->loss = NULL;
}

/* ---- running the model ---- */

typedef struct trials {
    fv_model *model;
    fv_context *ctx;
    const fv_calibrate_options *options;
    fv_model_facts facts;
    fv_profile *profile; /* of all heads; lent to the session */
    fv_session *session;
    fvi_rows rows;
    char what[96];
    double done, total, cost; /* fvi_lab_cost: of all runs before, of all, of this one */
} trials;

static int on_logits(void *user, int64_t position, const float *logits) {
    (void)position;
    fvi_rows_take(&((trials *)user)->rows, logits);
    return 0;
}

static int on_progress(void *user, int64_t done, int64_t total) {
    const trials *t = user;
    const double share = total > 0 ? (double)done / (double)total : 1;
    return t->options->progress == NULL ? 0
                                        : t->options->progress(t->options->user, t->what, (t->done + share * t->cost) / t->total);
}

/* All of the profile dense but what is set. */
static fv_status set_dense(const trials *t) {
    fv_status status = FV_OK;
    for (int64_t h = 0; h < t->facts.layers * t->facts.h_q && status == FV_OK; h++) {
        status = fv_profile_set(t->profile, (int)(h / t->facts.h_q), h % t->facts.h_q, dense_rule, 2);
    }
    return status;
}

static fv_status set_span(const trials *t, int64_t head, int64_t blocks) {
    const double number[2] = {(double)(blocks * BLOCK), 0};
    return fv_profile_set(t->profile, (int)(head / t->facts.h_q), head % t->facts.h_q, blocks > 0 ? number : dense_rule, 2);
}

static fv_status open_trials(fv_model *model, const fv_calibrate_options *options, trials *t) {
    *t = (trials){.model = model, .ctx = fv_model_context(model), .options = options};
    fv_model_describe(model, &t->facts);
    fv_status status = fv_profile_create(t->ctx, "moa", t->facts.layers, t->facts.h_q, &t->profile);
    return status == FV_OK ? set_dense(t) : status;
}

/* A session and rows for prompts of n tokens. */
static fv_status open_length(trials *t, int64_t n) {
    fv_session_options o = fv_session_options_default();
    o.recipe = "prefill=moa:fallback=0";
    o.kv_dtype = t->options->kv_dtype;
    o.context = n;
    o.profile = t->profile;
    t->cost = fvi_lab_cost(t->model, n);
    fv_status status = fv_session_create(t->model, &o, &t->session);
    return status == FV_OK ? fvi_rows_open(t->ctx, n, ROWS, fvi_lab_n_vocab(t->model), &t->rows) : status;
}

static void close_length(trials *t) {
    fv_session_destroy(t->session);
    t->session = NULL;
    fvi_rows_close(t->ctx, &t->rows);
}

static void close_trials(trials *t) {
    close_length(t);
    fv_profile_destroy(t->profile);
}

/* Runs a prompt under the profile as it stands: the reference, or its KL from the reference. */
static fv_status run_prompt(trials *t, const int32_t *token, int64_t n, bool reference, double *kl) {
    fvi_rows_begin(&t->rows, reference);
    const fv_feed feed = {
        .progress = on_progress, .on_logits = on_logits, .logits_from = t->rows.from, .logits_every = t->rows.every, .user = t};
    fv_status status = fv_session_rollback(t->session, 0);
    if (status == FV_OK) {
        status = fv_session_feed(t->session, token, n, &feed);
    }
    if (status == FV_OK) {
        status = fv_session_finish(t->session);
    }
    fv_compare_row row = {0};
    fvi_rows_summarise(&t->rows, &row);
    *kl = row.kl;
    t->done += t->cost;
    return status;
}

/* Spans of a head, shortest first. */
static fv_status try_head(trials *t, const int32_t *token, fvi_moa_table *table, int e, int64_t head) {
    const int64_t n = table->spans[e];
    double *loss = loss_at(table, e, head), kl = 0;
    fv_status status = FV_OK;
    for (int64_t k = 0; k < n && status == FV_OK; k++) {
        snprintf(t->what, sizeof t->what, "%lld tokens, head %lld of %lld, span %lld of %lld", (long long)table->length[e],
                 (long long)(head + 1), (long long)table->heads, (long long)(k + 1), (long long)n);
        status = set_span(t, head, table->span[e][k]);
        if (status == FV_OK) {
            status = run_prompt(t, token, table->length[e], false, &kl);
        }
        loss[k] += kl / (double)t->options->prompts;
    }
    return status == FV_OK ? set_span(t, head, 0) : status;
}

static fv_status try_prompt(trials *t, int32_t *token, fvi_moa_table *table, int e) {
    double none;
    const int32_t bos = fvi_lab_bos(t->model);
    token[0] = bos >= 0 ? bos : token[0];
    snprintf(t->what, sizeof t->what, "%lld tokens, dense", (long long)table->length[e]);
    fv_status status = run_prompt(t, token, table->length[e], true, &none);
    for (int64_t head = 0; head < table->heads && status == FV_OK; head++) {
        status = try_head(t, token, table, e, head);
    }
    return status;
}

/* `total` is set by the caller, who may have more to run. */
static fv_status measure(trials *t, fv_tokens *tokens, fvi_moa_table *table) {
    const size_t n = (size_t)(FVI_MOA_LENGTHS * table->heads * FVI_MOA_SPANS);
    table->loss = fvi_zalloc(t->ctx, n, sizeof *table->loss);
    if (table->loss == NULL) {
        return fvi_fail(t->ctx, FV_ERR_MEMORY, "no memory for what %lld heads lose", (long long)table->heads);
    }
    const int64_t prompts = t->options->prompts, apart = tokens->n / prompts;
    fv_status status = FV_OK;
    for (int e = 0; e < FVI_MOA_LENGTHS && status == FV_OK; e++) {
        status = open_length(t, table->length[e]);
        for (int64_t p = 0; p < prompts && status == FV_OK; p++) {
            status = try_prompt(t, tokens->id + p * apart, table, e);
        }
        close_length(t);
    }
    return status;
}

static double cost_of(const trials *t, const fvi_moa_table *table) {
    double cost = 0;
    for (int e = 0; e < FVI_MOA_LENGTHS; e++) {
        cost += fvi_lab_cost(t->model, table->length[e]) * (double)(1 + table->heads * table->spans[e]);
    }
    return cost * (double)t->options->prompts;
}

fv_status fvi_moa_measure(fv_model *model, const fv_calibrate_options *options, fv_tokens *tokens, fvi_moa_table *table) {
    trials t;
    fv_status status = open_trials(model, options, &t);
    t.total = cost_of(&t, table);
    if (status == FV_OK) {
        status = measure(&t, tokens, table);
    }
    close_trials(&t);
    return status;
}

/* ---- from losses to plans ---- */

typedef struct task {
    fv_moa_rule rule[RULES];
    int64_t rules, longest; /* longest: the length that plans are compared at */
    double cost[(FVI_MOA_LENGTHS + 1) * RULES], bound[FVI_MOA_LENGTHS + 1];
    double *loss; /* (lengths, heads, rules) */
} task;

static size_t losses_of(const fvi_moa_table *t, const task *k) { return (size_t)(FVI_MOA_LENGTHS * t->heads * k->rules); }

/* Rules, and what each costs at each length and loses for each head. */
static fv_status set_task(fv_context *ctx, const fvi_moa_table *t, double budget, task *k) {
    const int64_t top = t->length[FVI_MOA_LENGTHS - 1];
    const fv_moa_grid grid = {t->length[0], top, k->longest, fvi_max(BLOCK, top / 8), BETAS};
    k->rules = fvi_min(RULES, fv_moa_rules(&grid, k->rule, RULES));
    k->loss = fvi_alloc(ctx, losses_of(t, k), sizeof *k->loss);
    if (k->loss == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for what %lld rules lose", (long long)k->rules);
    }
    for (int e = 0; e <= FVI_MOA_LENGTHS; e++) {
        const int64_t blocks = fvi_ceil_div(e < FVI_MOA_LENGTHS ? t->length[e] : k->longest, BLOCK);
        k->bound[e] = budget;
        for (int64_t r = 0; r < k->rules; r++) {
            k->cost[e * k->rules + r] = fv_moa_density(k->rule[r], blocks);
            for (int64_t h = 0; h < t->heads && e < FVI_MOA_LENGTHS; h++) {
                k->loss[(e * t->heads + h) * k->rules + r] = fvi_moa_table_loss(t, e, h, fv_moa_span(k->rule[r], blocks));
            }
        }
    }
    return FV_OK;
}

static fv_status set_plan(const trials *t, const task *k, const int32_t *rule) {
    fv_status status = FV_OK;
    for (int64_t h = 0; h < t->facts.layers * t->facts.h_q && status == FV_OK; h++) {
        const fv_moa_rule r = k->rule[rule[h]];
        status = fv_profile_set(t->profile, (int)(h / t->facts.h_q), h % t->facts.h_q, (const double[]){r.alpha, r.beta}, 2);
    }
    return status;
}

/* Which plan is best at a length that was not profiled. */
static fv_status compare_plans(trials *t, const task *k, const fv_moa_plans *plans, int32_t *token, int64_t *best) {
    double kl, least = INFINITY;
    const int32_t bos = fvi_lab_bos(t->model);
    token[0] = bos >= 0 ? bos : token[0];
    t->total = t->done + fvi_lab_cost(t->model, k->longest) * (double)(1 + plans->n);
    snprintf(t->what, sizeof t->what, "%lld plans at %lld tokens", (long long)plans->n, (long long)k->longest);
    fv_status status = set_dense(t);
    if (status == FV_OK) {
        status = open_length(t, k->longest);
    }
    if (status == FV_OK) {
        status = run_prompt(t, token, k->longest, true, &kl);
    }
    for (int64_t i = 0; i < plans->n && status == FV_OK; i++) {
        status = set_plan(t, k, plans->rule + i * plans->heads);
        if (status == FV_OK) {
            status = run_prompt(t, token, k->longest, false, &kl);
        }
        *best = kl < least ? i : *best;
        least = fmin(kl, least);
    }
    close_length(t);
    return status;
}

static fv_status choose(trials *t, fv_tokens *tokens, const fvi_moa_table *table, task *k) {
    const double budget = t->options->budget > 0 ? t->options->budget : default_budget;
    fv_status status = set_task(t->ctx, table, budget, k);
    if (status != FV_OK) {
        return status;
    }
    const fv_moa_problem problem = {.heads = table->heads,
                                    .rules = k->rules,
                                    .losses = FVI_MOA_LENGTHS,
                                    .loss = k->loss,
                                    .budgets = FVI_MOA_LENGTHS + 1,
                                    .cost = k->cost,
                                    .bound = k->bound,
                                    .limit = NODES};
    fv_moa_plans plans;
    int64_t best = 0;
    status = fv_moa_search(t->ctx, &problem, &plans);
    if (status == FV_OK && plans.n > 1) {
        status = compare_plans(t, k, &plans, tokens->id + tokens->n - k->longest, &best);
    }
    if (status == FV_OK) {
        status = set_plan(t, k, plans.rule + best * plans.heads);
    }
    fv_moa_plans_free(t->ctx, &plans);
    return status;
}

fv_status fvi_calibrate_moa(fv_model *model, const fv_calibrate_options *options, fv_tokens *tokens, fv_profile **out) {
    fv_context *ctx = fv_model_context(model);
    if (options->tokens < 2 * BLOCK) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "moa: prompts of %lld tokens are too short for spans of %d keys: give %d or more",
                        (long long)options->tokens, BLOCK, 2 * BLOCK);
    }
    trials t;
    fvi_moa_table table = {0};
    fv_status status = open_trials(model, options, &t);
    task *k = fvi_zalloc(ctx, 1, sizeof *k);
    if (status == FV_OK && k == NULL) {
        status = fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a search of rules");
    }
    if (status == FV_OK) {
        k->longest = fvi_max(options->tokens, fvi_min(fvi_min(2 * options->tokens, t.facts.context), tokens->n));
        fvi_moa_table_plan(options->tokens, t.facts.layers * t.facts.h_q, &table);
        t.total = cost_of(&t, &table);
        status = measure(&t, tokens, &table);
    }
    if (status == FV_OK) {
        status = choose(&t, tokens, &table, k);
    }
    if (status == FV_OK) {
        *out = t.profile;
        t.profile = NULL;
    }
    if (k != NULL) {
        fvi_release(ctx, k->loss, losses_of(&table, k), sizeof *k->loss);
    }
    fvi_release(ctx, k, 1, sizeof *k);
    fvi_moa_table_release(ctx, &table);
    close_trials(&t);
    return status;
}
