/* compare_run.c - one recipe on one document: its prompt, its steps, its questions.
 *
 * The document is a prompt with an end. Each question is a second prompt after it, once greedily and once with its answer in
 * it, and the session is rolled back to the document's end in between.
 */
#include "lab/compare.h"

#include <stdio.h>
#include <string.h>

/* One recipe on one document. */
typedef struct run {
    fvi_job *job;
    fv_session *session;
    fv_compare_row *row;
    double step_seconds;
    int64_t steps;
} run;

/* What the session calls while it takes a prompt: the document, or a question with its answer. */
typedef struct listener {
    fvi_job *job;
    double share;                    /* of the run, once this prompt is done */
    const fv_tokens *asked;          /* NULL for the document */
    int64_t document_end, answer_at; /* position of asked[0]; index in asked */
    bool right;
} listener;

/* ---- listening ---- */

static bool report(const fvi_job *j, double share) {
    double done = j->cost_done + share * j->cost_run;
    return j->options->progress != NULL && j->options->progress(j->options->user, j->what, done / j->cost_total) != 0;
}

static int on_progress(void *user, int64_t done, int64_t total) {
    listener *l = user;
    double part = total > 0 ? fvi_lab_cost(l->job->model, done) / fvi_lab_cost(l->job->model, total) : 1;
    return report(l->job, part * l->share);
}

static int on_document_row(void *user, int64_t position, const float *logits) {
    (void)position;
    fvi_rows_take(&((listener *)user)->job->rows, logits);
    return 0;
}

static int on_answer_row(void *user, int64_t position, const float *logits) {
    listener *l = user;
    int64_t next = position + 1 - l->document_end;
    if (next >= l->answer_at && next < l->asked->n) {
        l->right = l->right && fvi_lab_argmax(logits, l->job->rows.n_vocab) == l->asked->id[next];
    }
    return 0;
}

/* ---- one question ---- */

static fv_status join(fvi_job *j, const fvi_question *q) {
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
    fvi_job *j = r->job;
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
    if (status == FV_OK) {
        status = fv_session_finish(r->session);
    }
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
    int32_t id = logits != NULL ? fvi_lab_argmax(logits, r->job->rows.n_vocab) : -1;
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

/* Whether the text begins with the answer and nothing more of its last word: 12345 is no answer where 1234 is right. */
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
    fvi_job *j = r->job;
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

/* What the document's prompt visited, and what that cost. */
static void summarise_prompt(run *r) {
    fv_run_stats s = fv_session_stats(r->session);
    fv_compare_row *row = r->row;
    const double threads = fv_threads(r->job->ctx), tiles = s.tiles > 0 ? (double)s.fallback_tiles / (double)s.tiles : 0;
    const double heads = s.audited_heads > 0 ? (double)s.dense_heads / (double)s.audited_heads : 0;
    row->attention_seconds = fv_session_seconds(r->session).attention;
    row->select_share = row->attention_seconds > 0 ? s.select_seconds / threads / row->attention_seconds : 0;
    row->fallback = tiles > heads ? tiles : heads;
    row->density = s.eligible_pairs > 0 ? (double)s.visited_pairs / (double)s.eligible_pairs : 1;
}

static fv_status read_document(run *r, double share) {
    fvi_job *j = r->job;
    fvi_rows *s = &j->rows;
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
    summarise_prompt(r);
    return status;
}

static fv_status speed_at_end(run *r) {
    fv_status status = FV_OK;
    for (int i = 0; i < FVI_STEPS && status == FV_OK; i++) {
        const float *logits = fv_session_logits(r->session);
        status = timed_step(r, logits != NULL ? fvi_lab_argmax(logits, r->job->rows.n_vocab) : 0);
    }
    return status;
}

/* Dense's row of the same document: the first of its group. */
static const fv_compare_row *dense_row(const fvi_job *j) {
    return &j->out->row[j->out->n - j->out->n % (j->options->n_recipes + 1)];
}

static void summarise(run *r) {
    fv_compare_row *row = r->row;
    fvi_rows_summarise(&r->job->rows, row);
    fv_run_stats stats = fv_session_stats(r->session);
    row->step_tokens_per_second = r->step_seconds > 0 ? (double)r->steps / r->step_seconds : 0;
    row->kv_masked_only = stats.exact_pairs < stats.eligible_pairs && row->kv_bytes >= dense_row(r->job)->kv_bytes;
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

fv_status fvi_compare_recipe(fvi_job *j, const char *recipe, int64_t context) {
    fv_compare_row *row = &j->out->row[j->out->n];
    *row = (fv_compare_row){.length = j->document.n, .facts = j->material.n};
    snprintf(row->recipe, sizeof row->recipe, "%s", recipe == NULL || recipe[0] == '\0' ? "dense" : recipe);
    snprintf(j->what, sizeof j->what, "%lld tokens, %s", (long long)j->document.n, row->recipe);
    fvi_rows_begin(&j->rows, recipe == NULL);
    fv_session_options options = fv_session_options_default();
    options.recipe = recipe;
    options.kv_dtype = j->options->kv_dtype;
    options.max_error = recipe != NULL ? j->options->max_error : 0;
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
