/* sift_inline.h - what the levels of sift.h's quickselect share: where to cut, and which side goes on. */
#ifndef FVI_SIFT_INLINE_H
#define FVI_SIFT_INLINE_H

#include <stdbool.h>
#include <stdint.h>

/* The k-th largest of x (n) is wanted, 1 <= k <= n; other (n) is room. */
typedef struct sift_part {
    uint32_t *x, *other;
    int64_t n, k;
} sift_part;

/* The middle one of three. */
static inline uint32_t sift_pivot(const sift_part *p) {
    uint32_t a = p->x[0], b = p->x[p->n / 2], c = p->x[p->n - 1];
    uint32_t low = a < b ? a : b, high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

/* After a cut that left `above` of the pivot in other and `below` in x: false if the pivot is the one. */
static inline bool sift_narrow(sift_part *p, int64_t above, int64_t below) {
    if (p->k <= above) {
        *p = (sift_part){p->other, p->x, above, p->k};
        return true;
    }
    if (p->k <= p->n - below) {
        return false;
    }
    p->k -= p->n - below;
    p->n = below;
    return true;
}

#endif
