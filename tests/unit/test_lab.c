/* test_lab.c - the measurements against what sessions say directly, the questions file, the verdict; failures of every kind. */
#include "alloc_fail.h"
#include "fovea/fovea.h"
#include "lab/compare.h"
#include "tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const char default_model[] = "models/fovea-27m-32k-q8_0.gguf";
static char *moby, *pride; /* the books' first bytes; NULL where a book is missing */
static char tiny_path[64], second_path[64];

#define assert_ok(ctx, call)                                                                                                     \
    do {                                                                                                                         \
        fv_status status_ = (call);                                                                                              \
        if (status_ != FV_OK) {                                                                                                  \
            fail_msg("%s: %s: %s", #call, fv_status_name(status_), fv_message(ctx));                                             \
        }                                                                                                                        \
    } while (0)

static char *read_book(const char *path, size_t most) {
    FILE *file = fopen(path, "rb");
    char *text = file != NULL ? calloc(most + 1, 1) : NULL;
    if (text != NULL && fread(text, 1, most, file) != most) {
        free(text);
        text = NULL;
    }
    if (file != NULL) {
        fclose(file);
    }
    return text;
}

/* Letters that the tiny model has a token for. */
static void letters(char *text, size_t n) {
    fvi_rng rng = {7};
    for (size_t i = 0; i < n; i++) {
        text[i] = (char)('a' + fvi_rng_below(&rng, 26));
    }
    text[n] = '\0';
}

/* ---- questions files ---- */

static fv_status open_facts(fv_context *ctx, const char *json, size_t size, fv_facts *facts) {
    char path[] = "/tmp/fovea-facts-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, json, size) == (ssize_t)size);
    close(fd);
    fv_status status = fv_facts_open(ctx, path, facts);
    unlink(path);
    return status;
}

static const char two_facts[] =
    "[ {\"fact\": \"A \\\"b\\\" is: 1.\", \"question\": \"A?\", \"answer\": \"1\", \"depth\": 0},\n"
    "  {\"depth\": 1,\n   \"answer\": \"[2,\", \"question\": \"B?\", \"fact\": \"B {\\u00e9}.\"}\n]\n";

static void good_facts(void **state) {
    (void)state;
    alloc_fail a;
    fv_context *ctx = alloc_fail_begin(&a, 1);
    fv_facts facts;
    assert_ok(ctx, open_facts(ctx, two_facts, strlen(two_facts), &facts));
    assert_int_equal(facts.n, 2);
    assert_string_equal(facts.fact[0].fact, "A \"b\" is: 1.");
    assert_string_equal(facts.fact[1].fact, "B {\xc3\xa9}.");
    assert_string_equal(facts.fact[1].answer, "[2,");
    assert_true(facts.fact[0].depth == 0 && facts.fact[1].depth == 1);
    fv_facts_destroy(ctx, &facts);
    fv_facts own = fv_facts_builtin();
    assert_int_equal(own.n, 6);
    for (int i = 0; i < own.n; i++) {
        assert_non_null(strstr(own.fact[i].fact, own.fact[i].answer));
        assert_true(i == 0 || own.fact[i].depth > own.fact[i - 1].depth);
    }
    assert_int_equal(alloc_fail_end(&a, ctx), 0);
}

static void bad_facts(void **state) {
    (void)state;
    static const struct {
        const char *json, *says, *says_too;
    } bad[] = {
        {"", "line 1", "not JSON"},
        {"[\n\n {\"fact\" \"x\"}]", "line 3", "not JSON"},
        {"[{\"fact\": \"x\"", "line 1", "not JSON"},
        {"[] []", "line 1", "not JSON"},
        {"{}", "line 1", "array"},
        {"[]", "line 1", "1 to"},
        {"[1]", "line 1", "fact 1 must be an object"},
        {"[{\"fact\":\"a\",\"question\":\"b\",\"answer\":\"c\",\"depth\":0},\n\n[]]", "line 3", "fact 2 must be an object"},
        {"[\n{\"fact\":\"a\",\n\"question\":\"b\",\n\"answer\":7,\n\"depth\":0}]", "line 4", "\"answer\" must be a string"},
        {"[\n{\"fact\":\"a\",\n\"question\":\"\",\n\"answer\":\"c\",\n\"depth\":0}]", "line 3", "\"question\" must be"},
        {"[\n{\"fact\":\"a\",\"question\":\"b\",\"answer\":\"c\"}]", "line 2", "\"depth\" is missing"},
        {"[\n{\"question\":\"b\",\"answer\":\"c\",\"depth\":0}]", "line 2", "\"fact\" is missing"},
        {"[{\"fact\":\"depth\",\"question\":\"b\",\"answer\":\"c\",\n\"depth\":1.5}]", "line 2", "\"depth\" must be a number"},
        {"[{\"fact\":\"a\",\"question\":\"b\",\"answer\":\"c\",\n\"depth\":-1e999}]", "line 2", "\"depth\" must be"},
        {"[{\"fact\":\"a\",\"question\":\"b\",\"answer\":\"c\",\n\"depth\":\"0\"}]", "line 2", "\"depth\" must be"},
        {"[{\"fact\":\"a\",\"question\":\"b\",\"answer\":\"c\",\"depth\":0,\n\"dept\":0}]", "line 2", "\"dept\" is no field"},
        {"[{\"fact\":\"a\",\"question\":\"b\",\"answer\":\"c\",\"depth\":0,\"depth\":0}]", "line 1", "twice"},
    };
    alloc_fail a;
    fv_context *ctx = alloc_fail_begin(&a, 1);
    fv_facts facts;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(open_facts(ctx, bad[i].json, strlen(bad[i].json), &facts), FV_ERR_FORMAT);
        if (strstr(fv_message(ctx), bad[i].says) == NULL || strstr(fv_message(ctx), bad[i].says_too) == NULL) {
            fail_msg("%s\ngives: %s\nmust say: %s, %s", bad[i].json, fv_message(ctx), bad[i].says, bad[i].says_too);
        }
        assert_true(facts.n == 0 && facts.fact == NULL);
    }
    assert_int_equal(open_facts(ctx, "[\0]", 3, &facts), FV_ERR_FORMAT);
    assert_int_equal(fv_facts_open(ctx, "/nowhere/facts.json", &facts), FV_ERR_IO);
    assert_int_equal(fv_facts_open(ctx, "/tmp", &facts), FV_ERR_IO);
    assert_int_equal(alloc_fail_end(&a, ctx), 0);
}

/* ---- perplexity ---- */

typedef struct direct {
    const int32_t *token;
    int64_t n, n_vocab, scored;
    double sum;
} direct;

static int add_row(void *user, int64_t position, const float *logits) {
    direct *d = user;
    if (position + 1 >= d->n / 2 && position + 1 < d->n) {
        double sum = 0;
        for (int64_t i = 0; i < d->n_vocab; i++) {
            sum += exp((double)logits[i] - 20);
        }
        d->sum += 20 + log(sum) - logits[d->token[position + 1]];
        d->scored++;
    }
    return 0;
}

/* The first `windows` windows of a text, by the words of lab.h. */
static double perplexity_of(fv_context *ctx, fv_model *model, const char *text, int64_t window, int windows, int32_t bos) {
    fv_tokens tokens = {0};
    assert_ok(ctx, fv_tokenize(ctx, fv_model_vocab(model), text, strlen(text), false, &tokens));
    assert_true(tokens.n >= window * windows);
    direct d = {.n = window, .n_vocab = fv_vocab_size(fv_model_vocab(model))};
    for (int w = 0; w < windows; w++) {
        fv_session *session;
        assert_ok(ctx, fv_session_create(model, NULL, &session));
        int32_t *token = tokens.id + w * window;
        token[0] = bos >= 0 ? bos : token[0];
        d.token = token;
        assert_ok(ctx, fv_session_feed(session, token, window, &(fv_feed){.on_logits = add_row, .user = &d}));
        fv_session_destroy(session);
    }
    fv_tokens_release(ctx, &tokens);
    assert_int_equal(d.scored, windows * (window - window / 2));
    return exp(d.sum / (double)d.scored);
}

static void perplexity_is_what_sessions_say(void **state) {
    (void)state;
    char text[400];
    letters(text, 399);
    alloc_fail a;
    fv_context *ctx = alloc_fail_begin(&a, 2);
    fv_model *model;
    assert_ok(ctx, fv_model_open(ctx, tiny_path, NULL, &model));
    fv_perplexity_options o = fv_perplexity_options_default();
    o.text = text, o.size = 399, o.context = 100;
    fv_perplexity_result r;
    assert_ok(ctx, fv_perplexity(model, &o, &r));
    assert_int_equal(r.windows, 3);
    assert_int_equal(r.scored, 150);
    double want = perplexity_of(ctx, model, text, 100, 3, -1);
    assert_true(fabs(r.perplexity - want) < 1e-9 * want && fabs(log(r.perplexity) - r.nll) < 1e-12);
    o.windows = 1, o.context = 65;
    assert_ok(ctx, fv_perplexity(model, &o, &r));
    want = perplexity_of(ctx, model, text, 65, 1, -1);
    assert_true(r.windows == 1 && r.scored == 33 && fabs(r.perplexity - want) < 1e-9 * want);
    o.context = 400;
    assert_int_equal(fv_perplexity(model, &o, &r), FV_ERR_RANGE);
    o.context = 1;
    assert_int_equal(fv_perplexity(model, &o, &r), FV_ERR_ARGUMENT);
    o.context = 100, o.recipe = "no-such-method";
    assert_int_not_equal(fv_perplexity(model, &o, &r), FV_OK);
    fv_model_destroy(model);
    assert_int_equal(alloc_fail_end(&a, ctx), 0);
}

/* ---- compare ---- */

static const fv_fact tiny_facts[] = {
    {"abc-is-12", "abc?", "12", .5}, {"xyz-is-7", "xyz?", "7", .1}, {"q", "what", "long-answer", .5}};

static fv_compare_options tiny_options(const char *text, const int64_t *lengths, int n_lengths) {
    fv_compare_options o = fv_compare_options_default();
    o.text = text, o.size = strlen(text);
    o.lengths = lengths, o.n_lengths = n_lengths;
    o.facts = tiny_facts, o.n_facts = 3;
    o.question_form = "::{question}=";
    o.rows = 40;
    return o;
}

typedef struct kept {
    float *row; /* (most, n_vocab) */
    int64_t n, n_vocab;
} kept;

static int keep(void *user, int64_t position, const float *logits) {
    kept *k = user;
    (void)position;
    memcpy(k->row + k->n++ * k->n_vocab, logits, (size_t)k->n_vocab * sizeof *logits);
    return 0;
}

static kept rows_of(fv_context *ctx, fv_model *model, const char *recipe, const fv_tokens *document, int64_t every) {
    kept k = {.n_vocab = fv_vocab_size(fv_model_vocab(model))};
    k.row = calloc((size_t)(document->n * k.n_vocab), sizeof *k.row);
    fv_session_options options = fv_session_options_default();
    options.recipe = recipe;
    fv_session *session;
    assert_ok(ctx, fv_session_create(model, &options, &session));
    fv_feed feed = {.on_logits = keep, .logits_from = document->n / 2, .logits_every = every, .user = &k};
    assert_ok(ctx, fv_session_feed(session, document->id, document->n, &feed));
    fv_session_destroy(session);
    return k;
}

static double direct_kl(const kept *p, const kept *q) {
    double kl = 0;
    for (int64_t r = 0; r < p->n; r++) {
        const float *x = p->row + r * p->n_vocab, *y = q->row + r * p->n_vocab;
        double a = fvi_lab_lse(x, p->n_vocab), b = fvi_lab_lse(y, p->n_vocab);
        for (int64_t i = 0; i < p->n_vocab; i++) {
            kl += exp(x[i] - a) * ((x[i] - a) - (y[i] - b));
        }
    }
    return kl / (double)p->n;
}

/* KL of a row against logits of two sessions over the same document. */
static void check_kl(fv_context *ctx, fv_model *model, const fv_compare_options *o, int64_t length, const fv_compare_row *row) {
    fvi_material material;
    fv_tokens document = {0};
    assert_ok(ctx, fvi_material_make(model, o, &material));
    assert_ok(ctx, fvi_document_make(&material, length, &document));
    assert_int_equal(document.n, row->length);
    int64_t every = fvi_ceil_div(document.n - document.n / 2, o->rows);
    kept p = rows_of(ctx, model, "", &document, every), q = rows_of(ctx, model, row->recipe, &document, every);
    assert_int_equal(p.n, row->rows);
    double want = direct_kl(&p, &q);
    assert_true(want > 1e-4 && fabs(row->kl - want) < 1e-5 * want + 1e-6);
    free(p.row);
    free(q.row);
    fv_tokens_release(ctx, &document);
    fvi_material_release(&material);
}

static void compare_on(const char *path, const char *text) {
    static const int64_t lengths[] = {150, 333};
    static const char *const recipes[] = {"dense", "window:size=4000", "window:size=20"};
    alloc_fail a;
    fv_context *ctx = alloc_fail_begin(&a, 2);
    fv_model *model;
    assert_ok(ctx, fv_model_open(ctx, path, NULL, &model));
    fv_compare_options o = tiny_options(text, lengths, 2);
    o.recipes = recipes, o.n_recipes = 3;
    fv_compare *c;
    assert_ok(ctx, fv_compare_run(model, &o, &c));
    assert_int_equal(fv_compare_rows(c), 8);
    assert_null(fv_compare_row_at(c, 8));
    assert_null(fv_compare_row_at(c, -1));
    for (int i = 0; i < 8; i++) {
        const fv_compare_row *row = fv_compare_row_at(c, i), *dense = fv_compare_row_at(c, i / 4 * 4);
        assert_true(row->length <= lengths[i / 4] - 16 && row->length > lengths[i / 4] - 40);
        assert_string_equal(row->recipe, i % 4 == 0 ? "dense" : recipes[i % 4 - 1]);
        assert_true(row->rows > 20 && row->rows <= 40 && row->facts == 3);
        assert_true(row->prompt_seconds > 0 && row->step_tokens_per_second > 0 && row->kv_bytes == dense->kv_bytes);
        if (i % 4 < 3) {
            assert_true(row->kl == 0 && row->kl_p99 == 0 && row->top1 == 1 && row->density == 1 && !row->kv_masked_only);
            assert_true(row->forced == dense->forced && row->greedy == dense->greedy);
        } else {
            assert_true(row->kl_p99 >= row->kl && row->top1 < 1 && row->kv_masked_only);
            assert_true(row->density > 0 && row->density < 1);
            check_kl(ctx, model, &o, lengths[i / 4], row);
        }
    }
    assert_true(strlen(fv_compare_verdict(c)) > 20);
    fv_compare_destroy(c);
    fv_compare_destroy(NULL);
    fv_model_destroy(model);
    assert_int_equal(alloc_fail_end(&a, ctx), 0);
}

static void compare_is_what_sessions_say(void **state) {
    (void)state;
    char text[500];
    letters(text, 499);
    compare_on(tiny_path, text);
}

static void compare_on_a_second_model_and_text(void **state) {
    (void)state;
    if (pride == NULL) {
        skip();
    }
    compare_on(second_path, pride);
}

/* What is asked and compared, with a model that knows the answers: its next token repeats what came after the last fact. */
static void facts_are_found(void **state) {
    (void)state;
    if (moby == NULL || access(default_model, R_OK) != 0) {
        skip();
    }
    static const int64_t lengths[] = {1500};
    static const char *const recipes[] = {"window:size=128"};
    alloc_fail a;
    fv_context *ctx = alloc_fail_begin(&a, 2);
    fv_model *model;
    assert_ok(ctx, fv_model_open(ctx, default_model, NULL, &model));
    fv_compare_options o = fv_compare_options_default();
    fv_facts facts = fv_facts_builtin();
    o.text = moby, o.size = strlen(moby);
    o.lengths = lengths, o.n_lengths = 1;
    o.recipes = recipes, o.n_recipes = 1;
    o.facts = facts.fact, o.n_facts = facts.n;
    o.rows = 20;
    fv_compare *c;
    assert_ok(ctx, fv_compare_run(model, &o, &c));
    const fv_compare_row *dense = fv_compare_row_at(c, 0), *window = fv_compare_row_at(c, 1);
    print_message("dense %d %d, window %d %d of %d: %s\n", dense->forced, dense->greedy, window->forced, window->greedy,
                  dense->facts, fv_compare_verdict(c));
    assert_true(dense->forced == 6 && dense->greedy == 6 && window->forced <= 1 && window->greedy <= 1);
    assert_non_null(strstr(fv_compare_verdict(c), "window:size=128 does not keep"));
    fv_compare_destroy(c);
    fv_perplexity_options p = fv_perplexity_options_default();
    p.text = moby, p.size = strlen(moby), p.context = 256, p.windows = 2;
    fv_perplexity_result r;
    assert_ok(ctx, fv_perplexity(model, &p, &r));
    double want = perplexity_of(ctx, model, moby, 256, 2, fv_vocab_bos(fv_model_vocab(model)));
    assert_true(r.scored == 256 && fabs(r.perplexity - want) < 1e-9 * want);
    fv_model_destroy(model);
    assert_int_equal(alloc_fail_end(&a, ctx), 0);
}

/* Facts stand behind a sentence's end, in the order of their depths, near them. */
static void documents(void **state) {
    (void)state;
    if (moby == NULL || access(default_model, R_OK) != 0) {
        skip();
    }
    alloc_fail a;
    fv_context *ctx = alloc_fail_begin(&a, 1);
    fv_model *model;
    assert_ok(ctx, fv_model_open(ctx, default_model, NULL, &model));
    fv_compare_options o = fv_compare_options_default();
    fv_fact fact[] = {{"Late.", "a", "b", 1}, {"Middle.", "a", "b", .5}, {"Again.", "a", "b", .5}, {"First.", "a", "b", 0}};
    o.text = moby, o.size = strlen(moby), o.facts = fact, o.n_facts = 4;
    fvi_material m;
    fv_tokens d = {0};
    assert_ok(ctx, fvi_material_make(model, &o, &m));
    assert_ok(ctx, fvi_document_make(&m, 2000, &d));
    assert_int_equal(d.n, 2000 - m.room);
    assert_int_equal(d.id[0], fv_vocab_bos(m.vocab));
    char *text = calloc((size_t)d.n, 64);
    size_t size = 0, more;
    fv_detokenizer state_of = {0};
    for (int64_t i = 1; i < d.n; i++) {
        assert_ok(ctx, fv_detokenize(ctx, m.vocab, &state_of, d.id[i], false, text + size, 64 * (size_t)d.n - size, &more));
        size += more;
    }
    const char *first = strstr(text, " First."), *middle = strstr(text, " Middle. Again."), *late = strstr(text, " Late.");
    assert_ptr_equal(first, text);
    assert_true(middle != NULL && strchr(".!?", middle[-1]) != NULL && late != NULL && strchr(".!?", late[-1]) != NULL);
    assert_true(labs((long)(middle - text) - (long)size / 2) < 800 && size - (size_t)(late - text) < 800);
    free(text);
    fv_tokens_release(ctx, &d);
    fvi_material_release(&m);
    fv_model_destroy(model);
    assert_int_equal(alloc_fail_end(&a, ctx), 0);
}

/* ---- refusals, cancelling, memory ---- */

static void refusals(void **state) {
    (void)state;
    char text[500];
    letters(text, 499);
    alloc_fail a;
    fv_context *ctx = alloc_fail_begin(&a, 1);
    fv_model *model;
    fv_compare *c;
    assert_ok(ctx, fv_model_open(ctx, tiny_path, NULL, &model));
    int64_t length = 200;
    const char *recipe = "no-such-method";
    fv_fact fact = {"a", "b", "c", 1.5};
    fv_compare_options o = tiny_options(text, &length, 1), bad = o;
    bad.recipes = &recipe, bad.n_recipes = 1;
    assert_int_not_equal(fv_compare_run(model, &bad, &c), FV_OK);
    assert_non_null(strstr(fv_message(ctx), "no-such-method"));
    bad = o, bad.question_form = "Question: {q}";
    assert_int_equal(fv_compare_run(model, &bad, &c), FV_ERR_ARGUMENT);
    assert_non_null(strstr(fv_message(ctx), "{question}"));
    bad = o, bad.facts = &fact, bad.n_facts = 1;
    assert_int_equal(fv_compare_run(model, &bad, &c), FV_ERR_ARGUMENT);
    fact = (fv_fact){"a", "b", "", .5};
    assert_int_equal(fv_compare_run(model, &bad, &c), FV_ERR_ARGUMENT);
    bad = o, bad.n_lengths = 0;
    assert_int_equal(fv_compare_run(model, &bad, &c), FV_ERR_ARGUMENT);
    static const int64_t wrong[] = {-5, 0, 30, 3000, 5000};
    for (int i = 0; i < 5; i++) {
        bad = o, bad.lengths = &wrong[i];
        assert_int_equal(fv_compare_run(model, &bad, &c), FV_ERR_RANGE);
        assert_null(c);
    }
    fv_model_destroy(model);
    assert_int_equal(alloc_fail_end(&a, ctx), 0);
}

typedef struct watch {
    int calls, stop_at;
    double last;
} watch;

static int on_progress(void *user, const char *what, double share) {
    watch *w = user;
    assert_true(what[0] != '\0' && share >= w->last - 1e-12 && share <= 1 + 1e-9);
    w->last = share;
    return ++w->calls == w->stop_at;
}

static void progress_and_cancel(void **state) {
    (void)state;
    char text[500];
    letters(text, 499);
    static const char *const recipes[] = {"window:size=20"};
    static const int64_t lengths[] = {120, 200};
    fv_status status = FV_ERR_CANCELLED;
    int stops = 0;
    while (status != FV_OK) {
        alloc_fail a;
        fv_context *ctx = alloc_fail_begin(&a, 1);
        fv_model *model;
        fv_compare *c;
        watch w = {.stop_at = ++stops};
        assert_ok(ctx, fv_model_open(ctx, tiny_path, NULL, &model));
        fv_compare_options o = tiny_options(text, lengths, 2);
        o.recipes = recipes, o.n_recipes = 1, o.progress = on_progress, o.user = &w;
        status = fv_compare_run(model, &o, &c);
        assert_int_equal(status, w.calls == stops ? FV_ERR_CANCELLED : FV_OK);
        assert_true((c == NULL) == (status != FV_OK));
        assert_true(status != FV_OK || w.last > .999);
        fv_compare_destroy(c);
        fv_perplexity_options p = fv_perplexity_options_default();
        fv_perplexity_result r;
        w = (watch){.stop_at = stops};
        p.text = text, p.size = 499, p.context = 60, p.progress = on_progress, p.user = &w;
        fv_status scored = fv_perplexity(model, &p, &r);
        assert_int_equal(scored, w.calls == stops ? FV_ERR_CANCELLED : FV_OK);
        fv_model_destroy(model);
        assert_int_equal(alloc_fail_end(&a, ctx), 0);
    }
    assert_true(stops > 10);
}

static fv_status use_all(fv_context *ctx, const char *text, fv_model *model) {
    static const char *const recipes[] = {"window:size=20"};
    static const int64_t length = 90;
    fv_compare_options o = tiny_options(text, &length, 1);
    o.recipes = recipes, o.n_recipes = 1;
    fv_compare *c = NULL;
    fv_facts facts;
    fv_status status = fv_compare_run(model, &o, &c);
    fv_compare_destroy(c);
    fv_perplexity_options p = fv_perplexity_options_default();
    fv_perplexity_result r;
    p.text = text, p.size = strlen(text), p.context = 60;
    if (status == FV_OK) {
        status = fv_perplexity(model, &p, &r);
    }
    if (status == FV_OK) {
        status = open_facts(ctx, two_facts, strlen(two_facts), &facts);
        fv_facts_destroy(ctx, &facts);
    }
    return status;
}

static void each_allocation_fails_once(void **state) {
    (void)state;
    char text[200];
    letters(text, 199);
    for (long long n = 1;; n++) {
        alloc_fail a;
        fv_context *ctx = alloc_fail_begin(&a, 1);
        fv_model *model;
        assert_ok(ctx, fv_model_open(ctx, tiny_path, NULL, &model));
        alloc_fail_arm(&a, n);
        fv_status status = use_all(ctx, text, model);
        fv_model_destroy(model);
        assert_int_equal(alloc_fail_end(&a, ctx), 0);
        assert_int_equal(status, a.failed ? FV_ERR_MEMORY : FV_OK);
        if (!a.failed) {
            print_message("%lld allocations refused one by one\n", n - 1);
            assert_true(n > 40);
            return;
        }
    }
}

/* ---- the verdict ---- */

static fv_compare_row row_of(const char *recipe, double seconds, int forced, int greedy, bool masked) {
    fv_compare_row row = {.length = 100, .prompt_seconds = seconds, .forced = forced, .greedy = greedy, .facts = 6, .rows = 9};
    snprintf(row.recipe, sizeof row.recipe, "%s", recipe);
    row.kl = .25, row.top1 = .875;
    row.kv_masked_only = masked;
    return row;
}

static void verdicts(void **state) {
    (void)state;
    char out[2048];
    fv_compare_row row[] = {row_of("dense", 10, 6, 5, false), row_of("prefill=a:x=1,decode=a:x=1", 5, 6, 5, true),
                            row_of("b", 4, 6, 6, false), row_of("c", 1, 2, 5, true)};
    fvi_compare_verdict(row, 1, 3, out, sizeof out);
    assert_non_null(strstr(out, "Dense attention itself answers 6 of 6 questions as prompt rows and 5 generated"));
    assert_non_null(strstr(out, "b is the fastest of the 2 recipes"));
    assert_non_null(strstr(out, "2.50 times as fast as dense (KL 0.25 nats, top-1 agreement 87.5%)"));
    assert_non_null(strstr(out, "with c 4 of 6 answers as prompt rows and 0 of 5 generated"));
    assert_non_null(strstr(out, "only mask"));
    fvi_compare_verdict(row, 1, 1, out, sizeof out);
    assert_non_null(strstr(out, "a:x=1 keeps every answer of dense attention"));
    assert_null(strstr(out, "prefill="));
    assert_non_null(strstr(out, "a:x=1 only masks"));
    fvi_compare_verdict(row, 1, 0, out, sizeof out);
    assert_non_null(strstr(out, "Only dense"));
    fvi_compare_verdict(row, 2, 1, out, sizeof out); /* b is dense here, and c loses */
    assert_non_null(strstr(out, "does not keep"));
    row[1].prompt_seconds = 30, row[2].forced = 0;
    fvi_compare_verdict(row, 1, 3, out, sizeof out);
    assert_non_null(strstr(out, "Of 3 recipes only a:x=1 keeps"));
    assert_non_null(strstr(out, "take 3.00 times as long"));
    for (int i = 0; i < 4; i++) {
        row[i].forced = row[i].greedy = 0;
    }
    fvi_compare_verdict(row, 1, 3, out, sizeof out);
    assert_non_null(strstr(out, "none of the 6 questions"));
    for (size_t size = 1; size < 600; size++) {
        memset(out, 'x', sizeof out);
        fvi_compare_verdict(row, 1, 3, out, size);
        assert_true(memchr(out, '\0', size) != NULL && out[size] == 'x');
    }
}

static int set_up(void **state) {
    (void)state;
    tiny_model t = tiny_default();
    tiny_write(&t, tiny_path);
    t.seed = 5, t.half_split = true, t.tied = false, t.layers = 1, t.h_q = 2, t.h_kv = 1, t.d_k = 24;
    tiny_write(&t, second_path);
    moby = read_book("models/data/moby-dick.txt", 40000);
    pride = read_book("models/data/pride-and-prejudice.txt", 4000);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(tiny_path);
    unlink(second_path);
    free(moby);
    free(pride);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_facts),
        cmocka_unit_test(bad_facts),
        cmocka_unit_test(perplexity_is_what_sessions_say),
        cmocka_unit_test(compare_is_what_sessions_say),
        cmocka_unit_test(compare_on_a_second_model_and_text),
        cmocka_unit_test(facts_are_found),
        cmocka_unit_test(documents),
        cmocka_unit_test(refusals),
        cmocka_unit_test(progress_and_cancel),
        cmocka_unit_test(each_allocation_fails_once),
        cmocka_unit_test(verdicts),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
