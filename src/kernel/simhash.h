/* simhash.h - rows hashed by the signs of random products, read as a Gray code, so that rows of a small angle have near hashes;
 * and the random numbers of a seed for it. Portable C, the same bits everywhere.
 *
 * Charikar: Similarity estimation techniques from rounding algorithms, STOC 2002. */
#ifndef FVI_KERNEL_SIMHASH_H
#define FVI_KERNEL_SIMHASH_H

#include "base/base.h"

enum { FVI_SIMHASH_MOST = 12 }; /* bits of a hash */

/* A number from another, well mixed. */
uint64_t fvi_simhash_mix(uint64_t x);
/* out (n) = normal numbers of the seed. */
void fvi_simhash_project(uint64_t seed, int64_t n, float *out);
/* Sample number `sample` of 0 .. keys - 1. */
int64_t fvi_simhash_draw(uint64_t seed, int64_t head, int64_t first, int64_t keys, int64_t sample);
/* hash (n) of x (n, d), of `bits` bits; projection (d, bits). */
void fvi_simhash_rows(const float *projection, int64_t bits, int64_t d, const float *x, int64_t n, uint16_t *hash);
/* order (n) = rows first .. first + n - 1 by their hashes; equal ones in their order. */
void fvi_simhash_sort(const uint16_t *hash, int64_t bits, int64_t first, int64_t n, int32_t *order);

#endif
