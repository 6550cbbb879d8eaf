/* window.c - a sliding window: a query sees its own position and the size - 1 before it.
 *
 * Beltagy, Peters, Cohan: Longformer: The Long-Document Transformer, 2020 (its local part, causal). */
#include "select/select.h"

static void rule(const double *value, const fvi_query_tile *q, fvi_index *index) {
    fvi_rule_index(&(fvi_rule){.window = (int64_t)value[0]}, q, index);
}

const fvi_selector fvi_select_window = {.rule = rule};
