/* bench_attention.c - whole prompts on one core, form by form, against the ceiling of the form's instruction; core only, for
 * machines without the program. No test: it judges nothing.
 *
 *   bench_attention [--n N] [--d D] [--heads H_Q H_KV] [--forms N] */
#include "attention_case.h"

#include <math.h>

enum { RUNS = 9 };

/* What a context is allowed to use. */
typedef struct form {
    fv_dtype dtype;
    bool bf16, amx;
} form;

static int by_value(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median_seconds(fv_context *ctx, const fv_problem *p, const fv_run *run, char name[16]) {
    fv_plan *plan;
    double seconds[RUNS];
    if (fv_plan_create(ctx, p, &plan) != FV_OK) {
        fprintf(stderr, "%s\n", fv_message(ctx));
        exit(1);
    }
    guard workspace = guard_make(fv_plan_workspace(plan), 64, true);
    for (int i = -1; i < RUNS; i++) {
        double start = fvi_seconds();
        if (fv_plan_run(plan, run, workspace.data, workspace.size) != FV_OK) {
            fprintf(stderr, "%s\n", fv_message(ctx));
            exit(1);
        }
        seconds[i < 0 ? 0 : i] = fvi_seconds() - start;
    }
    snprintf(name, 16, "%s", fv_plan_kernel(plan, run->k.dtype, run->v.dtype));
    guard_free(&workspace);
    fv_plan_destroy(plan);
    qsort(seconds, RUNS, sizeof *seconds, by_value);
    return seconds[RUNS / 2];
}

static void bench(const form *f, const fv_ceilings *machine, fv_problem p) {
    fv_context *ctx;
    if (fv_context_create(&(fv_context_options){1, FV_LEVEL_BEST, NULL}, &ctx) != FV_OK) {
        exit(1);
    }
    ctx->cpu.avx512_bf16 = ctx->cpu.avx512_bf16 && f->bf16;
    ctx->cpu.amx_bf16 = ctx->cpu.amx_bf16 && f->amx;
    fvi_rng rng = {1};
    operand q = operand_normal(&rng, FV_F32, 1, p.h_q, p.n_q, p.d_k, 1),
            k = operand_normal(&rng, f->dtype, 1, p.h_kv, p.n_kv, p.d_k, 1);
    operand v = operand_normal(&rng, f->dtype, 1, p.h_kv, p.n_kv, p.d_v, 1),
            out = operand_normal(&rng, FV_F32, 1, p.h_q, p.n_q, p.d_v, 1);
    fv_run run = {.q = q.t, .k = k.t, .v = v.t, .out = out.t};
    char name[16];
    double seconds = median_seconds(ctx, &p, &run, name);
    bool amx = strcmp(name, "amx") == 0, pairs = strcmp(name, "avx512bf16") == 0;
    double ceiling = amx ? machine->amx_bf16 : pairs ? machine->dot_bf16 : machine->fma_f32;
    double rate = 4.0 * (double)p.h_q * (double)(p.n_q * (p.n_q + 1) / 2) * (double)p.d_k / seconds;
    printf("%-10s %-4s n %lld d %lld, %lld x %lld heads: %.1f GFLOP/s, %.3f of %s\n", name, fv_dtype_name(f->dtype),
           (long long)p.n_q, (long long)p.d_k, (long long)p.h_q, (long long)p.h_kv, rate * 1e-9, rate / ceiling,
           amx     ? "tdpbf16ps"
           : pairs ? "vdpbf16ps"
                   : "fma");
    operand_free(&q);
    operand_free(&k);
    operand_free(&v);
    operand_free(&out);
    fv_context_destroy(ctx);
}

int main(int argc, char **argv) {
    int64_t n = 4096, d = 128, h_q = 32, h_kv = 8, most = 3;
    for (int i = 1; i + 1 < argc; i++) {
        n = strcmp(argv[i], "--n") == 0 ? strtoll(argv[i + 1], NULL, 0) : n;
        most = strcmp(argv[i], "--forms") == 0 ? strtoll(argv[i + 1], NULL, 0) : most;
        d = strcmp(argv[i], "--d") == 0 ? strtoll(argv[i + 1], NULL, 0) : d;
        if (strcmp(argv[i], "--heads") == 0 && i + 2 < argc) {
            h_q = strtoll(argv[i + 1], NULL, 0);
            h_kv = strtoll(argv[i + 2], NULL, 0);
        }
    }
    fv_context *ctx;
    fv_ceilings machine;
    if (fv_context_create(&(fv_context_options){1, FV_LEVEL_BEST, NULL}, &ctx) != FV_OK ||
        fv_measure_ceilings(ctx, &machine) != FV_OK) {
        return 1;
    }
    fv_context_destroy(ctx);
    printf("one core: fma %.1f, vdpbf16ps %.1f, tdpbf16ps %.1f GFLOP/s, %.1f GB/s, %.2f GHz\n", machine.fma_f32 * 1e-9,
           machine.dot_bf16 * 1e-9, machine.amx_bf16 * 1e-9, machine.read * 1e-9, machine.clock_hz * 1e-9);
    fv_problem p = fv_problem_default();
    p = (fv_problem){.b = 1, .h_q = h_q, .h_kv = h_kv, .n_q = n, .n_kv = n, .d_k = d, .d_v = d, .causal = true};
    static const form forms[] = {{FV_BF16, true, true}, {FV_BF16, true, false}, {FV_F16, false, false}};
    for (int64_t i = 0; i < most && i < (int64_t)(sizeof forms / sizeof *forms); i++) {
        bench(&forms[i], &machine, p);
    }
    return 0;
}
