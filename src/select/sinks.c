/* sinks.c - attention sinks and a sliding window: the first keys stay visible to all.
 *
 * Xiao et al.: Efficient Streaming Language Models with Attention Sinks, ICLR 2024. Deviation: keys keep the positions they
 * have in the text (the paper renumbers them inside the cache). */
#include "select/select.h"

static void rule(const double *value, const fvi_query_tile *q, fvi_index *index) {
    fvi_rule_index(&(fvi_rule){.sinks = (int64_t)value[0], .window = (int64_t)value[1]}, q, index);
}

const fvi_selector fvi_select_sinks = {.rule = rule};
