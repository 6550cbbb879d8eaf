/* test_sparsed.c - SparseD's blocks: against mean softmax weights in double, against selections that its code made, and over
 * steps: full first, then the blocks of the last full step, whatever queries and keys have become. */
#include "heads_test.h"
#include "index_test.h"

typedef struct setting {
    int64_t n, block, generated;
    double select;
} setting;

/* A plan, its workspace and its state. */
typedef struct steps {
    prepared p;
    void *state;
    size_t bytes;
} steps;

enum { LAST_FULL = 3 }; /* of 10 steps with skip = 0.2: int(2) + 1 */

static const char *recipe_of(const setting *s) {
    static char text[160];
    snprintf(text, sizeof text, "prefill=sparsed:block=%d:select=%g:skip=0.2:steps=10:generated=%d:fallback=0", (int)s->block,
             s->select, (int)s->generated);
    return text;
}

static steps steps_make(fv_context *ctx, const setting *s, const heads *x) {
    steps t = {.p = prepare(ctx, recipe_of(s), x, x->n, false)};
    t.bytes = fv_plan_state(t.p.plan);
    t.state = aligned_alloc(64, (t.bytes + 63) / 64 * 64);
    memset(t.state, 0xff, t.bytes);
    return t;
}

static void steps_free(steps *t) {
    free(t->state);
    prepared_free(&t->p);
}

static fv_run_stats run_step(fv_context *ctx, const steps *t, const heads *x, int64_t step) {
    fv_run_stats stats = {0};
    fv_run run = part_run(x, 0, x->n, x->n);
    run.lse = x->lse;
    run.stats = &stats;
    run.step = step;
    run.state = t->state;
    run.state_bytes = t->bytes;
    CHECK(fv_plan_run(t->p.plan, &run, t->p.workspace, t->p.bytes) == FV_OK, "step %d: %s", (int)step, fv_message(ctx));
    return stats;
}

static selection select_step(fv_context *ctx, const steps *t, const heads *x, int64_t step) {
    selection s = {x->h_q, x->n, calloc((size_t)(x->h_q * x->n), (size_t)x->n), 0};
    fv_run run = part_run(x, 0, x->n, x->n);
    run.step = step;
    run.state = t->state;
    run.state_bytes = t->bytes;
    CHECK(fv_plan_index(t->p.plan, &run, t->p.workspace, t->p.bytes, take_tile, &s) == FV_OK, "%s", fv_message(ctx));
    return s;
}

/* mass (blocks) = mean weights of a block of queries, under the softmax over the keys from `from` on. */
static void block_masses(const setting *s, const heads *x, int64_t head, int64_t query_block, int64_t from, double *mass) {
    int64_t kv = head / (x->h_q / x->h_kv), end = (query_block + 1) * s->block;
    double *w = malloc((size_t)x->n * sizeof *w);
    for (int64_t b = 0; b * s->block < x->n; b++) {
        mass[b] = 0;
    }
    for (int64_t i = query_block * s->block; i < (end < x->n ? end : x->n); i++) {
        double top = -INFINITY, sum = 0;
        for (int64_t j = from; j < x->n; j++) {
            w[j] = 0;
            for (int64_t c = 0; c < x->d; c++) {
                w[j] += (double)x->q[(head * x->n + i) * x->d + c] * x->k[(kv * x->n + j) * x->d + c];
            }
            w[j] /= sqrt((double)x->d);
            top = fmax(top, w[j]);
        }
        for (int64_t j = from; j < x->n; j++) {
            sum += exp(w[j] - top);
        }
        for (int64_t j = from; j < x->n; j++) {
            mass[j / s->block] += exp(w[j] - top) / sum / (double)(s->block * s->block);
        }
    }
    free(w);
}

/* Of blocks from .. to - 1, those taken are `most` at most, and none left out has clearly more than one taken: where only some of
 * the ranking's blocks can be taken (to < blocks) the others count as taken. */
static void ranking_holds(const double *mass, const bool *taken, int64_t from, int64_t blocks, int64_t visible, int64_t most,
                          const char *what) {
    double least = INFINITY;
    int64_t n = 0, above = 0;
    for (int64_t b = from; b < visible; b++) {
        least = taken[b] ? fmin(least, mass[b]) : least;
        n += taken[b];
    }
    for (int64_t b = from; b < blocks; b++) {
        above += mass[b] > least * (1 + 1e-5);
        CHECK(b >= visible || taken[b] || mass[b] <= least * (1 + 1e-5) || n == 0, "%s: block %d is left out", what, (int)b);
    }
    CHECK(n <= most && (n == 0 || above < most), "%s: %d blocks of %d, %d above the least", what, (int)n, (int)most, (int)above);
    CHECK(visible < blocks || n == most, "%s: %d blocks, not %d", what, (int)n, (int)most);
    for (int64_t b = from; b < visible && visible < blocks; b++) { /* all that rank among the first are there */
        int64_t better = 0;
        for (int64_t c = from; c < blocks; c++) {
            better += mass[c] > mass[b] * (1 - 1e-5);
        }
        CHECK(better > most || taken[b], "%s: block %d, of rank %d, is not there", what, (int)b, (int)better);
    }
}

static void selection_holds(const setting *s, const heads *x, const selection *got) {
    int64_t blocks = (x->n + s->block - 1) / s->block, last = 0;
    while (last < blocks - 1 && x->n - last * s->block > s->generated) {
        last++;
    }
    double *mass = malloc((size_t)blocks * sizeof *mass);
    bool *taken = malloc((size_t)blocks * sizeof *taken);
    int64_t all = (int64_t)((double)blocks * s->select) + 1, part = (int64_t)((double)(blocks - last) * s->select) + 1;
    all = all < blocks ? all : blocks;
    part = part < blocks - last ? part : blocks - last;
    for (int64_t i = 0; i < x->h_q * blocks; i++) {
        const unsigned char *row = got->at + (i / blocks * x->n + i % blocks * s->block) * x->n;
        for (int64_t b = 0; b < blocks; b++) {
            taken[b] = row[b * s->block];
        }
        block_masses(s, x, i / blocks, i % blocks, 0, mass);
        ranking_holds(mass, taken, 0, blocks, last, all, "prompt");
        block_masses(s, x, i / blocks, i % blocks, last * s->block, mass);
        ranking_holds(mass, taken, last, blocks, blocks, part, "generated");
    }
    int64_t uneven = 0; /* rows and keys of a block are alike */
    for (int64_t i = 0; i < x->h_q * x->n * x->n; i++) {
        int64_t j = i % x->n, row = i / x->n % x->n, head = i / x->n / x->n;
        uneven += got->at[i] != got->at[(head * x->n + row / s->block * s->block) * x->n + j / s->block * s->block];
    }
    CHECK(uneven == 0, "%s: %lld pairs differ within a block", recipe_of(s), (long long)uneven);
    free(taken);
    free(mass);
}

static void golden_holds(const setting *s, const selection *got, const char *name) {
    int64_t blocks = (s->n + s->block - 1) / s->block, pairs = got->h * blocks * blocks;
    unsigned char *at = malloc((size_t)pairs);
    for (int64_t i = 0; i < pairs; i++) {
        int64_t head = i / blocks / blocks, q = i / blocks % blocks * s->block, k = i % blocks * s->block;
        at[i] = got->at[(head * got->n + q) * got->n + k];
    }
    golden_bits_hold(name, recipe_of(s), at, pairs);
    free(at);
}

static void rows_hold(const setting *s, const heads *x, const selection *got, const fv_run_stats *stats) {
    double worst = 0, *out = malloc((size_t)x->d * sizeof *out);
    CHECK((int64_t)stats->exact_pairs == selected_pairs(got), "%s: weighed %llu pairs, selected %lld", recipe_of(s),
          (unsigned long long)stats->exact_pairs, (long long)selected_pairs(got));
    for (int64_t i = 0; i<x->h_q * x->n; i += x->n> 300 ? 13 : 1) {
        seen_by arg = {got, i / x->n};
        double lse = reference_row(x, i / x->n, i % x->n, selection_sees, &arg, out);
        worst = fmax(worst, fabs(lse - x->lse[i]));
        for (int64_t c = 0; c < x->d; c++) {
            worst = fmax(worst, fabs(out[c] - x->out[i * x->d + c]));
        }
    }
    CHECK(worst < 2e-5, "%s: off by %g", recipe_of(s), worst);
    free(out);
}

/* On x, then on other queries and keys of later steps; `golden`: what the official code chose, or NULL. */
static void holds(fv_context *ctx, const setting *s, heads *x, heads *later, const char *golden) {
    steps t = steps_make(ctx, s, x);
    size_t bytes = (size_t)(x->h_q * x->n * x->d) * sizeof(float);
    for (int step = 0; step <= LAST_FULL; step++) {
        fv_run_stats stats = run_step(ctx, &t, x, step);
        CHECK(stats.exact_pairs == (uint64_t)(x->h_q * s->n * s->n) && stats.fallback_tiles == 0, "step %d is not full", step);
    }
    float *full = malloc(bytes);
    memcpy(full, x->out, bytes);
    heads_run_if(ctx, "", x, false);
    CHECK(memcmp(full, x->out, bytes) == 0, "%s: the full steps are not dense", recipe_of(s));
    selection got = select_step(ctx, &t, x, LAST_FULL + 1);
    selection_holds(s, x, &got);
    if (golden != NULL) {
        golden_holds(s, &got, golden);
    }
    fv_run_stats stats = run_step(ctx, &t, x, LAST_FULL + 1);
    CHECK(stats.fallback_tiles == 0, "%s: %d tiles fell back", recipe_of(s), (int)stats.fallback_tiles);
    rows_hold(s, x, &got, &stats);
    CHECK(s->select < 1 || memcmp(full, x->out, bytes) == 0, "%s is not dense", recipe_of(s));
    stats = run_step(ctx, &t, later, LAST_FULL + 5); /* other queries and keys, the same blocks */
    rows_hold(s, later, &got, &stats);
    free(full);
    free(got.at);
    steps_free(&t);
}

/* Sinks and locality: positions turn one plane of q and k. */
static heads local_heads(uint64_t seed, int64_t h_q, int64_t h_kv, int64_t n, int64_t d) {
    heads x = heads_make(seed, h_q, h_kv, n, d);
    for (int64_t i = 0; i < h_q * n; i++) {
        double angle = 0.02 * (double)(i % n);
        float *q = x.q + i * d, *k = i < h_kv * n ? x.k + i * d : NULL;
        q[0] = (float)(9 * cos(angle));
        q[1] = (float)(9 * sin(angle));
        if (k != NULL) {
            k[0] = i % n < 4 ? 9 : (float)(5 * cos(angle));
            k[1] = i % n < 4 ? 9 : (float)(5 * sin(angle));
        }
    }
    return x;
}

static void holds_made(fv_context *ctx, const setting *s, heads x, const char *golden) {
    heads later = heads_make(100, x.h_q, x.h_kv, x.n, x.d);
    holds(ctx, s, &x, &later, golden);
    heads_free(&x);
    heads_free(&later);
}

static void holds_everywhere(fv_context *ctx) {
    static const setting official[] = {{500, 64, 100, 0.3}, {500, 32, 77, 0.5}, {700, 128, 0, 0.3}, {300, 32, 300, 0.25}},
                         real[] = {{450, 64, 100, 0.3}, {450, 32, 77, 0.5}},
                         more[] = {{1, 64, 0, 0.3},   {63, 32, 0, 0.5}, {65, 16, 20, 0.4}, {200, 8, 50, 0.2},
                                   {200, 64, 0, 1.0}, {90, 32, 0, 1.0}, {700, 256, 0, 0.3}};
    char name[40];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "select/sparsed/%d", i);
        holds_made(ctx, &official[i], heads_make((uint64_t)i + 1, 4, 2, official[i].n, 32), name);
    }
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "select/sparsed/real-%d", i);
        holds_made(ctx, &real[i], heads_real(4, 2, real[i].n), name);
    }
    for (int i = 0; i < 7; i++) {
        int64_t h_kv = i % 2 ? 4 : 2, d = i % 2 ? 64 : 32;
        holds_made(ctx, &more[i], heads_make((uint64_t)i + 20, 4, h_kv, more[i].n, d), NULL);
        holds_made(ctx, &more[i], local_heads((uint64_t)i + 30, 4, h_kv, more[i].n, d), NULL);
        holds_made(ctx, &more[i], heads_real(3, 1, more[i].n), NULL);
    }
}

/* Steps that do not begin at 0 have nothing to reuse. */
static void fallback_holds(fv_context *ctx) {
    const setting s = {200, 32, 0, 0.25};
    heads x = heads_make(9, 4, 2, s.n, 32);
    steps t = steps_make(ctx, &s, &x);
    fv_run_stats stats = run_step(ctx, &t, &x, LAST_FULL + 1);
    CHECK(stats.fallback_tiles == stats.tiles && stats.exact_pairs == (uint64_t)(4 * s.n * s.n), "no fallback without a choice");
    run_step(ctx, &t, &x, LAST_FULL);
    stats = run_step(ctx, &t, &x, LAST_FULL + 1);
    CHECK(stats.fallback_tiles == 0, "the choice is not there");
    run_step(ctx, &t, &x, 0);
    stats = run_step(ctx, &t, &x, LAST_FULL + 1);
    CHECK(stats.fallback_tiles == stats.tiles, "a choice outlives step 0");
    fv_run run = part_run(&x, 0, s.n, s.n);
    CHECK(fv_plan_run(t.p.plan, &run, t.p.workspace, t.p.bytes) == FV_ERR_ARGUMENT, "a run without state");
    run.state = t.state;
    run.state_bytes = t.bytes - 64;
    CHECK(fv_plan_run(t.p.plan, &run, t.p.workspace, t.p.bytes) == FV_ERR_ARGUMENT, "a run with too little state");
    steps_free(&t);
    heads_free(&x);
}

/* Mass missed at step LAST_FULL + 1, mean over rows. */
static double missing(fv_context *ctx, double share, heads *x) {
    const setting s = {x->n, 32, 0, share};
    steps t = steps_make(ctx, &s, x);
    double sum = 0;
    float *dense = malloc((size_t)(4 * x->n) * sizeof *dense);
    run_step(ctx, &t, x, LAST_FULL);
    memcpy(dense, x->lse, (size_t)(4 * x->n) * sizeof *dense);
    run_step(ctx, &t, x, LAST_FULL + 1);
    for (int64_t i = 0; i < 4 * x->n; i++) {
        sum += 1 - exp((double)x->lse[i] - dense[i]);
    }
    free(dense);
    steps_free(&t);
    return sum / (double)(4 * x->n);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    holds_everywhere(ctx);
    fallback_holds(ctx);
    heads x = heads_make(5, 4, 2, 600, 32);
    double tenth = missing(ctx, 0.1, &x), more_of_it = missing(ctx, 0.4, &x), none = missing(ctx, 1.0, &x);
    CHECK(more_of_it > 0 && tenth > more_of_it && none == 0, "missing mass %g, %g and %g", tenth, more_of_it, none);
    heads_free(&x);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
