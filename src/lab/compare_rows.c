/* compare_rows.c - KL and agreement of next-token distributions with dense attention's, row by row as a prompt runs.
 *
 * What is kept of dense are log-probabilities in f32. The other side is rounded to f32 alike, so that equal logits cancel and a
 * recipe that computes what dense computes has a KL of exactly 0.
 */
#include "lab/compare.h"

#include <math.h>
#include <stdlib.h>

fv_status fvi_rows_open(fv_context *ctx, int64_t document, int64_t wanted, int64_t n_vocab, fvi_rows *rows) {
    int64_t from = document / 2, span = document - from;
    *rows = (fvi_rows){.from = from, .n_vocab = n_vocab, .every = wanted > 0 ? fvi_ceil_div(span, wanted) : 1};
    rows->most = wanted > 0 ? fvi_ceil_div(span, rows->every) : 0;
    if (rows->most == 0) {
        return FV_OK;
    }
    rows->reference = fvi_alloc(ctx, (size_t)rows->most, (size_t)n_vocab * sizeof *rows->reference);
    rows->kl = fvi_alloc(ctx, (size_t)rows->most, sizeof *rows->kl);
    if (rows->reference == NULL || rows->kl == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for the reference: %lld rows of %lld log-probabilities",
                        (long long)rows->most, (long long)n_vocab);
    }
    return FV_OK;
}

void fvi_rows_close(fv_context *ctx, fvi_rows *rows) {
    fvi_release(ctx, rows->reference, (size_t)rows->most, (size_t)rows->n_vocab * sizeof *rows->reference);
    fvi_release(ctx, rows->kl, (size_t)rows->most, sizeof *rows->kl);
    *rows = (fvi_rows){.n_vocab = rows->n_vocab};
}

void fvi_rows_begin(fvi_rows *rows, bool fills) {
    rows->n = rows->agree = 0;
    rows->seconds = 0;
    rows->fills = fills;
}

static void keep_row(fvi_rows *s, const float *logits) {
    double lse = fvi_lab_lse(logits, s->n_vocab);
    float *reference = s->reference + s->n * s->n_vocab;
    for (int64_t i = 0; i < s->n_vocab; i++) {
        reference[i] = (float)(logits[i] - lse);
    }
    s->kl[s->n] = 0;
    s->agree++;
}

static void compare_row(fvi_rows *s, const float *logits) {
    double lse = fvi_lab_lse(logits, s->n_vocab), kl = 0;
    const float *reference = s->reference + s->n * s->n_vocab;
    for (int64_t i = 0; i < s->n_vocab; i++) {
        double p = reference[i], q = (float)(logits[i] - lse);
        kl += p > -INFINITY && p != q ? exp(p) * (p - q) : 0;
    }
    s->kl[s->n] = kl < 0 ? 0 : kl;
    s->agree += fvi_lab_argmax(reference, s->n_vocab) == fvi_lab_argmax(logits, s->n_vocab);
}

void fvi_rows_take(fvi_rows *s, const float *logits) {
    if (s->n < s->most) {
        double start = fvi_seconds();
        (s->fills ? keep_row : compare_row)(s, logits);
        s->n++;
        s->seconds += fvi_seconds() - start;
    }
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void fvi_rows_summarise(fvi_rows *s, fv_compare_row *out) {
    double sum = 0;
    for (int64_t i = 0; i < s->n; i++) {
        sum += s->kl[i];
    }
    out->rows = s->n;
    if (s->n > 0) {
        qsort(s->kl, (size_t)s->n, sizeof *s->kl, by_size);
        out->kl = sum / (double)s->n;
        out->kl_p99 = s->kl[fvi_ceil_div(s->n * 99, 100) - 1];
        out->top1 = (double)s->agree / (double)s->n;
    }
}
