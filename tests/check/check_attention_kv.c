/* check_attention_kv.c - attention over caches of every pair of formats, rotated and not, against the oracle in double on the
 * data before they were rounded; the bits over threads and chunkings of a prompt; and what is not finite.
 *
 *   check_attention_kv [--seed N]
 *
 * The bar is design's: twice the error of the naive computation, which rounds what the kernel rounds, plus one ulp of max |v|.
 * What the formats round is written out here once more, plainly. */
#include "attention_case.h"
#include "oracle.h"

#include <math.h>

static fvi_rng rng;
static int failures, checks;

/* ---- the formats, and the rotation, in plain words ------------------------------------------------------------------ */

static void transform(double *x, int64_t d) {
    int64_t width = 1;
    while (d % (2 * width) == 0) {
        width *= 2;
    }
    for (int64_t first = 0; first < d; first += width) {
        double y[256];
        for (int64_t i = 0; i < width; i++) {
            y[i] = 0;
            for (int64_t j = 0; j < width; j++) {
                y[i] += __builtin_parityll((uint64_t)(i & j)) ? -x[first + j] : x[first + j];
            }
        }
        for (int64_t i = 0; i < width; i++) {
            x[first + i] = y[i] / sqrt((double)width);
        }
    }
}

/* 32 numbers to at most `most` steps either way. */
static void round_block(double *x, fv_dtype dtype, bool half_scale) {
    double extreme = 0;
    for (int i = 0; i < 32; i++) {
        extreme = fabs(x[i]) > fabs(extreme) ? x[i] : extreme;
    }
    double step = dtype == FV_Q8_0 ? fabs(extreme) / 127 : extreme / -8;
    double kept = half_scale ? (double)fvi_f16_to_f32(fvi_f32_to_f16((float)step)) : step;
    for (int i = 0; i < 32; i++) {
        double q = step == 0 ? 0 : dtype == FV_Q8_0 ? rint(x[i] / step) : fmin(floor(x[i] / step + 8.5), 15) - 8;
        x[i] = kept * q;
    }
}

static void round_row(double *x, int64_t d, fv_dtype dtype, bool half_scale) {
    for (int64_t c = 0; c < d; c++) {
        x[c] = dtype == FV_F16 || dtype == FV_BF16 ? (double)rounded_to(dtype, (float)x[c]) : x[c];
    }
    for (int64_t c = 0; c < d && (dtype == FV_Q8_0 || dtype == FV_Q4_0); c += 32) {
        round_block(x + c, dtype, half_scale);
    }
}

/* Rows of t, rotated, in `kept`, and then in `used`, as a tensor of type `as`. */
static operand rounded_rows(const fv_tensor *t, bool rotate, fv_dtype kept, bool half_scale, fv_dtype as) {
    const int64_t *n = t->shape;
    operand o = operand_normal(&rng, as, n[0], n[1], n[2], n[3], 1);
    for (int64_t h = 0; h < n[1]; h++) {
        for (int64_t i = 0; i < n[2]; i++) {
            double x[256];
            for (int64_t c = 0; c < n[3]; c++) {
                x[c] = tensor_get(t, 0, h, i, c);
            }
            if (rotate) {
                transform(x, n[3]);
            }
            round_row(x, n[3], kept, half_scale);
            for (int64_t c = 0; c < n[3]; c++) {
                tensor_set(&o.t, 0, h, i, c, (float)x[c]);
            }
        }
    }
    return o;
}

/* ---- a case --------------------------------------------------------------------------------------------------------- */

enum { H_KV = 2, MOST_Q = 40 };

typedef struct kv_case {
    fv_cache_desc desc;
    fv_phase phase;
    int64_t group, n_q, n_kv;
    operand q, k, v;
    char text[200];
} kv_case;

static kv_case make_case(fv_cache_desc desc, fv_phase phase, int64_t group, int64_t n_q, int64_t n_kv) {
    kv_case c = {.desc = desc, .phase = phase, .group = group, .n_q = n_q, .n_kv = n_kv};
    c.q = operand_normal(&rng, FV_F32, 1, H_KV * group, n_q, desc.d_k, 1.5);
    c.k = operand_normal(&rng, FV_F32, 1, H_KV, n_kv, desc.d_k, 1);
    c.v = operand_normal(&rng, FV_F32, 1, H_KV, n_kv, desc.d_v, 1);
    for (int64_t j = 0; j < n_kv; j++) { /* columns that stand out, as those of models do */
        tensor_set(&c.k.t, 0, 0, j, 3, 8 + (float)normal(&rng));
    }
    snprintf(c.text, sizeof c.text, "%s k %s%s v %s%s d %lld/%lld group %lld n %lld/%lld",
             phase == FV_DECODE ? "decode" : "prompt", fv_dtype_name(desc.k_dtype), desc.rotate_k ? " rotated" : "",
             fv_dtype_name(desc.v_dtype), desc.rotate_v ? " rotated" : "", (long long)desc.d_k, (long long)desc.d_v,
             (long long)group, (long long)n_q, (long long)n_kv);
    return c;
}

static void free_case(kv_case *c) {
    operand_free(&c->q);
    operand_free(&c->k);
    operand_free(&c->v);
}

static fv_tensor some_rows(const fv_tensor *t, int64_t first, int64_t n) {
    fv_tensor x = *t;
    x.data = (float *)t->data + first * t->stride[2];
    x.shape[2] = n;
    return x;
}

static void expect(bool good, fv_context *ctx, const char *what, const kv_case *c) {
    checks++;
    if (!good && failures++ < 40) {
        printf("FAIL %s: %s: %s\n", fv_level_name(fv_context_level(ctx)), what, c->text);
    }
}

static fv_cache *new_cache(fv_context *ctx, const kv_case *c) {
    fv_cache *cache = NULL;
    expect(fv_cache_create(ctx, &c->desc, &cache) == FV_OK, ctx, fv_message(ctx), c);
    return cache;
}

static void append(fv_context *ctx, const kv_case *c, fv_cache *cache, int64_t from, int64_t n) {
    fv_tensor k = some_rows(&c->k.t, from, n), v = some_rows(&c->v.t, from, n);
    expect(fv_cache_append(cache, 0, &k, &v) == FV_OK, ctx, fv_message(ctx), c);
}

/* The queries [from, from + n) over what the cache holds; out (h_q, n, d_v), lse (h_q, n). */
static void run_rows(fv_context *ctx, const kv_case *c, const fv_cache *cache, int64_t from, int64_t n, float *out, float *lse) {
    fv_problem p = fv_problem_default();
    p.h_q = H_KV * c->group;
    p.h_kv = H_KV;
    p.n_q = n;
    p.n_kv = fv_cache_length(cache, 0);
    p.d_k = c->desc.d_k;
    p.d_v = c->desc.d_v;
    p.causal = true;
    p.phase = c->phase;
    fv_plan *plan = NULL;
    fv_status status = fv_plan_create(ctx, &p, &plan);
    guard workspace = guard_make(status == FV_OK ? fv_plan_workspace(plan) : 0, 64, true);
    fv_run run = {.q = some_rows(&c->q.t, from, n), .cache = cache, .lse = lse};
    run.out = fv_tensor_view(out, FV_F32, 1, p.h_q, n, p.d_v);
    if (status == FV_OK) {
        status = fv_plan_run(plan, &run, workspace.data, workspace.size);
    }
    expect(status == FV_OK && guard_intact(&workspace), ctx, status == FV_OK ? "wrote outside" : fv_message(ctx), c);
    fv_plan_destroy(plan);
    guard_free(&workspace);
}

static size_t out_floats(const kv_case *c) { return (size_t)(H_KV * c->group * c->n_q * c->desc.d_v); }

static float *run_whole(fv_context *ctx, const kv_case *c, float *lse) {
    float *out = malloc(out_floats(c) * sizeof *out);
    fv_cache *cache = new_cache(ctx, c);
    for (int64_t done = 0; done < c->n_kv;) {
        int64_t n = fvi_min(c->n_kv - done, 1 + fvi_rng_below(&rng, 130));
        append(ctx, c, cache, done, n);
        done += n;
    }
    run_rows(ctx, c, cache, 0, c->n_q, out, lse);
    fv_cache_destroy(cache);
    return out;
}

/* ---- against the oracle --------------------------------------------------------------------------------------------- */

static bool small(fv_dtype dtype) { return dtype == FV_BF16 || dtype == FV_Q8_0 || dtype == FV_Q4_0; }
static bool quantised(fv_dtype dtype) { return dtype == FV_Q8_0 || dtype == FV_Q4_0; }

/* The operands as the kernel sees them: what it keeps, and what it makes of that. */
static void naive_operands(fv_context *ctx, const kv_case *c, operand *q, operand *k, operand *v) {
    const fv_cache_desc *d = &c->desc;
    bool pairs = ctx->cpu.avx512_bf16 && (c->phase == FV_DECODE ? d->k_dtype == FV_BF16 : small(d->k_dtype) && small(d->v_dtype));
    bool weights = ctx->cpu.avx512_bf16 && (c->phase == FV_DECODE ? small(d->v_dtype) : small(d->k_dtype) && small(d->v_dtype));
    fv_dtype q_as = pairs ? FV_BF16 : FV_F32, q_kept = c->phase == FV_DECODE && quantised(d->k_dtype) ? FV_Q8_0 : FV_F32;
    *q = rounded_rows(&c->q.t, d->rotate_k, q_kept, false, q_as);
    *k = rounded_rows(&c->k.t, d->rotate_k, d->k_dtype, true, pairs ? FV_BF16 : FV_F32);
    *v = rounded_rows(&c->v.t, d->rotate_v, d->v_dtype, true, weights ? FV_BF16 : d->v_dtype == FV_F16 ? FV_F16 : FV_F32);
}

static void check_error(fv_context *ctx, const kv_case *c, double *worst) {
    operand q, k, v;
    naive_operands(ctx, c, &q, &k, &v);
    fv_problem p = fv_problem_default();
    p.h_q = H_KV * c->group;
    p.h_kv = H_KV;
    p.n_q = c->n_q;
    p.n_kv = c->n_kv;
    p.d_k = c->desc.d_k;
    p.d_v = c->desc.d_v;
    p.causal = true;
    fv_run exact_run = {.q = c->q.t, .k = c->k.t, .v = c->v.t}, naive_run = {.q = q.t, .k = k.t, .v = v.t};
    float *lse = malloc((size_t)(p.h_q * c->n_q) * sizeof *lse), *out = run_whole(ctx, c, lse);
    double error = 0, naive_error = 0, lse_error = 0, naive_lse_error = 0, max_v = 0, max_terms = 0;
    for (int64_t h = 0; h < p.h_q; h++) {
        oracle right, rounded;
        oracle_open(&right, &p, &exact_run, 0, h / c->group);
        oracle_open(&rounded, &p, &naive_run, 0, h / c->group);
        for (int64_t i = 0; i < c->n_q; i++) {
            double x[256], y[256], x_lse, y_lse;
            oracle_row(&right, h, i, x, &x_lse);
            naive_row(&rounded, h, i, 0, false, y, &y_lse);
            if (c->desc.rotate_v) {
                transform(y, p.d_v);
            }
            for (int64_t e = 0; e < p.d_v; e++) {
                error = fmax(error, fabs((double)out[(h * c->n_q + i) * p.d_v + e] - x[e]));
                naive_error = fmax(naive_error, fabs(y[e] - x[e]));
            }
            lse_error = fmax(lse_error, fabs((double)lse[h * c->n_q + i] - x_lse));
            naive_lse_error = fmax(naive_lse_error, fabs(y_lse - x_lse));
        }
        max_v = fmax(max_v, right.max_v);
        max_terms = fmax(max_terms, right.max_terms);
        oracle_close(&right);
        oracle_close(&rounded);
    }
    double bar = 2 * naive_error + ulp_of(FV_F32, max_v), lse_bar = 2 * naive_lse_error + 4 * ulp_of(FV_F32, fmax(max_terms, 4));
    *worst = fmax(*worst, error / bar);
    bool good = error <= bar && lse_error <= lse_bar;
    expect(good, ctx, "beyond the error's bar", c);
    if (!good) {
        printf("     out %.3g (naive %.3g), lse %.3g (naive %.3g)\n", error, naive_error, lse_error, naive_lse_error);
    }
    free(out);
    free(lse);
    operand_free(&q);
    operand_free(&k);
    operand_free(&v);
}

/* ---- bits ----------------------------------------------------------------------------------------------------------- */

static bool same(const float *a, const float *b, size_t n) { return memcmp(a, b, n * sizeof *a) == 0; }

static void check_threads(fv_context *ctx, const kv_case *c) {
    float *one = run_whole(ctx, c, NULL);
    for (int threads = 1; threads <= 8; threads++) {
        fv_context_options options = {threads, fv_context_level(ctx), NULL};
        fv_context *other;
        expect(fv_context_create(&options, &other) == FV_OK, ctx, "no context", c);
        float *out = run_whole(other, c, NULL);
        expect(same(one, out, out_floats(c)), ctx, "other bits with other threads", c);
        free(out);
        fv_context_destroy(other);
    }
    free(one);
}

/* A prompt all at once, and in chunks as a session feeds it. */
static void check_chunks(fv_context *ctx, const kv_case *c) {
    static const int64_t sizes[] = {1, 7, 64};
    int64_t heads = H_KV * c->group, d = c->desc.d_v;
    float *whole = run_whole(ctx, c, NULL), *part = malloc(out_floats(c) * sizeof *part);
    for (int s = 0; s < 3; s++) {
        fv_cache *cache = new_cache(ctx, c);
        bool good = true;
        for (int64_t from = 0; from < c->n_q; from += sizes[s]) {
            int64_t n = fvi_min(sizes[s], c->n_q - from);
            append(ctx, c, cache, from, n);
            run_rows(ctx, c, cache, from, n, part, NULL);
            for (int64_t h = 0; h < heads; h++) {
                good = good && same(part + h * n * d, whole + (h * c->n_q + from) * d, (size_t)(n * d));
            }
        }
        expect(good, ctx, "other bits in chunks", c);
        fv_cache_destroy(cache);
    }
    free(whole);
    free(part);
}

/* A number that is none makes its block none (an infinity too, where it is quantised), for the rows that see it and no other. */
static void check_bad_numbers(fv_context *ctx, kv_case *c, bool in_v, float bad) {
    int64_t key = c->n_kv / 2, d = c->desc.d_v;
    float *clean = run_whole(ctx, c, NULL);
    tensor_set(in_v ? &c->v.t : &c->k.t, 0, 0, key, 3, bad);
    float *dirty = run_whole(ctx, c, NULL);
    for (int64_t h = 0; h < H_KV * c->group; h++) {
        for (int64_t i = 0; i < c->n_q; i++) {
            bool sees = h < c->group && i + c->n_kv - c->n_q >= key;
            const float *a = clean + (h * c->n_q + i) * d, *b = dirty + (h * c->n_q + i) * d;
            expect(sees ? isnan(b[3]) : same(a, b, (size_t)d), ctx, in_v ? "a bad value" : "a bad key", c);
        }
    }
    tensor_set(in_v ? &c->v.t : &c->k.t, 0, 0, key, 3, 1);
    free(clean);
    free(dirty);
}

/* ---- all of it ------------------------------------------------------------------------------------------------------ */

static void check_level(fv_context *ctx, double *worst) {
    static const fv_dtype formats[][2] = {{FV_Q8_0, FV_Q8_0}, {FV_Q4_0, FV_Q4_0}, {FV_Q8_0, FV_Q4_0},
                                          {FV_Q4_0, FV_Q8_0}, {FV_Q8_0, FV_BF16}, {FV_BF16, FV_Q4_0},
                                          {FV_F16, FV_Q8_0},  {FV_Q4_0, FV_F32},  {FV_F32, FV_F16}};
    static const int64_t widths[][2] = {{64, 64}, {128, 128}, {96, 32}, {32, 256}};
    for (int f = 0; f < 9; f++) {
        for (int turn = 0; turn < 8; turn++) {
            const int64_t *d = widths[(f + turn / 2) % 4];
            fv_cache_desc desc = {
                1, H_KV, d[0], d[1], formats[f][0], formats[f][1], turn % 4 == 1 || turn % 4 == 3, turn % 4 >= 2};
            kv_case c = make_case(desc, turn < 4 ? FV_PREFILL : FV_DECODE, 1 + (f + turn) % 5, turn < 4 ? MOST_Q : 1 + turn % 2,
                                  60 + fvi_rng_below(&rng, 300));
            check_error(ctx, &c, worst);
            free_case(&c);
        }
        fv_cache_desc desc = {1, H_KV, 64, 64, formats[f][0], formats[f][1], f % 2, f % 3 == 0};
        kv_case c = make_case(desc, FV_PREFILL, 2, 150, 150);
        check_chunks(ctx, &c);
        check_bad_numbers(ctx, &c, f % 2, quantised(formats[f][f % 2]) ? INFINITY : NAN);
        c.phase = FV_DECODE;
        check_bad_numbers(ctx, &c, true, NAN);
        check_bad_numbers(ctx, &c, false, NAN);
        free_case(&c);
    }
    for (int phase = FV_PREFILL; phase <= FV_DECODE; phase++) {
        fv_cache_desc desc = {1, H_KV, 128, 128, FV_Q8_0, FV_Q4_0, false, true};
        kv_case c = make_case(desc, (fv_phase)phase, 4, phase == FV_DECODE ? 1 : 3, 9000);
        check_threads(ctx, &c);
        free_case(&c);
    }
}

int main(int argc, char **argv) {
    rng.state = argc > 2 && strcmp(argv[1], "--seed") == 0 ? strtoull(argv[2], NULL, 0) : 1;
    printf("seed %llu\n", (unsigned long long)rng.state);
    double worst = 0;
    for (fv_level level = FV_LEVEL_C; level <= FV_LEVEL_AVX512; level++) {
        fv_context_options options = {2, level, NULL};
        fv_context *ctx;
        if (fv_context_create(&options, &ctx) == FV_OK) {
            check_level(ctx, &worst);
            fv_context_destroy(ctx);
        }
    }
    printf("%d checks, largest error %.2f of its bar, %d failures\n", checks, worst, failures);
    return failures > 0;
}
