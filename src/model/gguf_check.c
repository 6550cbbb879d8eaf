/* gguf_check.c - what has to hold between the records of a GGUF file: no key and no tensor twice, no data in two tensors.
 *
 * Records are compared with their neighbours after sorting, so a million of them cost n log n, whatever a file does to prevent
 * it: there is no hash that it could aim at, and the sort has no bad cases.
 */
#include "model/gguf.h"

#include <inttypes.h>
#include <string.h>

/* One record, for sorting: by name, or by where its data lies. */
typedef struct item {
    fvi_string name;
    uint64_t from, to;
} item;

typedef int (*item_order)(const item *a, const item *b);

static int by_name(const item *a, const item *b) {
    int c = memcmp(a->name.data, b->name.data, a->name.size < b->name.size ? a->name.size : b->name.size);
    if (c == 0) {
        c = (a->name.size > b->name.size) - (a->name.size < b->name.size);
    }
    return c != 0 ? c : (a->name.data > b->name.data) - (a->name.data < b->name.data);
}

static int by_place(const item *a, const item *b) { return (a->from > b->from) - (a->from < b->from); }

static void sift(item *heap, int64_t root, int64_t n, item_order order) {
    item moved = heap[root];
    for (int64_t child = 2 * root + 1; child < n; child = 2 * root + 1) {
        if (child + 1 < n && order(&heap[child], &heap[child + 1]) < 0) {
            child++;
        }
        if (order(&moved, &heap[child]) >= 0) {
            break;
        }
        heap[root] = heap[child];
        root = child;
    }
    heap[root] = moved;
}

/* Heapsort: no memory, no recursion, n log n whatever the file says. */
static void sort(item *items, int64_t n, item_order order) {
    for (int64_t i = n / 2 - 1; i >= 0; i--) {
        sift(items, i, n, order);
    }
    for (int64_t i = n - 1; i > 0; i--) {
        item last = items[i];
        items[i] = items[0];
        items[0] = last;
        sift(items, 0, i, order);
    }
}

static fv_status check_unique(const fvi_gguf *g, item *items, int64_t n, const char *kind) {
    sort(items, n, by_name);
    for (int64_t i = 1; i < n; i++) {
        const fvi_string *a = &items[i - 1].name, *b = &items[i].name;
        if (a->size == b->size && memcmp(a->data, b->data, a->size) == 0) {
            return fvi_gguf_fail(g, FV_ERR_FORMAT, fvi_gguf_record(g, *b), kind, *b,
                                 "this name was at offset 0x%" PRIx64 " before", fvi_gguf_record(g, *a));
        }
    }
    return FV_OK;
}

static fv_status check_overlap(const fvi_gguf *g, item *items, int64_t n) {
    sort(items, n, by_place);
    for (int64_t i = 1; i < n; i++) {
        if (items[i].from < items[i - 1].to) {
            return fvi_gguf_fail(g, FV_ERR_FORMAT, fvi_gguf_record(g, items[i].name), "tensor", items[i].name,
                                 "its data at 0x%" PRIx64 " lies within another tensor's, which ends at 0x%" PRIx64,
                                 items[i].from, items[i - 1].to);
        }
    }
    return FV_OK;
}

fv_status fvi_gguf_check(const fvi_gguf *g) {
    int64_t most = fvi_max(g->n_entries, g->n_tensors);
    if (most == 0) {
        return FV_OK;
    }
    item *items = fvi_alloc(g->ctx, (size_t)most, sizeof *items);
    if (items == NULL) {
        return fvi_fail(g->ctx, FV_ERR_MEMORY, "%s: no memory to compare %" PRId64 " names", g->path, most);
    }
    for (int64_t i = 0; i < g->n_entries; i++) {
        items[i] = (item){.name = g->entry[i].key};
    }
    fv_status status = check_unique(g, items, g->n_entries, "key");
    for (int64_t i = 0; i < g->n_tensors; i++) {
        const fvi_gguf_tensor *t = &g->tensor[i];
        items[i] = (item){t->name, t->offset, t->offset + t->bytes};
    }
    if (status == FV_OK) {
        status = check_unique(g, items, g->n_tensors, "tensor");
    }
    if (status == FV_OK) {
        status = check_overlap(g, items, g->n_tensors);
    }
    fvi_release(g->ctx, items, (size_t)most, sizeof *items);
    return status;
}
