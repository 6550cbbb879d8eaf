/* dense.c - the full index: every key that the problem's own masks leave visible. */
#include "select/select.h"

static void rule(const double *value, const fvi_query_tile *q, fvi_index *index) {
    (void)value;
    fvi_rule_index(&(fvi_rule){0}, q, index);
}

const fvi_selector fvi_select_dense = {.rule = rule};
