/* bench_decode.c - one query a sequence over long K and V: bytes read against reading memory. Batches of uneven lengths are
 * compared with even ones of the same total, as LeanAttention does (Sanovar et al., 2024): nobody should wait for the longest. */
#include "bench.h"

#include "common.h"

#include <inttypes.h>
#include <string.h>

/* K and V are read once however many query heads share them. */
static double kv_bytes(const bench_case *c) {
    return 2.0 * (double)c->h_kv * (double)c->n * (double)fv_dtype_bytes(c->dtype, c->d);
}

static int tell_rate(bench_machine *m, const bench_case *c, double *seconds) {
    bench_row row = {.unit = "GB/s", .ceiling = {"read", m->ceilings.read / 1e9}, .runs = m->runs};
    snprintf(row.name, sizeof row.name, "%s", c->name);
    row.value = bench_rates(seconds, m->runs, kv_bytes(c) / 1e9);
    row.extra[0].name = "milliseconds";
    row.extra[0].value = kv_bytes(c) / 1e6 / row.value.median;
    return bench_tell(m, &row);
}

static int measure_one(bench_machine *m, const bench_case *c) {
    bench_arena a = {0};
    double seconds[BENCH_RUNS_MAX];
    fv_problem p = bench_problem(c, 1, FV_DECODE);
    int code = bench_arena_make(m, c, &p, &a);
    code = code ? code : bench_time_one(m, &a, seconds);
    code = code ? code : tell_rate(m, c, seconds);
    bench_arena_free(&a);
    return code;
}

static void add_one(fv_context *ctx, bench_list *list, fv_dtype dtype, const int64_t shape[4], bool cached) {
    bool quantised = dtype == FV_Q8_0 || dtype == FV_Q4_0;
    bench_case c = {"decode", measure_one, dtype, shape[0], shape[1], shape[2], shape[3], .cached = cached || quantised};
    if (c.cached && !bench_cache_takes(ctx, dtype)) {
        return;
    }
    char text[BENCH_NAME];
    fv_problem p = bench_problem(&c, 1, FV_DECODE);
    snprintf(c.name, sizeof c.name, "decode/%.60s%s/%s", bench_shape(&c, text), cached ? "/cache" : "",
             bench_kernel(ctx, &p, dtype));
    c.cost = 0.3 + 12 * kv_bytes(&c) / 2e10;
    bench_list_add(list, &c);
}

/* ---- batches ---- */

enum { SEQUENCES = 8, UNEVEN = 0, EVEN = 1, RATIO = 2 };
static const char *const batch_names[] = {"uneven", "even", "ratio"};
static const int32_t uneven[SEQUENCES] = {100, 300, 1000, 4000, 12000, 30000, 60000, 100000};

/* The same total either way; 8 does not divide it, and the first ones get one key more. */
static int64_t batch_starts(bool even, int32_t q_start[SEQUENCES + 1], int32_t k_start[SEQUENCES + 1]) {
    int32_t total = 0, longest = 0, at = 0;
    for (int i = 0; i < SEQUENCES; i++) {
        total += uneven[i];
    }
    q_start[0] = k_start[0] = 0;
    for (int i = 0; i < SEQUENCES; i++) {
        int32_t n = even ? total / SEQUENCES + (i < total % SEQUENCES) : uneven[i];
        longest = n > longest ? n : longest;
        at += n;
        q_start[i + 1] = i + 1;
        k_start[i + 1] = at;
    }
    return longest;
}

static fv_problem batch_problem(const bench_case *c, bool even, int32_t *q_start, int32_t *k_start) {
    fv_problem p = bench_problem(c, 1, FV_DECODE);
    p.b = SEQUENCES;
    p.packed = true;
    p.n_kv = batch_starts(even, q_start, k_start);
    return p;
}

static int measure_batch(bench_machine *m, const bench_case *c) {
    bench_arena a = {0};
    double seconds[BENCH_RUNS_MAX];
    int32_t q_start[SEQUENCES + 1], k_start[SEQUENCES + 1];
    fv_problem p = batch_problem(c, c->variant == EVEN, q_start, k_start);
    int code = bench_arena_make(m, c, &p, &a);
    a.run.q_start = q_start;
    a.run.k_start = k_start;
    code = code ? code : bench_time_one(m, &a, seconds);
    code = code ? code : tell_rate(m, c, seconds);
    bench_arena_free(&a);
    return code;
}

/* Both in turn, on the same K and V: the speed of uneven lengths as a share of the even ones'. */
static int measure_ratio(bench_machine *m, const bench_case *c) {
    bench_arena a = {0}, b = {0};
    double odd[BENCH_RUNS_MAX], even[BENCH_RUNS_MAX], ratios[BENCH_RUNS_MAX];
    int32_t q_start[SEQUENCES + 1], odd_start[SEQUENCES + 1], even_start[SEQUENCES + 1];
    fv_problem p = batch_problem(c, false, q_start, odd_start);
    int code = bench_arena_make(m, c, &p, &a);
    b.run = a.run;
    p = batch_problem(c, true, q_start, even_start);
    code = code ? code : bench_arena_plan(m, &p, &b);
    a.run.q_start = b.run.q_start = q_start;
    a.run.k_start = odd_start;
    b.run.k_start = even_start;
    code = code ? code : bench_time(m, (bench_arena *const[]){&a, &b}, (double *const[]){odd, even}, 2);
    if (!code) {
        for (int i = 0; i < m->runs; i++) {
            ratios[i] = even[i] / odd[i];
        }
        bench_row row = {.unit = "x", .value = bench_spread_of(ratios, m->runs), .ceiling = {"even", 1}, .runs = m->runs};
        snprintf(row.name, sizeof row.name, "%s", c->name);
        code = bench_tell(m, &row);
    }
    bench_arena_free(&b);
    bench_arena_free(&a);
    return code;
}

static void add_batch(fv_context *ctx, bench_list *list, fv_dtype dtype, const int64_t shape[3], int kind) {
    int32_t q_start[SEQUENCES + 1], k_start[SEQUENCES + 1];
    bench_case c = {"decode",       kind == RATIO ? measure_ratio : measure_batch, dtype, shape[0], shape[1], shape[2],
                    .variant = kind};
    batch_starts(kind == EVEN, q_start, k_start);
    c.n = k_start[SEQUENCES];
    char text[BENCH_NAME];
    fv_problem p = batch_problem(&c, kind == EVEN, q_start, k_start);
    snprintf(c.name, sizeof c.name, "decode/batch8/%s/%.60s/%s", batch_names[kind], bench_shape(&c, text),
             bench_kernel(ctx, &p, dtype));
    c.cost = 0.3 + (kind == RATIO ? 24 : 12) * kv_bytes(&c) / 2e10;
    bench_list_add(list, &c);
}

void bench_decode_add(fv_context *ctx, bench_list *list) {
    static const fv_dtype dtypes[] = {FV_F16, FV_BF16, FV_Q8_0, FV_Q4_0};
    static const int64_t shapes[][4] = {{32, 8, 128, 4096}, {32, 8, 128, 32768}, {32, 8, 128, 131072}, {8, 2, 64, 31000}};
    for (int s = 0; s < CLI_COUNT(shapes); s++) {
        for (int t = 0; t < CLI_COUNT(dtypes); t++) {
            add_one(ctx, list, dtypes[t], shapes[s], false);
        }
    }
    for (int t = 0; t < 2; t++) {
        add_one(ctx, list, dtypes[t], shapes[1], true);
    }
    static const int64_t batches[][3] = {{32, 8, 128}, {8, 2, 64}};
    for (int s = 0; s < CLI_COUNT(batches); s++) {
        for (int t = 0; t < 2; t++) {
            for (int kind = UNEVEN; kind <= RATIO; kind++) {
                add_batch(ctx, list, dtypes[t], batches[s], kind);
            }
        }
    }
}
