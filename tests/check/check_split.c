/* check_split.c - which keys of a tile rows fold by themselves: the rule recounted key by key, its boundary, and that it looks at
 * whole tiles. */
#include "attend/split.h"
#include "base/rng.h"

#include <stdio.h>
#include <string.h>

enum { BLOCKS = 70, MOST_ROWS = 256 };

static int failures;

#define CHECK(condition, ...)                                                                                                    \
    do {                                                                                                                         \
        if (!(condition) && failures++ < 20) {                                                                                   \
            printf("FAIL line %d: ", __LINE__);                                                                                  \
            printf(__VA_ARGS__);                                                                                                 \
            printf("\n");                                                                                                        \
        }                                                                                                                        \
    } while (0)

static uint64_t word[MOST_ROWS][BLOCKS];
static int64_t tile_first;

static uint64_t seen(const void *arg, int64_t position, int64_t block) {
    (void)arg;
    return word[position - tile_first][block];
}
static const uint64_t *row(const void *arg, int64_t position) {
    (void)arg;
    return word[position - tile_first];
}

typedef struct bench {
    fv_plan plan;
    fvi_scratch scratch;
    uint64_t key[BLOCKS], apart[2], listed[BLOCKS], alike[2];
} bench;

static void open_bench(bench *x, int64_t tile) {
    *x = (bench){.plan = {.tile = tile, .indexed = true, .share = 1}};
    fvi_cpu cpu = fvi_cpu_detect();
    fvi_word_init(&cpu, &x->plan.words);
    x->scratch.listed = x->listed;
    x->scratch.alike = x->alike;
}

/* The index of all rows, the tile being that of positions tile_first ..; the run brings `rows` from `from` on. */
static bool split(bench *x, bool rows_too, int64_t from, int64_t rows, int64_t apart_blocks) {
    fvi_index index = {.blocks = BLOCKS, .key = x->key, .apart = x->apart, .seen = seen, .row = rows_too ? row : NULL};
    memset(x->apart, 0, sizeof x->apart);
    for (int64_t b = 0; b < BLOCKS; b++) {
        x->key[b] = 0;
        for (int64_t r = 0; r < x->plan.tile; r++) {
            x->key[b] |= word[r][b];
        }
        x->apart[b / 64] |= (uint64_t)(b < apart_blocks) << b % 64;
    }
    int64_t first = tile_first + from;
    fvi_item item = {.n_rows = rows, .first = first, .last = first + rows - 1, .n_kv = BLOCKS * 64, .offset = first};
    return fvi_split(&x->plan, &item, &x->scratch, &index);
}

static int64_t shared_cost(int64_t keys, int64_t rows) {
    return keys > FVI_BLOCK_KEYS ? 64 * rows : keys * 64 * rows / FVI_BLOCK_KEYS;
}

/* The rule as split.c's head states it. */
static void expect_split(const bench *x, int64_t apart_blocks, bool got) {
    const int64_t rows = x->plan.tile;
    int64_t saved = 0;
    uint64_t want[BLOCKS] = {0}, whole[BLOCKS] = {0};
    bool alike[BLOCKS];
    for (int64_t b = 0; b < BLOCKS; b++) {
        int64_t keys = 0, few = 0, visits = 0;
        alike[b] = true;
        for (int j = 0; j < 64; j++) {
            int64_t count = 0;
            for (int64_t r = 0; r < rows; r++) {
                count += (int64_t)(word[r][b] >> j & 1);
            }
            keys += count > 0;
            whole[b] |= (uint64_t)(count > 0) << j;
            if (count > 0 && b < apart_blocks && count * FVI_LIST_KEY * FVI_BLOCK_KEYS <= rows * 64) {
                few++;
                visits += count;
                want[b] |= UINT64_C(1) << j;
            }
        }
        int64_t before = shared_cost(keys, rows), after = shared_cost(keys - few, rows) + FVI_LIST_KEY * visits;
        if (few == 0 || after >= before) {
            want[b] = 0;
        } else {
            saved += before - after;
        }
        for (int64_t r = 0; r < rows; r++) {
            alike[b] = alike[b] && (word[r][b] & whole[b] & ~want[b]) == (whole[b] & ~want[b]);
        }
    }
    CHECK(got == (saved > rows * FVI_LIST_ROW), "%lld rows: saves %lld", (long long)rows, (long long)saved);
    for (int64_t b = 0; got && b < BLOCKS; b++) {
        CHECK(x->listed[b] == want[b] && x->key[b] == (whole[b] & ~want[b]), "block %lld of %lld rows", (long long)b,
              (long long)rows);
        bool apart = x->apart[b / 64] >> b % 64 & 1;
        CHECK(!(apart && alike[b]) || rows == MOST_ROWS, "block %lld is apart, and rows are alike", (long long)b);
        CHECK(apart || alike[b] || b >= apart_blocks, "block %lld is not apart, and rows differ", (long long)b);
    }
}

static void fill(fvi_rng *r, int64_t rows, int few, int shared) {
    uint64_t column[BLOCKS];
    for (int64_t b = 0; b < BLOCKS; b++) {
        column[b] = 0;
        for (int j = 0; j < 64; j++) {
            column[b] |= (uint64_t)(fvi_rng_below(r, 100) < shared) << j;
        }
        for (int64_t i = 0; i < rows; i++) {
            word[i][b] = column[b];
            for (int j = 0; j < 64; j++) {
                word[i][b] |= (uint64_t)(fvi_rng_below(r, 1000) < few * (1 + b % 3)) << j;
            }
        }
    }
}

static void random_tiles(fvi_rng *r) {
    static const int64_t tiles[] = {64, 128, 256};
    static const int few[] = {0, 1, 5, 20, 60, 150, 400}, shared[] = {0, 5, 70};
    bench x;
    int yes = 0, no = 0;
    for (int i = 0; i < 3 * 7 * 3; i++) {
        open_bench(&x, tiles[i % 3]);
        tile_first = tiles[i % 3] * (int64_t)fvi_rng_below(r, 5);
        fill(r, tiles[i % 3], few[i / 3 % 7], shared[i / 21]);
        int64_t apart = i % 2 ? BLOCKS : BLOCKS - 11;
        bool got = split(&x, i % 4 < 2, 0, tiles[i % 3], apart);
        expect_split(&x, apart, got);
        yes += got;
        no += !got;
        uint64_t listed[BLOCKS];
        memcpy(listed, x.listed, sizeof listed);
        CHECK(split(&x, i % 4 >= 2, 17, 5, apart) == got, "a part of the rows is split otherwise");
        CHECK(!got || memcmp(listed, x.listed, sizeof listed) == 0, "a part of the rows has other lists");
    }
    CHECK(yes > 10 && no > 10, "%d tiles have lists, %d none", yes, no);
}

/* One key more or less of a row decides. */
static void boundaries(void) {
    const int64_t most = 64 * 64 / (FVI_BLOCK_KEYS * FVI_LIST_KEY);
    bench x;
    open_bench(&x, 64);
    tile_first = 64;
    for (int64_t count = most; count <= most + 1; count++) {
        memset(word, 0, sizeof word);
        for (int64_t b = 0; b < BLOCKS; b++) {
            word[b % 64][b] = 0xff00; /* one row's */
            for (int64_t r = 0; r < count; r++) {
                word[r][b] |= 1;
            }
        }
        bool got = split(&x, false, 0, 64, BLOCKS);
        expect_split(&x, BLOCKS, got);
        CHECK(got && (x.listed[3] & 1) == (count == most), "a key of %lld rows", (long long)count);
    }
    const int64_t least = 64 * FVI_LIST_ROW, each = 64 * 64 / FVI_BLOCK_KEYS - FVI_LIST_KEY; /* what one key of one row saves */
    int64_t blocks = 0, saved = 0;
    memset(word, 0, sizeof word);
    for (; saved <= least && blocks < BLOCKS; blocks++) {
        for (int j = 0; j < 5 && saved <= least; j++) { /* 5 keys are a whole number of costs */
            word[blocks % 64][blocks] |= UINT64_C(1) << j;
        }
        saved += shared_cost(5, 64) - 5 * FVI_LIST_KEY;
    }
    CHECK(saved > least && split(&x, true, 0, 64, BLOCKS), "saves %lld of %lld (%lld a key)", (long long)saved, (long long)least,
          (long long)each);
    memset(word[(blocks - 1) % 64], 0, sizeof word[0]);
    bool got = split(&x, true, 0, 64, BLOCKS);
    CHECK(!got, "lists where they save too little");
    expect_split(&x, BLOCKS, got);
}

int main(void) {
    fvi_rng r = {11};
    random_tiles(&r);
    boundaries();
    printf("split: %d failed\n", failures);
    return failures != 0;
}
