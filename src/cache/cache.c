/* cache.c - a cache's life: create, fork, roll back, destroy. Appending is in append.c, reading out in read.c.
 *
 * A head's table names its pages in order. Forks copy tables and hold the pages once more. Whoever wants to change a page that
 * others hold makes its own first; so full pages stay shared for as long as both forks keep them.
 */
#include "cache/page.h"

#include <string.h>

static size_t heads_of(const fv_cache *cache) { return (size_t)cache->desc.layers * (size_t)cache->desc.h_kv; }

static bool kept(fv_dtype dtype) { return dtype == FV_F32 || dtype == FV_F16 || dtype == FV_BF16 || fvi_quantised(dtype); }

static fv_status check_width(fv_context *ctx, const char *name, fv_dtype dtype, int64_t d) {
    if (fvi_quantised(dtype) && d % FVI_QUANT_BLOCK != 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "fv_cache_create: %s is %lld and its format %s, which takes widths that are multiples of %d", name,
                        (long long)d, fv_dtype_name(dtype), FVI_QUANT_BLOCK);
    }
    return FV_OK;
}

static fv_status check_desc(fv_context *ctx, const fv_cache_desc *desc) {
    if (desc->layers < 1 || desc->layers > 65536) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "fv_cache_create: %d layers, must be 1..65536", desc->layers);
    }
    if (desc->h_kv < 1 || desc->h_kv > 65536) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "fv_cache_create: h_kv is %lld, must be 1..65536", (long long)desc->h_kv);
    }
    if (desc->d_k < 1 || desc->d_v < 0 || desc->d_v > 256 || desc->d_k > (desc->d_v > 0 ? 256 : 16384)) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "fv_cache_create: d_k is %lld and d_v %lld, each must be 1..256; d_k up to 16384 where d_v is 0",
                        (long long)desc->d_k, (long long)desc->d_v);
    }
    if (desc->d_v == 0 && (fvi_quantised(desc->k_dtype) || desc->rotate_k)) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "fv_cache_create: rows of K alone (d_v is 0) are neither quantised nor rotated");
    }
    if (!kept(desc->k_dtype) || !kept(desc->v_dtype)) {
        return fvi_fail(ctx, FV_ERR_UNSUPPORTED,
                        "fv_cache_create: K as %s and V as %s; a cache keeps f32, f16, bf16, q8_0 or q4_0",
                        fv_dtype_name(desc->k_dtype), fv_dtype_name(desc->v_dtype));
    }
    fv_status status = check_width(ctx, "d_k", desc->k_dtype, desc->d_k);
    return status != FV_OK ? status : check_width(ctx, "d_v", desc->v_dtype, desc->d_v);
}

static void lay_out(fv_cache *cache, const fv_cache_desc *desc) {
    cache->desc = *desc;
    cache->k_row_bytes = fvi_page_row_bytes(desc->k_dtype, desc->d_k);
    cache->v_row_bytes = fvi_page_row_bytes(desc->v_dtype, desc->d_v);
    cache->page_bytes = fvi_page_bytes(desc);
    fvi_quant_init(&cache->ctx->cpu, &cache->quant);
}

static fv_status create_empty(fv_context *ctx, const fv_cache_desc *desc, fv_cache **out) {
    fv_cache *cache = fvi_zalloc(ctx, 1, sizeof *cache);
    if (cache == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a cache");
    }
    cache->ctx = ctx;
    lay_out(cache, desc);
    cache->head = fvi_zalloc(ctx, heads_of(cache), sizeof *cache->head);
    cache->next = fvi_zalloc(ctx, (size_t)desc->layers, sizeof *cache->next);
    if (cache->head == NULL || cache->next == NULL) {
        fv_cache_destroy(cache);
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for the tables of a cache of %d layers x %lld heads", desc->layers,
                        (long long)desc->h_kv);
    }
    *out = cache;
    return FV_OK;
}

fv_status fv_cache_create(fv_context *ctx, const fv_cache_desc *desc, fv_cache **out) {
    *out = NULL;
    fv_status status = check_desc(ctx, desc);
    return status != FV_OK ? status : create_empty(ctx, desc, out);
}

static void drop_head(fv_cache *cache, fvi_cache_head *head) {
    for (int64_t p = 0; p < fvi_ceil_div(head->length, FVI_PAGE); p++) {
        fvi_page_drop(cache, head->page[p]);
    }
    fvi_release(cache->ctx, head->page, (size_t)head->capacity, sizeof head->page[0]);
}

void fv_cache_destroy(fv_cache *cache) {
    if (cache == NULL) {
        return;
    }
    fv_context *ctx = cache->ctx;
    if (cache->head != NULL) {
        for (size_t h = 0; h < heads_of(cache); h++) {
            drop_head(cache, &cache->head[h]);
        }
        fvi_release(ctx, cache->head, heads_of(cache), sizeof *cache->head);
    }
    fvi_release(ctx, cache->next, (size_t)cache->desc.layers, sizeof *cache->next);
    fvi_release(ctx, cache, 1, sizeof *cache);
}

fv_cache_desc fv_cache_describe(const fv_cache *cache) { return cache->desc; }

int64_t fv_cache_length(const fv_cache *cache, int layer) {
    int64_t longest = 0;
    if (layer >= 0 && layer < cache->desc.layers) {
        for (int64_t h = 0; h < cache->desc.h_kv; h++) {
            longest = fvi_max(longest, fvi_cache_head_length(cache, layer, h));
        }
    }
    return longest;
}

size_t fv_cache_bytes(const fv_cache *cache) {
    size_t slots = 0;
    for (size_t h = 0; h < heads_of(cache); h++) {
        slots += (size_t)cache->head[h].capacity;
    }
    return sizeof *cache + heads_of(cache) * sizeof *cache->head + (size_t)cache->desc.layers * sizeof *cache->next +
           slots * sizeof cache->head[0].page[0] + (size_t)cache->pages * cache->page_bytes;
}

size_t fv_cache_page_bytes(const fv_cache_desc *desc, int64_t n) {
    size_t bytes = fvi_page_bytes(desc);
    bool fits = fvi_mul(bytes, (size_t)fvi_ceil_div(n, FVI_PAGE), &bytes) && fvi_mul(bytes, (size_t)desc->h_kv, &bytes) &&
                fvi_mul(bytes, (size_t)desc->layers, &bytes);
    return fits ? bytes : SIZE_MAX;
}

/* ---- fork ---- */

static bool fork_head(fv_cache *fork, fvi_cache_head *to, const fvi_cache_head *from) {
    int64_t pages = fvi_ceil_div(from->length, FVI_PAGE);
    if (!fvi_grow(fork->ctx, (void **)&to->page, &to->capacity, pages, sizeof to->page[0])) {
        return false;
    }
    for (int64_t p = 0; p < pages; p++) {
        to->page[p] = from->page[p];
        to->page[p]->refs++;
    }
    to->length = from->length;
    fork->pages += pages;
    return true;
}

fv_status fv_cache_fork(fv_cache *cache, fv_cache **out) {
    *out = NULL;
    fv_cache *fork;
    fv_status status = create_empty(cache->ctx, &cache->desc, &fork);
    if (status != FV_OK) {
        return status;
    }
    for (size_t h = 0; h < heads_of(cache); h++) {
        if (!fork_head(fork, &fork->head[h], &cache->head[h])) {
            fv_cache_destroy(fork);
            return fvi_fail(cache->ctx, FV_ERR_MEMORY, "no memory for the page tables of a fork");
        }
    }
    memcpy(fork->next, cache->next, (size_t)cache->desc.layers * sizeof *cache->next);
    *out = fork;
    return FV_OK;
}

/* ---- roll back ---- */

/* Entries of a head at positions below `position`: whole pages by their bounds, then within one. */
static int64_t entries_before(const fvi_cache_head *head, int64_t position) {
    int64_t pages = fvi_ceil_div(head->length, FVI_PAGE);
    while (pages > 0 && head->page[pages - 1]->min_position >= position) {
        pages--;
    }
    if (pages == 0) {
        return 0;
    }
    const fvi_page *last = head->page[pages - 1];
    int32_t n = last->n;
    while (n > 0 && last->position[n - 1] >= position) {
        n--;
    }
    return (pages - 1) * FVI_PAGE + n;
}

/* Gives each head whose cut falls inside a page that others hold a copy of its own. Changes no entry, so it may stop midway. */
static bool own_cut_pages(fv_cache *cache, int64_t position) {
    for (size_t h = 0; h < heads_of(cache); h++) {
        fvi_cache_head *head = &cache->head[h];
        int64_t keep = entries_before(head, position), p = keep / FVI_PAGE;
        if (keep == head->length || keep % FVI_PAGE == 0 || head->page[p]->refs == 1) {
            continue;
        }
        fvi_page *own = fvi_page_copy(cache, head->page[p], head->page[p]->n);
        if (own == NULL) {
            return false;
        }
        fvi_page_drop(cache, head->page[p]);
        head->page[p] = own;
    }
    return true;
}

static void cut_head(fv_cache *cache, fvi_cache_head *head, int64_t keep) {
    int64_t pages = fvi_ceil_div(head->length, FVI_PAGE), left = fvi_ceil_div(keep, FVI_PAGE);
    for (int64_t p = left; p < pages; p++) {
        fvi_page_drop(cache, head->page[p]);
    }
    cache->pages -= pages - left;
    if (keep < head->length && keep % FVI_PAGE != 0) {
        fvi_page_cut(head->page[left - 1], (int32_t)(keep % FVI_PAGE));
    }
    head->length = keep;
}

fv_status fv_cache_truncate(fv_cache *cache, int64_t length) {
    if (length < 0) {
        return fvi_fail(cache->ctx, FV_ERR_ARGUMENT, "fv_cache_truncate: length is %lld, must be 0 or more", (long long)length);
    }
    if (!own_cut_pages(cache, length)) {
        return fvi_fail(cache->ctx, FV_ERR_MEMORY, "no memory to part from a page that a fork shares");
    }
    for (size_t h = 0; h < heads_of(cache); h++) {
        cut_head(cache, &cache->head[h], entries_before(&cache->head[h], length));
    }
    for (int layer = 0; layer < cache->desc.layers; layer++) {
        cache->next[layer] = fvi_min(cache->next[layer], length);
    }
    return FV_OK;
}
