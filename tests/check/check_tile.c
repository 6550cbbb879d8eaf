/* check_tile.c - every rung of the attention tile against double, inside poisoned buffers; with --bench, its speed.
 *
 *   check_tile [--seed N] [--bench]
 *
 * qk and pv are held to more than an error bound: the contract fixes each element's chain, so its bits are computed apart. */
#include "base/rng.h"
#include "kernel/tile.h"
#include "poison.h"

#include <math.h>

typedef struct rung {
    fvi_tile_ops ops;
    bool fused;
} rung;

static fvi_rng rng;
static int failures;

static void fail(const rung *level, const char *what, int rows, int d, int n) {
    if (failures++ < 40) {
        printf("FAIL %s %s rows %d d %d n %d\n", level->ops.name, what, rows, d, n);
    }
}

static float uniform(void) { return (float)(2 * fvi_rng_unit(&rng) - 1); }

static void expect_intact(const rung *level, const char *what, guard *g, int rows, int d, int n) {
    if (!guard_intact(g)) {
        fail(level, what, rows, d, n);
    }
    guard_free(g);
}

static guard floats(int64_t n, size_t align, bool at_end) { return guard_make((size_t)n * sizeof(float), align, at_end); }

static void fill(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        x[i] = uniform();
    }
}

static float step(const rung *level, float a, float b, float c) {
    if (level->fused) {
        return fmaf(a, b, c);
    }
    float product = a * b;
    return product + c;
}

/* ---- packing ------------------------------------------------------------------------------------------------------- */

/* Rows of random elements, each row at the end of its stride, so that the last one ends where the buffer does. */
static guard random_rows(fv_dtype dtype, int n, int d, int64_t row_bytes) {
    int64_t size = dtype == FV_F32 ? 4 : 2;
    guard g = guard_make(n > 0 ? (size_t)((n - 1) * row_bytes + d * size) : 0, (size_t)size, true);
    for (int j = 0; j < n; j++) {
        for (int c = 0; c < d; c++) {
            unsigned char *at = g.data + j * row_bytes + c * size;
            float f = uniform() * (fvi_rng_below(&rng, 16) == 0 ? 0x1p-15f : 4);
            uint16_t h = dtype == FV_F16 ? fvi_f32_to_f16(f) : fvi_f32_to_bf16(f);
            memcpy(at, dtype == FV_F32 ? (void *)&f : (void *)&h, (size_t)size);
        }
    }
    return g;
}

static float element(const guard *g, fv_dtype dtype, int64_t row_bytes, int j, int c) {
    const unsigned char *at = g->data + j * row_bytes + c * (dtype == FV_F32 ? 4 : 2);
    float f;
    uint16_t h;
    memcpy(&f, at, dtype == FV_F32 ? 4 : 2);
    memcpy(&h, at, 2);
    return dtype == FV_F32 ? f : dtype == FV_F16 ? fvi_f16_to_f32(h) : fvi_bf16_to_f32(h);
}

static void check_pack(const rung *level, fv_dtype dtype, int n, int d) {
    int64_t pad = fvi_tile_pad(d), size = dtype == FV_F32 ? 4 : 2;
    int64_t row_bytes = (d + fvi_rng_below(&rng, 3) * 5) * size;
    guard rows = random_rows(dtype, n, d, row_bytes);
    guard kt = floats((int64_t)d * FVI_LEAF, 64, true), vt = floats(FVI_LEAF * pad, 64, true);
    level->ops.pack_k[dtype](rows.data, row_bytes, n, d, (float *)kt.data);
    level->ops.pack_v[dtype](rows.data, row_bytes, n, d, (float *)vt.data);
    bool k_good = true, v_good = true;
    for (int j = 0; j < FVI_LEAF; j++) {
        for (int c = 0; c < pad; c++) {
            float want = j < n && c < d ? element(&rows, dtype, row_bytes, j, c) : 0;
            k_good = k_good && (c >= d || ((float *)kt.data)[c * FVI_LEAF + j] == want);
            v_good = v_good && ((float *)vt.data)[j * pad + c] == want;
        }
    }
    if (!k_good) {
        fail(level, "pack_k", 0, d, n);
    }
    if (!v_good) {
        fail(level, "pack_v", 0, d, n);
    }
    expect_intact(level, "pack: wrote to its source", &rows, 0, d, n);
    expect_intact(level, "pack_k: wrote outside", &kt, 0, d, n);
    expect_intact(level, "pack_v: wrote outside", &vt, 0, d, n);
}

/* ---- qk and pv ----------------------------------------------------------------------------------------------------- */

static void check_qk(const rung *level, int rows, int d) {
    guard q = floats((int64_t)rows * d, 4, true), kt = floats((int64_t)d * FVI_LEAF, 64, true);
    guard s = floats((int64_t)rows * FVI_LEAF, 64, true);
    float *a = (float *)q.data, *b = (float *)kt.data, *got = (float *)s.data;
    fill(a, (int64_t)rows * d);
    fill(b, (int64_t)d * FVI_LEAF);
    const float scale = 0.37f;
    level->ops.qk(a, rows, d, b, scale, got);
    for (int r = 0; r < rows; r++) {
        for (int j = 0; j < FVI_LEAF; j++) {
            float chain = 0;
            double exact = 0, size = 0;
            for (int c = 0; c < d; c++) {
                chain = step(level, a[r * d + c], b[c * FVI_LEAF + j], chain);
                exact += (double)a[r * d + c] * b[c * FVI_LEAF + j];
                size += fabs((double)a[r * d + c] * b[c * FVI_LEAF + j]);
            }
            chain *= scale;
            exact *= scale;
            float x = got[r * FVI_LEAF + j];
            if (memcmp(&x, &chain, sizeof x) != 0 || !(fabs(x - exact) <= 1.01 * (d + 1) * 0x1p-24 * size)) {
                fail(level, "qk", rows, d, j);
            }
        }
    }
    expect_intact(level, "qk: wrote to q", &q, rows, d, 0);
    expect_intact(level, "qk: wrote to kt", &kt, rows, d, 0);
    expect_intact(level, "qk: wrote outside", &s, rows, d, 0);
}

static void check_pv(const rung *level, int rows, int d) {
    int64_t pad = fvi_tile_pad(d);
    guard p = floats((int64_t)rows * FVI_LEAF, 64, true), vt = floats(FVI_LEAF * pad, 64, true);
    guard out = floats(rows * pad, 64, true), alpha = floats(rows, 4, true);
    float *weight = (float *)p.data, *value = (float *)vt.data, *got = (float *)out.data;
    fill(weight, (int64_t)rows * FVI_LEAF);
    fill(value, FVI_LEAF * pad);
    fill(got, rows * pad);
    fill((float *)alpha.data, rows);
    float *before = malloc(out.size + 1);
    memcpy(before, got, out.size);
    level->ops.pv(weight, rows, (float *)alpha.data, value, (int)pad, got);
    for (int r = 0; r < rows; r++) {
        float scale = ((float *)alpha.data)[r];
        for (int64_t c = 0; c < pad; c++) {
            float chain = before[r * pad + c] * scale;
            double exact = (double)before[r * pad + c] * scale, size = fabs(exact);
            for (int j = 0; j < FVI_LEAF; j++) {
                chain = step(level, weight[r * FVI_LEAF + j], value[j * pad + c], chain);
                exact += (double)weight[r * FVI_LEAF + j] * value[j * pad + c];
                size += fabs((double)weight[r * FVI_LEAF + j] * value[j * pad + c]);
            }
            float x = got[r * pad + c];
            if (memcmp(&x, &chain, sizeof x) != 0 || !(fabs(x - exact) <= 1.01 * 66 * 0x1p-24 * size)) {
                fail(level, "pv", rows, d, (int)c);
            }
        }
    }
    free(before);
    expect_intact(level, "pv: wrote to p", &p, rows, d, 0);
    expect_intact(level, "pv: wrote to vt", &vt, rows, d, 0);
    expect_intact(level, "pv: wrote to alpha", &alpha, rows, d, 0);
    expect_intact(level, "pv: wrote outside", &out, rows, d, 0);
}

/* ---- soften -------------------------------------------------------------------------------------------------------- */

/* x is what is left after the subtraction, which rounds. */
static bool near_exp2(float got, float x) {
    double want = exp2((double)x);
    return want < 0x1p-126 ? got >= 0 && got <= 0x1.000002p-126 : fabs(got - want) <= want * 0x1.83p-23; /* 2^-22.4 */
}

static void check_soften_row(const rung *level, const float *x, const float *got, float m0, float sum0, const float *after,
                             int rows, int r) {
    float top = m0;
    for (int j = 0; j < FVI_LEAF; j++) {
        top = x[j] > top ? x[j] : top;
    }
    float ref = isinf(top) ? 0 : top;
    double sum = 0;
    bool good = after[0] == top && near_exp2(after[2], m0 - ref) && (m0 != ref || after[2] == 1);
    for (int j = 0; j < FVI_LEAF; j++) {
        good = good && near_exp2(got[j], x[j] - ref) && (x[j] != ref || got[j] == 1) && (!isinf(x[j]) || got[j] == 0);
        sum += got[j];
    }
    sum += (double)sum0 * after[2];
    if (!good || !(fabs(after[1] - sum) <= sum * 10 * 0x1p-24)) {
        fail(level, "soften", rows, r, 0);
    }
}

static void check_soften(const rung *level, int rows) {
    guard s = floats((int64_t)rows * FVI_LEAF, 64, true), m = floats(rows, 4, true), sum = floats(rows, 4, true);
    guard alpha = floats(rows, 4, true);
    float *x = (float *)s.data;
    float *before = malloc(s.size + 1), *m0 = malloc(m.size + 1), *sum0 = malloc(sum.size + 1);
    for (int r = 0; r < rows; r++) {
        float spread = r % 3 == 0 ? 100 : r % 3 == 1 ? 3 : 0, hide = fvi_rng_below(&rng, 4) == 0 ? 1.0f : (float)(r % 2) * 0.3f;
        for (int j = 0; j < FVI_LEAF; j++) {
            x[r * FVI_LEAF + j] = fvi_rng_unit(&rng) < (double)hide ? -INFINITY : uniform() * spread;
        }
        m0[r] = ((float *)m.data)[r] = fvi_rng_below(&rng, 3) == 0 ? -INFINITY : uniform() * 50;
        sum0[r] = ((float *)sum.data)[r] = isinf(m0[r]) ? 0 : (float)fvi_rng_unit(&rng) * 1000;
    }
    memcpy(before, x, s.size);
    level->ops.soften(x, rows, (float *)m.data, (float *)sum.data, (float *)alpha.data);
    for (int r = 0; r < rows; r++) {
        float after[3] = {((float *)m.data)[r], ((float *)sum.data)[r], ((float *)alpha.data)[r]};
        check_soften_row(level, before + r * FVI_LEAF, x + r * FVI_LEAF, m0[r], sum0[r], after, rows, r);
    }
    free(before);
    free(m0);
    free(sum0);
    expect_intact(level, "soften: wrote outside s", &s, rows, 0, 0);
    expect_intact(level, "soften: wrote outside m", &m, rows, 0, 0);
    expect_intact(level, "soften: wrote outside sum", &sum, rows, 0, 0);
    expect_intact(level, "soften: wrote outside alpha", &alpha, rows, 0, 0);
}

static void check_soften_specials(const rung *level) {
    guard s = floats(3 * FVI_LEAF, 64, false);
    float *x = (float *)s.data, m[3] = {2, -INFINITY, 2}, sum[3] = {1, 0, 1}, alpha[3];
    fill(x, 3 * FVI_LEAF);
    x[17] = NAN;
    for (int j = 0; j < FVI_LEAF; j++) {
        x[FVI_LEAF + j] = NAN;
    }
    x[2 * FVI_LEAF + 5] = INFINITY;
    level->ops.soften(x, 3, m, sum, alpha);
    bool good =
        isnan(x[17]) && isnan(sum[0]) && isnan(x[FVI_LEAF]) && isnan(sum[1]) && isnan(x[2 * FVI_LEAF + 5]) && isnan(sum[2]);
    if (!good) {
        fail(level, "soften: a NaN or +inf was lost", 3, 0, 0);
    }
    guard_free(&s);
}

/* The largest relative error of a weight over [-87.3, 0], and nothing above 2^-126 below that. */
static void check_exp_range(const rung *level) {
    enum { ROWS = 192, POINTS = 1 << 21 };
    guard s = floats(ROWS * FVI_LEAF, 64, false);
    static float m[ROWS], sum[ROWS], alpha[ROWS], kept[ROWS * FVI_LEAF];
    float *x = (float *)s.data;
    double worst = 0, worst_at = 0;
    for (int64_t done = 0; done < POINTS; done += ROWS * (FVI_LEAF - 1)) {
        for (int i = 0; i < ROWS * FVI_LEAF; i++) {
            float t = (float)fvi_rng_unit(&rng);
            x[i] = i % FVI_LEAF == 0 ? 0.0f : i % 3 == 0 ? -t * 104 : i % 3 == 1 ? -t : -expf(-30 * t);
        }
        for (int r = 0; r < ROWS; r++) {
            m[r] = -INFINITY;
            sum[r] = 0;
        }
        memcpy(kept, x, s.size);
        level->ops.soften(x, ROWS, m, sum, alpha);
        for (int i = 0; i < ROWS * FVI_LEAF; i++) {
            double want = exp2((double)kept[i]), error = fabs(x[i] - want) / want;
            if (!near_exp2(x[i], kept[i])) {
                fail(level, "exp", 0, 0, 0);
            }
            if (want >= 0x1.2p-126 && error > worst) {
                worst = error;
                worst_at = (double)kept[i];
            }
        }
    }
    printf("%-7s exp2: largest relative error %.3g = 2^%.2f at %.6g (bound 2^-22.4)\n", level->ops.name, worst, log2(worst),
           worst_at);
    guard_free(&s);
}

/* ---- a row's bits do not depend on its neighbours ------------------------------------------------------------------ */

enum { MANY = 192 };

typedef struct chain {
    float s[MANY * FVI_LEAF], m[MANY], sum[MANY], alpha[MANY], out[MANY * 256];
} chain;

static void run_chain(const rung *level, const float *q, int from, int rows, int d, const float *kt, const float *vt, chain *c) {
    level->ops.qk(q + (int64_t)from * d, rows, d, kt, 1, c->s + from * FVI_LEAF);
    level->ops.soften(c->s + from * FVI_LEAF, rows, c->m + from, c->sum + from, c->alpha + from);
    level->ops.pv(c->s + from * FVI_LEAF, rows, c->alpha + from, vt, (int)fvi_tile_pad(d), c->out + from * fvi_tile_pad(d));
}

static void check_independence(const rung *level, int d) {
    static chain whole __attribute__((aligned(64))), part __attribute__((aligned(64))), start __attribute__((aligned(64)));
    guard q = floats(MANY * d, 4, true), kt = floats(d * FVI_LEAF, 64, true), vt = floats(FVI_LEAF * fvi_tile_pad(d), 64, true);
    fill((float *)q.data, MANY * d);
    fill((float *)kt.data, d * FVI_LEAF);
    fill((float *)vt.data, FVI_LEAF * fvi_tile_pad(d));
    fill((float *)&start, sizeof start / sizeof(float));
    whole = start;
    run_chain(level, (float *)q.data, 0, MANY, d, (float *)kt.data, (float *)vt.data, &whole);
    static const int pieces[] = {1, 2, 3, 4, 5, 6, 7, 13, 16, 17, 31, 64, 65};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        part = start;
        for (int from = 0; from < MANY; from += pieces[i]) {
            int rows = (int)fvi_min(pieces[i], MANY - from);
            run_chain(level, (float *)q.data, from, rows, d, (float *)kt.data, (float *)vt.data, &part);
        }
        if (memcmp(&whole, &part, sizeof whole) != 0) {
            fail(level, "rows in pieces have other bits", pieces[i], d, 0);
        }
    }
    guard_free(&q);
    guard_free(&kt);
    guard_free(&vt);
}

/* ---- all of one rung ----------------------------------------------------------------------------------------------- */

static const int ROW_COUNTS[] = {0, 1, 2, 3, 4, 5, 6, 7, 12, 63, 64, 65, 192};
static const int WIDTHS[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 80, 96, 100, 112, 128, 144, 192, 208, 255, 256};
static const int FAST_WIDTHS[] = {32, 64, 80, 96, 128, 192, 256};
static const int KEYS[] = {0, 1, 2, 15, 16, 17, 33, 48, 63, 64};
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

static void check_rung(const rung *level) {
    for (int w = 0; w < COUNT(WIDTHS); w++) {
        for (int r = 0; r < COUNT(ROW_COUNTS); r++) {
            check_qk(level, ROW_COUNTS[r], WIDTHS[w]);
            check_pv(level, ROW_COUNTS[r], WIDTHS[w]);
        }
        for (int n = 0; n < COUNT(KEYS); n++) {
            for (int dtype = FV_F32; dtype <= FV_BF16; dtype++) {
                check_pack(level, (fv_dtype)dtype, KEYS[n], WIDTHS[w]);
            }
        }
        check_independence(level, WIDTHS[w]);
    }
    for (int rows = 0; rows <= 70; rows++) {
        check_soften(level, rows);
    }
    check_soften(level, 192);
    check_soften_specials(level);
    check_exp_range(level);
}

/* ---- speed --------------------------------------------------------------------------------------------------------- */

typedef struct bench {
    const rung *level;
    int rows, d;
    const unsigned char *raw;
    float *q, *kt, *vt, *s, *out, *m, *sum, *alpha;
} bench;

static void bench_qk(bench *b) { b->level->ops.qk(b->q, b->rows, b->d, b->kt, 1, b->s); }
static void bench_pv(bench *b) { b->level->ops.pv(b->s, b->rows, b->alpha, b->vt, (int)fvi_tile_pad(b->d), b->out); }
static void bench_soften(bench *b) { b->level->ops.soften(b->s, b->rows, b->m, b->sum, b->alpha); }
static void bench_pack_k(bench *b) { b->level->ops.pack_k[FV_F16](b->raw, b->d * 2, FVI_LEAF, b->d, b->kt); }
static void bench_pack_v(bench *b) { b->level->ops.pack_v[FV_F16](b->raw, b->d * 2, FVI_LEAF, b->d, b->vt); }

/* Seconds of one call: the best of many short spells, since other programs may be about. */
static double seconds_of(void (*work)(bench *), bench *b) {
    double best = 1e9;
    for (int spell = 0; spell < 200; spell++) {
        double t = fvi_seconds();
        for (int i = 0; i < 20; i++) {
            work(b);
        }
        best = fmin(best, (fvi_seconds() - t) / 20);
    }
    return best;
}

static void bench_width(const rung *level, int d, const fv_ceilings *machine) {
    bench b = {.level = level, .rows = 192, .d = d};
    int64_t pad = fvi_tile_pad(d), total = (int64_t)192 * d + 64 * d + 64 * pad + 192 * 64 + 192 * pad + 64 * d;
    float *base = aligned_alloc(64, (size_t)fvi_round_up((total + 3 * 192) * 4, 64));
    fill(base, total + 3 * 192);
    b.q = base;
    b.kt = b.q + 192 * d;
    b.vt = b.kt + 64 * d;
    b.s = b.vt + 64 * pad;
    b.out = b.s + 192 * 64;
    b.m = b.out + 192 * pad;
    b.sum = b.m + 192;
    b.alpha = b.sum + 192;
    float *raw = b.alpha + 192;
    memset(raw, 0x11, (size_t)(64 * d * 2));
    b.raw = (unsigned char *)raw;
    double qk = seconds_of(bench_qk, &b), soften = seconds_of(bench_soften, &b);
    for (int i = 0; i < 192 * 64; i++) {
        b.s[i] = 0.5f;
    }
    fill(b.m, 3 * 192);
    double pv = seconds_of(bench_pv, &b);
    double pack_k = seconds_of(bench_pack_k, &b), pack_v = seconds_of(bench_pack_v, &b);
    double work = 2.0 * 192 * 64, hz = machine->clock_hz;
    printf("%-7s d %3d: qk %6.1f GFLOP/s = %.0f%% of the ceiling, pv %6.1f = %.0f%%, soften %.2f cycles per 16 scores, "
           "pack_k f16 %.0f cycles, pack_v f16 %.0f cycles\n",
           level->ops.name, d, work * d / qk * 1e-9, 100 * work * d / qk / machine->fma_f32, work * (double)pad / pv * 1e-9,
           100 * work * (double)pad / pv / machine->fma_f32, soften * hz / (192 * 64 / 16), pack_k * hz, pack_v * hz);
    free(base);
}

static void bench_rung(const rung *level, fv_level id) {
    fv_context_options options = {1, id, NULL};
    fv_context *ctx;
    fv_ceilings machine;
    if (fv_context_create(&options, &ctx) != FV_OK || fv_measure_ceilings(ctx, &machine) != FV_OK) {
        printf("no ceilings\n");
        exit(1);
    }
    printf("%-7s ceilings of one thread: fma %.1f GFLOP/s, bf16 %.1f GFLOP/s, int8 %.1f Gop/s, read %.1f GB/s, clock %.2f GHz\n",
           level->ops.name, machine.fma_f32 * 1e-9, machine.dot_bf16 * 1e-9, machine.dot_int8 * 1e-9, machine.read * 1e-9,
           machine.clock_hz * 1e-9);
    for (int w = 0; w < COUNT(FAST_WIDTHS); w++) {
        bench_width(level, FAST_WIDTHS[w], &machine);
    }
    fv_context_destroy(ctx);
}

int main(int argc, char **argv) {
    uint64_t seed = 1;
    bool speed = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 0);
        }
        speed = speed || strcmp(argv[i], "--bench") == 0;
    }
    printf("seed %llu\n", (unsigned long long)seed);
    rng.state = seed;
    rung levels[3];
    int n = 0;
    fvi_tile_c(&levels[n].ops);
    levels[n++].fused = false;
#if defined(__x86_64__)
    fvi_cpu cpu = fvi_cpu_detect();
    if (cpu.avx2) {
        fvi_tile_avx2(&levels[n].ops);
        levels[n++].fused = true;
    }
    if (cpu.avx512) {
        fvi_tile_avx512(&levels[n].ops);
        levels[n++].fused = true;
    }
#endif
    for (int i = 0; i < n && speed; i++) {
        bench_rung(&levels[i], (fv_level)(FV_LEVEL_C + i));
    }
    for (int i = 0; i < n && !speed; i++) {
        check_rung(&levels[i]);
    }
    if (!speed) {
        printf("%d failures\n", failures);
    }
    return failures > 0;
}
