/* bench_parts.c - a model's time against its parts. The stages that a session times, added up, have to give what a clock outside
 * shows; and a prompt's attention, run by itself over the same shapes, what its stage took. A generated token's is not: by itself
 * it finds K and V in the CPU's caches, from which a model's weights have pushed them. */
#include "bench.h"

#include "common.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    size_t at; /* in fv_session_times */
} stages[BENCH_STAGES] = {
    {"weights", offsetof(fv_session_times, weights)}, {"attention", offsetof(fv_session_times, attention)},
    {"rows", offsetof(fv_session_times, rows)},       {"cache", offsetof(fv_session_times, append)},
    {"embedding", offsetof(fv_session_times, embed)}, {"head", offsetof(fv_session_times, head)},
};

static double stage(const fv_session_times *times, int i) {
    double seconds;
    memcpy(&seconds, (const char *)times + stages[i].at, sizeof seconds);
    return seconds;
}

void bench_parts_note(bench_parts *parts, int run, const fv_session_times *before, const fv_session_times *after, int units) {
    for (int i = 0; i < BENCH_STAGES; i++) {
        parts->stage[i][run] = (stage(after, i) - stage(before, i)) / units;
    }
}

/* "model/prompt/n512/avx512" and "weights" to "model/prompt/n512/weights/avx512". */
static void part_name(const bench_case *c, const char *part, char out[BENCH_NAME]) {
    const char *slash = strrchr(c->name, '/');
    snprintf(out, BENCH_NAME, "%.*s/%.24s%.40s", (int)(slash - c->name), c->name, part, slash);
}

/* The seconds get sorted. */
static int tell_part(bench_machine *m, const bench_case *c, const char *part, double *seconds, double whole, double of_stage) {
    bench_row row = {.unit = "ms", .ceiling = {"end_to_end", 1e3 * whole}, .runs = m->runs};
    part_name(c, part, row.name);
    for (int i = 0; i < m->runs; i++) {
        seconds[i] *= 1e3;
    }
    row.value = bench_spread_of(seconds, m->runs);
    if (of_stage > 0) {
        row.extra[0].name = "of_stage";
        row.extra[0].value = row.value.median / (1e3 * of_stage);
    }
    return bench_tell(m, &row);
}

int bench_parts_tell(bench_machine *m, const bench_case *c, bench_parts *parts, double whole) {
    int code = 0;
    double sum[BENCH_RUNS_MAX] = {0}, attention = 0;
    for (int i = 0; i < BENCH_STAGES && !code; i++) {
        for (int run = 0; run < m->runs; run++) {
            sum[run] += parts->stage[i][run];
        }
        code = tell_part(m, c, stages[i].name, parts->stage[i], whole, 0);
        if (strcmp(stages[i].name, "attention") == 0) {
            attention = bench_spread_of(parts->stage[i], m->runs).median / 1e3;
        }
    }
    code = code ? code : tell_part(m, c, "sum", sum, whole, 0);
    return code || !parts->has_alone ? code : tell_part(m, c, "attention_alone", parts->alone, whole, attention);
}

/* ---- attention by itself ---- */

enum { CHUNK = 512 }; /* a session's */

typedef struct alone {
    const bench_machine *m;
    const fv_model_facts *facts;
    bench_arena arena;
} alone;

/* A token's heads stand side by side, as the products of a session leave them. */
static fv_tensor heads(void *data, int64_t h, int64_t n, int64_t d) {
    fv_tensor t = fv_tensor_view(data, FV_F32, 1, h, n, d);
    t.stride[1] = d;
    t.stride[2] = h * d;
    return t;
}

/* n new tokens through all layers; adds what their attention took. */
static fv_status pass(alone *a, int64_t n, double *seconds) {
    const fv_model_facts *f = a->facts;
    bench_arena *r = &a->arena;
    fv_tensor k = heads(r->k, f->h_kv, n, f->d_k), v = heads(r->v, f->h_kv, n, f->d_v);
    fv_status status = FV_OK;
    r->run = (fv_run){.q = heads(r->q, f->h_q, n, f->d_k), .out = heads(r->out, f->h_q, n, f->d_v), .cache = r->cache};
    for (int layer = 0; layer < f->layers && !status; layer++) {
        status = fv_cache_append(r->cache, layer, &k, &v);
        r->run.layer = layer;
        double began = bench_now();
        status = status ? status : fv_plan_run(r->plan, &r->run, r->workspace, r->workspace_bytes);
        *seconds += bench_now() - began;
    }
    return status;
}

/* A prompt of n, chunk by chunk. */
static fv_status pass_all(alone *a, int64_t n, double *seconds) {
    fv_status status = fv_cache_truncate(a->arena.cache, 0);
    *seconds = 0;
    for (int64_t at = 0; at < n && !status; at += CHUNK) {
        status = pass(a, n - at < CHUNK ? n - at : CHUNK, seconds);
    }
    return status;
}

static int make(alone *a, const bench_case *c) {
    const fv_model_facts *f = a->facts;
    bench_arena *r = &a->arena;
    fv_cache_desc desc = {f->layers, f->h_kv, f->d_k, f->d_v, c->dtype, c->dtype, false, false};
    fv_problem p = fv_problem_default();
    p.h_q = f->h_q;
    p.h_kv = f->h_kv;
    p.n_q = CHUNK;
    p.n_kv = c->n;
    p.d_k = f->d_k;
    p.d_v = f->d_v;
    p.causal = true;
    p.phase = FV_PREFILL;
    r->q = bench_data(a->m, FV_F32, f->h_q * CHUNK * f->d_k);
    r->k = r->q ? bench_data(a->m, FV_F32, f->h_kv * CHUNK * f->d_k) : NULL;
    r->v = r->k ? bench_data(a->m, FV_F32, f->h_kv * CHUNK * f->d_v) : NULL;
    r->out = r->v ? bench_data(a->m, FV_F32, f->h_q * CHUNK * f->d_v) : NULL;
    if (!r->out) {
        return EXIT_RUNTIME;
    }
    fv_status status = fv_cache_create(a->m->ctx, &desc, &r->cache);
    return status ? terminal_status(a->m->ctx, status) : bench_arena_plan(a->m, &p, r);
}

int bench_parts_alone(const bench_machine *m, const bench_case *c, const fv_model_facts *facts, bench_parts *parts) {
    alone a = {.m = m, .facts = facts};
    int code = make(&a, c);
    for (int run = -1; run < m->runs && !code; run++) {
        fv_status status = bench_progress(m, run);
        status = status ? status : pass_all(&a, c->n, &parts->alone[run < 0 ? 0 : run]);
        code = status ? terminal_status(m->ctx, status) : 0;
    }
    bench_arena_free(&a.arena);
    parts->has_alone = code == 0;
    return code;
}
