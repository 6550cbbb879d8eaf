/* check_lowbit.c - kernel/lowbit.h at every level against double: rounding to four bits, and the largest excess of each half. */
#include "base/rng.h"
#include "kernel/lowbit.h"
#include "poison.h"

#include <math.h>

static int failures;

static void expect(bool ok, const char *what, const char *level, int rows, int d) {
    if (!ok && failures++ < 20) {
        printf("FAIL %s %s: %d rows, width %d\n", what, level, rows, d);
    }
}

static void check_rounding(void) {
    fvi_rng r = {3};
    for (int d = 1; d <= 70; d++) {
        float x[70];
        int8_t q[72], again[4];
        uint8_t kt[72 * 64];
        double most = 0;
        for (int c = 0; c < d; c++) {
            x[c] = (float)(fvi_rng_unit(&r) - 0.5);
            most = fmax(most, fabs(x[c]));
        }
        float scale = fvi_lowbit_row(x, d, q), same = fvi_lowbit_key(x, d, 5, kt);
        bool right = fabs(scale - most / 7) < 1e-6 * most && scale == same;
        for (int c = 0; c < fvi_lowbit_width(d); c++) {
            right =
                right && (c < d ? fabs(q[c] - 7 * x[c] / most) <= 0.5001 : q[c] == 0) && kt[c / 4 * 256 + 20 + c % 4] == q[c] + 8;
        }
        expect(right, "integers", "", 1, d);
        x[0] = 0;
        expect(fvi_lowbit_row(x, 1, q) == 0 && q[0] == 0, "zeros", "", 1, d);
        x[0] = INFINITY;
        fvi_lowbit_row(x, 1, again);
        expect(again[0] == 0, "an infinity", "", 1, d);
    }
}

static void check_rows(const fvi_lowbit_ops *ops, const char *level, int n, int d, fvi_rng *r) {
    const int width = (int)fvi_lowbit_width(d);
    guard kt = guard_make((size_t)fvi_lowbit_bytes(d), 64, true), q = guard_make((size_t)(n * width), 4, true);
    guard scale = guard_make(256, 64, true), added = guard_make(256, 64, true), start = guard_make((size_t)n * 4, 4, true);
    guard per = guard_make((size_t)n * 4, 4, true), limit = guard_make((size_t)n * 4, 4, true);
    double want[2] = {-INFINITY, -INFINITY}, size = 1;
    float most[2];
    for (int64_t i = 0; i < fvi_lowbit_bytes(d); i++) {
        kt.data[i] = (unsigned char)(1 + fvi_rng_below(r, 15));
    }
    for (int j = 0; j < 64; j++) {
        ((float *)scale.data)[j] = (float)fvi_rng_unit(r);
        ((float *)added.data)[j] = (float)fvi_rng_unit(r) - 0.5f;
    }
    for (int i = 0; i < n; i++) {
        int32_t sum = 0;
        for (int c = 0; c < width; c++) {
            int8_t v = (int8_t)(c < d ? fvi_rng_below(r, 15) - 7 : 0);
            ((int8_t *)q.data)[i * width + c] = v;
            sum += v;
        }
        ((int32_t *)start.data)[i] = -8 * sum;
        ((float *)per.data)[i] = (float)fvi_rng_unit(r) * 4;
        ((float *)limit.data)[i] = (float)fvi_rng_unit(r) * 9;
        for (int j = 0; j < 64; j++) {
            double dot = 0;
            for (int c = 0; c < d; c++) {
                dot += ((int8_t *)q.data)[i * width + c] * (kt.data[c / 4 * 256 + 4 * j + c % 4] - 8);
            }
            double x = dot * ((float *)scale.data)[j] + (double)((float *)added.data)[j] * ((float *)per.data)[i] -
                       ((float *)limit.data)[i];
            want[j / 32] = fmax(want[j / 32], x);
            size = fmax(size, fabs(x));
        }
    }
    fvi_lowbit_rows rows = {n, width, (int8_t *)q.data, (int32_t *)start.data, (float *)per.data, (float *)limit.data};
    ops->excess(&rows, kt.data, (float *)scale.data, (float *)added.data, most);
    for (int h = 0; h < 2; h++) {
        expect(n == 0 ? most[h] == -INFINITY : fabs(most[h] - want[h]) < 4e-7 * size, "excess", level, n, d);
    }
    guard *all[] = {&kt, &q, &scale, &added, &start, &per, &limit};
    for (int i = 0; i < 7; i++) {
        expect(guard_intact(all[i]), "guards", level, n, d);
        guard_free(all[i]);
    }
}

static void check_level(const fvi_lowbit_ops *ops, const char *level) {
    fvi_rng r = {7};
    for (int n = 0; n <= 64; n += n < 10 ? 1 : 9) {
        for (int d = 1; d <= 256; d += d < 9 ? 1 : 31) {
            check_rows(ops, level, n, d, &r);
        }
    }
}

int main(void) {
    fvi_cpu cpu = fvi_cpu_detect();
    fvi_lowbit_ops ops;
    check_rounding();
    fvi_lowbit_c(&ops);
    check_level(&ops, "c");
#if defined(__x86_64__)
    if (cpu.avx512_vnni) {
        fvi_lowbit_avx512vnni(&ops);
        check_level(&ops, "avx512vnni");
    }
#else
    (void)cpu;
#endif
    printf("lowbit: %d failed\n", failures);
    return failures != 0;
}
