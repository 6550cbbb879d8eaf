/* test_lsg.c - LSG attention after the paper, block by block as the official code lays its blocks out: the local
 * three, the sparse lists to either side, the globals. */
#include "heads_test.h"
#include "pattern_test.h"

typedef struct pattern {
    int64_t block, sparse, factor, reduction, globals;
    float *norm; /* (h_kv, n) */
    int *left;   /* (n), of the head that is compared: see left() */
} pattern;

static float *norms(const heads *x) {
    float *out = malloc((size_t)(x->h_kv * x->n) * sizeof *out);
    for (int64_t r = 0; r < x->h_kv * x->n; r++) {
        double sum = 0;
        for (int64_t c = 0; c < x->d; c++) {
            sum += (double)x->k[r * x->d + c] * x->k[r * x->d + c];
        }
        out[r] = (float)sqrt(sum);
    }
    return out;
}

/* 1: key j is left by the reduction, 0: not, -1: a tie of norms leaves it open. */
static int left(const pattern *p, const where *w, int64_t j) {
    int64_t number = j - p->globals, per_block = p->block / p->factor;
    if (p->reduction == 1) {
        return number % p->factor == w->head % p->factor;
    }
    if (p->reduction == 2) {
        return ((number % p->block - w->head * per_block) % p->block + p->block) % p->block < per_block;
    }
    int64_t chunk = p->sparse < p->block ? p->sparse : p->block, first = j - number % chunk, larger = 0, equal = 0;
    const float *norm = p->norm + w->head / (w->h_q / w->h_kv) * w->n;
    for (int64_t k = first; k < first + chunk && k < w->n; k++) {
        larger += norm[k] > norm[j] * (1 + 1e-5f);
        equal += fabsf(norm[k] - norm[j]) <= norm[j] * 1e-5f;
    }
    int64_t keep = chunk / p->factor;
    return larger + equal <= keep ? 1 : larger >= keep ? 0 : -1;
}

/* As left, of a pair. */
static int lsg_sees(const pattern *p, const where *w, int64_t i, int64_t j) {
    if ((w->causal && j > i)) {
        return 0;
    }
    if (i < p->globals || j < p->globals) {
        return 1;
    }
    int64_t own = (i - p->globals) / p->block, key = (j - p->globals) / p->block, apart = own > key ? own - key : key - own;
    int64_t reach = p->sparse * p->factor / p->block; /* blocks that the sparse keys of a side come from */
    return apart <= 1 ? 1 : apart <= 1 + reach ? p->left[j] : 0;
}

static void equals(const char *recipe, const selection *s, where w, const pattern *p) {
    int64_t differ = 0;
    for (w.head = 0; w.head < s->h; w.head++) {
        for (int64_t j = p->globals; j < s->n; j++) {
            p->left[j] = left(p, &w, j);
        }
        for (int64_t pair = 0; pair < s->n * s->n; pair++) {
            int sees_it = lsg_sees(p, &w, pair / s->n, pair % s->n);
            differ += sees_it >= 0 && sees_it != s->at[w.head * s->n * s->n + pair];
        }
    }
    CHECK(differ == 0, "%s: h %lld/%lld, n %lld, causal %d: %lld pairs differ", recipe, (long long)w.h_q, (long long)w.h_kv,
          (long long)s->n, w.causal, (long long)differ);
}

/* Keys with sinks, runs of like norm, and needles; queries do not matter here, and are small: scores stay within f32. */
static heads planted(uint64_t seed, int64_t h_q, int64_t h_kv, int64_t n, int64_t d) {
    heads x = heads_make(seed, h_q, h_kv, n, d);
    for (int64_t i = 0; i < h_kv * n * d; i++) {
        int64_t j = i / d % n;
        x.k[i] *= j < 4 ? 8 : j % 97 == 0 ? 5 : j / 50 % 2 == 0 ? 0.1f : 1;
    }
    for (int64_t i = 0; i < h_q * n * d; i++) {
        x.q[i] *= 0.25f;
    }
    return x;
}

static void lsg_holds(fv_context *ctx, const void *arg, heads *x) {
    pattern p = *(const pattern *)arg;
    char recipe[140];
    snprintf(recipe, sizeof recipe, "prefill=lsg:block=%d:sparse=%d:factor=%d:reduction=%d:globals=%d:fallback=0", (int)p.block,
             (int)p.sparse, (int)p.factor, (int)p.reduction, (int)p.globals);
    p.norm = norms(x);
    p.left = malloc((size_t)x->n * sizeof *p.left);
    for (int causal = 0; causal < 2; causal++) {
        selection s = select_all(ctx, recipe, x, causal == 1);
        equals(recipe, &s, (where){x->h_q, x->h_kv, 0, 0, x->n, causal == 1}, &p);
        if (causal == 1) {
            run_holds(ctx, recipe, x, &s, x->n > 300 ? 37 : 1);
            chunks_hold(ctx, recipe, x, &s, 64);
            chunks_hold(ctx, recipe, x, &s, 53);
        }
        free(s.at);
    }
    free(p.norm);
    free(p.left);
}

static void goldens_hold(fv_context *ctx) {
    static const struct {
        const char *name, *recipe;
        bool causal, real;
    } golden[] = {
        {"select/lsg/norm", "prefill=lsg:block=64:sparse=64:factor=2:fallback=0", false, false},
        {"select/lsg/norm-short", "prefill=lsg:block=64:sparse=32:factor=4:globals=3:fallback=0", false, false},
        {"select/lsg/norm-causal", "prefill=lsg:block=64:sparse=64:factor=4:fallback=0", true, false},
        {"select/lsg/stride", "prefill=lsg:block=64:sparse=64:factor=4:reduction=1:fallback=0", false, false},
        {"select/lsg/block-stride", "prefill=lsg:block=64:sparse=64:factor=4:reduction=2:globals=2:fallback=0", false, false},
        {"select/lsg/real-norm", "prefill=lsg:block=64:sparse=64:factor=2:fallback=0", false, true},
        {"select/lsg/real-norm-causal", "prefill=lsg:block=64:sparse=64:factor=4:fallback=0", true, true},
    };
    heads x = heads_make(1, 2, 2, 440, 32), r = heads_real(2, 2, 440);
    for (size_t k = 0; k < sizeof golden / sizeof *golden; k++) {
        selection s = select_all(ctx, golden[k].recipe, golden[k].real ? &r : &x, golden[k].causal);
        golden_bits_hold(golden[k].name, golden[k].recipe, s.at, s.h * s.n * s.n);
        free(s.at);
    }
    heads_free(&x);
    heads_free(&r);
}

int main(void) {
    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    static const pattern set[] = {
        {.block = 128, .sparse = 128, .factor = 2, .globals = 1},
        {.block = 64, .sparse = 64, .factor = 4, .reduction = 0, .globals = 1},
        {.block = 64, .sparse = 64, .factor = 4, .reduction = 1, .globals = 1},
        {.block = 64, .sparse = 64, .factor = 4, .reduction = 2, .globals = 1},
        {.block = 72, .sparse = 36, .factor = 2, .reduction = 0, .globals = 70},
        {.block = 72, .sparse = 36, .factor = 2, .reduction = 1, .globals = 70},
        {.block = 72, .sparse = 36, .factor = 2, .reduction = 2, .globals = 70},
        {.block = 64, .sparse = 128, .factor = 2, .reduction = 0, .globals = 0},
        {.block = 75, .sparse = 75, .factor = 3, .reduction = 2, .globals = 5},
    };
    for (int i = 0; i < 9; i++) {
        on_all_heads(ctx, planted, lsg_holds, &set[i]);
    }
    goldens_hold(ctx);
    heads x = heads_make(3, 4, 2, 500, 32);
    dense_holds(ctx, "prefill=lsg:block=250:sparse=0:fallback=0", &x);
    dense_holds(ctx, "prefill=lsg:block=64:sparse=512:factor=1:fallback=0", &x);
    dense_holds(ctx, "prefill=lsg:globals=500:fallback=0", &x);
    heads_free(&x);
    nested_hold(ctx,
                (const char *const[]){"prefill=lsg:block=64:sparse=0:globals=0:fallback=0",
                                      "prefill=lsg:block=64:sparse=64:factor=4:reduction=1:globals=0:fallback=0",
                                      "prefill=lsg:block=64:sparse=128:factor=4:reduction=1:globals=0:fallback=0",
                                      "prefill=lsg:block=64:sparse=512:factor=1:globals=1:fallback=0"},
                4, 0);
    fv_context_destroy(ctx);
    printf("%d failures\n", failures);
    return failures > 0;
}
