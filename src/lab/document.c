/* document.c - facts go where sentences end, so that the text around them stays as the model knows it. */
#include "lab/document.h"

#include <string.h>

static const char default_form[] = "\n\nQuestion: {question}\nAnswer:";
static const char slot[] = "{question}";

/* ---- material ---- */

/* Appends the ids of a, b and c as one text. */
static fv_status tokenize_joined(fvi_material *m, const char *a, size_t a_size, const char *b, const char *c, bool special,
                                 fv_tokens *out) {
    size_t b_size = strlen(b), size = a_size + b_size + strlen(c);
    char *text = fvi_alloc(m->ctx, size + 1, 1);
    if (text == NULL) {
        return fvi_fail(m->ctx, FV_ERR_MEMORY, "no memory for a question of %zu bytes", size);
    }
    memcpy(text, a, a_size);
    memcpy(text + a_size, b, b_size);
    memcpy(text + a_size + b_size, c, size - a_size - b_size);
    fv_status status = fv_tokenize(m->ctx, m->vocab, text, size, special, out);
    fvi_release(m->ctx, text, size + 1, 1);
    return status;
}

static fv_status check_fact(fv_context *ctx, const fv_fact *fact, int number) {
    const char *const field[] = {fact->fact, fact->question, fact->answer};
    static const char *const name[] = {"fact", "question", "answer"};
    for (int i = 0; i < 3; i++) {
        if (field[i] == NULL || field[i][0] == '\0') {
            return fvi_fail(ctx, FV_ERR_ARGUMENT, "compare: fact %d has no \"%s\"", number, name[i]);
        }
    }
    if (!(fact->depth >= 0 && fact->depth <= 1)) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "compare: fact %d has depth %g, must be 0..1", number, fact->depth);
    }
    return FV_OK;
}

/* A form of the user's own may hold special tokens: a chat form does. */
static fv_status make_question(fvi_material *m, const char *form, const char *at, bool special, int i) {
    fvi_question *q = &m->question[i];
    const fv_fact *fact = &m->fact[i];
    fv_status status = check_fact(m->ctx, fact, i + 1);
    if (status == FV_OK) {
        status = tokenize_joined(m, form, (size_t)(at - form), fact->question, at + strlen(slot), special, &q->ask);
    }
    if (status == FV_OK) {
        status = tokenize_joined(m, " ", 1, fact->answer, "", false, &q->answer);
    }
    if (status == FV_OK) {
        status = tokenize_joined(m, " ", 1, fact->fact, "", false, &q->fact);
    }
    m->fact_tokens += q->fact.n;
    m->room = fvi_max(m->room, q->ask.n + q->answer.n + FVI_SPARE);
    return status;
}

fv_status fvi_material_make(fv_model *model, const fv_compare_options *options, fvi_material *out) {
    *out = (fvi_material){.ctx = fv_model_context(model), .vocab = fv_model_vocab(model), .fact = options->facts};
    out->bos = fvi_lab_bos(model);
    out->room = FVI_STEPS;
    const char *form = options->question_form != NULL ? options->question_form : default_form, *at = strstr(form, slot);
    if (at == NULL) {
        return fvi_fail(out->ctx, FV_ERR_ARGUMENT, "compare: the question form \"%.100s\" has no {question} in it", form);
    }
    if (options->n_facts > 0) {
        out->question = fvi_zalloc(out->ctx, (size_t)options->n_facts, sizeof *out->question);
        if (out->question == NULL) {
            return fvi_fail(out->ctx, FV_ERR_MEMORY, "no memory for %d questions", options->n_facts);
        }
        out->n = options->n_facts;
    }
    for (int i = 0; i < out->n; i++) {
        fv_status status = make_question(out, form, at, options->question_form != NULL, i);
        if (status != FV_OK) {
            return status;
        }
    }
    return fv_tokenize(out->ctx, out->vocab, options->text, options->size, false, &out->text);
}

void fvi_material_release(fvi_material *m) {
    for (int i = 0; i < m->n; i++) {
        fv_tokens_release(m->ctx, &m->question[i].fact);
        fv_tokens_release(m->ctx, &m->question[i].ask);
        fv_tokens_release(m->ctx, &m->question[i].answer);
    }
    fvi_release(m->ctx, m->question, (size_t)m->n, sizeof *m->question);
    fv_tokens_release(m->ctx, &m->text);
    *m = (fvi_material){0};
}

/* ---- document ---- */

static int64_t text_tokens(const fvi_material *m, int64_t document) { return document - (m->bos >= 0 ? 1 : 0) - m->fact_tokens; }

fv_status fvi_document_size(const fvi_material *m, int64_t length, int64_t *out) {
    *out = length - m->room;
    int64_t text = text_tokens(m, *out);
    if (text < 2) {
        return fvi_fail(m->ctx, FV_ERR_RANGE,
                        "compare: a length of %lld leaves no room for text: facts, a question and its answer take %lld",
                        (long long)length, (long long)(length - text));
    }
    if (text > m->text.n) {
        return fvi_fail(m->ctx, FV_ERR_RANGE, "compare: a length of %lld needs %lld tokens of text, there are %lld",
                        (long long)length, (long long)text, (long long)m->text.n);
    }
    return FV_OK;
}

static bool blank(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

/* Whether a sentence ends before token i: the token before it ends in . ! or ?, and this one begins with a space. */
static bool sentence_ends(const fvi_material *m, int64_t i) {
    size_t size, next_size;
    const char *piece = fv_vocab_piece(m->vocab, m->text.id[i - 1], &size);
    const char *next = fv_vocab_piece(m->vocab, m->text.id[i], &next_size);
    return piece != NULL && size > 0 && strchr(".!?", piece[size - 1]) != NULL && piece[size - 1] != '\0' && next != NULL &&
           next_size > 0 && blank(next[0]);
}

/* The last place at or before `at` where a sentence ends; 0 if there is none. */
static int64_t cut_before(const fvi_material *m, int64_t at) {
    at = fvi_min(at, m->text.n - 1);
    while (at > 0 && !sentence_ends(m, at)) {
        at--;
    }
    return at;
}

/* The fact that follows `last` in the order of depths, equal ones as they were given; -1 after the last. */
static int next_fact(const fvi_material *m, int last) {
    int best = -1;
    for (int i = 0; i < m->n; i++) {
        double depth = m->fact[i].depth;
        bool after = last < 0 || depth > m->fact[last].depth || (depth == m->fact[last].depth && i > last);
        if (after && (best < 0 || depth < m->fact[best].depth)) {
            best = i;
        }
    }
    return best;
}

static int32_t *copy_ids(int32_t *to, const int32_t *from, int64_t n) {
    memcpy(to, from, (size_t)n * sizeof *to);
    return to + n;
}

fv_status fvi_document_make(const fvi_material *m, int64_t length, fv_tokens *out) {
    int64_t size, from = 0;
    fv_status status = fvi_document_size(m, length, &size);
    if (status != FV_OK) {
        return status;
    }
    if (!fvi_grow(m->ctx, (void **)&out->id, &out->capacity, size, sizeof *out->id)) {
        return fvi_fail(m->ctx, FV_ERR_MEMORY, "no memory for a document of %lld tokens", (long long)size);
    }
    int64_t text = text_tokens(m, size);
    int32_t *to = out->id;
    if (m->bos >= 0) {
        *to++ = m->bos;
    }
    for (int i = next_fact(m, -1); i >= 0; i = next_fact(m, i)) {
        int64_t cut = cut_before(m, (int64_t)(m->fact[i].depth * (double)text));
        to = copy_ids(to, m->text.id + from, cut - from);
        to = copy_ids(to, m->question[i].fact.id, m->question[i].fact.n);
        from = cut;
    }
    copy_ids(to, m->text.id + from, text - from);
    out->n = size;
    return FV_OK;
}
