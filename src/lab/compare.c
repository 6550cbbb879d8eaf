/* compare.c - one document, several recipes: what each costs, and what it loses against dense attention.
 *
 * Sessions live one at a time. What is kept from dense are its log-probabilities at the measured rows, in f32: those of a
 * recipe that computes the same logits give a KL of exactly 0.
 */
#include "lab/compare.h"
#include "lab/document.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The measured rows of one document, as its prompt runs. */
typedef struct row_sink {
    int64_t from, every, most; /* positions from, from + every, ... below the document's end: `most` of them */
    int64_t n_vocab, n;        /* n: seen so far */
    float *reference;          /* (most, n_vocab) */
    double *kl;                /* (most) */
    int64_t agree;
    bool fills;     /* dense: the reference is written */
    double seconds; /* spent here, which is no part of the prompt's time */
} row_sink;

typedef struct job {
    fv_model *model;
    fv_context *ctx;
    const fv_compare_options *options;
    fvi_material material;
    fv_tokens document, asked; /* of the present length; question + answer */
    row_sink sink;
    size_t reference_floats;
    double cost_done, cost_run, cost_total; /* before this run; of it; of all */
    char what[320];
    fv_compare *out;
} job;

/* One recipe on one document. */
typedef struct run {
    job *job;
    fv_session *session;
    fv_compare_row *row;
    double step_seconds;
    int64_t steps;
} run;

/* What the session calls while it takes a prompt: the document, or a question with its answer. */
typedef struct listener {
    job *job;
    double share;                    /* of the run, once this prompt is done */
    const fv_tokens *asked;          /* NULL for the document */
    int64_t document_end, answer_at; /* position of asked[0]; index in asked */
    bool right;
} listener;

/* ---- listening ---- */

static bool report(const job *j, double share) {
    double done = j->cost_done + share * j->cost_run;
    return j->options->progress != NULL && j->options->progress(j->options->user, j->what, done / j->cost_total) != 0;
}

static int on_progress(void *user, int64_t done, int64_t total) {
    listener *l = user;
    double part = total > 0 ? fvi_lab_cost(l->job->model, done) / fvi_lab_cost(l->job->model, total) : 1;
    return report(l->job, part * l->share);
}

static void keep_row(row_sink *s, const float *logits) {
    double lse = fvi_lab_lse(logits, s->n_vocab);
    float *reference = s->reference + s->n * s->n_vocab;
    for (int64_t i = 0; i < s->n_vocab; i++) {
        reference[i] = (float)(logits[i] - lse);
    }
    s->kl[s->n] = 0;
    s->agree++;
}

/* Log-probabilities are rounded to f32 on both sides, so that equal logits cancel. */
static void compare_row(row_sink *s, const float *logits) {
    double lse = fvi_lab_lse(logits, s->n_vocab), kl = 0;
    const float *reference = s->reference + s->n * s->n_vocab;
    for (int64_t i = 0; i < s->n_vocab; i++) {
        double p = reference[i], q = (float)(logits[i] - lse);
        kl += p > -INFINITY && p != q ? exp(p) * (p - q) : 0;
    }
    s->kl[s->n] = kl < 0 ? 0 : kl;
    s->agree += fvi_lab_argmax(reference, s->n_vocab) == fvi_lab_argmax(logits, s->n_vocab);
}

static int on_document_row(void *user, int64_t position, const float *logits) {
    row_sink *s = &((listener *)user)->job->sink;
    (void)position;
    if (s->n < s->most) {
        double start = fvi_seconds();
        (s->fills ? keep_row : compare_row)(s, logits);
        s->n++;
        s->seconds += fvi_seconds() - start;
    }
    return 0;
}

static int on_answer_row(void *user, int64_t position, const float *logits) {
    listener *l = user;
    int64_t next = position + 1 - l->document_end;
    if (next >= l->answer_at && next < l->asked->n) {
        l->right = l->right && fvi_lab_argmax(logits, l->job->sink.n_vocab) == l->asked->id[next];
    }
    return 0;
}

/* ---- one question ---- */

static fv_status join(job *j, const fvi_question *q) {
    int64_t n = q->ask.n + q->answer.n;
    if (!fvi_grow(j->ctx, (void **)&j->asked.id, &j->asked.capacity, n, sizeof *j->asked.id)) {
        return fvi_fail(j->ctx, FV_ERR_MEMORY, "no memory for a question of %lld tokens", (long long)n);
    }
    memcpy(j->asked.id, q->ask.id, (size_t)q->ask.n * sizeof *q->ask.id);
    memcpy(j->asked.id + q->ask.n, q->answer.id, (size_t)q->answer.n * sizeof *q->answer.id);
    j->asked.n = n;
    return FV_OK;
}

/* Question and answer as prompt rows: right if each token of the answer is the most likely one at its place. */
static fv_status ask_forced(run *r, const fvi_question *q) {
    job *j = r->job;
    int64_t end = j->document.n;
    fv_status status = join(j, q);
    if (status == FV_OK) {
        status = fv_session_rollback(r->session, end);
    }
    if (status != FV_OK) {
        return status;
    }
    listener l = {.job = j, .asked = &j->asked, .document_end = end, .answer_at = q->ask.n, .right = true};
    fv_feed feed = {.on_logits = on_answer_row, .logits_from = end + q->ask.n - 1, .user = &l};
    status = fv_session_feed(r->session, j->asked.id, j->asked.n, &feed);
    r->row->forced += status == FV_OK && l.right;
    return status;
}

static fv_status timed_step(run *r, int32_t id) {
    double start = fvi_seconds();
    fv_status status = fv_session_step(r->session, id);
    r->step_seconds += fvi_seconds() - start;
    r->steps++;
    return status;
}

/* The most likely next token; -1 where a generation ends. */
static int32_t next_token(const run *r) {
    const float *logits = fv_session_logits(r->session);
    int32_t id = logits != NULL ? fvi_lab_argmax(logits, r->job->sink.n_vocab) : -1;
    return id >= 0 && !fv_vocab_is_end(r->job->material.vocab, id) ? id : -1;
}

/* Generates up to `most` tokens after a prompt's end. A text that does not fit is longer than any right answer: it is cut. */
static fv_status generate(run *r, int64_t most, char *text, size_t capacity) {
    fv_detokenizer state = {0};
    size_t size = 0;
    text[0] = '\0';
    for (int64_t i = 0; i < most; i++) {
        size_t more = 0;
        int32_t id = next_token(r);
        if (id < 0) {
            break;
        }
        fv_status status =
            fv_detokenize(r->job->ctx, r->job->material.vocab, &state, id, false, text + size, capacity - size - 1, &more);
        if (status != FV_OK) {
            return status == FV_ERR_RANGE ? FV_OK : status;
        }
        size += more;
        text[size] = '\0';
        if (i + 1 < most && (status = timed_step(r, id)) != FV_OK) {
            return status;
        }
    }
    return FV_OK;
}

static bool blank(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }
static bool word(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* Whether the text begins with the answer, and does not go on in the same word or number. */
static bool answers(const char *text, const char *answer) {
    while (blank(*text)) {
        text++;
    }
    while (blank(*answer)) {
        answer++;
    }
    size_t n = strlen(answer);
    while (n > 0 && blank(answer[n - 1])) {
        n--;
    }
    return n > 0 && strncmp(text, answer, n) == 0 && !(word(answer[n - 1]) && word(text[n]));
}

static fv_status ask_greedily(run *r, const fvi_question *q, const char *answer) {
    job *j = r->job;
    size_t capacity = strlen(answer) + 512;
    char *text = fvi_alloc(j->ctx, capacity, 1);
    if (text == NULL) {
        return fvi_fail(j->ctx, FV_ERR_MEMORY, "no memory for an answer");
    }
    fv_status status = fv_session_rollback(r->session, j->document.n);
    if (status == FV_OK) {
        status = fv_session_feed(r->session, q->ask.id, q->ask.n, NULL);
    }
    if (status == FV_OK) {
        status = fv_session_finish(r->session);
    }
    if (status == FV_OK) {
        status = generate(r, q->answer.n + FVI_SPARE, text, capacity);
    }
    r->row->greedy += status == FV_OK && answers(text, answer);
    fvi_release(j->ctx, text, capacity, 1);
    return status;
}

static fv_status ask_all(run *r, double from) {
    const fvi_material *m = &r->job->material;
    for (int i = 0; i < m->n; i++) {
        fv_status status = ask_greedily(r, &m->question[i], m->fact[i].answer);
        if (status == FV_OK) {
            status = ask_forced(r, &m->question[i]);
        }
        if (status == FV_OK && report(r->job, from + (1 - from) * (i + 1) / m->n)) {
            status = fvi_fail(r->job->ctx, FV_ERR_CANCELLED, "the comparison was stopped");
        }
        if (status != FV_OK) {
            return status;
        }
    }
    return FV_OK;
}

/* ---- one recipe ---- */

static fv_status read_document(run *r, double share) {
    job *j = r->job;
    row_sink *s = &j->sink;
    s->n = s->agree = 0;
    s->seconds = 0;
    listener l = {.job = j, .share = share};
    fv_feed feed = {.progress = on_progress, .user = &l};
    if (s->most > 0) {
        feed.on_logits = on_document_row;
        feed.logits_from = s->from;
        feed.logits_every = s->every;
    }
    double start = fvi_seconds();
    fv_status status = fv_session_feed(r->session, j->document.id, j->document.n, &feed);
    if (status == FV_OK) {
        status = fv_session_finish(r->session);
    }
    r->row->prompt_seconds = fvi_seconds() - start - s->seconds;
    r->row->prompt_tokens_per_second = (double)j->document.n / r->row->prompt_seconds;
    r->row->kv_bytes = fv_session_kv_bytes(r->session);
    return status;
}

static fv_status speed_at_end(run *r) {
    fv_status status = FV_OK;
    for (int i = 0; i < FVI_STEPS && status == FV_OK; i++) {
        const float *logits = fv_session_logits(r->session);
        status = timed_step(r, logits != NULL ? fvi_lab_argmax(logits, r->job->sink.n_vocab) : 0);
    }
    return status;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void summarise(run *r) {
    row_sink *s = &r->job->sink;
    fv_compare_row *row = r->row;
    double sum = 0;
    for (int64_t i = 0; i < s->n; i++) {
        sum += s->kl[i];
    }
    if (s->n > 0) {
        qsort(s->kl, (size_t)s->n, sizeof *s->kl, by_size);
        row->kl = sum / (double)s->n;
        row->kl_p99 = s->kl[fvi_ceil_div(s->n * 99, 100) - 1];
        row->top1 = (double)s->agree / (double)s->n;
    }
    row->rows = s->n;
    fv_run_stats stats = fv_session_stats(r->session);
    row->density = stats.eligible_pairs > 0 ? (double)stats.visited_pairs / (double)stats.eligible_pairs : 1;
    row->step_tokens_per_second = r->step_seconds > 0 ? (double)r->steps / r->step_seconds : 0;
    const fv_compare_row *dense = row;
    while (dense > r->job->out->row && dense[-1].length == row->length) {
        dense--;
    }
    row->kv_masked_only = stats.exact_pairs < stats.eligible_pairs && row->kv_bytes >= dense->kv_bytes;
}

static fv_status work(run *r) {
    /* questions: two short prompts and some steps each, which cost about what three times as many prompt tokens do */
    int64_t n = r->job->document.n, after = 3 * (2 * r->job->material.room * r->job->material.n + FVI_STEPS);
    double whole = fvi_lab_cost(r->job->model, n + after), share = fvi_lab_cost(r->job->model, n) / whole;
    fv_status status = read_document(r, share);
    if (status == FV_OK) {
        status = speed_at_end(r);
    }
    return status == FV_OK ? ask_all(r, share) : status;
}

/* recipe NULL: dense, the reference. */
static fv_status run_recipe(job *j, const char *recipe, int64_t context) {
    fv_compare_row *row = &j->out->row[j->out->n];
    *row = (fv_compare_row){.length = j->document.n, .facts = j->material.n};
    snprintf(row->recipe, sizeof row->recipe, "%s", recipe == NULL || recipe[0] == '\0' ? "dense" : recipe);
    snprintf(j->what, sizeof j->what, "%lld tokens, %s", (long long)j->document.n, row->recipe);
    j->sink.fills = recipe == NULL;
    fv_session_options options = fv_session_options_default();
    options.recipe = recipe;
    options.kv_dtype = j->options->kv_dtype;
    options.context = context;
    run r = {.job = j, .row = row};
    fv_status status = fv_session_create(j->model, &options, &r.session);
    if (status == FV_OK) {
        status = work(&r);
    }
    if (status == FV_OK) {
        summarise(&r);
        j->out->n++;
        j->cost_done += j->cost_run;
    }
    fv_session_destroy(r.session);
    return status;
}

/* ---- all of it ---- */

/* Rows spread over the second half: every so-many-th that no more than options->rows of them are. */
static fv_status open_sink(job *j) {
    row_sink *s = &j->sink;
    int64_t from = j->document.n / 2, span = j->document.n - from;
    s->from = from;
    s->every = j->options->rows > 0 ? fvi_ceil_div(span, j->options->rows) : 1;
    s->most = j->options->rows > 0 ? fvi_ceil_div(span, s->every) : 0;
    if (s->most == 0) {
        return FV_OK;
    }
    s->reference = fvi_alloc(j->ctx, (size_t)s->most, (size_t)s->n_vocab * sizeof *s->reference);
    s->kl = fvi_alloc(j->ctx, (size_t)s->most, sizeof *s->kl);
    if (s->reference == NULL || s->kl == NULL) {
        return fvi_fail(j->ctx, FV_ERR_MEMORY, "no memory for the reference: %lld rows of %lld log-probabilities",
                        (long long)s->most, (long long)s->n_vocab);
    }
    return FV_OK;
}

static void close_sink(job *j) {
    row_sink *s = &j->sink;
    fvi_release(j->ctx, s->reference, (size_t)s->most, (size_t)s->n_vocab * sizeof *s->reference);
    fvi_release(j->ctx, s->kl, (size_t)s->most, sizeof *s->kl);
    *s = (row_sink){.n_vocab = s->n_vocab};
}

static fv_status run_length(job *j, int64_t length) {
    fv_tokens_release(j->ctx, &j->document);
    fv_status status = fvi_document_make(&j->material, length, &j->document);
    if (status == FV_OK) {
        status = open_sink(j);
    }
    j->cost_run = fvi_lab_cost(j->model, length);
    for (int r = -1; r < j->options->n_recipes && status == FV_OK; r++) {
        status = run_recipe(j, r < 0 ? NULL : j->options->recipes[r], length);
    }
    close_sink(j);
    return status;
}

static fv_status check_recipes(job *j) {
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
static fv_status prepare(job *j) {
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

fv_compare_options fv_compare_options_default(void) { return (fv_compare_options){.rows = 512, .kv_dtype = FV_F16}; }

fv_status fv_compare_run(fv_model *model, const fv_compare_options *options, fv_compare **out) {
    *out = NULL;
    job j = {.model = model, .ctx = fvi_lab_context(model), .options = options};
    j.material.ctx = j.ctx;
    j.sink.n_vocab = fvi_lab_n_vocab(model);
    fv_status status = prepare(&j);
    if (status == FV_OK) {
        status = open_result(j.ctx, options, &j.out);
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
