/* bench_attention.c - whole prompts on one core, form by form, against the ceiling of the form's instruction; core only, for
 * machines without the program. No test: it judges nothing.
 *
 *   bench_attention [--n N] [--d D] [--heads H_Q H_KV] [--forms N] [--rounds N]
 *
 * On a shared machine a core's rate may halve from one second to the next. So a round runs every form once, each between two
 * spells of its own ceiling, and what is told is the median over rounds of ratios within a round. */
#include "attention_case.h"
#include "kernel/ceiling.h"

enum { MOST_ROUNDS = 999, FORMS = 3 };

static const double SPELL = 2e-3; /* seconds of a ceiling's loop beside a run */

/* What a context is allowed to use. */
typedef struct form {
    fv_dtype dtype;
    bool bf16, amx;
} form;

/* A form ready to run, and what was measured of it, round by round. */
typedef struct entry {
    fv_context *ctx;
    fv_plan *plan;
    operand q, k, v, out;
    guard workspace;
    fvi_ceiling_op ceiling;
    const char *ceiling_name;
    double seconds[MOST_ROUNDS], rate[MOST_ROUNDS]; /* of the run; of the ceiling around it */
} entry;

static int by_value(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

typedef struct spread {
    double least, median, most;
} spread;

static spread spread_of(double *x, int n) {
    qsort(x, (size_t)n, sizeof *x, by_value);
    return (spread){x[0], x[n / 2], x[n - 1]};
}

static void give_up(const fv_context *ctx) {
    fprintf(stderr, "%s\n", fv_message(ctx));
    exit(1);
}

static void pick_ceiling(entry *e) {
    fvi_ceiling_ops ops = {0};
    const char *name = fv_plan_kernel(e->plan, e->k.t.dtype, e->v.t.dtype);
    bool amx = strcmp(name, "amx") == 0, pairs = strcmp(name, "avx512bf16") == 0;
    fvi_ceiling_pick(&e->ctx->cpu, &ops);
    e->ceiling = amx ? ops.amx_bf16 : pairs ? ops.dot_bf16 : ops.fma_f32;
    e->ceiling_name = amx ? "tdpbf16ps" : pairs ? "vdpbf16ps" : "fma";
}

static void open_entry(const form *f, const fv_problem *p, entry *e) {
    if (fv_context_create(&(fv_context_options){1, FV_LEVEL_BEST, NULL}, &e->ctx) != FV_OK) {
        exit(1);
    }
    e->ctx->cpu.avx512_bf16 = e->ctx->cpu.avx512_bf16 && f->bf16;
    e->ctx->cpu.amx_bf16 = e->ctx->cpu.amx_bf16 && f->amx;
    fvi_rng rng = {1};
    e->q = operand_normal(&rng, FV_F32, 1, p->h_q, p->n_q, p->d_k, 1);
    e->k = operand_normal(&rng, f->dtype, 1, p->h_kv, p->n_kv, p->d_k, 1);
    e->v = operand_normal(&rng, f->dtype, 1, p->h_kv, p->n_kv, p->d_v, 1);
    e->out = operand_normal(&rng, FV_F32, 1, p->h_q, p->n_q, p->d_v, 1);
    if (fv_plan_create(e->ctx, p, &e->plan) != FV_OK) {
        give_up(e->ctx);
    }
    e->workspace = guard_make(fv_plan_workspace(e->plan), 64, true);
    pick_ceiling(e);
}

static void close_entry(entry *e) {
    guard_free(&e->workspace);
    fv_plan_destroy(e->plan);
    operand_free(&e->q);
    operand_free(&e->k);
    operand_free(&e->v);
    operand_free(&e->out);
    fv_context_destroy(e->ctx);
}

/* Operations a second, over about SPELL seconds. */
static double ceiling_rate(const fvi_ceiling_op *op) {
    enum { STEPS = 2000 };
    float x[16], sink[16];
    for (int i = 0; i < 16; i++) {
        x[i] = 0.5f;
    }
    double start = fvi_seconds(), spent;
    int64_t steps = 0;
    do {
        op->loop(STEPS, x, sink);
        steps += STEPS;
        spent = fvi_seconds() - start;
    } while (spent < SPELL);
    return (double)steps * op->work / spent;
}

static void run_once(entry *e, int round) {
    fv_run run = {.q = e->q.t, .k = e->k.t, .v = e->v.t, .out = e->out.t};
    double before = ceiling_rate(&e->ceiling), start = fvi_seconds();
    if (fv_plan_run(e->plan, &run, e->workspace.data, e->workspace.size) != FV_OK) {
        give_up(e->ctx);
    }
    e->seconds[round] = fvi_seconds() - start;
    e->rate[round] = (before + ceiling_rate(&e->ceiling)) / 2;
}

static void print_entry(const entry *e, const fv_problem *p, int rounds) {
    double work = 4.0 * (double)p->h_q * (double)(p->n_q * (p->n_q + 1) / 2) * (double)p->d_k;
    double rate[MOST_ROUNDS], ceiling[MOST_ROUNDS], fraction[MOST_ROUNDS];
    for (int i = 0; i < rounds; i++) {
        rate[i] = work / e->seconds[i] * 1e-9;
        ceiling[i] = e->rate[i] * 1e-9;
        fraction[i] = rate[i] / ceiling[i];
    }
    spread r = spread_of(rate, rounds), c = spread_of(ceiling, rounds), f = spread_of(fraction, rounds);
    printf("%-10s %-4s %7.1f [%.1f %.1f] GFLOP/s of %s %.1f [%.1f %.1f]: fraction %.3f [%.3f %.3f]\n",
           fv_plan_kernel(e->plan, e->k.t.dtype, e->v.t.dtype), fv_dtype_name(e->k.t.dtype), r.median, r.least, r.most,
           e->ceiling_name, c.median, c.least, c.most, f.median, f.least, f.most);
}

/* How many times as fast as form i form 0 is. */
static void print_gain(const entry *e, int i, int rounds) {
    double gain[MOST_ROUNDS];
    for (int k = 0; k < rounds; k++) {
        gain[k] = e[i].seconds[k] / e[0].seconds[k];
    }
    spread g = spread_of(gain, rounds);
    printf("%s from %s over %s from %s: %.2f times [%.2f %.2f]\n", fv_plan_kernel(e[0].plan, e[0].k.t.dtype, e[0].v.t.dtype),
           fv_dtype_name(e[0].k.t.dtype), fv_plan_kernel(e[i].plan, e[i].k.t.dtype, e[i].v.t.dtype),
           fv_dtype_name(e[i].k.t.dtype), g.median, g.least, g.most);
}

static void bench(const fv_problem *p, int forms, int rounds) {
    static const form form_of[FORMS] = {{FV_BF16, true, true}, {FV_BF16, true, false}, {FV_F16, false, false}};
    static entry e[FORMS];
    for (int i = 0; i < forms; i++) {
        open_entry(&form_of[i], p, &e[i]);
        run_once(&e[i], 0);
    }
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < forms; i++) {
            run_once(&e[i], round);
        }
    }
    printf("n %lld d %lld, %lld x %lld heads, one core, medians of %d [least most]\n", (long long)p->n_q, (long long)p->d_k,
           (long long)p->h_q, (long long)p->h_kv, rounds);
    for (int i = 0; i < forms; i++) {
        print_entry(&e[i], p, rounds);
    }
    for (int i = 1; i < forms; i++) {
        print_gain(e, i, rounds);
    }
    for (int i = 0; i < forms; i++) {
        close_entry(&e[i]);
    }
}

int main(int argc, char **argv) {
    int64_t n = 4096, d = 128, h_q = 32, h_kv = 8, forms = FORMS, rounds = 9;
    for (int i = 1; i + 1 < argc; i++) {
        n = strcmp(argv[i], "--n") == 0 ? strtoll(argv[i + 1], NULL, 0) : n;
        forms = strcmp(argv[i], "--forms") == 0 ? strtoll(argv[i + 1], NULL, 0) : forms;
        rounds = strcmp(argv[i], "--rounds") == 0 ? strtoll(argv[i + 1], NULL, 0) : rounds;
        d = strcmp(argv[i], "--d") == 0 ? strtoll(argv[i + 1], NULL, 0) : d;
        if (strcmp(argv[i], "--heads") == 0 && i + 2 < argc) {
            h_q = strtoll(argv[i + 1], NULL, 0);
            h_kv = strtoll(argv[i + 2], NULL, 0);
        }
    }
    fv_problem p = fv_problem_default();
    p = (fv_problem){.b = 1, .h_q = h_q, .h_kv = h_kv, .n_q = n, .n_kv = n, .d_k = d, .d_v = d, .causal = true};
    bench(&p, (int)fvi_max(1, fvi_min(forms, FORMS)), (int)fvi_max(1, fvi_min(rounds, MOST_ROUNDS)));
    return 0;
}
