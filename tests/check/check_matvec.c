/* check_matvec.c - every level and type of kernel/matvec.h against sums in double: poisoned guards, odd sizes, unaligned rows,
 * and a row's bits alone against its bits among others. With --bench also their speed. */
#include "base/rng.h"
#include "kernel/convert.h"
#include "kernel/matvec.h"
#include "poison.h"

#include <math.h>

typedef struct variant {
    const char *name;
    fvi_matvec_ops ops;
} variant;

static const fv_dtype types[] = {FV_F32, FV_F16, FV_BF16, FV_Q8_0, FV_Q4_0, FV_Q4_1};
enum { N_TYPES = sizeof types / sizeof types[0] };

static int levels_here(variant *out) {
    int n = 0;
    fvi_cpu cpu = fvi_cpu_detect();
    out[n].name = "c";
    fvi_matvec_c(&out[n++].ops);
#if defined(__x86_64__)
    if (cpu.avx2) {
        out[n].name = "avx2";
        fvi_matvec_avx2(&out[n++].ops);
    }
    if (cpu.avx512) {
        out[n].name = "avx512";
        fvi_matvec_avx2(&out[n].ops);
        fvi_matvec_avx512(&out[n++].ops);
    }
    if (cpu.avx512_vnni) {
        out[n].name = "avx512vnni";
        out[n].ops = out[n - 1].ops;
        fvi_matvec_avx512vnni(&out[n++].ops);
    }
#else
    (void)cpu;
#endif
    return n;
}

static bool quantised(fv_dtype dtype) { return dtype == FV_Q8_0 || dtype == FV_Q4_0 || dtype == FV_Q4_1; }

static float normal(fvi_rng *r) {
    double sum = -6;
    for (int i = 0; i < 12; i++) {
        sum += fvi_rng_unit(r);
    }
    return (float)sum;
}

static uint16_t small_scale(fvi_rng *r) { return fvi_f32_to_f16(0.02f * normal(r)); }

/* n weights of any bits that the type allows; scales of both signs. */
static void fill_row(fvi_rng *r, fv_dtype dtype, int64_t n, unsigned char *row) {
    size_t bytes = fv_dtype_bytes(dtype, n);
    for (size_t i = 0; i < bytes; i++) {
        row[i] = (unsigned char)fvi_rng_next(r);
    }
    size_t block = quantised(dtype) ? fv_dtype_bytes(dtype, FVI_BLOCK) : 0;
    for (int64_t i = 0; i < n; i += quantised(dtype) ? FVI_BLOCK : 1) {
        float value = normal(r);
        uint16_t half[2] = {small_scale(r), small_scale(r)};
        switch (dtype) {
        case FV_F32:
            memcpy(row + 4 * i, &value, 4);
            break;
        case FV_F16:
            half[0] = fvi_f32_to_f16(i % 7 == 0 ? value * 0x1p-18f : value);
            memcpy(row + 2 * i, half, 2);
            break;
        case FV_BF16:
            half[0] = fvi_f32_to_bf16(value);
            memcpy(row + 2 * i, half, 2);
            break;
        default:
            memcpy(row + (size_t)(i / FVI_BLOCK) * block, half, dtype == FV_Q4_1 ? 4 : 2);
            break;
        }
    }
}

/* Weight i of a row in double, and in *size what its rounding errors are measured by. */
static double weight_at(fv_dtype dtype, const unsigned char *row, int64_t i, double *size) {
    uint16_t half[2] = {0};
    float f;
    const unsigned char *block = row + (quantised(dtype) ? (size_t)(i / 32) * fv_dtype_bytes(dtype, 32) : 0);
    int at = (int)(i % 32);
    double w;
    *size = 0;
    if (dtype == FV_F32) {
        memcpy(&f, row + 4 * i, 4);
        w = f;
    } else if (dtype == FV_F16 || dtype == FV_BF16) {
        memcpy(half, row + 2 * i, 2);
        w = dtype == FV_F16 ? fvi_f16_to_f32(half[0]) : fvi_bf16_to_f32(half[0]);
    } else {
        memcpy(half, block, dtype == FV_Q4_1 ? 4 : 2);
        double scale = fvi_f16_to_f32(half[0]), least = fvi_f16_to_f32(half[1]);
        const unsigned char *q = block + (dtype == FV_Q4_1 ? 4 : 2);
        int nibble = at < 16 ? q[at % 16] & 15 : q[at % 16] >> 4;
        w = dtype == FV_Q8_0 ? scale * (signed char)q[at] : dtype == FV_Q4_0 ? scale * (nibble - 8) : scale * nibble + least;
        *size = dtype == FV_Q4_1 ? fabs(scale * nibble) + fabs(least) : 0;
    }
    *size = fmax(*size, fabs(w));
    return w;
}

/* The product as a model makes it: x is quantised first where W is. */
static void multiply(const fvi_matvec_ops *ops, fv_dtype dtype, const void *w, int64_t rows, int64_t n_in, const float *x,
                     float *y) {
    if (!quantised(dtype)) {
        ops->rows[dtype](w, rows, n_in, x, y);
        return;
    }
    guard q = guard_make((size_t)fvi_matvec_pairs(n_in) * sizeof(fvi_matvec_x), 64, true);
    ops->quantise(n_in, x, (fvi_matvec_x *)q.data);
    ops->dots[dtype](w, rows, n_in, (const fvi_matvec_x *)q.data, y);
    if (!guard_intact(&q)) {
        printf("FAIL n_in %d: wrote outside the quantised x\n", (int)n_in);
        exit(1);
    }
    guard_free(&q);
}

/* What rounding x[i] to its block of int8 may move it by. */
static double rounding(fv_dtype dtype, const float *x, int64_t i) {
    double most = 0;
    for (int64_t k = i / 32 * 32; quantised(dtype) && k < i / 32 * 32 + 32; k++) {
        most = fmax(most, fabs(x[k]));
    }
    return most / 253;
}

static int check_one(const variant *level, const fvi_matvec_ops *base, fv_dtype dtype, int64_t rows, int64_t n_in, bool at_end,
                     uint64_t seed) {
    fvi_rng r = {seed};
    size_t stride = fv_dtype_bytes(dtype, n_in);
    guard w = guard_make((size_t)rows * stride, dtype == FV_F32 ? 4 : 2, at_end);
    guard x = guard_make((size_t)n_in * 4, 4, at_end), y = guard_make((size_t)rows * 4, 4, at_end);
    float *xv = (float *)x.data, *yv = (float *)y.data;
    for (int64_t i = 0; i < rows; i++) {
        fill_row(&r, dtype, n_in, w.data + (size_t)i * stride);
    }
    for (int64_t i = 0; i < n_in; i++) {
        xv[i] = normal(&r) * (i / 32 % 5 == 3 ? 0 : i / 32 % 5 == 4 ? 0x1p-60f : 1);
    }
    multiply(&level->ops, dtype, w.data, rows, n_in, xv, yv);
    int failed = 0;
    for (int64_t i = 0; i < rows && failed == 0; i++) {
        double sum = 0, size = 0, moved = 0;
        for (int64_t k = 0; k < n_in; k++) {
            double wk_size, wk = weight_at(dtype, w.data + (size_t)i * stride, k, &wk_size);
            sum += wk * xv[k];
            size += wk_size * fabs(xv[k]);
            moved += fabs(wk) * rounding(dtype, xv, k);
        }
        double bound = ((double)n_in / 16 + 8) * 0x1p-24 * (size + moved) + moved;
        float alone, plain = yv[i];
        multiply(&level->ops, dtype, w.data + (size_t)i * stride, 1, n_in, xv, &alone);
        if (quantised(dtype)) {
            multiply(base, dtype, w.data + (size_t)i * stride, 1, n_in, xv, &plain);
        }
        if (!(fabs(yv[i] - sum) <= bound) || memcmp(&alone, &yv[i], sizeof alone) != 0 ||
            memcmp(&plain, &yv[i], sizeof plain) != 0) {
            printf(
                "FAIL %s %s rows %d n_in %d seed %llu: row %d is %.9g (alone %.9g, level c %.9g), should be %.9g within %.3g\n",
                level->name, fv_dtype_name(dtype), (int)rows, (int)n_in, (unsigned long long)seed, (int)i, yv[i], alone, plain,
                sum, bound);
            failed = 1;
        }
    }
    if (!guard_intact(&w) || !guard_intact(&x) || !guard_intact(&y)) {
        printf("FAIL %s %s rows %d n_in %d: wrote outside\n", level->name, fv_dtype_name(dtype), (int)rows, (int)n_in);
        failed = 1;
    }
    guard_free(&w);
    guard_free(&x);
    guard_free(&y);
    return failed;
}

/* Blocks that cannot be rounded, and the largest products there are. */
static int check_ends(const variant *level) {
    fvi_block_q8_0 w[2];
    float x[64], y[3];
    static const float odd[] = {INFINITY, -INFINITY, NAN};
    int failed = 0;
    w[0].scale = w[1].scale = fvi_f32_to_f16(1);
    memset(w[0].q, -128, 32);
    memset(w[1].q, -128, 32);
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 64; k++) {
            x[k] = k == 40 ? odd[i] : -1;
        }
        multiply(&level->ops, FV_Q8_0, w, 1, 64, x, &y[i]);
        failed += !isnan(y[i]);
    }
    x[40] = -1;
    multiply(&level->ops, FV_Q8_0, w, 1, 64, x, y);
    for (int k = 0; k < 64; k++) {
        x[k] = k < 32 ? 0x1p-110f : -0x1p-99f;
    }
    multiply(&level->ops, FV_Q8_0, w, 1, 64, x, y + 1);
    failed += !(fabsf(y[0] - 64 * 128) < 1e-2f) || !(fabsf(y[1] - 32 * 128 * 0x1p-99f) < 0x1p-105f);
    if (failed > 0) {
        printf("FAIL %s: x that is not finite, largest products %.9g, least ones %.9g\n", level->name, y[0], y[1]);
    }
    return failed;
}

/* Over a matrix that stays in the second-level cache, and over one of 24 MB. */
static void bench(const variant *level, fv_dtype dtype) {
    const int64_t n_in = 512;
    const size_t stride = fv_dtype_bytes(dtype, n_in);
    fvi_rng r = {1};
    float x[512];
    fvi_matvec_x q[8];
    for (int64_t i = 0; i < n_in; i++) {
        x[i] = normal(&r);
    }
    level->ops.quantise(n_in, x, q);
    for (int size = 0; size < 2; size++) {
        const int64_t rows = size == 0 ? 704 : (int64_t)((24u << 20) / stride);
        guard w = guard_make((size_t)rows * stride, 64, false);
        float *y = malloc((size_t)rows * 4);
        memset(w.data, 0, w.size);
        double best = 1e9;
        for (int i = 0; y != NULL && i < (size == 0 ? 200 : 10); i++) {
            double start = fvi_seconds();
            if (quantised(dtype)) {
                level->ops.dots[dtype](w.data, rows, n_in, q, y);
            } else {
                level->ops.rows[dtype](w.data, rows, n_in, x, y);
            }
            best = fmin(best, fvi_seconds() - start);
        }
        printf("%-10s %-5s %5.1f MB: %7.1f us, %5.1f GB/s, %5.1f weights/ns\n", level->name, fv_dtype_name(dtype),
               (double)w.size * 0x1p-20, best * 1e6, (double)w.size / best * 1e-9, (double)(rows * n_in) / best * 1e-9);
        free(y);
        guard_free(&w);
    }
}

int main(int argc, char **argv) {
    static const int64_t row_counts[] = {1, 2, 7, 63, 65};
    static const int64_t plain[] = {0, 1, 3, 15, 16, 17, 31, 32, 33, 47, 100, 513}, quant[] = {0, 32, 64, 96, 160, 512, 1408};
    variant levels[4];
    int n_levels = levels_here(levels), failed = 0, done = 0;
    uint64_t seed = 2024;
    for (int l = 0; l < n_levels; l++) {
        failed += check_ends(&levels[l]);
        for (int t = 0; t < N_TYPES; t++) {
            const int64_t *n_in = quantised(types[t]) ? quant : plain;
            int n = quantised(types[t]) ? 7 : 12;
            for (int i = 0; i < n * 5 * 2; i++) {
                failed +=
                    check_one(&levels[l], &levels[0].ops, types[t], row_counts[i / 2 % 5], n_in[i / 10], i % 2 == 0, seed++);
                done++;
            }
        }
    }
    for (int l = 0; argc > 1 && strcmp(argv[1], "--bench") == 0 && l < n_levels; l++) {
        for (int t = 0; t < N_TYPES; t++) {
            bench(&levels[l], types[t]);
        }
    }
    printf("matvec: %d checks on %d levels, %d failed (first seed 2024)\n", done, n_levels, failed);
    return failed != 0;
}
