/* theta_heads.c - thresholds of a head for a profile of Top-Theta: a tenth of the rows of each prompt, spread over their lengths,
 * and the paper's mean plus a tenth of the deviation over rows of one length. */
#include "select/calibrate.h"
#include "select/theta_calibrate.h"

enum { K = 1, ROWS = 64, EVERY = 10 }; /* K: its place among the parameters */
static const double sigmas = 0.1;

typedef struct samples {
    int64_t n;
    fvi_theta_sample at[]; /* (prompts * rows) */
} samples;

static int64_t rows_of(const fvi_calibrate_facts *f) { return fvi_ceil_div(f->extent.n_q, EVERY); }

static size_t memory_bytes(const fvi_calibrate_facts *f) {
    return sizeof(samples) + (size_t)(f->prompts * rows_of(f)) * sizeof(fvi_theta_sample);
}

static int64_t score_floats(const fvi_calibrate_facts *f) { return ROWS * fvi_round_up(f->extent.n_kv, FVI_BLOCK); }

/* Scores (ROWS, n), a leaf's (ROWS, 64), queries (ROWS, d), and the look. */
static size_t scratch_bytes(const fvi_calibrate_facts *f) {
    const fvi_extent *e = &f->extent;
    return (size_t)(score_floats(f) + ROWS * FVI_BLOCK + fvi_round_up(ROWS * e->d_k, 16)) * sizeof(float) +
           fvi_look_bytes(ROWS, e->d_k, e->d_v);
}

/* Rows first, first + EVERY, ...: n of them, all their scores in s, `width` apart. */
static void score_rows(const fvi_sight *sight, int64_t first, int64_t n, int64_t width, float *s, float *leaf, float *q,
                       void *memory) {
    for (int64_t r = 0; r < n; r++) {
        sight->rows(sight, FVI_SIDE_Q, first + r * EVERY, 1, q + r * sight->d_k);
    }
    fvi_look look = fvi_look_open(sight, q, n, memory);
    for (int64_t b = 0; b < fvi_ceil_div(sight->n_kv, FVI_BLOCK); b++) {
        fvi_look_scores(&look, b, sight->scale, leaf);
        for (int64_t r = 0; r < n; r++) {
            for (int64_t j = 0; j < FVI_BLOCK; j++) {
                s[r * width + b * FVI_BLOCK + j] = leaf[r * FVI_BLOCK + j];
            }
        }
    }
}

static void add(const fvi_calibrate_facts *f, const fvi_select *select, void *memory, void *scratch) {
    const fvi_sight *sight = select->sight;
    const int64_t width = fvi_round_up(sight->n_kv, FVI_BLOCK), k = (int64_t)f->value[K];
    float *s = scratch, *leaf = s + score_floats(f), *q = leaf + ROWS * FVI_BLOCK;
    void *look = q + fvi_round_up(ROWS * sight->d_k, 16);
    samples *all = memory;
    for (int64_t first = k; first < sight->n_q; first += ROWS * EVERY) {
        const int64_t n = fvi_min(ROWS, fvi_ceil_div(sight->n_q - first, EVERY));
        score_rows(sight, first, n, width, s, leaf, q, look);
        for (int64_t r = 0; r < n; r++) {
            all->at[all->n++] = fvi_theta_of_row(s + r * width, first + r * EVERY + 1, k);
        }
    }
}

static int64_t most(const fvi_calibrate_facts *f) { return 3 * f->prompts * rows_of(f) + 3; }

static int64_t find(const fvi_calibrate_facts *f, void *memory, void *scratch, double *number) {
    samples *all = memory;
    (void)f;
    (void)scratch;
    return fvi_theta_calibrate(all->at, all->n, sigmas, number);
}

const fvi_calibration fvi_calibrate_theta = {
    .memory_bytes = memory_bytes, .scratch_bytes = scratch_bytes, .add = add, .most = most, .find = find};
