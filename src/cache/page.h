/* page.h - making, sharing and dropping pages; for the files of this room that change a cache. */
#ifndef FVI_CACHE_PAGE_H
#define FVI_CACHE_PAGE_H

#include "cache/cache.h"

/* From one row to the next, in a cache of this type; bytes of a page's scales; of a page. */
size_t fvi_page_row_bytes(fv_dtype dtype, int64_t d);
size_t fvi_page_scale_bytes(fv_dtype dtype, int64_t d);
size_t fvi_page_bytes(const fv_cache_desc *desc);
/* n new empty pages, each held once; false if there is no memory for all of them, and then there are none. */
bool fvi_pages_create(const fv_cache *cache, int64_t n, fvi_page **page);
/* A page of one's own with the first n entries of `page`, or NULL. `page` keeps its holders. */
fvi_page *fvi_page_copy(const fv_cache *cache, const fvi_page *page, int32_t n);
/* Gives up one hold; the last one frees. */
void fvi_page_drop(const fv_cache *cache, fvi_page *page);
/* Cuts an unshared page down to its first n entries, n >= 1. */
void fvi_page_cut(fvi_page *page, int32_t n);

static inline fvi_cache_head *fvi_cache_head_of(fv_cache *cache, int layer, int64_t head) {
    return &cache->head[layer * cache->desc.h_kv + head];
}

#endif
