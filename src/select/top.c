/* top.c - see top.h. Quickselect for the k-th largest, then one pass that takes what is above it and the first of its equals. */
#include "select/top.h"

#include <string.h>

/* Ascends with x; -0 is 0. */
static uint32_t ascending(float x) {
    float y = x + 0.0f;
    uint32_t bits;
    memcpy(&bits, &y, sizeof bits);
    return bits ^ (bits >> 31 ? UINT32_MAX : UINT32_C(1) << 31);
}

static uint32_t middle(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t low = a < b ? a : b, high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

/* The k-th largest of x (n), 1 <= k <= n; other (n) is room. Both sides of a cut are written without a branch: scores come in
 * no order that could be foreseen. */
static uint32_t nth_largest(uint32_t *x, int64_t n, int64_t k, uint32_t *other) {
    for (;;) {
        uint32_t pivot = middle(x[0], x[n / 2], x[n - 1]);
        int64_t above = 0, below = 0;
        for (int64_t i = 0; i < n; i++) {
            uint32_t v = x[i];
            other[above] = v;
            above += v > pivot;
            x[below] = v;
            below += v < pivot;
        }
        if (k <= above) {
            uint32_t *swap = x;
            x = other;
            other = swap;
            n = above;
        } else if (k <= n - below) {
            return pivot;
        } else {
            k -= n - below;
            n = below;
        }
    }
}

void fvi_top(const float *x, int64_t n, int64_t k, uint32_t *room, int32_t *out) {
    if (k <= 0) {
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        room[i] = ascending(x[i]);
    }
    uint32_t least = nth_largest(room, n, k, room + n);
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
