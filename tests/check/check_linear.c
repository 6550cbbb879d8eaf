/* check_linear.c - products with weights (model/linear.h): a prompt row's bits for any number of rows, place and number of
 * threads; its error; weights unpacked once against weights unpacked in passing; single tokens. With --bench the speed of both
 * paths. */
#include "base/rng.h"
#include "kernel/convert.h"
#include "model/linear.h"
#include "poison.h"

#include <math.h>

typedef struct matrix {
    fv_dtype dtype;
    int64_t n_out, n_in;
} matrix;

static const matrix matrices[] = {{FV_Q8_0, 512, 512},  {FV_BF16, 128, 512}, {FV_Q4_0, 1408, 512}, {FV_Q4_1, 512, 1408},
                                  {FV_Q8_0, 2500, 512}, {FV_F32, 33, 37},    {FV_F16, 65, 100},    {FV_BF16, 7, 95},
                                  {FV_F32, 512, 512},   {FV_Q8_0, 1, 32}};
enum { N_MATRICES = sizeof matrices / sizeof matrices[0], MOST = 1000 };
static int failures;

static void fail(const matrix *a, const char *what, int64_t m, int threads) {
    failures++;
    printf("FAIL %s %lld x %lld, m %lld, %d threads: %s\n", fv_dtype_name(a->dtype), (long long)a->n_out, (long long)a->n_in,
           (long long)m, threads, what);
}

static void *need(void *p) {
    if (p == NULL) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    return p;
}

static float spread(fvi_rng *r) { return (float)(fvi_rng_unit(r) + fvi_rng_unit(r) - 1); }

static guard make_weights(const matrix *a, fvi_rng *r) {
    guard g = guard_make((size_t)a->n_out * fv_dtype_bytes(a->dtype, a->n_in), a->dtype == FV_F32 ? 4 : 2, true);
    bool blocks = a->dtype == FV_Q8_0 || a->dtype == FV_Q4_0 || a->dtype == FV_Q4_1;
    size_t unit = fv_dtype_bytes(a->dtype, blocks ? 32 : 1);
    for (size_t i = 0; i < g.size; i++) {
        g.data[i] = (unsigned char)fvi_rng_next(r);
    }
    for (size_t at = 0; at < g.size; at += unit) {
        float value = spread(r);
        uint16_t half = fvi_f32_to_f16(blocks ? value * 0.01f : value), least = fvi_f32_to_f16(-0.05f);
        if (a->dtype == FV_F32) {
            memcpy(g.data + at, &value, 4);
        } else {
            half = a->dtype == FV_BF16 ? fvi_f32_to_bf16(value) : half;
            memcpy(g.data + at, &half, 2);
        }
        if (a->dtype == FV_Q4_1) {
            memcpy(g.data + at + 2, &least, 2);
        }
    }
    return g;
}

typedef struct engine {
    fv_context *ctx;
    fvi_gemm *gemm;
} engine;

static engine engine_open(int threads, fv_level level, size_t extra) {
    engine e = {0};
    fv_context_options options = {.threads = threads, .level = level};
    if (fv_context_create(&options, &e.ctx) != FV_OK || fvi_gemm_create(e.ctx, extra, &e.gemm) != FV_OK) {
        fprintf(stderr, "cannot start: %s\n", e.ctx == NULL ? "no context" : fv_message(e.ctx));
        exit(1);
    }
    return e;
}

static void engine_close(engine *e) {
    fvi_gemm_destroy(e->gemm);
    fv_context_destroy(e->ctx);
}

static fvi_linear prepare(const engine *e, const matrix *a, const guard *w) {
    fvi_linear linear = {.name = "weights", .data = w->data, .dtype = a->dtype, .n_in = a->n_in, .n_out = a->n_out};
    if (fvi_linear_prepare(e->gemm, &linear) != FV_OK) {
        fprintf(stderr, "prepare: %s\n", fv_message(e->ctx));
        exit(1);
    }
    return linear;
}

static void product(const engine *e, const fvi_linear *w, const float *x, int64_t m, float *y) {
    if (fvi_linear_prompt(e->gemm, w, x, m, y) != FV_OK) {
        fprintf(stderr, "prompt: %s\n", fv_message(e->ctx));
        exit(1);
    }
}

/* Against sums in double over operands rounded as the product rounds them: an f32 sum of n_in terms in any order. */
static void check_error(const matrix *a, const guard *w, bool bf16, const float *x, int64_t row, const float *y) {
    float *weights = need(malloc((size_t)a->n_in * 4));
    for (int64_t o = 0; o < a->n_out; o++) {
        fvi_convert_to_f32(a->dtype, w->data + (size_t)o * fv_dtype_bytes(a->dtype, a->n_in), a->n_in, weights);
        double sum = 0, size = 0;
        for (int64_t i = 0; i < a->n_in; i++) {
            float wi = weights[i], xi = x[row * a->n_in + i];
            wi = bf16 ? fvi_bf16_to_f32(fvi_f32_to_bf16(wi)) : wi;
            xi = bf16 ? fvi_bf16_to_f32(fvi_f32_to_bf16(xi)) : xi;
            sum += (double)wi * xi;
            size += fabs((double)wi * xi);
        }
        if (!(fabs(y[row * a->n_out + o] - sum) <= (double)a->n_in * 0x1p-24 * size)) {
            fail(a, "error of a prompt row", row, 0);
            break;
        }
    }
    free(weights);
}

static void check_rows(const engine *e, const matrix *a, const fvi_linear *w, const float *x, const float *want, int threads) {
    static const int64_t counts[] = {1, 2, 7, 31, 64, 100, 512, MOST};
    guard y = guard_make((size_t)(MOST * a->n_out) * 4, 4, true);
    for (int i = 0; i < 8; i++) {
        product(e, w, x, counts[i], (float *)y.data);
        if (memcmp(y.data, want, (size_t)(counts[i] * a->n_out) * 4) != 0) {
            fail(a, "bits differ with the number of rows", counts[i], threads);
        }
        int64_t from = fvi_min(5, MOST - counts[i]);
        product(e, w, x + from * a->n_in, counts[i], (float *)y.data);
        if (memcmp(y.data, want + from * a->n_out, (size_t)(counts[i] * a->n_out) * 4) != 0) {
            fail(a, "bits differ with a row's place", counts[i], threads);
        }
    }
    if (!guard_intact(&y)) {
        fail(a, "wrote outside y", MOST, threads);
    }
    guard_free(&y);
}

static void check_step(const engine *e, const matrix *a, const fvi_linear *w, const float *x, const float *want, int threads) {
    guard y = guard_make((size_t)a->n_out * 4, 4, true), z = guard_make((size_t)a->n_out * 4, 4, true);
    const fvi_linear *both[] = {w, w};
    float *out[] = {(float *)y.data, (float *)z.data};
    fvi_linear_step_many(e->gemm, both, out, 2, x);
    if (memcmp(y.data, z.data, y.size) != 0 || memcmp(y.data, want, y.size) != 0) {
        fail(a, "bits of a single token's product", 1, threads);
    }
    if (!guard_intact(&y) || !guard_intact(&z)) {
        fail(a, "wrote outside a single token's y", 1, threads);
    }
    guard_free(&y);
    guard_free(&z);
}

static void check_lookup(const engine *e, const matrix *a, const fvi_linear *w) {
    int32_t id[] = {(int32_t)a->n_out - 1, 0}, bad[] = {0, (int32_t)a->n_out}, negative[] = {-1};
    float *out = need(malloc((size_t)(2 * a->n_in) * 4)), *want = need(malloc((size_t)a->n_in * 4));
    fv_status status = fvi_linear_rows(e->gemm, w, id, 2, out);
    fvi_convert_to_f32(a->dtype, w->data, a->n_in, want);
    if (status != FV_OK || memcmp(out + a->n_in, want, (size_t)a->n_in * 4) != 0) {
        fail(a, "looked up rows", 2, 0);
    }
    if (fvi_linear_rows(e->gemm, w, bad, 2, out) != FV_ERR_RANGE ||
        fvi_linear_rows(e->gemm, w, negative, 1, out) != FV_ERR_RANGE) {
        fail(a, "rows that are not there", 2, 0);
    }
    free(out);
    free(want);
}

static void check_matrix(const matrix *a, fv_level level, uint64_t seed) {
    static const int threads[] = {1, 2, 3, 8};
    fvi_rng r = {seed};
    guard w = make_weights(a, &r), x = guard_make((size_t)(MOST * a->n_in) * 4, 4, true);
    float *xv = (float *)x.data, *want = need(malloc((size_t)(MOST * a->n_out) * 4)), *step = need(malloc((size_t)a->n_out * 4));
    for (int64_t i = 0; i < MOST * a->n_in; i++) {
        xv[i] = spread(&r) * 3;
    }
    for (int t = 0; t < 4; t++) {
        engine kept = engine_open(threads[t], level, 0), passing = engine_open(threads[t], level, 1);
        fvi_linear w_kept = prepare(&kept, a, &w), w_passing = prepare(&passing, a, &w);
        if (w_kept.packed == NULL || w_passing.packed != NULL) {
            fail(a, "the budget was not kept to", 0, threads[t]);
        }
        if (t == 0) {
            bool bf16 = kept.ctx->cpu.avx512_bf16 && a->dtype != FV_F32 && a->dtype != FV_F16;
            product(&kept, &w_kept, xv, MOST, want);
            fvi_linear_step(kept.gemm, &w_kept, xv, step);
            check_error(a, &w, bf16, xv, 0, want);
            check_error(a, &w, bf16, xv, 511, want);
            check_error(a, &w, bf16, xv, MOST - 1, want);
            check_lookup(&kept, a, &w_kept);
        }
        check_rows(&kept, a, &w_kept, xv, want, threads[t]);
        check_step(&kept, a, &w_kept, xv, step, threads[t]);
        float *y = need(malloc((size_t)(MOST * a->n_out) * 4));
        product(&passing, &w_passing, xv, MOST, y);
        if (memcmp(y, want, (size_t)(MOST * a->n_out) * 4) != 0) {
            fail(a, "unpacked in passing, bits differ", MOST, threads[t]);
        }
        free(y);
        engine_close(&kept);
        engine_close(&passing);
    }
    guard_free(&w);
    guard_free(&x);
    free(want);
    free(step);
}

/* Several matrices at once, kept and passing, bf16 and f32 mixed. */
static void check_many(void) {
    static const matrix set[] = {{FV_Q8_0, 65, 96}, {FV_F32, 40, 96}, {FV_Q4_0, 8, 96}, {FV_BF16, 200, 96}};
    engine e = engine_open(3, FV_LEVEL_BEST, 65 * 128 * 4);
    fvi_rng r = {99};
    guard w[4];
    fvi_linear linear[4];
    const fvi_linear *each[4];
    float *y[4], x[37 * 96], alone[37 * 200];
    for (size_t i = 0; i < sizeof x / sizeof x[0]; i++) {
        x[i] = spread(&r);
    }
    for (int i = 0; i < 4; i++) {
        w[i] = make_weights(&set[i], &r);
        linear[i] = prepare(&e, &set[i], &w[i]);
        each[i] = &linear[i];
        y[i] = need(malloc((size_t)(37 * set[i].n_out) * 4));
    }
    if (fvi_linear_prompt_many(e.gemm, each, y, 4, x, 37) != FV_OK) {
        fail(&set[0], fv_message(e.ctx), 37, 3);
    }
    for (int i = 0; i < 4; i++) {
        product(&e, &linear[i], x, 37, alone);
        if (memcmp(alone, y[i], (size_t)(37 * set[i].n_out) * 4) != 0) {
            fail(&set[i], "bits of many at once", 37, 3);
        }
        free(y[i]);
        guard_free(&w[i]);
    }
    fvi_linear fresh = {.name = "fresh", .dtype = FV_F32, .n_in = 96, .n_out = 4}, wrong = {.name = "ids", .dtype = FV_I32};
    if (fvi_linear_prompt(e.gemm, &fresh, x, 1, alone) != FV_ERR_STATE) {
        fail(&set[0], "a matrix that was not prepared was taken", 1, 3);
    }
    if (fvi_linear_prepare(e.gemm, &wrong) != FV_ERR_UNSUPPORTED) {
        fail(&set[0], "weights of i32 were taken", 1, 3);
    }
    engine_close(&e);
}

/* The way that is taken where oneDNN's rows disagree. */
static void check_rowwise(void) {
    static const matrix a = {FV_Q8_0, 130, 64};
    engine e = engine_open(2, FV_LEVEL_BEST, 0);
    fvi_rng r = {7};
    guard w = make_weights(&a, &r);
    fvi_gemm_rowwise(e.gemm);
    fvi_linear linear = prepare(&e, &a, &w);
    float *x = need(malloc(MOST * 64 * 4)), *y = need(malloc(MOST * 130 * 4));
    for (int i = 0; i < MOST * 64; i++) {
        x[i] = spread(&r);
    }
    product(&e, &linear, x, MOST, y);
    check_error(&a, &w, e.ctx->cpu.avx512_bf16, x, 0, y);
    check_error(&a, &w, e.ctx->cpu.avx512_bf16, x, MOST - 1, y);
    check_rows(&e, &a, &linear, x, y, 2);
    free(x);
    free(y);
    guard_free(&w);
    engine_close(&e);
}

static void bench(int threads) {
    static const matrix shapes[] = {
        {FV_Q8_0, 512, 512}, {FV_Q8_0, 128, 512}, {FV_Q8_0, 1408, 512}, {FV_Q8_0, 512, 1408}, {FV_Q8_0, 8192, 512}};
    fvi_rng r = {5};
    for (int s = 0; s < 5; s++) {
        const matrix *a = &shapes[s];
        engine kept = engine_open(threads, FV_LEVEL_BEST, 0), passing = engine_open(threads, FV_LEVEL_BEST, 1);
        guard w = make_weights(a, &r);
        fvi_linear w_kept = prepare(&kept, a, &w), w_passing = prepare(&passing, a, &w);
        float *x = need(calloc((size_t)(512 * a->n_in), 4)), *y = need(calloc((size_t)(512 * a->n_out), 4));
        double best[3] = {1e9, 1e9, 1e9};
        for (int i = 0; i < 50; i++) {
            double t0 = fvi_seconds();
            product(&kept, &w_kept, x, 512, y);
            double t1 = fvi_seconds();
            product(&passing, &w_passing, x, 512, y);
            double t2 = fvi_seconds();
            fvi_linear_step(kept.gemm, &w_kept, x, y);
            best[0] = fmin(best[0], t1 - t0);
            best[1] = fmin(best[1], t2 - t1);
            best[2] = fmin(best[2], fvi_seconds() - t2);
        }
        double flop = 2.0 * 512 * (double)(a->n_out * a->n_in) * 1e-9;
        printf("%d threads, q8_0 %4lld x %4lld: prompt of 512 %5.1f GFLOP/s, in passing %5.1f; a token %6.1f us, %4.1f GB/s\n",
               threads, (long long)a->n_out, (long long)a->n_in, flop / best[0], flop / best[1], best[2] * 1e6,
               (double)w.size / best[2] * 1e-9);
        free(x);
        free(y);
        guard_free(&w);
        engine_close(&kept);
        engine_close(&passing);
    }
}

int main(int argc, char **argv) {
    for (int i = 0; i < N_MATRICES; i++) {
        check_matrix(&matrices[i], FV_LEVEL_BEST, 100 + (uint64_t)i);
    }
    check_matrix(&matrices[0], FV_LEVEL_C, 200);
    check_many();
    check_rowwise();
    if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
        bench(1);
        bench(2);
    }
    printf("linear: %d matrices, %d failed (seeds 100 to 109)\n", N_MATRICES, failures);
    return failures != 0;
}
