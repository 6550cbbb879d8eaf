/* sampler.c - from logits to one id. The filters come in this order:
 *   repetition penalty -> top-k -> softmax at the temperature -> top-p -> min-p -> draw
 * Candidates are ordered by logit, the lowest id first among equals. No full sort: a heap gives up the best ones one by one
 * until the filters are satisfied. Sums are in double, in a fixed order, so a seed gives the same ids everywhere. */
#include "base/base.h"
#include "base/rng.h"
#include "fovea/model.h"

#include <math.h>
#include <string.h>

typedef struct candidate {
    float value;
    int32_t id;
} candidate;

struct fv_sampler {
    fv_context *ctx;
    fv_sampler_options options;
    fvi_rng rng;
    int32_t *recent; /* ring of repeat_last ids */
    int64_t n_recent, next;
    candidate *heap; /* all ids */
    int64_t capacity;
    double *weight; /* of the candidates that were kept, in their order */
    int64_t weights;
};

enum { MOST_RECENT = 1 << 20 };

fv_sampler_options fv_sampler_options_default(void) {
    return (fv_sampler_options){.top_p = 1, .repeat_penalty = 1, .repeat_last = 64};
}

static fv_status check_options(fv_context *ctx, const fv_sampler_options *o) {
    const struct {
        const char *name, *range;
        double value;
        bool good;
    } check[] = {
        {"temperature", "0 or more", o->temperature, o->temperature >= 0 && isfinite(o->temperature)},
        {"top_k", "0 or more", o->top_k, o->top_k >= 0},
        {"top_p", "above 0 and at most 1", o->top_p, o->top_p > 0 && o->top_p <= 1},
        {"min_p", "from 0 to 1", o->min_p, o->min_p >= 0 && o->min_p <= 1},
        {"repeat_penalty", "above 0", o->repeat_penalty, o->repeat_penalty > 0 && isfinite(o->repeat_penalty)},
        {"repeat_last", "from 0 to 1048576", o->repeat_last, o->repeat_last >= 0 && o->repeat_last <= MOST_RECENT},
    };
    for (size_t i = 0; i < sizeof check / sizeof *check; i++) {
        if (!check[i].good) {
            return fvi_fail(ctx, FV_ERR_ARGUMENT, "%s is %g; it must be %s", check[i].name, check[i].value, check[i].range);
        }
    }
    return FV_OK;
}

fv_status fv_sampler_create(fv_context *ctx, const fv_sampler_options *options, fv_sampler **out) {
    *out = NULL;
    const fv_sampler_options o = options != NULL ? *options : fv_sampler_options_default();
    fv_status status = check_options(ctx, &o);
    if (status != FV_OK) {
        return status;
    }
    fv_sampler *s = fvi_zalloc(ctx, 1, sizeof *s);
    if (s == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a sampler");
    }
    *s = (fv_sampler){.ctx = ctx, .options = o, .rng = {o.seed}};
    if (o.repeat_last > 0) {
        s->recent = fvi_alloc(ctx, (size_t)o.repeat_last, sizeof *s->recent);
        if (s->recent == NULL) {
            fv_sampler_destroy(s);
            return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for %d recent tokens", o.repeat_last);
        }
    }
    *out = s;
    return FV_OK;
}

void fv_sampler_destroy(fv_sampler *s) {
    if (s == NULL) {
        return;
    }
    fvi_release(s->ctx, s->recent, (size_t)s->options.repeat_last, sizeof *s->recent);
    fvi_release(s->ctx, s->heap, (size_t)s->capacity, sizeof *s->heap);
    fvi_release(s->ctx, s->weight, (size_t)s->weights, sizeof *s->weight);
    fvi_release(s->ctx, s, 1, sizeof *s);
}

fv_status fv_sampler_accept(fv_sampler *s, int32_t token) {
    if (token < 0) {
        return fvi_fail(s->ctx, FV_ERR_ARGUMENT, "token %d: ids are 0 or more", (int)token);
    }
    if (s->options.repeat_last > 0) {
        s->recent[s->next] = token;
        s->next = (s->next + 1) % s->options.repeat_last;
        s->n_recent = fvi_min(s->n_recent + 1, s->options.repeat_last);
    }
    return FV_OK;
}

/* ---- candidates ---- */

static inline bool before(candidate a, candidate b) { return a.value > b.value || (a.value == b.value && a.id < b.id); }

static void sink(candidate *heap, int64_t n, int64_t i) {
    candidate c = heap[i];
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= n) {
            break;
        }
        if (child + 1 < n && before(heap[child + 1], heap[child])) {
            child++;
        }
        if (!before(heap[child], c)) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = c;
}

/* Moves the best of heap[0..n) to heap[n - 1]: the kept ones stand at the array's end, the best last. */
static void pop(candidate *heap, int64_t n) {
    candidate best = heap[0];
    heap[0] = heap[n - 1];
    sink(heap, n - 1, 0);
    heap[n - 1] = best;
}

static fv_status load(fv_sampler *s, const float *logits, int64_t n) {
    bool any = false;
    for (int64_t i = 0; i < n; i++) {
        if (!(logits[i] < INFINITY)) {
            return fvi_fail(s->ctx, FV_ERR_ARGUMENT, "logit %lld is %g: the model's outputs are broken", (long long)i,
                            (double)logits[i]);
        }
        any |= logits[i] > -INFINITY;
        s->heap[i] = (candidate){logits[i], (int32_t)i};
    }
    if (!any) {
        return fvi_fail(s->ctx, FV_ERR_ARGUMENT, "all %lld logits are -inf: there is nothing to choose from", (long long)n);
    }
    /* From the logit itself, so that a token that stands twice among the recent ones is penalised once. */
    const float penalty = s->options.repeat_penalty;
    for (int64_t i = 0; i < s->n_recent && penalty != 1; i++) {
        int32_t id = s->recent[i];
        if (id < n) {
            s->heap[id].value = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
        }
    }
    return FV_OK;
}

static int32_t best_id(const candidate *c, int64_t n) {
    candidate best = c[0];
    for (int64_t i = 1; i < n; i++) {
        if (before(c[i], best)) {
            best = c[i];
        }
    }
    return best.id;
}

/* exp((value - most) / temperature): 1 for the best. */
static double weigh(const fv_sampler *s, float value, float most) {
    return exp(((double)value - (double)most) / (double)s->options.temperature);
}

/* Without filters no order is needed: the ids as they stand. */
static int32_t draw_unfiltered(fv_sampler *s, int64_t n) {
    float most = s->heap[0].value;
    for (int64_t i = 1; i < n; i++) {
        most = s->heap[i].value > most ? s->heap[i].value : most;
    }
    double total = 0;
    for (int64_t i = 0; i < n; i++) {
        total += s->weight[i] = weigh(s, s->heap[i].value, most);
    }
    double left = fvi_rng_unit(&s->rng) * total;
    int64_t pick = 0, last = 0;
    for (; pick < n && left >= s->weight[pick]; pick++) {
        left -= s->weight[pick];
        last = s->weight[pick] > 0 ? pick : last;
    }
    return s->heap[pick < n ? pick : last].id; /* past the end by rounding only */
}

static int32_t draw(fv_sampler *s, int64_t n) {
    const fv_sampler_options *o = &s->options;
    if (o->top_k == 0 && o->top_p >= 1 && o->min_p <= 0) {
        return draw_unfiltered(s, n);
    }
    const int64_t k = o->top_k > 0 ? fvi_min(o->top_k, n) : n;
    for (int64_t i = n / 2 - 1; i >= 0; i--) {
        sink(s->heap, n, i);
    }
    const float most = s->heap[0].value;
    double total = 0; /* over what top-k leaves: top-p is a share of it */
    int64_t popped = 0;
    if (k < n) {
        for (; popped < k; popped++) {
            pop(s->heap, n - popped);
            total += s->weight[popped] = weigh(s, s->heap[n - 1 - popped].value, most);
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            total += weigh(s, s->heap[i].value, most);
        }
    }
    double sum = 0;
    int64_t kept = 0;
    while (kept < k && (kept == 0 || sum < (double)o->top_p * total)) {
        if (kept == popped) {
            pop(s->heap, n - popped);
            s->weight[popped] = weigh(s, s->heap[n - 1 - popped].value, most);
            popped++;
        }
        if (s->weight[kept] < (double)o->min_p || s->weight[kept] == 0) {
            break;
        }
        sum += s->weight[kept++];
    }
    double left = fvi_rng_unit(&s->rng) * sum;
    int64_t pick = 0;
    while (pick + 1 < kept && left >= s->weight[pick]) {
        left -= s->weight[pick++];
    }
    return s->heap[n - 1 - pick].id;
}

fv_status fv_sample(fv_sampler *s, const float *logits, int64_t n_vocab, int32_t *out) {
    if (n_vocab < 1 || n_vocab > INT32_MAX || logits == NULL) {
        return fvi_fail(s->ctx, FV_ERR_ARGUMENT, "%lld logits cannot be sampled from", (long long)(logits == NULL ? 0 : n_vocab));
    }
    if (!fvi_grow(s->ctx, (void **)&s->heap, &s->capacity, n_vocab, sizeof *s->heap) ||
        !fvi_grow(s->ctx, (void **)&s->weight, &s->weights, n_vocab, sizeof *s->weight)) {
        return fvi_fail(s->ctx, FV_ERR_MEMORY, "no memory to sample from %lld logits", (long long)n_vocab);
    }
    fv_status status = load(s, logits, n_vocab);
    if (status != FV_OK) {
        return status;
    }
    *out = s->options.temperature > 0 ? draw(s, n_vocab) : best_id(s->heap, n_vocab);
    return fv_sampler_accept(s, *out);
}
