/* dam_masks.h - from attention maps of short inputs to the columns and diagonals that a head's mask is made of.
 *
 * Maps are (n, n), row by row; what stands right of the diagonal is not read. See dam.c for the paper. */
#ifndef FVI_DAM_MASKS_H
#define FVI_DAM_MASKS_H

#include "base/base.h"

/* sum (n, n) += map. Divide by the number of maps with fvi_dam_mean. */
void fvi_dam_add(const float *map, int64_t n, double *sum);
void fvi_dam_mean(double *sum, int64_t n, int64_t maps);

/* The power of Box and Cox (1964) under which the map's weights are most nearly normal: its likelihood's maximum in [-2, 2].
 * Weights below `least` count as `least`, which is positive. */
double fvi_dam_power(const double *map, int64_t n, double least);
/* Replaces the map's weights by ((w^power - 1) / power, or log w for 0), spread to 0 .. 1 (all 1 where they are equal). */
void fvi_dam_transform(double *map, int64_t n, double least, double power);
/* mask (n, n) bytes = transformed weight >= threshold, 0 right of the diagonal; returns how many are set. */
int64_t fvi_dam_threshold(const double *map, int64_t n, double threshold, unsigned char *mask);

/* Columns and diagonals (distances of a key from its query) of which a share of at least `match` is set and that have at least
 * `shortest` entries. column (n), diagonal (n): ascending. */
typedef struct fvi_dam_lines {
    int64_t columns, diagonals;
    int32_t *column, *diagonal;
} fvi_dam_lines;
void fvi_dam_match(const unsigned char *mask, int64_t n, double match, int64_t shortest, fvi_dam_lines *out);

/* How the lines resemble the mask that they stand for. */
typedef struct fvi_dam_report {
    int64_t set, drawn, both;          /* entries of the mask, of the lines, of both */
    double recall, precision, jaccard; /* both / set, both / drawn, both / either; 1 where nothing is asked for */
    double density;                    /* drawn, of the triangle */
    double mass;                       /* of the mean map, that the lines keep: mean over rows */
} fvi_dam_report;
fvi_dam_report fvi_dam_compare(const unsigned char *mask, const double *mean, int64_t n, const fvi_dam_lines *lines);

/* As a profile has them: how many columns, the columns, the diagonals. number has 1 + columns + diagonals. */
int64_t fvi_dam_numbers(const fvi_dam_lines *lines, double *number);

#endif
