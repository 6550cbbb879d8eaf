/* cache.h - the cache from inside: pages of 64 entries, one table of pages for each layer and KV head.
 *
 * A page is one tile: 64 rows of K, 64 rows of V, row-major, and the entries' positions. Rows are 64-byte aligned; quantised
 * rows are their integers alone, without gaps, the scales of all rows behind them (kernel/quant.h), so that a page of 64 is as
 * many bytes as the formats say. All pages of a head but its last are full. Pages are shared by forks and never written while
 * shared, so a reader may keep a page's address until the next call that changes its cache. Heads of a layer may differ in length
 * once a policy has dropped entries; slots then no longer equal positions, and masks must compare `position`.
 */
#ifndef FVI_CACHE_H
#define FVI_CACHE_H

#include "kernel/quant.h"

enum { FVI_PAGE = FVI_QUANT_ROWS };

typedef struct fvi_page {
    int32_t position[FVI_PAGE]; /* ascending */
    int32_t min_position;       /* of the n entries */
    int32_t max_position;
    int32_t n;    /* entries, 1..64; what stands in rows at and past n is unspecified (padding of rows d..stride is zero) */
    int32_t refs; /* caches that hold it */
    uint8_t *k;   /* 64 rows of k_row_bytes */
    uint8_t *v;   /* 64 rows of v_row_bytes */
    uint16_t *k_scale, *v_scale; /* (d / 32, 64); NULL unless quantised */
} fvi_page;

typedef struct fvi_cache_head {
    fvi_page **page; /* ceil(length / 64) pages */
    int64_t capacity;
    int64_t length; /* entries */
} fvi_cache_head;

struct fv_cache {
    fv_context *ctx;
    fv_cache_desc desc;
    fvi_quant_ops quant;
    size_t k_row_bytes, v_row_bytes; /* strides: multiples of 64, or those of quantised rows */
    size_t page_bytes;               /* of a page's three allocations */
    fvi_cache_head *head;            /* (layers, h_kv) */
    int64_t *next;                   /* (layers): position of the next entry */
    int64_t pages;                   /* held by the tables */
};

static inline const fvi_cache_head *fvi_cache_head_at(const fv_cache *cache, int layer, int64_t head) {
    return &cache->head[layer * cache->desc.h_kv + head];
}
/* Page `page` of a head: entries 64 * page and on. 0 <= page < ceil(length / 64). */
static inline const fvi_page *fvi_cache_page(const fv_cache *cache, int layer, int64_t head, int64_t page) {
    return fvi_cache_head_at(cache, layer, head)->page[page];
}
static inline int64_t fvi_cache_head_length(const fv_cache *cache, int layer, int64_t head) {
    return fvi_cache_head_at(cache, layer, head)->length;
}
static inline int64_t fvi_cache_head_pages(const fv_cache *cache, int layer, int64_t head) {
    return fvi_ceil_div(fvi_cache_head_length(cache, layer, head), FVI_PAGE);
}
/* Position that the next appended entry of a layer gets: one past the last, dropped entries counted. */
static inline int64_t fvi_cache_next_position(const fv_cache *cache, int layer) { return cache->next[layer]; }

#endif
