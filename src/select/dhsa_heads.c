/* dhsa_heads.c - a head's boundary predictor for a profile of DHSA: places of each prompt are labelled by the head's own
 * attention, and the network is trained on them as the prompt is seen (boundary_train.c).
 *
 * Features are brought to mean 0 and deviation 1 by those of the first prompt, as the official code's norm does for the keys that
 * it encodes; the profile's weights are for features as they are. The official training takes one step a text over thousands of
 * texts, for all layers together; here there are few, so that a prompt serves `PASSES` times in steps of `BATCH` places. What
 * is random depends on layer, head and prompt alone. */
#include "select/boundary_train.h"
#include "select/calibrate.h"
#include "select/stripe.h"

#include <math.h>
#include <string.h>

enum { PASSES = 8, BATCH = 32, SHORTEST = 64 };
static const double boundary_ratio = 2;

/* Numbers behind it: mean and deviation of features (width), weights, gradient and Adam's two moments (weights). */
typedef struct learner {
    int64_t prompts, steps;
    double at[];
} learner;

typedef struct desk {
    float *key;                    /* (n, d) */
    float *q, *mean, *x;           /* (STRIPE_ROWS, d), (2, d), (width) */
    double *column, *band, *ratio; /* (n), (n, BAND), (n) */
    int64_t *position;             /* (STRIPE_ROWS) */
    int32_t *order;                /* (n) */
    void *stripe;
} desk;

static size_t padded(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* One function lays scratch out and measures it. */
static size_t lay_out(int64_t n, int64_t d, int64_t d_v, uint8_t *base, desk *out) {
    const size_t rows = FVI_STRIPE_ROWS, keys = (size_t)n, width = (size_t)d;
    const struct {
        void **to;
        size_t bytes;
    } part[] = {{(void **)&out->key, keys * width * sizeof *out->key},
                {(void **)&out->q, rows * width * sizeof *out->q},
                {(void **)&out->mean, 2 * width * sizeof *out->mean},
                {(void **)&out->x, (size_t)fvi_boundary_width(d) * sizeof *out->x},
                {(void **)&out->column, keys * sizeof *out->column},
                {(void **)&out->band, keys * FVI_BOUNDARY_BAND * sizeof *out->band},
                {(void **)&out->ratio, keys * sizeof *out->ratio},
                {(void **)&out->position, rows * sizeof *out->position},
                {(void **)&out->order, keys * sizeof *out->order},
                {&out->stripe, fvi_stripe_bytes(FVI_STRIPE_ROWS, d, d_v)}};
    size_t used = 0;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        *part[i].to = base == NULL ? NULL : base + used;
        used += padded(part[i].bytes);
    }
    return used;
}

static const char *refuse(const fvi_calibrate_facts *f) {
    return f->extent.n_q < SHORTEST ? "its labels are of places in a text: give --tokens 64 or more" : NULL;
}

static size_t memory_bytes(const fvi_calibrate_facts *f) {
    const int64_t d = f->extent.d_k;
    return sizeof(learner) + (size_t)(2 * fvi_boundary_width(d) + 4 * fvi_boundary_weights(d)) * sizeof(double);
}

static size_t scratch_bytes(const fvi_calibrate_facts *f) {
    desk none;
    return lay_out(f->extent.n_q, f->extent.d_k, f->extent.d_v, NULL, &none);
}

/* ---- labels ---- */

static void add_leaf(const fvi_stripe *s, int64_t first, int64_t n, desk *t) {
    for (int64_t r = 0; r < n; r++) {
        const int64_t row = s->position[first + r], from = s->leaf * FVI_LEAF;
        const float *weight = s->s + r * FVI_LEAF;
        for (int64_t j = from; j <= fvi_min(row, from + FVI_LEAF - 1); j++) {
            t->column[j] += (double)weight[j - from];
            if (row - j < FVI_BOUNDARY_BAND) {
                t->band[j * FVI_BOUNDARY_BAND + row - j] = (double)weight[j - from];
            }
        }
    }
}

static void label(const fvi_sight *sight, desk *t) {
    const int64_t n = sight->n_kv;
    memset(t->column, 0, (size_t)n * sizeof *t->column);
    memset(t->band, 0, (size_t)n * FVI_BOUNDARY_BAND * sizeof *t->band);
    for (int64_t from = 0; from < n; from += FVI_STRIPE_ROWS) {
        const int64_t rows = fvi_min(FVI_STRIPE_ROWS, n - from);
        sight->rows(sight, FVI_SIDE_Q, from, rows, t->q);
        for (int64_t r = 0; r < rows; r++) {
            t->position[r] = from + r;
        }
        fvi_stripe s = fvi_stripe_open(sight, t->q, t->position, rows, t->stripe);
        for (int64_t leaf = 0; leaf * FVI_LEAF < from + rows; leaf++) {
            const int64_t first = fvi_stripe_leaf(&s, leaf);
            fvi_stripe_weights(&s, first, rows - first);
            add_leaf(&s, first, rows - first, t);
        }
    }
    fvi_boundary_ratios(t->column, t->band, n, t->ratio);
}

/* ---- training ---- */

static uint64_t draw(uint64_t *seed) {
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 33;
}

static void begin(double *weight, int64_t d, uint64_t *seed) {
    const int64_t n = fvi_boundary_weights(d), last = n - FVI_BOUNDARY_HIDDEN - 1;
    for (int64_t i = 0; i < n; i++) {
        const double reach = 1 / sqrt(i < last ? (double)fvi_boundary_width(d) : FVI_BOUNDARY_HIDDEN);
        weight[i] = reach * ((double)draw(seed) * 0x1p-30 - 1);
    }
}

static const float *look(const desk *t, int64_t place, int64_t d) {
    fvi_boundary_look(t->key + (place - FVI_BOUNDARY_WINDOW) * d, d, t->mean, t->x);
    return t->x;
}

/* Means and deviations of the features of n places. */
static void find_scale(const desk *t, int64_t n, int64_t d, double *mean, double *deviation) {
    const int64_t width = fvi_boundary_width(d);
    memset(mean, 0, (size_t)width * sizeof *mean);
    memset(deviation, 0, (size_t)width * sizeof *deviation);
    for (int64_t i = 0; i < n; i++) {
        const float *x = look(t, t->order[i], d);
        for (int64_t k = 0; k < width; k++) {
            mean[k] += (double)x[k];
            deviation[k] += (double)x[k] * (double)x[k];
        }
    }
    for (int64_t k = 0; k < width; k++) {
        mean[k] /= (double)n;
        deviation[k] = sqrt(fmax(deviation[k] / (double)n - mean[k] * mean[k], 1e-12));
    }
}

static void shuffle(int32_t *order, int64_t n, uint64_t *seed) {
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t j = (int64_t)(draw(seed) % (uint64_t)(i + 1));
        const int32_t moved = order[i];
        order[i] = order[j];
        order[j] = moved;
    }
}

static void train(learner *l, desk *t, int64_t n, int64_t d, uint64_t *seed) {
    const int64_t width = fvi_boundary_width(d), weights = fvi_boundary_weights(d);
    double *mean = l->at, *deviation = mean + width, *weight = deviation + width, *gradient = weight + weights;
    if (l->prompts == 0) {
        find_scale(t, n, d, mean, deviation);
        begin(weight, d, seed);
    }
    for (int pass = 0; pass < PASSES; pass++) {
        shuffle(t->order, n, seed);
        for (int64_t from = 0; from < n; from += BATCH) {
            const int64_t to = fvi_min(n, from + BATCH);
            for (int64_t i = from; i < to; i++) {
                look(t, t->order[i], d);
                for (int64_t k = 0; k < width; k++) {
                    t->x[k] = (float)(((double)t->x[k] - mean[k]) / deviation[k]);
                }
                fvi_boundary_gradient(weight, t->x, d, t->ratio[t->order[i]] >= boundary_ratio, gradient);
            }
            for (int64_t k = 0; k < weights; k++) {
                gradient[k] /= (double)(to - from);
            }
            fvi_boundary_step(weight, gradient, gradient + weights, gradient + 2 * weights, weights, ++l->steps);
        }
    }
}

static void add(const fvi_calibrate_facts *f, const fvi_select *s, void *memory, void *scratch) {
    const fvi_sight *sight = s->sight;
    const int64_t n = sight->n_kv, d = sight->d_k;
    learner *l = memory;
    desk t;
    (void)f;
    lay_out(f->extent.n_q, d, sight->d_v, scratch, &t);
    label(sight, &t);
    sight->rows(sight, FVI_SIDE_K, 0, n, t.key);
    int64_t places = 0;
    for (int64_t p = 0; p < n; p++) {
        if (t.ratio[p] > 0) {
            t.order[places++] = (int32_t)p;
        }
    }
    uint64_t seed = (uint64_t)sight->layer << 40 ^ (uint64_t)sight->head << 20 ^ (uint64_t)l->prompts;
    draw(&seed);
    if (places > 0) {
        train(l, &t, places, d, &seed);
        l->prompts++;
    }
}

/* ---- the profile ---- */

static int64_t most(const fvi_calibrate_facts *f) { return FVI_BOUNDARY_HEAD + fvi_boundary_weights(f->extent.d_k); }

/* Weights for features as they are: what they are brought to goes into the first layer. */
static int64_t find(const fvi_calibrate_facts *f, void *memory, void *scratch, double *number) {
    const learner *l = memory;
    const int64_t d = f->extent.d_k, width = fvi_boundary_width(d), weights = fvi_boundary_weights(d);
    const double *mean = l->at, *deviation = mean + width, *weight = deviation + width;
    double *out = number + FVI_BOUNDARY_HEAD, *bias = out + width * FVI_BOUNDARY_HIDDEN;
    (void)scratch;
    if (l->prompts == 0) {
        return 0;
    }
    memcpy(number, (const double[]){FVI_BOUNDARY_FORM, FVI_BOUNDARY_WINDOW, FVI_BOUNDARY_HIDDEN, FVI_BOUNDARY_APART},
           FVI_BOUNDARY_HEAD * sizeof *number);
    memcpy(out, weight, (size_t)weights * sizeof *out);
    for (int64_t i = 0; i < width; i++) {
        for (int h = 0; h < FVI_BOUNDARY_HIDDEN; h++) {
            double *w = &out[i * FVI_BOUNDARY_HIDDEN + h];
            *w /= deviation[i];
            bias[h] -= *w * mean[i];
        }
    }
    for (int64_t i = 0; i < weights; i++) {
        out[i] = (double)(float)out[i]; /* as they will be used */
    }
    return FVI_BOUNDARY_HEAD + weights;
}

const fvi_calibration fvi_calibrate_dhsa = {
    .memory_bytes = memory_bytes, .scratch_bytes = scratch_bytes, .add = add, .most = most, .find = find, .refuse = refuse};
