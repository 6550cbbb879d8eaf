/* check_decode_quant.c - every rung of the products of generated tokens with quantised rows against double, inside poisoned
 * buffers; with --bench, its speed.
 *
 *   check_decode_quant [--seed N] [--bench] */
#include "base/rng.h"
#include "kernel/decode.h"
#include "kernel/quant.h"
#include "poison.h"

#include <math.h>

enum { MANY = 9, WIDEST = 256 };

typedef struct rung {
    const char *name;
    fvi_decode_ops ops;
} rung;

static fvi_rng rng;
static int failures;

static void fail(const rung *level, const char *what, fv_dtype dtype, int rows, int d, int n) {
    if (failures++ < 40) {
        printf("FAIL %s %s %s rows %d d %d n %d\n", level->name, what, fv_dtype_name(dtype), rows, d, n);
    }
}

static float uniform(void) { return (float)(2 * fvi_rng_unit(&rng) - 1); }

/* n rows of any integers, those that our own rounding never gives too, and the scales of those keys; both end where their
 * buffers do. What follows the last key's scale in a block that is not the last is NaN. */
typedef struct leaf {
    guard data, scale;
    fvi_rows rows;
} leaf;

static leaf random_leaf(fv_dtype dtype, int d, int n) {
    leaf l = {.rows = {.row_bytes = fvi_quant_row_bytes(dtype, d), .n = n}};
    size_t bytes = (size_t)(n * l.rows.row_bytes), scales = (size_t)((d / FVI_QUANT_BLOCK - 1) * FVI_LEAF + n);
    l.data = guard_make(bytes, 64, true);
    l.scale = guard_make(2 * scales, 2, true);
    for (size_t i = 0; i < bytes; i++) {
        l.data.data[i] = (unsigned char)fvi_rng_next(&rng);
    }
    uint16_t *scale = (uint16_t *)l.scale.data;
    for (size_t i = 0; i < scales; i++) {
        scale[i] = i % FVI_LEAF < (size_t)n ? fvi_f32_to_f16(uniform() * 0.01f) : 0xffff;
    }
    l.rows.data = l.data.data;
    l.rows.scale = scale;
    l.rows.next = fvi_rng_below(&rng, 2) ? l.data.data + bytes : NULL; /* beyond the buffer: asking may not fault */
    return l;
}

static double element(const leaf *l, fv_dtype dtype, int j, int c) {
    const unsigned char *row = l->data.data + j * l->rows.row_bytes;
    int block = c / FVI_QUANT_BLOCK, at = c % FVI_QUANT_BLOCK;
    double scale = (double)fvi_f16_to_f32(l->rows.scale[block * FVI_LEAF + j]);
    if (dtype == FV_Q8_0) {
        return scale * (double)(int8_t)row[c];
    }
    unsigned char byte = row[block * 16 + at % 16];
    return scale * ((at < 16 ? byte & 15 : byte >> 4) - 8);
}

static void free_intact(const rung *level, guard *g, const char *what, fv_dtype dtype, int rows, int d, int n) {
    if (!guard_intact(g)) {
        fail(level, what, dtype, rows, d, n);
    }
    guard_free(g);
}

/* Q as the kernels are to round it. */
static void round_query(const float *x, int d, double *out) {
    for (int c = 0; c < d; c += FVI_QUANT_BLOCK) {
        float most = 0;
        for (int i = c; i < c + FVI_QUANT_BLOCK; i++) {
            most = fmaxf(most, fabsf(x[i]));
        }
        for (int i = c; i < c + FVI_QUANT_BLOCK; i++) {
            out[i] = most > 0 ? (double)rintf(x[i] * (127.0f / most)) * (double)(most / 127.0f) : 0;
        }
    }
}

static void check_qk(const rung *level, fv_dtype dtype, int rows, int d, int n) {
    const fvi_decode_k *k = &level->ops.k[dtype];
    const float scale = 0.37f;
    int64_t q_bytes = k->q_bytes(d);
    leaf l = random_leaf(dtype, d, n);
    guard qt = guard_make((size_t)(rows * q_bytes), 64, true), q = guard_make((size_t)(rows * d * 4), 4, true);
    guard s = guard_make((size_t)(rows * FVI_LEAF * 4), 64, true), alone = guard_make(FVI_LEAF * 4, 64, true);
    float *x = (float *)q.data, *got = (float *)s.data;
    int none = (int)fvi_rng_below(&rng, 3 * MANY); /* a row of zeros; one with a NaN */
    for (int r = 0; r < rows; r++) {
        for (int c = 0; c < d; c++) {
            x[r * d + c] = r == none ? 0 : uniform() * (c % 5 == 0 ? 8 : 1);
        }
        x[r * d + d / 2] = r == none - MANY ? NAN : x[r * d + d / 2];
        k->pack_q(x + r * d, d, qt.data + r * q_bytes);
    }
    k->qk(qt.data, rows, d, &l.rows, scale, got);
    for (int r = 0; r < rows; r++) {
        double rounded[WIDEST];
        round_query(x + r * d, d, rounded);
        k->qk(qt.data + r * q_bytes, 1, d, &l.rows, scale, (float *)alone.data);
        if (memcmp(alone.data, got + r * FVI_LEAF, FVI_LEAF * 4) != 0) {
            fail(level, "qk: a row depends on its company", dtype, rows, d, n);
        }
        for (int j = 0; j < FVI_LEAF; j++) {
            double exact = 0, terms = 0;
            for (int c = 0; c < d && j < n; c++) {
                double product = rounded[c] * element(&l, dtype, j, c) * (double)scale;
                exact += product;
                terms += fabs(product);
            }
            double error = fabs((double)got[r * FVI_LEAF + j] - exact);
            bool good = r == none - MANY && j < n ? isnan(got[r * FVI_LEAF + j]) : error <= (d / 4 + 8) * 0x1p-24 * terms;
            if (!good) {
                fail(level, "qk", dtype, rows, d, n);
            }
        }
    }
    free_intact(level, &l.data, "qk: wrote to K", dtype, rows, d, n);
    free_intact(level, &l.scale, "qk: wrote to scales", dtype, rows, d, n);
    free_intact(level, &qt, "pack_q: wrote outside", dtype, rows, d, n);
    free_intact(level, &s, "qk: wrote outside", dtype, rows, d, n);
    free_intact(level, &q, "pack_q: wrote to q", dtype, rows, d, n);
    guard_free(&alone);
}

/* Weights times scales, as a rung of bf16 dot products rounds them. */
static double rounded(const char *name, float x) {
    return strstr(name, "bf16") != NULL ? (double)fvi_bf16_to_f32(fvi_f32_to_bf16(x)) : (double)x;
}

static void check_pv(const rung *level, fv_dtype dtype, int rows, int d, int n) {
    const fvi_decode_v *v = &level->ops.v[dtype];
    int d_pad = (int)fvi_tile_pad(d);
    leaf l = random_leaf(dtype, d, n);
    guard p = guard_make((size_t)(rows * FVI_LEAF * 4), 64, true), alpha = guard_make((size_t)rows * 4, 4, true);
    guard out = guard_make((size_t)(rows * d_pad * 4), 64, true);
    float weight[MANY][FVI_LEAF], before[MANY][WIDEST], *got = (float *)out.data, *p_row = (float *)p.data;
    float lone_p[FVI_LEAF] __attribute__((aligned(64))), lone[WIDEST] __attribute__((aligned(64)));
    for (int r = 0; r < rows; r++) {
        ((float *)alpha.data)[r] = uniform();
        for (int j = 0; j < FVI_LEAF; j++) {
            weight[r][j] = p_row[r * FVI_LEAF + j] = j < n ? fabsf(uniform()) : 0;
        }
        for (int c = 0; c < d_pad; c++) {
            before[r][c] = got[r * d_pad + c] = c < d ? uniform() : 0;
        }
    }
    v->pv(p_row, rows, (float *)alpha.data, &l.rows, d, d_pad, got);
    for (int r = 0; r < rows; r++) {
        float a = ((float *)alpha.data)[r];
        memcpy(lone_p, weight[r], sizeof lone_p);
        memcpy(lone, before[r], (size_t)d_pad * 4);
        v->pv(lone_p, 1, &a, &l.rows, d, d_pad, lone);
        if (memcmp(lone, got + r * d_pad, (size_t)d * 4) != 0) {
            fail(level, "pv: a row depends on its company", dtype, rows, d, n);
        }
        for (int c = 0; c < d; c++) {
            double exact = (double)before[r][c] * (double)a, terms = fabs(exact);
            for (int j = 0; j < n; j++) {
                double by = (double)fvi_f16_to_f32(l.rows.scale[c / FVI_QUANT_BLOCK * FVI_LEAF + j]);
                double product = by == 0 ? 0 : rounded(v->name, weight[r][j] * (float)by) * (element(&l, dtype, j, c) / by);
                exact += product;
                terms += fabs(product);
            }
            if (!(fabs((double)got[r * d_pad + c] - exact) <= (n + 6) * 0x1p-24 * terms)) {
                fail(level, "pv", dtype, rows, d, n);
            }
        }
    }
    free_intact(level, &l.data, "pv: wrote to V", dtype, rows, d, n);
    free_intact(level, &l.scale, "pv: wrote to scales", dtype, rows, d, n);
    free_intact(level, &p, "pv: wrote outside p", dtype, rows, d, n);
    free_intact(level, &out, "pv: wrote outside", dtype, rows, d, n);
    free_intact(level, &alpha, "pv: wrote to alpha", dtype, rows, d, n);
}

static void check_rung(const rung *level) {
    static const int keys[] = {1, 2, 15, 16, 17, 31, 32, 33, 47, 63, 64};
    for (int d = 32; d <= WIDEST; d += 32) {
        for (size_t n = 0; n < sizeof keys / sizeof *keys; n++) {
            for (int t = 0; t < 6; t++) {
                fv_dtype dtype = t % 2 == 0 ? FV_Q8_0 : FV_Q4_0;
                int rows = 1 + (int)(((size_t)d / 32 + n * 5 + (size_t)t / 2) % MANY);
                check_qk(level, dtype, rows, d, keys[n]);
                check_pv(level, dtype, rows, d, keys[n]);
            }
        }
    }
}

/* ---- speed: a leaf in the first cache over and over, and pages one after the other from memory ---------------------- */

enum { HEADER = 320 };

typedef struct bench {
    const rung *level;
    fv_dtype dtype;
    int rows, d;
    unsigned char *pages;
    int64_t leaves;
    float *q, *s, *out, alpha[MANY];
} bench;

static int64_t side_bytes(fv_dtype dtype, int d) { return FVI_LEAF * (int64_t)fv_dtype_bytes(dtype, d); }

static double run_leaves(bench *b, double *qk, double *pv) {
    int64_t side = side_bytes(b->dtype, b->d), page = HEADER + 2 * side;
    int64_t row_bytes = fvi_quant_row_bytes(b->dtype, b->d);
    double start = fvi_seconds(), t = start;
    for (int64_t i = 0; i < b->leaves; i++) {
        const unsigned char *at = b->pages + i * page + HEADER;
        fvi_rows k = {.data = at, .row_bytes = row_bytes, .n = FVI_LEAF}, v = k;
        k.scale = (const uint16_t *)(at + FVI_LEAF * row_bytes);
        v.data = at + side;
        v.scale = (const uint16_t *)(at + side + FVI_LEAF * row_bytes);
        k.next = at + page;
        v.next = at + side + page;
        b->level->ops.k[b->dtype].qk(b->q, b->rows, b->d, &k, 1, b->s);
        if (qk != NULL) {
            double now = fvi_seconds();
            *qk = fmin(*qk, now - t);
            t = now;
        }
        b->level->ops.v[b->dtype].pv(b->s, b->rows, b->alpha, &v, b->d, (int)fvi_tile_pad(b->d), b->out);
        if (pv != NULL) {
            double now = fvi_seconds();
            *pv = fmin(*pv, now - t);
            t = now;
        }
    }
    return fvi_seconds() - start;
}

static void bench_case(const rung *level, fv_dtype dtype, int rows, int d, double clock) {
    int64_t page = HEADER + 2 * side_bytes(dtype, d);
    double least[2] = {INFINITY, INFINITY}, qk = INFINITY, pv = INFINITY;
    for (int i = 0; i < 2; i++) {
        bench b = {.level = level, .dtype = dtype, .rows = rows, .d = d, .leaves = i == 0 ? 1 : (256 << 20) / page};
        size_t bytes = (size_t)((b.leaves + 1) * page + 63) / 64 * 64;
        b.pages = aligned_alloc(64, bytes);
        b.q = aligned_alloc(64, (size_t)(MANY * level->ops.k[dtype].q_bytes(d)));
        b.s = aligned_alloc(64, MANY * FVI_LEAF * 4);
        b.out = aligned_alloc(64, (size_t)MANY * WIDEST * 4);
        float x[WIDEST];
        for (int c = 0; c < d; c++) {
            x[c] = uniform();
        }
        for (int r = 0; r < rows; r++) {
            level->ops.k[dtype].pack_q(x, d, (char *)b.q + r * level->ops.k[dtype].q_bytes(d));
        }
        memset(b.pages, 0x15, bytes); /* integers of 21, scales of a thousandth */
        memset(b.out, 0, (size_t)MANY * WIDEST * 4);
        for (int run = 0; run < (i == 0 ? 3000 : 3); run++) {
            least[i] = fmin(least[i], run_leaves(&b, i == 0 ? &qk : NULL, i == 0 ? &pv : NULL) / (double)b.leaves);
        }
        free(b.pages);
        free(b.q);
        free(b.s);
        free(b.out);
    }
    printf("%-10s %-5s d %3d rows %d: a leaf in cache %6.0f cycles (qk %5.0f, pv %5.0f); from memory %6.0f, %5.1f GB/s\n",
           level->name, fv_dtype_name(dtype), d, rows, least[0] * clock, qk * clock, pv * clock, least[1] * clock,
           2.0 * (double)side_bytes(dtype, d) / least[1] * 1e-9);
}

static void bench_rung(const rung *level) {
    fv_context_options options = {1, FV_LEVEL_BEST, NULL};
    fv_context *ctx;
    fv_ceilings machine;
    if (fv_context_create(&options, &ctx) != FV_OK || fv_measure_ceilings(ctx, &machine) != FV_OK) {
        printf("no ceilings\n");
        exit(1);
    }
    printf("one thread: read %.1f GB/s, clock %.2f GHz\n", machine.read * 1e-9, machine.clock_hz * 1e-9);
    static const int shapes[][2] = {{4, 128}, {4, 64}, {1, 128}, {2, 128}, {3, 64}, {8, 128}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        bench_case(level, FV_Q8_0, shapes[i][0], shapes[i][1], machine.clock_hz);
        bench_case(level, FV_Q4_0, shapes[i][0], shapes[i][1], machine.clock_hz);
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
    rung levels[4] = {{.name = "c"}, {.name = "avx2"}, {.name = "avx512"}, {.name = "avx512vnni"}};
    fvi_cpu cpu = fvi_cpu_detect();
    const fvi_cpu upto[4] = {{0}, {.avx2 = cpu.avx2}, {.avx2 = true, .avx512 = cpu.avx512}, cpu};
    int n = !cpu.avx2 ? 1 : !cpu.avx512 ? 2 : !cpu.avx512_vnni ? 3 : 4;
    for (int i = 0; i < n; i++) {
        fvi_decode_init(&upto[i], &levels[i].ops);
        if (!speed) {
            check_rung(&levels[i]);
        } else if (i == n - 1 || i == 1) {
            bench_rung(&levels[i]);
        }
    }
    if (!speed) {
        printf("%d levels, %d failures\n", n, failures);
    }
    return failures > 0;
}
