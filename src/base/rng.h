/* rng.h - splitmix64: small, seedable, the same everywhere. */
#ifndef FVI_RNG_H
#define FVI_RNG_H

#include <stdint.h>

typedef struct fvi_rng {
    uint64_t state;
} fvi_rng;

static inline uint64_t fvi_rng_next(fvi_rng *r) {
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
/* [0, 1) */
static inline double fvi_rng_unit(fvi_rng *r) { return (double)(fvi_rng_next(r) >> 11) * 0x1p-53; }
static inline int64_t fvi_rng_below(fvi_rng *r, int64_t n) { return (int64_t)(fvi_rng_next(r) % (uint64_t)n); }

#endif
