/* page.c - a page is one allocation: its header, 64 rows of K, 64 rows of V, each part 64-byte aligned. */
#include "cache/page.h"

#include <string.h>

static size_t header_bytes(void) { return (size_t)fvi_round_up((int64_t)sizeof(fvi_page), 64); }

static bool padded(const fv_cache *cache) {
    return cache->k_row_bytes != fv_dtype_bytes(cache->desc.k_dtype, cache->desc.d_k) ||
           cache->v_row_bytes != fv_dtype_bytes(cache->desc.v_dtype, cache->desc.d_v);
}

fvi_page *fvi_page_create(const fv_cache *cache) {
    fvi_page *page = fvi_alloc(cache->ctx, cache->page_bytes, 1);
    if (page != NULL) {
        /* zeros in the padding of rows, so that a dot product may run over it */
        memset(page, 0, padded(cache) ? cache->page_bytes : sizeof *page);
        page->refs = 1;
        page->k = (uint8_t *)page + header_bytes();
        page->v = page->k + FVI_PAGE * cache->k_row_bytes;
    }
    return page;
}

fvi_page *fvi_page_copy(const fv_cache *cache, const fvi_page *page, int32_t n) {
    fvi_page *copy = fvi_page_create(cache);
    if (copy != NULL) {
        memcpy(copy->position, page->position, (size_t)n * sizeof copy->position[0]);
        memcpy(copy->k, page->k, (size_t)n * cache->k_row_bytes);
        memcpy(copy->v, page->v, (size_t)n * cache->v_row_bytes);
        copy->min_position = page->min_position;
        fvi_page_cut(copy, n);
    }
    return copy;
}

void fvi_page_drop(const fv_cache *cache, fvi_page *page) {
    page->refs--;
    if (page->refs == 0) {
        fvi_release(cache->ctx, page, cache->page_bytes, 1);
    }
}

void fvi_page_cut(fvi_page *page, int32_t n) {
    page->n = n;
    page->max_position = page->position[n - 1];
}
