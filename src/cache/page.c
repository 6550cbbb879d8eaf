/* page.c - a page is one allocation: its header, 64 rows of K and their scales, 64 rows of V and theirs, each part 64-byte
 * aligned. */
#include "cache/page.h"

#include <string.h>

static size_t header_bytes(void) { return (size_t)fvi_round_up((int64_t)sizeof(fvi_page), 64); }

size_t fvi_page_row_bytes(fv_dtype dtype, int64_t d) {
    return (size_t)(fvi_quantised(dtype) ? fvi_quant_row_bytes(dtype, d) : fvi_round_up((int64_t)fv_dtype_bytes(dtype, d), 64));
}

size_t fvi_page_scale_bytes(fv_dtype dtype, int64_t d) {
    return fvi_quantised(dtype) ? (size_t)(d / FVI_QUANT_BLOCK) * FVI_PAGE * sizeof(uint16_t) : 0;
}

size_t fvi_page_bytes(const fv_cache_desc *d) {
    return header_bytes() + FVI_PAGE * (fvi_page_row_bytes(d->k_dtype, d->d_k) + fvi_page_row_bytes(d->v_dtype, d->d_v)) +
           fvi_page_scale_bytes(d->k_dtype, d->d_k) + fvi_page_scale_bytes(d->v_dtype, d->d_v);
}

static bool has_gaps(fv_dtype dtype, int64_t d, size_t row_bytes) {
    return !fvi_quantised(dtype) && row_bytes != fv_dtype_bytes(dtype, d);
}

static bool padded(const fv_cache *cache) {
    return has_gaps(cache->desc.k_dtype, cache->desc.d_k, cache->k_row_bytes) ||
           has_gaps(cache->desc.v_dtype, cache->desc.d_v, cache->v_row_bytes);
}

fvi_page *fvi_page_create(const fv_cache *cache) {
    fvi_page *page = fvi_alloc(cache->ctx, cache->page_bytes, 1);
    if (page != NULL) {
        /* zeros in the padding of rows, so that a dot product may run over it */
        memset(page, 0, padded(cache) ? cache->page_bytes : sizeof *page);
        page->refs = 1;
        page->k = (uint8_t *)page + header_bytes();
        uint8_t *k_end = page->k + FVI_PAGE * cache->k_row_bytes;
        page->v = k_end + fvi_page_scale_bytes(cache->desc.k_dtype, cache->desc.d_k);
        page->k_scale = fvi_quantised(cache->desc.k_dtype) ? (uint16_t *)k_end : NULL;
        page->v_scale = fvi_quantised(cache->desc.v_dtype) ? (uint16_t *)(page->v + FVI_PAGE * cache->v_row_bytes) : NULL;
    }
    return page;
}

static void copy_scales(uint16_t *to, const uint16_t *from, int64_t d, int32_t n) {
    for (int64_t i = 0; from != NULL && i < d / FVI_QUANT_BLOCK; i++) {
        memcpy(to + i * FVI_PAGE, from + i * FVI_PAGE, (size_t)n * sizeof *to);
    }
}

fvi_page *fvi_page_copy(const fv_cache *cache, const fvi_page *page, int32_t n) {
    fvi_page *copy = fvi_page_create(cache);
    if (copy != NULL) {
        memcpy(copy->position, page->position, (size_t)n * sizeof copy->position[0]);
        memcpy(copy->k, page->k, (size_t)n * cache->k_row_bytes);
        memcpy(copy->v, page->v, (size_t)n * cache->v_row_bytes);
        copy_scales(copy->k_scale, page->k_scale, cache->desc.d_k, n);
        copy_scales(copy->v_scale, page->v_scale, cache->desc.d_v, n);
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
