/* bench_attention.c - prompts: from the caller's row-major tensors (or a cache) to the output, packing included. And the passes
 * that the same runs make over K and V, counted as FuseMax counts them (Nayak et al., MICRO 2024). */
#include "bench.h"

#include "common.h"

#include <stdlib.h>
#include <string.h>

static double pair_flops(const bench_case *c) { return 4.0 * (double)c->n * (double)c->n * (double)c->d * (double)c->h_q / 2; }

static int measure_prompt(bench_machine *m, const bench_case *c) {
    bench_arena a = {0};
    double seconds[BENCH_RUNS_MAX];
    fv_problem p = bench_problem(c, c->n, FV_PREFILL);
    int code = bench_arena_make(m, c, &p, &a);
    code = code ? code : bench_time_one(m, &a, seconds);
    bench_row row = {.unit = "GFLOP/s", .runs = m->runs};
    if (!code) {
        snprintf(row.name, sizeof row.name, "%s", c->name);
        row.value = bench_rates(seconds, m->runs, pair_flops(c) / 1e9);
        row.ceiling = bench_kernel_ceiling(&m->ceilings, fv_plan_kernel(a.plan, c->dtype, c->dtype));
        code = bench_tell(m, &row);
    }
    bench_arena_free(&a);
    return code;
}

static void add_prompt(fv_context *ctx, bench_list *list, fv_dtype dtype, int64_t h_q, int64_t h_kv, int64_t d, int64_t n) {
    bench_case c = {"attention", measure_prompt, dtype, h_q, h_kv, d, n, .cached = dtype == FV_Q8_0 || dtype == FV_Q4_0};
    if (c.cached && !bench_cache_takes(ctx, dtype)) {
        return;
    }
    char shape[BENCH_NAME];
    fv_problem p = bench_problem(&c, n, FV_PREFILL);
    snprintf(c.name, sizeof c.name, "prefill/%.60s/causal/%s", bench_shape(&c, shape), bench_kernel(ctx, &p, dtype));
    c.cost = 0.1 + 10 * pair_flops(&c) / 5e11;
    bench_list_add(list, &c);
}

void bench_attention_add(fv_context *ctx, bench_list *list) {
    static const fv_dtype dtypes[] = {FV_F32, FV_F16, FV_BF16, FV_Q8_0, FV_Q4_0};
    static const int64_t lengths[] = {128, 1024, 4096, 16384};
    for (int l = 0; l < CLI_COUNT(lengths); l++) {
        for (int t = 0; t < CLI_COUNT(dtypes); t++) {
            add_prompt(ctx, list, dtypes[t], 32, 8, 128, lengths[l]);
        }
    }
    for (int t = 0; t < CLI_COUNT(dtypes); t++) {
        add_prompt(ctx, list, dtypes[t], 8, 2, 64, 16384);
    }
}

/* ---- passes ---- */

/* Rows of K that the query tiles of a causal problem see, over all tiles and KV heads: what one pass has to read. */
static double rows_of_one_pass(const bench_case *c, const fv_problem *p, const fv_tile_facts *tile) {
    int64_t positions = tile->rows / (p->h_q / p->h_kv), all = 0;
    positions = positions > 0 ? positions : 1;
    for (int64_t first = 0; first < p->n_q; first += positions) {
        int64_t last = first + positions < p->n_q ? first + positions : p->n_q;
        int64_t seen = p->n_kv - p->n_q + last, whole = (seen + tile->keys - 1) / tile->keys * tile->keys;
        all += whole < p->n_kv ? whole : p->n_kv; /* keys are read by whole leaves */
    }
    return (double)(all * c->h_kv);
}

static int measure_passes(bench_machine *m, const bench_case *c) {
    bench_arena a = {0};
    bool decode = c->variant;
    fv_problem p = bench_problem(c, decode ? 1 : c->n, decode ? FV_DECODE : FV_PREFILL);
    fv_run_stats stats = {0};
    int code = bench_arena_make(m, c, &p, &a);
    if (!code) {
        a.run.stats = &stats;
        fv_status status = fv_plan_run(a.plan, &a.run, a.workspace, a.workspace_bytes);
        code = status ? terminal_status(m->ctx, status) : 0;
    }
    if (!code && stats.k_rows + stats.v_rows == 0) {
        terminal_note("%s: this build counts no rows, passes are 0", c->name);
    }
    if (!code) {
        fv_tile_facts tile;
        fv_plan_tile(a.plan, &tile);
        double once = rows_of_one_pass(c, &p, &tile), k = (double)stats.k_rows / once, v = (double)stats.v_rows / once;
        double passes = k > v ? k : v;
        bench_row row = {.unit = "passes",
                         .value = {passes, passes, passes, passes, passes},
                         .ceiling = {"one", 1},
                         .runs = 1,
                         .extra = {{"k_passes", k},
                                   {"v_passes", v},
                                   {"score_bytes", (double)tile.score_bytes},
                                   {"state_bytes", (double)tile.state_bytes}}};
        snprintf(row.name, sizeof row.name, "%s", c->name);
        code = bench_tell(m, &row);
    }
    bench_arena_free(&a);
    return code;
}

void bench_passes_add(fv_context *ctx, bench_list *list) {
    static const fv_dtype dtypes[] = {FV_F32, FV_BF16};
    static const int64_t lengths[] = {1024, 4096, 16384};
    for (int l = 0; l < CLI_COUNT(lengths); l++) {
        for (int t = 0; t < CLI_COUNT(dtypes); t++) {
            for (int decode = 0; decode < 2; decode++) {
                bench_case c = {"passes", measure_passes, dtypes[t], 8, 2, 64, lengths[l], .variant = decode};
                char shape[BENCH_NAME];
                fv_problem p = bench_problem(&c, decode ? 1 : c.n, decode ? FV_DECODE : FV_PREFILL);
                snprintf(c.name, sizeof c.name, "passes/%s/%.60s/%s", decode ? "decode" : "prefill", bench_shape(&c, shape),
                         bench_kernel(ctx, &p, c.dtype));
                c.cost = 0.05 + (decode ? 0 : pair_flops(&c) / 5e11);
                bench_list_add(list, &c);
            }
        }
    }
}
