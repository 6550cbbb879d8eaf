/* append.c - new entries: reserve every page first, then fill, so that a refused allocation leaves the cache as it was. */
#include "cache/page.h"
#include "cache/rows.h"

#include <string.h>

static fv_status check_shape(const fv_cache *cache, const char *name, const fv_tensor *x, int64_t n, int64_t d) {
    if (x->rank != 4 || x->shape[0] != 1 || x->shape[1] != cache->desc.h_kv || x->shape[2] != n || x->shape[3] != d) {
        return fvi_fail(cache->ctx, FV_ERR_ARGUMENT,
                        "fv_cache_append: %s has rank %d and shape (%lld, %lld, %lld, %lld), must be (1, %lld, %lld, %lld)", name,
                        x->rank, (long long)x->shape[0], (long long)x->shape[1], (long long)x->shape[2], (long long)x->shape[3],
                        (long long)cache->desc.h_kv, (long long)n, (long long)d);
    }
    if (fvi_row_move_find(&cache->ctx->cpu, FV_F32, x->dtype) == NULL) {
        return fvi_fail(cache->ctx, FV_ERR_UNSUPPORTED, "fv_cache_append: %s is %s, must be f32, f16 or bf16", name,
                        fv_dtype_name(x->dtype));
    }
    if (x->data == NULL && n > 0) {
        return fvi_fail(cache->ctx, FV_ERR_ARGUMENT, "fv_cache_append: %s has no data", name);
    }
    return FV_OK;
}

static fv_status check(const fv_cache *cache, int layer, const fv_tensor *k, const fv_tensor *v) {
    if (layer < 0 || layer >= cache->desc.layers) {
        return fvi_fail(cache->ctx, FV_ERR_ARGUMENT, "fv_cache_append: layer %d of a cache of %d layers", layer,
                        cache->desc.layers);
    }
    int64_t n = k->rank == 4 ? k->shape[2] : 0;
    if (n < 0 || n > INT32_MAX - cache->next[layer]) {
        return fvi_fail(cache->ctx, FV_ERR_RANGE, "fv_cache_append: %lld entries after position %lld; positions end at 2^31 - 1",
                        (long long)n, (long long)cache->next[layer]);
    }
    fv_status status = check_shape(cache, "k", k, n, cache->desc.d_k);
    if (status == FV_OK && (v == NULL) != (cache->desc.d_v == 0)) {
        return fvi_fail(cache->ctx, FV_ERR_ARGUMENT, "fv_cache_append: v is %s, and the cache has values of width %lld",
                        v == NULL ? "NULL" : "given", (long long)cache->desc.d_v);
    }
    return status != FV_OK || v == NULL ? status : check_shape(cache, "v", v, n, cache->desc.d_v);
}

/* ---- reserve ---- */

/* Page slots for n more entries of a head: its last page its own, new ones empty behind it. *made counts the new ones. */
static bool reserve_head(fv_cache *cache, fvi_cache_head *head, int64_t n, int64_t *made) {
    int64_t pages = fvi_ceil_div(head->length, FVI_PAGE), need = fvi_ceil_div(head->length + n, FVI_PAGE);
    *made = 0;
    if (!fvi_grow(cache->ctx, (void **)&head->page, &head->capacity, need, sizeof head->page[0])) {
        return false;
    }
    if (head->length % FVI_PAGE != 0 && head->page[pages - 1]->refs > 1) {
        fvi_page *own = fvi_page_copy(cache, head->page[pages - 1], head->page[pages - 1]->n);
        if (own == NULL) {
            return false;
        }
        fvi_page_drop(cache, head->page[pages - 1]);
        head->page[pages - 1] = own;
    }
    for (; pages + *made < need; (*made)++) {
        fvi_page *page = fvi_page_create(cache);
        if (page == NULL) {
            return false;
        }
        head->page[pages + *made] = page;
    }
    return true;
}

static void give_back(fv_cache *cache, fvi_cache_head *head, int64_t made) {
    int64_t pages = fvi_ceil_div(head->length, FVI_PAGE);
    for (int64_t p = pages; p < pages + made; p++) {
        fvi_page_drop(cache, head->page[p]);
    }
}

static bool reserve(fv_cache *cache, int layer, int64_t n) {
    int64_t made = 0;
    for (int64_t h = 0; h < cache->desc.h_kv; h++) {
        fvi_cache_head *head = fvi_cache_head_of(cache, layer, h);
        if (!reserve_head(cache, head, n, &made)) {
            give_back(cache, head, made);
            while (h-- > 0) {
                head = fvi_cache_head_of(cache, layer, h);
                give_back(cache, head, fvi_ceil_div(head->length + n, FVI_PAGE) - fvi_ceil_div(head->length, FVI_PAGE));
            }
            return false;
        }
    }
    return true;
}

/* ---- fill ---- */

/* Rows of one head of a (1, h, n, d) tensor on their way to pages. */
typedef struct source {
    const uint8_t *base;           /* entry 0 of the head */
    size_t element, to_element;    /* bytes */
    int64_t row_stride, stride, d; /* in elements */
    fvi_row_move move;
    bool packed; /* numbers of a row stand side by side */
} source;

static source source_of(const fv_cache *cache, const fv_tensor *x, int64_t head, fv_dtype to) {
    size_t element = fv_dtype_bytes(x->dtype, 1);
    return (source){.base = (const uint8_t *)x->data + head * x->stride[1] * (int64_t)element,
                    .element = element,
                    .to_element = fv_dtype_bytes(to, 1),
                    .row_stride = x->stride[2],
                    .stride = x->stride[3],
                    .d = x->shape[3],
                    .move = fvi_row_move_find(&cache->ctx->cpu, to, x->dtype),
                    .packed = x->stride[3] == 1 || x->shape[3] == 1};
}

static void gather(uint8_t *to, const uint8_t *from, int64_t d, int64_t stride, size_t element) {
    for (int64_t i = 0; i < d; i++) {
        memcpy(to + (size_t)i * element, from + i * stride * (int64_t)element, element);
    }
}

static void fill_rows(const source *s, int64_t entry, int64_t n, uint8_t *to, size_t to_stride) {
    float side_by_side[256];
    for (int64_t e = 0; e < n; e++) {
        const uint8_t *row = s->base + (entry + e) * s->row_stride * (int64_t)s->element;
        if (s->packed) {
            s->move(to + (size_t)e * to_stride, row, s->d);
        }
        for (int64_t c = 0; c < s->d && !s->packed; c += 256) {
            int64_t some = fvi_min(256, s->d - c);
            gather((uint8_t *)side_by_side, row + c * s->stride * (int64_t)s->element, some, s->stride, s->element);
            s->move(to + (size_t)e * to_stride + (size_t)c * s->to_element, (const uint8_t *)side_by_side, some);
        }
    }
}

static void fill_page(const fv_cache *cache, fvi_page *page, const source *k, const source *v, int64_t entry, int32_t n,
                      int64_t position) {
    size_t at = (size_t)page->n;
    fill_rows(k, entry, n, page->k + at * cache->k_row_bytes, cache->k_row_bytes);
    if (cache->desc.d_v > 0) {
        fill_rows(v, entry, n, page->v + at * cache->v_row_bytes, cache->v_row_bytes);
    }
    for (int32_t e = 0; e < n; e++) {
        page->position[(int32_t)at + e] = (int32_t)(position + e);
    }
    page->n += n;
    page->min_position = page->position[0];
    page->max_position = page->position[page->n - 1];
}

static void fill_head(fv_cache *cache, int layer, int64_t h, const fv_tensor *k, const fv_tensor *v) {
    fvi_cache_head *head = fvi_cache_head_of(cache, layer, h);
    source from_k = source_of(cache, k, h, cache->desc.k_dtype);
    source from_v = v != NULL ? source_of(cache, v, h, cache->desc.v_dtype) : (source){0};
    int64_t n = k->shape[2];
    cache->pages += fvi_ceil_div(head->length + n, FVI_PAGE) - fvi_ceil_div(head->length, FVI_PAGE);
    for (int64_t done = 0; done < n;) {
        fvi_page *page = head->page[head->length / FVI_PAGE];
        int64_t rows = fvi_min(FVI_PAGE - page->n, n - done);
        fill_page(cache, page, &from_k, &from_v, done, (int32_t)rows, cache->next[layer] + done);
        head->length += rows;
        done += rows;
    }
}

fv_status fv_cache_append(fv_cache *cache, int layer, const fv_tensor *k, const fv_tensor *v) {
    fv_status status = check(cache, layer, k, v);
    if (status != FV_OK) {
        return status;
    }
    if (!reserve(cache, layer, k->shape[2])) {
        return fvi_fail(cache->ctx, FV_ERR_MEMORY, "no memory for %lld more entries of layer %d of the cache",
                        (long long)k->shape[2], layer);
    }
    for (int64_t h = 0; h < cache->desc.h_kv; h++) {
        fill_head(cache, layer, h, k, v);
    }
    cache->next[layer] += k->shape[2];
    return FV_OK;
}
