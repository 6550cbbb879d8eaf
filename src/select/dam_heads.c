/* dam_heads.c - a head's columns and diagonals for a profile of DAM: the mean of its attention maps over short prompts, made
 * comparable, cut where the budget says, and the lines that lie in what is left (dam_masks.c). */
#include "select/calibrate.h"
#include "select/dam_masks.h"
#include "select/stripe.h"

#include <stdlib.h>

enum { SHORTEST = 16 };
static const double least_weight = 1e-9, share_of_line = 0.8, default_budget = 0.2;

/* prompts so far; then the sum of their maps, (n, n). */
typedef struct maps {
    int64_t n, prompts;
    double sum[];
} maps;

static const char *refuse(const fvi_calibrate_facts *f) {
    return f->extent.n_q > 2048 ? "its maps are of short inputs: give --tokens 2048 or less" : NULL;
}

static size_t memory_bytes(const fvi_calibrate_facts *f) {
    return sizeof(maps) + (size_t)(f->extent.n_q * f->extent.n_q) * sizeof(double);
}

/* A map and a mask (n, n), a sorted copy of the map, lines, queries and positions, and a stripe. */
static size_t scratch_bytes(const fvi_calibrate_facts *f) {
    const int64_t n = f->extent.n_q, d = f->extent.d_k;
    return (size_t)(n * n) * (sizeof(float) + 1 + sizeof(double)) + (size_t)n * 2 * sizeof(int32_t) + 256 +
           (size_t)(FVI_STRIPE_ROWS * d) * sizeof(float) + FVI_STRIPE_ROWS * sizeof(int64_t) +
           fvi_stripe_bytes(FVI_STRIPE_ROWS, d, f->extent.d_v);
}

static void *take(uint8_t **at, size_t bytes) {
    void *place = *at;
    *at += (bytes + 63) & ~(size_t)63;
    return place;
}

static void add_rows(const fvi_sight *sight, int64_t from, int64_t rows, float *map, float *q, int64_t *position, void *memory) {
    const int64_t n = sight->n_kv;
    sight->rows(sight, FVI_SIDE_Q, from, rows, q);
    for (int64_t r = 0; r < rows; r++) {
        position[r] = sight->offset + from + r;
    }
    fvi_stripe stripe = fvi_stripe_open(sight, q, position, rows, memory);
    for (int64_t b = 0; b < fvi_ceil_div(n, FVI_BLOCK); b++) {
        fvi_stripe_leaf(&stripe, b);
        fvi_stripe_weights(&stripe, 0, rows);
        for (int64_t r = 0; r < rows; r++) {
            for (int64_t j = b * FVI_BLOCK; j < fvi_min(n, (b + 1) * FVI_BLOCK); j++) {
                map[(from + r) * n + j] = stripe.s[r * FVI_BLOCK + j % FVI_BLOCK];
            }
        }
    }
}

static void add(const fvi_calibrate_facts *f, const fvi_select *s, void *memory, void *scratch) {
    const fvi_sight *sight = s->sight;
    const int64_t n = sight->n_kv;
    uint8_t *at = scratch;
    maps *m = memory;
    float *q = take(&at, (size_t)(FVI_STRIPE_ROWS * sight->d_k) * sizeof *q);
    int64_t *position = take(&at, FVI_STRIPE_ROWS * sizeof *position);
    void *stripe = take(&at, fvi_stripe_bytes(FVI_STRIPE_ROWS, sight->d_k, sight->d_v));
    float *map = take(&at, (size_t)(n * n) * sizeof *map);
    if (m->prompts > 0 && n != m->n) { /* a shorter text at the end: maps of one size only */
        return;
    }
    for (int64_t from = 0; from < n; from += FVI_STRIPE_ROWS) {
        add_rows(sight, from, fvi_min(FVI_STRIPE_ROWS, n - from), map, q, position, stripe);
    }
    fvi_dam_add(map, n, m->sum);
    m->n = n;
    m->prompts++;
    (void)f;
}

static int64_t most(const fvi_calibrate_facts *f) { return 1 + 2 * f->extent.n_q; }

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The weight that a share `budget` of the triangle reaches. */
static double cut_at(const double *map, int64_t n, double budget, double *sorted) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j <= i; j++) {
            sorted[count++] = map[i * n + j];
        }
    }
    qsort(sorted, (size_t)count, sizeof *sorted, ascending);
    return sorted[fvi_max(0, fvi_min(count - 1, (int64_t)((1 - budget) * (double)count)))];
}

static int64_t find(const fvi_calibrate_facts *f, void *memory, void *scratch, double *number) {
    maps *m = memory;
    const int64_t n = m->n;
    uint8_t *at = scratch;
    double *sorted = take(&at, (size_t)(n * n) * sizeof *sorted);
    unsigned char *mask = take(&at, (size_t)(n * n));
    fvi_dam_lines lines = {.column = take(&at, (size_t)n * sizeof(int32_t)), .diagonal = take(&at, (size_t)n * sizeof(int32_t))};
    fvi_dam_mean(m->sum, n, m->prompts);
    fvi_dam_transform(m->sum, n, least_weight, fvi_dam_power(m->sum, n, least_weight));
    fvi_dam_threshold(m->sum, n, cut_at(m->sum, n, f->budget > 0 ? f->budget : default_budget, sorted), mask);
    fvi_dam_match(mask, n, share_of_line, SHORTEST, &lines);
    return fvi_dam_numbers(&lines, number);
}

const fvi_calibration fvi_calibrate_dam = {
    .memory_bytes = memory_bytes, .scratch_bytes = scratch_bytes, .add = add, .most = most, .find = find, .refuse = refuse};
