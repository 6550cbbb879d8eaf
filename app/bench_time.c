/* bench_time.c - clocks, medians, buffers, and the loop that times one plan. */
#include "bench.h"

#include "common.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

/* ---- spread ---- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Between the two nearest of n sorted values. */
static double quantile(const double *sorted, int n, double share) {
    double at = share * (n - 1);
    int low = (int)at;
    return low + 1 < n ? sorted[low] + (at - low) * (sorted[low + 1] - sorted[low]) : sorted[n - 1];
}

bench_spread bench_spread_of(double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, ascending);
    return (bench_spread){values[0], quantile(values, n, 0.25), quantile(values, n, 0.5), quantile(values, n, 0.75),
                          values[n - 1]};
}

bench_spread bench_rates(double *seconds, int n, double work) {
    bench_spread s = bench_spread_of(seconds, n);
    return (bench_spread){work / s.most, work / s.upper, work / s.median, work / s.lower, work / s.least};
}

/* ---- buffers ---- */

enum { HUGE_PAGE = 2 << 20, PATTERN = 1 << 20 };

void *bench_memory(const bench_machine *m, size_t size) {
    char text[32];
    size_t align = size >= 2 * HUGE_PAGE ? HUGE_PAGE : 64;
    void *data = size <= SIZE_MAX / 2 ? aligned_alloc(align, (size + align) / align * align) : NULL;
    if (!data) {
        terminal_error(EXIT_RUNTIME, "%s: no memory for %s", m->name, common_bytes((double)size, text));
        return NULL;
    }
#ifdef MADV_HUGEPAGE
    if (align == HUGE_PAGE) {
        (void)madvise(data, size / align * align, MADV_HUGEPAGE);
    }
#endif
    return data;
}

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

/* A million numbers, over and over: time does not depend on them, and gigabytes of new ones would take longer than the case. */
void *bench_data(const bench_machine *m, fv_dtype dtype, int64_t n) {
    size_t size = fv_dtype_bytes(dtype, n);
    char *data = bench_memory(m, size);
    if (!data) {
        return NULL;
    }
    int64_t fresh = n < PATTERN ? n : PATTERN;
    fill(data, dtype, fresh);
    for (size_t at = fv_dtype_bytes(dtype, fresh); at < size;) {
        size_t piece = at < size - at ? at : size - at;
        memcpy(data + at, data, piece);
        at += piece;
    }
    return data;
}

/* ---- the buffers of a case ---- */

void bench_arena_free(bench_arena *a) {
    fv_plan_destroy(a->plan);
    fv_cache_destroy(a->cache);
    free(a->q);
    free(a->k);
    free(a->v);
    free(a->out);
    free(a->workspace);
    *a = (bench_arena){0};
}

/* A cache is filled in pieces, so that its source stays small. */
enum { PIECE = 4096 };
static fv_status fill_cache(const bench_machine *m, const bench_case *c, fv_dtype source, bench_arena *a) {
    fv_cache_desc desc = {.layers = 1, .h_kv = c->h_kv, .d_k = c->d, .d_v = c->d, .k_dtype = c->dtype, .v_dtype = c->dtype};
    fv_status status = fv_cache_create(m->ctx, &desc, &a->cache);
    for (int64_t at = 0; at < c->n && !status; at += PIECE) {
        int64_t n = c->n - at < PIECE ? c->n - at : PIECE;
        fv_tensor k = fv_tensor_view(a->k, source, 1, c->h_kv, n, c->d), v = fv_tensor_view(a->v, source, 1, c->h_kv, n, c->d);
        status = fv_cache_append(a->cache, 0, &k, &v);
    }
    return status;
}

int bench_arena_plan(const bench_machine *m, const fv_problem *p, bench_arena *a) {
    fv_status status = fv_plan_create(m->ctx, p, &a->plan);
    if (status) {
        return terminal_status(m->ctx, status);
    }
    a->workspace_bytes = fv_plan_workspace(a->plan);
    a->workspace = bench_memory(m, a->workspace_bytes);
    return a->workspace ? 0 : EXIT_RUNTIME;
}

int bench_arena_make(const bench_machine *m, const bench_case *c, const fv_problem *p, bench_arena *a) {
    bool plain = c->dtype == FV_F32 || c->dtype == FV_F16 || c->dtype == FV_BF16;
    fv_dtype source = plain ? c->dtype : FV_F16;
    int64_t kept = c->cached && c->n > PIECE ? PIECE : c->n, rows = p->packed ? p->b * p->n_q : p->n_q;
    rows = p->packed && p->n_q > 1 ? c->n : rows;
    a->q = bench_data(m, source, c->h_q * rows * c->d);
    a->k = a->q ? bench_data(m, source, c->h_kv * kept * c->d) : NULL;
    a->v = a->k ? bench_data(m, source, c->h_kv * kept * c->d) : NULL;
    a->out = a->v ? bench_data(m, FV_F32, c->h_q * rows * c->d) : NULL;
    if (!a->out) {
        return EXIT_RUNTIME;
    }
    fv_status status = c->cached ? fill_cache(m, c, source, a) : FV_OK;
    if (status) {
        return terminal_status(m->ctx, status);
    }
    a->run = (fv_run){
        .q = fv_tensor_view(a->q, source, 1, c->h_q, rows, c->d),
        .k = fv_tensor_view(a->k, source, 1, c->h_kv, kept, c->d),
        .v = fv_tensor_view(a->v, source, 1, c->h_kv, kept, c->d),
        .out = fv_tensor_view(a->out, FV_F32, 1, c->h_q, rows, c->d),
        .cache = a->cache,
    };
    return bench_arena_plan(m, p, a);
}

static fv_status run_plan(bench_arena *a) { return fv_plan_run(a->plan, &a->run, a->workspace, a->workspace_bytes); }

/* How often to repeat a run so that it lasts 20 ms. */
static fv_status warm_up(bench_arena *a, int *repeat) {
    double began = bench_now();
    fv_status status = run_plan(a);
    if (!status && bench_now() - began < 0.02) { /* the first run also brings the pages in: too slow to count by */
        began = bench_now();
        status = run_plan(a);
    }
    double once = bench_now() - began;
    *repeat = once < 0.02 ? 1 + (int)(0.02 / (once + 1e-6)) : 1;
    return status;
}

int bench_time(const bench_machine *m, bench_arena *const *arenas, double *const *seconds, int n) {
    int repeat[BENCH_ARENAS] = {1};
    fv_status status = FV_OK;
    for (int t = 0; t < n && !status; t++) {
        status = warm_up(arenas[t], &repeat[t]);
    }
    for (int i = 0; i < m->runs && !status; i++) {
        status = bench_progress(m, i);
        for (int t = 0; t < n && !status; t++) {
            double began = bench_now();
            for (int k = 0; k < repeat[t] && !status; k++) {
                status = run_plan(arenas[t]);
            }
            seconds[t][i] = (bench_now() - began) / repeat[t];
        }
    }
    return status ? terminal_status(m->ctx, status) : 0;
}

int bench_time_one(const bench_machine *m, bench_arena *a, double *seconds) {
    return bench_time(m, (bench_arena *const[]){a}, (double *const[]){seconds}, 1);
}
