/* bpe.c - byte pair encoding: the pair of neighbours with the lowest rank merges first, the leftmost among equals.
 *
 * A heap holds the ranks of neighbouring pairs, a list the symbols, so a piece of n bytes takes O(n log n), be it a book
 * without a space. Entries of pairs that are gone stay in the heap and are told by their rank. Most words come again: a
 * small cache keeps their ids (16,384 slots of 64 bytes, one hash, a newcomer takes the slot).
 */
#include "model/pretokenize.h"

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

const fvi_merge *fvi_merges_find(const fv_vocab *v, int32_t left, int32_t right) {
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

/* ---- merging ---- */

fv_status fvi_symbols_reserve(fv_context *ctx, fvi_scratch *scratch, size_t n) {
    if (n > INT32_MAX / 2) {
        return fvi_fail(ctx, FV_ERR_RANGE, "the text has a piece of %zu bytes, at most %d can be merged at once", n,
                        INT32_MAX / 2);
    }
    /* a merge takes one entry off the heap and puts two on at most, and there are less than n */
    if (!fvi_grow(ctx, (void **)&scratch->symbol, &scratch->symbols, (int64_t)n, sizeof *scratch->symbol) ||
        !fvi_grow(ctx, (void **)&scratch->heap, &scratch->heap_capacity, 2 * (int64_t)n, sizeof *scratch->heap)) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory to merge a piece of %zu bytes", n);
    }
    return FV_OK;
}

void fvi_scratch_release(fv_context *ctx, fvi_scratch *scratch) {
    fvi_release(ctx, scratch->symbol, (size_t)scratch->symbols, sizeof *scratch->symbol);
    fvi_release(ctx, scratch->heap, (size_t)scratch->heap_capacity, sizeof *scratch->heap);
    fvi_release(ctx, scratch->text, (size_t)scratch->text_capacity, 1);
    *scratch = (fvi_scratch){0};
}

/* Ranks the pair that starts at symbol `at`; true if it can merge. */
static bool rank_pair(const fv_vocab *v, fvi_symbol *s, int32_t at) {
    const fvi_merge *m = NULL;
    if (s[at].next >= 0 && s[at].id >= 0 && s[s[at].next].id >= 0) {
        m = fvi_merges_find(v, s[at].id, s[s[at].next].id);
    }
    s[at].rank = m != NULL ? m->rank : -1;
    return m != NULL;
}

static inline uint64_t heap_entry(const fvi_symbol *s, int32_t at) { return (uint64_t)(uint32_t)s[at].rank << 32 | (uint32_t)at; }

/* Makes one symbol of the one at `at` and the next, and ranks the two pairs that this changes. */
static void merge_pair(const fv_vocab *v, fvi_symbol *s, int32_t at, uint64_t *heap, size_t *heap_size) {
    int32_t gone = s[at].next;
    s[at].id = fvi_merges_find(v, s[at].id, s[gone].id)->result;
    s[at].next = s[gone].next;
    s[gone].rank = -1;
    if (s[at].next >= 0) {
        s[s[at].next].previous = at;
    }
    if (rank_pair(v, s, at)) {
        push(heap, (*heap_size)++, heap_entry(s, at));
    }
    int32_t before = s[at].previous;
    if (before >= 0 && rank_pair(v, s, before)) {
        push(heap, (*heap_size)++, heap_entry(s, before));
    }
}

void fvi_symbols_merge(const fv_vocab *v, fvi_scratch *scratch, size_t n) {
    fvi_symbol *s = scratch->symbol;
    uint64_t *heap = scratch->heap;
    size_t heap_size = 0;
    for (size_t i = 0; i < n; i++) {
        s[i].previous = (int32_t)i - 1;
        s[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i < n; i++) {
        if (rank_pair(v, s, (int32_t)i)) {
            heap[heap_size++] = heap_entry(s, (int32_t)i);
        }
    }
    for (size_t i = heap_size / 2; i-- > 0;) {
        sift_down(heap, heap_size, i);
    }
    while (heap_size > 0) {
        uint64_t top = pop(heap, &heap_size);
        int32_t at = (int32_t)(top & UINT32_MAX);
        if (s[at].rank == (int32_t)(top >> 32)) {
            merge_pair(v, s, at, heap, &heap_size);
        }
    }
}

/* ---- words ---- */

fv_status fvi_tokens_append(fv_context *ctx, fv_tokens *out, const int32_t *id, int64_t n) {
    if (!fvi_grow(ctx, (void **)&out->id, &out->capacity, out->n + n, sizeof *out->id)) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for %lld tokens", (long long)(out->n + n));
    }
    for (int64_t i = 0; i < n; i++) {
        out->id[out->n++] = id[i];
    }
    return FV_OK;
}

static fvi_word *word_slot(const fv_vocab *v, const char *word, size_t size) {
    return &v->word[fvi_hash(word, size) & (FVI_WORD_SLOTS - 1)];
}

fv_status fvi_word_take(fv_context *ctx, const fv_vocab *v, const char *word, size_t size, fv_tokens *out, bool *hit) {
    *hit = false;
    if (size > FVI_WORD_BYTES) {
        return FV_OK;
    }
    const fvi_word *w = word_slot(v, word, size);
    if (w->size != size || memcmp(w->bytes, word, size) != 0) {
        return FV_OK;
    }
    *hit = true;
    return fvi_tokens_append(ctx, out, w->id, w->n);
}

void fvi_word_keep(const fv_vocab *v, const char *word, size_t size, const fv_tokens *out, int64_t first) {
    int64_t n = out->n - first;
    if (size > FVI_WORD_BYTES || n > FVI_WORD_IDS) {
        return;
    }
    fvi_word *w = word_slot(v, word, size);
    w->size = (uint8_t)size;
    w->n = (uint8_t)n;
    memcpy(w->bytes, word, size);
    if (n > 0) {
        memcpy(w->id, out->id + first, (size_t)n * sizeof *w->id);
    }
}

/* ---- byte-level text ---- */

/* A byte without a token becomes the unknown token; where there is none it is left out, as the reference does. */
static size_t bytes_to_symbols(const fv_vocab *v, const char *piece, size_t size, fvi_symbol *s) {
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        int32_t id = v->byte_id[(unsigned char)piece[i]];
        if (id >= 0 || v->unknown >= 0) {
            s[n++].id = id;
        }
    }
    return n;
}

static fv_status encode_piece(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, const char *piece, size_t size,
                              fv_tokens *out) {
    fv_status status = fvi_symbols_reserve(ctx, scratch, size);
    if (status != FV_OK) {
        return status;
    }
    size_t n = bytes_to_symbols(v, piece, size, scratch->symbol);
    fvi_symbols_merge(v, scratch, n);
    for (int32_t i = n > 0 ? 0 : -1; i >= 0 && status == FV_OK; i = scratch->symbol[i].next) {
        int32_t id = scratch->symbol[i].id;
        status = fvi_tokens_append(ctx, out, id >= 0 ? &id : &v->unknown, 1);
    }
    return status;
}

fv_status fvi_bpe_encode(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, const char *text, size_t size,
                         fv_tokens *out) {
    fv_status status = FV_OK;
    for (size_t at = 0, end; at < size && status == FV_OK; at = end) {
        end = fvi_pretokenize(v->kind, text, size, at);
        int64_t first = out->n;
        bool hit;
        status = fvi_word_take(ctx, v, text + at, end - at, out, &hit);
        if (status == FV_OK && !hit) {
            status = encode_piece(ctx, v, scratch, text + at, end - at, out);
            if (status == FV_OK) {
                fvi_word_keep(v, text + at, end - at, out, first);
            }
        }
    }
    return status;
}
