/* bench_case.c - the cases and how each is timed, through the public interface alone. */
#include "bench.h"

#include "common.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double bench_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

fv_status bench_progress(const bench_machine *m, int run) {
    double share = m->from + (m->upto - m->from) * (run + 1) / (m->runs + 1);
    return terminal_progress(NULL, m->name, share) ? FV_ERR_CANCELLED : FV_OK;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *seconds, int n) {
    qsort(seconds, (size_t)n, sizeof *seconds, ascending);
    return n % 2 ? seconds[n / 2] : 0.5 * (seconds[n / 2 - 1] + seconds[n / 2]);
}

/* ---- the list ---- */

static int add_attention(bench_kind kind, const int64_t *lengths, bench_case *out) {
    static const fv_dtype dtypes[] = {FV_F32, FV_F16, FV_BF16};
    static const int64_t shapes[][3] = {{8, 2, 64}, {32, 8, 128}};
    int n = 0;
    for (int l = 0; l < 2; l++) {
        for (int s = 0; s < 2; s++) {
            for (int t = 0; t < 3; t++) {
                out[n++] = (bench_case){kind, dtypes[t], shapes[s][0], shapes[s][1], shapes[s][2], lengths[l]};
            }
        }
    }
    return n;
}

int bench_cases(const char *group, bench_case out[BENCH_CASES_MAX]) {
    static const int64_t prompts[] = {2048, 8192}, caches[] = {4096, 65536};
    int n = 0;
    if (!group || strcmp(group, "attention") == 0) {
        n += add_attention(BENCH_PREFILL, prompts, out + n);
    }
    if (!group || strcmp(group, "decode") == 0) {
        n += add_attention(BENCH_DECODE, caches, out + n);
    }
    if (!group || strcmp(group, "model") == 0) {
        out[n++] = (bench_case){.kind = BENCH_PROMPT, .n = 512};
        out[n++] = (bench_case){.kind = BENCH_PROMPT, .n = 4096};
        out[n++] = (bench_case){.kind = BENCH_GENERATE, .n = 16};
        out[n++] = (bench_case){.kind = BENCH_GENERATE, .n = 4096};
    }
    return n;
}

void bench_name(const bench_case *c, fv_level level, char out[96]) {
    if (c->kind == BENCH_PROMPT || c->kind == BENCH_GENERATE) {
        snprintf(out, 96, "model/%s/n%" PRId64 "/%s", c->kind == BENCH_PROMPT ? "prompt" : "generate", c->n,
                 fv_level_name(level));
        return;
    }
    snprintf(out, 96, "%s/%s/h%" PRId64 "x%" PRId64 "/d%" PRId64 "/n%" PRId64 "/causal/%s",
             c->kind == BENCH_PREFILL ? "prefill" : "decode", fv_dtype_name(c->dtype), c->h_q, c->h_kv, c->d, c->n,
             fv_level_name(level));
}

static double pair_flops(const bench_case *c) { return 4.0 * (double)c->n * (double)c->n * (double)c->d * (double)c->h_q / 2; }

/* K and V are read once however many query heads share them. */
static double kv_bytes(const bench_case *c) {
    return 2.0 * (double)c->h_kv * (double)c->n * (double)fv_dtype_bytes(c->dtype, c->d);
}

double bench_cost(const bench_case *c) {
    switch (c->kind) {
    case BENCH_PREFILL:
        return 0.05 + pair_flops(c) / 2e11;
    case BENCH_DECODE:
        return 0.3 + kv_bytes(c) / 3e9;
    default:
        return (double)c->n / 1500;
    }
}

/* ---- attention ---- */

static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Finite numbers of both signs with magnitudes from 1/16 to 1, written as bits: exponents 2^-4 .. 2^-1 and any mantissa. */
static void fill(void *data, fv_dtype dtype, int64_t n) {
    uint64_t state = 1;
    for (int64_t i = 0; i < n; i++) {
        uint64_t r = next_random(&state);
        uint32_t sign = (uint32_t)(r >> 63), exponent = (uint32_t)(r >> 60) & 3, mantissa = (uint32_t)r & 0x7fffff;
        if (dtype == FV_F16) {
            ((uint16_t *)data)[i] = (uint16_t)(sign << 15 | (11 + exponent) << 10 | mantissa >> 13);
        } else {
            uint32_t bits = sign << 31 | (123 + exponent) << 23 | mantissa;
            if (dtype == FV_F32) {
                ((uint32_t *)data)[i] = bits;
            } else {
                ((uint16_t *)data)[i] = (uint16_t)(bits >> 16);
            }
        }
    }
}

static void *random_data(fv_dtype dtype, int64_t n) {
    void *data = aligned_alloc(64, (fv_dtype_bytes(dtype, n) + 63) / 64 * 64);
    if (data) {
        fill(data, dtype, n);
    }
    return data;
}

/* The buffers of one case. */
typedef struct arena {
    void *q, *k, *v, *out, *workspace;
    fv_cache *cache;
    fv_plan *plan;
    size_t workspace_bytes;
} arena;

static void arena_release(arena *a) {
    fv_plan_destroy(a->plan);
    fv_cache_destroy(a->cache);
    free(a->q);
    free(a->k);
    free(a->v);
    free(a->out);
    free(a->workspace);
}

/* A decode cache is filled in pieces, so that its source stays small. */
static fv_status fill_cache(const bench_machine *m, const bench_case *c, arena *a) {
    enum { PIECE = 4096 };
    fv_cache_desc desc = {.layers = 1, .h_kv = c->h_kv, .d_k = c->d, .d_v = c->d, .k_dtype = c->dtype, .v_dtype = c->dtype};
    fv_tensor k = fv_tensor_view(a->k, c->dtype, 1, c->h_kv, PIECE, c->d),
              v = fv_tensor_view(a->v, c->dtype, 1, c->h_kv, PIECE, c->d);
    fv_status status = fv_cache_create(m->ctx, &desc, &a->cache);
    for (int64_t at = 0; at < c->n && !status; at += PIECE) {
        status = fv_cache_append(a->cache, 0, &k, &v);
    }
    return status;
}

static fv_status prepare(const bench_machine *m, const bench_case *c, arena *a) {
    bool decode = c->kind == BENCH_DECODE;
    int64_t n_q = decode ? 1 : c->n, kept = decode ? 4096 : c->n;
    a->q = random_data(c->dtype, c->h_q * n_q * c->d);
    a->k = random_data(c->dtype, c->h_kv * kept * c->d);
    a->v = random_data(c->dtype, c->h_kv * kept * c->d);
    a->out = random_data(FV_F32, c->h_q * n_q * c->d);
    if (!a->q || !a->k || !a->v || !a->out) {
        return FV_ERR_MEMORY;
    }
    fv_problem p = fv_problem_default();
    p.h_q = c->h_q;
    p.h_kv = c->h_kv;
    p.n_q = n_q;
    p.n_kv = c->n;
    p.d_k = p.d_v = c->d;
    p.causal = true;
    p.phase = decode ? FV_DECODE : FV_PREFILL;
    fv_status status = decode ? fill_cache(m, c, a) : FV_OK;
    status = status ? status : fv_plan_create(m->ctx, &p, &a->plan);
    if (status) {
        return status;
    }
    a->workspace_bytes = fv_plan_workspace(a->plan);
    a->workspace = aligned_alloc(64, a->workspace_bytes / 64 * 64 + 64);
    return a->workspace ? FV_OK : FV_ERR_MEMORY;
}

/* Short runs are repeated within one measurement until it lasts 20 ms. */
static fv_status time_runs(const bench_machine *m, const fv_run *run, const arena *a, double *seconds) {
    double times[BENCH_RUNS_MAX];
    fv_status status = fv_plan_run(a->plan, run, a->workspace, a->workspace_bytes);
    double began = bench_now();
    status = status ? status : fv_plan_run(a->plan, run, a->workspace, a->workspace_bytes);
    double once = bench_now() - began;
    int repeat = once < 0.02 ? 1 + (int)(0.02 / (once + 1e-6)) : 1;
    for (int i = 0; i < m->runs && !status; i++) {
        status = bench_progress(m, i);
        began = bench_now();
        for (int k = 0; k < repeat && !status; k++) {
            status = fv_plan_run(a->plan, run, a->workspace, a->workspace_bytes);
        }
        times[i] = (bench_now() - began) / repeat;
    }
    if (!status) {
        *seconds = bench_median(times, m->runs);
    }
    return status;
}

int bench_attention(const bench_machine *m, const bench_case *c, bench_result *out) {
    arena a = {0};
    double seconds = 0;
    int64_t n_q = c->kind == BENCH_DECODE ? 1 : c->n;
    fv_status status = prepare(m, c, &a);
    if (!status) {
        fv_run run = {
            .q = fv_tensor_view(a.q, c->dtype, 1, c->h_q, n_q, c->d),
            .k = fv_tensor_view(a.k, c->dtype, 1, c->h_kv, n_q, c->d),
            .v = fv_tensor_view(a.v, c->dtype, 1, c->h_kv, n_q, c->d),
            .out = fv_tensor_view(a.out, FV_F32, 1, c->h_q, n_q, c->d),
            .cache = a.cache,
        };
        status = time_runs(m, &run, &a, &seconds);
    }
    arena_release(&a);
    if (status) {
        return terminal_status(m->ctx, status);
    }
    bool bf16 = c->dtype == FV_BF16 && m->ceilings.dot_bf16 > 0;
    if (c->kind == BENCH_DECODE) {
        *out = (bench_result){kv_bytes(c) / seconds / 1e9, m->ceilings.read / 1e9, "GB/s", "read"};
    } else {
        double ceiling = bf16 ? m->ceilings.dot_bf16 : m->ceilings.fma_f32;
        *out = (bench_result){pair_flops(c) / seconds / 1e9, ceiling / 1e9, "GFLOP/s", bf16 ? "dot_bf16" : "fma_f32"};
    }
    return 0;
}
