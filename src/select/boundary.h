/* boundary.h - where chunks of keys begin, as DHSA's predictor says: a small network over the keys before and after a place. */
#ifndef FVI_BOUNDARY_H
#define FVI_BOUNDARY_H

#include "base/base.h"

enum {
    FVI_BOUNDARY_WINDOW = 4,    /* keys on either side that are looked at */
    FVI_BOUNDARY_HIDDEN = 8,    /* units */
    FVI_BOUNDARY_APART = 8,     /* two boundaries are further apart than this */
    FVI_BOUNDARY_SEGMENT = 128, /* boundaries are chosen among the places of one, and a chunk begins where one does */
    FVI_BOUNDARY_PLACES = 4,    /* that go through the network side by side */
    FVI_BOUNDARY_FORM = -1,     /* a profile's first number where a predictor follows; then window, hidden, apart, weights */
    FVI_BOUNDARY_HEAD = 4,      /* numbers before the weights */
};

/* Of a place between keys of width d: 4 d + 1. */
static inline int64_t fvi_boundary_width(int64_t d) { return 4 * d + 1; }
/* (width, hidden) from features to units, (hidden) added to them, (hidden) from units to the logit, 1 added to it. */
static inline int64_t fvi_boundary_weights(int64_t d) {
    return fvi_boundary_width(d) * FVI_BOUNDARY_HIDDEN + 2 * FVI_BOUNDARY_HIDDEN + 1;
}

/* x (width) = left, right, |left - right|, left * right, their cosine; left and right (d) are means of the windows' keys. */
void fvi_boundary_features(const float *left, const float *right, int64_t d, float *x);
/* How much each of PLACES places is a boundary, of their features x (PLACES, width); above 0: rather than not. A place's does
 * not depend on the others. */
void fvi_boundary_logits(const float *weight, const float *x, int64_t d, float *logit);
/* The features of the place before key WINDOW of keys (2 WINDOW, d); mean (2, d) is scratch. */
void fvi_boundary_look(const float *keys, int64_t d, float *mean, float *x);

/* Picks up to `most` of the places 0 .. n - 1 by their logits, largest first, each more than `apart` from the ones before it;
 * equal ones by place. -INFINITY: no choice. Leaves them ascending; returns how many. */
int64_t fvi_boundary_pick(const float *logit, int64_t n, int64_t most, int64_t apart, int32_t *place);

#endif
