/* check_decode.c - every rung of the products of generated tokens against double, inside poisoned buffers; with --bench, its
 * speed.
 *
 *   check_decode [--seed N] [--bench] [--level NAME] */
#include "base/rng.h"
#include "kernel/decode.h"
#include "poison.h"

#include <math.h>

enum { MANY = 9, TYPES = 3 };

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
static int64_t size_of(fv_dtype dtype) { return dtype == FV_F32 ? 4 : 2; }

static float get(const unsigned char *at, fv_dtype dtype) {
    float f;
    uint16_t h;
    memcpy(dtype == FV_F32 ? (void *)&f : (void *)&h, at, (size_t)size_of(dtype));
    return dtype == FV_F32 ? f : dtype == FV_F16 ? fvi_f16_to_f32(h) : fvi_bf16_to_f32(h);
}

static void put(unsigned char *at, fv_dtype dtype, float f) {
    uint16_t h = dtype == FV_F16 ? fvi_f32_to_f16(f) : fvi_f32_to_bf16(f);
    memcpy(at, dtype == FV_F32 ? (void *)&f : (void *)&h, (size_t)size_of(dtype));
}

static bool together; /* rows have no gaps; else 0 to 2 elements, NaN */

/* The last row ends where the buffer does. */
static guard random_rows(fv_dtype dtype, int d, int n, fvi_rows *out) {
    int64_t row_bytes = (d + (together ? 0 : fvi_rng_below(&rng, 3))) * size_of(dtype);
    guard g = guard_make((size_t)((n - 1) * row_bytes + d * size_of(dtype)), (size_t)size_of(dtype), true);
    for (int j = 0; j < n; j++) {
        for (int c = 0; c < d; c++) {
            put(g.data + j * row_bytes + c * size_of(dtype), dtype, uniform());
        }
    }
    *out = (fvi_rows){.data = g.data, .row_bytes = row_bytes, .n = n};
    out->next = fvi_rng_below(&rng, 2) ? g.data + n * row_bytes : NULL; /* beyond the buffer: asking may not fault */
    return g;
}

static float at(const fvi_rows *rows, fv_dtype dtype, int j, int c) {
    return get((const unsigned char *)rows->data + j * rows->row_bytes + c * size_of(dtype), dtype);
}

static float rounded(const char *name, float x) { return strstr(name, "bf16") ? fvi_bf16_to_f32(fvi_f32_to_bf16(x)) : x; }

static void free_intact(const rung *level, guard *g, const char *what, fv_dtype dtype, int rows, int d, int n) {
    if (!guard_intact(g)) {
        fail(level, what, dtype, rows, d, n);
    }
    guard_free(g);
}

static void check_qk(const rung *level, fv_dtype dtype, int rows, int d, int n) {
    const fvi_decode_k *k = &level->ops.k[dtype];
    const float scale = 0.37f;
    int64_t q_bytes = k->q_bytes(d);
    fvi_rows keys;
    guard g = random_rows(dtype, d, n, &keys), qt = guard_make((size_t)(rows * q_bytes), 64, true);
    guard s = guard_make((size_t)(rows * FVI_LEAF * 4), 64, true), alone = guard_make(FVI_LEAF * 4, 64, true);
    guard q = guard_make((size_t)(rows * d * 4), 4, true);
    float *x = (float *)q.data, *got = (float *)s.data;
    for (int r = 0; r < rows; r++) {
        for (int c = 0; c < d; c++) {
            x[r * d + c] = uniform();
        }
        k->pack_q(x + r * d, d, qt.data + r * q_bytes);
    }
    k->qk(qt.data, rows, d, &keys, scale, got);
    for (int r = 0; r < rows; r++) {
        k->qk(qt.data + r * q_bytes, 1, d, &keys, scale, (float *)alone.data);
        if (memcmp(alone.data, got + r * FVI_LEAF, FVI_LEAF * 4) != 0) {
            fail(level, "qk: a row depends on its company", dtype, rows, d, n);
        }
        for (int j = 0; j < FVI_LEAF; j++) {
            double exact = 0, terms = 0;
            for (int c = 0; c < d && j < n; c++) {
                double product = (double)rounded(k->name, x[r * d + c]) * (double)at(&keys, dtype, j, c) * (double)scale;
                exact += product;
                terms += fabs(product);
            }
            if (!(fabs((double)got[r * FVI_LEAF + j] - exact) <= (d + 6) * 0x1p-24 * terms)) {
                fail(level, "qk", dtype, rows, d, n);
            }
        }
    }
    free_intact(level, &g, "qk: wrote to K", dtype, rows, d, n);
    free_intact(level, &qt, "pack_q: wrote outside", dtype, rows, d, n);
    free_intact(level, &s, "qk: wrote outside", dtype, rows, d, n);
    free_intact(level, &q, "pack_q: wrote to q", dtype, rows, d, n);
    guard_free(&alone);
}

static void check_pv(const rung *level, fv_dtype dtype, int rows, int d, int n) {
    const fvi_decode_v *v = &level->ops.v[dtype];
    int d_pad = (int)fvi_tile_pad(d);
    fvi_rows values;
    guard g = random_rows(dtype, d, n, &values), p = guard_make((size_t)(rows * FVI_LEAF * 4), 64, true);
    guard out = guard_make((size_t)(rows * d_pad * 4), 64, true), alpha = guard_make((size_t)rows * 4, 4, true);
    float weight[MANY][FVI_LEAF], before[MANY][256], *got = (float *)out.data, *p_row = (float *)p.data;
    float lone_p[FVI_LEAF] __attribute__((aligned(64))), lone[256] __attribute__((aligned(64)));
    for (int r = 0; r < rows; r++) {
        ((float *)alpha.data)[r] = uniform();
        for (int j = 0; j < FVI_LEAF; j++) {
            weight[r][j] = p_row[r * FVI_LEAF + j] = j < n ? fabsf(uniform()) : 0;
        }
        for (int c = 0; c < d_pad; c++) {
            before[r][c] = got[r * d_pad + c] = c < d ? uniform() : 0;
        }
    }
    v->pv(p_row, rows, (float *)alpha.data, &values, d, d_pad, got);
    for (int r = 0; r < rows; r++) {
        float a = ((float *)alpha.data)[r];
        memcpy(lone_p, weight[r], sizeof lone_p);
        memcpy(lone, before[r], (size_t)d_pad * 4);
        v->pv(lone_p, 1, &a, &values, d, d_pad, lone);
        if (memcmp(lone, got + r * d_pad, (size_t)d * 4) != 0) {
            fail(level, "pv: a row depends on its company", dtype, rows, d, n);
        }
        for (int c = 0; c < d_pad; c++) {
            double exact = (double)before[r][c] * (double)a, terms = fabs(exact);
            for (int j = 0; j < n && c < d; j++) {
                double product = (double)rounded(v->name, weight[r][j]) * (double)at(&values, dtype, j, c);
                exact += product;
                terms += fabs(product);
            }
            if (!(fabs((double)got[r * d_pad + c] - exact) <= (n + 4) * 0x1p-24 * terms)) {
                fail(level, "pv", dtype, rows, d, n);
            }
        }
    }
    free_intact(level, &g, "pv: wrote to V", dtype, rows, d, n);
    free_intact(level, &p, "pv: wrote outside p", dtype, rows, d, n);
    free_intact(level, &out, "pv: wrote outside", dtype, rows, d, n);
    free_intact(level, &alpha, "pv: wrote to alpha", dtype, rows, d, n);
}

/* Rows that lie apart give the bits of the same rows side by side. */
static void check_apart(const rung *level, fv_dtype dtype, int d, int n) {
    fvi_decode_qk_apart *qk = level->ops.qk_apart[dtype];
    fvi_decode_pv_apart *pv = level->ops.pv_apart[dtype];
    if (qk == NULL && pv == NULL) {
        return;
    }
    const fvi_decode_k *k = &level->ops.k[dtype];
    int d_pad = (int)fvi_tile_pad(d), row = (int)(d * size_of(dtype));
    fvi_rows far;
    guard g = random_rows(dtype, d, FVI_LEAF, &far), near = guard_make((size_t)(n * row), (size_t)size_of(dtype), true);
    guard qt = guard_make((size_t)k->q_bytes(d), 64, true), s = guard_make(2 * FVI_LEAF * 4, 64, true);
    guard out = guard_make((size_t)(2 * d_pad * 4), 64, true);
    const void *at[FVI_LEAF];
    float q[256], *got = (float *)s.data, *o = (float *)out.data, alpha = uniform();
    for (int c = 0; c < d; c++) {
        q[c] = uniform();
    }
    for (int j = 0; j < n; j++) {
        at[j] = (const unsigned char *)far.data + (j * 37 + 5) % FVI_LEAF * far.row_bytes;
        memcpy(near.data + j * row, at[j], (size_t)row);
    }
    fvi_rows rows = {.data = near.data, .row_bytes = row, .n = n};
    k->pack_q(q, d, qt.data);
    k->qk(qt.data, 1, d, &rows, 0.37f, got);
    qk(qt.data, d, at, n, 0.37f, got + FVI_LEAF);
    if (memcmp(got, got + FVI_LEAF, FVI_LEAF * 4) != 0) {
        fail(level, "qk of rows apart", dtype, 1, d, n);
    }
    for (int j = 0; j < FVI_LEAF; j++) {
        got[j] = got[FVI_LEAF + j] = j < n ? fabsf(uniform()) : 0;
    }
    for (int c = 0; c < d_pad; c++) {
        o[c] = o[d_pad + c] = c < d ? uniform() : 0;
    }
    level->ops.v[dtype].pv(got, 1, &alpha, &rows, d, d_pad, o);
    pv(got + FVI_LEAF, alpha, at, n, d, d_pad, o + d_pad);
    if (memcmp(o, o + d_pad, (size_t)d_pad * 4) != 0) {
        fail(level, "pv of rows apart", dtype, 1, d, n);
    }
    free_intact(level, &g, "apart: wrote to rows", dtype, 1, d, n);
    free_intact(level, &s, "qk of rows apart: wrote outside", dtype, 1, d, n);
    free_intact(level, &out, "pv of rows apart: wrote outside", dtype, 1, d, n);
    guard_free(&near), guard_free(&qt);
}

/* Two rows at once give the bits of either alone. */
static void check_two(const rung *level, fv_dtype dtype, int d) {
    if (level->ops.pv_two[dtype] == NULL) {
        return;
    }
    int d_pad = (int)fvi_tile_pad(d);
    fvi_rows v;
    guard g = random_rows(dtype, d, FVI_LEAF, &v), p = guard_make(4 * FVI_LEAF * 4, 64, true);
    guard out = guard_make((size_t)(4 * d_pad * 4), 64, true);
    float *weight = (float *)p.data, *o = (float *)out.data;
    const void *at[2][FVI_LEAF];
    fvi_apart_leaf row[2];
    for (int r = 0; r < 2; r++) {
        for (int j = 0; j < FVI_LEAF; j++) {
            at[r][j] = (const unsigned char *)v.data + (j * (37 + 4 * r) + 5 + r) % FVI_LEAF * v.row_bytes;
            weight[r * FVI_LEAF + j] = weight[(r + 2) * FVI_LEAF + j] = fabsf(uniform());
        }
        for (int c = 0; c < d_pad; c++) {
            o[r * d_pad + c] = o[(r + 2) * d_pad + c] = c < d ? uniform() : 0;
        }
        row[r] = (fvi_apart_leaf){weight + r * FVI_LEAF, uniform(), at[r], o + r * d_pad};
    }
    level->ops.pv_two[dtype](row, d, d_pad);
    for (int r = 0; r < 2; r++) {
        float *alone = o + (r + 2) * d_pad;
        level->ops.pv_apart[dtype](weight + (r + 2) * FVI_LEAF, row[r].alpha, at[r], FVI_LEAF, d, d_pad, alone);
        if (memcmp(alone, o + r * d_pad, (size_t)d_pad * 4) != 0) {
            fail(level, "pv of two rows", dtype, 2, d, FVI_LEAF);
        }
    }
    free_intact(level, &g, "pv of two rows: wrote to rows", dtype, 2, d, FVI_LEAF);
    free_intact(level, &out, "pv of two rows: wrote outside", dtype, 2, d, FVI_LEAF);
    guard_free(&p);
}

static void check_rung(const rung *level) {
    static const int widths[] = {1, 15, 16, 17, 31, 32, 33, 64, 80, 96, 100, 128, 131, 192, 255, 256},
                     keys[] = {1, 2, 3, 15, 33, 63, 64};
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
        for (size_t n = 0; n < sizeof keys / sizeof *keys; n++) {
            for (int dtype = FV_F32; dtype < TYPES; dtype++) {
                for (int pass = 0; pass < 2; pass++) {
                    int rows = pass == 0 ? 1 + (int)((w + n * 5 + (size_t)dtype) % MANY) : 4;
                    together = pass == 1;
                    check_qk(level, (fv_dtype)dtype, rows, widths[w], keys[n]);
                    check_pv(level, (fv_dtype)dtype, rows, widths[w], keys[n]);
                }
                check_apart(level, (fv_dtype)dtype, widths[w], keys[n]);
                check_two(level, (fv_dtype)dtype, widths[w]);
            }
        }
    }
}

/* ---- speed: a leaf in the first cache over and over, and leaves one after the other from memory --------------------- */

typedef struct bench {
    const rung *level;
    fv_dtype dtype;
    int rows, d;
    unsigned char *k, *v;
    int64_t leaves;
    float *q, *s, *out, alpha[MANY];
} bench;

static double run_leaves(bench *b) {
    int d_pad = (int)fvi_tile_pad(b->d);
    int64_t row_bytes = b->d * size_of(b->dtype), leaf_bytes = row_bytes * FVI_LEAF;
    double t = fvi_seconds();
    for (int64_t leaf = 0; leaf < b->leaves; leaf++) {
        fvi_rows k = {.data = b->k + leaf * leaf_bytes, .row_bytes = row_bytes, .n = FVI_LEAF}, v = k;
        v.data = b->v + leaf * leaf_bytes;
        k.next = (const char *)k.data + leaf_bytes;
        v.next = (const char *)v.data + leaf_bytes;
        b->level->ops.k[b->dtype].qk(b->q, b->rows, b->d, &k, 1, b->s);
        b->level->ops.v[b->dtype].pv(b->s, b->rows, b->alpha, &v, b->d, d_pad, b->out);
    }
    return fvi_seconds() - t;
}

static void bench_case(const rung *level, fv_dtype dtype, int rows, int d, double clock) {
    static const int64_t sizes[] = {1, 1 << 14};
    int64_t leaf_bytes = FVI_LEAF * d * size_of(dtype);
    double least[2] = {INFINITY, INFINITY};
    for (int i = 0; i < 2; i++) {
        bench b = {.level = level, .dtype = dtype, .rows = rows, .d = d, .leaves = sizes[i] * 128 / d};
        b.leaves = b.leaves < 1 ? 1 : b.leaves;
        size_t bytes = (size_t)(b.leaves * leaf_bytes);
        b.k = aligned_alloc(64, bytes);
        b.v = aligned_alloc(64, bytes);
        b.q = aligned_alloc(64, (size_t)(MANY * 1088));
        b.s = aligned_alloc(64, MANY * FVI_LEAF * 4);
        b.out = aligned_alloc(64, MANY * 256 * 4);
        memset(b.k, 0x3b, bytes);
        memset(b.v, 0x3b, bytes);
        memset(b.q, 0x3b, MANY * 1088);
        memset(b.out, 0, MANY * 256 * 4);
        for (int run = 0; run < (i == 0 ? 2000 : 5); run++) {
            least[i] = fmin(least[i], run_leaves(&b) / (double)b.leaves);
        }
        free(b.k);
        free(b.v);
        free(b.q);
        free(b.s);
        free(b.out);
    }
    printf("%-10s %-5s d %3d rows %d: a leaf in cache %6.0f cycles; from memory %5.1f GB/s\n", level->name, fv_dtype_name(dtype),
           d, rows, least[0] * clock, 2.0 * (double)leaf_bytes / least[1] * 1e-9);
}

static void bench_rung(const rung *level) {
    fv_context_options options = {1, FV_LEVEL_BEST, NULL};
    fv_context *ctx;
    fv_ceilings machine;
    if (fv_context_create(&options, &ctx) != FV_OK || fv_measure_ceilings(ctx, &machine) != FV_OK) {
        printf("no ceilings\n");
        exit(1);
    }
    printf("read %.1f GB/s, clock %.2f GHz\n", machine.read * 1e-9, machine.clock_hz * 1e-9);
    static const int shapes[][2] = {{4, 128}, {4, 64}, {1, 128}, {2, 128}, {3, 64}, {8, 128}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (int dtype = FV_F32; dtype < TYPES; dtype++) {
            bench_case(level, (fv_dtype)dtype, shapes[i][0], shapes[i][1], machine.clock_hz);
        }
    }
    fv_context_destroy(ctx);
}

int main(int argc, char **argv) {
    uint64_t seed = 1;
    bool speed = false;
    const char *only = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 0);
        }
        if (strcmp(argv[i], "--level") == 0 && i + 1 < argc) {
            only = argv[++i];
        }
        speed = speed || strcmp(argv[i], "--bench") == 0;
    }
    printf("seed %llu\n", (unsigned long long)seed);
    rng.state = seed;
    rung levels[4];
    int n = 0;
    fvi_cpu cpu = fvi_cpu_detect(), none = {0};
    levels[n] = (rung){.name = "c"};
    fvi_decode_init(&none, &levels[n++].ops);
    if (cpu.avx2) {
        levels[n] = (rung){.name = "avx2"};
        fvi_decode_init(&(fvi_cpu){.avx2 = true}, &levels[n++].ops);
    }
    if (cpu.avx512) {
        levels[n] = (rung){.name = "avx512"};
        fvi_decode_init(&(fvi_cpu){.avx2 = true, .avx512 = true}, &levels[n++].ops);
    }
    if (cpu.avx512_bf16) {
        levels[n] = (rung){.name = "avx512bf16"};
        fvi_decode_init(&(fvi_cpu){.avx2 = true, .avx512 = true, .avx512_bf16 = true}, &levels[n++].ops);
    }
    for (int i = 0; i < n; i++) {
        if (only != NULL && strcmp(only, levels[i].name) != 0) {
            continue;
        }
        if (speed) {
            bench_rung(&levels[i]);
        } else {
            check_rung(&levels[i]);
        }
    }
    if (!speed) {
        printf("%d levels, %d failures\n", n, failures);
    }
    return failures > 0;
}
