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
