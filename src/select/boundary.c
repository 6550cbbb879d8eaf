/* boundary.c - DHSA's boundary predictor: is there a change between the keys before a place and those after it?
 *
 * Xiong et al., Long-Context Modeling with Dynamic Hierarchical Sparse Attention for On-Device LLMs, 2025 (arXiv 2510.24606),
 * and xiongsiheng/DHSA, boundary_predictor/models.py and legacy/utils/helper.py: windows of 4 keys on both sides are
 * encoded and pooled; both codes, the size of their difference, their product and their cosine go through one hidden layer
 * (ReLU) to a logit; boundaries are taken by their logits, none within 8 keys of another.
 *
 * Differs. There, self-attention over the 8 keys (with its norm) encodes them and 256 units are hidden; here a window's code is
 * its keys' mean, with 8 units, since a prompt has every place looked at in every head. There, keys of all heads
 * before their rotation make boundaries for a layer; here each query head has a predictor over its own keys, as products meet
 * them. There, the best n / chunk places of the whole prompt are taken; here 128 / chunk - 1 in each 128 keys, which begin with a
 * boundary, so that a prompt may come in parts. There, places below a logit of 1.1 are left out; here none are: chunks of 128
 * keys where the predictor is unsure would score badly. */
#include "select/boundary.h"

#include <math.h>
#include <string.h>

enum { LANES = 8 };

/* In lanes, since one chain of additions would wait for each of them; in one order for all widths. */
static float dot(const float *a, const float *b, int64_t d) {
    float lane[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= d; i += LANES) {
        for (int k = 0; k < LANES; k++) {
            lane[k] += a[i + k] * b[i + k];
        }
    }
    for (; i < d; i++) {
        sum += a[i] * b[i];
    }
    for (int k = 0; k < LANES; k++) {
        sum += lane[k];
    }
    return sum;
}

void fvi_boundary_features(const float *left, const float *right, int64_t d, float *x) {
    for (int64_t i = 0; i < d; i++) {
        x[i] = left[i];
        x[d + i] = right[i];
        x[2 * d + i] = fabsf(left[i] - right[i]);
        x[3 * d + i] = left[i] * right[i];
    }
    const float lengths = sqrtf(dot(left, left, d)) * sqrtf(dot(right, right, d));
    x[4 * d] = dot(left, right, d) / fmaxf(lengths, 1e-6f);
}

void fvi_boundary_logits(const float *weight, const float *x, int64_t d, float *logit) {
    enum { HIDDEN = FVI_BOUNDARY_HIDDEN, PLACES = FVI_BOUNDARY_PLACES };
    const int64_t width = fvi_boundary_width(d);
    const float *bias = weight + width * HIDDEN, *out = bias + HIDDEN;
    float unit[PLACES][HIDDEN];
    for (int p = 0; p < PLACES; p++) {
        memcpy(unit[p], bias, sizeof unit[p]);
    }
    for (int64_t i = 0; i < width; i++) {
        for (int p = 0; p < PLACES; p++) {
            for (int h = 0; h < HIDDEN; h++) {
                unit[p][h] += x[p * width + i] * weight[i * HIDDEN + h];
            }
        }
    }
    for (int p = 0; p < PLACES; p++) {
        logit[p] = out[HIDDEN];
        for (int h = 0; h < HIDDEN; h++) {
            logit[p] += out[h] * fmaxf(unit[p][h], 0);
        }
    }
}

void fvi_boundary_look(const float *keys, int64_t d, float *mean, float *x) {
    for (int side = 0; side < 2; side++) {
        const float *k = keys + side * FVI_BOUNDARY_WINDOW * d;
        for (int64_t i = 0; i < d; i++) {
            mean[side * d + i] = (k[i] + k[d + i] + k[2 * d + i] + k[3 * d + i]) / FVI_BOUNDARY_WINDOW;
        }
    }
    fvi_boundary_features(mean, mean + d, d, x);
}

static bool is_free(const int32_t *place, int64_t n, int64_t at, int64_t apart) {
    for (int64_t i = 0; i < n; i++) {
        if (at - place[i] <= apart && place[i] - at <= apart) {
            return false;
        }
    }
    return true;
}

int64_t fvi_boundary_pick(const float *logit, int64_t n, int64_t most, int64_t apart, int32_t *place) {
    int64_t count = 0;
    while (count < most) {
        int64_t best = -1;
        for (int64_t i = 0; i < n; i++) {
            if (logit[i] > -INFINITY && (best < 0 || logit[i] > logit[best]) && is_free(place, count, i, apart)) {
                best = i;
            }
        }
        if (best < 0) {
            break;
        }
        place[count++] = (int32_t)best;
    }
    for (int64_t i = 1; i < count; i++) {
        const int32_t moved = place[i];
        int64_t at = i;
        for (; at > 0 && place[at - 1] > moved; at--) {
            place[at] = place[at - 1];
        }
        place[at] = moved;
    }
    return count;
}
