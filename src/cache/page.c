/* page.c - a page is three allocations: a header; 64 rows of K and their scales; 64 rows of V and theirs; each 64-byte aligned.
 *
 * Pages that come together have all their K made one after the other and then all their V, which allocators put side by side: a
 * generated token reads K of many pages, then V of as many, and a core fetches what lies behind a page before it is asked for it,
 * and slows down where so much as a header stands between two. */
#include "cache/page.h"

#include <string.h>

size_t fvi_page_row_bytes(fv_dtype dtype, int64_t d) {
    return (size_t)(fvi_quantised(dtype) ? fvi_quant_row_bytes(dtype, d) : fvi_round_up((int64_t)fv_dtype_bytes(dtype, d), 64));
}

size_t fvi_page_scale_bytes(fv_dtype dtype, int64_t d) {
    return fvi_quantised(dtype) ? (size_t)(d / FVI_QUANT_BLOCK) * FVI_PAGE * sizeof(uint16_t) : 0;
}

static size_t side_bytes(fv_dtype dtype, int64_t d) {
    return FVI_PAGE * fvi_page_row_bytes(dtype, d) + fvi_page_scale_bytes(dtype, d);
}

static size_t k_bytes(const fv_cache_desc *d) { return side_bytes(d->k_dtype, d->d_k); }
static size_t v_bytes(const fv_cache_desc *d) { return side_bytes(d->v_dtype, d->d_v); }

size_t fvi_page_bytes(const fv_cache_desc *d) { return sizeof(fvi_page) + k_bytes(d) + v_bytes(d); }

static bool has_gaps(fv_dtype dtype, int64_t d, size_t row_bytes) {
    return !fvi_quantised(dtype) && row_bytes != fv_dtype_bytes(dtype, d);
}

/* Zeros in the padding of rows, so that a dot product may run over it. */
static void clear_gaps(fv_dtype dtype, int64_t d, size_t row_bytes, uint8_t *rows) {
    if (has_gaps(dtype, d, row_bytes)) {
        memset(rows, 0, FVI_PAGE * row_bytes);
    }
}

static bool create_k(const fv_cache *cache, fvi_page *page) {
    const fv_cache_desc *d = &cache->desc;
    page->k = fvi_alloc(cache->ctx, k_bytes(d), 1);
    if (page->k == NULL) {
        return false;
    }
    page->k_scale = fvi_quantised(d->k_dtype) ? (uint16_t *)(page->k + FVI_PAGE * cache->k_row_bytes) : NULL;
    clear_gaps(d->k_dtype, d->d_k, cache->k_row_bytes, page->k);
    return true;
}

static bool create_v(const fv_cache *cache, fvi_page *page) {
    const fv_cache_desc *d = &cache->desc;
    if (v_bytes(d) == 0) {
        page->v = page->k + FVI_PAGE * cache->k_row_bytes; /* no rows */
        return true;
    }
    page->v = fvi_alloc(cache->ctx, v_bytes(d), 1);
    if (page->v == NULL) {
        return false;
    }
    page->v_scale = fvi_quantised(d->v_dtype) ? (uint16_t *)(page->v + FVI_PAGE * cache->v_row_bytes) : NULL;
    clear_gaps(d->v_dtype, d->d_v, cache->v_row_bytes, page->v);
    return true;
}

bool fvi_pages_create(const fv_cache *cache, int64_t n, fvi_page **page) {
    int64_t made = 0;
    bool done = true;
    for (; done && made < n; made += done) {
        page[made] = fvi_zalloc(cache->ctx, 1, sizeof(fvi_page));
        done = page[made] != NULL;
    }
    for (int64_t i = 0; i < made; i++) {
        page[i]->refs = 1;
        done = done && create_k(cache, page[i]);
    }
    for (int64_t i = 0; i < made; i++) {
        done = done && create_v(cache, page[i]);
    }
    for (int64_t i = 0; !done && i < made; i++) {
        fvi_page_drop(cache, page[i]);
    }
    return done;
}

static void copy_scales(uint16_t *to, const uint16_t *from, int64_t d, int32_t n) {
    for (int64_t i = 0; from != NULL && i < d / FVI_QUANT_BLOCK; i++) {
        memcpy(to + i * FVI_PAGE, from + i * FVI_PAGE, (size_t)n * sizeof *to);
    }
}

fvi_page *fvi_page_copy(const fv_cache *cache, const fvi_page *page, int32_t n) {
    fvi_page *copy;
    if (!fvi_pages_create(cache, 1, &copy)) {
        return NULL;
    }
    memcpy(copy->position, page->position, (size_t)n * sizeof copy->position[0]);
    memcpy(copy->k, page->k, (size_t)n * cache->k_row_bytes);
    memcpy(copy->v, page->v, (size_t)n * cache->v_row_bytes);
    copy_scales(copy->k_scale, page->k_scale, cache->desc.d_k, n);
    copy_scales(copy->v_scale, page->v_scale, cache->desc.d_v, n);
    copy->min_position = page->min_position;
    fvi_page_cut(copy, n);
    return copy;
}

void fvi_page_drop(const fv_cache *cache, fvi_page *page) {
    page->refs--;
    if (page->refs == 0) {
        if (v_bytes(&cache->desc) > 0) {
            fvi_release(cache->ctx, page->v, v_bytes(&cache->desc), 1);
        }
        fvi_release(cache->ctx, page->k, k_bytes(&cache->desc), 1);
        fvi_release(cache->ctx, page, sizeof *page, 1);
    }
}

void fvi_page_cut(fvi_page *page, int32_t n) {
    page->n = n;
    page->max_position = page->position[n - 1];
}
