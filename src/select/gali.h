/* gali.h - where n keys stand in the positions that a model was trained on: see gali.c. */
#ifndef FVI_GALI_H
#define FVI_GALI_H

#include "base/base.h"

/* Keys 0 .. early - 1 share positions 0 .. shared - 1, `steps` a position; each later one has a position of its own. */
typedef struct fvi_gali_spread {
    int64_t steps, shared, early;
} fvi_gali_spread;

/* local < trained. */
fvi_gali_spread fvi_gali_spread_of(int64_t trained, int64_t local, int64_t n);

static inline int64_t fvi_gali_floor(const fvi_gali_spread *s, int64_t key) {
    return key < s->early ? key / s->steps : s->shared + key - s->early;
}
static inline int64_t fvi_gali_ceil(const fvi_gali_spread *s, int64_t key) {
    return key < s->early ? fvi_ceil_div(key, s->steps) : s->shared + key - s->early;
}

#endif
