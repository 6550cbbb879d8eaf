/* run.c - checks a run's operands, cuts it into items, and hands items or pieces of items to the threads. */
#include "attend/strands.h"
#include "base/threads.h"
#include "fovea/experimental.h"

#include <string.h>

static fv_status check_tensor(fv_context *ctx, const char *name, const fv_tensor *t, int64_t b, int64_t h, int64_t d) {
    if (t->rank != 4 || t->shape[0] != b || t->shape[1] != h || t->shape[3] != d || t->shape[2] < 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "%s has shape (%lld, %lld, %lld, %lld) and rank %d; the plan wants (%lld, %lld, n, %lld)", name,
                        (long long)t->shape[0], (long long)t->shape[1], (long long)t->shape[2], (long long)t->shape[3], t->rank,
                        (long long)b, (long long)h, (long long)d);
    }
    if (t->dtype != FV_F32 && t->dtype != FV_F16 && t->dtype != FV_BF16) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "%s is %s; it must be f32, f16 or bf16", name, fv_dtype_name(t->dtype));
    }
    if (t->data == NULL && t->shape[0] * t->shape[2] > 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "%s has no data", name);
    }
    return FV_OK;
}

static fv_status check_extras(fv_context *ctx, const fv_problem *p, const fv_run *run) {
    const struct {
        bool asked, given;
        const char *name;
    } extra[] = {{p->has_alibi, run->alibi_slopes != NULL, "alibi_slopes"},
                 {p->has_sink_logits, run->sink_logits != NULL, "sink_logits"},
                 {p->has_key_mask, run->key_mask != NULL, "key_mask"},
                 {p->has_bias, run->bias.data != NULL, "bias"},
                 {p->packed, run->q_start != NULL && run->k_start != NULL, "q_start and k_start"}};
    for (size_t i = 0; i < sizeof extra / sizeof *extra; i++) {
        if (extra[i].asked != extra[i].given) {
            return fvi_fail(ctx, FV_ERR_ARGUMENT, "the plan was made %s %s, the run comes %s",
                            extra[i].asked ? "with" : "without", extra[i].name, extra[i].given ? "with it" : "without");
        }
    }
    if (p->packed && run->kv_length != NULL) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "kv_length does not go with packed sequences: k_start has the lengths");
    }
    return FV_OK;
}

static fv_status check_bias(fv_context *ctx, const fv_problem *p, const fv_run *run, int64_t n_kv) {
    const fv_tensor *b = &run->bias;
    if (p->has_bias && (b->rank != 4 || b->dtype != FV_F32 || b->shape[0] != p->b || b->shape[1] != p->h_q ||
                        b->shape[2] != run->q.shape[2] || b->shape[3] != n_kv)) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "bias must be f32 of shape (%lld, %lld, %lld, %lld); repeat a dimension by a stride of 0",
                        (long long)p->b, (long long)p->h_q, (long long)run->q.shape[2], (long long)n_kv);
    }
    return FV_OK;
}

static fv_status check_cache(fv_context *ctx, const fv_problem *p, const fv_run *run) {
    const fv_cache_desc *c = &run->cache->desc;
    if (c->h_kv != p->h_kv || c->d_k != p->d_k || c->d_v != p->d_v || p->b != 1 || p->packed) {
        return fvi_fail(
            ctx, FV_ERR_ARGUMENT,
            "the cache has %lld KV heads of widths %lld and %lld, the plan %lld of %lld and %lld and b = %lld (1 is needed)",
            (long long)c->h_kv, (long long)c->d_k, (long long)c->d_v, (long long)p->h_kv, (long long)p->d_k, (long long)p->d_v,
            (long long)p->b);
    }
    if (run->layer < 0 || run->layer >= c->layers) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "layer is %d; the cache has layers 0 to %d", run->layer, c->layers - 1);
    }
    if (p->has_key_mask || run->kv_length != NULL) {
        return fvi_fail(ctx, FV_ERR_UNSUPPORTED, "key_mask and kv_length go with tensors, not with a cache");
    }
    return FV_OK;
}

static fv_status check_starts(fv_context *ctx, const char *name, const int32_t *start, int64_t b, int64_t rows, int64_t most) {
    for (int64_t s = 0; s < b; s++) {
        if (start[0] != 0 || start[s + 1] < start[s] || start[s + 1] > rows || start[s + 1] - start[s] > most) {
            return fvi_fail(
                ctx, FV_ERR_ARGUMENT,
                "%s[%lld..%lld] is %d..%d; starts begin at 0, ascend, end within %lld rows and cut sequences of at most %lld",
                name, (long long)s, (long long)s + 1, start[s], start[s + 1], (long long)rows, (long long)most);
        }
    }
    return FV_OK;
}

static fv_status check_lengths(fv_context *ctx, const fv_problem *p, const fv_run *run, int64_t n_kv) {
    if (p->packed) {
        fv_status status = check_starts(ctx, "q_start", run->q_start, p->b, run->q.shape[2], p->n_q);
        return status != FV_OK ? status : check_starts(ctx, "k_start", run->k_start, p->b, n_kv, p->n_kv);
    }
    if (run->q.shape[2] > p->n_q || n_kv > p->n_kv) {
        return fvi_fail(ctx, FV_ERR_RANGE, "the run has %lld queries and %lld keys; the plan was made for at most %lld and %lld",
                        (long long)run->q.shape[2], (long long)n_kv, (long long)p->n_q, (long long)p->n_kv);
    }
    for (int64_t s = 0; run->kv_length != NULL && s < p->b; s++) {
        if (run->kv_length[s] < 0 || run->kv_length[s] > n_kv) {
            return fvi_fail(ctx, FV_ERR_ARGUMENT, "kv_length[%lld] is %d; it must be from 0 to %lld", (long long)s,
                            run->kv_length[s], (long long)n_kv);
        }
    }
    return FV_OK;
}

static int64_t keys_of(const fv_run *run) {
    return run->cache != NULL ? fv_cache_length(run->cache, run->layer) : run->k.shape[2];
}

static fv_status check_run(const fv_plan *plan, const fv_run *run, const void *workspace, size_t bytes) {
    fv_context *ctx = plan->ctx;
    const fv_problem *p = &plan->problem;
    if (bytes < plan->at.bytes || workspace == NULL || (uintptr_t)workspace % 64 != 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "the workspace has %zu bytes at %p; the plan needs %zu bytes, 64-byte aligned",
                        bytes, workspace, plan->at.bytes);
    }
    int64_t b = p->packed ? 1 : p->b;
    fv_status status = check_tensor(ctx, "q", &run->q, b, p->h_q, p->d_k);
    if (status == FV_OK) {
        status = check_tensor(ctx, "out", &run->out, b, p->h_q, p->d_v);
    }
    if (status == FV_OK && (run->out.dtype != p->out_dtype || run->out.shape[2] != run->q.shape[2])) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "out is %s with %lld rows; it must be %s with q's %lld",
                        fv_dtype_name(run->out.dtype), (long long)run->out.shape[2], fv_dtype_name(p->out_dtype),
                        (long long)run->q.shape[2]);
    }
    if (status == FV_OK && run->cache != NULL) {
        status = check_cache(ctx, p, run);
    }
    if (status == FV_OK && run->cache == NULL) {
        status = check_tensor(ctx, "k", &run->k, b, p->h_kv, p->d_k);
    }
    if (status == FV_OK && run->cache == NULL) {
        status = check_tensor(ctx, "v", &run->v, b, p->h_kv, p->d_v);
    }
    if (status == FV_OK && run->cache == NULL && run->v.shape[2] != run->k.shape[2]) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "k has %lld rows and v %lld; they must be equal", (long long)run->k.shape[2],
                        (long long)run->v.shape[2]);
    }
    if (status == FV_OK) {
        status = check_extras(ctx, p, run);
    }
    if (status == FV_OK) {
        status = check_lengths(ctx, p, run, keys_of(run));
    }
    return status == FV_OK ? check_bias(ctx, p, run, keys_of(run)) : status;
}

/* One run in progress. */
typedef struct job {
    const fv_plan *plan;
    const fv_run *run;
    uint8_t *workspace;
    fvi_item *item;
    int64_t items, pieces; /* pieces: of all items together */
    int64_t q_block;       /* positions of an item */
} job;

/* The item without its rows: lengths and places of a sequence. */
static fvi_item sequence_item(const fv_plan *plan, const fv_run *run, int64_t s) {
    fvi_item item = {.sequence = s, .n_q = run->q.shape[2], .n_kv = keys_of(run)};
    if (plan->problem.packed) {
        item.q_start = run->q_start[s];
        item.k_start = run->k_start[s];
        item.n_q = run->q_start[s + 1] - run->q_start[s];
        item.n_kv = run->k_start[s + 1] - run->k_start[s];
    } else if (run->kv_length != NULL) {
        item.n_kv = run->kv_length[s];
    }
    item.offset = plan->problem.offset_set ? plan->problem.offset : item.n_kv - item.n_q;
    return item;
}

static int64_t count_items(const fv_plan *plan, const fv_run *run, int64_t q_block) {
    int64_t items = 0;
    for (int64_t s = 0; s < plan->problem.b; s++) {
        items += plan->problem.h_q / plan->share * fvi_ceil_div(sequence_item(plan, run, s).n_q, q_block);
    }
    return items;
}

/* Fewer positions an item where that lets more threads work; bits do not depend on it. */
static int64_t fit_block(const fv_plan *plan, const fv_run *run) {
    int64_t q_block = plan->q_block, least = plan->indexed ? plan->tile : fvi_ceil_div(FVI_PARTIAL_ROWS, plan->share);
    while (q_block > 1 && q_block >= 2 * least && count_items(plan, run, q_block) < 4 * plan->threads) {
        q_block /= 2;
    }
    return q_block;
}

static int64_t pieces_of(const fvi_item *item) { return fvi_ceil_div(item->n_kv, FVI_PIECE); }

static void list_item(job *j, fvi_item *item) {
    item->piece0 = j->pieces;
    j->pieces += pieces_of(item);
    j->item[j->items++] = *item;
}

/* Late rows of a causal prompt see most keys: they go first, so that threads end together. */
static void list_items(job *j) {
    int64_t q_block = j->q_block;
    for (int64_t s = 0; s < j->plan->problem.b; s++) {
        fvi_item item = sequence_item(j->plan, j->run, s);
        for (int64_t block = fvi_ceil_div(item.n_q, q_block) - 1; block >= 0; block--) {
            item.row0 = block * q_block;
            item.n_rows = fvi_min(q_block, item.n_q - item.row0);
            for (item.kv_head = 0; item.kv_head < j->plan->problem.h_kv; item.kv_head++) {
                item.head0 = item.kv_head * j->plan->share;
                list_item(j, &item);
            }
        }
    }
}

/* Head by head, since a head's tiles share columns, and cut at absolute multiples of the selector's block: of positions, or of
 * the places in its order. */
static void list_indexed(job *j) {
    const fv_plan *plan = j->plan;
    const int64_t q_block = j->q_block;
    for (int64_t s = 0; s < plan->problem.b; s++) {
        fvi_item item = sequence_item(plan, j->run, s);
        int64_t start = plan->choice.selector->order == NULL ? item.offset : 0;
        for (item.head0 = 0; item.head0 < plan->problem.h_q; item.head0++) {
            item.kv_head = item.head0 / plan->group;
            for (int64_t end = item.n_q; end > 0; end = item.row0) {
                int64_t last = start + end - 1;
                int64_t into = last >= 0 ? last % q_block : q_block - 1 - (-last - 1) % q_block;
                item.row0 = fvi_max(0, end - 1 - into);
                item.n_rows = end - item.row0;
                list_item(j, &item);
            }
        }
    }
}

static void prepare_head(void *arg, int64_t i, int worker) {
    const job *j = arg;
    fvi_item item = sequence_item(j->plan, j->run, i / j->plan->problem.h_q);
    item.head0 = i % j->plan->problem.h_q;
    item.kv_head = item.head0 / j->plan->group;
    fvi_scratch scratch;
    fvi_scratch_cut(j->plan, j->run, j->workspace, worker, &scratch);
    if (item.n_q > 0 && item.n_kv > 0) {
        fvi_walk_prepare(j->plan, j->run, j->workspace, &item, &scratch);
    }
}

/* Item number i, its rows known. */
static fvi_item open_item(const job *j, int64_t i) {
    fvi_item item = j->item[i];
    fvi_walk_place(j->plan, j->workspace, &item);
    return item;
}

static void run_item(void *arg, int64_t i, int worker) {
    const job *j = arg;
    const fv_plan *plan = j->plan;
    const fvi_item placed = open_item(j, i), *item = &placed;
    int64_t rows = item->n_rows * plan->share;
    fvi_scratch scratch;
    fvi_scratch_cut(plan, j->run, j->workspace, worker, &scratch);
    fvi_fold_clear(plan, &scratch.total, rows);
    fvi_tile_load_queries(plan, j->run, item, &scratch);
    if (plan->indexed && item->n_kv > 0) {
        fvi_strands_run(plan, j->run, j->workspace, item, &scratch);
    } else if (!plan->indexed) {
        fvi_index index;
        fvi_walk_select(plan, j->run, j->workspace, item, &scratch, &index);
        for (int64_t from = 0; from < item->n_kv; from += FVI_PIECE) {
            int64_t to = fvi_min(from + FVI_PIECE, item->n_kv);
            if (from == 0) { /* to merge it with nothing would change nothing but the sign of a zero */
                fvi_walk_piece(plan, j->run, item, &index, from, to, &scratch, &scratch.total);
                continue;
            }
            fvi_fold_clear(plan, &scratch.piece, rows);
            fvi_walk_piece(plan, j->run, item, &index, from, to, &scratch, &scratch.piece);
            fvi_fold_merge(plan, &scratch.total, &scratch.piece, rows);
        }
    }
    fvi_tile_finish(plan, j->run, item, &scratch.total);
}

static fvi_fold partial_at(const job *j, int64_t piece) {
    const fv_plan *plan = j->plan;
    float *base = (float *)(j->workspace + plan->at.partial + (size_t)piece * plan->at.partial_bytes);
    int64_t rows = plan->partial_rows;
    return (fvi_fold){.out = base, .m = base + rows * plan->d_pad, .sum = base + rows * (plan->d_pad + 1)};
}

/* The item that piece number `piece` of the run belongs to: the last one that begins at or before it, empty ones aside. */
static fvi_item item_of(const job *j, int64_t piece) {
    int64_t low = 0, high = j->items;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (j->item[middle].piece0 <= piece) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return open_item(j, low);
}

static void run_piece(void *arg, int64_t i, int worker) {
    const job *j = arg;
    const fv_plan *plan = j->plan;
    const fvi_item placed = item_of(j, i), *item = &placed;
    int64_t from = (i - item->piece0) * FVI_PIECE;
    fvi_fold fold = partial_at(j, i);
    fvi_scratch scratch;
    fvi_scratch_cut(plan, j->run, j->workspace, worker, &scratch);
    fvi_fold_clear(plan, &fold, item->n_rows * plan->share);
    fvi_tile_load_queries(plan, j->run, item, &scratch);
    fvi_index index;
    fvi_walk_select(plan, j->run, j->workspace, item, &scratch, &index);
    fvi_walk_piece(plan, j->run, item, &index, from, fvi_min(from + FVI_PIECE, item->n_kv), &scratch, &fold);
}

static void finish_item(void *arg, int64_t i, int worker) {
    const job *j = arg;
    const fv_plan *plan = j->plan;
    const fvi_item placed = open_item(j, i), *item = &placed;
    int64_t rows = item->n_rows * plan->share;
    fvi_scratch scratch;
    fvi_scratch_cut(plan, j->run, j->workspace, worker, &scratch);
    fvi_fold_clear(plan, &scratch.total, rows);
    for (int64_t piece = 0; piece < pieces_of(item); piece++) {
        fvi_fold part = partial_at(j, item->piece0 + piece);
        fvi_fold_merge(plan, &scratch.total, &part, rows);
    }
    fvi_tile_finish(plan, j->run, item, &scratch.total);
}

/* Generated tokens are cut whenever there is room, so that a batch of uneven lengths leaves no thread idle; a prompt only where
 * its items are few. */
static bool cut_into_pieces(const job *j) {
    const fv_plan *plan = j->plan;
    if (plan->indexed) { /* an index is made once for all pieces */
        return false;
    }
    bool few = plan->problem.phase == FV_DECODE || j->items < 4 * plan->threads;
    return few && j->pieces > j->items && j->pieces <= plan->partials && j->q_block * plan->share <= plan->partial_rows;
}

static void sum_stats(const job *j) {
    fv_run_stats sum = {0};
    for (int w = 0; w < j->plan->threads; w++) {
        const fv_run_stats *s = (const fv_run_stats *)(j->workspace + j->plan->at.stats + (size_t)w * FVI_STATS_BYTES);
        sum.visited_pairs += s->visited_pairs;
        sum.exact_pairs += s->exact_pairs;
        sum.k_rows += s->k_rows;
        sum.v_rows += s->v_rows;
        sum.tiles += s->tiles;
        sum.fallback_tiles += s->fallback_tiles;
        sum.select_seconds += s->select_seconds;
    }
    for (int64_t i = 0; i < j->items; i++) {
        const fvi_item *item = &j->item[i];
        for (int64_t r = 0; r < item->n_rows; r++) {
            fvi_span span[2];
            int n = fvi_rule_spans(&j->plan->rule, item->offset + item->row0 + r, item->n_kv, span);
            for (int k = 0; k < n; k++) {
                sum.eligible_pairs += (uint64_t)((span[k].to - span[k].from) * j->plan->share);
            }
        }
    }
    *j->run->stats = sum;
}

/* Lists the items of a run whose operands were checked, and does the selector's prepass. */
static job begin(const fv_plan *plan, const fv_run *run, void *workspace, int64_t q_block) {
    job j = {.plan = plan, .run = run, .workspace = workspace, .item = (fvi_item *)((uint8_t *)workspace + plan->at.items)};
    memset(j.workspace + plan->at.stats, 0, (size_t)plan->threads * FVI_STATS_BYTES);
    j.q_block = q_block;
    if (plan->indexed) {
        list_indexed(&j);
    } else {
        list_items(&j);
    }
    if (plan->choice.selector->prepare != NULL) {
        fvi_parallel(plan->ctx, plan->problem.b * plan->problem.h_q, prepare_head, &j);
    }
    return j;
}

fv_status fv_plan_run(fv_plan *plan, const fv_run *run, void *workspace, size_t workspace_bytes) {
    fv_status status = check_run(plan, run, workspace, workspace_bytes);
    if (status != FV_OK) {
        return status;
    }
    job j = begin(plan, run, workspace, fit_block(plan, run));
    if (cut_into_pieces(&j)) {
        fvi_parallel(plan->ctx, j.pieces, run_piece, &j);
        fvi_parallel(plan->ctx, j.items, finish_item, &j);
    } else {
        fvi_parallel(plan->ctx, j.items, run_item, &j);
    }
    if (fvi_cancelled(plan->ctx)) {
        return fvi_fail(plan->ctx, FV_ERR_CANCELLED, "cancelled");
    }
    if (run->stats != NULL) {
        sum_stats(&j);
    }
    return FV_OK;
}

/* ---- the index alone ----------------------------------------------------------------------------------------------- */

typedef struct index_view {
    const fv_plan *plan;
    const fvi_index *index;
} index_view;

bool fv_index_sees(const fv_index_tile *tile, int64_t row, int64_t key) {
    const index_view *view = tile->inside;
    const fvi_index *index = view->index;
    int64_t position = tile->offset + row, block = key / FVI_BLOCK;
    uint64_t seen = index->key[block];
    if (fvi_index_apart(index, block)) {
        seen &= index->seen(index->seen_arg, position, block);
    }
    return seen >> (key % FVI_BLOCK) & 1 && fvi_rule_sees_all(&view->plan->rule, position, position, key, key + 1) &&
           fvi_rule_sees_all(&index->rule, position, position, key, key + 1);
}

static fv_status visit_items(const job *j, fv_on_index on_index, void *user) {
    const fv_plan *plan = j->plan;
    fvi_scratch scratch;
    fvi_index index;
    fvi_scratch_cut(plan, j->run, j->workspace, 0, &scratch);
    for (int64_t i = 0; i < j->items; i++) {
        const fvi_item placed = open_item(j, i), *item = &placed;
        if (item->n_kv == 0) {
            continue;
        }
        fvi_walk_select(plan, j->run, j->workspace, item, &scratch, &index);
        index_view view = {plan, &index};
        fv_index_tile tile = {.sequence = item->sequence,
                              .head = item->head0,
                              .first = item->row0,
                              .n = item->n_rows,
                              .row = item->order == NULL ? NULL : item->order + item->row0,
                              .offset = item->offset,
                              .n_kv = item->n_kv,
                              .key = index.key,
                              .fell_back = index.fell_back,
                              .inside = &view};
        if (on_index(user, &tile) != 0) {
            return fvi_fail(plan->ctx, FV_ERR_CANCELLED, "stopped by on_index at row %lld of head %lld", (long long)item->row0,
                            (long long)item->head0);
        }
    }
    return FV_OK;
}

fv_status fv_plan_index(fv_plan *plan, const fv_run *run, void *workspace, size_t workspace_bytes, fv_on_index on_index,
                        void *user) {
    if (!plan->indexed) {
        return fvi_fail(plan->ctx, FV_ERR_UNSUPPORTED, "the plan's method is a rule: it makes no index");
    }
    fv_status status = check_run(plan, run, workspace, workspace_bytes);
    if (status != FV_OK) {
        return status;
    }
    job j = begin(plan, run, workspace, plan->tile);
    return visit_items(&j, on_index, user);
}
