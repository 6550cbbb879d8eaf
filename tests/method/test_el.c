/* test_el.c - el-attention (Yan et al. 2021): heads that attend to cached hidden states give what multi-head attention over
 * projected keys and values gives, biases included; step by step as at once; with half of the cache, or less. */
#include "method_test.h"

#include <stdatomic.h>

typedef struct layer_case {
    int64_t d, h, d_head, n, n_q;
    bool causal, biases;
} layer_case;

typedef struct model {
    layer_case c;
    fv_el_layer l;
    float *x; /* (n, d) */
} model;

static model model_make(layer_case c) {
    int64_t w = c.h * c.d_head;
    uint64_t seed = (uint64_t)(c.d * 31 + c.n);
    float s = 2 / sqrtf((float)c.d);
    model m = {.c = c, .l = {.d_model = c.d, .h = c.h, .d_head = c.d_head}};
    m.x = numbers(&seed, c.n * c.d, 1.5f);
    m.l.w_q = numbers(&seed, w * c.d, s);
    m.l.w_k = numbers(&seed, w * c.d, s);
    m.l.w_v = numbers(&seed, w * c.d, s);
    m.l.w_o = numbers(&seed, w * c.d, s);
    if (c.biases) {
        m.l.b_q = numbers(&seed, w, 1);
        m.l.b_k = numbers(&seed, w, 5);
        m.l.b_v = numbers(&seed, w, 1);
        m.l.b_o = numbers(&seed, c.d, 1);
    }
    return m;
}

static void model_free(model *m) {
    const float *all[] = {m->x, m->l.w_q, m->l.w_k, m->l.w_v, m->l.w_o, m->l.b_q, m->l.b_k, m->l.b_v, m->l.b_o};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free((void *)(uintptr_t)all[i]);
    }
}

static double project(const float *w, const float *bias, int64_t row, int64_t d, const float *x) {
    double sum = bias != NULL ? bias[row] : 0;
    for (int64_t c = 0; c < d; c++) {
        sum += (double)w[row * d + c] * x[c];
    }
    return sum;
}

/* Multi-head attention in double, K and V built for every head, biases added to them. out (n_q, d). */
static void reference(const model *m, double *out) {
    const layer_case *c = &m->c;
    const fv_el_layer *l = &m->l;
    int64_t w = c->h * c->d_head;
    double *k = malloc((size_t)(c->n * w) * sizeof *k), *v = malloc((size_t)(c->n * w) * sizeof *v);
    double *mix = malloc((size_t)w * sizeof *mix), *score = malloc((size_t)c->n * sizeof *score);
    for (int64_t j = 0; j < c->n; j++) {
        for (int64_t r = 0; r < w; r++) {
            k[j * w + r] = project(l->w_k, l->b_k, r, c->d, m->x + j * c->d);
            v[j * w + r] = project(l->w_v, l->b_v, r, c->d, m->x + j * c->d);
        }
    }
    for (int64_t i = 0; i < c->n_q; i++) {
        int64_t at = c->n - c->n_q + i, seen = c->causal ? at + 1 : c->n;
        for (int64_t h = 0; h < c->h; h++) {
            double top = -INFINITY, sum = 0;
            memset(score, 0, (size_t)c->n * sizeof *score);
            for (int64_t r = h * c->d_head; r < (h + 1) * c->d_head; r++) {
                double q = project(l->w_q, l->b_q, r, c->d, m->x + at * c->d) / sqrt((double)c->d_head);
                for (int64_t j = 0; j < seen; j++) {
                    score[j] += q * k[j * w + r];
                }
                mix[r] = 0;
            }
            for (int64_t j = 0; j < seen; j++) {
                top = fmax(top, score[j]);
            }
            for (int64_t j = 0; j < seen; j++) {
                double p = exp(score[j] - top);
                sum += p;
                for (int64_t r = h * c->d_head; r < (h + 1) * c->d_head; r++) {
                    mix[r] += p * v[j * w + r];
                }
            }
            for (int64_t r = h * c->d_head; r < (h + 1) * c->d_head; r++) {
                mix[r] /= sum;
            }
        }
        for (int64_t o = 0; o < c->d; o++) {
            double sum = l->b_o != NULL ? l->b_o[o] : 0;
            for (int64_t r = 0; r < w; r++) {
                sum += l->w_o[o * w + r] * mix[r];
            }
            out[i * c->d + o] = sum;
        }
    }
    free(k);
    free(v);
    free(mix);
    free(score);
}

static fv_cache *states(fv_context *ctx, const model *m, int64_t n, fv_dtype dtype) {
    fv_cache_desc desc = {.layers = 1, .h_kv = 1, .d_k = m->c.d, .d_v = 0, .k_dtype = dtype, .v_dtype = dtype};
    fv_cache *cache = NULL;
    CHECK(fv_cache_create(ctx, &desc, &cache) == FV_OK, "%s", fv_message(ctx));
    fv_tensor x = fv_tensor_view(m->x, FV_F32, 1, 1, n, m->c.d);
    CHECK(fv_cache_append(cache, 0, &x, NULL) == FV_OK, "%s", fv_message(ctx));
    return cache;
}

static void equals_multi_head(fv_context *ctx, layer_case c) {
    model m = model_make(c);
    size_t size = (size_t)(c.n_q * c.d);
    float *out = malloc(size * sizeof *out), *step = malloc((size_t)c.d * sizeof *step);
    double *want = malloc(size * sizeof *want), worst = 0;
    reference(&m, want);
    fv_cache *x = states(ctx, &m, c.n, FV_F32);
    const float *query = m.x + (c.n - c.n_q) * c.d;
    CHECK(fv_el_attention(ctx, &m.l, x, 0, query, c.n_q, c.causal, out) == FV_OK, "%s", fv_message(ctx));
    for (size_t i = 0; i < size; i++) {
        worst = fmax(worst, fabs(out[i] - want[i]));
    }
    CHECK(worst < 1e-4, "d_model %d, %d heads of %d, n %d, %s: off by %g", (int)c.d, (int)c.h, (int)c.d_head, (int)c.n,
          fv_level_name(fv_context_level(ctx)), worst);
    /* the same tokens one by one, each appended before it is asked */
    fv_cache_destroy(x);
    x = states(ctx, &m, c.n - c.n_q, FV_F32);
    for (int64_t i = 0; i < c.n_q && c.causal; i++) {
        fv_tensor row = fv_tensor_view(query + i * c.d, FV_F32, 1, 1, 1, c.d);
        CHECK(fv_cache_append(x, 0, &row, NULL) == FV_OK, "%s", fv_message(ctx));
        CHECK(fv_el_attention(ctx, &m.l, x, 0, query + i * c.d, 1, true, step) == FV_OK, "%s", fv_message(ctx));
        CHECK(memcmp(step, out + i * c.d, (size_t)c.d * sizeof *step) == 0, "step %d has other bits than all rows at once",
              (int)i);
    }
    fv_cache_destroy(x);
    free(out);
    free(step);
    free(want);
    model_free(&m);
}

/* ---- bytes ---- */

static void *count_alloc(void *user, size_t size) {
    atomic_fetch_add((_Atomic int64_t *)user, (int64_t)size);
    return aligned_alloc(64, (size + 63) / 64 * 64);
}

static void count_free(void *user, void *ptr, size_t size) {
    atomic_fetch_sub((_Atomic int64_t *)user, (int64_t)size);
    free(ptr);
}

/* What the allocator gave for the cache of n entries. */
static int64_t bytes_of(fv_cache_desc desc, int64_t n) {
    _Atomic int64_t bytes = 0;
    fv_allocator a = {count_alloc, count_free, (void *)&bytes};
    fv_context_options o = {1, FV_LEVEL_BEST, &a};
    fv_context *ctx = NULL;
    fv_cache *cache = NULL;
    CHECK(fv_context_create(&o, &ctx) == FV_OK, "no context");
    int64_t before = bytes;
    CHECK(fv_cache_create(ctx, &desc, &cache) == FV_OK, "%s", fv_message(ctx));
    float zero[1] = {0};
    fv_tensor k = fv_tensor_view(zero, FV_F32, 1, desc.h_kv, n, desc.d_k),
              v = fv_tensor_view(zero, FV_F32, 1, desc.h_kv, n, desc.d_v);
    memset(k.stride, 0, sizeof k.stride);
    memset(v.stride, 0, sizeof v.stride);
    for (int layer = 0; layer < desc.layers; layer++) {
        CHECK(fv_cache_append(cache, layer, &k, desc.d_v > 0 ? &v : NULL) == FV_OK, "%s", fv_message(ctx));
    }
    int64_t held = bytes - before;
    CHECK((size_t)held == fv_cache_bytes(cache), "the cache says %zu bytes, the allocator gave %lld", fv_cache_bytes(cache),
          (long long)held);
    fv_cache_destroy(cache);
    CHECK(bytes == before, "%lld bytes are not given back", (long long)(bytes - before));
    fv_context_destroy(ctx);
    return held;
}

/* A decoder layer's own cache: half. Six layers that attend to one encoder's output: a twelfth. */
static void cache_is_smaller(void) {
    int64_t n = 1024;
    int64_t pairs = bytes_of((fv_cache_desc){1, 12, 64, 64, FV_F16, FV_F16, false, false}, n);
    int64_t hidden = bytes_of((fv_cache_desc){1, 1, 768, 0, FV_F16, FV_F16, false, false}, n);
    int64_t six = bytes_of((fv_cache_desc){6, 12, 64, 64, FV_F16, FV_F16, false, false}, n);
    printf("el-attention: 1024 entries, d_model 768, f16: X %lld bytes, K and V of 12 heads %lld, of six layers %lld\n",
           (long long)hidden, (long long)pairs, (long long)six);
    CHECK(hidden >= 768 * 2 * n && (double)hidden < 0.52 * (double)pairs, "%lld bytes of %lld", (long long)hidden,
          (long long)pairs);
    CHECK((double)hidden < 0.52 / 6 * (double)six, "%lld bytes of %lld", (long long)hidden, (long long)six);
}

/* Values of entries that a row cannot see do not reach it, nor does the number of threads. */
static void hidden_is_hidden(void) {
    layer_case c = {80, 5, 16, 130, 9, true, true};
    model m = model_make(c);
    float first[9 * 80], out[9 * 80];
    for (int threads = 1; threads <= 4; threads++) {
        fv_context_options o = {threads, FV_LEVEL_BEST, NULL};
        fv_context *ctx = NULL;
        CHECK(fv_context_create(&o, &ctx) == FV_OK, "no context");
        fv_cache *x = states(ctx, &m, c.n, FV_F32);
        const float *query = m.x + (c.n - c.n_q) * c.d;
        CHECK(fv_el_attention(ctx, &m.l, x, 0, query, c.n_q, true, threads == 1 ? first : out) == FV_OK, "%s", fv_message(ctx));
        CHECK(threads == 1 || memcmp(first, out, sizeof out) == 0, "%d threads: other bits", threads);
        fv_cache_destroy(x);
        if (threads == 1) {
            float *last = malloc(80 * sizeof *last), keep[80];
            memcpy(keep, m.x + 129 * 80, sizeof keep);
            for (int i = 0; i < 80; i++) {
                m.x[129 * 80 + i] = NAN;
            }
            x = states(ctx, &m, c.n, FV_F32);
            CHECK(fv_el_attention(ctx, &m.l, x, 0, query, c.n_q, true, out) == FV_OK, "%s", fv_message(ctx));
            CHECK(memcmp(first, out, 8 * 80 * sizeof *out) == 0, "a NaN that rows cannot see reaches them");
            CHECK(isnan(out[8 * 80]), "a NaN that the last row sees does not reach it");
            memcpy(m.x + 129 * 80, keep, sizeof keep);
            fv_cache_destroy(x);
            free(last);
        }
        fv_context_destroy(ctx);
    }
    model_free(&m);
}

static void refuses(fv_context *ctx) {
    model m = model_make((layer_case){32, 2, 16, 4, 4, true, false});
    fv_cache *x = states(ctx, &m, 4, FV_F16), *pairs = NULL;
    fv_cache_desc desc = {.layers = 1, .h_kv = 1, .d_k = 32, .d_v = 32, .k_dtype = FV_F32, .v_dtype = FV_F32};
    float out[4 * 32];
    CHECK(fv_cache_create(ctx, &desc, &pairs) == FV_OK, "%s", fv_message(ctx));
    fv_tensor k = fv_tensor_view(m.x, FV_F32, 1, 1, 4, 32);
    CHECK(fv_el_attention(ctx, &m.l, pairs, 0, m.x, 4, true, out) == FV_ERR_ARGUMENT, "a cache of keys and values");
    CHECK(fv_el_attention(ctx, &m.l, x, 1, m.x, 4, true, out) == FV_ERR_ARGUMENT, "a layer that is not there");
    CHECK(fv_el_attention(ctx, &m.l, x, 0, m.x, -1, true, out) == FV_ERR_ARGUMENT, "n_q of -1");
    CHECK(fv_cache_append(x, 0, &k, &k) == FV_ERR_ARGUMENT && fv_cache_append(pairs, 0, &k, NULL) == FV_ERR_ARGUMENT,
          "v or none");
    m.l.d_model = 33;
    CHECK(fv_el_attention(ctx, &m.l, x, 0, m.x, 4, true, out) == FV_ERR_ARGUMENT && strstr(fv_message(ctx), "33") != NULL, "%s",
          fv_message(ctx));
    fv_recipe *r = NULL;
    CHECK(fv_recipe_parse(ctx, "el-attention", &r) == FV_ERR_ARGUMENT && strstr(fv_message(ctx), "rotary") != NULL, "%s",
          fv_message(ctx));
    fv_cache_destroy(x);
    fv_cache_destroy(pairs);
    model_free(&m);
}

int main(void) {
    static const layer_case test[] = {{64, 4, 16, 70, 70, true, true},    {64, 4, 16, 70, 33, false, true},
                                      {32, 2, 16, 1, 1, true, true},      {100, 3, 20, 129, 6, true, false},
                                      {300, 4, 75, 64, 3, true, true},    {768, 12, 64, 200, 5, true, true},
                                      {1024, 16, 64, 65, 2, false, true}, {17, 1, 5, 130, 7, true, true}};
    for (int level = FV_LEVEL_C; level <= FV_LEVEL_AVX512; level++) {
        fv_context_options o = {2, (fv_level)level, NULL};
        fv_context *ctx = NULL;
        if (fv_context_create(&o, &ctx) != FV_OK) {
            continue; /* more than this processor has */
        }
        for (size_t i = 0; i < sizeof test / sizeof *test; i++) {
            equals_multi_head(ctx, test[i]);
        }
        refuses(ctx);
        fv_context_destroy(ctx);
    }
    cache_is_smaller();
    hidden_is_hidden();
    printf("%d failures\n", failures);
    return failures > 0;
}
