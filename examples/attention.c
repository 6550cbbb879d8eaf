/* attention.c - attention in one call, checked against the textbook loop.
 *   cc attention.c $(pkg-config --cflags --libs fovea) -lm && ./a.out
 */
#include <fovea/fovea.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 4, KV_HEADS = 2, ROWS = 200, WIDTH = 64 };

static float q[HEADS * ROWS * WIDTH], k[KV_HEADS * ROWS * WIDTH], v[KV_HEADS * ROWS * WIDTH], out[HEADS * ROWS * WIDTH];

static void fill(float *x, int n) {
    for (int i = 0; i < n; i++) {
        x[i] = (float)rand() / (float)RAND_MAX * 4 - 2;
    }
}

/* One row as every paper writes it: softmax(q k^T / sqrt(d)) v over the keys up to the query's own. */
static void naive_row(int head, int row, double *result) {
    int kv = head / (HEADS / KV_HEADS);
    const float *query = q + (head * ROWS + row) * WIDTH;
    double score[ROWS], most = -INFINITY, sum = 0;
    for (int j = 0; j <= row; j++) {
        score[j] = 0;
        for (int c = 0; c < WIDTH; c++) {
            score[j] += (double)query[c] * (double)k[(kv * ROWS + j) * WIDTH + c];
        }
        score[j] /= sqrt(WIDTH);
        most = fmax(most, score[j]);
    }
    for (int c = 0; c < WIDTH; c++) {
        result[c] = 0;
    }
    for (int j = 0; j <= row; j++) {
        double weight = exp(score[j] - most);
        sum += weight;
        for (int c = 0; c < WIDTH; c++) {
            result[c] += weight * (double)v[(kv * ROWS + j) * WIDTH + c];
        }
    }
    for (int c = 0; c < WIDTH; c++) {
        result[c] /= sum;
    }
}

int main(void) {
    srand(1);
    fill(q, HEADS * ROWS * WIDTH);
    fill(k, KV_HEADS * ROWS * WIDTH);
    fill(v, KV_HEADS * ROWS * WIDTH);

    fv_context *ctx;
    if (fv_context_create(NULL, &ctx) != FV_OK) {
        return 1;
    }
    /* views borrow the arrays: (batch, heads, rows, width), slowest first */
    fv_tensor tq = fv_tensor_view(q, FV_F32, 1, HEADS, ROWS, WIDTH), tk = fv_tensor_view(k, FV_F32, 1, KV_HEADS, ROWS, WIDTH);
    fv_tensor tv = fv_tensor_view(v, FV_F32, 1, KV_HEADS, ROWS, WIDTH), to = fv_tensor_view(out, FV_F32, 1, HEADS, ROWS, WIDTH);
    fv_status status = fv_attention(ctx, &tq, &tk, &tv, true, &to, NULL);
    if (status != FV_OK) {
        fprintf(stderr, "%s: %s\n", fv_status_name(status), fv_message(ctx));
        fv_context_destroy(ctx);
        return 1;
    }
    double worst = 0;
    for (int head = 0; head < HEADS; head++) {
        for (int row = 0; row < ROWS; row++) {
            double want[WIDTH];
            naive_row(head, row, want);
            for (int c = 0; c < WIDTH; c++) {
                worst = fmax(worst, fabs((double)out[(head * ROWS + row) * WIDTH + c] - want[c]));
            }
        }
    }
    printf("fovea %s, %s kernels, %d threads: largest difference from the naive loop %.1e\n", fv_version(),
           fv_level_name(fv_context_level(ctx)), fv_threads(ctx), worst);
    fv_context_destroy(ctx);
    return worst < 1e-5 ? 0 : 1;
}
