/* select.h - which keys a query visits: rules, and selectors that produce an index.
 *
 * A selector is pulled: the executor asks for one query tile at a time and gets spans of 64-key blocks, ascending and disjoint,
 * in bounded scratch, and a rule for what is hidden inside them. If the spans do not fit, the tile runs dense under the rule.
 *
 * To add a selector: one file here that defines an fvi_selector, and one row in src/method.
 */
#ifndef FVI_SELECT_H
#define FVI_SELECT_H

#include "base/base.h"

enum { FVI_INDEX_SPANS = 64, FVI_PARAMETERS = 8 };

/* Half-open. */
typedef struct fvi_span {
    int64_t from, to;
} fvi_span;

/* Which positions a query sees. All zero: every key. */
typedef struct fvi_rule {
    bool causal;    /* keys up to the query's own position */
    int64_t window; /* 0: off; else keys less than `window` away */
    int64_t sinks;  /* positions 0 .. sinks-1 are never hidden by the window */
} fvi_rule;

typedef struct fvi_index {
    fvi_span span[FVI_INDEX_SPANS]; /* of blocks */
    int n;
    fvi_rule rule;
} fvi_index;

/* A query tile: positions of its first and last row, and the keys there are. */
typedef struct fvi_query_tile {
    int64_t first, last, n_kv;
    int64_t kv_head;
} fvi_query_tile;

typedef struct fvi_selector {
    /* `value` are the method's parameters in the order of its registry row. */
    void (*tile)(const double *value, const fvi_query_tile *q, fvi_index *index);
} fvi_selector;

extern const fvi_selector fvi_select_dense;
extern const fvi_selector fvi_select_window; /* size */
extern const fvi_selector fvi_select_sinks;  /* sinks, size */

/* The positions below n_kv that a query at `position` sees: at most two spans; returns their number. */
int fvi_rule_spans(const fvi_rule *rule, int64_t position, int64_t n_kv, fvi_span out[2]);
/* True if each of the queries first..last sees each of the positions from..to-1. */
bool fvi_rule_sees_all(const fvi_rule *rule, int64_t first, int64_t last, int64_t from, int64_t to);
/* The blocks that queries at first..last see under the rule, as an index with that rule. */
void fvi_rule_index(const fvi_rule *rule, const fvi_query_tile *q, fvi_index *index);
/* out = the blocks of `index` that `rule` leaves visible too. out may not be index. */
void fvi_index_under_rule(const fvi_index *index, const fvi_rule *rule, const fvi_query_tile *q, fvi_index *out);

#endif
