/* ceiling.c - fv_measure_ceilings: each loop on all threads of the pool at once, several rounds, the median.
 *
 * A round's items wait for each other before they start, so that each worker has exactly one, and each worker reads the part
 * of memory that it wrote first. The rate is all work over the time from the first start to the last end. */
#include "kernel/ceiling.h"
#include "base/threads.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS = 9, STEPS = 250000, READ_UNIT = 512 };

typedef struct spell {
    double begin, end;
    float sink[16];
    uint64_t sum;
    char apart[64]; /* no two workers write one cache line */
} spell;

typedef struct bout {
    fv_context *ctx;
    const fvi_ceiling_ops *ops;
    const fvi_ceiling_op *op; /* NULL: read */
    bool touch;               /* write the memory instead */
    unsigned char *memory;
    size_t part; /* bytes of each worker */
    atomic_int ready;
    double fastest; /* seconds of the fastest spell so far */
    spell *spells;
} bout;

static void wait_for_all(bout *r) {
    atomic_fetch_add(&r->ready, 1);
    while (atomic_load(&r->ready) < r->ctx->threads && !fvi_cancelled(r->ctx)) {
        sched_yield();
    }
}

static void one_spell(void *arg, int64_t item, int worker) {
    (void)item;
    bout *r = arg;
    spell *s = &r->spells[worker];
    float x[16];
    for (int i = 0; i < 16; i++) {
        x[i] = 0.5f + (float)worker * 0x1p-10f; /* below 1: chains converge and no number is out of the ordinary */
    }
    wait_for_all(r);
    s->begin = fvi_seconds();
    if (r->touch) {
        memset(r->memory + (size_t)worker * r->part, worker + 1, r->part);
    } else if (r->op == NULL) {
        s->sum = r->ops->read(r->memory + (size_t)worker * r->part, r->part);
    } else {
        r->op->loop(STEPS, x, s->sink);
    }
    s->end = fvi_seconds();
}

/* Seconds of one round. */
static double run_round(bout *r) {
    int threads = r->ctx->threads;
    atomic_store(&r->ready, 0);
    fvi_parallel(r->ctx, threads, one_spell, r);
    double begin = r->spells[0].begin, end = r->spells[0].end;
    for (int i = 0; i < threads; i++) {
        begin = fmin(begin, r->spells[i].begin);
        end = fmax(end, r->spells[i].end);
        r->fastest = fmin(r->fastest, r->spells[i].end - r->spells[i].begin);
    }
    return fmax(end - begin, 1e-9);
}

static int by_size(const void *a, const void *b) {
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* Work a second, all threads together: the median of rounds after one that warms up. */
static double rate(bout *r, double work) {
    double seconds[ROUNDS];
    run_round(r);
    for (int i = 0; i < ROUNDS && !fvi_cancelled(r->ctx); i++) {
        seconds[i] = run_round(r);
    }
    if (fvi_cancelled(r->ctx)) {
        return 0;
    }
    qsort(seconds, ROUNDS, sizeof *seconds, by_size);
    return work * r->ctx->threads / seconds[ROUNDS / 2];
}

static double op_rate(bout *r, const fvi_ceiling_op *op) {
    r->op = op;
    r->fastest = INFINITY;
    return op->loop == NULL ? 0 : rate(r, op->work * STEPS);
}

static void pick(const fvi_cpu *cpu, fvi_ceiling_ops *ops) {
    fvi_ceiling_c(ops);
#if defined(__x86_64__)
    if (cpu->avx2) {
        fvi_ceiling_avx2(ops);
    }
    if (cpu->avx512) {
        fvi_ceiling_avx512(ops);
    }
    if (cpu->avx512_bf16) {
        fvi_ceiling_avx512bf16(ops);
    }
    if (cpu->avx512_vnni) {
        fvi_ceiling_avx512vnni(ops);
    }
#else
    (void)cpu;
#endif
}

/* Four times the last cache, which is taken for 64 MiB where the system does not know it; at most 2 GiB. */
static size_t part_bytes(int threads) {
    int64_t cache = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    cache = fvi_min(cache > 0 ? cache : (int64_t)64 << 20, (int64_t)512 << 20);
    return (size_t)fvi_round_up(fvi_ceil_div(4 * cache, threads), READ_UNIT);
}

fv_status fv_measure_ceilings(fv_context *ctx, fv_ceilings *out) {
    *out = (fv_ceilings){0};
    fvi_ceiling_ops ops;
    pick(&ctx->cpu, &ops);
    size_t threads = (size_t)ctx->threads;
    bout r = {.ctx = ctx, .ops = &ops, .part = part_bytes(ctx->threads)};
    r.spells = fvi_zalloc(ctx, threads, sizeof *r.spells);
    r.memory = fvi_alloc(ctx, threads, r.part);
    if (r.spells == NULL || r.memory == NULL) {
        fvi_release(ctx, r.spells, threads, sizeof *r.spells);
        fvi_release(ctx, r.memory, threads, r.part);
        return fvi_fail(ctx, FV_ERR_MEMORY, "measuring needs %zu bytes, four times the last cache, and there are not as many",
                        threads * r.part);
    }
    out->fma_f32 = op_rate(&r, &ops.fma_f32);
    out->dot_bf16 = op_rate(&r, &ops.dot_bf16);
    out->dot_int8 = op_rate(&r, &ops.dot_int8);
    if (op_rate(&r, &ops.clock) > 0) {
        out->clock_hz = ops.clock.work * STEPS / r.fastest; /* a clock does not slow down when other programs run */
    }
    r.op = NULL;
    r.touch = true;
    run_round(&r);
    r.touch = false;
    out->read = rate(&r, (double)r.part);
    fvi_release(ctx, r.memory, threads, r.part);
    fvi_release(ctx, r.spells, threads, sizeof *r.spells);
    return fvi_cancelled(ctx) ? fvi_fail(ctx, FV_ERR_CANCELLED, "cancelled while measuring the machine") : FV_OK;
}
