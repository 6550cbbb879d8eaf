/* test_ceilings.c - ceilings hold their instruction's issue width: whole instructions a cycle, and no product slower than the
 * multiply-add that runs on the same units. One thread, the fastest of many short rounds, so a busy machine matters little. */
#include <fovea/fovea.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static bool measure(fv_level level, fv_ceilings *c) {
    fv_context *ctx = NULL;
    if (fv_context_create(&(fv_context_options){1, level, NULL}, &ctx) != FV_OK) {
        return false;
    }
    assert_int_equal(fv_measure_ceilings(ctx, c), FV_OK);
    fv_context_destroy(ctx);
    return true;
}

/* Instructions a cycle; clocks may differ by a few per cent between kinds of work. */
static void check_issue(double rate, double per, double clock) {
    double issue = rate / per / clock, width = fmax(1, round(issue));
    if (issue < 0.88 * width || issue > 1.12 * width || width > 4) {
        fail_msg("%g operations a second are %.3f instructions a cycle of %.2f GHz", rate, issue, clock * 1e-9);
    }
}

static void every_level_fills_its_units(void **state) {
    (void)state;
    static const double lanes[] = {[FV_LEVEL_AVX2] = 8, [FV_LEVEL_AVX512] = 16};
    for (int level = FV_LEVEL_AVX2; level <= FV_LEVEL_AVX512; level++) {
        fv_ceilings c;
        if (!measure((fv_level)level, &c)) {
            continue;
        }
        check_issue(c.fma_f32, 2 * lanes[level], c.clock_hz);
        assert_true(c.read > 1e8);
        if (level == FV_LEVEL_AVX2) {
            assert_true(c.dot_bf16 == 0 && c.dot_int8 == 0 && c.amx_bf16 == 0);
            continue;
        }
        if (c.dot_bf16 > 0) {
            check_issue(c.dot_bf16, 64, c.clock_hz);
        }
        if (c.dot_int8 > 0) {
            check_issue(c.dot_int8, 128, c.clock_hz);
            assert_true(c.dot_int8 >= 0.9 * 4 * c.fma_f32); /* where there are bytes' products, they run on the same units */
        }
    }
}

static void portable_ceilings_are_there(void **state) {
    (void)state;
    fv_ceilings c;
    assert_true(measure(FV_LEVEL_C, &c));
    assert_true(c.fma_f32 > 1e8 && c.read > 1e8 && c.clock_hz > 3e8);
    assert_true(c.dot_bf16 == 0 && c.dot_int8 == 0 && c.amx_bf16 == 0);
}

/* What a core's own cache holds is read at least as fast as memory. */
static void caches_are_faster_than_memory(void **state) {
    (void)state;
    fv_context *ctx = NULL;
    fv_ceilings c;
    double near = 0, none = 0;
    assert_int_equal(fv_context_create(&(fv_context_options){1, FV_LEVEL_BEST, NULL}, &ctx), FV_OK);
    assert_int_equal(fv_measure_ceilings(ctx, &c), FV_OK);
    assert_int_equal(fv_measure_read(ctx, 16 << 10, &near), FV_OK);
    assert_int_equal(fv_measure_read(ctx, 0, &none), FV_OK);
    assert_true(near > c.read && none > c.read);
    fv_cancel(ctx, true);
    assert_int_equal(fv_measure_read(ctx, 16 << 10, &near), FV_ERR_CANCELLED);
    fv_context_destroy(ctx);
}

/* More threads than cores wait for each other and still come to an end. */
static void many_threads_end(void **state) {
    (void)state;
    fv_context *ctx = NULL;
    fv_ceilings c;
    assert_int_equal(fv_context_create(&(fv_context_options){7, FV_LEVEL_BEST, NULL}, &ctx), FV_OK);
    assert_int_equal(fv_measure_ceilings(ctx, &c), FV_OK);
    assert_true(c.fma_f32 > 0 && c.read > 0);
    fv_cancel(ctx, true);
    assert_int_equal(fv_measure_ceilings(ctx, &c), FV_ERR_CANCELLED);
    fv_context_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_fills_its_units),
        cmocka_unit_test(portable_ceilings_are_there),
        cmocka_unit_test(caches_are_faster_than_memory),
        cmocka_unit_test(many_threads_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
