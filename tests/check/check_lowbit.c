/* check_lowbit.c - kernel/lowbit.h at every level against double: rounding to four bits, the sums that leave pairs out, and the
 * halves with a pair above its threshold. */
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

/* Integers, their places and the rest of a row's and a key's bytes; NaN and infinities give zeros. */
static void check_rounding(const fvi_lowbit_ops *ops, const char *level) {
    fvi_rng r = {3};
    for (int d = 1; d <= 256; d += d < 70 ? 1 : 31) {
        const int width = (d + 3) / 4 * 4, groups = width / 4, early = groups - groups * 3 / 8;
        float x[256];
        int8_t q[264 * 8] = {0}, digit[256];
        uint8_t kt[260 * 64] = {0};
        int32_t zero = 1, late = 1, sum = 0, last = 0;
        double most = 0;
        for (int c = 0; c < d; c++) {
            x[c] = (float)(fvi_rng_unit(&r) - 0.5);
            most = fmax(most, fabs(x[c]));
        }
        float scale = fvi_lowbit_row(ops, x, d, 3, q, &zero, &late), same = fvi_lowbit_key(ops, x, d, 5, kt);
        const int factor = width <= 128 ? 16 : 8;
        bool right = fabs(scale - most / 7) < 1e-6 * most && scale == same && ops->digits(x, d, digit) == scale;
        for (int c = 0; c < width; c++) {
            const int8_t got = digit[c];
            const int at = c / 4 + (c / 4 < early ? 1 : 2);
            right = right && (c < d ? fabs(got - 7 * x[c] / most) <= 0.5001 : got == 0);
            right = right && q[at * 32 + 12 + c % 4] == got * factor && kt[(c / 4 + 1) * 256 + 20 + c % 4] == got + 8;
            sum += got * factor;
            last += c / 4 < early ? 0 : got * factor;
        }
        expect(right && zero == -8 * sum && late == -8 * last, "integers", level, 1, d);
        x[0] = 0;
        expect(ops->digits(x, 1, digit) == 0 && digit[0] == 0, "zeros", level, 1, d);
        x[0] = INFINITY;
        ops->digits(x, d, digit);
        expect(digit[0] == 0 && digit[d - 1] == 0, "an infinity", level, 1, d);
        x[0] = NAN;
        expect(fabs(ops->digits(x, d, digit) - (d > 1 ? 1 : 0) * scale) <= scale && digit[0] == 0, "NaN", level, 1, d);
    }
}

/* Rows and keys in guarded memory. */
typedef struct pairs {
    guard kt, q, scale, added, zero, late, start, per, limit;
    int n, d, width, room; /* rows there is room for */
} pairs;

/* Whole numbers from -7 to 7, one of them 7: their own integers. */
static void whole(fvi_rng *r, int d, float *x) {
    for (int c = 0; c < d; c++) {
        x[c] = (float)fvi_rng_below(r, 15) - 7;
    }
    x[fvi_rng_below(r, (uint64_t)d)] = 7;
}

static pairs pairs_make(const fvi_lowbit_ops *ops, int n, int d, fvi_rng *r) {
    const int width = (int)fvi_lowbit_width(d), room = (n + 7) / 8 * 8;
    pairs p = {.n = n, .d = d, .width = width, .room = room};
    float x[256];
    p.kt = guard_make((size_t)fvi_lowbit_bytes(d), 64, true);
    p.q = guard_make((size_t)(room * fvi_lowbit_row_bytes(d)), 4, true);
    p.scale = guard_make(256, 64, true), p.added = guard_make(256, 64, true);
    guard *of_rows[] = {&p.zero, &p.late, &p.start, &p.per, &p.limit};
    for (int i = 0; i < 5; i++) {
        *of_rows[i] = guard_make((size_t)room * 4, 4, true);
    }
    for (int j = 0; j < 64; j++) {
        whole(r, d, x);
        expect(fvi_lowbit_key(ops, x, d, j, p.kt.data) == 1, "a key's scale", "", n, d);
        ((float *)p.scale.data)[j] = (float)fvi_rng_unit(r) + 0.1f;
        ((float *)p.added.data)[j] = (float)fvi_rng_unit(r) - 0.5f;
    }
    for (int i = 0; i < room; i++) {
        int32_t *zero = (int32_t *)p.zero.data + i, *late = (int32_t *)p.late.data + i;
        if (i < n) {
            whole(r, d, x);
            expect(fvi_lowbit_row(ops, x, d, i, (int8_t *)p.q.data, zero, late) == 1, "a row's scale", "", n, d);
        } else {
            *zero = *late = 0;
            ((int32_t *)p.start.data)[i] = fvi_lowbit_no_row(width, i, (int8_t *)p.q.data);
        }
        ((float *)p.per.data)[i] = i < n ? (float)fvi_rng_unit(r) * 4 : 0;
        ((float *)p.limit.data)[i] = INFINITY;
    }
    return p;
}

static void pairs_free(pairs *p, const char *level) {
    guard *all[] = {&p->kt, &p->q, &p->scale, &p->added, &p->zero, &p->late, &p->start, &p->per, &p->limit};
    for (int i = 0; i < 9; i++) {
        expect(guard_intact(all[i]), "guards", level, p->n, p->d);
        guard_free(all[i]);
    }
}

static int dot_of(const pairs *p, int i, int j) {
    int dot = 0, early = p->width / 4 - p->width / 4 * 3 / 8;
    for (int c = 0; c < p->width; c++) {
        const int at = c / 4 + (c / 4 < early ? 1 : 2);
        dot += ((int8_t *)p->q.data)[(i / 8 * (p->width / 4 + 2) + at) * 32 + i % 8 * 4 + c % 4] *
               (p->kt.data[(c / 4 + 1) * 256 + 4 * j + c % 4] - 8);
    }
    return dot / (p->width <= 128 ? 16 : 8);
}

/* What a row's threshold is compared with, for key j. */
static double estimate(const pairs *p, int i, int j) {
    return (double)dot_of(p, i, j) * ((float *)p->scale.data)[j] +
           (double)((float *)p->added.data)[j] * ((float *)p->per.data)[i];
}

/* The edges, for the scales and thresholds as they are now. */
static void set_edges(const pairs *p) {
    const fvi_lowbit_units u = fvi_lowbit_units_of(64, (float *)p->scale.data, (float *)p->added.data);
    fvi_lowbit_key_edges(&u, (float *)p->scale.data, (float *)p->added.data, p->kt.data);
    for (int i = 0; i < p->n; i++) {
        const int32_t zero = ((int32_t *)p->zero.data)[i] - ((int32_t *)p->late.data)[i];
        ((int32_t *)p->start.data)[i] = fvi_lowbit_row_edge(&u, p->width, i, ((float *)p->per.data)[i],
                                                            ((float *)p->limit.data)[i], zero, (int8_t *)p->q.data);
    }
}

static unsigned ask(const fvi_lowbit_ops *ops, const pairs *p, unsigned halves) {
    static fvi_lowbit_hint hint;
    fvi_lowbit_rows rows = {.n = p->n,
                            .width = p->width,
                            .q = (int8_t *)p->q.data,
                            .zero = (int32_t *)p->zero.data,
                            .late = (int32_t *)p->late.data,
                            .start = (int32_t *)p->start.data,
                            .per_scale = (float *)p->per.data,
                            .limit = (float *)p->limit.data};
    set_edges(p);
    return ops->above(&rows, p->kt.data, (float *)p->scale.data, (float *)p->added.data, halves, &hint);
}

/* The sums that begin with the edge: over the early numbers and over all, for row i and key j. */
static void edge_sums(const pairs *p, int i, int j, double *over_early, double *over_all) {
    const int groups = p->width / 4, early = groups - groups * 3 / 8;
    double sum = ((int32_t *)p->start.data)[i];
    for (int g = 0; g < groups + 2; g++) {
        const int key = g == early + 1 ? 0 : g > early ? g - 1 : g;
        for (int b = 0; b < 4; b++) {
            sum += ((int8_t *)p->q.data)[(i / 8 * (groups + 2) + g) * 32 + i % 8 * 4 + b] * p->kt.data[key * 256 + 4 * j + b];
        }
        *over_early = g == early ? sum : *over_early;
    }
    *over_all = sum + ((int32_t *)p->late.data)[i];
}

/* Neither sum is ever too small, the second is not much too large, and the first is negative where the lengths say so. */
static void check_edges(const fvi_lowbit_ops *ops, const char *level, int d, fvi_rng *r) {
    pairs p = pairs_make(ops, 8, d, r);
    const double factor = p.width <= 128 ? 16 : 8;
    bool sound = true, near = true, early = true;
    for (int j = 0; j < 64; j++) {
        ((float *)p.scale.data)[j] = 0.8f + 0.4f * (float)fvi_rng_unit(r);
    }
    for (int i = 0; i < 8; i++) {
        ((float *)p.limit.data)[i] = (float)(4 * p.width * (1 + fvi_rng_unit(r) / 2));
    }
    set_edges(&p);
    for (int i = 0; i < 8; i++) {
        for (int j = 0; j < 64; j++) {
            const double scale = ((float *)p.scale.data)[j], limit = ((float *)p.limit.data)[i] / scale;
            const double exact = factor * (estimate(&p, i, j) / scale - limit);
            double over_early = 0, over_all = 0;
            edge_sums(&p, i, j, &over_early, &over_all);
            sound = sound && over_all >= exact && over_early >= exact;
            near = near && over_all <= exact + factor * (0.04 * limit + 16);
            early = early && over_early <= exact + factor * (0.04 * limit + 16 + 2.2 * 49 * (p.width * 3 / 8 + 4));
        }
    }
    expect(sound, "sums that are too small", level, 8, d);
    expect(near, "sums that are too large", level, 8, d);
    expect(early, "lengths that are too large", level, 8, d);
    pairs_free(&p, level);
}

/* Thresholds that no pair reaches; then one row's is moved to both sides of its largest estimate in one half. */
static void check_rows(const fvi_lowbit_ops *ops, const char *level, int n, int d, fvi_rng *r) {
    pairs p = pairs_make(ops, n, d, r);
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
        *beside = INFINITY; /* above, whatever the products are */
        expect(ask(ops, &p, 3) & 1u << (best ^ 16) / 32 || ((float *)p.per.data)[i] == 0, "an infinity", level, n, d);
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
    check_rounding(ops, level);
    for (int d = 1; d <= 256; d += d < 9 ? 1 : 13) {
        check_edges(ops, level, d, &r);
    }
    for (int n = 0; n <= 64; n += n < 10 ? 1 : 9) {
        for (int d = 1; d <= 256; d += d < 9 ? 1 : 31) {
            check_rows(ops, level, n, d, &r);
        }
    }
}

int main(void) {
    fvi_cpu cpu = fvi_cpu_detect();
    fvi_lowbit_ops ops;
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
