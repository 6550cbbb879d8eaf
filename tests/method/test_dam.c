/* test_dam.c - lines found in maps that were made with known ones, and the mask that a profile of them gives at longer lengths.
 *
 * The official code could not be had, so there is no golden selection: masks are checked against the rule, on a model's heads
 * those that its own calibration found. */
#include "profiled_test.h"
#include "select_test.h"

#include "select/dam_masks.h"

enum { SHORT = 96 };

/* A head's weights: heavy on columns 0 and 7 and on diagonals 0, 1 and 20, noise elsewhere; rows sum to 1. */
static bool planted(int64_t i, int64_t j) { return j == 0 || j == 7 || i == j || i - j == 1 || i - j == 20; }

static void make_map(uint64_t *seed, float *map) {
    float *noise = numbers(seed, SHORT * SHORT, 1);
    for (int64_t i = 0; i < SHORT; i++) {
        float sum = 0;
        for (int64_t j = 0; j < SHORT; j++) {
            map[i * SHORT + j] = j > i ? 777 : (planted(i, j) ? 2.0f : 0.02f) * expf(0.7f * noise[i * SHORT + j]);
            sum += j > i ? 0 : map[i * SHORT + j];
        }
        for (int64_t j = 0; j <= i; j++) {
            map[i * SHORT + j] /= sum;
        }
    }
    free(noise);
}

/* The likelihood once more, in the textbook's two passes. */
static double likelihood(const double *map, double power) {
    double mean = 0, spread = 0, logs = 0, n = SHORT * (SHORT + 1) / 2;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < SHORT; i++) {
            for (int j = 0; j <= i; j++) {
                double w = map[i * SHORT + j], y = power == 0 ? log(w) : (pow(w, power) - 1) / power;
                mean += pass == 0 ? y / n : 0;
                spread += pass == 1 ? (y - mean) * (y - mean) / n : 0;
                logs += pass == 1 ? log(w) : 0;
            }
        }
    }
    return -n / 2 * log(spread) + (power - 1) * logs;
}

static void lines_hold(double *number, int64_t *n) {
    static float map[SHORT * SHORT];
    static double mean[SHORT * SHORT], transformed[SHORT * SHORT];
    static unsigned char mask[SHORT * SHORT];
    static int32_t column[SHORT], diagonal[SHORT];
    uint64_t seed = 5;
    for (int k = 0; k < 6; k++) {
        make_map(&seed, map);
        fvi_dam_add(map, SHORT, mean);
    }
    fvi_dam_mean(mean, SHORT, 6);
    CHECK(fabs(mean[(SHORT - 1) * SHORT + SHORT - 1] - map[(SHORT - 1) * SHORT + SHORT - 1]) < 0.5, "the mean map is off");
    double power = fvi_dam_power(mean, SHORT, 1e-9), best = -1e300, at = 0;
    for (int i = -200; i <= 200; i++) {
        const double p = 0.01 * i;
        double l = likelihood(mean, fabs(p) < 1e-6 ? 0 : p);
        at = l > best ? p : at;
        best = l > best ? l : best;
    }
    CHECK(fabs(power - at) < 0.011, "the likeliest power is %g, not %g", at, power);
    memcpy(transformed, mean, sizeof mean);
    fvi_dam_transform(transformed, SHORT, 1e-9, power);
    int64_t set = fvi_dam_threshold(transformed, SHORT, 0.97, mask);
    fvi_dam_lines lines = {.column = column, .diagonal = diagonal};
    fvi_dam_match(mask, SHORT, 0.8, 16, &lines);
    CHECK(lines.columns == 2 && column[0] == 0 && column[1] == 7, "%lld columns, %d and %d first", (long long)lines.columns,
          column[0], column[1]);
    CHECK(lines.diagonals == 3 && diagonal[0] == 0 && diagonal[1] == 1 && diagonal[2] == 20, "%lld diagonals",
          (long long)lines.diagonals);
    fvi_dam_report r = fvi_dam_compare(mask, mean, SHORT, &lines);
    int64_t drawn = 0;
    double mass = 0;
    for (int64_t i = 0; i < SHORT; i++) {
        for (int64_t j = 0; j <= i; j++) {
            drawn += planted(i, j);
            mass += planted(i, j) ? mean[i * SHORT + j] / SHORT : 0;
        }
    }
    CHECK(r.drawn == drawn && r.set == set, "%lld drawn, %lld planted; %lld set, %lld counted", (long long)r.drawn,
          (long long)drawn, (long long)r.set, (long long)set);
    CHECK(fabs(r.mass - mass) < 1e-6 && r.mass > 0.7, "mass %g, kept by what was planted %g", r.mass, mass);
    CHECK(r.recall > 0.95 && r.precision > 0.8 && r.jaccard <= r.recall && r.jaccard <= r.precision,
          "recall %g, precision %g, jaccard %g", r.recall, r.precision, r.jaccard);
    printf("power %.3f; recall %.3f, precision %.3f, jaccard %.3f, density %.3f, mass %.3f\n", power, r.recall, r.precision,
           r.jaccard, r.density, r.mass);
    *n = fvi_dam_numbers(&lines, number);
}

static void mask_holds(fv_context *ctx, heads *x, const profiled *p, int64_t known) {
    selection s = select_profiled(ctx, "prefill=dam@masks.json:fallback=0", p, x);
    int64_t wrong = 0;
    for (int64_t h = 0; h < x->h_q; h++) {
        for (int64_t i = 0; i < x->n; i++) {
            for (int64_t j = 0; j < x->n; j++) {
                bool shows = j <= i && (h >= known || planted(i, j));
                wrong += s.at[(h * x->n + i) * x->n + j] != shows;
            }
        }
    }
    CHECK(wrong == 0, "n %lld: %lld pairs differ", (long long)x->n, (long long)wrong);
    CHECK((s.fell_back > 0) == (known < x->h_q), "%lld tiles fell back", (long long)s.fell_back);
    double worst = 0, *out = malloc((size_t)x->d * sizeof *out);
    for (int64_t h = 0; h < x->h_q; h++) {
        for (int64_t i = 0; i < x->n; i += 7) {
            seen_by arg = {&s, h};
            double lse = reference_row(x, h, i, selection_sees, &arg, out);
            worst = fmax(worst, fabs(lse - (double)x->lse[h * x->n + i]));
            for (int64_t c = 0; c < x->d; c++) {
                worst = fmax(worst, fabs(out[c] - (double)x->out[(h * x->n + i) * x->d + c]));
            }
        }
    }
    CHECK(worst < 2e-5, "n %lld: off by %g", (long long)x->n, worst);
    free(out);
    free(s.at);
}

/* ---- a model's heads: its own calibration, and the masks that it gives ----------------------------------------------- */

enum { SHORT_REAL = 256, LONG_REAL = 700 };
static const double budget = 0.3;

/* Positions from .. from + n - 1 of x, alone. */
static heads part_of(const heads *x, int64_t from, int64_t n) {
    heads y = heads_make(1, x->h_q, x->h_kv, n, x->d);
    for (int64_t h = 0; h < x->h_q; h++) {
        memcpy(y.q + h * n * x->d, query_of(x, h, from), (size_t)(n * x->d) * sizeof *y.q);
    }
    for (int64_t g = 0; g < x->h_kv; g++) {
        memcpy(y.k + g * n * x->d, x->k + (g * x->n + from) * x->d, (size_t)(n * x->d) * sizeof *y.k);
    }
    return y;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The head's mean weights, (SHORT_REAL, SHORT_REAL), and the weight that a share `budget` of them reaches: Box-Cox keeps order.
 */
static double mean_map(const heads *prompt, int prompts, int64_t head, double *map) {
    static double sorted[SHORT_REAL * SHORT_REAL], w[SHORT_REAL];
    int64_t count = 0;
    memset(map, 0, sizeof sorted);
    for (int64_t i = 0; i < SHORT_REAL; i++) {
        for (int k = 0; k < prompts; k++) {
            weights_of(&prompt[k], head, i, w);
            for (int64_t j = 0; j <= i; j++) {
                map[i * SHORT_REAL + j] += w[j] / prompts;
            }
        }
        for (int64_t j = 0; j <= i; j++) {
            sorted[count++] = map[i * SHORT_REAL + j];
        }
    }
    qsort(sorted, (size_t)count, sizeof *sorted, ascending);
    return sorted[(int64_t)((1 - budget) * (double)count)];
}

/* Of column `at`, or of the diagonal at that distance. */
static unsigned char line_state(const double *map, double cut, int64_t at, bool column) {
    int64_t sure = 0, open = 0, length = SHORT_REAL - at;
    for (int64_t i = at; i < SHORT_REAL; i++) {
        double w = map[i * SHORT_REAL + (column ? at : i - at)];
        bool near = fabs(w - cut) < 1e-4 * cut;
        sure += !near && w > cut;
        open += near;
    }
    double least = 0.8 * (double)length;
    return length < 16 || (double)(sure + open) < least ? OUT : (double)sure >= least ? IN : EITHER;
}

static void real_masks_hold(fv_context *ctx) {
    heads whole = heads_real(2, 1, 1500), x = part_of(&whole, 0, LONG_REAL);
    heads prompt[2] = {part_of(&whole, 0, SHORT_REAL), part_of(&whole, 1000, SHORT_REAL)};
    const fv_calibration_options o = {
        .layers = 1, .h_q = 2, .h_kv = 1, .d_k = REAL_D, .d_v = REAL_D, .tokens = SHORT_REAL, .prompts = 2, .budget = budget};
    const fv_run run[2] = {part_run(&prompt[0], 0, SHORT_REAL, SHORT_REAL), part_run(&prompt[1], 0, SHORT_REAL, SHORT_REAL)};
    prepared p = {0};
    CHECK(fv_recipe_parse(ctx, "prefill=dam@masks.json:fallback=0", &p.recipe) == FV_OK &&
              attach_found(ctx, p.recipe, &o, run) == FV_OK,
          "%s", fv_message(ctx));
    selection s = {x.h_q, x.n, calloc((size_t)(x.h_q * x.n), (size_t)x.n), 0};
    plan_prepared(ctx, &p, "dam", &x);
    fv_run all = part_run(&x, 0, x.n, x.n);
    CHECK(fv_plan_index(p.plan, &all, p.workspace, p.bytes, take_tile, &s) == FV_OK, "%s", fv_message(ctx));
    prepared_free(&p);
    static double map[SHORT_REAL * SHORT_REAL];
    unsigned char column[LONG_REAL] = {0}, diagonal[LONG_REAL] = {0};
    for (int64_t head = 0; head < x.h_q; head++) {
        double cut = mean_map(prompt, 2, head, map);
        int64_t wrong = 0, columns = 0, diagonals = 0, open = 0;
        for (int64_t at = 0; at < SHORT_REAL; at++) {
            column[at] = line_state(map, cut, at, true);
            diagonal[at] = line_state(map, cut, at, false);
            columns += column[at] == IN;
            diagonals += diagonal[at] == IN;
            open += (column[at] == EITHER) + (diagonal[at] == EITHER);
        }
        for (int64_t i = 0; i < x.n; i++) {
            for (int64_t j = 0; j < x.n; j++) {
                bool in = j <= i && (i == j || column[j] == IN || diagonal[i - j] == IN);
                bool either = j <= i && !in && (column[j] == EITHER || diagonal[i - j] == EITHER);
                wrong += !either && s.at[(head * x.n + i) * x.n + j] != in;
            }
        }
        CHECK(wrong == 0, "a model's head %lld: %lld pairs are not its map's lines", (long long)head, (long long)wrong);
        CHECK(columns + diagonals > 5 && open <= 2, "a model's head %lld: %lld columns, %lld diagonals, %lld open",
              (long long)head, (long long)columns, (long long)diagonals, (long long)open);
        printf("a model's head: %d columns, %d diagonals\n", (int)columns, (int)diagonals);
    }
    free(s.at);
    heads_free(&x);
    heads_free(&whole);
    heads_free(&prompt[0]);
    heads_free(&prompt[1]);
}

/* All diagonals: dense, bit for bit. */
static void dense_by_lines(fv_context *ctx) {
    heads x = heads_make(9, 2, 1, 300, 32);
    static double all[301];
    for (int i = 1; i <= 300; i++) {
        all[i] = i - 1;
    }
    size_t bytes = (size_t)(x.h_q * x.n * x.d) * sizeof(float);
    float *dense = malloc(bytes);
    heads_run(ctx, "", &x);
    memcpy(dense, x.out, bytes);
    const double *const at[] = {all, all};
    const int64_t n[] = {301, 301};
    selection s = select_profiled(ctx, "prefill=dam@masks.json:fallback=0", &(profiled){"dam", at, n}, &x);
    CHECK(memcmp(dense, x.out, bytes) == 0, "all diagonals differ from dense");
    free(s.at);
    free(dense);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    double number[2 * SHORT + 1];
    int64_t n = 0;
    lines_hold(number, &n);
    static const int64_t length[] = {1, 63, 65, 200, 700};
    for (int i = 0; i < 5; i++) {
        heads x = heads_make((uint64_t)i, 4, i % 2 ? 4 : 2, length[i], i % 2 ? 64 : 32);
        const double *const at[] = {number, number, number, number};
        mask_holds(ctx, &x, &(profiled){"dam", at, (const int64_t[]){n, n, n, n}}, 4);
        mask_holds(ctx, &x, &(profiled){"dam", at, (const int64_t[]){n, n, 0, 0}}, 2);
        heads_free(&x);
    }
    real_masks_hold(ctx);
    dense_by_lines(ctx);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
