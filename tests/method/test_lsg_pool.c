/* test_lsg_pool.c - LSG's pooled tokens after the paper: keys and tokens of each row in double, and outputs of the official code.
 */
#include "heads_test.h"
#include "pattern_test.h"

typedef struct form {
    int64_t block, sparse, factor, reduction, globals, rounds, seed, mass;
} form;

/* A pooled token: mean key and value of `count` keys; it takes a place in the list of all. */
typedef struct token {
    double *k, *v;
    int64_t count;
} token;

typedef struct tokens {
    int64_t n;
    token *at;
} tokens;

static tokens tokens_make(int64_t n, int64_t d) {
    tokens t = {n, calloc((size_t)n + 1, sizeof *t.at)};
    for (int64_t e = 0; e < n; e++) {
        t.at[e] = (token){calloc((size_t)d, sizeof(double)), calloc((size_t)d, sizeof(double)), 0};
    }
    return t;
}

static void tokens_free(tokens *t) {
    for (int64_t e = 0; e < t->n; e++) {
        free(t->at[e].k);
        free(t->at[e].v);
    }
    free(t->at);
}

static void add(token *t, double w, const double *k, const double *v, int64_t d, int64_t count) {
    for (int64_t c = 0; c < d; c++) {
        t->k[c] += w * k[c];
        t->v[c] += w * v[c];
    }
    t->count += count;
}

static void widen(const heads *x, int64_t head, int64_t j, double *k, double *v) {
    const int64_t row = (head / (x->h_q / x->h_kv) * x->n + j) * x->d;
    for (int64_t c = 0; c < x->d; c++) {
        k[c] = (double)x->k[row + c];
        v[c] = (double)x->v[row + c];
    }
}

/* Groups of neighbours, evenly or by the softmax of what query `asks` scores. */
static tokens groups(const form *f, const heads *x, int64_t head, bool asked) {
    tokens t = tokens_make((x->n > f->globals ? x->n - f->globals + f->factor - 1 : 0) / f->factor, x->d);
    double k[256], v[256];
    const float *q = x->q + (head * x->n + (f->globals < x->n ? f->globals : x->n - 1)) * x->d;
    for (int64_t e = 0; e < t.n; e++) {
        double sum = 0;
        for (int64_t pass = 0; pass < 2; pass++) {
            for (int64_t j = f->globals + e * f->factor; j < f->globals + (e + 1) * f->factor && j < x->n; j++) {
                double s = 0;
                widen(x, head, j, k, v);
                for (int64_t c = 0; c < x->d && asked; c++) {
                    s += (double)q[c] * k[c] / sqrt((double)x->d);
                }
                if (pass == 0) {
                    sum += exp(s);
                } else {
                    add(&t.at[e], exp(s) / sum, k, v, x->d, 1);
                }
            }
        }
    }
    return t;
}

static uint64_t scrambled(uint64_t z) {
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Normal number i of a head's round. */
static double normal(int64_t seed, int64_t head, int64_t round, int64_t i) {
    uint64_t s = scrambled(scrambled(scrambled((uint64_t)seed) + (uint64_t)head) + (uint64_t)round);
    uint64_t a = scrambled(s ^ scrambled((uint64_t)i)), b = scrambled(a);
    double u = ((double)(a >> 11) + 1) / (9007199254740992.0 + 1), w = (double)(b >> 11) / 9007199254740992.0;
    return (double)(float)(sqrt(-2 * log(u)) * cos(2 * acos(-1) * w));
}

static int64_t place(const form *f, int64_t head, int64_t round, int64_t buckets, const double *k, int64_t d) {
    const int64_t half = buckets / 2;
    int64_t best = 0;
    double most = -INFINITY;
    for (int64_t b = 0; b < 2 * half; b++) {
        double s = 0;
        for (int64_t c = 0; c < d; c++) {
            s += k[c] * normal(f->seed, head, round, c * half + b % half);
        }
        s = b < half ? s : -s;
        best = s > most ? b : best;
        most = s > most ? s : most;
    }
    return best;
}

static tokens hashed(const form *f, const heads *x, int64_t head) {
    const int64_t t = f->block < f->sparse ? f->block : f->sparse, left = t / f->factor;
    const int64_t chunks = x->n > f->globals ? (x->n - f->globals + t - 1) / t : 0;
    tokens out = tokens_make(chunks * left, x->d);
    double k[256], v[256];
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        tokens now = tokens_make(t, x->d);
        for (int64_t j = 0; j < t && f->globals + chunk * t + j < x->n; j++) {
            widen(x, head, f->globals + chunk * t + j, k, v);
            add(&now.at[j], 1, k, v, x->d, 1);
        }
        for (int64_t round = 0; round <= f->rounds; round++) {
            const int64_t buckets = round < f->rounds ? t : left;
            tokens next = tokens_make(t, x->d);
            for (int64_t j = 0; j < t; j++) {
                if (now.at[j].count > 0) {
                    const int64_t b = place(f, head, round, buckets, now.at[j].k, x->d);
                    add(&next.at[b], 1, now.at[j].k, now.at[j].v, x->d, now.at[j].count);
                }
            }
            tokens_free(&now);
            now = next;
        }
        for (int64_t b = 0; b < left; b++) {
            if (now.at[b].count > 0) {
                add(&out.at[chunk * left + b], 1 / (double)now.at[b].count, now.at[b].k, now.at[b].v, x->d, now.at[b].count);
            }
        }
        tokens_free(&now);
    }
    return out;
}

/* What a row has summed up so far: the scores are small enough for exp. */
typedef struct sum {
    double weight, *out;
} sum;

static void meet(const float *q, double weight, const double *k, const double *v, int64_t d, sum *s) {
    double score = 0;
    for (int64_t c = 0; c < d; c++) {
        score += (double)q[c] * k[c] / sqrt((double)d);
    }
    s->weight += weight * exp(score);
    for (int64_t c = 0; c < d; c++) {
        s->out[c] += weight * exp(score) * v[c];
    }
}

/* Row i in double, its log-sum-exp, and how many keys and tokens it sees. */
static double row(const form *f, const heads *x, int64_t head, int64_t i, bool causal, const tokens *t, double *out,
                  int64_t seen[2]) {
    double k[256], v[256];
    sum s = {0, out};
    memset(out, 0, (size_t)x->d * sizeof *out);
    const float *q = x->q + (head * x->n + i) * x->d;
    const int64_t own = i < f->globals ? 0 : (i - f->globals) / f->block, reach = f->sparse * f->factor / f->block;
    for (int64_t j = 0; j < x->n && (!causal || j <= i); j++) {
        const int64_t block = (j - f->globals) / f->block;
        if (i < f->globals || j < f->globals || (block >= own - 1 && block <= own + 1)) {
            widen(x, head, j, k, v);
            meet(q, 1, k, v, x->d, &s);
            seen[0]++;
        }
    }
    for (int64_t e = 0; e < t->n && i >= f->globals; e++) {
        const int64_t block = e * f->factor / f->block;
        const bool left = block < own - 1 && block >= own - 1 - reach, right = block > own + 1 && block <= own + 1 + reach;
        if (t->at[e].count > 0 && (left || (right && !causal))) {
            meet(q, f->mass ? (double)t->at[e].count : 1, t->at[e].k, t->at[e].v, x->d, &s);
            seen[1]++;
        }
    }
    for (int64_t c = 0; c < x->d; c++) {
        out[c] /= s.weight;
    }
    return log(s.weight);
}

static void name_of(const form *f, char text[200]) {
    snprintf(
        text, 200,
        "prefill=lsg:block=%lld:sparse=%lld:factor=%lld:reduction=%lld:globals=%lld:rounds=%lld:seed=%lld:mass=%lld:fallback=0",
        (long long)f->block, (long long)f->sparse, (long long)f->factor, (long long)f->reduction, (long long)f->globals,
        (long long)f->rounds, (long long)f->seed, (long long)f->mass);
}

/* A prompt in chunks: causal rows see tokens of whole blocks behind them, which later keys leave alone. */
static void chunks_agree(fv_context *ctx, const char *recipe, const heads *x) {
    selection whole = select_all(ctx, recipe, x, true);
    chunks_hold(ctx, recipe, x, &whole, 64);
    chunks_hold(ctx, recipe, x, &whole, 53);
    free(whole.at);
}

static void form_holds_if(fv_context *ctx, const form *f, heads *x, bool causal) {
    char recipe[200];
    name_of(f, recipe);
    double worst = 0, *out = malloc((size_t)x->d * sizeof *out);
    int64_t seen[2] = {0};
    fv_run_stats stats = heads_run_if(ctx, recipe, x, causal);
    for (int64_t head = 0; head < x->h_q; head++) {
        const bool hash = f->reduction == 5 && f->factor != f->sparse;
        tokens t = hash ? hashed(f, x, head) : groups(f, x, head, f->reduction >= 4);
        for (int64_t i = 0; i < x->n; i++) {
            double lse = row(f, x, head, i, causal, &t, out, seen);
            worst = fmax(worst, fabs(lse - (double)x->lse[head * x->n + i]));
            for (int64_t c = 0; c < x->d; c++) {
                worst = fmax(worst, fabs(out[c] - (double)x->out[(head * x->n + i) * x->d + c]));
            }
        }
        tokens_free(&t);
    }
    CHECK(worst < 3e-5, "%s, n %lld, causal %d: off by %g", recipe, (long long)x->n, causal, worst);
    CHECK((int64_t)stats.exact_pairs == seen[0] && (int64_t)stats.entry_pairs == seen[1],
          "%s, n %lld, causal %d: %llu keys and %llu tokens for %lld and %lld", recipe, (long long)x->n, causal,
          (unsigned long long)stats.exact_pairs, (unsigned long long)stats.entry_pairs, (long long)seen[0], (long long)seen[1]);
    CHECK(stats.visited_pairs >= stats.exact_pairs + stats.entry_pairs, "%s: fewer pairs visited than there are", recipe);
    if (causal && f->reduction != 4 && f->factor != f->sparse) { /* a chunk has another first query */
        chunks_agree(ctx, recipe, x);
    }
    free(out);
}

static void form_holds(fv_context *ctx, const void *f, heads *x) {
    form_holds_if(ctx, f, x, false);
    form_holds_if(ctx, f, x, true);
}

static void form_holds_everywhere(fv_context *ctx, form f) {
    static const int64_t size[][4] = {{4, 2, 1, 32}, {4, 4, 63, 32}, {4, 2, 65, 64}, {4, 4, 300, 64}, {4, 2, 701, 32}};
    for (size_t z = 0; z < sizeof size / sizeof *size; z++) {
        heads x = heads_make(z + 70, size[z][0], size[z][1], size[z][2], size[z][3]);
        for (int64_t i = 0; i < x.h_q * x.n * x.d; i++) {
            x.q[i] *= 0.4f;
        }
        form_holds(ctx, &f, &x);
        heads_free(&x);
    }
    on_real_heads(ctx, form_holds, &f);
}

static void golden_holds(fv_context *ctx, const char *name, form f, bool causal) {
    char path[80], recipe[200];
    snprintf(path, sizeof path, "select/lsg/%s", name);
    name_of(&f, recipe);
    npy_array a = npy_golden(path);
    heads x = heads_make(1, 2, 2, f.globals + 320, 16);
    double worst = a.data != NULL && a.shape[1] == x.n && a.shape[2] == x.d ? 0 : INFINITY;
    heads_run_if(ctx, recipe, &x, causal);
    for (int64_t at = 0; worst < INFINITY && at < 2 * x.n * x.d; at++) {
        float want;
        memcpy(&want, a.data + 4 * at, sizeof want);
        /* the code copies queries of globals to the output where it is causal */
        worst = causal && at / x.d % x.n < f.globals ? worst : fmax(worst, fabs((double)want - (double)x.out[at]));
    }
    CHECK(worst < 3e-5, "%s is off %s by %g", recipe, path, worst);
    free(a.data);
    heads_free(&x);
}

/* Of bf16 rows, which take packed pairs: close to f32's, and the same bits for any threads. */
static void halves_hold(fv_context *ctx, fv_context *alone, const char *recipe) {
    heads x = heads_make(5, 4, 2, 700, 64);
    const int64_t n_q = x.h_q * x.n * x.d, n_kv = x.h_kv * x.n * x.d;
    uint16_t *half = malloc((size_t)(n_q + 2 * n_kv) * sizeof *half);
    for (int64_t i = 0; i < n_q + 2 * n_kv; i++) {
        float *from = i < n_q ? x.q + i : i < n_q + n_kv ? x.k + (i - n_q) : x.v + (i - n_q - n_kv);
        uint32_t bits;
        *from *= i < n_q ? 0.3f : 1;
        memcpy(&bits, from, sizeof bits);
        half[i] = (uint16_t)(bits >> 16);
        bits &= 0xffff0000u;
        memcpy(from, &bits, sizeof bits);
    }
    heads_run(ctx, recipe, &x);
    float *out[2] = {calloc((size_t)n_q, sizeof(float)), calloc((size_t)n_q, sizeof(float))};
    for (int i = 0; i < 2; i++) {
        prepared p = prepare(i == 0 ? ctx : alone, recipe, &x, x.n, true);
        fv_run run = part_run(&x, 0, x.n, x.n);
        run.q = fv_tensor_view(half, FV_BF16, 1, x.h_q, x.n, x.d);
        run.k = fv_tensor_view(half + n_q, FV_BF16, 1, x.h_kv, x.n, x.d);
        run.v = fv_tensor_view(half + n_q + n_kv, FV_BF16, 1, x.h_kv, x.n, x.d);
        run.out.data = out[i];
        CHECK(fv_plan_run(p.plan, &run, p.workspace, p.bytes) == FV_OK, "%s", fv_message(ctx));
        prepared_free(&p);
    }
    double worst = 0;
    for (int64_t i = 0; i < n_q; i++) {
        worst = fmax(worst, fabs((double)out[0][i] - (double)x.out[i]));
    }
    CHECK(worst < 0.02, "%s in bf16 is off by %g", recipe, worst);
    CHECK(memcmp(out[0], out[1], (size_t)n_q * sizeof(float)) == 0, "%s: other bits on one thread", recipe);
    free(out[0]);
    free(out[1]);
    free(half);
    heads_free(&x);
}

/* Entries have no column in a bias and no place in a key mask. */
static void masks_hold(fv_context *ctx, const char *recipe) {
    heads x = heads_make(6, 4, 2, 400, 32);
    const int64_t n = x.h_q * x.n * x.d;
    float *plain = malloc((size_t)n * sizeof *plain), *bias = calloc((size_t)(x.n * x.n), sizeof *bias);
    uint8_t *mask = malloc((size_t)x.n);
    memset(mask, 1, (size_t)x.n);
    heads_run(ctx, recipe, &x);
    memcpy(plain, x.out, (size_t)n * sizeof *plain);
    for (int kind = 0; kind < 2; kind++) {
        fv_problem p = fv_problem_default();
        p.h_q = x.h_q;
        p.h_kv = x.h_kv;
        p.n_q = p.n_kv = x.n;
        p.d_k = p.d_v = x.d;
        p.causal = true;
        p.has_bias = kind == 0;
        p.has_key_mask = kind == 1;
        CHECK(fv_recipe_parse(ctx, recipe, (fv_recipe **)&p.recipe) == FV_OK, "%s", fv_message(ctx));
        fv_plan *plan = NULL;
        CHECK(fv_plan_create(ctx, &p, &plan) == FV_OK, "%s", fv_message(ctx));
        const size_t bytes = fv_plan_workspace(plan);
        void *workspace = aligned_alloc(64, (bytes + 63) / 64 * 64);
        fv_run run = part_run(&x, 0, x.n, x.n);
        if (kind == 0) {
            run.bias = fv_tensor_view(bias, FV_F32, 1, 1, x.n, x.n);
            run.bias.shape[1] = x.h_q;
            run.bias.stride[1] = 0;
        } else {
            run.key_mask = mask;
        }
        CHECK(fv_plan_run(plan, &run, workspace, bytes) == FV_OK, "%s", fv_message(ctx));
        double worst = 0;
        for (int64_t i = 0; i < n; i++) {
            worst = fmax(worst, fabs((double)plain[i] - (double)x.out[i]));
        }
        CHECK(worst < 1e-6, "%s: off by %g under a %s that changes nothing", recipe, worst, kind == 0 ? "bias" : "key mask");
        free(workspace);
        fv_plan_destroy(plan);
        fv_recipe_destroy((fv_recipe *)p.recipe);
    }
    free(plain);
    free(bias);
    free(mask);
    heads_free(&x);
}

int main(void) {
    fv_context *ctx, *alone;
    if (fv_context_create(&(fv_context_options){.threads = 3}, &ctx) != FV_OK ||
        fv_context_create(&(fv_context_options){.threads = 1}, &alone) != FV_OK) {
        return 1;
    }
    for (int64_t reduction = 3; reduction < 6; reduction++) {
        form_holds_everywhere(ctx, (form){64, 64, 4, reduction, 1, 1, 0, 0});
        form_holds_everywhere(ctx, (form){64, 128, 16, reduction, 0, 2, 3, 0});
        form_holds_everywhere(ctx, (form){72, 36, 2, reduction, 70, 0, 5, 1});
    }
    form_holds_everywhere(ctx, (form){96, 96, 96, 3, 2, 1, 0, 1}); /* groups longer than what is read at once */
    form_holds_everywhere(ctx, (form){96, 96, 96, 5, 2, 1, 0, 0});
    golden_holds(ctx, "pooling", (form){64, 64, 4, 3, 1, 1, 0, 0}, false);
    golden_holds(ctx, "pooling-causal", (form){64, 32, 4, 3, 1, 1, 0, 0}, true);
    golden_holds(ctx, "bos-pooling", (form){64, 64, 8, 4, 2, 1, 0, 0}, false);
    golden_holds(ctx, "lsh", (form){64, 64, 4, 5, 1, 1, 0, 0}, false);
    golden_holds(ctx, "lsh-causal", (form){64, 32, 2, 5, 3, 2, 7, 0}, true);
    halves_hold(ctx, alone, "prefill=lsg:block=64:sparse=128:factor=4:reduction=3:mass=1:fallback=0");
    halves_hold(ctx, alone, "prefill=lsg:block=64:sparse=128:factor=4:reduction=5:fallback=0");
    masks_hold(ctx, "prefill=lsg:block=64:sparse=64:factor=4:reduction=3:fallback=0");
    heads x = heads_make(3, 4, 2, 500, 32);
    dense_holds(ctx, "prefill=lsg:block=64:sparse=512:factor=1:reduction=3:fallback=0", &x);
    dense_holds(ctx, "prefill=lsg:block=250:sparse=250:factor=2:reduction=5:fallback=0", &x);
    heads_free(&x);
    fv_context_destroy(alone);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
