/* source.c - leaves of 64 keys from tensors and caches, and rows in and out of any format. */
#include "attend/source.h"

#include "kernel/convert.h"

#include <string.h>

void fvi_load_row(fv_dtype dtype, const void *data, int64_t stride, int64_t n, float *out) {
    if (stride == 1 && fvi_convert_to_f32(dtype, data, n, out)) {
        return;
    }
    if (dtype == FV_F32) {
        const float *x = data;
        for (int64_t i = 0; i < n; i++) {
            out[i] = x[i * stride];
        }
        return;
    }
    const uint16_t *x = data;
    for (int64_t i = 0; i < n; i++) {
        out[i] = dtype == FV_F16 ? fvi_f16_to_f32(x[i * stride]) : fvi_bf16_to_f32(x[i * stride]);
    }
}

void fvi_store_row(fv_dtype dtype, const float *row, int64_t n, void *data, int64_t stride) {
    if (dtype == FV_F32 && stride == 1) {
        memcpy(data, row, (size_t)n * sizeof *row);
        return;
    }
    if (dtype == FV_F32) {
        float *x = data;
        for (int64_t i = 0; i < n; i++) {
            x[i * stride] = row[i];
        }
        return;
    }
    uint16_t *x = data;
    for (int64_t i = 0; i < n; i++) {
        x[i * stride] = dtype == FV_F16 ? fvi_f32_to_f16(row[i]) : fvi_f32_to_bf16(row[i]);
    }
}

void fvi_ask_row(const fv_tensor *t, const uint8_t *row) {
    enum { ROWS_AHEAD = 4 };
    int64_t size = (int64_t)fv_dtype_bytes(t->dtype, 1);
    uintptr_t next = (uintptr_t)row + (uintptr_t)(ROWS_AHEAD * t->stride[2] * size);
    for (int64_t at = 0; at < t->shape[3] * size; at += 64) {
        __builtin_prefetch((const void *)(next + (uintptr_t)at));
    }
}

/* Rows of t whose elements stand apart, side by side in `to`; returns the end of what was written, 64-byte aligned. */
static uint8_t *gather_rows(const fv_tensor *t, const uint8_t *from, int n, uint8_t *to) {
    size_t size = fv_dtype_bytes(t->dtype, 1);
    for (int j = 0; j < n; j++) {
        const uint8_t *row = from + j * t->stride[2] * (int64_t)size;
        uint8_t *row_out = to + (size_t)j * (size_t)t->shape[3] * size;
        for (int64_t c = 0; c < t->shape[3]; c++) {
            memcpy(row_out + (size_t)c * size, row + c * t->stride[3] * (int64_t)size, size);
        }
    }
    return to + FVI_PAGE * (size_t)t->shape[3] * size;
}

static bool side_by_side(const fv_tensor *t) { return t->stride[3] == 1 || t->shape[3] == 1; }

static const uint8_t *rows_of(const fvi_source *s, const fv_tensor *t, int64_t first, int n, uint8_t **gather, int64_t *row_bytes,
                              const uint8_t **next) {
    const uint8_t *rows = fvi_tensor_at(t, s->sequence, s->head, s->start + first);
    int64_t size = t->dtype == FV_F32 ? 4 : 2;
    if (side_by_side(t)) {
        *row_bytes = t->stride[2] * size;
        *next = first + n < s->n_kv ? (const uint8_t *)((uintptr_t)rows + (uintptr_t)(n * *row_bytes)) : NULL;
        return rows;
    }
    uint8_t *to = *gather;
    *gather = gather_rows(t, rows, n, to);
    *row_bytes = t->shape[3] * size;
    return to;
}

bool fvi_source_in_place(const fvi_source *s) { return s->cache != NULL || (side_by_side(s->k) && side_by_side(s->v)); }

void fvi_source_leaf(const fvi_source *s, int64_t leaf, void *gather, fvi_leaf *out) {
    if (s->cache != NULL) {
        const fvi_page *page = fvi_cache_page(s->cache, s->layer, s->head, leaf);
        bool more = leaf + 1 < fvi_cache_head_pages(s->cache, s->layer, s->head);
        const fvi_page *next = more ? fvi_cache_page(s->cache, s->layer, s->head, leaf + 1) : NULL;
        bool gaps = page->max_position - page->min_position != page->n - 1;
        *out = (fvi_leaf){.k = page->k,
                          .v = page->v,
                          .k_scale = page->k_scale,
                          .v_scale = page->v_scale,
                          .k_next = more ? next->k : NULL,
                          .v_next = more ? next->v : NULL,
                          .k_row_bytes = (int64_t)s->cache->k_row_bytes,
                          .v_row_bytes = (int64_t)s->cache->v_row_bytes,
                          .k_dtype = s->cache->desc.k_dtype,
                          .v_dtype = s->cache->desc.v_dtype,
                          .n = page->n,
                          .position = gaps ? page->position : NULL,
                          .first = page->min_position};
        return;
    }
    int64_t first = leaf * FVI_PAGE;
    uint8_t *room = gather;
    *out = (fvi_leaf){.k_dtype = s->k->dtype, .v_dtype = s->v->dtype, .first = first};
    out->n = (int)fvi_min(FVI_PAGE, s->n_kv - first);
    out->k = rows_of(s, s->k, first, out->n, &room, &out->k_row_bytes, &out->k_next);
    out->v = rows_of(s, s->v, first, out->n, &room, &out->v_row_bytes, &out->v_next);
}

size_t fvi_source_room(int64_t d_k, int64_t d_v) { return (size_t)(d_k + d_v) * FVI_PAGE * sizeof(float); }

static size_t column_bytes(fv_dtype dtype, int64_t d) {
    return fvi_quantised(dtype) ? (size_t)fvi_quant_row_bytes(dtype, d) : fv_dtype_bytes(dtype, d);
}

/* In 64 bytes at a time where that is what rows are made of: calls would cost more than the copies. */
static void copy_row(uint8_t *to, const uint8_t *from, size_t bytes) {
    if (bytes % 64 != 0) {
        memcpy(to, from, bytes);
        return;
    }
    for (size_t at = 0; at < bytes; at += 64) {
        memcpy(to + at, from + at, 64);
    }
}

/* Where a quantised side's scales go in its room: behind what 64 rows of bytes take. */
static uint16_t *scale_room(fv_dtype dtype, int64_t d, uint8_t *room) {
    return fvi_quantised(dtype) ? (uint16_t *)(room + d * FVI_PAGE) : NULL;
}

static void tensor_columns(const fvi_source *s, const fv_tensor *t, const int32_t *key, int n, uint8_t *to) {
    const size_t size = fv_dtype_bytes(t->dtype, 1), bytes = (size_t)t->shape[3] * size;
    const uint8_t *rows = fvi_tensor_at(t, s->sequence, s->head, s->start);
    for (int j = 0; j < n; j++, to += bytes) {
        const uint8_t *row = rows + key[j] * t->stride[2] * (int64_t)size;
        if (side_by_side(t)) {
            copy_row(to, row, bytes);
            continue;
        }
        for (int64_t c = 0; c < t->shape[3]; c++) {
            memcpy(to + (size_t)c * size, row + c * t->stride[3] * (int64_t)size, size);
        }
    }
}

static void page_columns(const fvi_source *s, bool values, const int32_t *key, int n, uint8_t *to, uint16_t *scale) {
    const fv_cache_desc *desc = &s->cache->desc;
    const int64_t d = values ? desc->d_v : desc->d_k;
    const size_t row_bytes = values ? s->cache->v_row_bytes : s->cache->k_row_bytes;
    const size_t bytes = column_bytes(values ? desc->v_dtype : desc->k_dtype, d);
    fvi_page *const *pages = fvi_cache_head_at(s->cache, s->layer, s->head)->page;
    for (int j = 0; j < n; j++) {
        const fvi_page *page = pages[key[j] / FVI_PAGE];
        const int row = key[j] % FVI_PAGE;
        const uint16_t *page_scale = values ? page->v_scale : page->k_scale;
        copy_row(to + (size_t)j * bytes, (values ? page->v : page->k) + (size_t)row * row_bytes, bytes);
        for (int64_t i = 0; scale != NULL && i < d / FVI_QUANT_BLOCK; i++) {
            scale[i * FVI_QUANT_ROWS + j] = page_scale[i * FVI_QUANT_ROWS + row];
        }
    }
}

void fvi_source_columns(const fvi_source *s, const int32_t *key, int n, int64_t d_k, int64_t d_v, void *room, fvi_leaf *out) {
    uint8_t *k = room, *v = k + (size_t)(d_k * FVI_PAGE) * sizeof(float);
    const fv_dtype k_dtype = s->cache != NULL ? s->cache->desc.k_dtype : s->k->dtype;
    const fv_dtype v_dtype = s->cache != NULL ? s->cache->desc.v_dtype : s->v->dtype;
    *out = (fvi_leaf){.k = k,
                      .v = v,
                      .k_scale = scale_room(k_dtype, d_k, k),
                      .v_scale = scale_room(v_dtype, d_v, v),
                      .k_row_bytes = (int64_t)column_bytes(k_dtype, d_k),
                      .v_row_bytes = (int64_t)column_bytes(v_dtype, d_v),
                      .k_dtype = k_dtype,
                      .v_dtype = v_dtype,
                      .n = n,
                      .position = key,
                      .key = key};
    if (s->cache != NULL) {
        page_columns(s, false, key, n, k, scale_room(k_dtype, d_k, k));
        page_columns(s, true, key, n, v, scale_room(v_dtype, d_v, v));
    } else {
        tensor_columns(s, s->k, key, n, k);
        tensor_columns(s, s->v, key, n, v);
    }
}

void fvi_source_entries(const float *k, const float *v, const int32_t *position, int n, bool half, int64_t d_k, int64_t d_v,
                        void *room, fvi_leaf *out) {
    const fv_dtype dtype = half ? FV_BF16 : FV_F32;
    *out = (fvi_leaf){.k = (const uint8_t *)k,
                      .v = (const uint8_t *)v,
                      .k_row_bytes = (int64_t)fv_dtype_bytes(dtype, d_k),
                      .v_row_bytes = (int64_t)fv_dtype_bytes(dtype, d_v),
                      .k_dtype = dtype,
                      .v_dtype = dtype,
                      .n = n,
                      .position = position,
                      .entries = true};
    if (half) {
        uint16_t *k_room = room, *v_room = k_room + d_k * FVI_PAGE;
        fvi_convert_to_bf16(n * d_k, k, k_room);
        fvi_convert_to_bf16(n * d_v, v, v_room);
        out->k = (const uint8_t *)k_room;
        out->v = (const uint8_t *)v_room;
    }
}

bool fvi_source_place(const fvi_source *s, bool values, fvi_row_place *out) {
    if (s->cache == NULL) {
        const fv_tensor *t = values ? s->v : s->k;
        *out = (fvi_row_place){.rows = fvi_tensor_at(t, s->sequence, s->head, s->start),
                               .row_bytes = t->stride[2] * (int64_t)fv_dtype_bytes(t->dtype, 1)};
        return side_by_side(t);
    }
    *out = (fvi_row_place){.page = fvi_cache_head_at(s->cache, s->layer, s->head)->page,
                           .values = values,
                           .row_bytes = (int64_t)(values ? s->cache->v_row_bytes : s->cache->k_row_bytes)};
    return !fvi_quantised(values ? s->cache->desc.v_dtype : s->cache->desc.k_dtype);
}

void fvi_source_point(const fvi_word_ops *ops, const fvi_row_place *place, const int32_t *key, int n, const void **at) {
    if (place->rows != NULL) {
        ops->addresses(key, n, place->rows, place->row_bytes, at);
        return;
    }
    for (int j = 0; j < n; j++) {
        const fvi_page *page = place->page[key[j] / FVI_PAGE];
        at[j] = (place->values ? page->v : page->k) + key[j] % FVI_PAGE * place->row_bytes;
    }
}

fvi_rows fvi_source_rows(const fvi_source *s, bool values, const int32_t *key, int n, void *room) {
    const fv_tensor *t = values ? s->v : s->k;
    const fv_cache_desc *desc = s->cache == NULL ? NULL : &s->cache->desc;
    const fv_dtype dtype = desc == NULL ? t->dtype : values ? desc->v_dtype : desc->k_dtype;
    const int64_t d = desc == NULL ? t->shape[3] : values ? desc->d_v : desc->d_k;
    uint16_t *scale = scale_room(dtype, d, room);
    if (s->cache != NULL) {
        page_columns(s, values, key, n, room, scale);
    } else {
        tensor_columns(s, t, key, n, room);
    }
    return (fvi_rows){.data = room, .row_bytes = (int64_t)column_bytes(dtype, d), .scale = scale, .n = n};
}

/* A prefetch never faults; into the second cache: the first has the present leaf. */
static void ask(const uint8_t *row, size_t bytes) {
    for (size_t at = 0; at < bytes; at += 64) {
        __builtin_prefetch(row + at, 0, 2);
    }
}

static void ask_tensor(const fvi_source *s, const fv_tensor *t, const int32_t *key, int n) {
    const size_t size = fv_dtype_bytes(t->dtype, 1);
    const uint8_t *rows = fvi_tensor_at(t, s->sequence, s->head, s->start);
    for (int j = 0; side_by_side(t) && j < n; j++) {
        ask(rows + key[j] * t->stride[2] * (int64_t)size, (size_t)t->shape[3] * size);
    }
}

void fvi_source_ask(const fvi_source *s, const int32_t *key, int n) {
    if (s->cache == NULL) {
        ask_tensor(s, s->k, key, n);
        ask_tensor(s, s->v, key, n);
        return;
    }
    for (int j = 0; j < n; j++) {
        const fvi_page *page = fvi_cache_page(s->cache, s->layer, s->head, key[j] / FVI_PAGE);
        ask(page->k + (size_t)(key[j] % FVI_PAGE) * s->cache->k_row_bytes, s->cache->k_row_bytes);
        ask(page->v + (size_t)(key[j] % FVI_PAGE) * s->cache->v_row_bytes, s->cache->v_row_bytes);
    }
}

void fvi_source_ask_block(const fvi_source *s, int64_t block) {
    int32_t key[FVI_PAGE];
    int n = (int)fvi_min(FVI_PAGE, s->n_kv - block * FVI_PAGE);
    for (int j = 0; j < n; j++) {
        key[j] = (int32_t)(block * FVI_PAGE + j);
    }
    fvi_source_ask(s, key, n);
}

/* Returns the end of what was written, 64-byte aligned since d is a multiple of 32. */
static uint8_t *widen_rows(const fvi_quant_ops *ops, bool half, int64_t d, int n, const uint16_t *scale, const uint8_t **rows,
                           int64_t *row_bytes, fv_dtype *dtype, uint8_t *to) {
    if (half) {
        ops->to_bf16[*dtype](*rows, *row_bytes, scale, n, (int)d, (uint16_t *)to);
    } else {
        ops->to_f32[*dtype](*rows, *row_bytes, scale, n, (int)d, (float *)to);
    }
    *rows = to;
    *dtype = half ? FV_BF16 : FV_F32;
    *row_bytes = (int64_t)fv_dtype_bytes(*dtype, d);
    return to + FVI_PAGE * *row_bytes;
}

void fvi_leaf_widen(const fvi_quant_ops *ops, bool half, int64_t d_k, int64_t d_v, void *gather, fvi_leaf *l) {
    uint8_t *room = gather;
    if (fvi_quantised(l->k_dtype)) {
        room = widen_rows(ops, half, d_k, l->n, l->k_scale, &l->k, &l->k_row_bytes, &l->k_dtype, room);
    }
    if (fvi_quantised(l->v_dtype)) {
        widen_rows(ops, half, d_v, l->n, l->v_scale, &l->v, &l->v_row_bytes, &l->v_dtype, room);
    }
}
