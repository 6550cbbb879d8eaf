/* test_moa_search.c - MoA's search against every choice there is: the least of each loss, all cells of the epsilon-constraint
 * grid, no plan that any choice beats; and its rules, spans and densities against layouts that are written out. */
#include "fovea/experimental.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { HEADS = 5, RULES = 4, LOSSES = 3, BUDGETS = 2, CHOICES = 1024 };

typedef struct sample {
    double loss[LOSSES * HEADS * RULES], cost[BUDGETS * RULES], bound[BUDGETS];
    fv_moa_problem p;
} sample;

static double number(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(*seed >> 11) * 0x1p-53;
}

/* Longer spans cost more and lose less, but not in proportion. */
static void make(uint64_t seed, int64_t losses, double tightness, sample *out) {
    for (int64_t e = 0; e < losses; e++) {
        for (int64_t h = 0; h < HEADS; h++) {
            double left = number(&seed) + 0.1;
            for (int64_t r = 0; r < RULES; r++) {
                out->loss[(e * HEADS + h) * RULES + r] = left;
                left *= number(&seed);
            }
        }
    }
    for (int64_t k = 0; k < BUDGETS; k++) {
        double cost = 0.05;
        for (int64_t r = 0; r < RULES; r++) {
            out->cost[k * RULES + r] = cost;
            cost += 0.3 * number(&seed);
        }
        out->bound[k] = 0.05 + tightness * (cost - 0.05);
    }
    out->p = (fv_moa_problem){.heads = HEADS,
                              .rules = RULES,
                              .losses = losses,
                              .loss = out->loss,
                              .budgets = BUDGETS,
                              .cost = out->cost,
                              .bound = out->bound,
                              .limit = 1 << 20};
}

static bool fits(const sample *s, int choice) {
    for (int64_t k = 0; k < BUDGETS; k++) {
        double used = 0;
        for (int h = 0; h < HEADS; h++) {
            used += s->cost[k * RULES + (choice >> 2 * h & 3)];
        }
        if (used > s->bound[k] * HEADS * (1 + 1e-9)) {
            return false;
        }
    }
    return true;
}

static double lost(const sample *s, int64_t e, int choice) {
    double sum = 0;
    for (int h = 0; h < HEADS; h++) {
        sum += s->loss[(e * HEADS + h) * RULES + (choice >> 2 * h & 3)];
    }
    return sum;
}

/* The best of all choices for loss `kind` with the others at most `most`; -1: none. */
static int best_of_all(const sample *s, int64_t kind, const double *most) {
    int best = -1;
    for (int c = 0; c < CHOICES; c++) {
        bool good = fits(s, c);
        for (int64_t e = 0; e < s->p.losses && good; e++) {
            good = e == kind || lost(s, e, c) <= most[e] * (1 + 1e-9);
        }
        best = good && (best < 0 || lost(s, kind, c) < lost(s, kind, best)) ? c : best;
    }
    return best;
}

static bool has_plan(const fv_moa_plans *plans, const sample *s, int choice) {
    for (int64_t i = 0; i < plans->n; i++) {
        bool same = true;
        for (int64_t e = 0; e < plans->losses; e++) {
            same = same && fabs(plans->loss[i * plans->losses + e] - lost(s, e, choice)) < 1e-9;
        }
        if (same) {
            return true;
        }
    }
    return false;
}

static void check_plan(const fv_moa_plans *plans, int64_t i, const sample *s) {
    int choice = 0;
    for (int h = 0; h < HEADS; h++) {
        assert_in_range(plans->rule[i * HEADS + h], 0, RULES - 1);
        choice |= plans->rule[i * HEADS + h] << 2 * h;
    }
    assert_true(fits(s, choice));
    for (int64_t e = 0; e < plans->losses; e++) {
        assert_true(fabs(plans->loss[i * plans->losses + e] - lost(s, e, choice)) < 1e-9);
    }
    for (int c = 0; c < CHOICES; c++) {
        bool beats = fits(s, c);
        for (int64_t e = 0; e < plans->losses; e++) {
            beats = beats && lost(s, e, c) < lost(s, e, choice) - 1e-9;
        }
        assert_false(beats);
    }
}

/* All cells of the grid, by trying every choice. */
static void check_cells(const fv_moa_plans *plans, const sample *s) {
    double low[LOSSES], high[LOSSES], most[LOSSES] = {INFINITY, INFINITY, INFINITY};
    for (int e = 0; e < LOSSES; e++) {
        low[e] = INFINITY;
        high[e] = 0;
    }
    for (int64_t kind = 0; kind < s->p.losses; kind++) {
        int best = best_of_all(s, kind, most);
        assert_true(has_plan(plans, s, best));
        for (int64_t e = 0; e < s->p.losses; e++) {
            low[e] = fmin(low[e], lost(s, e, best));
            high[e] = fmax(high[e], lost(s, e, best));
        }
    }
    for (int64_t kind = 0; kind < s->p.losses && s->p.losses > 1; kind++) {
        for (int cell = 0; cell < (s->p.losses == 3 ? 16 : 4); cell++) {
            int rest = cell;
            for (int64_t e = 0; e < s->p.losses; e++) {
                if (e != kind) {
                    most[e] = low[e] + (high[e] - low[e]) * (rest % 4 + 1) / 4;
                    rest /= 4;
                }
            }
            int best = best_of_all(s, kind, most);
            assert_true(best < 0 || has_plan(plans, s, best));
        }
    }
}

static void test_against_all_choices(void **state) {
    fv_context *ctx = *state;
    int64_t several = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        sample s;
        fv_moa_plans plans;
        make(seed, 1 + (int64_t)seed % LOSSES, 0.1 + 0.1 * (double)(seed % 8), &s);
        assert_int_equal(fv_moa_search(ctx, &s.p, &plans), FV_OK);
        assert_true(plans.exact && plans.n >= 1);
        for (int64_t i = 0; i < plans.n; i++) {
            check_plan(&plans, i, &s);
        }
        check_cells(&plans, &s);
        several += plans.n > 1;
        fv_moa_plans_free(ctx, &plans);
    }
    assert_true(several > 20);
}

static void test_bounds(void **state) {
    fv_context *ctx = *state;
    sample s;
    fv_moa_plans plans;
    make(3, 2, 0.5, &s);
    s.bound[1] = 0.01; /* below the least rule */
    assert_int_equal(fv_moa_search(ctx, &s.p, &plans), FV_ERR_UNSUPPORTED);
    fv_moa_plans_free(ctx, &plans);
    s.p.losses = FV_MOA_LOSSES + 1;
    assert_int_equal(fv_moa_search(ctx, &s.p, &plans), FV_ERR_ARGUMENT);
    fv_moa_plans_free(ctx, &plans);
    make(3, 2, 2, &s); /* bounds that bind nothing: every head its longest span */
    assert_int_equal(fv_moa_search(ctx, &s.p, &plans), FV_OK);
    assert_int_equal(plans.n, 1);
    for (int h = 0; h < HEADS; h++) {
        assert_int_equal(plans.rule[h], RULES - 1);
    }
    fv_moa_plans_free(ctx, &plans);
}

/* A model's size: the choice keeps to the bounds, and no single head can do better within them. */
static void test_many_heads(void **state) {
    fv_context *ctx = *state;
    enum { MANY = 270, SPANS = 30 };
    uint64_t seed = 5;
    double *loss = malloc(MANY * SPANS * sizeof *loss), cost[SPANS], bound = 0.4;
    for (int k = 0; k < MANY; k++) {
        double top = number(&seed);
        for (int r = 0; r < SPANS; r++) {
            cost[r] = (r + 1.0) / SPANS;
            loss[k * SPANS + r] = top * exp(-cost[r] * 20 * top);
        }
    }
    fv_moa_problem p = {MANY, SPANS, 1, loss, 1, cost, &bound, 100000};
    fv_moa_plans plans;
    assert_int_equal(fv_moa_search(ctx, &p, &plans), FV_OK);
    double used = 0, uniform = 0;
    for (int h = 0; h < MANY; h++) {
        used += cost[plans.rule[h]];
        uniform += loss[h * SPANS + (int)(bound * SPANS) - 1];
    }
    assert_true(used <= bound * MANY * (1 + 1e-9));
    assert_true(plans.loss[0] < uniform);
    for (int h = 0; h < MANY; h++) {
        for (int r = 0; r < SPANS; r++) {
            bool possible = used - cost[plans.rule[h]] + cost[r] <= bound * MANY;
            assert_false(possible && loss[h * SPANS + r] < loss[h * SPANS + plans.rule[h]] - 1e-12);
        }
    }
    fv_moa_plans_free(ctx, &plans);
    free(loss);
}

static void test_rules(void **state) {
    (void)state;
    fv_moa_rule rule[200];
    fv_moa_grid grid = {2048, 8192, 16384, 1024, 9};
    int64_t n = fv_moa_rules(&grid, rule, 200), expected = 0;
    for (int alpha = -2048; alpha <= 8192; alpha += 1024) {
        for (int b = 0; b <= 8; b++) {
            expected += alpha + 2048 * b / 8 > 0 && alpha + 8192 * b / 8 <= 8192 && alpha + 16384 * b / 8 <= 16384;
        }
    }
    assert_int_equal(n, expected);
    for (int64_t i = 1; i < n; i++) {
        assert_true(rule[i - 1].alpha + rule[i - 1].beta * 16384 <= rule[i].alpha + rule[i].beta * 16384);
    }
    fv_moa_rule few[5];
    assert_int_equal(fv_moa_rules(&grid, few, 5), expected);
    assert_memory_equal(few, rule, sizeof few);
}

/* Blocks that the last row sees, counted one by one. */
static void test_spans_and_densities(void **state) {
    (void)state;
    enum { N = 12 };
    static const fv_moa_rule rule[] = {{0, 0.5}, {-128, 0.5}, {-640, 1}, {200, 0}, {0, 1}, {-9999, 0}};
    for (size_t k = 0; k < sizeof rule / sizeof *rule; k++) {
        int seen = 0, span = 0;
        for (int j = 0; j < N; j++) {
            bool near = j == N - 1 || N - j <= floor(rule[k].alpha / 64) + rule[k].beta * N;
            seen += j == 0 || near;
            span += near;
        }
        assert_int_equal(fv_moa_span(rule[k], N), span);
        assert_true(fabs((double)seen / N - fv_moa_density(rule[k], N)) < 1e-12);
    }
}

static int setup(void **state) { return fv_context_create(NULL, (fv_context **)state); }

static int teardown(void **state) {
    fv_context_destroy(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_all_choices), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_many_heads),          cmocka_unit_test(test_rules),
        cmocka_unit_test(test_spans_and_densities),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
