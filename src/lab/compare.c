/* compare.c - one document a length, dense attention and several recipes on each: what each costs, and what it loses.
 *
 * Sessions live one at a time, so that memory holds one cache and dense's log-probabilities at the measured rows.
 */
#include "lab/compare.h"

#include <string.h>

static fv_status run_length(fvi_job *j, int64_t length) {
    fv_tokens_release(j->ctx, &j->document);
    fv_status status = fvi_document_make(&j->material, length, &j->document);
    if (status == FV_OK) {
        status = fvi_rows_open(j->ctx, j->document.n, j->options->rows, fvi_lab_n_vocab(j->model), &j->rows);
    }
    j->cost_run = fvi_lab_cost(j->model, length);
    for (int r = -1; r < j->options->n_recipes && status == FV_OK; r++) {
        status = fvi_compare_recipe(j, r < 0 ? NULL : j->options->recipes[r], length);
    }
    fvi_rows_close(j->ctx, &j->rows);
    return status;
}

static fv_status check_recipes(fvi_job *j) {
    for (int i = 0; i < j->options->n_recipes; i++) {
        const char *text = j->options->recipes[i];
        fv_recipe *recipe = NULL;
        if (text == NULL || strlen(text) >= sizeof j->out->row[0].recipe) {
            return fvi_fail(j->ctx, FV_ERR_ARGUMENT, "compare: recipe %d is %s", i + 1,
                            text == NULL ? "missing" : "longer than 255 bytes");
        }
        fv_status status = fv_recipe_parse(j->ctx, text, &recipe);
        fv_recipe_destroy(recipe);
        if (status != FV_OK) {
            return status;
        }
    }
    return FV_OK;
}

/* Everything that can be known to fail is refused before the first prompt runs. */
static fv_status prepare(fvi_job *j) {
    const fv_compare_options *o = j->options;
    if (o->n_lengths < 1 || o->lengths == NULL || (o->text == NULL && o->size > 0) || o->n_recipes < 0 || o->n_facts < 0 ||
        (o->n_recipes > 0 && o->recipes == NULL) || (o->n_facts > 0 && o->facts == NULL) || o->rows < 0) {
        return fvi_fail(
            j->ctx, FV_ERR_ARGUMENT,
            "compare: needs a text, one length or more, and no negative number: %d lengths, %d recipes, %d facts, %lld rows",
            o->n_lengths, o->n_recipes, o->n_facts, (long long)o->rows);
    }
    fv_status status = check_recipes(j);
    if (status == FV_OK) {
        status = fvi_material_make(j->model, o, &j->material);
    }
    fv_model_facts facts;
    fv_model_describe(j->model, &facts);
    for (int i = 0; i < o->n_lengths && status == FV_OK; i++) {
        int64_t size;
        if (o->lengths[i] > facts.context) {
            return fvi_fail(j->ctx, FV_ERR_RANGE, "compare: a length of %lld is beyond the model's trained context of %lld",
                            (long long)o->lengths[i], (long long)facts.context);
        }
        status = fvi_document_size(&j->material, o->lengths[i], &size);
        j->cost_total += fvi_lab_cost(j->model, o->lengths[i]) * (o->n_recipes + 1);
    }
    return status;
}

static fv_status open_result(fv_context *ctx, const fv_compare_options *o, fv_compare **out) {
    fv_compare *c = fvi_zalloc(ctx, 1, sizeof *c);
    if (c == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a comparison");
    }
    c->ctx = ctx;
    int64_t rows = (int64_t)o->n_lengths * ((int64_t)o->n_recipes + 1), capacity = 0;
    if (rows > INT32_MAX || !fvi_grow(ctx, (void **)&c->row, &capacity, rows, sizeof *c->row)) {
        fv_compare_destroy(c);
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a table of %lld rows", (long long)rows);
    }
    c->capacity = (int)capacity;
    *out = c;
    return FV_OK;
}

/* A short prompt and a step that are not measured: what is unpacked or compiled once must not count against dense, which runs
 * first. */
static fv_status warm_up(fvi_job *j) {
    int64_t n = fvi_min(fvi_min(511, j->options->lengths[0] - 1), j->material.text.n);
    fv_session_options options = fv_session_options_default();
    options.kv_dtype = j->options->kv_dtype;
    options.context = n + 1;
    fv_session *session;
    fv_status status = fv_session_create(j->model, &options, &session);
    if (status == FV_OK) {
        status = fv_session_feed(session, j->material.text.id, n, NULL);
    }
    if (status == FV_OK) {
        status = fv_session_finish(session);
    }
    if (status == FV_OK) {
        status = fv_session_step(session, j->material.text.id[0]);
    }
    fv_session_destroy(session);
    return status;
}

fv_compare_options fv_compare_options_default(void) { return (fv_compare_options){.rows = 512, .kv_dtype = FV_AUTO}; }

fv_status fv_compare_run(fv_model *model, const fv_compare_options *options, fv_compare **out) {
    *out = NULL;
    fvi_job j = {.model = model, .ctx = fv_model_context(model), .options = options};
    j.material.ctx = j.ctx;
    fv_status status = prepare(&j);
    if (status == FV_OK) {
        status = open_result(j.ctx, options, &j.out);
    }
    if (status == FV_OK) {
        status = warm_up(&j);
    }
    for (int i = 0; i < options->n_lengths && status == FV_OK; i++) {
        status = run_length(&j, options->lengths[i]);
    }
    fvi_material_release(&j.material);
    fv_tokens_release(j.ctx, &j.document);
    fv_tokens_release(j.ctx, &j.asked);
    if (status != FV_OK) {
        fv_compare_destroy(j.out);
        return status;
    }
    fvi_compare_verdict(j.out->row, options->n_lengths, options->n_recipes, j.out->verdict, sizeof j.out->verdict);
    *out = j.out;
    return FV_OK;
}

void fv_compare_destroy(fv_compare *c) {
    if (c != NULL) {
        fvi_release(c->ctx, c->row, (size_t)c->capacity, sizeof *c->row);
        fvi_release(c->ctx, c, 1, sizeof *c);
    }
}

int fv_compare_rows(const fv_compare *c) { return c->n; }
const fv_compare_row *fv_compare_row_at(const fv_compare *c, int i) { return i >= 0 && i < c->n ? &c->row[i] : NULL; }
const char *fv_compare_verdict(const fv_compare *c) { return c->verdict; }
