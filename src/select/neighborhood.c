/* neighborhood.c - see neighborhood.h.
 *
 * A tile of consecutive tokens is a strip of a plane, whose windows together cover far more than those of a square. So queries
 * are visited by boxes: class by class of the dilations, and within a class by boxes of 64 tokens whose sides fit window and
 * stride. Keys stay where they are: a box's windows are a few runs in each row of the plane, which the executor puts side by side
 * where they are short. */
#include "select/neighborhood.h"

#include <string.h>

typedef struct na_state {
    fvi_na na;
    int64_t base;  /* what is added to a position to have the query's number among all of the shape */
    uint64_t comb; /* bits 0, dilation, 2 dilation ... of the last axis */
    fvi_na_reach *reach[FVI_NA_AXES];
    int32_t *order;
} na_state;

static int64_t queries_of(const fvi_na_axis *a) { return a->size / a->step; }

static int64_t class_size(const fvi_na_axis *a, int64_t x) { return fvi_ceil_div(queries_of(a) - x % a->dilation, a->dilation); }

static fvi_na_reach halo_of(const fvi_na_axis *a, int64_t token) {
    int64_t first = token / a->block * a->block;
    return (fvi_na_reach){(int32_t)fvi_max(first - a->halo, 0), (int32_t)fvi_min(first + a->block + a->halo, a->size) - 1};
}

fvi_na_reach fvi_na_sees(const fvi_na_axis *a, int64_t x) {
    if (a->block > 0) {
        return halo_of(a, x * a->step);
    }
    int64_t rest = x % a->dilation, i = x / a->dilation, n = class_size(a, x), window = fvi_min(a->window, n);
    int64_t group = i / a->stride * a->stride, first, last;
    if (a->causal) {
        first = fvi_max(fvi_min(group + a->stride, n) - window, 0);
        last = i;
    } else {
        int64_t leader = fvi_min(group + a->stride / 2, n - 1);
        first = fvi_min(fvi_max(leader - window / 2, 0), n - window);
        last = first + window - 1;
    }
    return (fvi_na_reach){(int32_t)(rest + first * a->dilation), (int32_t)(rest + last * a->dilation)};
}

/* ---- parameters ------------------------------------------------------------------------------------------------------- */

static int64_t along(const double *value, int k, int64_t otherwise) {
    return value == NULL ? otherwise : (int64_t)(value[k] > 0 ? value[k] : value[0]);
}

fvi_na fvi_na_of(const fvi_na_values *v, int64_t n_kv) {
    fvi_na na;
    for (int k = 0; k < FVI_NA_AXES; k++) { /* k-th from the last */
        fvi_na_axis *a = &na.axis[FVI_NA_AXES - 1 - k];
        *a = (fvi_na_axis){.size = 1, .window = 1, .stride = 1, .dilation = 1, .step = 1};
        if (k == 0 || v->shape[k] > 0) {
            a->size = v->shape[k] > 0 ? (int64_t)v->shape[k] : fvi_max(n_kv, 1);
            a->window = along(v->window, k, a->size);
            a->stride = along(v->stride, k, 1);
            a->dilation = along(v->dilation, k, 1);
            a->causal = v->causal != NULL && (v->causal[k] >= 0 ? v->causal[k] : v->causal[0]) > 0;
        }
    }
    return na;
}

const char *fvi_na_refuse_values(const fvi_na_values *v, int64_t n_kv) {
    if ((v->shape[1] > 0 && v->shape[0] == 0) || (v->shape[2] > 0 && v->shape[1] == 0)) {
        return "a shape with a height needs a width, one with a depth both";
    }
    fvi_na na = fvi_na_of(v, n_kv);
    if (v->shape[0] == 0) { /* the sequence, which may turn out shorter than a window */
        na.axis[2].size = n_kv = fvi_max(na.axis[2].size, na.axis[2].window * na.axis[2].dilation);
    }
    return fvi_na_refuse(&na, n_kv);
}

const char *fvi_na_refuse(const fvi_na *na, int64_t n_kv) {
    int64_t tokens = 1;
    for (int k = 0; k < FVI_NA_AXES; k++) {
        const fvi_na_axis *a = &na->axis[k];
        if (a->window * a->dilation > a->size) {
            return "a window times its dilation is longer than the shape along that axis";
        }
        if (a->stride > a->window) {
            return "a stride is longer than its window: some keys would be seen by no query";
        }
        tokens = a->size > n_kv ? n_kv + 1 : fvi_min(tokens * a->size, n_kv + 1);
    }
    return tokens == n_kv ? NULL : "depth x height x width (those that are not 0) must be the number of keys";
}

/* ---- the order of queries --------------------------------------------------------------------------------------------- */

/* Keys along the axis that a box of `side` queries sees, and what a side that does not divide the axis wastes. */
static double side_cost(const fvi_na_axis *a, int64_t side) {
    int64_t stride = a->block > 0 ? fvi_max(a->block / a->step, 1) : a->stride,
            window = a->block > 0 ? a->block + 2 * a->halo : a->window;
    int64_t n = class_size(a, 0), windows = 1 + (side + stride - 2) / stride;
    if (stride % side == 0 || side % stride == 0) {
        windows = fvi_max(side / stride, 1);
    }
    double keys = (double)fvi_min(a->size, window + (windows - 1) * stride * a->step);
    return keys * (double)(fvi_ceil_div(n, side) * side) / (double)n;
}

/* Sides whose product is the tile: those whose boxes see the fewest keys. */
static void choose_box(const fvi_na *na, int64_t box[FVI_NA_AXES]) {
    double best = 0;
    for (int64_t d = 1; d <= FVI_NA_TILE; d *= 2) {
        for (int64_t h = 1; d * h <= FVI_NA_TILE; h *= 2) {
            int64_t w = FVI_NA_TILE / d / h;
            double cost = side_cost(&na->axis[0], d) * side_cost(&na->axis[1], h) * side_cost(&na->axis[2], w);
            if (best == 0 || cost < best) {
                best = cost;
                box[0] = d;
                box[1] = h;
                box[2] = w;
            }
        }
    }
}

/* A walk over one axis: class, box within the class, place within the box. */
typedef struct axis_walk {
    int64_t rest, box, in;
} axis_walk;

typedef struct order_walk {
    const fvi_na *na;
    int64_t box[FVI_NA_AXES], n_q, offset, n;
    axis_walk at[FVI_NA_AXES];
    int32_t *order;
} order_walk;

static void visit_token(order_walk *w) {
    int64_t token = 0;
    for (int k = 0; k < FVI_NA_AXES; k++) {
        const fvi_na_axis *a = &w->na->axis[k];
        token = token * queries_of(a) + w->at[k].rest + (w->at[k].box * w->box[k] + w->at[k].in) * a->dilation;
    }
    if (token >= w->offset && token < w->offset + w->n_q) {
        w->order[w->n++] = (int32_t)(token - w->offset);
    }
}

/* level 0 to 2: places within the box, the last axis fastest; each of the three stages walks all axes before the next begins. */
static void walk_places(order_walk *w, int k) {
    const fvi_na_axis *a = &w->na->axis[k];
    int64_t left = class_size(a, w->at[k].rest) - w->at[k].box * w->box[k];
    for (w->at[k].in = 0; w->at[k].in < fvi_min(w->box[k], left); w->at[k].in++) {
        if (k + 1 < FVI_NA_AXES) {
            walk_places(w, k + 1);
        } else {
            visit_token(w);
        }
    }
}

static void walk_boxes(order_walk *w, int k) {
    int64_t boxes = fvi_ceil_div(class_size(&w->na->axis[k], w->at[k].rest), w->box[k]);
    for (w->at[k].box = 0; w->at[k].box < boxes; w->at[k].box++) {
        if (k + 1 < FVI_NA_AXES) {
            walk_boxes(w, k + 1);
        } else {
            walk_places(w, 0);
        }
    }
}

static void walk_classes(order_walk *w, int k) {
    int64_t classes = fvi_min(w->na->axis[k].dilation, queries_of(&w->na->axis[k]));
    for (w->at[k].rest = 0; w->at[k].rest < classes; w->at[k].rest++) {
        if (k + 1 < FVI_NA_AXES) {
            walk_classes(w, k + 1);
        } else {
            walk_boxes(w, 0);
        }
    }
}

static int64_t tokens_of(const fvi_na *na) { return na->axis[0].size * na->axis[1].size * na->axis[2].size; }

static int64_t all_queries(const fvi_na *na) {
    return queries_of(&na->axis[0]) * queries_of(&na->axis[1]) * queries_of(&na->axis[2]);
}

static void put_in_order(const fvi_na *na, int64_t n_q, int64_t offset, int32_t *order) {
    order_walk w = {.na = na, .n_q = n_q, .offset = offset, .order = order};
    choose_box(na, w.box);
    walk_classes(&w, 0);
    for (int64_t i = 0; i < n_q; i++) { /* queries that stand outside the shape */
        if (offset + i < 0 || offset + i >= all_queries(na)) {
            order[w.n++] = (int32_t)i;
        }
    }
}

/* ---- state ------------------------------------------------------------------------------------------------------------- */

size_t fvi_na_head_bytes(const double *value, const fvi_extent *extent) {
    (void)value;
    size_t reach = (size_t)(extent->n_kv + FVI_NA_AXES) * sizeof(fvi_na_reach); /* sizes' sum is below their product plus 3 */
    return sizeof(na_state) + reach + (size_t)extent->n_q * sizeof(int32_t);
}

void fvi_na_prepare(const fvi_na *na, const fvi_select *select) {
    na_state *s = select->head_state;
    const fvi_sight *sight = select->sight;
    bool all = tokens_of(na) == all_queries(na);
    s->na = *na;
    s->base = all ? 0 : all_queries(na) - sight->n_q - sight->offset; /* the last query is the shape's last */
    s->comb = 0;
    for (int64_t bit = 0; bit < 64; bit += na->axis[2].dilation) {
        s->comb |= UINT64_C(1) << bit;
    }
    fvi_na_reach *reach = (fvi_na_reach *)(s + 1);
    for (int k = 0; k < FVI_NA_AXES; k++) {
        s->reach[k] = reach;
        for (int64_t x = 0; x < queries_of(&na->axis[k]); x++) {
            *reach++ = fvi_na_sees(&na->axis[k], x);
        }
    }
    s->order = (int32_t *)reach;
    put_in_order(na, sight->n_q, sight->offset + s->base, s->order);
}

const int32_t *fvi_na_order(const void *state) { return ((const na_state *)state)->order; }

/* ---- what a query sees -------------------------------------------------------------------------------------------------- */

typedef struct na_window {
    fvi_na_reach at[FVI_NA_AXES];
} na_window;

static bool window_of(const na_state *s, int64_t position, na_window *out) {
    position += s->base;
    if (position < 0 || position >= all_queries(&s->na)) {
        return false;
    }
    uint32_t p = (uint32_t)position, width = (uint32_t)queries_of(&s->na.axis[2]), height = (uint32_t)queries_of(&s->na.axis[1]);
    out->at[2] = s->reach[2][p % width];
    out->at[1] = s->reach[1][p / width % height];
    out->at[0] = s->reach[0][p / width / height];
    return true;
}

static bool within(fvi_na_reach reach, int64_t dilation, int64_t x) {
    return x >= reach.first && x <= reach.last && (dilation == 1 || (x - reach.first) % dilation == 0);
}

/* Bits of the keys of a line of the last axis, which begins at key `start`, in the block that begins at key `block`. */
static uint64_t line_bits(const na_state *s, fvi_na_reach reach, int64_t start, int64_t block) {
    int64_t step = s->na.axis[2].dilation, first = start + reach.first - block, last = fvi_min(start + reach.last - block, 63);
    if (first < 0) {
        first += fvi_ceil_div(-first, step) * step;
    }
    return first > last ? 0 : s->comb << first & UINT64_MAX >> (63 - last);
}

static uint64_t seen(const void *arg, int64_t position, int64_t block) {
    const na_state *s = arg;
    const fvi_na *na = &s->na;
    na_window w;
    if (!window_of(s, position, &w)) {
        return 0;
    }
    int64_t from = block * FVI_BLOCK, to = fvi_min(from + FVI_BLOCK, tokens_of(na)), width = na->axis[2].size;
    uint64_t bits = 0;
    for (uint32_t line = (uint32_t)from / (uint32_t)width; (int64_t)line * width < to; line++) {
        uint32_t height = (uint32_t)na->axis[1].size;
        if (within(w.at[1], na->axis[1].dilation, line % height) && within(w.at[0], na->axis[0].dilation, line / height)) {
            bits |= line_bits(s, w.at[2], line * width, from);
        }
    }
    return bits;
}

/* ---- a tile ------------------------------------------------------------------------------------------------------------- */

/* What the windows of a tile have in common, block by block. */
typedef struct common {
    uint64_t *all;   /* (blocks) keys of all windows that reach the block */
    uint32_t *reach; /* (blocks) how many do */
} common;

size_t fvi_na_scratch_bytes(const double *value, const fvi_extent *extent) {
    (void)value;
    return (size_t)fvi_ceil_div(extent->n_kv, FVI_BLOCK) * (sizeof(uint64_t) + sizeof(uint32_t));
}

static void take_word(const common *c, fvi_index *index, int64_t block, uint64_t word) {
    if (word != 0 && block < index->blocks) {
        c->all[block] = c->reach[block] == 0 ? word : c->all[block] & word;
        c->reach[block]++;
        index->key[block] |= word;
    }
}

/* A line may end in the block where the next begins: a block's word is whole when a later block comes. */
static void take_window(const na_state *s, const na_window *w, const common *c, fvi_index *index) {
    const fvi_na *na = &s->na;
    int64_t open = 0, width = na->axis[2].size;
    uint64_t word = 0;
    for (int64_t z = w->at[0].first; z <= w->at[0].last; z += na->axis[0].dilation) {
        for (int64_t y = w->at[1].first; y <= w->at[1].last; y += na->axis[1].dilation) {
            int64_t start = (z * na->axis[1].size + y) * width;
            for (int64_t b = (start + w->at[2].first) / FVI_BLOCK; b <= (start + w->at[2].last) / FVI_BLOCK; b++) {
                if (b != open) {
                    take_word(c, index, open, word);
                    open = b;
                    word = 0;
                }
                word |= line_bits(s, w->at[2], start, b * FVI_BLOCK);
            }
        }
    }
    take_word(c, index, open, word);
}

/* A last block that is visited whole is whole, though it has less than 64 keys: how it is folded is dense attention's way. */
static void fill_last(const na_state *s, const common *c, fvi_index *index) {
    int64_t keys = tokens_of(&s->na) % FVI_BLOCK, b = tokens_of(&s->na) / FVI_BLOCK;
    if (keys > 0 && b < index->blocks && index->key[b] == (UINT64_C(1) << keys) - 1) {
        c->all[b] |= UINT64_MAX << keys;
        index->key[b] = UINT64_MAX;
    }
}

void fvi_na_tile(const fvi_select *select, const fvi_query_tile *q, fvi_index *index) {
    const na_state *s = select->head_state;
    common c = {select->scratch, (uint32_t *)((uint64_t *)select->scratch + index->blocks)};
    memset(c.reach, 0, (size_t)index->blocks * sizeof *c.reach);
    na_window last = {{{-1, -1}}};
    uint32_t windows = 0;
    bool outside = false;
    for (int64_t r = 0; r < q->rows; r++) {
        na_window w;
        if (!window_of(s, select->sight->offset + q->row[r], &w)) {
            outside = true;
        } else if (memcmp(&w, &last, sizeof w) != 0) {
            last = w;
            windows++;
            take_window(s, &w, &c, index);
        }
    }
    index->seen = seen;
    index->together = true;
    index->seen_arg = s;
    fill_last(s, &c, index);
    for (int64_t b = 0; b < index->blocks; b++) {
        if (index->key[b] != 0 && (outside || c.reach[b] < windows || c.all[b] != index->key[b])) {
            fvi_index_add_apart(index, b, index->key[b]);
        }
    }
}
