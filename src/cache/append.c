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

static fv_status check_room(const fv_cache *cache, const char *call, int layer, int64_t n) {
    if (layer < 0 || layer >= cache->desc.layers) {
        return fvi_fail(cache->ctx, FV_ERR_ARGUMENT, "%s: layer %d of a cache of %d layers", call, layer, cache->desc.layers);
    }
    if (n < 0 || n > INT32_MAX - cache->next[layer]) {
        return fvi_fail(cache->ctx, FV_ERR_RANGE, "%s: %lld entries after position %lld; positions end at 2^31 - 1", call,
                        (long long)n, (long long)cache->next[layer]);
    }
    return FV_OK;
}

static fv_status check(const fv_cache *cache, int layer, const fv_tensor *k, const fv_tensor *v) {
    int64_t n = k->rank == 4 ? k->shape[2] : 0;
    fv_status status = check_room(cache, "fv_cache_append", layer, n);
    if (status == FV_OK) {
        status = check_shape(cache, "k", k, n, cache->desc.d_k);
    }
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
    if (need > pages && !fvi_pages_create(cache, need - pages, head->page + pages)) {
        return false;
    }
    *made = need - pages;
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

/* Rows of one head on their way to one side of the pages: from a (1, h, n, d) tensor, or as fv_cache_read gave them. */
typedef struct source {
    const fvi_quant_ops *quant;
    const uint8_t *base;           /* entry 0 of the head */
    size_t element, to_element;    /* bytes; element 0: stored rows */
    int64_t row_stride, stride, d; /* in elements; of stored rows, row_stride in bytes */
    fv_dtype to;
    bool direct; /* one move does it; else by way of f32 */
    bool rotate;
    fvi_row_move move, widen, narrow; /* from the tensor's type to the cache's; to f32; from f32 */
} source;

/* No entries may come without data. */
static const uint8_t *head_at(const void *data, int64_t offset) { return data != NULL ? (const uint8_t *)data + offset : NULL; }

static source source_of(const fv_cache *cache, const fv_tensor *x, int64_t head, fv_dtype to, bool rotate) {
    size_t element = fv_dtype_bytes(x->dtype, 1);
    const fvi_cpu *cpu = &cache->ctx->cpu;
    return (source){.quant = &cache->quant,
                    .base = head_at(x->data, head * x->stride[1] * (int64_t)element),
                    .element = element,
                    .to_element = fv_dtype_bytes(to, 1),
                    .row_stride = x->stride[2],
                    .stride = x->shape[3] == 1 ? 1 : x->stride[3],
                    .d = x->shape[3],
                    .to = to,
                    .direct = !rotate && !fvi_quantised(to),
                    .rotate = rotate,
                    .move = fvi_row_move_find(cpu, to, x->dtype),
                    .widen = fvi_row_move_find(cpu, FV_F32, x->dtype),
                    .narrow = fvi_row_move_find(cpu, to, FV_F32)};
}

static source stored_source(const fv_cache *cache, const void *rows, int64_t head, int64_t n, fv_dtype to, int64_t d) {
    int64_t bytes = (int64_t)fv_dtype_bytes(to, d);
    return (source){.quant = &cache->quant, .base = head_at(rows, head * n * bytes), .row_stride = bytes, .d = d, .to = to};
}

static void gather(uint8_t *to, const uint8_t *from, int64_t d, int64_t stride, size_t element) {
    for (int64_t i = 0; i < d; i++) {
        memcpy(to + (size_t)i * element, from + i * stride * (int64_t)element, element);
    }
}

static void put_stored(const source *s, const uint8_t *from, uint8_t *to, uint16_t *scale) {
    if (!fvi_quantised(s->to)) {
        memcpy(to, from, (size_t)s->row_stride);
        return;
    }
    size_t block = (size_t)fvi_quant_row_bytes(s->to, FVI_QUANT_BLOCK);
    for (int64_t i = 0; i < s->d / FVI_QUANT_BLOCK; i++, from += sizeof *scale + block) {
        memcpy(&scale[i * FVI_PAGE], from, sizeof *scale);
        memcpy(to + (size_t)i * block, from + sizeof *scale, block);
    }
}

static void put_rounded(const source *s, const uint8_t *from, uint8_t *to, uint16_t *scale) {
    float wide[256]; /* d is at most 256 */
    s->widen(wide, from, s->d);
    if (s->rotate) {
        s->quant->rotate(wide, (int)s->d);
    }
    if (fvi_quantised(s->to)) {
        s->quant->quantise[s->to](wide, (int)s->d, to, scale);
    } else {
        s->narrow(to, wide, s->d);
    }
}

/* By one move where elements stand side by side; else some of them at a time. */
static void move_row(const source *s, const uint8_t *from, uint8_t *to) {
    float side_by_side[256];
    if (s->stride == 1) {
        s->move(to, from, s->d);
        return;
    }
    for (int64_t c = 0; c < s->d; c += 256) {
        int64_t some = fvi_min(256, s->d - c);
        gather((uint8_t *)side_by_side, from + c * s->stride * (int64_t)s->element, some, s->stride, s->element);
        s->move(to + (size_t)c * s->to_element, side_by_side, some);
    }
}

/* Rows entry .. entry + n - 1 to `rows`, the first one's scales to `scale`. */
static void fill_rows(const source *s, int64_t entry, int64_t n, uint8_t *rows, size_t row_bytes, uint16_t *scale) {
    float side_by_side[256];
    for (int64_t e = 0; e < n; e++, rows += row_bytes, scale = scale != NULL ? scale + 1 : NULL) {
        if (s->element == 0) {
            put_stored(s, s->base + (entry + e) * s->row_stride, rows, scale);
            continue;
        }
        const uint8_t *from = s->base + (entry + e) * s->row_stride * (int64_t)s->element;
        if (s->direct) {
            move_row(s, from, rows);
            continue;
        }
        if (s->stride != 1) {
            gather((uint8_t *)side_by_side, from, s->d, s->stride, s->element);
            from = (const uint8_t *)side_by_side;
        }
        put_rounded(s, from, rows, scale);
    }
}

static void fill_page(const fv_cache *cache, fvi_page *page, const source *k, const source *v, int64_t entry, int32_t n,
                      int64_t position) {
    size_t at = (size_t)page->n;
    fill_rows(k, entry, n, page->k + at * cache->k_row_bytes, cache->k_row_bytes,
              page->k_scale != NULL ? page->k_scale + at : NULL);
    if (cache->desc.d_v > 0) {
        fill_rows(v, entry, n, page->v + at * cache->v_row_bytes, cache->v_row_bytes,
                  page->v_scale != NULL ? page->v_scale + at : NULL);
    }
    for (int32_t e = 0; e < n; e++) {
        page->position[(int32_t)at + e] = (int32_t)(position + e);
    }
    page->n += n;
    page->min_position = page->position[0];
    page->max_position = page->position[page->n - 1];
}

static void fill_head(fv_cache *cache, int layer, int64_t h, const source *k, const source *v, int64_t n) {
    fvi_cache_head *head = fvi_cache_head_of(cache, layer, h);
    cache->pages += fvi_ceil_div(head->length + n, FVI_PAGE) - fvi_ceil_div(head->length, FVI_PAGE);
    for (int64_t done = 0; done < n;) {
        fvi_page *page = head->page[head->length / FVI_PAGE];
        int64_t rows = fvi_min(FVI_PAGE - page->n, n - done);
        fill_page(cache, page, k, v, done, (int32_t)rows, cache->next[layer] + done);
        head->length += rows;
        done += rows;
    }
}

static fv_status no_memory(const fv_cache *cache, int layer, int64_t n) {
    return fvi_fail(cache->ctx, FV_ERR_MEMORY, "no memory for %lld more entries of layer %d of the cache", (long long)n, layer);
}

fv_status fv_cache_append(fv_cache *cache, int layer, const fv_tensor *k, const fv_tensor *v) {
    const fv_cache_desc *d = &cache->desc;
    fv_status status = check(cache, layer, k, v);
    if (status != FV_OK) {
        return status;
    }
    if (!reserve(cache, layer, k->shape[2])) {
        return no_memory(cache, layer, k->shape[2]);
    }
    for (int64_t h = 0; h < d->h_kv; h++) {
        source from_k = source_of(cache, k, h, d->k_dtype, d->rotate_k);
        source from_v = v != NULL ? source_of(cache, v, h, d->v_dtype, d->rotate_v) : (source){0};
        fill_head(cache, layer, h, &from_k, &from_v, k->shape[2]);
    }
    cache->next[layer] += k->shape[2];
    return FV_OK;
}

fv_status fv_cache_restore(fv_cache *cache, int layer, int64_t n, const void *k, const void *v) {
    const fv_cache_desc *d = &cache->desc;
    fv_status status = check_room(cache, "fv_cache_restore", layer, n);
    if (status != FV_OK) {
        return status;
    }
    if (n > 0 && (k == NULL || (v == NULL && d->d_v > 0))) {
        return fvi_fail(cache->ctx, FV_ERR_ARGUMENT, "fv_cache_restore: %s has no data", k == NULL ? "k" : "v");
    }
    if (!reserve(cache, layer, n)) {
        return no_memory(cache, layer, n);
    }
    for (int64_t h = 0; h < d->h_kv; h++) {
        source from_k = stored_source(cache, k, h, n, d->k_dtype, d->d_k);
        source from_v = stored_source(cache, v, h, n, d->v_dtype, d->d_v);
        fill_head(cache, layer, h, &from_k, &from_v, n);
    }
    cache->next[layer] += n;
    return FV_OK;
}
