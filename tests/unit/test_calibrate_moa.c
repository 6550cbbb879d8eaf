/* test_calibrate_moa.c - MoA's profile of a model: losses against sessions of files' recipes, whose logits are compared here;
 * between measured spans by hand; the profile within its bounds and not beaten by a rule for all heads; a profile lent to a
 * session. */
#include "lab/calibrate_moa.h"
#include "tiny_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { TOKENS = 512, HEADS = 8, TEXT = 1500, VOCAB = 101 };

static char model_path[64], profile_path[80], text[TEXT + 1];
static fv_context *ctx;
static fv_model *model;

static void assert_ok(fv_status status) {
    if (status != FV_OK) {
        fail_msg("%s: %s", fv_status_name(status), fv_message(ctx));
    }
}

static fv_tokens tokens_of_text(void) {
    fv_tokens t = {0};
    assert_ok(fv_tokenize(ctx, fv_model_vocab(model), text, TEXT, false, &t));
    assert_true(t.n >= 2 * TOKENS);
    return t;
}

static fv_calibrate_options options_of(int64_t prompts) {
    fv_calibrate_options o = fv_calibrate_options_default();
    o.text = text;
    o.size = TEXT;
    o.recipe = "prefill=moa";
    o.tokens = TOKENS;
    o.prompts = prompts;
    o.kv_dtype = FV_F32;
    return o;
}

/* ---- the table ---- */

static void test_spans(void **state) {
    (void)state;
    fvi_moa_table t;
    fvi_moa_table_plan(4096, 64, &t);
    static const int64_t half[] = {1, 2, 4, 8, 16, 24}, whole[] = {1, 4, 8, 16, 32, 48};
    assert_true(t.length[0] == 2048 && t.length[1] == 4096 && t.spans[0] == 6 && t.spans[1] == 6);
    assert_memory_equal(t.span[0], half, sizeof half);
    assert_memory_equal(t.span[1], whole, sizeof whole);
    fvi_moa_table_plan(150, 1, &t); /* 2 and 3 blocks */
    assert_true(t.spans[0] == 1 && t.span[0][0] == 1 && t.spans[1] == 2 && t.span[1][0] == 1 && t.span[1][1] == 2);
}

static void test_between(void **state) {
    (void)state;
    fvi_moa_table t;
    fvi_moa_table_plan(4096, 2, &t);
    double loss[2 * 2 * FVI_MOA_SPANS];
    for (int i = 0; i < 24; i++) {
        loss[i] = i < 18 ? 100 : 32 - (i - 18) * 4; /* of head 1 at 4096: 32, 28, 24, 20, 16, 12 */
    }
    t.loss = loss;
    for (int k = 0; k < 6; k++) {
        assert_true(fvi_moa_table_loss(&t, 1, 1, t.span[1][k]) == 32 - k * 4);
    }
    assert_true(fabs(fvi_moa_table_loss(&t, 1, 1, 2) - 30) < 1e-12); /* the middle of 1 and 4 */
    assert_true(fabs(fvi_moa_table_loss(&t, 1, 1, 24) - (20 - 4 * log(1.5) / log(2))) < 1e-12);
    assert_true(fabs(fvi_moa_table_loss(&t, 1, 1, 56) - 12 * (1 - log(56. / 48) / log(64. / 48))) < 1e-12);
    assert_true(fvi_moa_table_loss(&t, 1, 1, 64) == 0 && fvi_moa_table_loss(&t, 1, 0, 64) == 0);
}

/* ---- losses ---- */

typedef struct logged {
    int n;
    double *p; /* (TOKENS, VOCAB) log-probabilities of all positions */
} logged;

static int keep(void *user, int64_t position, const float *logits) {
    logged *l = user;
    double sum = 0;
    for (int i = 0; i < VOCAB; i++) {
        sum += exp((double)logits[i]);
    }
    for (int i = 0; i < VOCAB; i++) {
        l->p[position * VOCAB + i] = logits[i] - log(sum);
    }
    l->n++;
    return 0;
}

static logged run(const char *recipe, const int32_t *token, int64_t n) {
    logged l = {0, calloc((size_t)n * VOCAB, sizeof *l.p)};
    const fv_session_options o = {.recipe = recipe, .kv_dtype = FV_F32, .context = n};
    const fv_feed feed = {.on_logits = keep, .user = &l};
    fv_session *s;
    assert_ok(fv_session_create(model, &o, &s));
    assert_ok(fv_session_feed(s, token, n, &feed));
    assert_ok(fv_session_finish(s));
    assert_int_equal(l.n, n);
    fv_session_destroy(s);
    return l;
}

/* A profile that is dense but for one head, in a file. */
static void write_one(int64_t head, int64_t blocks) {
    fv_profile *p;
    assert_ok(fv_profile_create(ctx, "moa", 2, 4, &p));
    for (int h = 0; h < HEADS; h++) {
        const double rule[2] = {h == head ? (double)(64 * blocks) : 0, h == head ? 0 : 1};
        assert_ok(fv_profile_set(p, h / 4, h % 4, rule, 2));
    }
    assert_ok(fv_profile_write(ctx, p, profile_path));
    fv_profile_destroy(p);
}

/* Every fourth position of the second half: 64 of 512 tokens, 64 (each second) of 256. */
static double kl_of(const logged *dense, const logged *other, int64_t n) {
    double sum = 0;
    for (int64_t i = n / 2; i < n; i += n / 128) {
        for (int v = 0; v < VOCAB; v++) {
            sum += exp(dense->p[i * VOCAB + v]) * (dense->p[i * VOCAB + v] - other->p[i * VOCAB + v]);
        }
    }
    return sum / 64;
}

static void test_losses(void **state) {
    (void)state;
    char recipe[120];
    fv_tokens t = tokens_of_text();
    fvi_moa_table table;
    const fv_calibrate_options o = options_of(1);
    fvi_moa_table_plan(TOKENS, HEADS, &table);
    assert_ok(fvi_moa_measure(model, &o, &t, &table));
    snprintf(recipe, sizeof recipe, "prefill=moa@%s:fallback=0", profile_path);
    int shrinks = 0;
    for (int e = 0; e < 2; e++) {
        logged dense = run("", t.id, table.length[e]);
        for (int64_t head = 0; head < HEADS; head += 3) {
            for (int64_t k = 0; k < table.spans[e]; k += 2) {
                const double loss = table.loss[(e * HEADS + head) * FVI_MOA_SPANS + k];
                write_one(head, table.span[e][k]);
                logged sparse = run(recipe, t.id, table.length[e]);
                const double kl = kl_of(&dense, &sparse, table.length[e]);
                if (kl > 1e-6 && fabs(loss - kl) > 1e-7 + 1e-3 * kl) {
                    fail_msg("%d tokens, head %d, %d blocks: measured %g, here %g", (int)table.length[e], (int)head,
                             (int)table.span[e][k], loss, kl);
                }
                shrinks += k > 0 && loss < table.loss[(e * HEADS + head) * FVI_MOA_SPANS];
                assert_true(k > 0 || loss > 1e-6);
                free(sparse.p);
            }
        }
        free(dense.p);
    }
    assert_true(shrinks > 0);
    fvi_moa_table_release(ctx, &table);
    fv_tokens_release(ctx, &t);
}

/* ---- the profile ---- */

static int64_t span_of(const double *rule, int64_t blocks) {
    const double span = floor(rule[0] / 64) + rule[1] * (double)blocks;
    return span < 1 ? 1 : span > (double)blocks ? blocks : (int64_t)span;
}

static void test_profile(void **state) {
    (void)state;
    static const double bounds[] = {0.5, 0.7};
    fv_tokens t = tokens_of_text();
    fvi_moa_table table;
    fv_calibrate_options o = options_of(1);
    fvi_moa_table_plan(TOKENS, HEADS, &table);
    assert_ok(fvi_moa_measure(model, &o, &t, &table));
    double before = INFINITY;
    for (int b = 0; b < 2; b++) {
        o.budget = bounds[b];
        fv_profile *p;
        assert_ok(fv_calibrate(model, &o, &p));
        assert_true(fv_profile_model(p) == fv_model_fingerprint(model));
        double loss[2] = {0, 0}, uniform[2][8] = {{0}};
        for (int64_t blocks = 4; blocks <= 16; blocks *= 2) { /* 256, 512 and 1024 tokens */
            double density = 0;
            for (int h = 0; h < HEADS; h++) {
                int64_t n;
                const double *rule = fv_profile_get(p, h / 4, h % 4, &n);
                assert_int_equal(n, 2);
                const int64_t span = span_of(rule, blocks), seen = span + 1 < blocks ? span + 1 : blocks;
                density += (double)seen / (double)blocks / HEADS;
                if (blocks <= 8) {
                    loss[blocks / 8] += fvi_moa_table_loss(&table, (int)(blocks / 8), h, span);
                }
            }
            assert_true(density <= bounds[b] + 1e-9);
        }
        /* alpha from 0 to 7 blocks for all heads */
        for (int e = 0; e < 2; e++) {
            for (int64_t span = 1; span < 8; span++) {
                for (int h = 0; h < HEADS; h++) {
                    uniform[e][span] += fvi_moa_table_loss(&table, e, h, span < 4 * (e + 1) ? span : 4 * (e + 1));
                }
            }
        }
        for (int64_t span = 1; span < 8; span++) {
            const bool fits = (double)(span + 1) <= 4 * bounds[b];
            assert_false(fits && uniform[0][span] < loss[0] - 1e-12 && uniform[1][span] < loss[1] - 1e-12);
        }
        assert_true(loss[0] + loss[1] < before); /* a wider bound loses less */
        before = loss[0] + loss[1];
        fv_profile_destroy(p);
    }
    fvi_moa_table_release(ctx, &table);
    fv_tokens_release(ctx, &t);
}

static void test_refusals(void **state) {
    (void)state;
    fv_profile *p;
    fv_calibrate_options o = options_of(1);
    o.budget = 0.1; /* a span and the sinks are half of 256 tokens */
    assert_int_equal(fv_calibrate(model, &o, &p), FV_ERR_UNSUPPORTED);
    assert_null(p);
    o = options_of(1);
    o.tokens = 100;
    assert_int_equal(fv_calibrate(model, &o, &p), FV_ERR_ARGUMENT);
    assert_non_null(strstr(fv_message(ctx), "128 or more"));
    o = options_of(1 + TEXT / TOKENS);
    assert_int_equal(fv_calibrate(model, &o, &p), FV_ERR_RANGE);
}

static int stop_later(void *user, const char *what, double share) {
    double *last = user;
    assert_true(what[0] != '\0' && share >= *last - 1e-9 && share <= 1 + 1e-9);
    *last = share;
    return share > 0.6;
}

static void test_progress(void **state) {
    (void)state;
    fv_profile *p;
    double last = 0;
    fv_calibrate_options o = options_of(2);
    o.progress = stop_later;
    o.user = &last;
    assert_int_equal(fv_calibrate(model, &o, &p), FV_ERR_CANCELLED);
    assert_null(p);
    assert_true(last > 0.6 && last < 0.7);
}

/* ---- a profile that is lent ---- */

static void test_lent(void **state) {
    (void)state;
    fv_tokens t = tokens_of_text();
    fv_profile *p, *other;
    fv_session *s, *fork;
    write_one(2, 1);
    assert_ok(fv_profile_read(ctx, profile_path, &p));
    char recipe[120];
    snprintf(recipe, sizeof recipe, "prefill=moa@%s:fallback=0", profile_path);
    logged named = run(recipe, t.id, TOKENS), l = {0, calloc((size_t)TOKENS * VOCAB, sizeof *l.p)};
    fv_session_options o = {.recipe = "prefill=moa:fallback=0", .kv_dtype = FV_F32, .context = TOKENS, .profile = p};
    const fv_feed feed = {.on_logits = keep, .user = &l};
    assert_ok(fv_session_create(model, &o, &s));
    assert_ok(fv_session_fork(s, &fork));
    for (int i = 0; i < 2; i++) { /* a fork has it too */
        memset(l.p, 0, (size_t)TOKENS * VOCAB * sizeof *l.p);
        assert_ok(fv_session_feed(i ? fork : s, t.id, TOKENS, &feed));
        assert_ok(fv_session_finish(i ? fork : s));
        assert_memory_equal(l.p, named.p, (size_t)TOKENS * VOCAB * sizeof *l.p);
    }
    assert_int_equal(fv_session_save(s, "/tmp/never"), FV_ERR_UNSUPPORTED);
    assert_int_not_equal(access("/tmp/never", F_OK), 0);
    fv_session_destroy(s);
    fv_session_destroy(fork);
    o.recipe = "prefill=dhsa";
    assert_int_equal(fv_session_create(model, &o, &s), FV_ERR_ARGUMENT);
    assert_non_null(strstr(fv_message(ctx), "the profile is of moa"));
    assert_ok(fv_profile_create(ctx, "moa", 3, 4, &other));
    o.recipe = "prefill=moa";
    o.profile = other;
    assert_int_equal(fv_session_create(model, &o, &s), FV_ERR_ARGUMENT);
    assert_non_null(strstr(fv_message(ctx), "the profile is for 3 layers"));
    fv_profile_destroy(other);
    fv_profile_destroy(p);
    free(named.p);
    free(l.p);
    fv_tokens_release(ctx, &t);
}

static int set_up(void **state) {
    (void)state;
    tiny_model m = tiny_default();
    tiny_write(&m, model_path);
    snprintf(profile_path, sizeof profile_path, "%s.json", model_path);
    uint64_t seed = 9;
    for (int i = 0; i < TEXT; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        text[i] = (char)('a' + (seed >> 33) % 26);
    }
    return fv_context_create(NULL, &ctx) != FV_OK || fv_model_open(ctx, model_path, NULL, &model) != FV_OK;
}

static int tear_down(void **state) {
    (void)state;
    unlink(profile_path);
    unlink(model_path);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_spans),    cmocka_unit_test(test_between),
                                       cmocka_unit_test(test_losses),   cmocka_unit_test(test_profile),
                                       cmocka_unit_test(test_refusals), cmocka_unit_test(test_progress),
                                       cmocka_unit_test(test_lent)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
