/* needle.c - are facts hidden in a long text found again? At each length and depth a document is made with a few facts near that
 * depth, and each is asked for at the end, greedily, in a prompt that ends in "Answer:".
 *
 *   needle --lengths 12288,30720 --depths 10 --keys 3 --at-least 59
 *   needle -a window:size=1024 --at-most 0 --lengths 12288
 *
 * Exit: 0 if dense attention finds at least --at-least and the recipe no more than --at-most; 1 if not; 2 for wrong options;
 * 77 where model or text is missing.
 */
#include <fovea/fovea.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_LENGTHS = 16, MOST_KEYS = 16 };

typedef struct arguments {
    const char *model, *text, *recipe; /* recipe NULL: dense alone */
    int64_t length[MOST_LENGTHS];
    int lengths, depths, keys, threads;
    long at_least, at_most; /* -1: not asked */
    unsigned long long seed;
    bool json;
} arguments;

typedef struct needle {
    char fact[128], question[160], answer[16];
} needle;

typedef struct found {
    int dense, recipe, asked;
} found;

static unsigned long long next_random(unsigned long long *state) {
    unsigned long long z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* ---- options ---- */

static const char usage[] =
    "usage: needle [-m MODEL] [-f TEXT] [-a RECIPE] [--lengths N,N..] [--depths N] [--keys N] [--threads N]\n"
    "              [--at-least N] [--at-most N] [--seed N] [--json]\n";

static bool number(const char *text, long least, long most, long *out) {
    char *end;
    *out = strtol(text, &end, 10);
    return end != text && *end == '\0' && *out >= least && *out <= most;
}

static bool take_lengths(const char *text, arguments *a) {
    a->lengths = 0;
    for (const char *p = text; a->lengths < MOST_LENGTHS;) {
        char *end;
        long n = strtol(p, &end, 10);
        if (end == p || n < 256 || n > 1 << 30 || (*end != ',' && *end != '\0')) {
            return false;
        }
        a->length[a->lengths++] = n;
        if (*end == '\0') {
            return true;
        }
        p = end + 1;
    }
    return false;
}

static bool take(int option, const char *value, arguments *a) {
    long n = 0;
    bool good = true;
    switch (option) {
    case 'm':
        a->model = value;
        break;
    case 'f':
        a->text = value;
        break;
    case 'a':
        a->recipe = value;
        break;
    case 'l':
        good = take_lengths(value, a);
        break;
    case 'd':
        good = number(value, 1, 1000, &n), a->depths = (int)n;
        break;
    case 'k':
        good = number(value, 1, MOST_KEYS, &n), a->keys = (int)n;
        break;
    case 't':
        good = number(value, 0, 256, &n), a->threads = (int)n;
        break;
    case 'x':
        good = number(value, 0, 1 << 20, &a->at_least);
        break;
    case 'y':
        good = number(value, 0, 1 << 20, &a->at_most);
        break;
    case 's':
        good = number(value, 0, 1 << 30, &n), a->seed = (unsigned long long)n;
        break;
    case 'j':
        a->json = true;
        break;
    default:
        good = false;
    }
    return good;
}

static bool parse(int argc, char **argv, arguments *a) {
    static const struct option option[] = {
        {"model", 1, NULL, 'm'},   {"file", 1, NULL, 'f'}, {"attention", 1, NULL, 'a'}, {"lengths", 1, NULL, 'l'},
        {"depths", 1, NULL, 'd'},  {"keys", 1, NULL, 'k'}, {"threads", 1, NULL, 't'},   {"at-least", 1, NULL, 'x'},
        {"at-most", 1, NULL, 'y'}, {"seed", 1, NULL, 's'}, {"json", 0, NULL, 'j'},      {0},
    };
    for (int c; (c = getopt_long(argc, argv, "m:f:a:", option, NULL)) != -1;) {
        if (!take(c, optarg, a)) {
            return false;
        }
    }
    return optind == argc;
}

static char *read_text(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    long n = file != NULL && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    if (n > 0 && (text = malloc((size_t)n)) != NULL) {
        rewind(file);
        *size = fread(text, 1, (size_t)n, file);
    }
    if (file != NULL) {
        fclose(file);
    }
    return text;
}

/* ---- one document ---- */

/* No two needles of a document share a key. */
static void make_needle(needle *n, unsigned first, int i, unsigned long long *random) {
    static const char *const word[] = {"harbour", "garden",  "river",  "lantern", "mountain", "violin", "copper",
                                       "winter",  "orchard", "castle", "bridge",  "falcon",   "marble", "candle",
                                       "forest",  "anchor",  "silver", "meadow",  "thunder",  "compass"};
    enum { WORDS = sizeof word / sizeof word[0] };
    const char *a = word[(first + (unsigned)i) % WORDS];
    const char *b = word[next_random(random) % WORDS];
    snprintf(n->answer, sizeof n->answer, "%llu", 1000000 + next_random(random) % 9000000);
    snprintf(n->fact, sizeof n->fact, "The special magic number for %s-%s is: %s.", a, b, n->answer);
    snprintf(n->question, sizeof n->question, "What is the special magic number for %s-%s mentioned in the text?", a, b);
}

/* Text from a random place on, with the needles a few hundred tokens apart from `depth` on. */
static fv_status ask(fv_model *model, const arguments *a, const char *text, size_t size, int64_t length, double depth,
                     unsigned long long *random, found *out) {
    needle needles[MOST_KEYS];
    fv_fact fact[MOST_KEYS];
    unsigned first = (unsigned)(next_random(random) % 1000);
    for (int i = 0; i < a->keys; i++) {
        double at = depth + 300.0 * i / (double)length;
        make_needle(&needles[i], first, i, random);
        fact[i] = (fv_fact){needles[i].fact, needles[i].question, needles[i].answer, at < 1 ? at : 1};
    }
    size_t slice = (size_t)length * 8 < size ? (size_t)length * 8 : size;
    fv_compare_options o = fv_compare_options_default();
    o.text = text + next_random(random) % (size - slice + 1);
    o.size = slice;
    o.lengths = &length, o.n_lengths = 1;
    o.recipes = &a->recipe, o.n_recipes = a->recipe != NULL;
    o.facts = fact, o.n_facts = a->keys;
    o.rows = 0;
    fv_compare *c;
    fv_status status = fv_compare_run(model, &o, &c);
    if (status == FV_OK) {
        *out = (found){fv_compare_row_at(c, 0)->greedy, a->recipe != NULL ? fv_compare_row_at(c, 1)->greedy : 0, a->keys};
        fv_compare_destroy(c);
    }
    return status;
}

/* ---- all ---- */

static void print_row(const arguments *a, int64_t length, double depth, const found *f, bool first) {
    if (a->json) {
        printf("%s\n    {\"length\": %lld, \"depth\": %.3f, \"asked\": %d, \"dense\": %d", first ? "" : ",", (long long)length,
               depth, f->asked, f->dense);
        if (a->recipe != NULL) {
            printf(", \"recipe\": %d", f->recipe);
        }
        putchar('}');
    } else {
        printf("%8lld  %5.3f  dense %d of %d", (long long)length, depth, f->dense, f->asked);
        if (a->recipe != NULL) {
            printf(", %s %d of %d", a->recipe, f->recipe, f->asked);
        }
        putchar('\n');
    }
    fflush(stdout);
}

static fv_status ask_all(fv_model *model, const arguments *a, const char *text, size_t size, found *sum) {
    unsigned long long random = a->seed;
    for (int l = 0; l < a->lengths; l++) {
        for (int d = 0; d < a->depths; d++) {
            double depth = (d + .5) / a->depths;
            found f;
            fv_status status = ask(model, a, text, size, a->length[l], depth, &random, &f);
            if (status != FV_OK) {
                return status;
            }
            print_row(a, a->length[l], depth, &f, sum->asked == 0);
            *sum = (found){sum->dense + f.dense, sum->recipe + f.recipe, sum->asked + f.asked};
        }
    }
    return FV_OK;
}

static int finish(const arguments *a, const found *sum) {
    if (a->json) {
        printf("\n  ],\n  \"seed\": %llu, \"asked\": %d, \"dense\": %d", a->seed, sum->asked, sum->dense);
        if (a->recipe != NULL) {
            printf(", \"recipe\": %d", sum->recipe);
        }
        printf("\n}\n");
    } else {
        printf("dense attention answers %d of %d exactly", sum->dense, sum->asked);
        if (a->recipe != NULL) {
            printf(", %s %d", a->recipe, sum->recipe);
        }
        printf(" (seed %llu)\n", a->seed);
    }
    bool low = a->at_least >= 0 && sum->dense < a->at_least, high = a->at_most >= 0 && sum->recipe > a->at_most;
    return low || high ? 1 : 0;
}

int main(int argc, char **argv) {
    arguments a = {.model = "models/fovea-27m-32k-q8_0.gguf",
                   .text = "models/data/moby-dick.txt",
                   .length = {12288, 30720},
                   .lengths = 2,
                   .depths = 10,
                   .keys = 3,
                   .at_least = -1,
                   .at_most = -1,
                   .seed = 11};
    if (!parse(argc, argv, &a)) {
        fputs(usage, stderr);
        return 2;
    }
    size_t size = 0;
    char *text = read_text(a.text, &size);
    if (text == NULL || access(a.model, R_OK) != 0) {
        fprintf(stderr, "needle: cannot read %s\n", text == NULL ? a.text : a.model);
        free(text);
        return 77;
    }
    fv_context *ctx = NULL;
    fv_model *model = NULL;
    found sum = {0};
    fv_status status = fv_context_create(&(fv_context_options){a.threads, FV_LEVEL_BEST, NULL}, &ctx);
    if (status == FV_OK) {
        status = fv_model_open(ctx, a.model, NULL, &model);
    }
    if (status == FV_OK) {
        fputs(a.json ? "{\n  \"documents\": [" : "", stdout);
        status = ask_all(model, &a, text, size, &sum);
    }
    int code = status == FV_OK ? finish(&a, &sum) : 1;
    if (status != FV_OK) {
        fprintf(stderr, "needle: %s\n", ctx != NULL ? fv_message(ctx) : fv_status_name(status));
    }
    fv_model_destroy(model);
    fv_context_destroy(ctx);
    free(text);
    return code;
}
