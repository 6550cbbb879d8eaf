/* check_lowbit.c - kernel/lowbit.h at every level against double: rounding to four bits, and the halves with a pair above its
 * threshold. */
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
        int8_t q[72 * 8], again[4 * 8];
        uint8_t kt[72 * 64];
        double most = 0;
        for (int c = 0; c < d; c++) {
            x[c] = (float)(fvi_rng_unit(&r) - 0.5);
            most = fmax(most, fabs(x[c]));
        }
        float scale = fvi_lowbit_row(x, d, 3, q), same = fvi_lowbit_key(x, d, 5, kt);
        bool right = fabs(scale - most / 7) < 1e-6 * most && scale == same;
        for (int c = 0; c < fvi_lowbit_width(d); c++) {
            const int8_t got = q[c / 4 * 32 + 12 + c % 4];
            right =
                right && (c < d ? fabs(got - 7 * x[c] / most) <= 0.5001 : got == 0) && kt[c / 4 * 256 + 20 + c % 4] == got + 8;
        }
        expect(right, "integers", "", 1, d);
        x[0] = 0;
        expect(fvi_lowbit_row(x, 1, 0, q) == 0 && q[0] == 0, "zeros", "", 1, d);
        x[0] = INFINITY;
        fvi_lowbit_row(x, 1, 0, again);
        expect(again[0] == 0, "an infinity", "", 1, d);
    }
}

/* Rows and keys in guarded memory. */
typedef struct pairs {
    guard kt, q, scale, added, start, per, limit;
    int n, d, width, room; /* rows there is room for */
} pairs;

static pairs pairs_make(int n, int d, fvi_rng *r) {
    const int width = (int)fvi_lowbit_width(d), room = (n + 7) / 8 * 8;
    pairs p = {.n = n, .d = d, .width = width, .room = room};
    p.kt = guard_make((size_t)fvi_lowbit_bytes(d), 64, true), p.q = guard_make((size_t)(room * width), 4, true);
    p.scale = guard_make(256, 64, true), p.added = guard_make(256, 64, true);
    p.start = guard_make((size_t)room * 4, 4, true);
    p.per = guard_make((size_t)room * 4, 4, true), p.limit = guard_make((size_t)room * 4, 4, true);
    for (int64_t i = 0; i < fvi_lowbit_bytes(d); i++) {
        p.kt.data[i] = (unsigned char)(1 + fvi_rng_below(r, 15));
    }
    for (int j = 0; j < 64; j++) {
        ((float *)p.scale.data)[j] = (float)fvi_rng_unit(r) + 0.1f;
        ((float *)p.added.data)[j] = (float)fvi_rng_unit(r) - 0.5f;
    }
    for (int i = 0; i < room; i++) {
        int32_t sum = 0;
        for (int c = 0; c < width; c++) {
            int8_t v = (int8_t)(c < d && i < n ? fvi_rng_below(r, 15) - 7 : 0);
            ((int8_t *)p.q.data)[(i / 8 * (width / 4) + c / 4) * 32 + i % 8 * 4 + c % 4] = v;
            sum += v;
        }
        ((int32_t *)p.start.data)[i] = -8 * sum;
        ((float *)p.per.data)[i] = i < n ? (float)fvi_rng_unit(r) * 4 : 0;
        ((float *)p.limit.data)[i] = INFINITY;
    }
    return p;
}

static void pairs_free(pairs *p, const char *level) {
    guard *all[] = {&p->kt, &p->q, &p->scale, &p->added, &p->start, &p->per, &p->limit};
    for (int i = 0; i < 7; i++) {
        expect(guard_intact(all[i]), "guards", level, p->n, p->d);
        guard_free(all[i]);
    }
}

/* What a row's threshold is compared with, for key j. */
static double estimate(const pairs *p, int i, int j) {
    double dot = 0;
    for (int c = 0; c < p->width; c++) {
        dot += ((int8_t *)p->q.data)[(i / 8 * (p->width / 4) + c / 4) * 32 + i % 8 * 4 + c % 4] *
               (p->kt.data[c / 4 * 256 + 4 * j + c % 4] - 8);
    }
    return dot * ((float *)p->scale.data)[j] + (double)((float *)p->added.data)[j] * ((float *)p->per.data)[i];
}

static unsigned ask(const fvi_lowbit_ops *ops, const pairs *p, unsigned halves) {
    fvi_lowbit_rows rows = {
        p->n, p->width, (int8_t *)p->q.data, (int32_t *)p->start.data, (float *)p->per.data, (float *)p->limit.data};
    return ops->above(&rows, p->kt.data, (float *)p->scale.data, (float *)p->added.data, halves);
}

/* Thresholds that no pair reaches; then one row's is moved to both sides of its largest estimate in one half. */
static void check_rows(const fvi_lowbit_ops *ops, const char *level, int n, int d, fvi_rng *r) {
    pairs p = pairs_make(n, d, r);
    float *limit = (float *)p.limit.data;
    for (int i = 0; i < n; i++) {
        double most[2] = {-INFINITY, -INFINITY}, size = 1;
        int best = 0;
        for (int j = 0; j < 64; j++) {
            double x = estimate(&p, i, j);
            best = x > fmax(most[0], most[1]) ? j : best;
            most[j / 32] = fmax(most[j / 32], x);
            size = fmax(size, fabs(x));
        }
        const unsigned higher = most[1] > most[0] ? 2 : 1;
        const double gap = fabs(most[1] - most[0]), top = fmax(most[0], most[1]);
        limit[i] = (float)(top + 1e-6 * size);
        expect(ask(ops, &p, 3) == 0, "below", level, n, d);
        limit[i] = (float)(top - 1e-6 * size);
        if (gap > 3e-6 * size) {
            expect(ask(ops, &p, 3) == higher && ask(ops, &p, 3 - higher) == 0, "one half above", level, n, d);
        }
        float *beside = (float *)p.added.data + (best ^ 16), was = *beside;
        *beside = NAN; /* of another key: the best one still counts */
        expect(ask(ops, &p, 3) & higher, "beside a NaN", level, n, d);
        *beside = was;
        limit[i] = (float)(fmin(most[0], most[1]) - 1e-6 * size);
        expect(ask(ops, &p, 3) == 3 && ask(ops, &p, 1) == 1 && ask(ops, &p, 2) == 2, "above", level, n, d);
        limit[i] = NAN;
        expect(ask(ops, &p, 3) == 0, "NaN", level, n, d);
        limit[i] = INFINITY;
    }
    expect(n > 0 || ask(ops, &p, 3) == 0, "no rows", level, n, d);
    pairs_free(&p, level);
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
