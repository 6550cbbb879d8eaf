/* index.c - bitmaps over the keys of a tile. */
#include "select/select.h"

#include <string.h>

void fvi_index_clear(fvi_index *index) {
    memset(index->key, 0, (size_t)index->blocks * sizeof(uint64_t));
    memset(index->apart, 0, (size_t)fvi_ceil_div(index->blocks, 64) * sizeof(uint64_t));
    index->n = 0;
    index->rule = (fvi_rule){0};
    index->seen = NULL;
    index->row = NULL;
    index->seen_arg = NULL;
    index->weigh = NULL;
    index->entries = NULL;
    index->sieve = (fvi_sieve){0};
    index->places = (fvi_places){0};
    index->together = false;
    index->fell_back = false;
}

/* Bits from..to-1 of a word, 0 <= from < to <= 64. */
static uint64_t bits(int64_t from, int64_t to) { return UINT64_MAX >> (64 - (to - from)) << from; }

void fvi_index_add(fvi_index *index, int64_t from, int64_t to) {
    from = fvi_max(from, 0);
    to = fvi_min(to, index->blocks * FVI_BLOCK);
    while (from < to) {
        int64_t b = from / FVI_BLOCK, end = fvi_min(to, (b + 1) * FVI_BLOCK);
        index->key[b] |= bits(from - b * FVI_BLOCK, end - b * FVI_BLOCK);
        from = end;
    }
}

void fvi_index_add_all(fvi_index *index) {
    memset(index->key, 0xff, (size_t)index->blocks * sizeof(uint64_t));
    memset(index->apart, 0, (size_t)fvi_ceil_div(index->blocks, 64) * sizeof(uint64_t));
}

void fvi_index_trim(fvi_index *index, const fvi_rule *rule, const fvi_query_tile *q) {
    fvi_index reach;
    fvi_query_tile whole = *q;
    whole.n_kv = index->blocks * FVI_BLOCK;
    fvi_rule_index(rule, &whole, &reach);
    int64_t b = 0;
    for (int k = 0; k < reach.n; k++) {
        for (; b < reach.span[k].from; b++) {
            index->key[b] = 0;
        }
        b = reach.span[k].to;
    }
    for (; b < index->blocks; b++) {
        index->key[b] = 0;
    }
}
