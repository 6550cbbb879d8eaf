/* gali.c - texts longer than a model was trained on: trained positions are used as they are, and logits are interpolated in
 * between.
 *
 * Li et al., A Training-Free Length Extrapolation Approach for LLMs: Greedy Attention Logit Interpolation (GALI), 2025 (arXiv
 * 2502.02659), in the form of its code (copy at blap/GALI: models/DPI), with its defaults: local 128, chunk 3000, noise 1. Every
 * key is visited; its position is what changes. What is in the trained length has its own. Each chunk after it puts all keys so
 * far, n of them, back into 0 .. trained - 1: the earliest share their positions by steps of 1/g, as many as are needed, the last
 * keep whole ones, at least `local`. A query rounds its position up; its logit with a key between two whole positions lies
 * between those with the key at both: s = s(ceil, ceil) + (s(ceil, floor) - s(ceil, ceil)) frac, frac = ceil(p_key) - p_key, and
 * has noise added, of standard deviation noise (i - j) / n, where frac is not 0. A generated token is a chunk of its own.
 *
 * The last chunk ends where the prompt does, so that the scope is the prompt; chunks are counted from `trained` on, over all
 * prompts of a cache. Deviation: the noise is a function of (seed, layer, head, query, key) and not of a generator's state, and
 * the sum of eight bytes of a hash in place of a normal draw: none lies beyond 4.9 standard deviations. */
#include "select/gali.h"
#include "select/select.h"

#include <math.h>

enum { TRAINED, LOCAL, CHUNK, NOISE, SEED };

fvi_gali_spread fvi_gali_spread_of(int64_t trained, int64_t local, int64_t n) {
    if (n <= trained) {
        return (fvi_gali_spread){.steps = 1};
    }
    const int64_t steps = fvi_ceil_div(n - local, trained - local), shared = fvi_ceil_div(n - trained, steps - 1);
    return (fvi_gali_spread){.steps = steps, .shared = shared, .early = n - (trained - shared)};
}

/* Keys of the chunk that a query stands in, and of all before; 0: positions are as they are. */
static int64_t keys_of(const double *value, int64_t position, int64_t n_kv) {
    const int64_t trained = (int64_t)value[TRAINED], chunk = (int64_t)value[CHUNK];
    if (position < trained) {
        return 0;
    }
    const int64_t end = trained + ((position - trained) / chunk + 1) * chunk;
    return fvi_max(fvi_min(end, n_kv), position + 1);
}

static int64_t query(const fvi_places *places, int64_t position, int64_t block, int64_t *set) {
    const double *value = places->arg;
    (void)block;
    *set = keys_of(value, position, places->n_kv);
    if (*set == 0) {
        return position;
    }
    const fvi_gali_spread spread = fvi_gali_spread_of((int64_t)value[TRAINED], (int64_t)value[LOCAL], *set);
    return fvi_gali_ceil(&spread, position);
}

static void keys(const fvi_places *places, int64_t set, const int64_t *position, int n, int64_t *high, int64_t *low,
                 float *part) {
    const double *value = places->arg;
    const fvi_gali_spread spread = fvi_gali_spread_of((int64_t)value[TRAINED], (int64_t)value[LOCAL], set);
    for (int j = 0; j < n; j++) {
        high[j] = fvi_gali_ceil(&spread, position[j]);
        low[j] = fvi_gali_floor(&spread, position[j]);
        int64_t over = position[j] < spread.early ? position[j] % spread.steps : 0;
        part[j] = over > 0 ? (float)(spread.steps - over) / (float)spread.steps : 0;
    }
}

/* ---- noise ---- */

static uint64_t mix(uint64_t x) {
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* Of mean 0 and variance 1: eight bytes, each of mean 127.5 and variance (256^2 - 1) / 12. */
static float nearly_normal(uint64_t hash) {
    const uint64_t even = UINT64_C(0x00ff00ff00ff00ff), pairs = (hash & even) + (hash >> 8 & even);
    const uint64_t sum = pairs * UINT64_C(0x0001000100010001) >> 48;
    return ((float)sum - 1020.0f) * (1.0f / 209.02153f);
}

static void add_noise(const fvi_places *places, int64_t set, const fvi_place *row, int n, const int64_t *key, const float *part,
                      float *s) {
    const double *value = places->arg;
    const float deviation = (float)(value[NOISE] * M_LOG2E / (double)set);
    const uint64_t layer = mix((uint64_t)(int64_t)value[SEED]) + (uint64_t)row->layer, head = mix(layer) + (uint64_t)row->head;
    const uint64_t stream = mix(mix(head) + (uint64_t)row->position);
    for (int j = 0; j < n; j++) {
        if (part[j] != 0) {
            s[j] += deviation * (float)(row->position - key[j]) * nearly_normal(mix(stream + (uint64_t)key[j]));
        }
    }
}

/* ---- the selector ---- */

static void rule(const double *value, const fvi_query_tile *q, fvi_index *index) {
    fvi_rule_index(&(fvi_rule){0}, q, index);
    if (q->n_kv > (int64_t)value[TRAINED]) {
        index->places =
            (fvi_places){.query = query, .keys = keys, .add = value[NOISE] > 0 ? add_noise : NULL, .arg = value, .n_kv = q->n_kv};
    }
}

static void resolve(double *value, const fvi_extent *e) {
    if (value[TRAINED] == 0) {
        value[TRAINED] = (double)e->trained;
    }
}

static const char *refuse(const double *value, const fvi_extent *e) {
    if (!e->rotary) {
        return "gali puts keys at other positions: it needs rotary positions that are known, a model's or a problem's rope";
    }
    if (!e->causal) {
        return "gali's chunks follow one another: it needs a causal problem";
    }
    if (value[TRAINED] < 1) {
        return "how many positions the model was trained on is not known: give trained";
    }
    return value[LOCAL] < value[TRAINED] ? NULL : "gali's local has to be less than the positions trained";
}

const fvi_selector fvi_select_gali = {
    .rule = rule, .scope = FVI_SCOPE_PROMPT, .places = true, .resolve = resolve, .refuse = refuse};
