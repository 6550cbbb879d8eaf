/* bench_model.c - prompts and generation of a whole model. A prompt's ceiling is its arithmetic (weights and attention) at the
 * rate of the fastest dot product; a generated token's is reading the weights and the cache once. Below each case stand its
 * parts, see bench_parts.c. */
#include "bench.h"

#include "common.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 32, PROMPT = 0, GENERATE = 1 };

/* The model's own tokens a second, if all arithmetic ran at the rate of the fastest product. */
static bench_ceiling prompt_ceiling(const fv_ceilings *c, const fv_model_facts *f, int64_t n) {
    double weights = 2 * (double)(f->parameters - f->n_vocab * f->d_model);
    double attention = (double)n * (double)(f->d_k + f->d_v) * (double)f->h_q * f->layers;
    bench_ceiling fastest = bench_kernel_ceiling(c, c->amx_bf16 > 0 ? "amx" : c->dot_bf16 > 0 ? "avx512bf16" : "c");
    fastest.value *= 1e9 / (weights + attention);
    return fastest;
}

/* Seconds of one prompt, or of one generated token after a prompt of n. */
static fv_status time_once(const bench_case *c, fv_session *session, const int32_t *ids, int run, double *seconds,
                           bench_parts *parts) {
    fv_status status = fv_session_rollback(session, 0);
    fv_session_times before = fv_session_seconds(session);
    double began = bench_now();
    status = status ? status : fv_session_feed(session, ids, c->n, NULL);
    status = status ? status : fv_session_finish(session);
    if (c->variant == GENERATE) {
        before = fv_session_seconds(session);
        began = bench_now();
        for (int i = 0; i < STEPS && !status; i++) {
            status = fv_session_step(session, ids[i % 16]);
        }
    }
    int units = c->variant == GENERATE ? STEPS : 1;
    seconds[run] = (bench_now() - began) / units;
    fv_session_times after = fv_session_seconds(session);
    bench_parts_note(parts, run, &before, &after, units);
    return status;
}

static fv_status time_runs(const bench_machine *m, const bench_case *c, const int32_t *ids, double *times, bench_parts *parts) {
    fv_session_options options = fv_session_options_default();
    fv_session *session = NULL;
    options.kv_dtype = c->dtype;
    fv_status status = fv_session_create(m->model, &options, &session);
    for (int i = -1; i < m->runs && !status; i++) {
        status = bench_progress(m, i);
        status = status ? status : time_once(c, session, ids, i < 0 ? 0 : i, times, parts);
    }
    fv_session_destroy(session);
    return status;
}

/* The times get sorted. */
static int tell(bench_machine *m, const bench_case *c, const fv_model_facts *facts, double *times, bench_parts *parts) {
    bench_row row = {.unit = "tokens/s", .runs = m->runs};
    double tokens = c->variant == PROMPT ? (double)c->n : 1;
    snprintf(row.name, sizeof row.name, "%s", c->name);
    row.value = bench_rates(times, m->runs, tokens);
    if (c->variant == PROMPT) {
        row.ceiling = prompt_ceiling(&m->ceilings, facts, c->n);
    } else {
        double bytes = (double)facts->file_bytes + (double)facts->kv_bytes_per_token * (double)c->n;
        row.ceiling = (bench_ceiling){"read", m->ceilings.read / bytes};
    }
    int code = bench_tell(m, &row);
    return code ? code : bench_parts_tell(m, c, parts, tokens / row.value.median);
}

static int32_t *make_ids(const bench_case *c, const fv_model_facts *facts) {
    int32_t *ids = malloc((size_t)c->n * sizeof *ids);
    for (int64_t i = 0; ids && i < c->n; i++) {
        ids[i] = (int32_t)((uint64_t)(i + 1) * 2654435761u % (uint64_t)facts->n_vocab);
    }
    return ids;
}

static int measure_parts(bench_machine *m, const bench_case *c, const fv_model_facts *facts, bench_parts *parts) {
    double times[BENCH_RUNS_MAX];
    int32_t *ids = make_ids(c, facts);
    if (!ids) {
        return terminal_error(EXIT_RUNTIME, "out of memory");
    }
    fv_status status = time_runs(m, c, ids, times, parts);
    free(ids);
    int code = status ? terminal_status(m->ctx, status) : 0;
    if (!code && c->variant == PROMPT) {
        code = bench_parts_alone(m, c, facts, parts);
    }
    return code ? code : tell(m, c, facts, times, parts);
}

static int measure(bench_machine *m, const bench_case *c) {
    fv_model_facts facts;
    int code = m->model ? 0 : common_model(m->common, m->ctx, &m->model);
    if (code) {
        return code;
    }
    fv_model_describe(m->model, &facts);
    if (c->n + STEPS > facts.context) {
        return terminal_error(EXIT_USAGE, "model: %lld tokens are more than the model's trained %lld", (long long)c->n + STEPS,
                              (long long)facts.context);
    }
    bench_parts *parts = calloc(1, sizeof *parts);
    code = parts ? measure_parts(m, c, &facts, parts) : terminal_error(EXIT_RUNTIME, "out of memory");
    free(parts);
    return code;
}

/* What a session's FV_AUTO takes: bf16 where there are products of its pairs. */
static fv_dtype cache_dtype(fv_context *ctx) {
    bench_case shape = {.h_q = 8, .h_kv = 2, .d = 64, .n = 512};
    fv_problem p = bench_problem(&shape, shape.n, FV_PREFILL);
    const char *with = bench_kernel(ctx, &p, FV_BF16), *without = bench_kernel(ctx, &p, FV_F32);
    return strcmp(with, without) == 0 ? FV_F16 : FV_BF16;
}

void bench_model_add(fv_context *ctx, bench_list *list) {
    static const struct {
        int variant;
        int64_t n;
    } cases[] = {{PROMPT, 512}, {PROMPT, 4096}, {GENERATE, 16}, {GENERATE, 4096}};
    for (int i = 0; i < CLI_COUNT(cases); i++) {
        bench_case c = {
            .group = "model", .measure = measure, .dtype = cache_dtype(ctx), .n = cases[i].n, .variant = cases[i].variant};
        snprintf(c.name, sizeof c.name, "model/%s/n%" PRId64 "/%s", c.variant == PROMPT ? "prompt" : "generate", c.n,
                 fv_level_name(fv_context_level(ctx)));
        c.cost = (double)c.n / 500;
        bench_list_add(list, &c);
    }
}
