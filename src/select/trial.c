/* trial.c - see trial.h. */
#include "select/trial.h"

#include <math.h>
#include <string.h>

enum { GROUP = 64 }; /* rows whose scores are taken together */

/* Of fvi_trial_open alone. */
typedef struct room {
    float *q, *s, *v; /* (64, d_k), (64, 64), (64, d_v) */
    void *look;
} room;

static void *take(void *base, size_t *at, size_t bytes) {
    void *place = base == NULL ? NULL : (uint8_t *)base + *at;
    *at += (bytes + 63) & ~(size_t)63;
    return place;
}

static int64_t step_of(int64_t n) { return fvi_ceil_div(n, FVI_TRIAL_ROWS); }

static fvi_trial cut(void *base, const fvi_selector *selector, const double *value, const fvi_extent *e, int64_t part, room *r) {
    const size_t f = sizeof(float), rows = (size_t)fvi_min(e->n_q, FVI_TRIAL_ROWS), d = (size_t)e->d_v;
    const size_t parts = (size_t)fvi_ceil_div(e->n_kv, part), blocks = (size_t)fvi_ceil_div(e->n_kv, FVI_BLOCK);
    fvi_trial t = {.selector = selector, .part = part, .parts = (int64_t)parts, .index = {.blocks = (int64_t)blocks}};
    t.select.value = value;
    t.select.head_state = take(base, &t.bytes, selector->head_bytes == NULL ? 0 : selector->head_bytes(value, e));
    t.select.scratch = take(base, &t.bytes, selector->scratch_bytes == NULL ? 0 : selector->scratch_bytes(value, e));
    t.index.key = take(base, &t.bytes, blocks * sizeof(uint64_t));
    t.index.apart = take(base, &t.bytes, (blocks + 63) / 64 * sizeof(uint64_t));
    t.most = take(base, &t.bytes, rows * parts * f);
    t.sum = take(base, &t.bytes, rows * parts * f);
    t.out = take(base, &t.bytes, rows * parts * d * f);
    t.dense = take(base, &t.bytes, rows * d * f);
    t.merged = take(base, &t.bytes, d * f);
    t.kept = take(base, &t.bytes, parts * sizeof(int32_t));
    r->q = take(base, &t.bytes, GROUP * (size_t)e->d_k * f);
    r->s = take(base, &t.bytes, GROUP * FVI_LEAF * f);
    r->v = take(base, &t.bytes, FVI_LEAF * d * f);
    r->look = take(base, &t.bytes, fvi_look_bytes(GROUP, e->d_k, e->d_v));
    return t;
}

size_t fvi_trial_bytes(const fvi_selector *selector, const double *value, const fvi_extent *extent, int64_t part) {
    room r;
    return cut(NULL, selector, value, extent, part, &r).bytes;
}

static int64_t position_of(const fvi_trial *t, int64_t r) { return t->sight->n_q - 1 - (t->rows - 1 - r) * t->step; }

/* The softmax of keys from .. to - 1 of a leaf by themselves, from their scores. */
static void one_part(const fvi_trial *t, int64_t r, int64_t p, const float *s, const float *v, int64_t from, int64_t to) {
    const int64_t d = t->sight->d_v;
    float *out = t->out + (r * t->parts + p) * d, most = -INFINITY, sum = 0;
    for (int64_t j = from; j < to; j++) {
        most = fmaxf(most, s[j]);
    }
    memset(out, 0, (size_t)d * sizeof *out);
    for (int64_t j = from; j < to; j++) {
        const float weight = exp2f(s[j] - most);
        sum += weight;
        for (int64_t c = 0; c < d; c++) {
            out[c] += weight * v[j * d + c];
        }
    }
    t->most[r * t->parts + p] = most;
    t->sum[r * t->parts + p] = sum;
}

static void one_leaf(const fvi_trial *t, const room *m, fvi_look *look, int64_t leaf, int64_t first, int64_t rows) {
    const fvi_sight *sight = t->sight;
    const int64_t n = fvi_look_scores(look, leaf, sight->scale * 1.44269504f, m->s);
    sight->rows(sight, FVI_SIDE_V, leaf * FVI_LEAF, n, m->v);
    for (int64_t r = 0; r < rows; r++) {
        const int64_t end = fvi_min(n, position_of(t, first + r) + 1 - leaf * FVI_LEAF); /* of the keys that it sees */
        for (int64_t from = 0; from < end; from += t->part) {
            const int64_t p = (leaf * FVI_LEAF + from) / t->part;
            one_part(t, first + r, p, m->s + r * FVI_LEAF, m->v, from, fvi_min(end, from + t->part));
        }
    }
}

static bool has(const fvi_trial *t, const uint64_t *key, int64_t p) {
    const uint64_t bits = t->part == FVI_BLOCK ? UINT64_MAX : (UINT64_C(1) << t->part) - 1;
    return (key[p * t->part / FVI_BLOCK] >> (p * t->part % FVI_BLOCK) & bits) != 0;
}

/* The row's output over blocks of `key` (NULL: all) that pv leaves; returns how many those are. Zeros if none. */
static int64_t merge(const fvi_trial *t, int64_t r, const uint64_t *key, float pv, float *out) {
    const int64_t d = t->sight->d_v, parts = position_of(t, r) / t->part + 1;
    const float *most = t->most + r * t->parts, *sum = t->sum + r * t->parts, *from = t->out + r * t->parts * d;
    float top = -INFINITY, total = 0;
    int64_t n = 0;
    for (int64_t p = 0; p < parts; p++) {
        if ((key == NULL || has(t, key, p)) && !(pv > 0 && most[p] - top <= -pv)) {
            top = fmaxf(top, most[p]);
            t->kept[n++] = (int32_t)p;
        }
    }
    memset(out, 0, (size_t)d * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        const int32_t p = t->kept[i];
        const float weight = exp2f(most[p] - top);
        total += weight * sum[p];
        for (int64_t c = 0; c < d; c++) {
            out[c] += weight * from[p * d + c];
        }
    }
    for (int64_t c = 0; c < d && n > 0; c++) {
        out[c] /= total;
    }
    return n;
}

fvi_trial fvi_trial_open(const fvi_selector *selector, const double *value, const fvi_sight *sight, int64_t part, void *memory) {
    const fvi_extent extent = {sight->n_q, sight->n_kv, sight->h_q, sight->h_kv, sight->d_k, sight->d_v, true, false, 0};
    room m;
    fvi_trial t = cut(memory, selector, value, &extent, part, &m);
    t.sight = t.select.sight = sight;
    t.step = step_of(sight->n_q);
    t.rows = (sight->n_q - 1) / t.step + 1;
    for (int64_t first = 0, n; first < t.rows; first += n) {
        n = fvi_min(GROUP, t.rows - first);
        for (int64_t r = 0; r < n; r++) {
            sight->rows(sight, FVI_SIDE_Q, position_of(&t, first + r), 1, m.q + r * sight->d_k);
        }
        fvi_look look = fvi_look_open(sight, m.q, n, m.look);
        for (int64_t leaf = 0; leaf <= position_of(&t, first + n - 1) / FVI_LEAF; leaf++) {
            one_leaf(&t, &m, &look, leaf, first, n);
        }
    }
    for (int64_t r = 0; r < t.rows; r++) {
        merge(&t, r, NULL, 0, t.dense + r * sight->d_v);
    }
    return t;
}

static void choose(fvi_trial *t, int64_t tile) {
    const int64_t block = t->selector->query_block;
    const fvi_query_tile q = {
        .first = tile * block, .last = tile * block + block - 1, .n_kv = t->sight->n_kv, .kv_head = t->sight->kv_head};
    fvi_index_clear(&t->index);
    t->selector->tile(&t->select, &q, &t->index);
}

fvi_loss fvi_trial_run(fvi_trial *t, float pv) {
    const int64_t d = t->sight->d_v;
    fvi_loss loss = {0};
    int64_t chosen = -1;
    for (int64_t r = 0; r < t->rows; r++) {
        const int64_t tile = position_of(t, r) / t->selector->query_block;
        if (tile != chosen) {
            choose(t, chosen = tile);
        }
        const float *dense = t->dense + r * d;
        loss.seen += position_of(t, r) / t->part + 1;
        for (int64_t p = 0; p <= position_of(t, r) / t->part; p++) {
            loss.kept += has(t, t->index.key, p);
        }
        merge(t, r, t->index.key, pv, t->merged);
        for (int64_t c = 0; c < d; c++) {
            loss.error += fabs((double)t->merged[c] - (double)dense[c]);
            loss.size += fabs((double)dense[c]);
        }
    }
    return loss;
}
