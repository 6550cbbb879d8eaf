/* minference_search.c - see minference_search.h.
 *
 * Jiang et al., MInference 1.0, 2024, algorithm 1, and the official code's candidates: columns of 30, 100, 500, 1000 and 3500,
 * and first keys of 100. There a candidate's other number is fixed by hand so that its kernel costs as much; here it is the
 * largest that stays within the budget. Score: the share of attention kept, as search_pattern has it (its second form counts
 * outputs that differ). */
#include "select/minference_search.h"
#include "select/stripe.h"

#include <string.h>

enum { KINDS = FVI_MINFERENCE_CANDIDATES, AS_BLOCK = 40 }; /* the executor folds a block whole of which more keys are visited */

static const struct candidate {
    int kind;
    int64_t first;
} candidate[KINDS] = {{0, 30}, {0, 100}, {0, 500}, {0, 1000}, {0, 3500}, {1, 0}, {2, 100}};

typedef struct room {
    fvi_select select;
    uint8_t *head; /* (candidates) of head_bytes */
    size_t head_bytes;
    fvi_index index;
    float *q;
    int64_t *position;
    void *stripe;
    size_t bytes;
} room;

static void *take(void *base, size_t *at, size_t bytes) {
    void *place = base == NULL ? NULL : (uint8_t *)base + *at;
    *at += (bytes + 63) / 64 * 64;
    return place;
}

static room cut(void *base, const fvi_extent *e) {
    static const double defaults[FVI_PARAMETERS] = {0};
    const fvi_selector *selector = &fvi_select_minference;
    const size_t blocks = (size_t)fvi_ceil_div(e->n_kv, FVI_BLOCK);
    room r = {.select = {.value = defaults, .numbers = 3}, .index = {.blocks = (int64_t)blocks}};
    r.head_bytes = (selector->head_bytes(defaults, e) + 63) / 64 * 64;
    r.select.scratch = take(base, &r.bytes, selector->scratch_bytes(defaults, e));
    r.head = take(base, &r.bytes, KINDS * r.head_bytes);
    r.index.key = take(base, &r.bytes, blocks * sizeof(uint64_t));
    r.index.apart = take(base, &r.bytes, (blocks + 63) / 64 * sizeof(uint64_t));
    r.q = take(base, &r.bytes, (size_t)(FVI_BLOCK * e->d_k) * sizeof(float));
    r.position = take(base, &r.bytes, FVI_BLOCK * sizeof(int64_t));
    r.stripe = take(base, &r.bytes, fvi_stripe_bytes(FVI_BLOCK, e->d_k, e->d_v));
    return r;
}

size_t fvi_minference_search_bytes(const fvi_extent *extent) { return cut(NULL, extent).bytes; }

static fvi_query_tile tile_at(const fvi_sight *sight, int64_t first) {
    return (fvi_query_tile){.first = first, .last = first + FVI_BLOCK - 1, .n_kv = sight->n_kv, .kv_head = sight->kv_head};
}

static int64_t first_tile(const fvi_sight *sight) { return fvi_max(0, sight->offset) / FVI_BLOCK * FVI_BLOCK; }
static int64_t last_row(const fvi_sight *sight) { return sight->offset + sight->n_q - 1; }

/* The candidate's index of a tile. */
static void choose(room *r, int c, const double *number, const fvi_query_tile *q) {
    static const fvi_rule causal = {.causal = true};
    r->select.number = number;
    r->select.head_state = r->head + (size_t)c * r->head_bytes;
    fvi_index_clear(&r->index);
    fvi_select_minference.tile(&r->select, q, &r->index);
    fvi_index_trim(&r->index, &causal, q);
}

/* Keys that a row of the tile visits, blocks as the executor folds them. */
static int64_t cost(const fvi_index *index) {
    int64_t keys = 0;
    for (int64_t b = 0; b < index->blocks; b++) {
        int n = __builtin_popcountll(index->key[b]);
        keys += n > AS_BLOCK ? FVI_BLOCK : n;
    }
    return keys;
}

/* Visited pairs of all tiles by dense attention's. */
static double density_of(room *r, int c, const double *number) {
    const fvi_sight *sight = r->select.sight;
    int64_t visited = 0, all = 0;
    r->select.number = number;
    r->select.head_state = r->head + (size_t)c * r->head_bytes;
    fvi_select_minference.prepare(&r->select);
    for (int64_t first = first_tile(sight); first <= last_row(sight); first += FVI_BLOCK) {
        fvi_query_tile q = tile_at(sight, first);
        choose(r, c, number, &q);
        visited += cost(&r->index);
        all += fvi_min(first / FVI_BLOCK + 1, r->index.blocks) * FVI_BLOCK;
    }
    return (double)visited / (double)all;
}

/* The number that grows with the budget: slash, blocks or local. */
static double *free_number(fvi_minference_found *f) { return &f->number[f->number[0] == 1 ? 1 : 2]; }

/* The largest number within the budget; false if there is none. */
static bool fit(room *r, int c, double budget, fvi_minference_found *f) {
    *f = (fvi_minference_found){.number = {candidate[c].kind, (double)candidate[c].first, 0}, .recall = -1};
    double *number = free_number(f);
    int64_t low = 0, high = candidate[c].kind == 1 ? r->index.blocks + 1 : r->select.sight->n_kv + 1;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        *number = (double)middle;
        *(density_of(r, c, f->number) <= budget ? &low : &high) = middle;
    }
    *number = (double)fvi_max(low, 1);
    f->density = density_of(r, c, f->number);
    return f->density <= budget;
}

/* Weights of the leaf's keys that the tile's index shows to its rows. */
static double kept(const fvi_stripe *stripe, const fvi_index *index, int64_t b, int64_t rows) {
    double mass = 0;
    for (int64_t i = 0; i < rows; i++) {
        for (uint64_t bits = index->key[b]; bits != 0; bits &= bits - 1) {
            int64_t j = __builtin_ctzll(bits), key = b * FVI_BLOCK + j, at = stripe->position[i];
            bool seen = fvi_rule_sees_all(&index->rule, at, at, key, key + 1);
            mass += seen ? (double)stripe->s[i * FVI_BLOCK + j] : 0;
        }
    }
    return mass;
}

/* Adds what each candidate that fits keeps of the tile's rows; returns their number. */
static int64_t add_tile(room *r, int64_t first, fvi_minference_found *out, double mass[KINDS]) {
    const fvi_sight *sight = r->select.sight;
    fvi_query_tile q = tile_at(sight, first);
    int64_t from = fvi_max(first - sight->offset, 0), rows = fvi_min(sight->n_q - from, q.last - sight->offset + 1 - from);
    sight->rows(sight, FVI_SIDE_Q, from, rows, r->q);
    for (int64_t i = 0; i < rows; i++) {
        r->position[i] = sight->offset + from + i;
    }
    fvi_stripe stripe = fvi_stripe_open(sight, r->q, r->position, rows, r->stripe);
    for (int c = 0; c < KINDS; c++) {
        if (out[c].recall < 0) {
            continue;
        }
        choose(r, c, out[c].number, &q);
        for (int64_t b = 0; b < r->index.blocks; b++) {
            if (r->index.key[b] != 0) {
                fvi_stripe_leaf(&stripe, b);
                fvi_stripe_weights(&stripe, 0, rows);
                mass[c] += kept(&stripe, &r->index, b, rows);
            }
        }
    }
    return rows;
}

static void sort(fvi_minference_found *out) {
    for (int i = 1; i < KINDS; i++) {
        for (int k = i; k > 0 && out[k].recall > out[k - 1].recall; k--) {
            fvi_minference_found swap = out[k];
            out[k] = out[k - 1];
            out[k - 1] = swap;
        }
    }
}

void fvi_minference_search(const fvi_sight *sight, double budget, int64_t step, void *memory,
                           fvi_minference_found out[FVI_MINFERENCE_CANDIDATES]) {
    fvi_extent extent = {sight->n_q, sight->n_kv, sight->h_q, sight->h_kv, sight->d_k, sight->d_v, true, false, 0};
    room r = cut(memory, &extent);
    double mass[KINDS] = {0};
    int64_t rows = 0;
    r.select.sight = sight;
    for (int c = 0; c < KINDS; c++) {
        out[c].recall = fit(&r, c, budget, &out[c]) ? 0 : -1;
    }
    for (int64_t first = last_row(sight) / FVI_BLOCK * FVI_BLOCK; first >= first_tile(sight); first -= step * FVI_BLOCK) {
        rows += add_tile(&r, first, out, mass);
    }
    for (int c = 0; c < KINDS; c++) {
        out[c].recall = out[c].recall < 0 ? -1 : mass[c] / (double)fvi_max(rows, 1);
    }
    sort(out);
}
