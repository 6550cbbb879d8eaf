/* read.c - entries out of a cache, as they are kept. Rows of quantised entries are put together again from their integers and
 * their scales, to the blocks of GGUF. */
#include "cache/page.h"

#include <string.h>

/* Rows first .. first + n - 1 of one side of a page. */
typedef struct side {
    const uint8_t *rows;
    const uint16_t *scale;
    size_t stride;
    fv_dtype dtype;
    int64_t d;
} side;

static void read_quantised(uint8_t *to, const side *s, int64_t row) {
    size_t block = (size_t)fvi_quant_row_bytes(s->dtype, FVI_QUANT_BLOCK);
    const uint8_t *from = s->rows + (size_t)row * s->stride;
    for (int64_t i = 0; i < s->d / FVI_QUANT_BLOCK; i++, from += block, to += sizeof(uint16_t) + block) {
        memcpy(to, &s->scale[i * FVI_PAGE + row], sizeof(uint16_t));
        memcpy(to + sizeof(uint16_t), from, block);
    }
}

static void read_rows(uint8_t *to, const side *s, int64_t first, int64_t n) {
    size_t bytes = fv_dtype_bytes(s->dtype, s->d);
    for (int64_t r = first; r < first + n; r++, to += bytes) {
        if (s->scale != NULL) {
            read_quantised(to, s, r);
        } else {
            memcpy(to, s->rows + (size_t)r * s->stride, bytes);
        }
    }
}

fv_status fv_cache_read(const fv_cache *cache, int layer, int64_t head, int64_t from, int64_t n, void *k, void *v) {
    const fv_cache_desc *d = &cache->desc;
    if (layer < 0 || layer >= d->layers || head < 0 || head >= d->h_kv) {
        return fvi_fail(cache->ctx, FV_ERR_ARGUMENT, "fv_cache_read: layer %d, head %lld of a cache of %d layers x %lld heads",
                        layer, (long long)head, d->layers, (long long)d->h_kv);
    }
    int64_t length = fvi_cache_head_length(cache, layer, head);
    if (from < 0 || n < 0 || from > length || n > length - from) {
        return fvi_fail(cache->ctx, FV_ERR_RANGE, "fv_cache_read: %lld entries from %lld on, of %lld", (long long)n,
                        (long long)from, (long long)length);
    }
    size_t k_bytes = fv_dtype_bytes(d->k_dtype, d->d_k), v_bytes = fv_dtype_bytes(d->v_dtype, d->d_v);
    for (int64_t done = 0; done < n;) {
        const fvi_page *page = fvi_cache_page(cache, layer, head, (from + done) / FVI_PAGE);
        int64_t first = (from + done) % FVI_PAGE, rows = fvi_min(FVI_PAGE - first, n - done);
        const side of_k = {page->k, page->k_scale, cache->k_row_bytes, d->k_dtype, d->d_k};
        const side of_v = {page->v, page->v_scale, cache->v_row_bytes, d->v_dtype, d->d_v};
        if (k != NULL) {
            read_rows((uint8_t *)k + (size_t)done * k_bytes, &of_k, first, rows);
        }
        if (v != NULL) {
            read_rows((uint8_t *)v + (size_t)done * v_bytes, &of_v, first, rows);
        }
        done += rows;
    }
    return FV_OK;
}
