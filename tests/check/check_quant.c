/* check_quant.c - rounding to blocks, widening and rotation: each level against plain words in double, and every level's bits
 * against portable C's; with --bench, their speed.
 *
 *   check_quant [--seed N] [--bench] */
#include "base/rng.h"
#include "kernel/quant.h"
#include "poison.h"

#include <math.h>

enum { WIDEST = 256 };

static fvi_rng rng;
static int failures;
static fvi_quant_ops portable;

static void fail(const fvi_quant_ops *ops, const char *what, fv_dtype dtype, int d) {
    if (failures++ < 40) {
        printf("FAIL %s %s %s d %d\n", ops->name, what, fv_dtype_name(dtype), d);
    }
}

static float uniform(void) { return (float)(2 * fvi_rng_unit(&rng) - 1); }

/* Numbers of any size; ties, equal extremes, zeros, next to nothing, too much, and what is none. */
static void awkward_row(float *x, int d, int kind) {
    static const float odd[] = {0, -0.0f, 1e-40f, 1e-7f, 65504 * 127.0f, 3e38f, -3e38f, INFINITY, -INFINITY, NAN};
    float size = exp2f(uniform() * (float)(kind * 10));
    for (int c = 0; c < d; c++) {
        x[c] = kind == 0   ? (float)(fvi_rng_below(&rng, 255) - 127) * 0.5f
               : kind == 1 ? (fvi_rng_below(&rng, 2) ? 1.0f : -1.0f)
                           : size * uniform();
    }
    if (kind >= 3) {
        x[fvi_rng_below(&rng, d)] = odd[fvi_rng_below(&rng, 10)];
    }
    for (int c = 0; c < FVI_QUANT_BLOCK && kind == 4; c++) {
        x[c] = odd[fvi_rng_below(&rng, 3)];
    }
}

static double element(const unsigned char *row, const uint16_t *scale, fv_dtype dtype, int c) {
    int at = c % FVI_QUANT_BLOCK;
    double by = (double)fvi_f16_to_f32(scale[c / FVI_QUANT_BLOCK * FVI_QUANT_ROWS]);
    unsigned char byte = dtype == FV_Q8_0 ? row[c] : row[c / FVI_QUANT_BLOCK * 16 + at % 16];
    return by * (dtype == FV_Q8_0 ? (double)(int8_t)byte : (at < 16 ? byte & 15 : byte >> 4) - 8.0);
}

/* A number that a scale can hold is off by half a step at the most (the scale's own rounding, 2^-11 of the number, and the
 * smallest f16 beside it); at the end that q4_0 cuts off, by a whole one. */
static void check_block(const fvi_quant_ops *ops, fv_dtype dtype, const float *x, const unsigned char *row, const uint16_t *scale,
                        int d, int first) {
    float most = 0;
    bool finite = true;
    for (int c = first; c < first + FVI_QUANT_BLOCK; c++) {
        finite = finite && isfinite(x[c]);
        most = fmaxf(most, fabsf(x[c]));
    }
    double step = (double)most / (dtype == FV_Q8_0 ? 127 : 8);
    bool held = finite && step < 65520;
    for (int c = first; c < first + FVI_QUANT_BLOCK; c++) {
        double y = element(row, scale, dtype, c), error = fabs(y - (double)x[c]);
        double bar = step * (dtype == FV_Q8_0 ? 0.5001 : 1.0001) + fabs((double)x[c]) * 0x1p-10 + 128 * 0x1p-25;
        if (held ? !(error <= bar) : !isnan(y)) {
            fail(ops, "quantise: error", dtype, d);
        }
    }
}

static void check_quantise(const fvi_quant_ops *ops, fv_dtype dtype, int d, int kind) {
    size_t bytes = (size_t)fvi_quant_row_bytes(dtype, d), scales = (size_t)(d / FVI_QUANT_BLOCK - 1) * FVI_QUANT_ROWS + 1;
    guard x = guard_make((size_t)d * 4, 4, true), row = guard_make(bytes, 16, true), scale = guard_make(2 * scales, 2, true);
    float *in = (float *)x.data;
    unsigned char want[WIDEST];
    uint16_t want_scale[8 * FVI_QUANT_ROWS];
    awkward_row(in, d, kind);
    memset(want_scale, 0xff, sizeof want_scale);
    portable.quantise[dtype](in, d, want, want_scale);
    ops->quantise[dtype](in, d, row.data, (uint16_t *)scale.data);
    if (memcmp(want, row.data, bytes) != 0 || memcmp(want_scale, scale.data, 2 * scales) != 0) {
        fail(ops, "quantise: other bits than portable C's", dtype, d);
    }
    for (int c = 0; c < d; c += FVI_QUANT_BLOCK) {
        check_block(ops, dtype, in, row.data, (uint16_t *)scale.data, d, c);
    }
    if (!guard_intact(&x) || !guard_intact(&row) || !guard_intact(&scale)) {
        fail(ops, "quantise: wrote outside", dtype, d);
    }
    guard_free(&x);
    guard_free(&row);
    guard_free(&scale);
}

static void check_widen(const fvi_quant_ops *ops, fv_dtype dtype, int d, int n) {
    int64_t row_bytes = fvi_quant_row_bytes(dtype, d);
    guard rows = guard_make((size_t)(n * row_bytes), 16, true), f32 = guard_make((size_t)(n * d) * 4, 4, true);
    guard bf16 = guard_make((size_t)(n * d) * 2, 2, true);
    guard scale = guard_make((size_t)d / FVI_QUANT_BLOCK * FVI_QUANT_ROWS * 2, 2, true);
    for (size_t i = 0; i < rows.size; i++) {
        rows.data[i] = (unsigned char)fvi_rng_next(&rng);
    }
    uint16_t *by = (uint16_t *)scale.data;
    for (size_t i = 0; i < scale.size / 2; i++) {
        by[i] = fvi_f32_to_f16(uniform() * exp2f(uniform() * 25));
    }
    by[fvi_rng_below(&rng, n)] = 0x7e00;
    ops->to_f32[dtype](rows.data, row_bytes, by, n, d, (float *)f32.data);
    ops->to_bf16[dtype](rows.data, row_bytes, by, n, d, (uint16_t *)bf16.data);
    for (int i = 0; i < n * d; i++) {
        double want = element(rows.data + i / d * row_bytes, by + i / d, dtype, i % d);
        float wide = ((float *)f32.data)[i], half = fvi_bf16_to_f32(((uint16_t *)bf16.data)[i]);
        if (isnan(want) ? !isnan(wide) || !isnan(half) : (double)wide != want) {
            fail(ops, "to_f32", dtype, d);
        }
        if (!isnan(want) && half != fvi_bf16_to_f32(fvi_f32_to_bf16((float)want))) {
            fail(ops, "to_bf16", dtype, d);
        }
    }
    if (!guard_intact(&rows) || !guard_intact(&f32) || !guard_intact(&bf16) || !guard_intact(&scale)) {
        fail(ops, "widen: wrote outside", dtype, d);
    }
    guard_free(&rows);
    guard_free(&f32);
    guard_free(&bf16);
    guard_free(&scale);
}

static void check_rotate(const fvi_quant_ops *ops, int d) {
    guard x = guard_make((size_t)d * 4, 4, true);
    float *in = (float *)x.data, before[WIDEST] = {0}, c_bits[WIDEST];
    int width = 1;
    while (d % (2 * width) == 0) {
        width *= 2;
    }
    for (int c = 0; c < d; c++) {
        c_bits[c] = before[c] = in[c] = uniform();
    }
    ops->rotate(in, d);
    portable.rotate(c_bits, d);
    if (memcmp(in, c_bits, (size_t)d * 4) != 0) {
        fail(ops, "rotate: other bits than portable C's", FV_F32, d);
    }
    for (int c = 0; c < d; c++) {
        double want = 0;
        for (int j = 0; j < width; j++) {
            double y = (double)before[c / width * width + j];
            want += __builtin_parity((unsigned)(j & c % width)) ? -y : y;
        }
        if (!(fabs((double)in[c] - want / sqrt(width)) <= 0x1p-20)) {
            fail(ops, "rotate", FV_F32, d);
        }
    }
    ops->rotate(in, d);
    for (int c = 0; c < d; c++) {
        if (!(fabsf(in[c] - before[c]) <= 0x1p-20f)) {
            fail(ops, "rotate is not its own inverse", FV_F32, d);
        }
    }
    if (!guard_intact(&x)) {
        fail(ops, "rotate: wrote outside", FV_F32, d);
    }
    guard_free(&x);
}

static void check_rung(const fvi_quant_ops *ops) {
    for (int d = 32; d <= WIDEST; d += 32) {
        for (int dtype = FV_Q8_0; dtype <= FV_Q4_0; dtype++) {
            for (int i = 0; i < 60; i++) {
                check_quantise(ops, (fv_dtype)dtype, d, i % 5);
            }
            check_widen(ops, (fv_dtype)dtype, d, 64);
            check_widen(ops, (fv_dtype)dtype, d, 1 + (int)fvi_rng_below(&rng, 63));
        }
    }
    for (int d = 1; d <= WIDEST; d++) {
        check_rotate(ops, d);
    }
}

static void bench_rung(const fvi_quant_ops *ops, double clock) {
    enum { D = 128, N = 64 };
    static float x[N * D], wide[N * D];
    static uint8_t rows[N * D];
    static uint16_t scale[D / 32 * N], half[N * D];
    for (int i = 0; i < N * D; i++) {
        x[i] = uniform();
    }
    double least[2][3] = {{1, 1, 1}, {1, 1, 1}}, rotate = 1;
    for (int run = 0; run < 300; run++) {
        for (int t = 0; t < 2; t++) {
            fv_dtype dtype = t == 0 ? FV_Q8_0 : FV_Q4_0;
            double at[4] = {fvi_seconds()};
            for (int j = 0; j < N; j++) {
                ops->quantise[dtype](x + j * D, D, rows + j * D, scale + j);
            }
            at[1] = fvi_seconds();
            ops->to_f32[dtype](rows, D, scale, N, D, wide);
            at[2] = fvi_seconds();
            ops->to_bf16[dtype](rows, D, scale, N, D, half);
            at[3] = fvi_seconds();
            for (int i = 0; i < 3; i++) {
                least[t][i] = fmin(least[t][i], at[i + 1] - at[i]);
            }
        }
        double start = fvi_seconds();
        for (int j = 0; j < N; j++) {
            ops->rotate(x + j * D, D);
        }
        rotate = fmin(rotate, fvi_seconds() - start);
    }
    printf("%-10s cycles for 64 rows of 128: q8_0 quantise %.0f, to f32 %.0f, to bf16 %.0f; q4_0 %.0f, %.0f, %.0f; rotate %.0f\n",
           ops->name, least[0][0] * clock, least[0][1] * clock, least[0][2] * clock, least[1][0] * clock, least[1][1] * clock,
           least[1][2] * clock, rotate * clock);
}

int main(int argc, char **argv) {
    bool speed = false;
    rng.state = 1;
    for (int i = 1; i < argc; i++) {
        speed = speed || strcmp(argv[i], "--bench") == 0;
        if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            rng.state = strtoull(argv[++i], NULL, 0);
        }
    }
    printf("seed %llu\n", (unsigned long long)rng.state);
    fvi_cpu cpu = fvi_cpu_detect();
    const fvi_cpu upto[4] = {{0}, {.avx2 = cpu.avx2}, {.avx2 = true, .avx512 = cpu.avx512}, cpu};
    int n = !cpu.avx2 ? 1 : !cpu.avx512 ? 2 : !cpu.avx512_bf16 ? 3 : 4;
    double clock = 0;
    if (speed) {
        fv_context *ctx;
        fv_ceilings machine;
        if (fv_context_create(NULL, &ctx) != FV_OK || fv_measure_ceilings(ctx, &machine) != FV_OK) {
            return 1;
        }
        clock = machine.clock_hz;
        fv_context_destroy(ctx);
    }
    fvi_quant_init(&upto[0], &portable);
    for (int i = 0; i < n; i++) {
        fvi_quant_ops ops;
        fvi_quant_init(&upto[i], &ops);
        if (speed) {
            bench_rung(&ops, clock);
        } else {
            check_rung(&ops);
        }
    }
    printf("%d levels, %d failures\n", n, failures);
    return failures > 0;
}
