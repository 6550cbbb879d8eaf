/* The pool: each item once, on a worker in range, for any number of threads; loops one after the other; cancellation. */
#include "base/threads.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { MOST = 1000 };

typedef struct {
    atomic_int count[MOST];
    atomic_int bad_worker;
    int threads;
    fv_context *cancel_at_ten;
} visits;

static void visit(void *arg, int64_t item, int worker) {
    visits *v = arg;
    atomic_fetch_add(&v->count[item], 1);
    if (worker < 0 || worker >= v->threads) {
        atomic_fetch_add(&v->bad_worker, 1);
    }
    if (v->cancel_at_ten != NULL && item == 10) {
        fv_cancel(v->cancel_at_ten, true);
    }
}

static fv_context *context_of(int threads) {
    fv_context *ctx;
    assert_int_equal(fv_context_create(&(fv_context_options){.threads = threads, .level = FV_LEVEL_C}, &ctx), FV_OK);
    assert_int_equal(fv_threads(ctx), threads);
    return ctx;
}

static void each_item_once(void **state) {
    (void)state;
    static const int64_t lengths[] = {0, 1, 2, 7, MOST};
    for (int threads = 1; threads <= 9; threads++) {
        fv_context *ctx = context_of(threads);
        for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
            visits v = {.threads = threads};
            fvi_parallel(ctx, lengths[l], visit, &v);
            for (int64_t i = 0; i < MOST; i++) {
                assert_int_equal(v.count[i], i < lengths[l] ? 1 : 0);
            }
            assert_int_equal(v.bad_worker, 0);
        }
        fv_context_destroy(ctx);
    }
}

static void many_short_loops(void **state) {
    (void)state;
    fv_context *ctx = context_of(4);
    visits v = {.threads = 4};
    for (int round = 0; round < 5000; round++) {
        fvi_parallel(ctx, 3, visit, &v);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(v.count[i], 5000);
    }
    fv_context_destroy(ctx);
}

static void cancelled_loops_end(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads += 2) {
        fv_context *ctx = context_of(threads);
        visits v = {.threads = threads, .cancel_at_ten = ctx};
        fvi_parallel(ctx, MOST, visit, &v);
        assert_int_equal(v.count[10], 1);
        assert_int_equal(v.count[MOST - 1], 0);
        fvi_parallel(ctx, MOST, visit, &v);
        assert_int_equal(v.count[0], 1); /* the flag stays up */
        fv_cancel(ctx, false);
        fvi_parallel(ctx, 10, visit, &v);
        assert_int_equal(v.count[0], 2);
        fv_context_destroy(ctx);
    }
}

static void two_contexts_at_once(void **state) {
    (void)state;
    fv_context *a = context_of(3), *b = context_of(2);
    visits va = {.threads = 3}, vb = {.threads = 2};
    for (int round = 0; round < 50; round++) {
        fvi_parallel(a, 20, visit, &va);
        fvi_parallel(b, 20, visit, &vb);
    }
    assert_int_equal(va.count[19], 50);
    assert_int_equal(vb.count[19], 50);
    fv_context_destroy(a);
    fv_context_destroy(b);
}

static void bad_options_are_refused(void **state) {
    (void)state;
    fv_context *ctx = (fv_context *)state;
    assert_int_equal(fv_context_create(&(fv_context_options){.threads = -1, .level = FV_LEVEL_C}, &ctx), FV_ERR_ARGUMENT);
    assert_null(ctx);
    assert_int_equal(fv_context_create(&(fv_context_options){.threads = 257, .level = FV_LEVEL_C}, &ctx), FV_ERR_ARGUMENT);
    assert_int_equal(fv_context_create(&(fv_context_options){.threads = 1, .level = (fv_level)7}, &ctx), FV_ERR_ARGUMENT);
    assert_int_equal(fv_context_create(&(fv_context_options){.threads = 1, .level = (fv_level)-1}, &ctx), FV_ERR_ARGUMENT);
    fv_context_destroy(NULL);
}

static void zeros_are_the_defaults(void **state) {
    (void)state;
    fv_context *plain, *zeros;
    assert_int_equal(fv_context_create(NULL, &plain), FV_OK);
    assert_int_equal(fv_context_create(&(fv_context_options){0}, &zeros), FV_OK);
    assert_true(fv_context_level(plain) != FV_LEVEL_BEST); /* what was chosen, not that it was left open */
    assert_int_equal(fv_context_level(plain), fv_context_level(zeros));
    assert_int_equal(fv_threads(plain), fv_threads(zeros));
    fv_context_options above = {.level = fv_context_level(plain) + 1};
    fv_context *none;
    assert_int_equal(fv_context_create(&above, &none), FV_ERR_ARGUMENT);
    fv_context_destroy(plain);
    fv_context_destroy(zeros);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_item_once),          cmocka_unit_test(many_short_loops),
        cmocka_unit_test(cancelled_loops_end),     cmocka_unit_test(two_contexts_at_once),
        cmocka_unit_test(bad_options_are_refused), cmocka_unit_test(zeros_are_the_defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
