/* look.c - rows of queries, keys and values for selectors, from tensors and caches of any format. */
#include "attend/look.h"

#include "attend/turn.h"

#include <string.h>

static void query_rows(const fvi_looker *l, int64_t head, int64_t from, int64_t n, float *out) {
    const fv_problem *p = &l->plan->problem;
    int64_t batch = p->packed ? 0 : l->item->sequence;
    for (int64_t i = 0; i < n; i++, out += p->d_k) {
        fvi_load_row(l->run->q.dtype, fvi_tensor_at(&l->run->q, batch, head, l->item->q_start + from + i), l->run->q.stride[3],
                     p->d_k, out);
        if (l->run->cache != NULL && l->run->cache->desc.rotate_k && !l->plan->places) {
            l->plan->quant.rotate(out, (int)p->d_k);
        }
    }
}

static void tensor_rows(const fvi_source *s, const fv_tensor *t, int64_t from, int64_t n, float *out) {
    for (int64_t j = 0; j < n; j++) {
        fvi_load_row(t->dtype, fvi_tensor_at(t, s->sequence, s->head, s->start + from + j), t->stride[3], t->shape[3],
                     out + j * t->shape[3]);
    }
}

/* Whether the cache's basis is not the one that products meet K in: where positions are the method's, it is taken back. */
static bool takes_back(const fvi_looker *l) {
    return l->plan->places && l->source.cache != NULL && l->source.cache->desc.rotate_k;
}

/* Rows first .. first + n - 1 of a page. */
static void page_rows(const fvi_looker *l, const fvi_page *page, fvi_side side, int64_t first, int64_t n, float *out) {
    const fv_cache *cache = l->source.cache;
    bool k = side == FVI_SIDE_K;
    fv_dtype dtype = k ? cache->desc.k_dtype : cache->desc.v_dtype;
    int64_t d = k ? cache->desc.d_k : cache->desc.d_v, row_bytes = (int64_t)(k ? cache->k_row_bytes : cache->v_row_bytes);
    const uint8_t *rows = (k ? page->k : page->v) + first * row_bytes;
    if (fvi_quantised(dtype)) {
        const uint16_t *scale = (k ? page->k_scale : page->v_scale) + first;
        l->plan->quant.to_f32[dtype](rows, row_bytes, scale, (int)n, (int)d, out);
        return;
    }
    for (int64_t j = 0; j < n; j++) {
        fvi_load_row(dtype, rows + j * row_bytes, 1, d, out + j * d);
    }
}

static void read_rows(const fvi_sight *sight, fvi_side side, int64_t from, int64_t n, float *out) {
    const fvi_looker *l = sight->source;
    const fvi_source *s = &l->source;
    if (side == FVI_SIDE_Q) {
        query_rows(l, sight->head, from, n, out);
        return;
    }
    if (s->cache == NULL) {
        tensor_rows(s, side == FVI_SIDE_K ? s->k : s->v, from, n, out);
        return;
    }
    int64_t d = side == FVI_SIDE_K ? sight->d_k : sight->d_v;
    for (int64_t done = 0, rows; done < n; done += rows) {
        int64_t first = (from + done) % FVI_PAGE;
        rows = fvi_min(FVI_PAGE - first, n - done);
        page_rows(l, fvi_cache_page(s->cache, s->layer, s->head, (from + done) / FVI_PAGE), side, first, rows, out + done * d);
    }
    for (int64_t j = 0; side == FVI_SIDE_K && takes_back(l) && j < n; j++) {
        l->plan->quant.rotate(out + j * d, (int)d);
    }
}

static int pack_leaf(const fvi_sight *sight, int64_t leaf, void *room, void *kt) {
    const fvi_looker *l = sight->source;
    if (takes_back(l)) {
        const int n = (int)fvi_min(FVI_PAGE, sight->n_kv - leaf * FVI_PAGE);
        float *rows = room;
        read_rows(sight, FVI_SIDE_K, leaf * FVI_PAGE, n, rows);
        fvi_sight_pack_rows(sight, rows, n, sight->d_k, rows + FVI_PAGE * sight->d_k, kt);
        return n;
    }
    fvi_leaf keys;
    fvi_source_leaf(&l->source, leaf, room, &keys);
    if (fvi_quantised(keys.k_dtype)) {
        keys.v_dtype = FV_F32; /* values stay as they are */
        fvi_leaf_widen(&l->plan->quant, sight->ops->half, sight->d_k, sight->d_v, room, &keys);
    }
    sight->ops->pack_k[keys.k_dtype](keys.k, keys.k_row_bytes, keys.n, (int)sight->d_k, kt);
    return keys.n;
}

/* Row `key` of K in the type that it is packed from. */
static void key_row(const fvi_looker *l, bool half, int64_t key, uint8_t *out) {
    const fvi_source *s = &l->source;
    if (s->cache == NULL) {
        const uint8_t *row = fvi_tensor_at(s->k, s->sequence, s->head, s->start + key);
        int64_t size = (int64_t)fv_dtype_bytes(s->k->dtype, 1);
        for (int64_t c = 0; c < s->k->shape[3]; c++) {
            memcpy(out + c * size, row + c * s->k->stride[3] * size, (size_t)size);
        }
        return;
    }
    const fvi_page *page = fvi_cache_page(s->cache, s->layer, s->head, key / FVI_PAGE);
    int64_t d = s->cache->desc.d_k, bytes = (int64_t)s->cache->k_row_bytes;
    const uint8_t *row = page->k + key % FVI_PAGE * bytes;
    fv_dtype dtype = s->cache->desc.k_dtype;
    if (!fvi_quantised(dtype)) {
        memcpy(out, row, fv_dtype_bytes(dtype, d));
        return;
    }
    const uint16_t *scale = page->k_scale + key % FVI_PAGE;
    if (half) {
        l->plan->quant.to_bf16[dtype](row, bytes, scale, 1, (int)d, (uint16_t *)out);
    } else {
        l->plan->quant.to_f32[dtype](row, bytes, scale, 1, (int)d, (float *)out);
    }
}

/* Rows of K that are `apart` bytes apart, from `base` or in a cache's pages. */
typedef struct key_rows {
    const uint8_t *base;
    fvi_page *const *page; /* NULL: tensors */
    int64_t apart;
} key_rows;

static key_rows rows_of_keys(const fvi_source *s) {
    if (s->cache != NULL) {
        return (key_rows){NULL, fvi_cache_head_at(s->cache, s->layer, s->head)->page, (int64_t)s->cache->k_row_bytes};
    }
    int64_t apart = s->k->stride[2] * (int64_t)fv_dtype_bytes(s->k->dtype, 1);
    return (key_rows){fvi_tensor_at(s->k, s->sequence, s->head, s->start), NULL, apart};
}

static const uint8_t *row_of_key(const key_rows *rows, int32_t key) {
    uint32_t at = (uint32_t)key;
    return rows->page != NULL ? rows->page[at / FVI_PAGE]->k + at % FVI_PAGE * rows->apart : rows->base + key * rows->apart;
}

static inline void copy_rows(const key_rows *rows, const int32_t *key, int n, int64_t bytes, uint8_t *out) {
    for (int j = 0; j < n; j++, out += bytes) {
        const uint8_t *row = row_of_key(rows, key[j]);
        for (int64_t c = 0; c < bytes; c += 16) {
            memcpy(out + c, row + c, 16);
        }
    }
}

/* Copies rows of `bytes`, whose elements are side by side, a multiple of 16: a call of memcpy each would take longer than the
 * products. */
static void copy_keys(const fvi_source *s, const int32_t *key, int n, int64_t bytes, uint8_t *out) {
    const key_rows rows = rows_of_keys(s);
    if (bytes == 128) { /* width 64: unrolled */
        copy_rows(&rows, key, n, 128, out);
    } else {
        copy_rows(&rows, key, n, bytes, out);
    }
}

/* A prefetch never faults, and what it asks in vain costs little: quantised rows' scales are left out. */
static void ask_keys(const fvi_sight *sight, const int32_t *key, int n) {
    enum { LINE = 64 };
    const fvi_looker *l = sight->source;
    const fvi_source *s = &l->source;
    const key_rows rows = rows_of_keys(s);
    int64_t bytes = (int64_t)fv_dtype_bytes(s->cache != NULL ? s->cache->desc.k_dtype : s->k->dtype, sight->d_k);
    for (int j = 0; j < n; j++) {
        const uint8_t *row = row_of_key(&rows, key[j]);
        for (int64_t c = 0; c < bytes; c += LINE) {
            __builtin_prefetch(row + c, 0, 3);
        }
    }
}

static void pack_keys(const fvi_sight *sight, const int32_t *key, int n, void *room, void *kt) {
    const fvi_looker *l = sight->source;
    const fvi_source *s = &l->source;
    if (takes_back(l)) {
        float *rows = room;
        for (int j = 0; j < n; j++) {
            read_rows(sight, FVI_SIDE_K, key[j], 1, rows + j * sight->d_k);
        }
        fvi_sight_pack_rows(sight, rows, n, sight->d_k, rows + FVI_PAGE * sight->d_k, kt);
        return;
    }
    fv_dtype dtype = s->cache != NULL ? s->cache->desc.k_dtype : s->k->dtype;
    bool quantised = fvi_quantised(dtype), side_by_side = s->cache != NULL || s->k->stride[3] == 1;
    fv_dtype packed = !quantised ? dtype : sight->ops->half ? FV_BF16 : FV_F32;
    int64_t bytes = (int64_t)fv_dtype_bytes(packed, sight->d_k);
    if (!quantised && side_by_side && bytes % 16 == 0) {
        copy_keys(s, key, n, bytes, room);
    } else {
        for (int j = 0; j < n; j++) {
            key_row(l, sight->ops->half, key[j], (uint8_t *)room + j * bytes);
        }
    }
    sight->ops->pack_k[packed](room, bytes, n, (int)sight->d_k, kt);
}

static void turn_rows(const fvi_sight *sight, int64_t by, int64_t n, float *rows) {
    const fvi_looker *l = sight->source;
    for (int64_t i = 0; i < n; i++) {
        fvi_turn_row(l->plan, by, rows + i * sight->d_k);
    }
}

fvi_sight fvi_looker_open(fvi_looker *looker, const fv_plan *plan, const fv_run *run, const fvi_item *item,
                          const fvi_scratch *scratch) {
    const fv_problem *p = &plan->problem;
    *looker = (fvi_looker){
        plan,
        run,
        item,
        {run->cache, run->layer, &run->k, &run->v, p->packed ? 0 : item->sequence, item->k_start, item->kv_head, item->n_kv}};
    return (fvi_sight){.n_q = item->n_q,
                       .n_kv = item->n_kv,
                       .offset = item->offset,
                       .h_q = p->h_q,
                       .h_kv = p->h_kv,
                       .d_k = p->d_k,
                       .d_v = p->d_v,
                       .head = item->head0,
                       .kv_head = item->kv_head,
                       .layer = run->layer,
                       .step = run->step,
                       .scale = p->scale,
                       .causal = p->causal,
                       .ops = scratch->ops,
                       .plain = &plan->ops[0],
                       .rowop = &plan->rowop,
                       .sift = &plan->sift,
                       .lowbit = &plan->lowbit,
                       .source = looker,
                       .turn = plan->places ? turn_rows : NULL,
                       .rows = read_rows,
                       .pack = pack_leaf,
                       .pack_keys = pack_keys,
                       .ask_keys = ask_keys};
}
