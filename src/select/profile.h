/* profile.h - what was found offline for each layer and head of a model: lists of numbers whose meaning is the method's. */
#ifndef FVI_PROFILE_H
#define FVI_PROFILE_H

#include "base/base.h"

typedef struct fvi_numbers {
    double *number;
    int64_t n;
} fvi_numbers;

struct fv_profile {
    fv_context *ctx;
    char method[64];
    int layers;
    int64_t heads;
    uint64_t model;  /* fingerprint of the model that it was made on; 0: any */
    fvi_numbers *at; /* (layers, heads) */
};

#endif
