/* sparsed.c - block-sparse patterns of a diffusion language model, chosen once and reused over its denoising steps.
 *
 * Wang, Fang, Ma, Yang, Wang: SparseD: Sparse Attention for Diffusion Language Models, 2025, section 4, in the form of its code
 * (INV-WZQ/SparseD, models/Dream): steps 0 .. int(steps * skip) + 1 attend to everything. At the last of them each head takes,
 * for each block of queries, the int(blocks * select) + 1 blocks of keys with the largest mean softmax weight, of which those
 * from `last` on, the generated part, are dropped; then as many of the generated part's blocks, under the softmax over that part
 * alone. `last` is the first block of which at most `generated` tokens are left, or the last of all. Later steps visit these.
 *
 * Deviations: weights are ranked in f32, not in the model's type, equal ones lower block first; a row whose generated part weighs
 * less than 2^-126 of its largest weight has no say in that part; where there are fewer blocks than
 * are asked for (select = 1) all are taken. Full steps are the method's own and count as visited, not as fallen back; a head
 * whose state has no choice yet (its steps did not begin at 0) is. */
#include "select/select.h"

#include <math.h>
#include <string.h>

enum { BLOCK, SELECT, SKIP, STEPS, GENERATED };
enum { ROWS = 64 };
static const uint64_t MADE = UINT64_C(0x64657370617273);

#define LOG2E 1.4426950408889634

typedef struct sparsed_state {
    uint64_t made; /* MADE + n_kv once chosen */
    int64_t block, blocks, words;
    uint64_t bits[]; /* (blocks, words): of a block of queries, the blocks of keys */
} sparsed_state;

static int64_t last_full_step(const double *value) { return (int64_t)(value[STEPS] * value[SKIP]) + 1; }
static int64_t count_of(int64_t blocks, double share) { return fvi_min(blocks, (int64_t)((double)blocks * share) + 1); }

static const char *refuse(const double *value, const fvi_extent *extent) {
    int64_t block = (int64_t)value[BLOCK];
    if (extent->causal) {
        return "sparsed is for bidirectional attention: a causal problem has no denoising steps";
    }
    return block % FVI_BLOCK != 0 && FVI_BLOCK % block != 0 ? "sparsed's block must divide 64 or be a multiple of it" : NULL;
}

static int64_t blocks_of(const double *value, int64_t n) { return fvi_ceil_div(n, (int64_t)value[BLOCK]); }

static size_t head_bytes(const double *value, const fvi_extent *extent) {
    int64_t blocks = blocks_of(value, extent->n_kv);
    return sizeof(sparsed_state) + (size_t)(blocks * fvi_ceil_div(blocks, 64)) * sizeof(uint64_t);
}

/* ---- the prepass: mean softmax weights of blocks ----------------------------------------------------------------------------
 */

typedef struct work {
    float *q, *s, *m, *sum, *alpha, *part; /* (ROWS, d), (ROWS, 64), (ROWS) each */
    float *top;                            /* (leaves, ROWS) the running maximum that a leaf's sums stand under */
    float *cell;                           /* (leaves * cells, ROWS) sums of weights over a cell of keys */
    double *mass[2];                       /* (blocks): over all keys, over the generated part */
    int32_t *order;                        /* (blocks) */
    void *look;
    int64_t cells, cell_keys; /* of a leaf */
} work;

static size_t cut(const double *value, int64_t n_kv, int64_t d_k, int64_t d_v, uint8_t *base, work *w) {
    int64_t leaves = fvi_ceil_div(n_kv, FVI_LEAF), blocks = blocks_of(value, n_kv);
    w->cell_keys = fvi_min((int64_t)value[BLOCK], FVI_LEAF);
    w->cells = FVI_LEAF / w->cell_keys;
    const struct {
        void *to;
        size_t bytes;
    } part[] = {{&w->q, (size_t)(ROWS * d_k) * sizeof(float)},
                {&w->s, ROWS * FVI_LEAF * sizeof(float)},
                {&w->m, ROWS * sizeof(float)},
                {&w->sum, ROWS * sizeof(float)},
                {&w->alpha, ROWS * sizeof(float)},
                {&w->part, ROWS * sizeof(float)},
                {&w->top, (size_t)(leaves * ROWS) * sizeof(float)},
                {&w->cell, (size_t)(leaves * w->cells * ROWS) * sizeof(float)},
                {&w->mass[0], (size_t)blocks * sizeof(double)},
                {&w->mass[1], (size_t)blocks * sizeof(double)},
                {&w->order, (size_t)blocks * sizeof(int32_t)},
                {&w->look, fvi_look_bytes(ROWS, d_k, d_v)}};
    size_t used = 0;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        void *at = base == NULL ? NULL : base + used;
        memcpy(part[i].to, &at, sizeof at);
        used += (part[i].bytes + 63) & ~(size_t)63;
    }
    return used;
}

static size_t scratch_bytes(const double *value, const fvi_extent *extent) {
    work w;
    return cut(value, extent->n_kv, extent->d_k, extent->d_v, NULL, &w);
}

/* One walk over the keys for up to 64 rows: each leaf's sums stand under the maximum so far, which is kept beside them. */
static void weigh(const fvi_select *select, int64_t first, int64_t rows, const work *w) {
    const fvi_sight *sight = select->sight;
    sight->rows(sight, FVI_SIDE_Q, first, rows, w->q);
    fvi_look look = fvi_look_open(sight, w->q, rows, w->look);
    for (int64_t r = 0; r < rows; r++) {
        w->m[r] = -INFINITY;
        w->sum[r] = 0;
    }
    for (int64_t leaf = 0; leaf * FVI_LEAF < sight->n_kv; leaf++) {
        int n = fvi_look_scores(&look, leaf, (float)(sight->scale * LOG2E), w->s);
        for (int64_t r = 0; r < rows; r++) {
            for (int j = n; j < FVI_LEAF; j++) {
                w->s[r * FVI_LEAF + j] = -INFINITY;
            }
        }
        sight->plain->soften(w->s, (int)rows, w->m, w->sum, w->alpha);
        memcpy(w->top + leaf * ROWS, w->m, (size_t)rows * sizeof(float));
        for (int64_t c = 0; c < w->cells; c++) {
            for (int64_t r = 0; r < rows; r++) {
                const float *p = w->s + r * FVI_LEAF + c * w->cell_keys;
                float sum = 0;
                for (int64_t j = 0; j < w->cell_keys; j++) {
                    sum += p[j];
                }
                w->cell[(leaf * w->cells + c) * ROWS + r] = sum;
            }
        }
    }
}

/* Brings all cells under the rows' last maximum, and sums the generated part's in part. */
static void level(int64_t leaves, int64_t rows, int64_t generated_cell, const work *w) {
    memset(w->part, 0, (size_t)rows * sizeof(float));
    for (int64_t i = 0; i < leaves * w->cells; i++) {
        for (int64_t r = 0; r < rows; r++) {
            float *x = &w->cell[i * ROWS + r];
            *x *= exp2f(w->top[i / w->cells * ROWS + r] - w->m[r]);
            w->part[r] += i >= generated_cell ? *x : 0;
        }
    }
}

static void add_masses(int64_t leaves, int64_t rows, int64_t generated_cell, int64_t block, int64_t blocks, const work *w) {
    for (int64_t i = 0; i < leaves * w->cells && i * w->cell_keys / block < blocks; i++) {
        double all = 0, part = 0;
        for (int64_t r = 0; r < rows; r++) {
            double x = w->cell[i * ROWS + r];
            all += x / w->sum[r];
            part += i >= generated_cell && w->part[r] > 0 ? x / w->part[r] : 0;
        }
        w->mass[0][i * w->cell_keys / block] += all;
        w->mass[1][i * w->cell_keys / block] += part;
    }
}

/* ---- the largest blocks ---------------------------------------------------------------------------------------------------- */

static bool worse(const double *mass, int32_t a, int32_t b) { return mass[a] != mass[b] ? mass[a] < mass[b] : a > b; }

/* Restores the heap, whose root is the worst of n, below place i. */
static void sink(const double *mass, int32_t *heap, int64_t n, int64_t i) {
    for (int64_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
        child += child + 1 < n && worse(mass, heap[child + 1], heap[child]);
        if (!worse(mass, heap[child], heap[i])) {
            return;
        }
        int32_t t = heap[i];
        heap[i] = heap[child];
        heap[child] = t;
        i = child;
    }
}

/* heap (k) = the k best of the numbers from .. to - 1. */
static void best(const double *mass, int64_t from, int64_t to, int64_t k, int32_t *heap) {
    for (int64_t i = 0; i < k; i++) {
        heap[i] = (int32_t)(from + i);
    }
    for (int64_t i = k - 1; i >= 0; i--) {
        sink(mass, heap, k, i);
    }
    for (int64_t i = from + k; i < to; i++) {
        if (worse(mass, heap[0], (int32_t)i)) {
            heap[0] = (int32_t)i;
            sink(mass, heap, k, 0);
        }
    }
}

static void choose(const double *value, sparsed_state *state, int64_t query_block, int64_t last, const work *w) {
    uint64_t *bits = state->bits + query_block * state->words;
    int64_t generated = state->blocks - last, all = count_of(state->blocks, value[SELECT]);
    best(w->mass[0], 0, state->blocks, all, w->order);
    for (int64_t i = 0; i < all; i++) {
        bits[w->order[i] / 64] |= (uint64_t)(w->order[i] < last) << (w->order[i] % 64);
    }
    int64_t part = count_of(generated, value[SELECT]);
    best(w->mass[1], last, state->blocks, part, w->order);
    for (int64_t i = 0; i < part; i++) {
        bits[w->order[i] / 64] |= UINT64_C(1) << (w->order[i] % 64);
    }
}

static int64_t first_generated(const double *value, int64_t n, int64_t blocks) {
    int64_t block = (int64_t)value[BLOCK], prompt = n - (int64_t)value[GENERATED];
    return fvi_min(prompt <= 0 ? 0 : fvi_ceil_div(prompt, block), blocks - 1);
}

static void make(const fvi_select *select, sparsed_state *state) {
    const fvi_sight *sight = select->sight;
    const int64_t block = state->block, leaves = fvi_ceil_div(sight->n_kv, FVI_LEAF);
    const int64_t last = first_generated(select->value, sight->n_kv, state->blocks);
    work w;
    cut(select->value, sight->n_kv, sight->d_k, sight->d_v, select->scratch, &w);
    memset(state->bits, 0, (size_t)(state->blocks * state->words) * sizeof(uint64_t));
    for (int64_t b = 0; b < state->blocks; b++) {
        int64_t row = fvi_max(b * block - sight->offset, 0), end = fvi_min((b + 1) * block - sight->offset, sight->n_q);
        memset(w.mass[0], 0, (size_t)state->blocks * sizeof(double));
        memset(w.mass[1], 0, (size_t)state->blocks * sizeof(double));
        for (int64_t rows; row < end; row += rows) {
            rows = fvi_min(ROWS, end - row);
            weigh(select, row, rows, &w);
            level(leaves, rows, last * block / w.cell_keys, &w);
            add_masses(leaves, rows, last * block / w.cell_keys, block, state->blocks, &w);
        }
        choose(select->value, state, b, last, &w);
    }
    state->made = MADE + (uint64_t)sight->n_kv;
}

static void prepare(const fvi_select *select) {
    sparsed_state *state = select->head_state;
    const fvi_sight *sight = select->sight;
    if (sight->step == 0) {
        state->made = 0;
    }
    if (sight->step == last_full_step(select->value)) {
        state->block = (int64_t)select->value[BLOCK];
        state->blocks = blocks_of(select->value, sight->n_kv);
        state->words = fvi_ceil_div(state->blocks, 64);
        make(select, state);
    }
}

/* ---- tiles ------------------------------------------------------------------------------------------------------------------
 */

static bool chosen(const sparsed_state *s, int64_t query_block, int64_t block) {
    block = fvi_min(block, s->blocks - 1); /* past the end: as the last, so that a word of nothing else is whole */
    return s->bits[query_block * s->words + block / 64] >> (block % 64) & 1;
}

/* Keys of a word that a block of queries visits. */
static uint64_t word_of(const sparsed_state *s, int64_t query_block, int64_t word) {
    if (s->block >= FVI_BLOCK) {
        return chosen(s, query_block, word * FVI_BLOCK / s->block) ? UINT64_MAX : 0;
    }
    uint64_t bits = 0, some = (UINT64_C(1) << s->block) - 1;
    for (int64_t k = 0; k < FVI_BLOCK; k += s->block) {
        bits |= chosen(s, query_block, (word * FVI_BLOCK + k) / s->block) ? some << k : 0;
    }
    return bits;
}

static uint64_t seen(const void *arg, int64_t position, int64_t block) {
    const sparsed_state *s = arg;
    return position < 0 || position / s->block >= s->blocks ? 0 : word_of(s, position / s->block, block);
}

static void tile(const fvi_select *select, const fvi_query_tile *q, fvi_index *index) {
    const sparsed_state *s = select->head_state;
    index->fell_back = select->sight->step > last_full_step(select->value) && s->made != MADE + (uint64_t)q->n_kv;
    if (select->sight->step <= last_full_step(select->value) || index->fell_back) {
        fvi_index_add_all(index);
        return;
    }
    int64_t first = fvi_max(q->first, 0) / s->block, last = fvi_min(q->last / s->block, s->blocks - 1);
    index->seen = seen;
    index->seen_arg = s;
    for (int64_t b = 0; b < index->blocks; b++) {
        uint64_t any = 0, all = UINT64_MAX;
        for (int64_t k = first; k <= last; k++) {
            uint64_t word = word_of(s, k, b);
            any |= word;
            all &= word;
        }
        if (any != 0 && any != all) {
            fvi_index_add_apart(index, b, any);
        } else {
            index->key[b] |= any;
        }
    }
}

const fvi_selector fvi_select_sparsed = {.query_block = 64,
                                         .scope = FVI_SCOPE_PROMPT,
                                         .steps = true,
                                         .head_bytes = head_bytes,
                                         .scratch_bytes = scratch_bytes,
                                         .prepare = prepare,
                                         .tile = tile,
                                         .refuse = refuse};
