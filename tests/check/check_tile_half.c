/* check_tile_half.c - the tile's form of pairs of bf16, every rung, against double; with --bench, its speed.
 *
 *   check_tile_half [--seed N] [--bench]
 *
 * Exits 77 (skipped) where the processor has no bf16 dot products. */
#include "base/rng.h"
#include "kernel/tile.h"
#include "poison.h"

#include <math.h>

enum { MANY = 130, WIDEST = 256 };

static fvi_rng rng;
static int failures;

static void fail(const fvi_tile_ops *ops, const char *what, int rows, int d, int at) {
    if (failures++ < 40) {
        printf("FAIL %s %s rows %d d %d at %d\n", ops->name, what, rows, d, at);
    }
}

static float uniform(void) { return (float)(2 * fvi_rng_unit(&rng) - 1); }

static void fill(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        x[i] = uniform();
    }
}

static guard bytes(int64_t n, size_t align) { return guard_make((size_t)n, align, true); }

static void expect_intact(const fvi_tile_ops *ops, const char *what, guard *g) {
    if (!guard_intact(g)) {
        fail(ops, what, 0, 0, 0);
    }
    guard_free(g);
}

static guard random_rows(int n, int d, int64_t row_bytes) {
    guard g = guard_make(n > 0 ? (size_t)((n - 1) * row_bytes + 2 * d) : 0, 2, true);
    for (int j = 0; j < n; j++) {
        for (int c = 0; c < d; c++) {
            uint16_t h = fvi_f32_to_bf16(uniform());
            memcpy(g.data + j * row_bytes + 2 * c, &h, 2);
        }
    }
    return g;
}

static uint16_t element(const guard *g, int64_t row_bytes, int j, int c) {
    uint16_t h;
    memcpy(&h, g->data + j * row_bytes + 2 * c, 2);
    return h;
}

/* Element c of key j, and key j of column c, as they are packed. */
static uint16_t packed_key(const fvi_tile_ops *ops, const void *kt, int d, int j, int c) {
    return ((const uint16_t *)kt)[2 * fvi_tile_key_pair(ops->tiles, d, j, c / 2) + c % 2];
}

static uint16_t packed_value(const fvi_tile_ops *ops, const void *vt, int64_t pad, int j, int64_t c) {
    return ((const uint16_t *)vt)[2 * fvi_tile_value_pair(ops->tiles, pad, j / 2, c) + j % 2];
}

static void check_pack(const fvi_tile_ops *ops, int n, int d) {
    int64_t width = fvi_tile_half_width(d), pad = fvi_tile_pad(d), row_bytes = 2 * (d + fvi_rng_below(&rng, 3) * 5);
    guard rows = random_rows(n, d, row_bytes), kt = bytes(width * FVI_LEAF * 2, 64), vt = bytes(pad * FVI_LEAF * 2, 64);
    ops->pack_k[FV_BF16](rows.data, row_bytes, n, d, kt.data);
    ops->pack_v[FV_BF16](rows.data, row_bytes, n, d, vt.data);
    bool good = true;
    for (int j = 0; j < FVI_LEAF; j++) {
        for (int c = 0; c < width; c++) {
            uint16_t want = j < n && c < d ? element(&rows, row_bytes, j, c) : 0;
            good = good && packed_key(ops, kt.data, d, j, c) == want;
            good = good && (c >= pad || packed_value(ops, vt.data, pad, j, c) == want);
        }
    }
    if (!good) {
        fail(ops, "pack", n, d, 0);
    }
    expect_intact(ops, "pack: wrote to its source", &rows);
    expect_intact(ops, "pack_k: wrote outside", &kt);
    expect_intact(ops, "pack_v: wrote outside", &vt);
}

static void check_pack_q(const fvi_tile_ops *ops, int rows, int d) {
    int64_t width = fvi_tile_half_width(d);
    guard q = bytes((int64_t)rows * d * 4, 4), qt = bytes(rows * width * 2, 64);
    fill((float *)q.data, (int64_t)rows * d);
    ops->pack_q((float *)q.data, rows, d, qt.data);
    for (int r = 0; r < rows; r++) {
        for (int c = 0; c < width; c++) {
            uint16_t want = c < d ? fvi_f32_to_bf16(((float *)q.data)[r * d + c]) : 0;
            if (((uint16_t *)qt.data)[r * width + c] != want) {
                fail(ops, "pack_q", rows, d, c);
            }
        }
    }
    expect_intact(ops, "pack_q: wrote to q", &q);
    expect_intact(ops, "pack_q: wrote outside", &qt);
}

/* Random bf16 where an operand has elements, zero where it is padded. */
static void fill_half(uint16_t *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        x[i] = fvi_f32_to_bf16(uniform());
    }
}

static void check_qk(const fvi_tile_ops *ops, int rows, int d) {
    int64_t width = fvi_tile_half_width(d);
    const float scale = 0.37f;
    guard q = bytes(rows * width * 2, 64), kt = bytes(width * FVI_LEAF * 2, 64), s = bytes((int64_t)rows * FVI_LEAF * 4, 64);
    uint16_t *a = (uint16_t *)q.data, *b = (uint16_t *)kt.data;
    fill_half(a, rows * width);
    fill_half(b, width * FVI_LEAF);
    ops->qk(a, rows, d, b, scale, (float *)s.data);
    for (int r = 0; r < rows; r++) {
        for (int j = 0; j < FVI_LEAF; j++) {
            double exact = 0, size = 0;
            for (int c = 0; c < width; c++) {
                double x = (double)fvi_bf16_to_f32(a[r * width + c]) * fvi_bf16_to_f32(packed_key(ops, b, d, j, c));
                exact += x * scale;
                size += fabs(x * scale);
            }
            if (!(fabs(((float *)s.data)[r * FVI_LEAF + j] - exact) <= (double)(width + 2) * 0x1p-24 * size)) {
                fail(ops, "qk", rows, d, j);
            }
        }
    }
    expect_intact(ops, "qk: wrote to q", &q);
    expect_intact(ops, "qk: wrote to kt", &kt);
    expect_intact(ops, "qk: wrote outside", &s);
}

static void check_pv(const fvi_tile_ops *ops, int rows, int d) {
    int64_t pad = fvi_tile_pad(d);
    guard p = bytes((int64_t)rows * FVI_LEAF * 4, 64), vt = bytes(pad * FVI_LEAF * 2, 64), out = bytes(rows * pad * 4, 64);
    guard alpha = bytes((int64_t)rows * 4, 4);
    float *got = (float *)out.data;
    for (int r = 0; r < rows; r++) {
        fill_half((uint16_t *)p.data + (int64_t)r * FVI_LEAF * 2, FVI_LEAF);
    }
    fill_half((uint16_t *)vt.data, pad * FVI_LEAF);
    fill(got, rows * pad);
    fill((float *)alpha.data, rows);
    float *before = malloc(out.size + 1);
    memcpy(before, got, out.size);
    ops->pv((float *)p.data, rows, (float *)alpha.data, vt.data, (int)pad, got);
    for (int r = 0; r < rows; r++) {
        for (int64_t c = 0; c < pad; c++) {
            double exact = (double)before[r * pad + c] * ((float *)alpha.data)[r], size = fabs(exact);
            for (int j = 0; j < FVI_LEAF; j++) {
                double x = fvi_bf16_to_f32(((uint16_t *)p.data)[r * FVI_LEAF * 2 + j]);
                x *= fvi_bf16_to_f32(packed_value(ops, vt.data, pad, j, c));
                exact += x;
                size += fabs(x);
            }
            if (!(fabs(got[r * pad + c] - exact) <= 68 * 0x1p-24 * size)) {
                fail(ops, "pv", rows, d, (int)c);
            }
        }
    }
    free(before);
    expect_intact(ops, "pv: wrote to p", &p);
    expect_intact(ops, "pv: wrote to vt", &vt);
    expect_intact(ops, "pv: wrote to alpha", &alpha);
    expect_intact(ops, "pv: wrote outside", &out);
}

static void check_soften(const fvi_tile_ops *ops, int rows) {
    guard s = bytes((int64_t)rows * FVI_LEAF * 4, 64), m = bytes((int64_t)rows * 4, 4), sum = bytes((int64_t)rows * 4, 4);
    guard alpha = bytes((int64_t)rows * 4, 4);
    float *x = (float *)s.data, *top = (float *)m.data, *total = (float *)sum.data;
    float *before = malloc(s.size + 1);
    float m0[MANY];
    for (int i = 0; i < rows * FVI_LEAF; i++) {
        x[i] = fvi_rng_below(&rng, 3) == 0 ? -INFINITY : uniform() * 20;
    }
    for (int r = 0; r < rows; r++) {
        m0[r] = top[r] = fvi_rng_below(&rng, 3) == 0 ? -INFINITY : uniform() * 20;
        total[r] = isinf(m0[r]) ? 0 : 3;
    }
    memcpy(before, x, s.size);
    ops->soften(x, rows, top, total, (float *)alpha.data);
    for (int r = 0; r < rows; r++) {
        double want = isinf(m0[r]) ? 0 : 3 * exp2((double)(m0[r] - top[r]));
        for (int j = 0; j < FVI_LEAF; j++) {
            double w = exp2((double)(before[r * FVI_LEAF + j] - top[r]));
            double got = fvi_bf16_to_f32(((uint16_t *)(x + r * FVI_LEAF))[j]);
            want += w;
            if (!(fabs(got - w) <= w * 0x1.01p-8 + 0x1p-126 && got <= 256)) {
                fail(ops, "soften: weight", rows, 0, j);
            }
        }
        if (!(fabs(total[r] - want) <= want * 0x1p-18)) {
            fail(ops, "soften: sum", rows, 0, r);
        }
    }
    free(before);
    expect_intact(ops, "soften: wrote outside s", &s);
    expect_intact(ops, "soften: wrote outside m", &m);
    expect_intact(ops, "soften: wrote outside sum", &sum);
    expect_intact(ops, "soften: wrote outside alpha", &alpha);
}

/* A row's bits do not depend on the rows beside it: MANY rows at once, and in pieces of each size. */
static void check_independence(const fvi_tile_ops *ops, int d) {
    int64_t width = fvi_tile_half_width(d), pad = fvi_tile_pad(d);
    static float s[2][MANY * FVI_LEAF] __attribute__((aligned(64))), out[2][MANY * WIDEST] __attribute__((aligned(64)));
    static uint16_t q[MANY * WIDEST] __attribute__((aligned(64))), kt[FVI_LEAF * WIDEST] __attribute__((aligned(64)));
    static uint16_t vt[FVI_LEAF * WIDEST] __attribute__((aligned(64)));
    static float start[MANY * WIDEST], alpha[MANY], m[2][MANY], sum[2][MANY];
    fill_half(q, MANY * width);
    fill_half(kt, FVI_LEAF * width);
    fill_half(vt, FVI_LEAF * pad);
    fill(start, MANY * WIDEST);
    static const int piece[] = {MANY, 1, 2, 3, 5, 6, 7, 15, 16, 17, 31, 32, 33, 64};
    for (size_t k = 0; k < sizeof piece / sizeof *piece; k++) {
        int side = k > 0;
        memcpy(out[side], start, sizeof start);
        memset(sum[side], 0, sizeof sum[side]);
        for (int r = 0; r < MANY; r++) {
            m[side][r] = -INFINITY;
        }
        for (int r = 0; r < MANY; r += piece[k]) {
            int n = r + piece[k] > MANY ? MANY - r : piece[k];
            ops->qk(q + r * width, n, d, kt, 0.125f, s[side] + r * FVI_LEAF);
            ops->soften(s[side] + r * FVI_LEAF, n, m[side] + r, sum[side] + r, alpha + r);
            ops->pv(s[side] + r * FVI_LEAF, n, alpha + r, vt, (int)pad, out[side] + r * pad);
        }
        if (side == 1 && (memcmp(out[0], out[1], (size_t)(MANY * pad) * 4) != 0 || memcmp(sum[0], sum[1], sizeof sum[0]) != 0)) {
            fail(ops, "a row's bits depend on its company", piece[k], d, 0);
        }
    }
}

/* What check_fold compares: out, m and sum of rows, of the stages apart and of those in one. */
enum { OUT, MAXIMUM, SUM, STATES };

static void empty_states(guard side[STATES], int rows, int64_t pad) {
    side[OUT] = bytes(rows * pad * 4, 64);
    memset(side[OUT].data, 0, side[OUT].size);
    for (int k = MAXIMUM; k < STATES; k++) {
        side[k] = bytes((int64_t)rows * 4, 4);
        for (int r = 0; r < rows; r++) {
            ((float *)side[k].data)[r] = k == MAXIMUM ? -INFINITY : 0;
        }
    }
}

/* One leaf, row by row and stage by stage; seen: NULL: all. */
static void fold_apart(const fvi_tile_ops *ops, const fvi_tile_fold *f, const void *kt, const void *vt, const uint64_t *seen,
                       guard side[STATES]) {
    float x[FVI_LEAF] __attribute__((aligned(64)));
    int64_t width = fvi_tile_half_width(f->d);
    for (int r = 0; r < f->rows; r++) {
        float alpha;
        ops->qk((const uint16_t *)f->qt + r * width, 1, f->d, kt, f->scale, x);
        for (int j = 0; seen != NULL && j < FVI_LEAF; j++) {
            x[j] = seen[r] >> j & 1 ? x[j] : -INFINITY;
        }
        ops->soften(x, 1, (float *)side[MAXIMUM].data + r, (float *)side[SUM].data + r, &alpha);
        ops->pv(x, 1, &alpha, vt, f->d_pad, (float *)side[OUT].data + (int64_t)r * f->d_pad);
    }
}

/* Keys that rows see: a third hidden, all for some rows; of some leaves none or all for a block of rows. */
static void random_sight(uint64_t *seen, int rows, int block) {
    for (int r = 0, all = 0, none = 0; r < rows; r++) {
        if (r % block == 0) {
            all = fvi_rng_below(&rng, 4) == 0;
            none = fvi_rng_below(&rng, 4) == 0;
        }
        seen[r] = fvi_rng_below(&rng, 8) == 0 || none ? 0 : fvi_rng_next(&rng) | fvi_rng_next(&rng);
        seen[r] = all ? UINT64_MAX : seen[r];
    }
}

/* The stages in one against the stages apart, bit for bit, over two folds of `leaves` leaves; `steep`: scores that move
 * references from leaf to leaf. */
static void check_fold(const fvi_tile_ops *ops, int rows, int d, int leaves, bool hide, bool steep) {
    int64_t width = fvi_tile_half_width(d), pad = fvi_tile_pad(d), k_bytes = width * FVI_LEAF * 2, v_bytes = pad * FVI_LEAF * 2;
    guard q = bytes(rows * width * 2, 64), kt = bytes(leaves * k_bytes, 64), vt = bytes(leaves * v_bytes, 64);
    guard s = bytes(fvi_tile_fold_rows(ops) * FVI_LEAF * 4, 64), seen = bytes((int64_t)leaves * rows * 8, 8), side[2][STATES];
    empty_states(side[0], rows, pad);
    empty_states(side[1], rows, pad);
    fill_half((uint16_t *)q.data, rows * width);
    fvi_tile_fold fold = {.qt = q.data, .kt = kt.data, .vt = vt.data, .leaves = leaves, .rows = rows, .d = d, .d_pad = (int)pad};
    fold.scale = steep ? 9 : 0.7f;
    fold.s = (float *)s.data;
    fold.out = (float *)side[1][OUT].data;
    fold.m = (float *)side[1][MAXIMUM].data;
    fold.sum = (float *)side[1][SUM].data;
    for (int turn = 0; turn < 2; turn++) {
        fill_half((uint16_t *)kt.data, leaves * width * FVI_LEAF);
        fill_half((uint16_t *)vt.data, leaves * pad * FVI_LEAF);
        for (int l = 0; l < leaves; l++) {
            uint64_t *sight = (uint64_t *)seen.data + (int64_t)l * rows;
            random_sight(sight, rows, ops->row_block);
            fold.seen[l] = hide && fvi_rng_below(&rng, 4) > 0 ? sight : NULL;
            fold_apart(ops, &fold, kt.data + l * k_bytes, vt.data + l * v_bytes, fold.seen[l], side[0]);
        }
        if (!ops->fold(&fold)) {
            fail(ops, "fold: refused", rows, d, 0);
        }
    }
    for (int k = 0; k < STATES; k++) {
        if (memcmp(side[0][k].data, side[1][k].data, side[0][k].size) != 0) {
            fail(ops, "fold: other bits than the stages apart", rows, d, k);
        }
        expect_intact(ops, "wrote outside out, m or sum", &side[0][k]);
        expect_intact(ops, "fold: wrote outside out, m or sum", &side[1][k]);
    }
    expect_intact(ops, "fold: wrote to q", &q);
    expect_intact(ops, "fold: wrote to kt", &kt);
    expect_intact(ops, "fold: wrote to vt", &vt);
    expect_intact(ops, "fold: wrote to seen", &seen);
    expect_intact(ops, "fold: wrote outside s", &s);
}

static void check_folds(const fvi_tile_ops *ops) {
    static const int width[] = {17, 32, 64, 96, 127, 128, 256};
    for (size_t w = 0; w < sizeof width / sizeof *width; w++) {
        for (int blocks = 0; blocks < 4; blocks++) {
            for (int way = 0; way < 4; way++) {
                check_fold(ops, blocks * ops->row_block, width[w], 1 + (3 * blocks + way) % FVI_FOLD_LEAVES, way % 2, way / 2);
            }
        }
    }
}

static void check_rung(const fvi_tile_ops *ops) {
    static const int width[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 80, 96, 100, 128, 192, 255, 256};
    static const int rows[] = {0, 1, 5, 6, 7, 15, 16, 17, 31, 32, 33, 64, 65, MANY};
    static const int keys[] = {0, 1, 2, 15, 16, 17, 63, 64};
    for (size_t w = 0; w < sizeof width / sizeof *width; w++) {
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            check_pack(ops, keys[k], width[w]);
        }
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            check_pack_q(ops, rows[r], width[w]);
            check_qk(ops, rows[r], width[w]);
            check_pv(ops, rows[r], width[w]);
        }
        check_independence(ops, width[w]);
    }
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        check_soften(ops, rows[r]);
    }
    if (ops->fold != NULL) {
        check_folds(ops);
    }
}

/* ---- speed --------------------------------------------------------------------------------------------------------- */

enum { ROWS = 256 };

/* All stages at once: cycles per 16 scores. */
static void bench_fold(const fvi_tile_ops *ops, const fvi_tile_fold *fold, double clock_hz) {
    double best = 1e9;
    for (int spell = 0; spell < 500; spell++) {
        double start = fvi_seconds();
        ops->fold(fold);
        best = fmin(best, fvi_seconds() - start);
    }
    double flops = 4.0 * fold->leaves * ROWS * FVI_LEAF * fold->d;
    printf("%-10s d %3d: at once %.1f GFLOP/s, %.2f cycles per 16 scores\n", ops->name, fold->d, flops / best * 1e-9,
           best * clock_hz / (fold->leaves * ROWS * FVI_LEAF / 16));
}

static void bench(const fvi_tile_ops *ops, int d, double clock_hz) {
    enum { MOST = FVI_FOLD_LEAVES * FVI_LEAF * WIDEST };
    static uint16_t q[ROWS * WIDEST] __attribute__((aligned(64))), kt[MOST] __attribute__((aligned(64)));
    static uint16_t vt[MOST] __attribute__((aligned(64))), raw[FVI_LEAF * WIDEST];
    static float s[ROWS * FVI_LEAF] __attribute__((aligned(64))), out[ROWS * WIDEST] __attribute__((aligned(64)));
    static float m[ROWS], sum[ROWS], alpha[ROWS];
    fill_half(q, ROWS * WIDEST);
    fill_half(raw, FVI_LEAF * WIDEST);
    double best[5] = {1e9, 1e9, 1e9, 1e9, 1e9};
    for (int spell = 0; spell < 500; spell++) {
        double t[6] = {fvi_seconds()};
        ops->pack_k[FV_BF16](raw, 2 * d, FVI_LEAF, d, kt);
        t[1] = fvi_seconds();
        ops->pack_v[FV_BF16](raw, 2 * d, FVI_LEAF, d, vt);
        t[2] = fvi_seconds();
        ops->qk(q, ROWS, d, kt, 0.1f, s);
        t[3] = fvi_seconds();
        ops->soften(s, ROWS, m, sum, alpha);
        t[4] = fvi_seconds();
        ops->pv(s, ROWS, alpha, vt, (int)fvi_tile_pad(d), out);
        t[5] = fvi_seconds();
        for (int i = 0; i < 5; i++) {
            best[i] = fmin(best[i], t[i + 1] - t[i]);
        }
    }
    double flops = 2.0 * ROWS * FVI_LEAF * d;
    printf("%-10s d %3d: qk %6.1f GFLOP/s, pv %6.1f, soften %.2f cycles per 16 scores, pack_k %.0f cycles, pack_v %.0f\n",
           ops->name, d, flops / best[2] * 1e-9, flops / best[4] * 1e-9, best[3] * clock_hz / (ROWS * FVI_LEAF / 16),
           best[0] * clock_hz, best[1] * clock_hz);
    if (ops->fold != NULL) {
        fvi_tile_fold fold = {.qt = q, .kt = kt, .vt = vt, .leaves = FVI_FOLD_LEAVES, .rows = ROWS, .d = d};
        fold.d_pad = (int)fvi_tile_pad(d);
        fold.scale = 0.1f;
        fold.s = s;
        fold.m = m;
        fold.sum = sum;
        fold.out = out;
        bench_fold(ops, &fold, clock_hz);
    }
}

static void bench_rung(const fvi_tile_ops *ops) {
    fv_context *ctx;
    fv_ceilings machine;
    if (fv_context_create(&(fv_context_options){1, FV_LEVEL_BEST, NULL}, &ctx) != FV_OK ||
        fv_measure_ceilings(ctx, &machine) != FV_OK) {
        exit(1);
    }
    printf("ceilings of one thread: fma %.1f GFLOP/s, bf16 %.1f GFLOP/s, AMX %.1f GFLOP/s, clock %.2f GHz\n",
           machine.fma_f32 * 1e-9, machine.dot_bf16 * 1e-9, machine.amx_bf16 * 1e-9, machine.clock_hz * 1e-9);
    bench(ops, 64, machine.clock_hz);
    bench(ops, 128, machine.clock_hz);
    fv_context_destroy(ctx);
}

int main(int argc, char **argv) {
    rng.state = 1;
    bool speed = false;
    for (int i = 1; i < argc; i++) {
        speed = speed || strcmp(argv[i], "--bench") == 0;
        if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            rng.state = strtoull(argv[++i], NULL, 0);
        }
    }
    printf("seed %llu\n", (unsigned long long)rng.state);
    fvi_cpu cpu = fvi_cpu_detect(), no_amx = cpu;
    no_amx.amx_bf16 = false;
    fvi_tile_ops ops[2];
    int n = fvi_tile_init_half(&no_amx, &ops[0]);
    n += n > 0 && cpu.amx_bf16 && fvi_tile_init_half(&cpu, &ops[1]);
    for (int i = 0; i < n; i++) {
        if (speed) {
            bench_rung(&ops[i]);
        } else {
            check_rung(&ops[i]);
        }
    }
    printf("%d rungs, %d failures\n", n, failures);
    return failures > 0 ? 1 : n == 0 ? 77 : 0;
}
