/* sift_c.c - sift.h in portable C, and the choice of a level. */
#include "kernel/sift.h"
#include "kernel/sift_inline.h"

#include <math.h>
#include <string.h>

static void largest(const float *s, int rows, const uint64_t *seen, float *most) {
    for (int r = 0; r < rows; r++, s += 64) {
        float top = -INFINITY;
        for (uint64_t left = seen[r]; left != 0; left &= left - 1) {
            int j = __builtin_ctzll(left);
            top = s[j] > top ? s[j] : top;
        }
        most[r] = top;
    }
}

static void columns(const float *s, int rows, float *most) {
    for (int j = 0; j < 64; j++) {
        most[j] = -INFINITY;
    }
    for (int r = 0; r < rows; r++, s += 64) {
        for (int j = 0; j < 64; j++) {
            most[j] = s[j] > most[j] ? s[j] : most[j];
        }
    }
}

static void above(const float *s, int rows, const float *theta, uint64_t *seen) {
    for (int r = 0; r < rows; r++, s += 64) {
        uint64_t bits = 0;
        for (int j = 0; j < 64; j++) {
            bits |= (uint64_t)(s[j] > theta[r]) << j;
        }
        seen[r] &= bits;
    }
}

static void weigh(float *s, int rows, const int32_t *own, const int32_t *block, const float *weight, uint64_t in,
                  uint64_t *seen) {
    for (int r = 0; r < rows; r++, s += 64) {
        uint64_t visits = 0;
        for (int j = 0; j < 64; j++) {
            const float add = block[j] == own[r] ? 0 : weight[j];
            s[j] += in >> j & 1 ? add : 0;
            visits |= (uint64_t)(add != -INFINITY) << j;
        }
        seen[r] &= ~in | visits;
    }
}

/* Ascends with x; -0 is 0. */
static uint32_t ascending(float x) {
    float y = x + 0.0f;
    uint32_t bits;
    memcpy(&bits, &y, sizeof bits);
    return bits ^ (bits >> 31 ? UINT32_MAX : UINT32_C(1) << 31);
}

/* Quickselect. Both sides of a cut are written without a branch: scores come in no order that could be foreseen. */
static uint32_t nth_largest(sift_part p) {
    for (;;) {
        uint32_t pivot = sift_pivot(&p);
        int64_t above = 0, below = 0;
        for (int64_t i = 0; i < p.n; i++) {
            uint32_t v = p.x[i];
            p.other[above] = v;
            above += v > pivot;
            p.x[below] = v;
            below += v < pivot;
        }
        if (!sift_narrow(&p, above, below)) {
            return pivot;
        }
    }
}

/* What is above the k-th largest, and the first of its equals. */
static void top(const float *x, int64_t n, int64_t k, uint32_t *room, int32_t *out) {
    if (k <= 0) {
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        room[i] = ascending(x[i]);
    }
    uint32_t least = nth_largest((sift_part){room, room + n, n, k});
    int64_t above = 0, taken = 0;
    for (int64_t i = 0; i < n; i++) {
        above += ascending(x[i]) > least;
    }
    int64_t equals = k - above;
    for (int64_t i = 0; taken < k; i++) {
        uint32_t v = ascending(x[i]);
        bool take = v > least || (v == least && equals > 0);
        equals -= v == least;
        out[taken] = (int32_t)i;
        taken += take;
    }
}

void fvi_sift_c(fvi_sift_ops *ops) {
    *ops = (fvi_sift_ops){.largest = largest, .columns = columns, .above = above, .weigh = weigh, .top = top};
}

void fvi_sift_init(const fvi_cpu *cpu, fvi_sift_ops *ops) {
    fvi_sift_c(ops);
#if defined(__x86_64__)
    if (cpu->avx512) {
        fvi_sift_avx512(ops);
    }
#else
    (void)cpu;
#endif
}
