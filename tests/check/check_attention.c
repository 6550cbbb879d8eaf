/* check_attention.c - random problems through the public API against the oracle, on every level of the CPU.
 *
 *   check_attention [--seed N] [--first N] [--count N] [--threads N] [--verbose]
 *
 * The bar, for the largest error over the rows of a problem: twice the naive computation's plus one output ulp of max |v|. */
#include "attention_case.h"
#include "oracle.h"

#include <math.h>

typedef struct row_ref {
    int64_t sequence, head, i;
} row_ref;

typedef struct tally {
    int mask_width[MASK_KINDS][WIDTH_KINDS], mask_dtype[MASK_KINDS][DTYPE_KINDS], width_dtype[WIDTH_KINDS][DTYPE_KINDS];
    int level[FV_LEVEL_AVX512 + 1], problems, failures;
    int64_t rows, longest;
    double worst; /* error over its bar */
} tally;

enum { SAMPLE = 64, MOST_ROWS = 1 << 16 };

static int64_t rows_of(const attention_case *c, int64_t sequence) {
    return c->p.packed ? c->q_start[sequence + 1] - c->q_start[sequence] : c->p.n_q;
}

static int by_place(const void *a, const void *b) {
    const row_ref *x = a, *y = b;
    int64_t d = x->sequence != y->sequence ? x->sequence - y->sequence : x->head != y->head ? x->head - y->head : x->i - y->i;
    return (d > 0) - (d < 0);
}

static int64_t all_rows(const attention_case *c, row_ref *rows) {
    int64_t n = 0;
    for (int64_t s = 0; s < c->p.b; s++) {
        for (int64_t h = 0; h < c->p.h_q; h++) {
            for (int64_t i = 0; i < rows_of(c, s) && n < MOST_ROWS; i++) {
                rows[n++] = (row_ref){s, h, i};
            }
        }
    }
    return n;
}

/* First, last, the edges of tiles and pieces (as rows, and as rows whose position is one), and random ones. */
static int64_t sampled_rows(const attention_case *c, fvi_rng *rng, row_ref *rows) {
    static const int64_t edges[] = {0, 63, 64, 65, 4095, 4096};
    int64_t n = 0, tries = 0;
    int64_t offset = c->p.offset_set ? c->p.offset : c->p.n_kv - c->p.n_q;
    for (int64_t e = 0; n < SAMPLE && tries < 100 * SAMPLE; e++, tries++) {
        int64_t s = fvi_rng_below(rng, c->p.b), h = fvi_rng_below(rng, c->p.h_q), most = rows_of(c, s);
        int64_t i = e < 6      ? edges[e]
                    : e < 12   ? edges[e - 6] - offset
                    : e == 12  ? most - 1
                    : most > 0 ? fvi_rng_below(rng, most)
                               : 0;
        if (i >= 0 && i < most) {
            rows[n++] = (row_ref){s, h, i};
        }
    }
    return n;
}

/* The naive computation's largest errors over all rows of a problem. */
typedef struct naive_error {
    double out, lse;
} naive_error;

/* What is right, per row: out in double, the log-sum-exp; and naive by form: f32, and pairs where K is bf16. */
typedef struct truth {
    row_ref *rows;
    int64_t n;
    double *out, *lse;
    naive_error naive[2];
    double max_v, max_terms;
} truth;

/* Whether the kernels of this context and phase round queries to bf16, to take products in pairs. */
static bool takes_pairs(const fv_context *ctx, const attention_case *c) {
    bool v = c->p.phase == FV_DECODE || c->v.t.dtype == FV_BF16;
    return ctx->cpu.avx512_bf16 && c->k.t.dtype == FV_BF16 && v;
}

static void add_naive(naive_error *sum, oracle *o, const row_ref *row, int turn, bool pairs, const double *out, double lse) {
    double naive[256], naive_lse;
    naive_row(o, row->head, row->i, turn, pairs, naive, &naive_lse);
    sum->lse = fmax(sum->lse, fabs(naive_lse - lse));
    for (int64_t c = 0; c < o->p->d_v; c++) {
        sum->out = fmax(sum->out, fabs(naive[c] - out[c]));
    }
}

static void add_rows(truth *t, oracle *o, int64_t from, int64_t to) {
    int64_t d = o->p->d_v;
    int turns = (int)fvi_max(
        1, fvi_min(fvi_min(16, 6000 / t->n), 3000000 / (t->n * (o->n_kv + 1)))); /* few rows: more orders to be unlucky in */
    for (int64_t r = from; r < to; r++) {
        double *out = t->out + r * d;
        oracle_row(o, t->rows[r].head, t->rows[r].i, out, &t->lse[r]);
        if (t->lse[r] == -INFINITY) {
            continue;
        }
        for (int turn = 0; turn < turns; turn++) {
            for (int pairs = 0; pairs <= (o->run->k.dtype == FV_BF16); pairs++) {
                add_naive(&t->naive[pairs], o, &t->rows[r], turn, pairs, out, t->lse[r]);
            }
        }
    }
    t->max_v = fmax(t->max_v, o->max_v);
    t->max_terms = fmax(t->max_terms, o->max_terms);
}

static truth find_truth(const attention_case *c, fvi_rng *rng) {
    truth t = {.rows = malloc(MOST_ROWS * sizeof *t.rows)};
    bool sample = c->p.n_kv > 2048 || c->p.n_q > 2048;
    t.n = sample ? sampled_rows(c, rng, t.rows) : all_rows(c, t.rows);
    qsort(t.rows, (size_t)t.n, sizeof *t.rows, by_place);
    t.out = malloc((size_t)(t.n * c->p.d_v + 1) * sizeof *t.out);
    t.lse = malloc((size_t)(t.n + 1) * sizeof *t.lse);
    int64_t group = c->p.h_q / c->p.h_kv;
    for (int64_t from = 0, to; from < t.n; from = to) {
        for (to = from;
             to < t.n && t.rows[to].sequence == t.rows[from].sequence && t.rows[to].head / group == t.rows[from].head / group;
             to++) {
        }
        oracle o;
        oracle_open(&o, &c->p, &c->run, t.rows[from].sequence, t.rows[from].head / group);
        add_rows(&t, &o, from, to);
        oracle_close(&o);
    }
    return t;
}

static void forget(truth *t) {
    free(t->rows);
    free(t->out);
    free(t->lse);
}

/* Largest errors of what a run left; false for a row that should be empty and is not, or a number that is none. */
static bool errors_of(const attention_case *c, const truth *t, double *out_error, double *lse_error) {
    *out_error = *lse_error = 0;
    bool good = true;
    for (int64_t r = 0; r < t->n; r++) {
        const row_ref *at = &t->rows[r];
        int64_t batch = c->p.packed ? 0 : at->sequence, i = at->i + (c->p.packed ? c->q_start[at->sequence] : 0);
        double lse = (double)c->run.lse[(batch * c->p.h_q + at->head) * c->p.n_q + i];
        bool empty = t->lse[r] == -INFINITY;
        good = good && (empty ? lse == -INFINITY : isfinite(lse));
        *lse_error = empty ? *lse_error : fmax(*lse_error, fabs(lse - t->lse[r]));
        for (int64_t d = 0; d < c->p.d_v; d++) {
            double x = tensor_get(&c->out.t, batch, at->head, i, d);
            good = good && isfinite(x) && (!empty || x == 0);
            *out_error = fmax(*out_error, fabs(x - t->out[r * c->p.d_v + d]));
        }
    }
    return good;
}

static void check_level(fv_context *ctx, attention_case *c, const truth *t, tally *sum, bool verbose) {
    const char *level = fv_level_name(fv_context_level(ctx)), *phase = c->p.phase == FV_DECODE ? "decode" : "prompt";
    case_reset(c);
    if (case_run(ctx, c) != FV_OK) {
        printf("FAIL %s %s %s\n", level, phase, c->text);
        sum->failures++;
        return;
    }
    double out, lse;
    bool good = errors_of(c, t, &out, &lse);
    const naive_error *naive = &t->naive[takes_pairs(ctx, c)];
    double bar = 2 * naive->out + ulp_of(c->p.out_dtype, t->max_v);
    double lse_bar = 2 * naive->lse + 4 * ulp_of(FV_F32, fmax(t->max_terms, 4));
    good = good && out <= bar && lse <= lse_bar;
    sum->worst = fmax(sum->worst, bar > 0 ? out / bar : 0);
    if (!good || !case_out_is_clean(c)) {
        sum->failures++;
        printf("FAIL %s %s %s\n     out error %.3g (bar %.3g, naive %.3g), lse error %.3g (bar %.3g), %s\n", level, phase,
               c->text, out, bar, naive->out, lse, lse_bar,
               good ? "bytes between rows were written" : "beyond the bar or not finite");
    } else if (verbose) {
        printf("%-6s %s %s: out %.2f of its bar, lse %.2f\n", level, phase, c->text, bar > 0 ? out / bar : 0, lse / lse_bar);
    }
    sum->level[fv_context_level(ctx)]++;
}

static void count(const attention_case *c, const truth *t, tally *sum) {
    sum->mask_width[c->mask_kind][c->width_kind]++;
    sum->mask_dtype[c->mask_kind][c->dtype_kind]++;
    sum->width_dtype[c->width_kind][c->dtype_kind]++;
    sum->problems++;
    sum->rows += t->n;
    sum->longest = fvi_max(sum->longest, c->p.n_kv);
}

static int least(const int *counts, size_t n) {
    int low = counts[0];
    for (size_t i = 1; i < n; i++) {
        low = counts[i] < low ? counts[i] : low;
    }
    return low;
}

/* Each pair of mask, width and dtype, three times at the least, once the series is long enough to have them. */
static bool covered(const tally *sum) {
    int pairs = least(&sum->mask_width[0][0], MASK_KINDS * WIDTH_KINDS);
    pairs = (int)fvi_min(pairs, least(&sum->mask_dtype[0][0], MASK_KINDS * DTYPE_KINDS));
    pairs = (int)fvi_min(pairs, least(&sum->width_dtype[0][0], WIDTH_KINDS * DTYPE_KINDS));
    printf("each pair of mask, width and dtype at least %d times; longest %lld keys\n", pairs, (long long)sum->longest);
    return sum->problems < 3 * MASK_KINDS * WIDTH_KINDS || (pairs >= 3 && sum->longest == 32768);
}

static int open_levels(fv_context **ctx, int threads) {
    int n = 0;
    for (fv_level level = FV_LEVEL_C; level <= FV_LEVEL_AVX512; level++) {
        fv_context_options options = {threads, level, NULL};
        n += fv_context_create(&options, &ctx[n]) == FV_OK;
    }
    return n;
}

int main(int argc, char **argv) {
    uint64_t seed = 1;
    int64_t first = 0, problems = 250;
    int threads = 2;
    bool verbose = false;
    for (int i = 1; i < argc; i++) {
        int64_t value = i + 1 < argc ? strtoll(argv[i + 1], NULL, 0) : 0;
        seed = strcmp(argv[i], "--seed") == 0 ? (uint64_t)value : seed;
        first = strcmp(argv[i], "--first") == 0 ? value : first;
        problems = strcmp(argv[i], "--count") == 0 ? value : problems;
        threads = strcmp(argv[i], "--threads") == 0 ? (int)value : threads;
        verbose = verbose || strcmp(argv[i], "--verbose") == 0;
    }
    printf("seed %llu, problems %lld to %lld\n", (unsigned long long)seed, (long long)first, (long long)(first + problems - 1));
    const case_limits limits = {4e6, 32768};
    fv_context *ctx[3];
    int levels = open_levels(ctx, threads);
    tally sum = {0};
    for (int64_t index = first; index < first + problems; index++) {
        fvi_rng rng = {seed * 1000003 + (uint64_t)index};
        attention_case c;
        case_make(&c, &rng, index, &limits);
        truth t = find_truth(&c, &rng);
        count(&c, &t, &sum);
        for (c.p.phase = FV_PREFILL; c.p.phase <= FV_DECODE; c.p.phase++) {
            for (int i = 0; i < levels; i++) {
                check_level(ctx[i], &c, &t, &sum, verbose);
            }
        }
        forget(&t);
        case_free(&c);
    }
    for (int i = 0; i < levels; i++) {
        fv_context_destroy(ctx[i]);
    }
    bool enough = covered(&sum);
    printf("%d problems (c %d, avx2 %d, avx512 %d runs), %lld rows, largest error %.2f of its bar, %d failures\n", sum.problems,
           sum.level[FV_LEVEL_C], sum.level[FV_LEVEL_AVX2], sum.level[FV_LEVEL_AVX512], (long long)sum.rows, sum.worst,
           sum.failures);
    return sum.failures > 0 || !enough;
}
