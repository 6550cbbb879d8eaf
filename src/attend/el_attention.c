/* el_attention.c - EL-attention (Yan et al., ICML 2021): heads that attend to cached hidden states.
 *
 * Queries expanded to d_model make this multi-query attention with X as K and as V, of any width: the stages of the CPU tile take
 * it as it is, 64 entries at a time. A work item is one row's group of heads, which all see the same entries, so that a leaf is
 * packed with just those and nothing is hidden inside it. Two loops: mixes of the heads, then the output projection. */
#include "attend/plan.h"
#include "base/threads.h"
#include "cache/cache.h"
#include "fovea/experimental.h"
#include "kernel/tile.h"

#include <math.h>
#include <string.h>

enum { LANES = 16 };

typedef struct el_job {
    const fv_el_layer *l;
    const fv_cache *x;
    int layer;
    const float *query;
    int64_t n_q, next; /* next: the position after the last entry's */
    bool causal;
    float scale; /* to the base 2 */
    float *mix;  /* (n_q, h * d_head) */
    float *out;
    int64_t group; /* heads of an item */
    fvi_tile_ops ops;
    uint8_t *scratch;
    size_t scratch_bytes; /* of a worker */
} el_job;

/* One worker's part; every buffer is 64-byte aligned. */
typedef struct el_scratch {
    float *wide, *narrow; /* (d_model), (d_head) */
    uint8_t *q;           /* packed, (group) rows */
    float *s, *kt, *vt, *out;
    float *m, *sum, *alpha; /* (group) */
} el_scratch;

/* Lays a worker's scratch out from `base`; returns its bytes. */
static size_t cut(const el_job *j, uint8_t *base, el_scratch *w) {
    int64_t d = j->l->d_model, d_pad = fvi_tile_pad(d);
    size_t at = 0;
    const struct {
        void **to;
        int64_t bytes;
    } part[] = {{(void **)&w->wide, d * 4},
                {(void **)&w->narrow, j->l->d_head * 4},
                {(void **)&w->q, j->group * fvi_tile_q_bytes(&j->ops, d)},
                {(void **)&w->s, j->group * FVI_LEAF * 4},
                {(void **)&w->kt, fvi_tile_k_bytes(d)},
                {(void **)&w->vt, fvi_tile_v_bytes(d)},
                {(void **)&w->out, j->group * d_pad * 4},
                {(void **)&w->m, j->group * 4},
                {(void **)&w->sum, j->group * 4},
                {(void **)&w->alpha, j->group * 4}};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        if (base != NULL) {
            *part[i].to = base + at;
        }
        at += (size_t)fvi_round_up(part[i].bytes, 64);
    }
    return at;
}

/* In 16 lanes, folded in a fixed order. */
static float dot(int64_t n, const float *a, const float *b) {
    float lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int k = 0; k < LANES; k++) {
            lane[k] += a[i + k] * b[i + k];
        }
    }
    for (int k = 0; i + k < n; k++) {
        lane[k] += a[i + k] * b[i + k];
    }
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int k = 0; k < half; k++) {
            lane[k] += lane[k + half];
        }
    }
    return lane[0];
}

/* wide = W_k,h^T (W_q,h x + b_q,h) */
static void expand_query(const fv_el_layer *l, int64_t head, const float *x, float *narrow, float *wide) {
    memset(wide, 0, (size_t)l->d_model * sizeof *wide);
    for (int64_t r = 0; r < l->d_head; r++) {
        int64_t row = head * l->d_head + r;
        narrow[r] = dot(l->d_model, l->w_q + row * l->d_model, x) + (l->b_q != NULL ? l->b_q[row] : 0);
        const float *k = l->w_k + row * l->d_model;
        for (int64_t c = 0; c < l->d_model; c++) {
            wide[c] += narrow[r] * k[c];
        }
    }
}

/* Softmax of `rows` expanded queries over the entries at positions up to `last`: w->out unnormalised, w->sum. */
static void attend(const el_job *j, int rows, int64_t last, el_scratch *w) {
    int d = (int)j->l->d_model, d_pad = (int)fvi_tile_pad(d);
    fv_dtype dtype = j->x->desc.k_dtype;
    memset(w->out, 0, (size_t)rows * (size_t)d_pad * sizeof(float));
    for (int r = 0; r < rows; r++) {
        w->m[r] = -INFINITY;
        w->sum[r] = 0;
    }
    for (int64_t leaf = 0; leaf < fvi_cache_head_pages(j->x, j->layer, 0); leaf++) {
        const fvi_page *page = fvi_cache_page(j->x, j->layer, 0, leaf);
        int n = page->n;
        while (n > 0 && page->position[n - 1] > last) {
            n--;
        }
        if (n == 0) {
            break;
        }
        j->ops.pack_k[dtype](page->k, (int64_t)j->x->k_row_bytes, n, d, w->kt);
        j->ops.pack_v[dtype](page->k, (int64_t)j->x->k_row_bytes, n, d, w->vt);
        j->ops.qk(w->q, rows, d, w->kt, j->scale, w->s);
        for (int64_t i = 0; i < rows * FVI_LEAF; i++) {
            w->s[i] = i % FVI_LEAF < n ? w->s[i] : -INFINITY;
        }
        j->ops.soften(w->s, rows, w->m, w->sum, w->alpha);
        j->ops.pv(w->s, rows, w->alpha, w->vt, d_pad, w->out);
    }
}

static void mix_heads(void *arg, int64_t item, int worker) {
    const el_job *j = arg;
    const fv_el_layer *l = j->l;
    int64_t groups = fvi_ceil_div(l->h, j->group), i = item / groups, head = item % groups * j->group;
    int rows = (int)fvi_min(j->group, l->h - head);
    el_scratch w;
    cut(j, j->scratch + (size_t)worker * j->scratch_bytes, &w);
    for (int r = 0; r < rows; r++) {
        expand_query(l, head + r, j->query + i * l->d_model, w.narrow, w.wide);
        j->ops.pack_q(w.wide, 1, (int)l->d_model, w.q + r * fvi_tile_q_bytes(&j->ops, l->d_model));
    }
    attend(j, rows, j->causal ? j->next - j->n_q + i : j->next, &w);
    for (int r = 0; r < rows; r++) {
        float *a = w.out + r * fvi_tile_pad(l->d_model), *to = j->mix + (i * l->h + head + r) * l->d_head;
        for (int64_t c = 0; c < l->d_model && w.sum[r] != 0; c++) {
            a[c] /= w.sum[r];
        }
        for (int64_t c = 0; c < l->d_head; c++) {
            int64_t row = (head + r) * l->d_head + c;
            to[c] = w.sum[r] == 0 ? 0 : dot(l->d_model, l->w_v + row * l->d_model, a) + (l->b_v != NULL ? l->b_v[row] : 0);
        }
    }
}

static void project(void *arg, int64_t i, int worker) {
    const el_job *j = arg;
    const fv_el_layer *l = j->l;
    int64_t width = l->h * l->d_head;
    (void)worker;
    for (int64_t c = 0; c < l->d_model; c++) {
        j->out[i * l->d_model + c] = dot(width, l->w_o + c * width, j->mix + i * width) + (l->b_o != NULL ? l->b_o[c] : 0);
    }
}

static fv_status check(fv_context *ctx, const fv_el_layer *l, const fv_cache *x, int cache_layer, int64_t n_q) {
    if (l->d_model < 1 || l->d_model > 16384 || l->h < 1 || l->h > 1 << 16 || l->d_head < 1 || l->d_head > 16384) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "fv_el_attention: d_model is %lld, h %lld, d_head %lld; they must be 1..16384, 1..65536 and 1..16384",
                        (long long)l->d_model, (long long)l->h, (long long)l->d_head);
    }
    if (!isfinite(l->scale) || l->w_q == NULL || l->w_k == NULL || l->w_v == NULL || l->w_o == NULL) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "fv_el_attention: w_q, w_k, w_v and w_o must be there, and scale (%g) finite",
                        (double)l->scale);
    }
    const fv_cache_desc *c = &x->desc;
    if (c->h_kv != 1 || c->d_k != l->d_model || c->d_v != 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "fv_el_attention: the cache has %lld heads of widths %lld and %lld; hidden states need 1 of %lld and 0",
                        (long long)c->h_kv, (long long)c->d_k, (long long)c->d_v, (long long)l->d_model);
    }
    if (cache_layer < 0 || cache_layer >= c->layers) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "fv_el_attention: layer is %d; the cache has layers 0 to %d", cache_layer,
                        c->layers - 1);
    }
    if (n_q < 0 || n_q > 1 << 30) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "fv_el_attention: n_q is %lld; it must be from 0 to 2^30", (long long)n_q);
    }
    return FV_OK;
}

fv_status fv_el_attention(fv_context *ctx, const fv_el_layer *layer, const fv_cache *x, int cache_layer, const float *query,
                          int64_t n_q, bool causal, float *out) {
    fv_status status = check(ctx, layer, x, cache_layer, n_q);
    if (status != FV_OK || n_q == 0) {
        return status;
    }
    el_job j = {.l = layer, .x = x, .layer = cache_layer, .query = query, .n_q = n_q, .causal = causal, .out = out};
    j.next = fvi_cache_next_position(x, cache_layer);
    j.scale = (float)((layer->scale != 0 ? (double)layer->scale : 1 / sqrt((double)layer->d_head)) * FVI_LOG2E);
    /* heads are cut where rows alone would leave threads idle: a row's bits do not depend on its company */
    j.group = n_q >= fv_threads(ctx) ? layer->h : fvi_ceil_div(layer->h, fv_threads(ctx));
    fvi_tile_init(&ctx->cpu, &j.ops);
    el_scratch none;
    j.scratch_bytes = cut(&j, NULL, &none);
    int64_t width = layer->h * layer->d_head;
    j.scratch = fvi_alloc(ctx, (size_t)fv_threads(ctx), j.scratch_bytes);
    j.mix = fvi_alloc(ctx, (size_t)n_q, (size_t)width * sizeof(float));
    if (j.scratch == NULL || j.mix == NULL) {
        status = fvi_fail(ctx, FV_ERR_MEMORY, "fv_el_attention: no memory for %d x %zu bytes of scratch and %lld mixes",
                          fv_threads(ctx), j.scratch_bytes, (long long)n_q);
    } else {
        fvi_parallel(ctx, n_q * fvi_ceil_div(layer->h, j.group), mix_heads, &j);
        fvi_parallel(ctx, n_q, project, &j);
        status = fvi_cancelled(ctx) ? fvi_fail(ctx, FV_ERR_CANCELLED, "cancelled") : FV_OK;
    }
    fvi_release(ctx, j.mix, (size_t)n_q, (size_t)width * sizeof(float));
    fvi_release(ctx, j.scratch, (size_t)fv_threads(ctx), j.scratch_bytes);
    return status;
}
