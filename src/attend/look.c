/* look.c - rows of queries, keys and values for selectors, from tensors and caches of any format. */
#include "attend/look.h"

static void query_rows(const fvi_looker *l, int64_t head, int64_t from, int64_t n, float *out) {
    const fv_problem *p = &l->plan->problem;
    int64_t batch = p->packed ? 0 : l->item->sequence;
    for (int64_t i = 0; i < n; i++, out += p->d_k) {
        fvi_load_row(l->run->q.dtype, fvi_tensor_at(&l->run->q, batch, head, l->item->q_start + from + i), l->run->q.stride[3],
                     p->d_k, out);
        if (l->run->cache != NULL && l->run->cache->desc.rotate_k) {
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
}

static int pack_leaf(const fvi_sight *sight, int64_t leaf, void *room, void *kt) {
    const fvi_looker *l = sight->source;
    fvi_leaf keys;
    fvi_source_leaf(&l->source, leaf, room, &keys);
    if (fvi_quantised(keys.k_dtype)) {
        keys.v_dtype = FV_F32; /* values stay as they are */
        fvi_leaf_widen(&l->plan->quant, sight->ops->half, sight->d_k, sight->d_v, room, &keys);
    }
    sight->ops->pack_k[keys.k_dtype](keys.k, keys.k_row_bytes, keys.n, (int)sight->d_k, kt);
    return keys.n;
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
                       .scale = p->scale,
                       .causal = p->causal,
                       .ops = scratch->ops,
                       .plain = &plan->ops[0],
                       .source = looker,
                       .rows = read_rows,
                       .pack = pack_leaf};
}
