/* compare.h - a comparison from inside. */
#ifndef FVI_COMPARE_H
#define FVI_COMPARE_H

#include "lab/lab.h"

struct fv_compare {
    fv_context *ctx;
    fv_compare_row *row;
    int n, capacity;
    char verdict[2048];
};

/* Writes a few sentences about `lengths` groups of `recipes` + 1 rows each, dense first in each group. */
void fvi_compare_verdict(const fv_compare_row *row, int lengths, int recipes, char *out, size_t size);

#endif
