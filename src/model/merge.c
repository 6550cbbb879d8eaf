/* merge.c - merging neighbours: the pair with the lowest rank first, the leftmost among equals, until none is left.
 *
 * A list holds the symbols, a heap the ranks of neighbouring pairs: n symbols take O(n log n). Entries of pairs that are gone
 * stay in the heap and are told by their rank.
 *
 * A piece may be a megabyte of one letter, and a pass over it for each rank misses the cache at each step. So a long piece is
 * cut at seams that no merge crosses, and the parts are merged one by one. Whether a seam is such is decided exactly. Merge
 * both sides alone and note when the symbols at the seam came and went, time being the highest rank merged so far: as long
 * as nothing crosses, both sides together do the same. A pair across that has no merge, or whose sides do not live at the
 * same time, or of which one is gone when the pair's rank has its turn, cannot cross; if that holds for all, nothing does.
 * Likely seams are ends of tokens in a trial; one that fails sends the search on, and in the end the whole piece through
 * the heap, so the result is always that of the rule above.
 */
#include "model/vocab.h"

#include <string.h>

/* ---- the table of merges ---- */

static size_t pair_slot(const fv_vocab *v, int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    return (size_t)(h >> 32) & (v->merge_slots - 1);
}

bool fvi_merges_reserve(fv_vocab *v, size_t pairs) {
    size_t slots = 16;
    while (slots < pairs + pairs / 2) {
        slots *= 2;
    }
    v->merge = fvi_alloc(v->ctx, slots, sizeof *v->merge);
    if (v->merge == NULL) {
        return false;
    }
    v->merge_slots = slots;
    memset(v->merge, 0xff, slots * sizeof *v->merge);
    return true;
}

void fvi_merges_add(fv_vocab *v, fvi_merge merge) {
    size_t at = pair_slot(v, merge.left, merge.right);
    while (v->merge[at].left >= 0) {
        if (v->merge[at].left == merge.left && v->merge[at].right == merge.right) {
            return;
        }
        at = (at + 1) & (v->merge_slots - 1);
    }
    v->merge[at] = merge;
}

static const fvi_merge *find_merge(const fv_vocab *v, int32_t left, int32_t right) {
    if (left < 0 || right < 0) {
        return NULL;
    }
    for (size_t at = pair_slot(v, left, right); v->merge[at].left >= 0; at = (at + 1) & (v->merge_slots - 1)) {
        if (v->merge[at].left == left && v->merge[at].right == right) {
            return &v->merge[at];
        }
    }
    return NULL;
}

/* ---- the heap ---- */

static void sift_down(uint64_t *heap, size_t n, size_t at) {
    uint64_t x = heap[at];
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        child += child + 1 < n && heap[child + 1] < heap[child];
        if (x <= heap[child]) {
            break;
        }
        heap[at] = heap[child];
    }
    heap[at] = x;
}

static void push(uint64_t *heap, size_t at, uint64_t x) {
    while (at > 0 && heap[(at - 1) / 2] > x) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = x;
}

static uint64_t pop(uint64_t *heap, size_t *n) {
    uint64_t top = heap[0];
    heap[0] = heap[--*n];
    if (*n > 1) {
        sift_down(heap, *n, 0);
    }
    return top;
}

/* ---- what happens at the ends of a part ---- */

/* The symbols that stood at an end, in order, and when each came; each goes when the next comes. */
enum { EDGE_MOST = 64, BEFORE_ALL = -1, NEVER = INT32_MAX };
typedef struct edge {
    int n; /* EDGE_MOST + 1: there were more */
    int32_t id[EDGE_MOST], born[EDGE_MOST];
} edge;

typedef struct history {
    edge left, right;
} history;

static void note(edge *e, int32_t id, int32_t time) {
    if (e->n < EDGE_MOST) {
        e->id[e->n] = id;
        e->born[e->n] = time;
    }
    e->n += e->n <= EDGE_MOST;
}

static int32_t death(const edge *e, int i) { return i + 1 < e->n ? e->born[i + 1] : NEVER; }

/* Whether x, left of the seam, and y, right of it, cannot merge. At one rank the left side has its turn first (whatever it
 * merges stands left of x), then the pair across, then the right side. */
static bool stay_apart(const fv_vocab *v, const edge *left, int x, const edge *right, int y) {
    const fvi_merge *m = find_merge(v, left->id[x], right->id[y]);
    if (m == NULL) {
        return true;
    }
    int32_t x_dies = death(left, x), y_dies = death(right, y);
    return x_dies <= m->rank || y_dies < m->rank || x_dies <= right->born[y] || y_dies < left->born[x];
}

static bool seam_holds(const fv_vocab *v, const edge *left, const edge *right) {
    bool holds = left->n <= EDGE_MOST && right->n <= EDGE_MOST;
    for (int x = 0; holds && x < left->n; x++) {
        for (int y = 0; holds && y < right->n; y++) {
            holds = stay_apart(v, left, x, right, y);
        }
    }
    return holds;
}

/* ---- one part ---- */

/* Neighbours as a list over an array, the first at 0. */
struct fvi_symbol {
    int32_t previous, next; /* -1 at the ends */
    int32_t id;
    int32_t rank; /* of the merge with the next one; -1: none */
};

typedef struct part {
    const fv_vocab *v;
    fvi_symbol *s;
    uint64_t *heap; /* rank << 32 | symbol */
    size_t heap_size;
    int32_t time;
    history *h; /* NULL: not wanted */
} part;

static void rank_pair(part *p, int32_t at) {
    fvi_symbol *s = p->s;
    const fvi_merge *m = s[at].next >= 0 ? find_merge(p->v, s[at].id, s[s[at].next].id) : NULL;
    s[at].rank = m != NULL ? m->rank : -1;
}

static void queue_pair(part *p, int32_t at) {
    rank_pair(p, at);
    if (p->s[at].rank >= 0) {
        push(p->heap, p->heap_size++, (uint64_t)(uint32_t)p->s[at].rank << 32 | (uint32_t)at);
    }
}

/* Makes one symbol of the one at `at` and the next, and ranks the two pairs that this changes. */
static void merge_pair(part *p, int32_t at) {
    fvi_symbol *s = p->s;
    int32_t gone = s[at].next, before = s[at].previous;
    s[at].id = find_merge(p->v, s[at].id, s[gone].id)->result;
    s[at].next = s[gone].next;
    s[gone].rank = -1;
    if (s[at].next >= 0) {
        s[s[at].next].previous = at;
    }
    if (p->h != NULL && before < 0) {
        note(&p->h->left, s[at].id, p->time);
    }
    if (p->h != NULL && s[at].next < 0) {
        note(&p->h->right, s[at].id, p->time);
    }
    queue_pair(p, at);
    if (before >= 0) {
        queue_pair(p, before);
    }
}

static void line_up(part *p, const int32_t *unit, int32_t n) {
    fvi_symbol *s = p->s;
    for (int32_t i = 0; i < n; i++) {
        s[i] = (fvi_symbol){i - 1, i + 1 < n ? i + 1 : -1, unit[i], -1};
    }
    for (int32_t i = 0; i < n; i++) {
        rank_pair(p, i);
        if (s[i].rank >= 0) {
            p->heap[p->heap_size++] = (uint64_t)(uint32_t)s[i].rank << 32 | (uint32_t)i;
        }
    }
    for (size_t i = p->heap_size / 2; i-- > 0;) {
        sift_down(p->heap, p->heap_size, i);
    }
    if (p->h != NULL) {
        p->h->left.n = p->h->right.n = 0;
        note(&p->h->left, s[0].id, BEFORE_ALL);
        note(&p->h->right, s[n - 1].id, BEFORE_ALL);
    }
}

/* Merges the units [from, to) alone, into the scratch's symbols. */
static fv_status merge_part(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, int32_t from, int32_t to, history *h) {
    int32_t n = to - from;
    /* a merge takes one entry off the heap and puts two on at most, and there are less than n */
    if (!fvi_grow(ctx, (void **)&scratch->symbol, &scratch->symbols, n, sizeof *scratch->symbol) ||
        !fvi_grow(ctx, (void **)&scratch->heap, &scratch->heap_capacity, 2 * (int64_t)n, sizeof *scratch->heap)) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory to merge a piece of %d bytes", n);
    }
    part p = {v, scratch->symbol, scratch->heap, 0, BEFORE_ALL, h};
    line_up(&p, scratch->unit + from, n);
    while (p.heap_size > 0) {
        uint64_t top = pop(p.heap, &p.heap_size);
        int32_t at = (int32_t)(top & UINT32_MAX), rank = (int32_t)(top >> 32);
        if (p.s[at].rank == rank) {
            p.time = rank > p.time ? rank : p.time;
            merge_pair(&p, at);
        }
    }
    return FV_OK;
}

/* Writes what the last part became behind the ids. */
static void take_ids(fvi_scratch *scratch) {
    for (int32_t i = 0; i >= 0; i = scratch->symbol[i].next) {
        scratch->id[scratch->ids++] = scratch->symbol[i].id;
    }
}

static fv_status merge_whole(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, int32_t n) {
    scratch->ids = 0;
    fv_status status = merge_part(ctx, v, scratch, 0, n, NULL);
    if (status == FV_OK) {
        take_ids(scratch);
    }
    return status;
}

/* ---- a long piece ---- */

enum { PART = 4096 /* units of the first trial: its symbols and its heap stay in the cache */, TRIES = 4 };

/* The start of the last token that starts at `most` at the latest. */
static int32_t token_start(const fvi_symbol *s, int32_t most) {
    int32_t at = 0;
    while (s[at].next >= 0 && s[at].next <= most) {
        at = s[at].next;
    }
    return at;
}

/* Merges [from, cut) for the largest cut that a trial of `size` units suggests and that holds within it; *cut is `from` if there
 * is none. */
static fv_status try_cut(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, int32_t from, int32_t size, history *h,
                         int32_t *cut) {
    history rest;
    int32_t starts[TRIES];
    fv_status status = merge_part(ctx, v, scratch, from, from + size, NULL);
    for (int i = 0; i < TRIES && status == FV_OK; i++) {
        starts[i] = token_start(scratch->symbol, size / 8 * (6 - i));
    }
    for (int i = 0; i < TRIES && status == FV_OK; i++) {
        *cut = from + starts[i];
        if (starts[i] == 0 || (i > 0 && starts[i] == starts[i - 1])) {
            continue;
        }
        status = merge_part(ctx, v, scratch, *cut, from + size, &rest);
        status = status == FV_OK ? merge_part(ctx, v, scratch, from, *cut, h) : status;
        if (status == FV_OK && seam_holds(v, &h->right, &rest.left)) {
            return FV_OK;
        }
    }
    *cut = from;
    return status;
}

/* Merges from `from` on up to *cut, which is `n` where no other was found. */
static fv_status merge_next(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, int32_t from, int32_t n, history *h,
                            int32_t *cut) {
    fv_status status = FV_OK;
    *cut = from;
    for (int32_t size = PART; size < n - from && *cut == from && status == FV_OK; size *= 2) {
        status = try_cut(ctx, v, scratch, from, size, h, cut);
    }
    if (*cut == from && status == FV_OK) {
        *cut = n;
        status = merge_part(ctx, v, scratch, from, n, h);
    }
    if (status == FV_OK) {
        take_ids(scratch);
    }
    return status;
}

/* A seam that held in its trial may not hold with what follows: then the piece is merged as one. */
static fv_status merge_long(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, int32_t n) {
    history here, next;
    int32_t cut;
    fv_status status = merge_next(ctx, v, scratch, 0, n, &here, &cut);
    while (cut < n && status == FV_OK) {
        status = merge_next(ctx, v, scratch, cut, n, &next, &cut);
        if (status == FV_OK && !seam_holds(v, &here.right, &next.left)) {
            return merge_whole(ctx, v, scratch, n);
        }
        here = next;
    }
    return status;
}

fv_status fvi_units_reserve(fv_context *ctx, fvi_scratch *scratch, size_t n) {
    if (n > INT32_MAX / 4) {
        return fvi_fail(ctx, FV_ERR_RANGE, "a piece of the text has %zu bytes, at most %d can be merged at once", n,
                        INT32_MAX / 4);
    }
    if (!fvi_grow(ctx, (void **)&scratch->unit, &scratch->units, (int64_t)n, sizeof *scratch->unit) ||
        !fvi_grow(ctx, (void **)&scratch->id, &scratch->id_capacity, (int64_t)n, sizeof *scratch->id)) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory to merge a piece of %zu bytes", n);
    }
    return FV_OK;
}

fv_status fvi_units_merge(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, size_t n, bool cut) {
    scratch->ids = 0;
    if (n == 0) {
        return FV_OK;
    }
    return cut && n > PART ? merge_long(ctx, v, scratch, (int32_t)n) : merge_whole(ctx, v, scratch, (int32_t)n);
}

fv_status fvi_units_merge_at(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, size_t n, size_t cut, bool *holds) {
    history left, right;
    scratch->ids = 0;
    fv_status status = merge_part(ctx, v, scratch, 0, (int32_t)cut, &left);
    if (status == FV_OK) {
        take_ids(scratch);
        status = merge_part(ctx, v, scratch, (int32_t)cut, (int32_t)n, &right);
    }
    if (status == FV_OK) {
        take_ids(scratch);
        *holds = seam_holds(v, &left.right, &right.left);
    }
    return status;
}

void fvi_scratch_release(fv_context *ctx, fvi_scratch *scratch) {
    fvi_release(ctx, scratch->unit, (size_t)scratch->units, sizeof *scratch->unit);
    fvi_release(ctx, scratch->id, (size_t)scratch->id_capacity, sizeof *scratch->id);
    fvi_release(ctx, scratch->symbol, (size_t)scratch->symbols, sizeof *scratch->symbol);
    fvi_release(ctx, scratch->heap, (size_t)scratch->heap_capacity, sizeof *scratch->heap);
    fvi_release(ctx, scratch->text, (size_t)scratch->text_capacity, 1);
    *scratch = (fvi_scratch){0};
}
