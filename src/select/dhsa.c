/* dhsa.c - chunks of keys, each known by its mean, scored by the mean of a block of queries; a block's queries see the best
 * chunks, key by key, until a budget of keys is spent.
 *
 * Xiong et al., Long-Context Modeling with Dynamic Hierarchical Sparse Attention for On-Device LLMs, 2025 (arXiv 2510.24606),
 * section 3: chunk means times the square root of the chunk's length, chunk scores given to all of its keys, the top `budget`
 * keys of each block of queries. The official code (xiongsiheng/DHSA) has two forms. The first (its folder legacy) is the default
 * here, with its scripts' numbers: blocks of 128 queries; the last `local` keys are always among the budget; at the end the
 * `sinks` first of the chosen keys make place for the first keys of the text. It averages queries and keys over heads, so that
 * all heads share one index: not built, each head has its own. The present one has fixed chunks, plain means (norm=0) and takes
 * the best `density` of all chunks, forcing none (local=0, sinks=0). It ranks chunks of the future too, which then are masked;
 * here a query block ranks those that it can see. Deviations from both: a chunk that reaches past the block's last query counts
 * with the keys before it; equal chunks by position, a chunk that does not fit gives its first keys; the queries of the legacy
 * form's `instruction`, the prompt's last, are not made dense.
 *
 * Chunks are `chunk` keys each. A profile may say otherwise, of each head. Numbers that begin with -1 are a boundary predictor
 * (boundary.c), which calibration trains (dhsa_heads.c): chunks begin where it says, as many as fixed ones, and at multiples of
 * 128; a head whose numbers do not fit its width is dense and counts as fallen back. Other numbers are the keys at which chunks
 * begin, ascending, as an analysis of the text has found them; one is left out where more chunks stand before it than fixed ones
 * would, and behind the last come fixed ones. */
#include "select/boundary.h"
#include "select/calibrate.h"

#include <math.h>
#include <string.h>

enum { BUDGET, DENSITY, CHUNK, LOCAL, SINKS, NORM };
enum { ROWS = 64 };

/* A head's chunks: begin (n + 1), and their means kt (d, room), column by column. */
typedef struct chunks {
    bool unfit; /* the profile is no predictor for such a head */
    int64_t n, room;
    int32_t *begin;
    float *kt;
} chunks;

typedef struct bench {
    float *q, *last, *rows, *score;
    int32_t *heap;
} bench;

static int64_t most_chunks(const double *value, int64_t n_kv) {
    const int64_t segments = fvi_ceil_div(n_kv, FVI_BOUNDARY_SEGMENT);
    return fvi_round_up(fvi_max(2 * fvi_ceil_div(n_kv, (int64_t)value[CHUNK]), segments) + 1, 16);
}

/* Of a predictor at work: the keys of a segment and its window before, weights, features, two means, logits. */
static int64_t predictor_floats(int64_t d) {
    const int64_t keys = (FVI_BOUNDARY_SEGMENT + FVI_BOUNDARY_WINDOW) * d, features = FVI_BOUNDARY_PLACES * fvi_boundary_width(d);
    return fvi_round_up(keys + fvi_boundary_weights(d) + features + 2 * d + FVI_BOUNDARY_SEGMENT, 16);
}

static size_t head_bytes(const double *value, const fvi_extent *e) {
    return 64 + (size_t)(most_chunks(value, e->n_kv) * 4 * (e->d_k + 1)) + 64;
}

static size_t scratch_bytes(const double *value, const fvi_extent *e) {
    const int64_t floats = fvi_round_up((2 + ROWS) * e->d_k, 16) + 2 * most_chunks(value, e->n_kv);
    return (size_t)(4 * fvi_max(floats, predictor_floats(e->d_k)));
}

static chunks *open_chunks(const fvi_select *s) {
    chunks *c = s->head_state;
    c->room = most_chunks(s->value, s->sight->n_kv);
    c->begin = (int32_t *)((uint8_t *)s->head_state + 64);
    c->kt = (float *)(c->begin + c->room + 16);
    return c;
}

static bool is_predictor(const fvi_select *s) { return s->numbers > 0 && s->number[0] < 0; }

static bool fits(const fvi_select *s) {
    static const double head[FVI_BOUNDARY_HEAD] = {FVI_BOUNDARY_FORM, FVI_BOUNDARY_WINDOW, FVI_BOUNDARY_HIDDEN,
                                                   FVI_BOUNDARY_APART};
    return s->numbers == FVI_BOUNDARY_HEAD + fvi_boundary_weights(s->sight->d_k) && memcmp(s->number, head, sizeof head) == 0;
}

/* Logits of the places 0 .. SEGMENT - 1 of the segment that begins with key `first`: those that are far enough from its
 * beginning and end, and have whole windows. */
static void judge(const fvi_select *s, int64_t first, float *keys, const float *weight, float *x, float *logit) {
    const fvi_sight *sight = s->sight;
    const int64_t d = sight->d_k, w = FVI_BOUNDARY_WINDOW, before = fvi_min(first, w);
    const int64_t n = fvi_min(FVI_BOUNDARY_SEGMENT, sight->n_kv - first);
    const int64_t end = fvi_min(FVI_BOUNDARY_SEGMENT - FVI_BOUNDARY_APART, n - w + 1);
    sight->rows(sight, FVI_SIDE_K, first - before, n + before, keys + (w - before) * d);
    float *mean = x + FVI_BOUNDARY_PLACES * fvi_boundary_width(d), found[FVI_BOUNDARY_PLACES];
    for (int64_t p = 0; p < FVI_BOUNDARY_SEGMENT; p++) {
        logit[p] = -INFINITY;
    }
    for (int64_t p = FVI_BOUNDARY_APART + 1, places; p < end; p += places) {
        places = fvi_min(FVI_BOUNDARY_PLACES, end - p);
        for (int64_t k = 0; k < FVI_BOUNDARY_PLACES; k++) { /* past the end the last one again */
            fvi_boundary_look(keys + (p + fvi_min(k, places - 1)) * d, d, mean, x + k * fvi_boundary_width(d));
        }
        fvi_boundary_logits(weight, x, d, found);
        memcpy(logit + p, found, (size_t)places * sizeof *logit);
    }
}

/* A segment's boundaries depend on its keys and the few before it: so a prompt may come in parts of whole segments. */
static void cut_as_predicted(const fvi_select *s, chunks *c) {
    const int64_t n_kv = s->sight->n_kv, d = s->sight->d_k, weights = fvi_boundary_weights(d);
    const int64_t most = FVI_BOUNDARY_SEGMENT / (int64_t)s->value[CHUNK] - 1;
    float *keys = s->scratch, *weight = keys + (FVI_BOUNDARY_SEGMENT + FVI_BOUNDARY_WINDOW) * d;
    float *x = weight + weights, *logit = x + FVI_BOUNDARY_PLACES * fvi_boundary_width(d) + 2 * d;
    for (int64_t i = 0; i < weights; i++) {
        weight[i] = (float)s->number[FVI_BOUNDARY_HEAD + i];
    }
    c->n = 0;
    for (int64_t first = 0; first < n_kv; first += FVI_BOUNDARY_SEGMENT) {
        int32_t place[FVI_BOUNDARY_SEGMENT];
        judge(s, first, keys, weight, x, logit);
        const int64_t n = fvi_boundary_pick(logit, FVI_BOUNDARY_SEGMENT, most, FVI_BOUNDARY_APART, place);
        c->begin[c->n++] = (int32_t)first;
        for (int64_t i = 0; i < n; i++) {
            c->begin[c->n++] = (int32_t)(first + place[i]);
        }
    }
    c->begin[c->n] = (int32_t)n_kv;
}

/* What stands before a key alone says how the keys up to it are cut, so that a prompt may come in parts. */
static void cut(const fvi_select *s, chunks *c) {
    const int64_t n_kv = s->sight->n_kv, chunk = (int64_t)s->value[CHUNK];
    bool open = true; /* the profile has no more to say */
    c->n = 0;
    c->begin[0] = 0;
    for (int64_t i = 0; i < s->numbers && open; i++) {
        const double at = s->number[i];
        open = at < (double)n_kv;
        if (open && at > (double)c->begin[c->n] && c->n < fvi_ceil_div((int64_t)at, chunk)) {
            c->begin[++c->n] = (int32_t)at;
        }
    }
    while (open && c->begin[c->n] + chunk < n_kv) {
        c->begin[c->n + 1] = (int32_t)(c->begin[c->n] + chunk);
        c->n++;
    }
    c->begin[++c->n] = (int32_t)n_kv;
}

/* mean (d) of keys from..to-1, times sqrt of their number if norm is set. */
static void mean_of(const fvi_select *s, int64_t from, int64_t to, float *rows, float *mean) {
    const fvi_sight *sight = s->sight;
    int64_t d = sight->d_k, n = to - from;
    memset(mean, 0, (size_t)d * sizeof *mean);
    for (int64_t j = from, k; j < to; j += k) {
        k = fvi_min(ROWS, to - j);
        sight->rows(sight, FVI_SIDE_K, j, k, rows);
        for (int64_t i = 0; i < k * d; i++) {
            mean[i % d] += rows[i];
        }
    }
    float weight = s->value[NORM] != 0 ? 1 / sqrtf((float)n) : 1 / (float)n;
    for (int64_t i = 0; i < d; i++) {
        mean[i] *= weight;
    }
}

static bench open_bench(const fvi_select *s) {
    int64_t d = s->sight->d_k, room = most_chunks(s->value, s->sight->n_kv);
    float *at = s->scratch;
    float *scores = at + fvi_round_up((2 + ROWS) * d, 16);
    return (bench){at, at + d, at + 2 * d, scores, (int32_t *)(scores + room)};
}

static void prepare(const fvi_select *s) {
    chunks *c = open_chunks(s);
    bench x = open_bench(s);
    c->unfit = is_predictor(s) && !fits(s);
    if (c->unfit) {
        return;
    }
    (is_predictor(s) ? cut_as_predicted : cut)(s, c);
    for (int64_t b = 0; b < c->n; b++) {
        mean_of(s, c->begin[b], c->begin[b + 1], x.rows, x.last);
        for (int64_t i = 0; i < s->sight->d_k; i++) {
            c->kt[i * c->room + b] = x.last[i];
        }
    }
}

/* The sum of the queries at first..last: a block's mean but for a factor, which ranks nothing otherwise. */
static void sum_queries(const fvi_sight *sight, int64_t first, int64_t last, bench *x) {
    int64_t d = sight->d_k;
    memset(x->q, 0, (size_t)d * sizeof *x->q);
    for (int64_t i = first, k; i <= last; i += k) {
        k = fvi_min(ROWS, last + 1 - i);
        sight->rows(sight, FVI_SIDE_Q, i - sight->offset, k, x->rows);
        for (int64_t j = 0; j < k * d; j++) {
            x->q[j % d] += x->rows[j];
        }
    }
}

/* Scores of the n chunks that begin before key `end`; the last has the keys up to there. */
static void score_chunks(const fvi_select *s, const chunks *c, int64_t n, int64_t end, bench *x) {
    int64_t d = s->sight->d_k;
    memset(x->score, 0, (size_t)n * sizeof *x->score);
    mean_of(s, c->begin[n - 1], end, x->rows, x->last);
    for (int64_t i = 0; i < d; i++) {
        const float *kt = c->kt + i * c->room;
        float q = x->q[i];
        for (int64_t b = 0; b < n - 1; b++) {
            x->score[b] += q * kt[b];
        }
        x->score[n - 1] += q * x->last[i];
    }
}

/* ---- a heap of chunks: the best on top ---- */

static bool better(const float *score, int32_t a, int32_t b) { return score[a] > score[b] || (!(score[a] < score[b]) && a < b); }

static void sink(const float *score, int32_t *heap, int64_t n, int64_t at) {
    int32_t moved = heap[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        child += child + 1 < n && better(score, heap[child + 1], heap[child]);
        if (!better(score, heap[child], moved)) {
            break;
        }
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static void heap_up(bench *x, int64_t n) {
    for (int64_t b = 0; b < n; b++) {
        x->heap[b] = (int32_t)b;
    }
    for (int64_t b = n / 2 - 1; b >= 0; b--) {
        sink(x->score, x->heap, n, b);
    }
}

static int32_t pop(bench *x, int64_t *n) {
    int32_t top = x->heap[0];
    x->heap[0] = x->heap[--*n];
    if (*n > 0) {
        sink(x->score, x->heap, *n, 0);
    }
    return top;
}

/* The `count` lowest keys leave for as many of the text's first. */
static void place_sinks(fvi_index *index, int64_t count) {
    int64_t left = count;
    for (int64_t b = 0; b < index->blocks && left > 0; b++) {
        for (; index->key[b] != 0 && left > 0; left--) {
            index->key[b] &= index->key[b] - 1;
        }
    }
    fvi_index_add(index, 0, count - left);
}

static void tile(const fvi_select *s, const fvi_query_tile *q, fvi_index *index) {
    const fvi_sight *sight = s->sight;
    const chunks *c = s->head_state;
    int64_t first = fvi_max(q->first, sight->offset), last = fvi_min(q->last, sight->offset + sight->n_q - 1), end = last + 1;
    if (c->unfit) {
        fvi_index_add_all(index);
        index->fell_back = true;
        return;
    }
    int64_t budget = s->value[DENSITY] > 0 ? INT64_MAX : (int64_t)s->value[BUDGET], n = 0;
    while (n < c->n && c->begin[n] < end) {
        n++;
    }
    int64_t pops = s->value[DENSITY] > 0 ? fvi_max(1, (int64_t)(s->value[DENSITY] * (double)n)) : n;
    if (budget >= end && pops >= n) {
        fvi_index_add(index, 0, q->last + 1);
        return;
    }
    bench x = open_bench(s);
    sum_queries(sight, first, last, &x);
    score_chunks(s, c, n, end, &x);
    heap_up(&x, n);
    int64_t recent = fvi_min(fvi_min((int64_t)s->value[LOCAL], budget), end), left = budget - recent;
    fvi_index_add(index, end - recent, end);
    for (; pops > 0 && left > 0; pops--) {
        int32_t b = pop(&x, &n);
        int64_t from = c->begin[b], to = fvi_min(c->begin[b + 1], end - recent);
        to = fvi_min(to, left < end ? from + left : to);
        fvi_index_add(index, from, to);
        left -= fvi_max(to - from, 0);
    }
    if (s->value[DENSITY] <= 0) {
        place_sinks(index, fvi_min((int64_t)s->value[SINKS], fvi_min(budget, end)));
    } else {
        fvi_index_add(index, 0, (int64_t)s->value[SINKS]);
    }
}

static const char *refuse(const double *value, const fvi_extent *e) {
    (void)value;
    return e->causal ? NULL : "chunks are ranked among the keys before a query: it needs a causal problem";
}

const fvi_selector fvi_select_dhsa = {.calibration = &fvi_calibrate_dhsa,
                                      .query_block = 128,
                                      .scope = FVI_SCOPE_TILE,
                                      .head_bytes = head_bytes,
                                      .scratch_bytes = scratch_bytes,
                                      .prepare = prepare,
                                      .tile = tile,
                                      .refuse = refuse};
