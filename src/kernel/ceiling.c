/* ceiling.c - fv_measure_ceilings: each loop on all threads of the pool at once, several rounds, the fastest.
 *
 * Workers wait for each other before each round, and each reads the part of memory that it wrote first. The rate of a round is
 * all work over the time from the first start to the last end: threads that share a core or the memory cannot each claim the
 * whole. Rounds follow each other without sleep, so that the system has time to give each thread a core of its own. */
#include "kernel/ceiling.h"
#include "base/threads.h"

#include <math.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* SPINS: a few microseconds; a worker that waits longer lets others run. LONG: seconds after which LEAST rounds are enough. */
enum { ROUNDS = 48, LEAST = 3, STEPS = 100000, SPINS = 2000, HUGE_PAGE = 2 << 20 };
static const double LONG = 0.25;

typedef struct spell {
    double begin[ROUNDS], end[ROUNDS];
    float sink[16];
    uint64_t sum;
    char apart[64]; /* no two workers write one cache line */
} spell;

typedef struct bout {
    fv_context *ctx;
    const fvi_ceiling_op *op; /* NULL: read */
    fvi_ceiling_read read;    /* NULL: write the memory instead */
    unsigned char *memory;
    size_t part; /* bytes of each worker */
    bool shared; /* all read one part, that of the first */
    atomic_int ready, rounds;
    spell *spells;
} bout;

/* Until all workers have come here for the `round`-th time. */
static void wait_for_all(bout *r, int round) {
    int all = r->ctx->threads * (round + 1);
    atomic_fetch_add(&r->ready, 1);
    for (int i = 0; atomic_load_explicit(&r->ready, memory_order_acquire) < all && !fvi_cancelled(r->ctx); i++) {
        if (i > SPINS) {
            sched_yield();
        }
    }
}

static void work_once(const bout *r, int worker, spell *s) {
    float x[16];
    for (int i = 0; i < 16; i++) {
        x[i] = 0.5f + (float)worker * 0x1p-10f; /* sums of its squares stay far from overflow and from the denormal */
    }
    if (r->op != NULL) {
        r->op->loop(STEPS, x, s->sink);
    } else if (r->read != NULL) {
        s->sum = r->read(r->memory + (r->shared ? 0 : (size_t)worker * r->part), r->part);
    } else {
        memset(r->memory + (size_t)worker * r->part, worker + 1, r->part);
    }
}

static void all_rounds(void *arg, int64_t item, int worker) {
    (void)item;
    bout *r = arg;
    spell *s = &r->spells[worker];
    for (int i = 0; !fvi_cancelled(r->ctx); i++) {
        if (worker == 0 && i >= LEAST && fvi_seconds() - s->begin[0] > LONG) {
            atomic_store(&r->rounds, i);
        }
        wait_for_all(r, i);
        if (i >= atomic_load(&r->rounds)) { /* asked only where all have come: all end with the same round */
            break;
        }
        s->begin[i] = fvi_seconds();
        work_once(r, worker, s);
        s->end[i] = fvi_seconds();
    }
}

static void run_rounds(bout *r, int rounds) {
    atomic_store(&r->ready, 0);
    atomic_store(&r->rounds, rounds);
    fvi_parallel(r->ctx, r->ctx->threads, all_rounds, r);
}

/* Seconds of the fastest round. */
static double fastest_round(bout *r) {
    double fastest = INFINITY;
    run_rounds(r, ROUNDS);
    for (int i = 0; i < atomic_load(&r->rounds) && !fvi_cancelled(r->ctx); i++) {
        double begin = INFINITY, end = 0;
        for (int t = 0; t < r->ctx->threads; t++) {
            begin = fmin(begin, r->spells[t].begin[i]);
            end = fmax(end, r->spells[t].end[i]);
        }
        fastest = fmin(fastest, fmax(end - begin, 1e-9));
    }
    return fastest;
}

static double op_rate(bout *r, const fvi_ceiling_op *op) {
    if (op->loop == NULL) {
        return 0;
    }
    r->op = op;
    return op->work * STEPS * r->ctx->threads / fastest_round(r);
}

/* Of one thread in its best moment: a clock does not slow down when other programs run. */
static double clock_rate(bout *r, const fvi_ceiling_op *clock) {
    double fastest = INFINITY;
    op_rate(r, clock);
    for (int i = 0; i < atomic_load(&r->rounds); i++) {
        for (int t = 0; t < r->ctx->threads; t++) {
            fastest = fmin(fastest, fmax(r->spells[t].end[i] - r->spells[t].begin[i], 1e-9));
        }
    }
    return clock->work * STEPS / fastest;
}

void fvi_ceiling_pick(const fvi_cpu *cpu, fvi_ceiling_ops *ops) {
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
    if (cpu->amx_bf16) {
        fvi_ceiling_amx(ops);
    }
#else
    (void)cpu;
#endif
}

/* Four times the last cache, which is taken for 64 MiB where the system does not know it; at least 512 MiB, since virtual
 * machines know only a part of it, at most 2 GiB. */
static size_t part_bytes(int threads) {
    int64_t cache = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    cache = cache > 0 ? fvi_min(cache, (int64_t)512 << 20) : (int64_t)64 << 20;
    return (size_t)fvi_round_up(fvi_ceil_div(fvi_max(4 * cache, (int64_t)512 << 20), threads), FVI_READ_UNIT);
}

/* Asks for huge pages, which take the walks of page tables out of reading; a system that has none may say no. */
static void ask_huge(unsigned char *memory, size_t size) {
#ifdef MADV_HUGEPAGE
    uintptr_t from = (uintptr_t)fvi_round_up((int64_t)(uintptr_t)memory, HUGE_PAGE);
    uintptr_t to = ((uintptr_t)memory + size) / HUGE_PAGE * HUGE_PAGE;
    if (from < to) {
        (void)madvise((void *)from, to - from, MADV_HUGEPAGE);
    }
#else
    (void)memory;
    (void)size;
#endif
}

/* The fastest way to read. */
static double read_rate(bout *r, const fvi_ceiling_ops *ops) {
    double best = 0;
    r->op = NULL;
    r->read = NULL;
    if (!r->shared) { /* each writes its own memory first */
        run_rounds(r, 1);
    }
    for (int i = 0; i < FVI_READS && !fvi_cancelled(r->ctx); i++) {
        r->read = ops->read[i];
        best = fmax(best, (double)r->part * r->ctx->threads / fastest_round(r));
    }
    return best;
}

fv_status fv_measure_ceilings(fv_context *ctx, fv_ceilings *out) {
    *out = (fv_ceilings){0};
    fvi_ceiling_ops ops;
    fvi_ceiling_pick(&ctx->cpu, &ops);
    size_t threads = (size_t)ctx->threads;
    bout r = {.ctx = ctx, .part = part_bytes(ctx->threads)};
    r.spells = fvi_zalloc(ctx, threads, sizeof *r.spells);
    r.memory = fvi_alloc(ctx, threads, r.part);
    if (r.spells == NULL || r.memory == NULL) {
        fvi_release(ctx, r.spells, threads, sizeof *r.spells);
        fvi_release(ctx, r.memory, threads, r.part);
        return fvi_fail(ctx, FV_ERR_MEMORY, "measuring needs %zu bytes, four times the last cache, and there are not as many",
                        threads * r.part);
    }
    ask_huge(r.memory, threads * r.part);
    out->clock_hz = clock_rate(&r, &ops.clock);
    out->fma_f32 = op_rate(&r, &ops.fma_f32);
    out->dot_bf16 = op_rate(&r, &ops.dot_bf16);
    out->dot_int8 = op_rate(&r, &ops.dot_int8);
    out->amx_bf16 = op_rate(&r, &ops.amx_bf16);
    out->read = read_rate(&r, &ops);
    fvi_release(ctx, r.memory, threads, r.part);
    fvi_release(ctx, r.spells, threads, sizeof *r.spells);
    return fvi_cancelled(ctx) ? fvi_fail(ctx, FV_ERR_CANCELLED, "cancelled while measuring the machine") : FV_OK;
}

fv_status fv_measure_read(fv_context *ctx, size_t bytes, double *out) {
    *out = 0;
    fvi_ceiling_ops ops;
    fvi_ceiling_pick(&ctx->cpu, &ops);
    size_t threads = (size_t)ctx->threads, part = (bytes / FVI_READ_UNIT + 1) * FVI_READ_UNIT;
    bout r = {.ctx = ctx, .shared = true, .part = part};
    r.spells = fvi_zalloc(ctx, threads, sizeof *r.spells);
    r.memory = fvi_alloc(ctx, part, 1);
    fv_status status = FV_OK;
    if (r.spells == NULL || r.memory == NULL) {
        status = fvi_fail(ctx, FV_ERR_MEMORY, "measuring needs %zu bytes, and there are not as many", part);
    } else {
        ask_huge(r.memory, part);
        memset(r.memory, 1, part);
        *out = read_rate(&r, &ops);
    }
    fvi_release(ctx, r.memory, part, 1);
    fvi_release(ctx, r.spells, threads, sizeof *r.spells);
    return status == FV_OK && fvi_cancelled(ctx) ? fvi_fail(ctx, FV_ERR_CANCELLED, "cancelled while measuring the machine")
                                                 : status;
}
