/* check_sift.c - kernel/sift.h at every level, element by element, NaN, infinities and equal scores among them. */
#include "base/rng.h"
#include "kernel/sift.h"
#include "poison.h"

#include <math.h>

static int failures;

static void expect(bool ok, const char *what, const char *level, int rows, int row) {
    if (!ok && failures++ < 20) {
        printf("FAIL %s %s: row %d of %d\n", what, level, row, rows);
    }
}

static float score(fvi_rng *r) {
    static const float special[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1.0f};
    return fvi_rng_below(r, 4) == 0 ? special[fvi_rng_below(r, 6)] : (float)(fvi_rng_below(r, 9) - 4) / 2;
}

static uint64_t bits(fvi_rng *r) {
    uint64_t kind = fvi_rng_next(r) % 4;
    return kind == 0 ? 0 : kind == 1 ? UINT64_MAX : fvi_rng_next(r);
}

static void check_rows(const fvi_sift_ops *ops, const char *level, int rows, fvi_rng *r) {
    guard s = guard_make((size_t)rows * 256, 64, true), most = guard_make((size_t)rows * 4, 4, true);
    guard seen = guard_make((size_t)rows * 8, 8, true), theta = guard_make((size_t)rows * 4, 4, true);
    float *sv = (float *)s.data, *mv = (float *)most.data, *tv = (float *)theta.data;
    uint64_t *ev = (uint64_t *)seen.data, before[40];
    for (int i = 0; i < rows * 64; i++) {
        sv[i] = score(r);
    }
    for (int i = 0; i < rows; i++) {
        before[i] = ev[i] = bits(r);
        tv[i] = score(r);
    }
    ops->largest(sv, rows, ev, mv);
    ops->above(sv, rows, tv, ev);
    for (int i = 0; i < rows; i++) {
        float top = -INFINITY;
        uint64_t want = 0;
        for (int j = 0; j < 64; j++) {
            float x = sv[i * 64 + j];
            bool in = before[i] >> j & 1;
            top = in && !isnan(x) && x > top ? x : top;
            want |= (uint64_t)(in && x > tv[i]) << j;
        }
        expect(mv[i] == top, "largest", level, rows, i);
        expect(ev[i] == want, "above", level, rows, i);
    }
    expect(guard_intact(&s) && guard_intact(&most) && guard_intact(&seen) && guard_intact(&theta), "guards", level, rows, 0);
    guard_free(&s), guard_free(&most), guard_free(&seen), guard_free(&theta);
}

static void check_columns(const fvi_sift_ops *ops, const char *level, int rows, fvi_rng *r) {
    guard s = guard_make((size_t)rows * 256, 64, true), most = guard_make(256, 4, true);
    float *sv = (float *)s.data, *mv = (float *)most.data;
    for (int i = 0; i < rows * 64; i++) {
        sv[i] = score(r);
    }
    ops->columns(sv, rows, mv);
    for (int j = 0; j < 64; j++) {
        float want = -INFINITY;
        for (int i = 0; i < rows; i++) {
            want = sv[i * 64 + j] > want ? sv[i * 64 + j] : want;
        }
        expect(mv[j] == want, "columns", level, rows, j);
    }
    expect(guard_intact(&s) && guard_intact(&most), "guards of columns", level, rows, 0);
    guard_free(&s), guard_free(&most);
}

/* NaN by its sign: above or below all. */
static bool before(const float *x, int a, int b) {
    float rank[2] = {x[a], x[b]};
    int kind[2];
    for (int i = 0; i < 2; i++) {
        kind[i] = !isnan(rank[i]) ? 0 : signbit(rank[i]) ? -1 : 1;
        rank[i] = kind[i] == 0 ? rank[i] : 0;
    }
    return kind[0] != kind[1] ? kind[0] > kind[1] : rank[0] != rank[1] ? rank[0] > rank[1] : a < b;
}

static void check_top(const fvi_sift_ops *ops, const char *level, int n, int k, fvi_rng *r) {
    guard x = guard_make((size_t)n * 4, 4, true), room = guard_make((size_t)n * 8, 4, true);
    guard out = guard_make((size_t)k * 4, 4, true);
    float *xv = (float *)x.data;
    const int32_t *ov = (const int32_t *)out.data;
    bool coarse = fvi_rng_below(r, 2) == 0, in_order = true;
    for (int i = 0; i < n; i++) {
        xv[i] = coarse ? score(r) : (float)fvi_rng_below(r, 1 << 20) - (1 << 19);
    }
    ops->top(xv, n, k, (uint32_t *)room.data, (int32_t *)out.data);
    for (int i = 0, taken = 0; i < n; i++) {
        int ahead = 0;
        for (int j = 0; j < n; j++) {
            ahead += before(xv, j, i);
        }
        if (ahead < k) {
            in_order = in_order && ov[taken++] == i;
        }
    }
    expect(in_order, "top", level, n, k);
    expect(guard_intact(&x) && guard_intact(&room) && guard_intact(&out), "guards of top", level, n, k);
    guard_free(&x), guard_free(&room), guard_free(&out);
}

static void check_weights(const fvi_sift_ops *ops, const char *level, int rows, fvi_rng *r) {
    guard s = guard_make((size_t)rows * 256, 64, true), seen = guard_make((size_t)rows * 8, 8, true);
    guard own = guard_make((size_t)rows * 4, 4, true);
    float *sv = (float *)s.data, before[40 * 64], weight[64];
    uint64_t *ev = (uint64_t *)seen.data, seen_before[40], in = bits(r);
    int32_t *ov = (int32_t *)own.data, block[64];
    for (int j = 0; j < 64; j++) {
        block[j] = (int32_t)fvi_rng_below(r, 3);
        weight[j] = fvi_rng_below(r, 2) == 0 ? -INFINITY : (float)fvi_rng_below(r, 5) / 4;
    }
    for (int i = 0; i < rows * 64; i++) {
        before[i] = sv[i] = score(r);
    }
    for (int i = 0; i < rows; i++) {
        seen_before[i] = ev[i] = bits(r);
        ov[i] = (int32_t)fvi_rng_below(r, 3);
    }
    ops->weigh(sv, rows, ov, block, weight, in, ev);
    for (int i = 0; i < rows; i++) {
        bool scores = true, sees = true;
        for (int j = 0; j < 64; j++) {
            const bool inside = in >> j & 1, mine = block[j] == ov[i], visited = !inside || mine || weight[j] > -INFINITY;
            const float x = before[i * 64 + j], want = inside && !mine ? x + weight[j] : x, got = sv[i * 64 + j];
            scores = scores && (!visited || got == want || (isnan(got) && isnan(want)));
            sees = sees && (ev[i] >> j & 1) == ((seen_before[i] >> j & 1) && visited);
        }
        expect(scores, "weights", level, rows, i);
        expect(sees, "weighed keys", level, rows, i);
    }
    expect(guard_intact(&s) && guard_intact(&seen) && guard_intact(&own), "guards of weights", level, rows, 0);
    guard_free(&s), guard_free(&seen), guard_free(&own);
}

static void check_level(const fvi_sift_ops *ops, const char *level) {
    fvi_rng r = {5};
    for (int rows = 0; rows <= 40; rows++) {
        for (int round = 0; round < 20; round++) {
            check_rows(ops, level, rows, &r);
            check_weights(ops, level, rows, &r);
            check_columns(ops, level, rows, &r);
        }
    }
    for (int n = 1; n <= 200; n++) {
        for (int round = 0; round < 4; round++) {
            check_top(ops, level, n, round == 0 ? n : (int)fvi_rng_below(&r, n + 1), &r);
        }
    }
}

int main(void) {
    fvi_cpu cpu = fvi_cpu_detect();
    fvi_sift_ops ops;
    fvi_sift_c(&ops);
    check_level(&ops, "c");
#if defined(__x86_64__)
    if (cpu.avx512) {
        fvi_sift_avx512(&ops);
        check_level(&ops, "avx512");
    }
#else
    (void)cpu;
#endif
    printf("sift: %d failed\n", failures);
    return failures != 0;
}
