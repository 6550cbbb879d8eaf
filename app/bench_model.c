/* bench_model.c - prompts and generation of a whole model. A prompt's ceiling is its arithmetic (weights and attention) at the
 * rate of the fastest dot product; a generated token's is reading the weights and the cache once. */
#include "bench.h"

#include "common.h"

#include <stdlib.h>

enum { STEPS = 32 };

static double prompt_ceiling(const fv_ceilings *c, const fv_model_facts *f, int64_t n, const char **name) {
    bool bf16 = c->dot_bf16 > 0;
    double weights = 2 * (double)(f->parameters - f->n_vocab * f->d_model);
    double attention = (double)n * (double)(f->d_k + f->d_v) * (double)f->h_q * f->layers;
    *name = bf16 ? "dot_bf16" : "fma_f32";
    return (bf16 ? c->dot_bf16 : c->fma_f32) / (weights + attention);
}

/* Seconds of one prompt, or of one generated token after a prompt of n. */
static fv_status time_once(const bench_case *c, fv_session *session, const int32_t *ids, double *seconds) {
    double began = bench_now();
    fv_status status = fv_session_rollback(session, 0);
    status = status ? status : fv_session_feed(session, ids, c->n, NULL);
    status = status ? status : fv_session_finish(session);
    if (c->kind == BENCH_GENERATE) {
        began = bench_now();
        for (int i = 0; i < STEPS && !status; i++) {
            status = fv_session_step(session, ids[i % 16]);
        }
    }
    *seconds = (bench_now() - began) / (c->kind == BENCH_GENERATE ? STEPS : 1);
    return status;
}

static fv_status time_runs(const bench_machine *m, const bench_case *c, fv_model *model, const int32_t *ids, double *seconds) {
    double times[BENCH_RUNS_MAX];
    fv_session_options options = fv_session_options_default();
    fv_session *session = NULL;
    fv_status status = fv_session_create(model, &options, &session);
    for (int i = -1; i < m->runs && !status; i++) {
        status = bench_progress(m, i);
        status = status ? status : time_once(c, session, ids, &times[i < 0 ? 0 : i]);
    }
    fv_session_destroy(session);
    if (!status) {
        *seconds = bench_median(times, m->runs);
    }
    return status;
}

int bench_model(const bench_machine *m, const bench_case *c, fv_model *model, bench_result *out) {
    fv_model_facts facts;
    fv_model_describe(model, &facts);
    if (c->n + STEPS > facts.context) {
        return terminal_error(EXIT_USAGE, "model: %lld tokens are more than the model's trained %lld", (long long)c->n + STEPS,
                              (long long)facts.context);
    }
    int32_t *ids = malloc((size_t)c->n * sizeof *ids);
    if (!ids) {
        return terminal_error(EXIT_RUNTIME, "out of memory");
    }
    for (int64_t i = 0; i < c->n; i++) {
        ids[i] = (int32_t)((uint64_t)(i + 1) * 2654435761u % (uint64_t)facts.n_vocab);
    }
    double seconds = 0;
    fv_status status = time_runs(m, c, model, ids, &seconds);
    free(ids);
    if (status) {
        return terminal_status(m->ctx, status);
    }
    if (c->kind == BENCH_PROMPT) {
        *out = (bench_result){.value = (double)c->n / seconds, .unit = "tokens/s"};
        out->ceiling = prompt_ceiling(&m->ceilings, &facts, c->n, &out->ceiling_name);
    } else {
        double bytes = (double)facts.file_bytes + (double)facts.kv_bytes_per_token * (double)c->n;
        *out = (bench_result){1 / seconds, m->ceilings.read / bytes, "tokens/s", "read"};
    }
    return 0;
}
