/* rank.c - see rank.h. A radix sort, eight bits at a time: it is stable, which is what puts lower numbers first. */
#include "select/rank.h"

#include <string.h>

enum { DIGITS = 4, VALUES = 256 };

/* Ascends where x descends. -0 is 0. */
static uint32_t descending(float x) {
    float y = x + 0.0f;
    uint32_t bits;
    memcpy(&bits, &y, sizeof bits);
    return ~(bits ^ (bits >> 31 ? UINT32_MAX : UINT32_C(1) << 31));
}

/* The places where numbers of each value of the digit begin. */
static void places(const float *x, int64_t n, int digit, int32_t at[VALUES]) {
    int32_t count[VALUES] = {0}, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        count[descending(x[i]) >> (8 * digit) & 255]++;
    }
    for (int v = 0; v < VALUES; v++) {
        at[v] = sum;
        sum += count[v];
    }
}

void fvi_rank(const float *x, int64_t n, int32_t *order, int32_t *room) {
    int32_t at[VALUES], *from = order, *to = room;
    for (int64_t i = 0; i < n; i++) {
        order[i] = (int32_t)i;
    }
    for (int digit = 0; digit < DIGITS; digit++) {
        places(x, n, digit, at);
        for (int64_t i = 0; i < n; i++) {
            to[at[descending(x[from[i]]) >> (8 * digit) & 255]++] = from[i];
        }
        int32_t *swap = from;
        from = to;
        to = swap;
    }
}

int64_t fvi_rank_cover(const float *x, const int32_t *order, int64_t n, double held, double mass) {
    int64_t taken = 0;
    for (; taken < n && held < mass; taken++) {
        held += (double)x[order[taken]];
    }
    return taken;
}
