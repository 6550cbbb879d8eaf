/* bench_masks.c - masks and lengths of the Long-Context Attention Benchmark (Bu et al., 2025, arXiv 2510.17896): its twelve
 * static patterns and one of ours. The engine knows seven of them as rules and skips what they hide; the others are written into
 * an additive bias of n x n: the engine reads it all, skips leaves that it hides from all rows of an item, and adds the rest.
 * Rates count visible pairs.
 */
#include "bench.h"

#include "common.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 512, GLOBALS = 64, BLOCK = 128, DOCUMENTS = 8, BIAS_MOST = 8192, HEADS = 8, KV_HEADS = 2, WIDTH = 64 };
static const int64_t lengths[] = {1024, 2048, 4096, 8192, 16384};

/* A sequence cut into documents of n/36, 2n/36, .. 8n/36 positions. */
typedef struct documents {
    int32_t start[DOCUMENTS + 1];
} documents;

static documents cut(int64_t n) {
    documents d;
    for (int k = 0; k <= DOCUMENTS; k++) {
        d.start[k] = (int32_t)(n * k * (k + 1) / (DOCUMENTS * (DOCUMENTS + 1)));
    }
    return d;
}

static int document_of(const documents *d, int64_t i) {
    int k = 0;
    while (i >= d->start[k + 1]) {
        k++;
    }
    return k;
}

/* ---- masks that a bias has to carry: the first and last key that query i sees, in at most two spans ---- */

typedef struct spans {
    int64_t from[2], to[2];
} spans;

static spans share_question(const documents *d, int64_t n, int64_t i) {
    (void)n;
    int k = document_of(d, i);
    return (spans){{k ? 0 : d->start[0], d->start[k]}, {k ? d->start[1] : 0, i + 1}};
}
static spans causal_blockwise(const documents *d, int64_t n, int64_t i) {
    (void)n;
    int k = document_of(d, i);
    return (spans){{k == DOCUMENTS - 1 ? 0 : d->start[k]}, {i + 1}};
}
static spans prefix_lm_causal(const documents *d, int64_t n, int64_t i) {
    (void)d;
    return (spans){{0}, {i < n / 4 ? n / 4 : i + 1}};
}
static spans prefix_lm_document(const documents *d, int64_t n, int64_t i) {
    (void)n;
    int k = document_of(d, i);
    int64_t start = d->start[k], prefix = start + (d->start[k + 1] - start) / 4;
    return (spans){{start}, {i < prefix ? prefix : i + 1}};
}
static spans global_sliding_window(const documents *d, int64_t n, int64_t i) {
    (void)d;
    if (i < GLOBALS) {
        return (spans){{0}, {n}};
    }
    int64_t from = i - WINDOW + 1 > GLOBALS ? i - WINDOW + 1 : GLOBALS, to = i + WINDOW < n ? i + WINDOW : n;
    return (spans){{0, from}, {GLOBALS, to}};
}
static spans block_causal_document(const documents *d, int64_t n, int64_t i) {
    (void)n;
    int k = document_of(d, i);
    int64_t end = d->start[k] + (i - d->start[k]) / BLOCK * BLOCK + BLOCK;
    return (spans){{d->start[k]}, {end < d->start[k + 1] ? end : d->start[k + 1]}};
}

typedef struct mask {
    const char *name; /* the paper's */
    bool causal, packed;
    int64_t window, sinks;
    spans (*bias)(const documents *d, int64_t n, int64_t i); /* NULL: the rules before say it all */
} mask;

static const mask masks[] = {
    {"full", false, false, 0, 0, NULL},
    {"causal", true, false, 0, 0, NULL},
    {"full_document", false, true, 0, 0, NULL},
    {"causal_document", true, true, 0, 0, NULL},
    {"sliding_window", false, false, WINDOW, 0, NULL},
    {"sliding_window_causal", true, false, WINDOW, 0, NULL},
    {"sink_window_causal", true, false, WINDOW, GLOBALS, NULL},
    {"share_question", false, false, 0, 0, share_question},
    {"causal_blockwise", false, false, 0, 0, causal_blockwise},
    {"prefix_lm_causal", false, false, 0, 0, prefix_lm_causal},
    {"prefix_lm_document", false, false, 0, 0, prefix_lm_document},
    {"global_sliding_window", false, false, 0, 0, global_sliding_window},
    {"block_causal_document", false, false, 0, 0, block_causal_document},
};

static fv_problem problem_of(const bench_case *c, const documents *d) {
    const mask *k = &masks[c->variant];
    fv_problem p = bench_problem(c, c->n, FV_PREFILL);
    p.causal = k->causal;
    p.window = k->window;
    p.sinks = k->sinks;
    p.has_bias = k->bias != NULL;
    p.packed = k->packed;
    if (k->packed) {
        p.b = DOCUMENTS;
        p.n_q = p.n_kv = d->start[DOCUMENTS] - d->start[DOCUMENTS - 1];
    }
    return p;
}

/* The bias of one head, for all; returns the visible pairs, 0 if memory ran out. */
static double write_bias(const bench_machine *m, const bench_case *c, const documents *d, fv_run *run) {
    int64_t n = c->n;
    double pairs = 0;
    float *bias = bench_memory(m, (size_t)(n * n) * sizeof *bias);
    for (int64_t i = 0; bias && i < n; i++) {
        spans s = masks[c->variant].bias(d, n, i);
        for (int64_t j = 0; j < n; j++) {
            bias[i * n + j] = -INFINITY;
        }
        for (int k = 0; k < 2; k++) {
            for (int64_t j = s.from[k]; j < s.to[k]; j++) {
                bias[i * n + j] = 0;
                pairs++;
            }
        }
    }
    run->bias = fv_tensor_view(bias, FV_F32, 1, c->h_q, n, n);
    run->bias.stride[0] = run->bias.stride[1] = 0;
    return pairs;
}

static int measure_mask(bench_machine *m, const bench_case *c) {
    bench_arena a = {0};
    double seconds[BENCH_RUNS_MAX], pairs = 0;
    documents d = cut(c->n);
    fv_run_stats stats = {0};
    fv_problem p = problem_of(c, &d);
    int code = bench_arena_make(m, c, &p, &a);
    if (!code && p.has_bias) {
        pairs = write_bias(m, c, &d, &a.run);
        code = a.run.bias.data ? 0 : EXIT_RUNTIME;
    }
    if (p.packed) {
        a.run.q_start = a.run.k_start = d.start;
    }
    a.run.stats = &stats;
    code = code ? code : bench_time_one(m, &a, seconds);
    if (!code) {
        pairs = p.has_bias ? pairs : (double)stats.eligible_pairs / (double)c->h_q;
        bench_row row = {.unit = "GFLOP/s", .runs = m->runs, .extra = {{"density", pairs / (double)c->n / (double)c->n}}};
        snprintf(row.name, sizeof row.name, "%s", c->name);
        row.value = bench_rates(seconds, m->runs, 4 * pairs * (double)c->d * (double)c->h_q / 1e9);
        row.ceiling = bench_kernel_ceiling(&m->ceilings, fv_plan_kernel(a.plan, c->dtype, c->dtype));
        code = bench_tell(m, &row);
    }
    free(a.run.bias.data);
    bench_arena_free(&a);
    return code;
}

void bench_masks_add(fv_context *ctx, bench_list *list) {
    for (int l = 0; l < CLI_COUNT(lengths); l++) {
        for (int k = 0; k < CLI_COUNT(masks); k++) {
            bench_case c = {"masks", measure_mask, FV_BF16, HEADS, KV_HEADS, WIDTH, lengths[l], .variant = k};
            if (masks[k].bias && c.n > BIAS_MOST) {
                continue;
            }
            char shape[BENCH_NAME];
            documents d = cut(c.n);
            fv_problem p = problem_of(&c, &d);
            snprintf(c.name, sizeof c.name, "masks/%s/%.60s/%s", masks[k].name, bench_shape(&c, shape),
                     bench_kernel(ctx, &p, c.dtype));
            c.cost = 0.1 + 10 * 4.0 * (double)(c.n * c.n * c.d * c.h_q) * (masks[k].window ? 0.1 : 0.6) / 5e11;
            bench_list_add(list, &c);
        }
    }
}

/* ---- the matrix ---- */

static const bench_row *row_of(const bench_machine *m, const char *name, int64_t n) {
    char start[BENCH_NAME], length[32];
    snprintf(start, sizeof start, "masks/%s/", name);
    snprintf(length, sizeof length, "/n%" PRId64 "/", n);
    for (int i = 0; i < m->n_told; i++) {
        if (strncmp(m->told[i].name, start, strlen(start)) == 0 && strstr(m->told[i].name, length)) {
            return &m->told[i];
        }
    }
    return NULL;
}

int bench_tell_masks(const bench_machine *m) {
    bool any = false, column[CLI_COUNT(lengths)] = {false};
    for (int l = 0; l < CLI_COUNT(lengths); l++) {
        for (int k = 0; k < CLI_COUNT(masks); k++) {
            column[l] = column[l] || row_of(m, masks[k].name, lengths[l]);
        }
        any = any || column[l];
    }
    if (!any || m->list) {
        return 0;
    }
    terminal_progress_clear();
    printf("\nGFLOP/s of visible pairs (their share of all pairs)\n%-24s", "");
    for (int l = 0; l < CLI_COUNT(lengths); l++) {
        if (column[l]) {
            printf(" %15" PRId64, lengths[l]);
        }
    }
    for (int k = 0; k < CLI_COUNT(masks); k++) {
        printf("\n%-24s", masks[k].name);
        for (int l = 0; l < CLI_COUNT(lengths); l++) {
            const bench_row *row = row_of(m, masks[k].name, lengths[l]);
            if (row) {
                printf(" %8.1f (%3.0f%%)", row->value.median, 100 * row->extra[0].value);
            } else if (column[l]) {
                printf(" %15s", "-");
            }
        }
    }
    putchar('\n');
    return terminal_flush();
}
