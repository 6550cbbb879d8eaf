/* test_sampler.c - each filter against what it says, and draws against their probabilities. */
#include "base/base.h"
#include "base/rng.h"
#include "fovea/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static fv_context *ctx;

static fv_sampler *make(fv_sampler_options o) {
    fv_sampler *s;
    assert_int_equal(fv_sampler_create(ctx, &o, &s), FV_OK);
    return s;
}

static int32_t once(fv_sampler *s, const float *logits, int64_t n) {
    int32_t id = -1;
    if (fv_sample(s, logits, n, &id) != FV_OK) {
        fail_msg("%s", fv_message(ctx));
    }
    assert_in_range(id, 0, n - 1);
    return id;
}

static void test_greedy(void **state) {
    (void)state;
    fv_sampler *s = make(fv_sampler_options_default());
    assert_int_equal(once(s, (float[]){1, 3, 3, 2}, 4), 1);
    assert_int_equal(once(s, (float[]){-INFINITY, -9, -INFINITY}, 3), 1);
    assert_int_equal(once(s, (float[]){0, -0.0f, 0}, 3), 0);
    assert_int_equal(once(s, (float[]){5}, 1), 0);
    fv_sampler_destroy(s);
}

static void test_refusals(void **state) {
    (void)state;
    int32_t id = 77;
    for (int greedy = 0; greedy < 2; greedy++) {
        fv_sampler_options o = fv_sampler_options_default();
        o.temperature = greedy ? 0 : 1;
        fv_sampler *s = make(o);
        assert_int_equal(fv_sample(s, (float[]){1, NAN, 2}, 3, &id), FV_ERR_ARGUMENT);
        assert_non_null(strstr(fv_message(ctx), "logit 1 is"));
        assert_int_equal(fv_sample(s, (float[]){1, 2, INFINITY}, 3, &id), FV_ERR_ARGUMENT);
        assert_int_equal(fv_sample(s, (float[]){-INFINITY, -INFINITY}, 2, &id), FV_ERR_ARGUMENT);
        assert_int_equal(fv_sample(s, (float[]){1}, 0, &id), FV_ERR_ARGUMENT);
        assert_int_equal(fv_sample(s, NULL, 5, &id), FV_ERR_ARGUMENT);
        assert_int_equal(fv_sampler_accept(s, -1), FV_ERR_ARGUMENT);
        assert_int_equal(id, 77);
        fv_sampler_destroy(s);
    }
    const fv_sampler_options good = fv_sampler_options_default();
    fv_sampler_options bad[9];
    for (int i = 0; i < 9; i++) {
        bad[i] = good;
    }
    bad[0].temperature = -1;
    bad[1].temperature = NAN;
    bad[2].top_k = -1;
    bad[3].top_p = 0;
    bad[4].top_p = 1.5f;
    bad[5].min_p = NAN;
    bad[6].min_p = 2;
    bad[7].repeat_penalty = 0;
    bad[8].repeat_last = -1;
    for (int i = 0; i < 9; i++) {
        fv_sampler *s;
        assert_int_equal(fv_sampler_create(ctx, &bad[i], &s), FV_ERR_ARGUMENT);
        assert_null(s);
    }
}

static void test_penalty(void **state) {
    (void)state;
    fv_sampler_options o = fv_sampler_options_default();
    o.repeat_penalty = 2;
    o.repeat_last = 2;
    fv_sampler *s = make(o);
    const float logits[] = {4, 3, 2.5f, -1};
    assert_int_equal(once(s, logits, 4), 0); /* then 0 counts 2 */
    assert_int_equal(once(s, logits, 4), 1); /* then 1 counts 1.5 */
    assert_int_equal(once(s, logits, 4), 2); /* 0 is forgotten */
    assert_int_equal(once(s, logits, 4), 0);
    /* negative logits are multiplied; a token that stands twice counts once; ids past the end do no harm */
    fv_sampler *t = make(o);
    assert_int_equal(fv_sampler_accept(t, 0), FV_OK);
    assert_int_equal(fv_sampler_accept(t, 0), FV_OK);
    assert_int_equal(once(t, (float[]){-1, -3}, 2), 0);
    assert_int_equal(once(t, (float[]){-1, -1.9f}, 2), 1);
    assert_int_equal(fv_sampler_accept(t, 1000), FV_OK);
    assert_int_equal(once(t, (float[]){1, 1.1f}, 2), 0);
    fv_sampler_destroy(t);
    fv_sampler_destroy(s);
}

/* Chi-square of `draws` draws against p (n), zero where p is. */
static void assert_distribution(fv_sampler_options o, const float *logits, const double *p, int n) {
    enum { DRAWS = 20000 };
    o.repeat_penalty = 1;
    fv_sampler *s = make(o);
    int *count = calloc((size_t)n, sizeof *count);
    for (int i = 0; i < DRAWS; i++) {
        count[once(s, logits, n)]++;
    }
    double chi = 0;
    int free_cells = -1;
    for (int i = 0; i < n; i++) {
        if (p[i] > 0) {
            chi += (count[i] - DRAWS * p[i]) * (count[i] - DRAWS * p[i]) / (DRAWS * p[i]);
            free_cells++;
        } else {
            assert_int_equal(count[i], 0);
        }
    }
    /* mean f, deviation sqrt(2f): five of them */
    if (chi > free_cells + 5 * sqrt(2.0 * free_cells) + 1e-9) {
        fail_msg("chi-square %g with %d free cells, seed %llu", chi, free_cells, (unsigned long long)o.seed);
    }
    free(count);
    fv_sampler_destroy(s);
}

/* The reference: all sorted, filter by filter as sampler.c says. */
static void reference(fv_sampler_options o, const float *logits, int n, double *p) {
    bool *in = calloc((size_t)n, sizeof *in), *out = calloc((size_t)n, sizeof *out);
    double total = 0, most = 0, sum = 0, kept_sum = 0;
    int *order = calloc((size_t)n, sizeof *order);
    for (int i = 0; i < n; i++) { /* insertion by logit, then id */
        int at = i;
        while (at > 0 && logits[order[at - 1]] < logits[i]) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    for (int i = 0; i < n; i++) {
        int id = order[i];
        in[id] = o.top_k == 0 || i < o.top_k;
        p[id] = in[id] ? exp(((double)logits[id] - logits[order[0]]) / o.temperature) : 0;
        total += p[id];
    }
    most = 1;
    for (int i = 0; i < n && (i == 0 || sum < (double)o.top_p * total); i++) {
        int id = order[i];
        if (in[id] && p[id] >= o.min_p * most) {
            out[id] = true;
            kept_sum += p[id];
        }
        sum += p[id];
    }
    for (int i = 0; i < n; i++) {
        p[i] = out[i] ? p[i] / kept_sum : 0;
    }
    free(order);
    free(out);
    free(in);
}

static void test_filters(void **state) {
    (void)state;
    static const struct {
        float temperature;
        int k;
        float top_p, min_p;
    } row[] = {{1, 0, 1, 0},          {0.5f, 0, 1, 0},        {2, 0, 1, 0},      {1, 3, 1, 0},
               {1, 0, 0.7f, 0},       {1, 0, 1, 0.2f},        {1, 6, 0.8f, 0},   {1, 6, 1, 0.3f},
               {1.5f, 0, 0.9f, 0.1f}, {0.7f, 8, 0.9f, 0.05f}, {1, 100, 0.5f, 0}, {1, 1, 1, 0}};
    float logits[24];
    double p[24];
    fvi_rng rng = {99};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        for (int k = 0; k < 24; k++) {
            logits[k] = k % 5 == 0 ? 1.0f : (float)(fvi_rng_unit(&rng) * 5 - 2.5); /* some are equal */
        }
        fv_sampler_options o = fv_sampler_options_default();
        o.temperature = row[i].temperature;
        o.top_k = row[i].k;
        o.top_p = row[i].top_p;
        o.min_p = row[i].min_p;
        o.seed = 1000 + i;
        reference(o, logits, 24, p);
        assert_distribution(o, logits, p, 24);
    }
}

static void test_seed(void **state) {
    (void)state;
    float logits[500];
    int32_t first[50];
    int differ = 0;
    for (int i = 0; i < 500; i++) {
        logits[i] = (float)((i * 37) % 100) / 25;
    }
    for (int round = 0; round < 3; round++) {
        fv_sampler_options o = fv_sampler_options_default();
        o.temperature = 1;
        o.top_p = 0.95f;
        o.seed = round < 2 ? 5 : 6;
        fv_sampler *s = make(o);
        for (int i = 0; i < 50; i++) {
            int32_t id = once(s, logits, 500);
            if (round == 1) {
                assert_int_equal(id, first[i]);
            }
            differ += round == 2 && id != first[i];
            first[i] = round == 0 ? id : first[i];
        }
        fv_sampler_destroy(s);
    }
    assert_true(differ > 10);
}

int main(void) {
    if (fv_context_create(&(fv_context_options){.threads = 1, .level = FV_LEVEL_BEST}, &ctx) != FV_OK) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),  cmocka_unit_test(test_refusals), cmocka_unit_test(test_penalty),
        cmocka_unit_test(test_filters), cmocka_unit_test(test_seed),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fv_context_destroy(ctx);
    return failed;
}
