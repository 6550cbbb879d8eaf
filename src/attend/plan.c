/* plan.c - checks a problem, chooses block sizes, and lays the workspace out. */
#include "attend/plan.h"

#include "attend/audit.h"
#include "attend/correct.h"
#include "attend/turn.h"

#include <math.h>

fv_problem fv_problem_default(void) { return (fv_problem){.b = 1, .h_q = 1, .h_kv = 1, .out_dtype = FV_F32}; }

static fv_status check_shapes(fv_context *ctx, const fv_problem *p) {
    const struct {
        const char *name;
        int64_t value, least, most;
    } field[] = {{"b", p->b, 1, 1 << 20},     {"h_q", p->h_q, 1, 1 << 16},         {"h_kv", p->h_kv, 1, 1 << 16},
                 {"n_q", p->n_q, 0, 1 << 30}, {"n_kv", p->n_kv, 0, 1 << 30},       {"d_k", p->d_k, 1, 256},
                 {"d_v", p->d_v, 1, 256},     {"window", p->window, 0, INT64_MAX}, {"sinks", p->sinks, 0, INT64_MAX}};
    for (size_t i = 0; i < sizeof field / sizeof *field; i++) {
        if (field[i].value < field[i].least || field[i].value > field[i].most) {
            return fvi_fail(ctx, FV_ERR_ARGUMENT, "%s is %lld; it must be from %lld to %lld", field[i].name,
                            (long long)field[i].value, (long long)field[i].least, (long long)field[i].most);
        }
    }
    if (p->h_q % p->h_kv != 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "h_q is %lld and h_kv %lld; h_q must be a multiple of h_kv", (long long)p->h_q,
                        (long long)p->h_kv);
    }
    return FV_OK;
}

static fv_status check_problem(fv_context *ctx, const fv_problem *p) {
    fv_status status = check_shapes(ctx, p);
    if (status != FV_OK) {
        return status;
    }
    if (p->out_dtype != FV_F32 && p->out_dtype != FV_F16 && p->out_dtype != FV_BF16) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "out_dtype is %s; it must be f32, f16 or bf16", fv_dtype_name(p->out_dtype));
    }
    if (!isfinite(p->scale) || !isfinite(p->soft_cap) || p->soft_cap < 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "scale %g and soft_cap %g must be finite, and soft_cap not negative",
                        (double)p->scale, (double)p->soft_cap);
    }
    if (p->sinks > 0 && p->window == 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "sinks is %lld without a window; set window too", (long long)p->sinks);
    }
    if (!(p->max_error >= 0)) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "max_error is %g; it must be 0 (off) or more", (double)p->max_error);
    }
    if (p->packed && p->has_bias) {
        return fvi_fail(ctx, FV_ERR_UNSUPPORTED,
                        "an additive bias does not go with packed sequences; use a batch with kv_length");
    }
    if (p->rope.width < 0 || p->rope.width % 2 != 0 || p->rope.width > p->d_k || p->rope.trained < 0 ||
        (p->rope.width > 0 && p->rope.frequency == NULL)) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT,
                        "rope turns %lld of %lld numbers, by %s frequencies; it must be an even number up to all, with "
                        "frequencies, and positions trained 0 or more",
                        (long long)p->rope.width, (long long)p->d_k, p->rope.frequency == NULL ? "no" : "given");
    }
    if (p->phase != FV_PREFILL && p->phase != FV_DECODE) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "phase is %d; it must be FV_PREFILL or FV_DECODE", (int)p->phase);
    }
    if (p->offset_set && (p->offset < -(INT64_C(1) << 30) || p->offset > INT64_C(1) << 30)) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "offset is %lld; it must be within 2^30 of 0", (long long)p->offset);
    }
    return FV_OK;
}

static void choose_sizes(fv_plan *plan) {
    const fv_problem *p = &plan->problem;
    plan->group = p->h_q / p->h_kv;
    plan->indexed = plan->choice.selector->rule == NULL;
    plan->share = plan->indexed || plan->single ? 1 : plan->group;
    plan->d_pad = fvi_tile_pad(p->d_v);
    bool at_once = p->phase == FV_PREFILL && plan->ops[plan->has_half].fold != NULL;
    int64_t item_rows = at_once ? FVI_FOLD_ROWS : FVI_ITEM_ROWS;
    plan->q_block = fvi_max(1, fvi_min(fvi_max(p->n_q, 1), item_rows / plan->share));
    if (plan->indexed) {
        plan->tile = plan->choice.selector->query_block;
        plan->q_block = plan->tile * fvi_max(1, fvi_min(FVI_STRANDS, FVI_ITEM_ROWS / plan->tile));
    }
    plan->rows = plan->q_block * plan->share;
    int64_t row_block = plan->ops[plan->has_half].row_block;
    plan->sub_rows = fvi_min(plan->rows, row_block * fvi_max(1, 36 / row_block));
    plan->batch = p->phase == FV_DECODE ? FVI_BATCH : at_once ? FVI_FOLD_LEAVES : 1;
    /* blocks of shorter sequences may be cut finer: at most one more a sequence, and as many again when items are halved */
    int64_t least_block = fvi_max(1, fvi_min(plan->q_block, FVI_PARTIAL_ROWS / plan->share));
    plan->max_items = p->b * p->h_q / plan->share * fvi_max(1, fvi_ceil_div(p->n_q, least_block) + plan->indexed);
    plan->partial_rows = fvi_min(plan->rows, fvi_max(FVI_PARTIAL_ROWS, plan->share));
    int64_t pieces = fvi_ceil_div(p->n_kv, FVI_PIECE);
    int64_t bytes = plan->partial_rows * (plan->d_pad + 2) * (int64_t)sizeof(float) + 64;
    int64_t cut = p->phase == FV_DECODE ? plan->max_items : fvi_min(plan->max_items, 4 * plan->threads);
    plan->partials = pieces > 1 && !plan->indexed ? fvi_min(cut * pieces, FVI_PARTIALS_BYTES / bytes) : 0;
}

typedef struct layout_cursor {
    size_t at;
    bool overflow;
} layout_cursor;

static size_t take(layout_cursor *c, int64_t n, size_t size) {
    size_t start = c->at, bytes;
    c->overflow |=
        !fvi_mul((size_t)n, size, &bytes) || !fvi_add(bytes, 63, &bytes) || !fvi_add(c->at, bytes & ~(size_t)63, &c->at);
    return start;
}

static fvi_extent extent_of(const fv_problem *p) {
    return (fvi_extent){p->n_q, p->n_kv, p->h_q, p->h_kv, p->d_k, p->d_v, p->causal, p->rope.width > 0, p->rope.trained};
}

/* What an index needs in a thread's scratch; nothing where a rule is the answer. */
static void lay_out_index(fv_plan *plan, layout_cursor *c) {
    const fv_problem *p = &plan->problem;
    const fvi_selector *selector = plan->choice.selector;
    fvi_layout *at = &plan->at;
    fvi_extent extent = extent_of(p);
    int64_t blocks = plan->indexed ? fvi_ceil_div(p->n_kv, FVI_BLOCK) : 0;
    at->key = take(c, FVI_STRANDS * blocks, sizeof(uint64_t));
    at->apart = take(c, FVI_STRANDS * fvi_ceil_div(blocks, 64), sizeof(uint64_t));
    at->column = take(c, plan->indexed ? FVI_STRANDS * FVI_LEAF : 0, sizeof(int32_t));
    at->room = take(c, plan->indexed, fvi_source_room(p->d_k, p->d_v));
    at->listed = take(c, FVI_STRANDS * blocks, sizeof(uint64_t));
    at->alike = take(c, fvi_ceil_div(blocks, 64), sizeof(uint64_t));
    at->list = take(c, plan->indexed ? FVI_STRANDS * plan->tile : 0, sizeof(fvi_list));
    at->list_key = take(c, plan->indexed ? FVI_STRANDS * plan->tile * FVI_LIST_ROOM : 0, sizeof(int32_t));
    at->list_q = take(c, plan->indexed ? plan->rows * fvi_tile_half_width(p->d_k) : 0, sizeof(float));
    at->scratch = take(c, selector->scratch_bytes != NULL,
                       selector->scratch_bytes == NULL ? 0 : selector->scratch_bytes(plan->choice.value, &extent));
    at->seen_bytes = selector->seen_bytes == NULL ? 0 : selector->seen_bytes(plan->choice.value, &extent);
    at->seen_bytes = (at->seen_bytes + 63) & ~(size_t)63;
    at->seen_state = take(c, FVI_STRANDS, at->seen_bytes);
    at->head_bytes = selector->head_bytes == NULL ? 0 : selector->head_bytes(plan->choice.value, &extent);
    at->head_bytes = (at->head_bytes + 63) & ~(size_t)63;
}

/* What turned queries and keys need. */
static void lay_out_places(fv_plan *plan, layout_cursor *c) {
    const int64_t d = plan->problem.d_k, rows = plan->places ? plan->rows : 0, keys = plan->places ? FVI_LEAF : 0;
    fvi_layout *at = &plan->at;
    at->plain = take(c, rows * d, sizeof(float));
    at->place = take(c, rows, sizeof(int64_t));
    at->turned = take(c, keys * d, sizeof(float));
    at->leaf = take(c, keys * d, sizeof(float));
    at->kt_low = take(c, plan->places, (size_t)fvi_tile_k_bytes(d));
    at->s_low = take(c, plan->places ? plan->sub_rows * FVI_LEAF : 0, sizeof(float));
}

/* One code path for sizes and offsets: what is asked for is what is used. */
static bool lay_out(fv_plan *plan) {
    const fv_problem *p = &plan->problem;
    fvi_layout *at = &plan->at;
    layout_cursor c = {0};
    at->q = take(&c, plan->rows * fvi_tile_half_width(p->d_k), sizeof(float));
    at->q_row = take(&c, p->d_k, sizeof(float));
    at->s =
        take(&c, fvi_max(plan->batch * plan->sub_rows, fvi_tile_fold_rows(&plan->ops[plan->has_half])) * FVI_LEAF, sizeof(float));
    int64_t packed = p->phase == FV_DECODE ? 1 : plan->batch;
    at->kt = take(&c, packed, (size_t)fvi_tile_k_bytes(p->d_k));
    at->vt = take(&c, packed, (size_t)fvi_tile_v_bytes(p->d_v));
    at->vt_row = take(&c, fvi_tile_v_bytes(p->d_v), 1);
    at->gather = take(&c, (p->d_k + p->d_v) * FVI_LEAF, sizeof(float));
    at->out = take(&c, plan->rows * plan->d_pad, sizeof(float));
    at->total = take(&c, plan->rows * plan->d_pad, sizeof(float));
    at->m = take(&c, plan->rows, sizeof(float));
    at->sum = take(&c, plan->rows, sizeof(float));
    at->alpha = take(&c, fvi_max(plan->rows, plan->batch * plan->sub_rows), sizeof(float));
    at->total_m = take(&c, plan->rows, sizeof(float));
    at->total_sum = take(&c, plan->rows, sizeof(float));
    at->seen = take(&c, plan->batch * plan->rows, sizeof(uint64_t));
    lay_out_places(plan, &c);
    lay_out_index(plan, &c);
    at->thread_bytes = c.at;
    c.at = 0;
    take(&c, plan->partial_rows * (plan->d_pad + 2), sizeof(float));
    at->partial_bytes = c.at;
    c.at = 0;
    take(&c, plan->threads, at->thread_bytes);
    at->partial = take(&c, plan->partials, at->partial_bytes);
    at->items = take(&c, plan->max_items, sizeof(fvi_item));
    at->stats = take(&c, plan->threads, FVI_STATS_BYTES);
    size_t before = c.at;
    at->head = take(&c, p->b * p->h_q, at->head_bytes);
    if (plan->choice.selector->steps) {
        at->state_bytes = c.at - before;
        c.at = before;
    }
    at->dense = take(&c, plan->dense != NULL, plan->dense != NULL ? plan->dense->at.bytes : 0);
    at->dense_row = take(&c, plan->dense_rows, sizeof(int32_t));
    at->dense_out = take(&c, plan->dense_rows * p->h_q * p->d_v, sizeof(float));
    at->bytes = c.at;
    return !c.overflow;
}

/* All that needs no memory of its own. */
static void fill_in(fv_plan *plan, fv_context *ctx, const fv_problem *problem) {
    plan->ctx = ctx;
    plan->problem = *problem;
    if (plan->problem.scale == 0) {
        plan->problem.scale = 1.0f / sqrtf((float)problem->d_k);
    }
    plan->scale = (float)((double)plan->problem.scale * FVI_LOG2E);
    plan->choice = (fvi_choice){.selector = &fvi_select_dense};
    if (problem->recipe != NULL) {
        plan->choice = problem->recipe->choice[problem->phase];
    }
    if (plan->choice.selector->resolve != NULL) {
        const fvi_extent extent = extent_of(problem);
        plan->choice.selector->resolve(plan->choice.value, &extent);
    }
    /* no position is beyond 2^31, and sums with a larger window could overflow */
    plan->rule = (fvi_rule){problem->causal, fvi_min(problem->window, INT64_C(1) << 32), problem->sinks};
    plan->threads = fv_threads(ctx);
    fvi_tile_init(&ctx->cpu, &plan->ops[0]);
    plan->has_half = fvi_tile_init_half(&ctx->cpu, &plan->ops[1]);
    fvi_quant_init(&ctx->cpu, &plan->quant);
    fvi_rowop_init(&ctx->cpu, &plan->rowop);
    fvi_sift_init(&ctx->cpu, &plan->sift);
    fvi_word_init(&ctx->cpu, &plan->words);
    fvi_lowbit_init(&ctx->cpu, &plan->lowbit);
    fvi_decode_init(&ctx->cpu, &plan->decode);
}

static fv_status check_recipe(fv_plan *plan) {
    const fv_problem *p = &plan->problem;
    if (p->recipe != NULL && plan->choice.profile == NULL && p->recipe->profile_path[p->phase][0] != '\0') {
        return fvi_fail(plan->ctx, FV_ERR_STATE, "the recipe's profile %s was not read: fv_recipe_load does, or fv_recipe_attach",
                        p->recipe->profile_path[p->phase]);
    }
    const fvi_extent extent = extent_of(p);
    const fvi_selector *s = plan->choice.selector;
    const char *reason = s->refuse == NULL ? NULL : s->refuse(plan->choice.value, &extent);
    if (reason == NULL && s->places && p->rope.width > 0 && (plan->choice.delta > 0 || p->max_error > 0)) {
        reason =
            "the method gives keys positions of its own: dense rows, which have others, say nothing of its error (delta, max "
            "error)";
    }
    return reason == NULL ? FV_OK : fvi_fail(plan->ctx, FV_ERR_UNSUPPORTED, "%s", reason);
}

static fv_status create(fv_context *ctx, const fv_problem *problem, bool single, fv_plan **out);

/* A plan for the rows that corrections and audits compute densely. */
static fv_status create_dense(fv_plan *plan) {
    const fv_problem *p = &plan->problem;
    int64_t correct = plan->choice.delta > 0 ? fvi_correct_rows(plan->choice.delta, p->n_q) : 0;
    int64_t audit = p->max_error > 0 ? fvi_min(p->n_q, FVI_AUDIT_LAST + FVI_AUDIT_SAMPLED) : 0;
    plan->dense_rows = fvi_max(correct, audit);
    if (correct == 0 && p->max_error == 0) {
        return FV_OK;
    }
    fv_problem dense = *p;
    dense.recipe = NULL;
    dense.max_error = 0;
    return create(plan->ctx, &dense, true, &plan->dense);
}

static fv_status create(fv_context *ctx, const fv_problem *problem, bool single, fv_plan **out) {
    fv_plan *plan = *out = fvi_zalloc(ctx, 1, sizeof *plan);
    if (plan == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a plan (%zu bytes)", sizeof *plan);
    }
    fill_in(plan, ctx, problem);
    plan->single = single;
    choose_sizes(plan);
    fv_status status = check_recipe(plan);
    if (status == FV_OK) {
        status = fvi_turns_create(plan);
    }
    if (status == FV_OK) {
        status = create_dense(plan);
    }
    if (status == FV_OK && !lay_out(plan)) {
        status = fvi_fail(ctx, FV_ERR_MEMORY, "the workspace of this problem would be larger than memory can be");
    }
    if (status != FV_OK) {
        fv_plan_destroy(plan);
        *out = NULL;
    }
    return status;
}

fv_status fv_plan_create(fv_context *ctx, const fv_problem *problem, fv_plan **out) {
    *out = NULL;
    fv_status status = check_problem(ctx, problem);
    return status == FV_OK ? create(ctx, problem, false, out) : status;
}

void fv_plan_destroy(fv_plan *plan) {
    if (plan != NULL) {
        fv_plan_destroy(plan->dense);
        fvi_turns_release(plan);
        fvi_release(plan->ctx, plan, 1, sizeof *plan);
    }
}

size_t fv_plan_workspace(const fv_plan *plan) { return plan->at.bytes; }

size_t fv_plan_state(const fv_plan *plan) { return plan->at.state_bytes; }

/* The choice of fvi_products_pick, by name. */
const char *fv_plan_kernel(const fv_plan *plan, fv_dtype k, fv_dtype v) {
    if (fvi_plan_in_place(plan) && k >= FV_F32 && (int)k < FVI_KV_DTYPES && plan->decode.k[k].name != NULL) {
        return plan->decode.k[k].name;
    }
    return plan->ops[fvi_plan_pairs(plan, k, v)].name;
}

void fv_plan_tile(const fv_plan *plan, fv_tile_facts *out) {
    *out = (fv_tile_facts){
        .rows = plan->rows,
        .keys = FVI_LEAF,
        .score_bytes = (size_t)(plan->batch * plan->sub_rows * FVI_LEAF) * sizeof(float),
        .state_bytes = (size_t)(plan->rows * (plan->d_pad + 2)) * sizeof(float),
    };
}
