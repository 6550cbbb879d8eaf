/* tokenizer.c - speed of the tokenizers: MB/s on two books for each vocabulary, and how time grows from 100 KB to 1 MB on texts
 * that have no words: one letter, spaces, CJK. Time is this thread's CPU time, the best of some runs.
 *
 *   build/bench/tokenizer          in the project's root; ends with 1 if a bar is missed (5 MB/s, 14 times the time)
 */
#include "golden.h"

#include <string.h>
#include <time.h>

static const double least_speed = 5, most_growth = 14;

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double best_of(int runs, fv_context *ctx, const fv_vocab *v, const char *text, size_t size, int64_t *n) {
    double best = 1e9;
    for (int i = 0; i < runs; i++) {
        fv_tokens tokens = {NULL, 0, 0};
        double start = cpu_seconds();
        if (fv_tokenize(ctx, v, text, size, false, &tokens) != FV_OK) {
            fprintf(stderr, "%s\n", fv_message(ctx));
            exit(2);
        }
        double seconds = cpu_seconds() - start;
        best = seconds < best ? seconds : best;
        *n = tokens.n;
        fv_tokens_release(ctx, &tokens);
    }
    return best;
}

/* Prints a row; true if it is fast enough. */
static bool book(fv_context *ctx, const char *name, const fv_vocab *v, const char *path) {
    size_t size;
    char *text = golden_file(path, &size);
    if (text == NULL) {
        fprintf(stderr, "%s cannot be read: run this in the project's root\n", path);
        exit(2);
    }
    int64_t n;
    double speed = (double)size / best_of(5, ctx, v, text, size, &n) / 1e6;
    printf("%-8s  %-36s %9lld tokens  %7.1f MB/s\n", name, path, (long long)n, speed);
    free(text);
    return speed >= least_speed;
}

static bool hostile(fv_context *ctx, const char *name, const fv_vocab *v, const char *what, const char *unit) {
    enum { SMALL = 100000, LARGE = 1000000 };
    static char text[LARGE];
    size_t size = strlen(unit);
    for (size_t i = 0; i < LARGE; i++) {
        text[i] = unit[i % size];
    }
    int64_t n;
    double small = best_of(15, ctx, v, text, SMALL / size * size, &n), large = best_of(7, ctx, v, text, LARGE / size * size, &n);
    printf("%-8s  %-36s %9.2f ms, 1 MB %7.2f ms, %5.2f times\n", name, what, small * 1e3, large * 1e3, large / small);
    return large / small <= most_growth;
}

int main(void) {
    fv_context *ctx;
    bool good = true;
    if (fv_context_create(&(fv_context_options){.threads = 1, .level = FV_LEVEL_BEST}, &ctx) != FV_OK) {
        return 2;
    }
    for (int i = 0; i < GOLDEN_NAMES; i++) {
        fv_vocab *v;
        if (golden_vocab(ctx, golden_name[i], &v) != FV_OK) {
            fprintf(stderr, "%s\n", fv_message(ctx));
            return 2;
        }
        good &= book(ctx, golden_name[i], v, "models/data/moby-dick.txt");
        good &= book(ctx, golden_name[i], v, "models/data/pride-and-prejudice.txt");
        good &= hostile(ctx, golden_name[i], v, "100 KB of a", "a");
        good &= hostile(ctx, golden_name[i], v, "100 KB of spaces", " ");
        good &= hostile(ctx, golden_name[i], v, "100 KB of CJK", "\u65e5\u672c\u8a9e\u4e2d\u6587\u5b57\u5217\u6f22");
        fv_vocab_destroy(v);
    }
    fv_context_destroy(ctx);
    puts(good ? "all within the bars: 5 MB/s, 14 times" : "a bar is missed: 5 MB/s, 14 times");
    return good ? 0 : 1;
}
