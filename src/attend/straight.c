/* straight.c - see straight.h.
 *
 * A leaf of generated tokens takes 2,000 to 3,300 cycles; to ask of each one again what masks, parts and positions do to it took
 * 190 of them. Here that is asked once for a piece. The arithmetic is that of fvi_tile_blocks, leaf by leaf. */
#include "attend/straight.h"

/* Keys that there are: a head of a cache may be shorter than the sequence. */
static int64_t keys_of(const fvi_source *s) {
    return s->cache == NULL ? s->n_kv : fvi_min(s->n_kv, fvi_cache_head_length(s->cache, s->layer, s->head));
}

/* How many of n leaves from `from` on are whole; 0 if not every row sees all of them. */
static int seen_leaves(const fv_plan *plan, const fvi_item *item, const fvi_source *s, const fvi_index *index, int64_t from,
                       int n) {
    n = (int)fvi_min(n, keys_of(s) / FVI_LEAF - from);
    if (n <= 0) {
        return 0;
    }
    int64_t first = from * FVI_LEAF, end = first + n * FVI_LEAF;
    if (s->cache != NULL) { /* keys of a cache have positions of their own */
        first = fvi_cache_page(s->cache, s->layer, s->head, from)->min_position;
        end = fvi_cache_page(s->cache, s->layer, s->head, from + n - 1)->max_position + 1;
    }
    bool seen = fvi_rule_sees_all(&plan->rule, item->first, item->last, first, end) &&
                fvi_rule_sees_all(&index->rule, item->first, item->last, first, end);
    return seen ? n : 0;
}

static void page_rows(const fvi_source *s, int64_t leaf, fvi_rows *k, fvi_rows *v) {
    const fvi_page *page = fvi_cache_page(s->cache, s->layer, s->head, leaf);
    *k = (fvi_rows){.data = page->k, .row_bytes = (int64_t)s->cache->k_row_bytes, .scale = page->k_scale, .n = FVI_LEAF};
    *v = (fvi_rows){.data = page->v, .row_bytes = (int64_t)s->cache->v_row_bytes, .scale = page->v_scale, .n = FVI_LEAF};
}

static fvi_rows tensor_rows(const fvi_source *s, const fv_tensor *t, int64_t leaf) {
    return (fvi_rows){.data = fvi_tensor_at(t, s->sequence, s->head, s->start + leaf * FVI_LEAF),
                      .row_bytes = t->stride[2] * (int64_t)fv_dtype_bytes(t->dtype, 1),
                      .n = FVI_LEAF};
}

static void leaf_rows(const fvi_source *source, int64_t leaf, fvi_rows *k, fvi_rows *v) {
    if (source->cache != NULL) {
        page_rows(source, leaf, k, v);
    } else {
        *k = tensor_rows(source, source->k, leaf);
        *v = tensor_rows(source, source->v, leaf);
    }
}

/* n leaves, each of which names what is read after it: K of the next, after the last K the first V, after the last V the K that
 * follows, if there is a leaf more. */
static void list_rows(const fvi_source *source, int64_t from, int n, fvi_rows k[FVI_BATCH + 1], fvi_rows v[FVI_BATCH + 1]) {
    bool more = (from + n) * FVI_LEAF < keys_of(source);
    for (int b = 0; b < n + more; b++) {
        leaf_rows(source, from + b, &k[b], &v[b]);
    }
    for (int b = 0; b + 1 < n; b++) {
        k[b].next = k[b + 1].data;
        v[b].next = v[b + 1].data;
    }
    bool alike = k[0].row_bytes == v[0].row_bytes; /* requests count in rows of the leaf that they are made from */
    k[n - 1].next = alike ? v[0].data : more ? k[n].data : NULL;
    v[n - 1].next = !more ? NULL : alike ? k[n].data : v[n].data;
}

int fvi_straight_blocks(const fv_plan *plan, const fvi_item *item, const fvi_source *source, const fvi_index *index, int64_t from,
                        int n, const fvi_scratch *scratch, fvi_fold *fold) {
    const fv_problem *p = &plan->problem;
    const int64_t rows = item->n_rows * plan->share, tile = rows * FVI_LEAF;
    bool plain =
        p->soft_cap == 0 && !p->has_alibi && !p->has_bias && !p->has_key_mask && !plan->places && index->sieve.keep == NULL;
    if (scratch->key == NULL || !plain || rows > plan->sub_rows || !fvi_source_in_place(source)) {
        return 0;
    }
    n = seen_leaves(plan, item, source, index, from, n);
    if (n == 0) {
        return 0;
    }
    fvi_rows k[FVI_BATCH + 1] = {0}, v[FVI_BATCH + 1] = {0};
    list_rows(source, from, n, k, v);
    float *s = scratch->s, *alpha = scratch->alpha;
    for (int b = 0; b <= n; b++) { /* weights follow one leaf behind: the end of a product is a chain that they hide */
        if (b < n) {
            scratch->key->qk(scratch->q, (int)rows, (int)p->d_k, &k[b], plan->scale, s + b * tile);
        }
        if (b > 0) {
            scratch->ops->soften(s + (b - 1) * tile, (int)rows, fold->m, fold->sum, alpha + (b - 1) * rows);
        }
    }
    for (int b = 0; b < n; b++) {
        scratch->value->pv(s + b * tile, (int)rows, alpha + b * rows, &v[b], (int)p->d_v, (int)plan->d_pad, fold->out);
    }
    scratch->stats->k_rows += (uint64_t)(n * FVI_LEAF);
    scratch->stats->v_rows += (uint64_t)(n * FVI_LEAF);
    scratch->stats->visited_pairs += (uint64_t)(n * tile);
    scratch->stats->exact_pairs += (uint64_t)(n * tile);
    return n;
}
