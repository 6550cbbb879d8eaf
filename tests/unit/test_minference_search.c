/* test_minference_search.c - the search for a head's pattern: heads that are made for one win by it, and what it says of an
 * A-shape is what whole rows in double say. */
#include "select/minference_search.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 1100, D = 32 };

typedef struct head {
    float q[N * D], k[N * D];
    fvi_tile_ops ops;
    fvi_sight sight;
} head;

static float noise(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(*seed >> 40) / (float)(1 << 23) - 1.0f;
}

static void read_rows(const fvi_sight *sight, fvi_side side, int64_t from, int64_t n, float *out) {
    const head *h = sight->source;
    memcpy(out, (side == FVI_SIDE_Q ? h->q : h->k) + from * D, (size_t)(n * D) * sizeof(float));
}

static int pack_leaf(const fvi_sight *sight, int64_t leaf, void *room, void *kt) {
    const head *h = sight->source;
    (void)room;
    int n = (int)fvi_min(64, sight->n_kv - leaf * 64);
    h->ops.pack_k[FV_F32](h->k + leaf * 64 * D, D * sizeof(float), n, D, kt);
    return n;
}

static head *head_make(void) {
    head *h = aligned_alloc(64, (sizeof *h + 63) / 64 * 64);
    uint64_t seed = 5;
    fvi_tile_c(&h->ops);
    for (int i = 0; i < N * D; i++) {
        h->q[i] = noise(&seed);
        h->k[i] = noise(&seed);
    }
    h->sight = (fvi_sight){.n_q = N,
                           .n_kv = N,
                           .h_q = 1,
                           .h_kv = 1,
                           .d_k = D,
                           .d_v = D,
                           .scale = 1 / sqrtf(D),
                           .causal = true,
                           .ops = &h->ops,
                           .plain = &h->ops,
                           .source = h,
                           .rows = read_rows,
                           .pack = pack_leaf};
    return h;
}

static void search(const head *h, double budget, fvi_minference_found out[FVI_MINFERENCE_CANDIDATES]) {
    fvi_extent e = {N, N, 1, 1, D, D, true, false, 0};
    size_t bytes = fvi_minference_search_bytes(&e);
    void *memory = aligned_alloc(64, bytes);
    memset(memory, 0xff, bytes);
    fvi_minference_search(&h->sight, budget, 1, memory, out);
    free(memory);
    for (int c = 0; c < FVI_MINFERENCE_CANDIDATES; c++) {
        assert_true(out[c].recall < 0 || (out[c].density <= budget && out[c].recall <= 1 + 1e-5));
        assert_true(c == 0 || out[c].recall <= out[c - 1].recall);
    }
}

/* All queries look at scattered keys. */
static void columns_win(void **state) {
    (void)state;
    head *h = head_make();
    fvi_minference_found out[FVI_MINFERENCE_CANDIDATES];
    for (int i = 0; i < N; i++) {
        h->q[i * D] = 6;
        h->k[i * D] = i % 37 == 5 ? 8 : 0;
    }
    search(h, 0.4, out);
    assert_int_equal((int)out[0].number[0], 0);
    assert_true(out[0].recall > 0.95);
    free(h);
}

/* Blocks of queries look at blocks of keys of their own kind. */
static void blocks_win(void **state) {
    (void)state;
    head *h = head_make();
    fvi_minference_found out[FVI_MINFERENCE_CANDIDATES];
    for (int i = 0; i < N; i++) {
        h->q[i * D + i / 64 * 7 % 5] = 8;
        h->k[i * D + i / 64 * 3 % 5] = 8;
    }
    search(h, 0.4, out);
    assert_int_equal((int)out[0].number[0], 1);
    free(h);
}

/* Queries look at the first 100 keys and at near ones of their own sign, so that means of blocks say nothing; all but the last
 * 64, which mislead the search for columns and diagonals. */
static void a_shape_wins(void **state) {
    (void)state;
    head *h = head_make();
    fvi_minference_found out[FVI_MINFERENCE_CANDIDATES];
    for (int i = 0; i < N; i++) {
        h->k[i * D + 30] = i < 100 ? 12 : 0;
        h->q[i * D + 30] = i < N - 64 ? 11 : 0;
        float sign = i * 40503u >> 4 & 1 ? 6 : -6;
        for (int c = 0; c < 4; c++) {
            double turn = (double)i / (50 + 20 * c);
            h->k[i * D + 2 * c] = sign * (float)cos(turn);
            h->k[i * D + 2 * c + 1] = sign * (float)sin(turn);
            h->q[i * D + 2 * c] = i < N - 64 ? sign * (float)cos(turn) : 0;
            h->q[i * D + 2 * c + 1] = i < N - 64 ? sign * (float)sin(turn) : 0;
        }
    }
    search(h, 0.5, out);
    assert_int_equal((int)out[0].number[0], 2);
    free(h);
}

/* Share of row i's attention in the first keys and the window, in double. */
static double a_shape_keeps(const head *h, int i, double init, double local) {
    double sum = 0, in = 0;
    for (int j = 0; j <= i; j++) {
        double s = 0;
        for (int c = 0; c < D; c++) {
            s += (double)h->q[i * D + c] * (double)h->k[j * D + c];
        }
        double w = exp(s / sqrt(D));
        sum += w;
        in += j < init || i - j < local ? w : 0;
    }
    return in / sum;
}

static double a_shape_costs(double init, double local) {
    double visited = 0, all = 0;
    for (int first = 0; first < N; first += 64) {
        for (int b = 0; b <= first / 64; b++) {
            int keys = 0;
            for (int j = b * 64; j < b * 64 + 64; j++) {
                keys += j < init || j > first - local;
            }
            visited += keys > 40 ? 64 : keys;
            all += 64;
        }
    }
    return visited / all;
}

static void figures_are_true(void **state) {
    (void)state;
    head *h = head_make();
    fvi_minference_found out[FVI_MINFERENCE_CANDIDATES], *a = NULL;
    search(h, 0.4, out);
    for (int c = 0; c < FVI_MINFERENCE_CANDIDATES; c++) {
        a = out[c].number[0] == 2 ? &out[c] : a;
    }
    assert_non_null(a);
    double keeps = 0;
    for (int i = 0; i < N; i++) {
        keeps += a_shape_keeps(h, i, a->number[1], a->number[2]) / N;
    }
    assert_true(fabs(keeps - a->recall) < 1e-5);
    assert_true(fabs(a_shape_costs(a->number[1], a->number[2]) - a->density) < 1e-9);
    assert_true(a_shape_costs(a->number[1], a->number[2] + 1) > 0.4);
    search(h, 0.05, out); /* the widest do not fit */
    assert_true(out[FVI_MINFERENCE_CANDIDATES - 1].recall < 0);
    free(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(columns_win), cmocka_unit_test(blocks_win),
                                       cmocka_unit_test(a_shape_wins), cmocka_unit_test(figures_are_true)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
