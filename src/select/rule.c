/* rule.c - masks as rules: spans of positions, spans of blocks, intersections. */
#include "select/select.h"

#include "kernel/tile.h"

static int64_t clamp(int64_t x, int64_t least, int64_t most) { return x < least ? least : x > most ? most : x; }

int fvi_rule_spans(const fvi_rule *rule, int64_t position, int64_t n_kv, fvi_span out[2]) {
    int64_t end = rule->causal ? clamp(position + 1, 0, n_kv) : n_kv;
    if (rule->window <= 0) {
        out[0] = (fvi_span){0, end};
        return end > 0;
    }
    int64_t from = clamp(position - rule->window + 1, 0, end);
    int64_t to = rule->causal ? end : clamp(position + rule->window, 0, n_kv);
    int64_t sinks = clamp(rule->sinks, 0, end);
    int n = 0;
    if (sinks >= from) {
        from = 0;
        to = fvi_max(to, sinks);
    } else if (sinks > 0) {
        out[n++] = (fvi_span){0, sinks};
    }
    if (to > from) {
        out[n++] = (fvi_span){from, to};
    }
    return n;
}

bool fvi_rule_sees_all(const fvi_rule *rule, int64_t first, int64_t last, int64_t from, int64_t to) {
    if (rule->causal && to - 1 > first) {
        return false;
    }
    if (rule->window <= 0) {
        return true;
    }
    bool near_end = rule->causal || to - 1 - first < rule->window;
    int64_t hidden_from = fvi_max(from, rule->sinks); /* the first key that only the window can show */
    return (hidden_from >= to) || (near_end && last - hidden_from < rule->window);
}

/* The window's spans of first and last row and all between: they slide. */
int fvi_rule_tile_spans(const fvi_rule *rule, const fvi_query_tile *q, fvi_span out[2]) {
    int64_t end = rule->causal ? clamp(q->last + 1, 0, q->n_kv) : q->n_kv;
    int64_t from = 0, sinks = 0;
    int n = 0;
    if (rule->window > 0) {
        from = clamp(q->first - rule->window + 1, 0, end);
        sinks = clamp(rule->sinks, 0, end);
        end = rule->causal ? end : clamp(q->last + rule->window, 0, q->n_kv);
    }
    if (sinks >= from && sinks > 0) {
        from = 0;
        end = fvi_max(end, sinks);
    } else if (sinks > 0) {
        out[n++] = (fvi_span){0, sinks};
    }
    if (end > from) {
        out[n++] = (fvi_span){from, end};
    }
    return n;
}

void fvi_rule_index(const fvi_rule *rule, const fvi_query_tile *q, fvi_index *index) {
    fvi_span span[2];
    int n = fvi_rule_tile_spans(rule, q, span);
    index->rule = *rule;
    index->blocks = 0;
    index->sieve.keep = NULL;
    index->places.query = NULL;
    index->n = 0;
    for (int k = 0; k < n; k++) {
        fvi_span blocks = {span[k].from / FVI_LEAF, fvi_ceil_div(span[k].to, FVI_LEAF)};
        if (index->n > 0 && blocks.from <= index->span[0].to) {
            index->span[0].to = blocks.to;
        } else {
            index->span[index->n++] = blocks;
        }
    }
}

void fvi_index_under_rule(const fvi_index *index, const fvi_rule *rule, const fvi_query_tile *q, fvi_index *out) {
    fvi_index mine;
    fvi_rule_index(rule, q, &mine);
    out->rule = index->rule;
    out->blocks = 0;
    out->sieve.keep = NULL;
    out->places = index->places;
    out->n = 0;
    for (int a = 0, b = 0; a < index->n && b < mine.n;) {
        fvi_span x = index->span[a], y = mine.span[b];
        fvi_span both = {fvi_max(x.from, y.from), fvi_min(x.to, y.to)};
        if (both.from < both.to) {
            if (out->n == FVI_INDEX_SPANS) { /* no room: the whole reach of the rule, under both rules */
                mine.rule = index->rule;
                mine.places = index->places;
                *out = mine;
                return;
            }
            out->span[out->n++] = both;
        }
        if (x.to < y.to) {
            a++;
        } else {
            b++;
        }
    }
}
