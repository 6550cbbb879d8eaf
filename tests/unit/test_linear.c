/* Weight products: every allocation's failure is a status and leaks nothing; what is refused, and how it is said. */
#include "alloc_fail.h"
#include "base/base.h"
#include "model/linear.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

enum { IN = 64, OUT = 64, ROWS = 9 };

/* Creates, prepares one matrix to keep and one beyond the budget, and multiplies with both. */
static fv_status whole_life(fv_context *ctx, const float *weights, const float *x, float *y) {
    fvi_gemm *gemm;
    fvi_linear kept = {.name = "kept", .data = weights, .dtype = FV_F32, .n_in = IN, .n_out = OUT}, passing = kept;
    fv_status status = fvi_gemm_create(ctx, OUT * IN * sizeof(float) + 4096, &gemm);
    if (status != FV_OK) {
        return status;
    }
    const fvi_linear *both[] = {&kept, &passing};
    float *to[] = {y, y + ROWS * OUT};
    passing.name = "passing";
    passing.n_out = OUT / 2;
    status = fvi_linear_prepare(gemm, &kept);
    status = status == FV_OK ? fvi_linear_prepare(gemm, &passing) : status;
    status = status == FV_OK ? fvi_linear_prompt_many(gemm, both, to, 2, x, ROWS) : status;
    fvi_gemm_destroy(gemm);
    return status;
}

static void every_allocation_fails(void **state) {
    (void)state;
    static float weights[OUT * IN], x[ROWS * IN], y[2 * ROWS * OUT];
    for (int i = 0; i < OUT * IN; i++) {
        weights[i] = 1;
        x[i % (ROWS * IN)] = 1;
    }
    for (int64_t n = 1;; n++) {
        alloc_fail a;
        fv_context *ctx = alloc_fail_begin(&a, 2);
        assert_non_null(ctx);
        alloc_fail_arm(&a, n);
        fv_status status = whole_life(ctx, weights, x, y);
        bool failed = a.failed, said = fv_message(ctx)[0] != 0;
        assert_int_equal(alloc_fail_end(&a, ctx), 0);
        if (!failed) {
            assert_int_equal(status, FV_OK);
            assert_true(y[0] == IN && y[ROWS * OUT] == IN);
            print_message("weight products: %d allocations failed one by one\n", (int)n - 1);
            return;
        }
        assert_int_equal(status, FV_ERR_MEMORY);
        assert_true(said);
    }
}

static void wrong_matrices_are_refused(void **state) {
    (void)state;
    fv_context *ctx;
    fvi_gemm *gemm;
    assert_int_equal(fv_context_create(&(fv_context_options){.threads = 1}, &ctx), FV_OK);
    assert_int_equal(fvi_gemm_create(ctx, 0, &gemm), FV_OK);
    float x[33] = {0}, y[33];
    fvi_linear w = {.name = "odd", .data = x, .dtype = FV_Q8_0, .n_in = 33, .n_out = 1};
    assert_int_equal(fvi_linear_prepare(gemm, &w), FV_ERR_UNSUPPORTED);
    assert_non_null(strstr(fv_message(ctx), "odd"));
    assert_int_equal(fvi_linear_prompt(gemm, &w, x, 1, y), FV_ERR_STATE);
    w.dtype = FV_F32;
    w.n_out = 0;
    assert_int_equal(fvi_linear_prepare(gemm, &w), FV_ERR_UNSUPPORTED);
    w.n_out = 1;
    w.dtype = FV_I32;
    assert_int_equal(fvi_linear_prepare(gemm, &w), FV_ERR_UNSUPPORTED);
    w.dtype = FV_F32;
    assert_int_equal(fvi_linear_prepare(gemm, &w), FV_OK);
    fv_cancel(ctx, true);
    assert_int_equal(fvi_linear_prompt(gemm, &w, x, 1, y), FV_ERR_CANCELLED);
    fvi_gemm_destroy(gemm);
    fv_context_destroy(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_fails), cmocka_unit_test(wrong_matrices_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
