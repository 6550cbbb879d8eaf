/* test_session.c - a session gives the same bits however its prompt came, whoever else uses the model and wherever it has been;
 * what fails leaves it as it was. Each test runs on a random f32 model; those of the arithmetic on the default model too. */
#include "fovea/fovea.h"
#include "model/session.h"
#include "tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { PROMPT = 330, STEPS = 6, EVERY = 7, MOST_ROWS = PROMPT / EVERY + 1 };
static const char default_model[] = "models/fovea-27m-32k-q8_0.gguf";

static char tiny_path[64];
static int32_t prompt[PROMPT];

/* ---- running and comparing ---- */

/* What a run gives: logits of each EVERY-th prompt row, of finish, and of each step. */
typedef struct outcome {
    float *rows;
    int64_t n_rows, n_vocab;
    float *last; /* (1 + STEPS, n_vocab) */
} outcome;

static int keep_row(void *user, int64_t position, const float *logits) {
    outcome *o = user;
    assert_int_equal(position, o->n_rows * EVERY);
    assert_true(o->n_rows < MOST_ROWS);
    memcpy(o->rows + o->n_rows * o->n_vocab, logits, (size_t)o->n_vocab * sizeof *logits);
    o->n_rows++;
    return 0;
}

static outcome begin_outcome(const fv_model *model) {
    outcome o = {.n_vocab = model->facts.n_vocab};
    o.rows = calloc((size_t)(MOST_ROWS * o.n_vocab), sizeof(float));
    o.last = calloc((size_t)((1 + STEPS) * o.n_vocab), sizeof(float));
    assert_non_null(o.rows);
    assert_non_null(o.last);
    return o;
}

static void end_outcome(outcome *o) {
    free(o->rows);
    free(o->last);
}

static void assert_same(const outcome *a, const outcome *b) {
    assert_int_equal(a->n_rows, b->n_rows);
    assert_memory_equal(a->rows, b->rows, (size_t)(a->n_rows * a->n_vocab) * sizeof(float));
    assert_memory_equal(a->last, b->last, (size_t)((1 + STEPS) * a->n_vocab) * sizeof(float));
}

#define assert_ok(ctx, call)                                                                                                     \
    do {                                                                                                                         \
        fv_status status_ = (call);                                                                                              \
        if (status_ != FV_OK) {                                                                                                  \
            fail_msg("%s: %s: %s", #call, fv_status_name(status_), fv_message(ctx));                                             \
        }                                                                                                                        \
    } while (0)

static void assert_refused(fv_context *ctx, fv_status status, fv_status expected, const char *says) {
    if (status != expected || strstr(fv_message(ctx), says) == NULL) {
        fail_msg("got %s: \"%s\"; expected %s with \"%s\"", fv_status_name(status), fv_message(ctx), fv_status_name(expected),
                 says);
    }
}

static fv_context *context(int threads) {
    fv_context *ctx;
    assert_int_equal(fv_context_create(&(fv_context_options){.threads = threads, .level = FV_LEVEL_BEST}, &ctx), FV_OK);
    return ctx;
}

static fv_model *open_model(fv_context *ctx, const char *path) {
    fv_model *model;
    assert_ok(ctx, fv_model_open(ctx, path, NULL, &model));
    for (int i = 0; i < PROMPT; i++) {
        prompt[i] = (int32_t)((i * 7919 + i * i * 31 + 11) % fv_vocab_size(fv_model_vocab(model)));
    }
    return model;
}

static fv_session *new_session(fv_model *model, const char *recipe, fv_dtype kv, int64_t chunk) {
    fv_session *s;
    const fv_session_options o = {.recipe = recipe, .kv_dtype = kv, .chunk = chunk};
    assert_ok(model->ctx, fv_session_create(model, &o, &s));
    return s;
}

static void feed(fv_session *s, int64_t from, int64_t to, int64_t call, outcome *o) {
    const fv_feed f = {.on_logits = o != NULL ? keep_row : NULL, .logits_every = EVERY, .user = o};
    for (int64_t at = from; at < to; at += call) {
        assert_ok(s->ctx, fv_session_feed(s, prompt + at, fvi_min(call, to - at), &f));
    }
}

static void finish_and_step(fv_session *s, outcome *o) {
    assert_null(fv_session_logits(s));
    assert_ok(s->ctx, fv_session_finish(s));
    memcpy(o->last, fv_session_logits(s), (size_t)o->n_vocab * sizeof(float));
    for (int i = 1; i <= STEPS; i++) {
        assert_ok(s->ctx, fv_session_step(s, prompt[i * 13]));
        memcpy(o->last + i * o->n_vocab, fv_session_logits(s), (size_t)o->n_vocab * sizeof(float));
    }
}

static outcome run(fv_model *model, const char *recipe, fv_dtype kv, int64_t chunk, int64_t call) {
    outcome o = begin_outcome(model);
    fv_session *s = new_session(model, recipe, kv, chunk);
    feed(s, 0, PROMPT, call, &o);
    finish_and_step(s, &o);
    fv_session_destroy(s);
    return o;
}

/* ---- the same bits ---- */

/* Chunks of a call, and calls of a prompt. */
static void check_cuts(const char *path, const char *recipe, fv_dtype kv) {
    static const int64_t cut[] = {1, 7, 64, 512, 1024};
    fv_context *ctx = context(2);
    fv_model *model = open_model(ctx, path);
    outcome whole = run(model, recipe, kv, 512, PROMPT);
    double sum = 0;
    for (int64_t i = 0; i < whole.n_vocab; i++) {
        sum += fabs((double)whole.last[STEPS * whole.n_vocab + i]);
    }
    assert_true(sum > 0 && isfinite(sum));
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        outcome chunks = run(model, recipe, kv, cut[i], PROMPT);
        assert_same(&whole, &chunks);
        end_outcome(&chunks);
        outcome calls = run(model, recipe, kv, 512, cut[i]);
        assert_same(&whole, &calls);
        end_outcome(&calls);
    }
    end_outcome(&whole);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

static void test_cuts(void **state) {
    (void)state;
    check_cuts(tiny_path, "", FV_F32);
    check_cuts(tiny_path, "", FV_BF16);
    check_cuts(tiny_path, "window:size=40", FV_F16);
}

/* Rows of a tile, or of the whole prompt, that choose together wait for each other. */
static void test_cuts_of_grains(void **state) {
    (void)state;
    check_cuts(tiny_path, "prefill=oracle:density=0.4:fallback=0", FV_F16);
    check_cuts(tiny_path, "prefill=flexprefill:gamma=0.3:tau=0:min=1:fallback=0", FV_F32);
    check_cuts(tiny_path, "prefill=delta(window:size=40):gamma=16", FV_BF16);
    check_cuts(tiny_path, "prefill=gali:trained=100:local=16:chunk=64", FV_BF16);
    check_cuts(tiny_path, "prefill=longheads:chunk=64:length=192", FV_F16);
}

static void test_cuts_default_model(void **state) {
    (void)state;
    check_cuts(default_model, "", FV_F16);
    check_cuts(default_model, "kv=q8_0/q4_0:rotate=1", FV_F16);
}

/* Portable C has its own bits, and keeps to them as well. */
static void test_cuts_portable(void **state) {
    (void)state;
    fv_context *ctx;
    assert_int_equal(fv_context_create(&(fv_context_options){.threads = 2, .level = FV_LEVEL_C}, &ctx), FV_OK);
    fv_model *model = open_model(ctx, tiny_path);
    outcome whole = run(model, "", FV_F16, 512, PROMPT), cut = run(model, "", FV_F16, 7, 100);
    assert_same(&whole, &cut);
    end_outcome(&cut);
    end_outcome(&whole);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

static void check_threads(const char *path, fv_dtype kv) {
    static const int threads[] = {1, 2, 3, 8};
    outcome first = {0};
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        fv_context *ctx = context(threads[i]);
        fv_model *model = open_model(ctx, path);
        outcome o = run(model, "", kv, i == 2 ? 7 : 512, PROMPT);
        if (i == 0) {
            first = o;
        } else {
            assert_same(&first, &o);
            end_outcome(&o);
        }
        fv_model_destroy(model);
        fv_context_destroy(ctx);
    }
    end_outcome(&first);
}

static void test_threads(void **state) {
    (void)state;
    check_threads(tiny_path, FV_F16);
}

static void test_threads_default_model(void **state) {
    (void)state;
    check_threads(default_model, FV_F16);
    check_threads(default_model, FV_Q8_0);
}

/* ---- other sessions, other paths to the same place ---- */

typedef struct fixture {
    fv_context *ctx;
    fv_model *model;
    outcome alone; /* of the whole prompt, f16 */
} fixture;

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    f->ctx = context(2);
    f->model = open_model(f->ctx, tiny_path);
    f->alone = run(f->model, "", FV_F16, 512, PROMPT);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    end_outcome(&f->alone);
    fv_model_destroy(f->model);
    fv_context_destroy(f->ctx);
    free(f);
    return 0;
}

static void test_beside_another(void **state) {
    fixture *f = *state;
    outcome o = begin_outcome(f->model);
    fv_session *s = new_session(f->model, "", FV_F16, 64), *other = new_session(f->model, "window:size=16", FV_BF16, 50);
    for (int64_t at = 0; at < PROMPT; at += 30) {
        feed(s, at, at + 30, 30, &o);
        feed(other, PROMPT - at - 30, PROMPT - at, 11, NULL);
    }
    assert_ok(f->ctx, fv_session_finish(s));
    assert_ok(f->ctx, fv_session_finish(other));
    memcpy(o.last, fv_session_logits(s), (size_t)o.n_vocab * sizeof(float));
    for (int i = 1; i <= STEPS; i++) {
        assert_ok(f->ctx, fv_session_step(other, prompt[i]));
        assert_ok(f->ctx, fv_session_step(s, prompt[i * 13]));
        memcpy(o.last + i * o.n_vocab, fv_session_logits(s), (size_t)o.n_vocab * sizeof(float));
    }
    assert_same(&f->alone, &o);
    fv_session_destroy(other);
    fv_session_destroy(s);
    end_outcome(&o);
}

static void test_rollback(void **state) {
    fixture *f = *state;
    static const int64_t back_to[] = {0, 1, 63, 64, 65, 200, PROMPT};
    fv_session *s = new_session(f->model, "", FV_F16, 100);
    feed(s, 0, PROMPT, 512, NULL);
    for (size_t i = 0; i < sizeof back_to / sizeof *back_to; i++) {
        outcome o = begin_outcome(f->model);
        assert_ok(f->ctx, fv_session_rollback(s, fvi_min(back_to[i], PROMPT - 1)));
        assert_null(fv_session_logits(s));
        assert_refused(f->ctx, fv_session_finish(s), FV_ERR_STATE, "nothing to finish");
        assert_refused(f->ctx, fv_session_step(s, 1), FV_ERR_STATE, "after the prompt's end");
        feed(s, fv_session_position(s), PROMPT, 512, NULL);
        assert_int_equal(fv_session_position(s), PROMPT);
        finish_and_step(s, &o);
        assert_memory_equal(o.last, f->alone.last, (size_t)((1 + STEPS) * o.n_vocab) * sizeof(float));
        assert_int_equal(fv_session_position(s), PROMPT + STEPS);
        end_outcome(&o);
    }
    assert_refused(f->ctx, fv_session_rollback(s, PROMPT + STEPS + 1), FV_ERR_RANGE, "336 tokens");
    assert_refused(f->ctx, fv_session_rollback(s, -1), FV_ERR_RANGE, "rollback to -1");
    fv_session_destroy(s);
}

static void test_fork(void **state) {
    fixture *f = *state;
    outcome o = begin_outcome(f->model);
    fv_session *s = new_session(f->model, "", FV_F16, 512), *fork, *ready;
    feed(s, 0, 150, 512, NULL);
    assert_ok(f->ctx, fv_session_fork(s, &fork));
    assert_memory_equal(fv_session_tokens(fork), prompt, 150 * sizeof *prompt);
    feed(fork, 20, 300, 512, NULL); /* another way */
    feed(s, 150, PROMPT, 512, NULL);
    fv_session_destroy(fork);
    assert_ok(f->ctx, fv_session_finish(s));
    assert_ok(f->ctx, fv_session_fork(s, &ready));
    assert_memory_equal(fv_session_logits(s), fv_session_logits(ready), (size_t)o.n_vocab * sizeof(float));
    assert_ok(f->ctx, fv_session_step(s, 9));
    fv_session_destroy(s);
    memcpy(o.last, fv_session_logits(ready), (size_t)o.n_vocab * sizeof(float));
    for (int i = 1; i <= STEPS; i++) {
        assert_ok(f->ctx, fv_session_step(ready, prompt[i * 13]));
        memcpy(o.last + i * o.n_vocab, fv_session_logits(ready), (size_t)o.n_vocab * sizeof(float));
    }
    assert_memory_equal(o.last, f->alone.last, (size_t)((1 + STEPS) * o.n_vocab) * sizeof(float));
    fv_session_destroy(ready);
    end_outcome(&o);
}

/* A second prompt after generated tokens: only that it goes on from there, and counts. */
static void test_second_turn(void **state) {
    fixture *f = *state;
    fv_session *s = new_session(f->model, "", FV_F16, 512);
    feed(s, 0, 100, 512, NULL);
    assert_ok(f->ctx, fv_session_finish(s));
    assert_ok(f->ctx, fv_session_step(s, 5));
    feed(s, 101, 120, 512, NULL);
    assert_null(fv_session_logits(s));
    assert_refused(f->ctx, fv_session_step(s, 5), FV_ERR_STATE, "after the prompt's end");
    assert_ok(f->ctx, fv_session_finish(s));
    assert_refused(f->ctx, fv_session_finish(s), FV_ERR_STATE, "finished already");
    assert_int_equal(fv_session_position(s), 120);
    const fv_run_stats st = fv_session_stats(s);
    assert_int_equal(st.eligible_pairs, (uint64_t)(f->model->facts.layers * f->model->facts.h_q) * (120 * 121 / 2));
    assert_int_equal(st.exact_pairs, st.eligible_pairs);
    fv_session_destroy(s);
}

static double stages(const fv_session_times *t) { return t->embed + t->rows + t->weights + t->append + t->attention + t->head; }

static void test_times(void **state) {
    fixture *f = *state;
    fv_session *s = new_session(f->model, "", FV_F16, 64), *fork;
    const fv_session_times none = fv_session_seconds(s);
    assert_true(none.total == 0 && stages(&none) == 0);
    feed(s, 0, 120, 512, NULL);
    assert_ok(f->ctx, fv_session_finish(s));
    const fv_session_times first = fv_session_seconds(s);
    assert_true(first.embed > 0 && first.rows > 0 && first.weights > 0);
    assert_true(first.append > 0 && first.attention > 0 && first.head > 0);
    for (int i = 0; i < 8; i++) {
        assert_ok(f->ctx, fv_session_step(s, 5));
    }
    const fv_session_times all = fv_session_seconds(s);
    assert_true(all.embed > first.embed && all.rows > first.rows && all.weights > first.weights);
    assert_true(all.append > first.append && all.attention > first.attention && all.head > first.head);
    assert_true(stages(&all) <= all.total && stages(&all) > all.total / 2);
    assert_ok(f->ctx, fv_session_fork(s, &fork));
    assert_true(fv_session_seconds(fork).total == 0);
    fv_session_destroy(fork);
    fv_session_destroy(s);
}

/* ---- stopping ---- */

typedef struct stopper {
    int64_t calls, at, last;
    fv_context *flag; /* raise its flag instead */
} stopper;

static int stop_progress(void *user, int64_t done, int64_t total) {
    stopper *p = user;
    assert_true(done >= p->last && done <= total);
    p->last = done;
    if (p->calls++ < p->at) {
        return 0;
    }
    if (p->flag != NULL) {
        fv_cancel(p->flag, true);
    }
    return p->flag == NULL;
}

static int stop_logits(void *user, int64_t position, const float *logits) {
    (void)logits;
    return position == *(int64_t *)user;
}

static void test_cancel(void **state) {
    fixture *f = *state;
    outcome o = begin_outcome(f->model);
    fv_session *s = new_session(f->model, "", FV_F16, 64);
    feed(s, 0, 50, 512, NULL);
    const fv_run_stats stats = fv_session_stats(s);
    for (int64_t at = 0; at < 5; at++) {
        stopper p = {.at = at, .flag = at % 2 == 0 ? f->ctx : NULL};
        const fv_feed stop = {.progress = stop_progress, .user = &p};
        assert_int_equal(fv_session_feed(s, prompt + 50, PROMPT - 50, &stop), FV_ERR_CANCELLED);
        assert_int_equal(p.calls, at + 1);
        fv_cancel(f->ctx, false);
        assert_int_equal(fv_session_position(s), 50);
        assert_int_equal(fv_session_stats(s).exact_pairs, stats.exact_pairs);
    }
    int64_t position = 130;
    const fv_feed stop = {.on_logits = stop_logits, .user = &position};
    assert_refused(f->ctx, fv_session_feed(s, prompt + 50, PROMPT - 50, &stop), FV_ERR_CANCELLED, "position 130");
    assert_int_equal(fv_session_position(s), 50);

    stopper count = {.at = INT64_MAX};
    const fv_feed counted = {.progress = stop_progress, .user = &count};
    assert_ok(f->ctx, fv_session_feed(s, prompt + 50, PROMPT - 50, &counted));
    assert_int_equal(count.calls, 1 + fvi_ceil_div(PROMPT - 50, 64));
    assert_int_equal(count.last, PROMPT - 50);
    finish_and_step(s, &o);
    assert_memory_equal(o.last, f->alone.last, (size_t)((1 + STEPS) * o.n_vocab) * sizeof(float));

    /* After the end: a call that fails leaves the logits as well. */
    fv_cancel(f->ctx, true);
    assert_int_equal(fv_session_step(s, 3), FV_ERR_CANCELLED);
    assert_int_equal(fv_session_feed(s, prompt, 9, NULL), FV_ERR_CANCELLED);
    fv_cancel(f->ctx, false);
    assert_int_equal(fv_session_position(s), PROMPT + STEPS);
    assert_memory_equal(fv_session_logits(s), o.last + STEPS * o.n_vocab, (size_t)o.n_vocab * sizeof(float));
    fv_session_destroy(s);
    end_outcome(&o);
}

/* ---- which rows on_logits gets ---- */

typedef struct wanted {
    int64_t from, every, next, count;
} wanted;

static int count_rows(void *user, int64_t position, const float *logits) {
    wanted *w = user;
    assert_true(isfinite(logits[0]));
    assert_int_equal(position, w->next);
    w->next += w->every;
    w->count++;
    return 0;
}

static void test_wanted_rows(void **state) {
    fixture *f = *state;
    static const int64_t from[] = {0, 1, 63, 64, 200, PROMPT - 1, PROMPT}, every[] = {0, 1, 3, 64, 1000};
    for (int i = 0; i < 7 * 5; i++) {
        fv_session *s = new_session(f->model, "", FV_F16, 37);
        const int64_t step = fvi_max(1, every[i / 7]), first = from[i % 7];
        wanted w = {first, step, first, 0};
        const fv_feed options = {.on_logits = count_rows, .logits_from = first, .logits_every = every[i / 7], .user = &w};
        assert_ok(f->ctx, fv_session_feed(s, prompt, 150, &options));
        assert_ok(f->ctx, fv_session_feed(s, prompt + 150, PROMPT - 150, &options));
        assert_int_equal(w.count, first < PROMPT ? fvi_ceil_div(PROMPT - first, step) : 0);
        fv_session_destroy(s);
    }
}

/* ---- refusals ---- */

static void test_refusals(void **state) {
    fixture *f = *state;
    fv_session *s;
    fv_session_options o = fv_session_options_default();
    o.context = 5000;
    assert_refused(f->ctx, fv_session_create(f->model, &o, &s), FV_ERR_RANGE, "trained to 4096");
    assert_null(s);
    o.beyond_trained = true;
    assert_ok(f->ctx, fv_session_create(f->model, &o, &s));
    fv_session_destroy(s);
    o.chunk = 1025;
    assert_refused(f->ctx, fv_session_create(f->model, &o, &s), FV_ERR_ARGUMENT, "1 to 1024");
    o.chunk = 0;
    o.kv_dtype = FV_Q4_1;
    assert_refused(f->ctx, fv_session_create(f->model, &o, &s), FV_ERR_ARGUMENT, "q4_1");
    o.kv_dtype = FV_F32;
    o.recipe = "no-such-method";
    assert_refused(f->ctx, fv_session_create(f->model, &o, &s), FV_ERR_ARGUMENT, "no-such-method");
    o.recipe = "kv=bf16";
    o.context = 100;
    assert_ok(f->ctx, fv_session_create(f->model, &o, &s));
    assert_int_equal(fv_cache_describe(s->cache).k_dtype, FV_BF16);
    assert_refused(f->ctx, fv_session_feed(s, prompt, 101, NULL), FV_ERR_RANGE, "context of 100 (the model was trained to 4096)");
    assert_refused(f->ctx, fv_session_feed(s, (int32_t[]){1, 101}, 2, NULL), FV_ERR_ARGUMENT, "token 1 of the call is 101");
    assert_refused(f->ctx, fv_session_feed(s, (int32_t[]){-1}, 1, NULL), FV_ERR_ARGUMENT, "is -1");
    assert_int_equal(fv_session_feed(s, NULL, -1, NULL), FV_ERR_ARGUMENT);
    assert_ok(f->ctx, fv_session_feed(s, NULL, 0, NULL));
    assert_refused(f->ctx, fv_session_finish(s), FV_ERR_STATE, "nothing to finish");
    assert_int_equal(fv_session_position(s), 0);
    feed(s, 0, 100, 512, NULL);
    assert_ok(f->ctx, fv_session_finish(s));
    assert_refused(f->ctx, fv_session_step(s, 1), FV_ERR_RANGE, "context of 100");
    fv_session_destroy(s);
}

static void test_memory_is_said_first(void **state) {
    fixture *f = *state;
    const size_t total = f->model->facts.memory_total;
    fv_session *s;
    f->model->facts.memory_total = f->model->facts.file_bytes + f->model->facts.extra_bytes + 1000;
    assert_refused(f->ctx, fv_session_create(f->model, NULL, &s), FV_ERR_MEMORY, "a cache for a context of 4096 tokens");
    f->model->facts.memory_total = total;
}

static void refuse_model(tiny_model t, fv_status expected, const char *says) {
    char path[64];
    fv_context *ctx = context(1);
    fv_model *model;
    tiny_write(&t, path);
    assert_refused(ctx, fv_model_open(ctx, path, NULL, &model), expected, says);
    assert_null(model);
    unlink(path);
    fv_context_destroy(ctx);
}

static void test_wrong_models(void **state) {
    (void)state;
    tiny_model t = tiny_default();
    t.extra_tensor = "blk.1.attn_q.bias";
    refuse_model(t, FV_ERR_UNSUPPORTED, "blk.1.attn_q.bias");
    t = tiny_default();
    t.wrong_ffn = 1;
    refuse_model(t, FV_ERR_FORMAT, "blk.0.ffn_up.weight");
    t = tiny_default();
    t.h_q = 3;
    refuse_model(t, FV_ERR_FORMAT, "head_count");
    t = tiny_default();
    t.d_k = 15;
    refuse_model(t, FV_ERR_FORMAT, "dimension_count");
    t = tiny_default();
    t.layers = 0;
    refuse_model(t, FV_ERR_FORMAT, "block_count");
}

/* ---- prompt forms ---- */

static void turn(fv_model *model, const char *form, const char *text, bool first, const char *expected) {
    fv_tokens t = {0};
    char got[512] = "";
    assert_ok(model->ctx, fv_chat_turn(model, form, text, strlen(text), first, &t));
    for (int64_t i = 0; i < t.n; i++) {
        size_t size, used = strlen(got);
        const char *piece = fv_vocab_piece(fv_model_vocab(model), t.id[i], &size);
        assert_true(used + size < sizeof got);
        snprintf(got + used, sizeof got - used, "%s%.*s", t.id[i] < 4 ? "@" : "", (int)size, piece);
    }
    assert_string_equal(got, expected);
    fv_tokens_release(model->ctx, &t);
}

static void test_chat(void **state) {
    fixture *f = *state;
    turn(f->model, NULL, "ab<|im_end|>", true, "ab<|im_end|>");
    turn(f->model, "chatml", "ab<|im_end|>", true, "@<|im_start|>userab<|im_end|>@<|im_end|>@<|im_start|>assistant");
    turn(f->model, "chatml", "c", false, "@<|im_end|>@<|im_start|>userc@<|im_end|>@<|im_start|>assistant");
    fv_tokens t = {0};
    assert_refused(f->ctx, fv_chat_turn(f->model, "alpaca", "x", 1, true, &t), FV_ERR_ARGUMENT, "alpaca");
    assert_int_equal(t.n, 0);
    static const char *const template[] = {
        "{% if x %}{{ '<|im_start|>system\nHelp!<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + role }}",
        "{{ '<|im_start|>system\\nHelp!<|im_end|>\\n' }}",
        "{{ '<|im_start|>system\n' + x + '<|im_end|>\n' }}", /* no literal: no system message */
        "{{ '<|im_start|>system",
    };
    static const char user[] = "@<|im_start|>userc@<|im_end|>@<|im_start|>assistant";
    for (int i = 0; i < 4; i++) {
        tiny_model with = tiny_default();
        char path[64], expected[256];
        with.template = template[i];
        tiny_write(&with, path);
        fv_model *model = open_model(f->ctx, path);
        snprintf(expected, sizeof expected, "%s%s", i < 2 ? "@<|im_start|>systemHelp!@<|im_end|>" : "", user);
        turn(model, NULL, "c", true, expected);
        turn(model, "plain", "c", true, "c");
        fv_model_destroy(model);
        unlink(path);
    }
}

int main(void) {
    const tiny_model t = tiny_default();
    tiny_write(&t, tiny_path);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_cuts_of_grains),
        cmocka_unit_test(test_cuts_default_model),
        cmocka_unit_test(test_cuts_portable),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_threads_default_model),
        cmocka_unit_test_setup_teardown(test_beside_another, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rollback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fork, setup, teardown),
        cmocka_unit_test_setup_teardown(test_second_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_times, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wanted_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory_is_said_first, setup, teardown),
        cmocka_unit_test(test_wrong_models),
        cmocka_unit_test_setup_teardown(test_chat, setup, teardown),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(tiny_path);
    return failed;
}
