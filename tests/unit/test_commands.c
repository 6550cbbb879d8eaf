/* test_commands.c - what the commands do, on the default model: text, sessions, stop strings, JSON, arrays.
 * Usage: test_commands PROGRAM. Runs in the project's root. */
#include "npy.h"
#include "run_program.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cJSON.h>
#include <cmocka.h>

static char folder[] = "/tmp/fovea-commands-XXXXXX";

static int setup(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static const char *in_folder(const char *name) {
    static char path[16][128];
    static int next;
    next = (next + 1) % 16;
    snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
    return path[next];
}

/* stdout of a run that must succeed with an empty stderr; free() it. */
static char *output(const run_setup *s, const char *const *arguments) {
    run_result r = run_with(s, arguments);
    if (r.code != 0 || r.err[0]) {
        fail_msg("%s: exit %d, stderr: %s", arguments[0], r.code, r.err);
    }
    free(r.err);
    return r.out;
}

#define OUT(...) output(&(run_setup){.input = NULL}, (const char *const[]){__VA_ARGS__, NULL})

static cJSON *parse(char *text) {
    const char *end = NULL;
    cJSON *json = cJSON_ParseWithOpts(text, &end, false);
    if (!json || strspn(end, "\n") != strlen(end)) {
        fail_msg("not one JSON value: %.200s", text);
    }
    free(text);
    return json;
}

static double number(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    if (!cJSON_IsNumber(item)) {
        fail_msg("no number \"%s\"", name);
    }
    return item->valuedouble;
}

static const char *string(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    if (!cJSON_IsString(item)) {
        fail_msg("no string \"%s\"", name);
    }
    return item->valuestring;
}

/* ---- run ---- */

static const char question[] =
    "The special magic number for harbour is: 48213. It was a cold night and the wind came from the sea."
    "\n\nQuestion: What is the special magic number for harbour mentioned in the text?\nAnswer:";

static void run_answers_from_text_and_file(void **state) {
    (void)state;
    char *text = OUT("run", "-p", question, "-n", "8", "--temp", "0");
    assert_non_null(strstr(text, "48213"));
    FILE *f = fopen(in_folder("prompt.txt"), "wb");
    fputs(question, f);
    fclose(f);
    char *file = OUT("run", "-f", in_folder("prompt.txt"), "-n", "8", "--temp", "0");
    assert_string_equal(text, file);
    char *piped = output(&(run_setup){.input = question}, (const char *const[]){"run", "-f", "-", "-n", "8", NULL});
    assert_string_equal(text, piped);
    free(text);
    free(file);
    free(piped);
}

static void progress_never_reaches_stdout(void **state) {
    (void)state;
    char *plain = OUT("run", "-p", "Call me", "-n", "12");
    run_result r = RUN("run", "-p", "Call me", "-n", "12", "--progress", "--stats");
    assert_int_equal(r.code, 0);
    assert_string_equal(r.out, plain);
    assert_non_null(strstr(r.err, "tokens/s"));
    assert_non_null(strstr(r.err, "ms a prompt token: weights "));
    assert_non_null(strstr(r.err, "ms a generated token: weights "));
    run_free(&r);
    free(plain);
}

static void seeds_decide_what_is_sampled(void **state) {
    (void)state;
    char *a = OUT("run", "-p", "Call me", "-n", "24", "--temp", "1", "--seed", "7", "--top-k", "200", "--min-p", "0.001");
    char *b = OUT("run", "-p", "Call me", "-n", "24", "--temp", "1", "--seed", "7", "--top-k", "200", "--min-p", "0.001");
    char *c = OUT("run", "-p", "Call me", "-n", "24", "--temp", "1", "--seed", "8", "--top-k", "200", "--min-p", "0.001");
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
    free(a);
    free(b);
    free(c);
}

/* Every place of the greedy text is tried as a stop string, most of which span tokens. */
static void stop_strings_are_not_printed(void **state) {
    (void)state;
    char *whole = OUT("run", "-p", "It was a dark", "-n", "16");
    int n = (int)strlen(whole), tried = 0;
    for (int at = 1; at + 5 < n; at += 7) {
        char stop[6], *first;
        memcpy(stop, whole + at, 5);
        stop[5] = 0;
        first = strstr(whole, stop);
        char *cut = OUT("run", "-p", "It was a dark", "-n", "16", "--stop", "\x01 never", "--stop", stop);
        assert_int_equal(strlen(cut), first - whole);
        assert_memory_equal(cut, whole, strlen(cut));
        free(cut);
        tried++;
    }
    assert_true(tried >= 3);
    char *kept = OUT("run", "-p", "It was a dark", "-n", "16", "--stop", "no such words");
    assert_string_equal(kept, whole);
    free(kept);
    free(whole);
}

static void caches_are_kept_as_asked_for(void **state) {
    (void)state;
    static const char *const asked[][2] = {{"kv=q8_0", "kv=q8_0\""}, {"kv=q8_0/q4_0:rotate=1", "kv=q8_0/q4_0:rotate=1\""}};
    for (int i = 0; i < 2; i++) {
        run_result r = RUN("run", "-p", "Call me", "-n", "8", "--temp", "0", "--stats", "-a", asked[i][0]);
        assert_int_equal(r.code, 0);
        assert_true(strlen(r.out) > 5);
        assert_non_null(strstr(r.err, asked[i][1]));
        run_free(&r);
    }
    char *by_recipe = OUT("run", "-p", "Call me", "-n", "8", "--temp", "0", "-a", "kv=q8_0");
    char *by_option = OUT("run", "-p", "Call me", "-n", "8", "--temp", "0", "--kv", "q8_0");
    assert_string_equal(by_recipe, by_option);
    free(by_recipe);
    free(by_option);
}

static void a_saved_session_goes_on(void **state) {
    (void)state;
    const char *file = in_folder("a.session");
    char *whole = OUT("run", "-p", "It was a dark", "-n", "16");
    char *first = OUT("run", "-p", "It was a dark", "-n", "6", "--save", file);
    char *rest = OUT("run", "--load", file, "-p", "", "-n", "10");
    assert_int_equal(strncmp(whole, first, strlen(first)), 0);
    assert_string_equal(whole + strlen(first), rest);
    free(first);
    free(rest);
    char *more = OUT("run", "--load", file, "-p", question, "-n", "8");
    assert_non_null(strstr(more, "48213"));
    free(more);
    free(whole);
    FILE *f = fopen(file, "r+b");
    fseek(f, 3000, SEEK_SET);
    int byte = fgetc(f);
    fseek(f, 3000, SEEK_SET);
    fputc(byte ^ 1, f);
    fclose(f);
    run_result r = RUN("run", "--load", file, "-p", "x");
    assert_int_equal(r.code, 1);
    assert_int_equal(run_lines(r.err), 1);
    assert_int_equal(r.out_size, 0);
    run_free(&r);
}

static void a_conversation_ends(void **state) {
    (void)state;
    run_setup s = {.input = "Call me\n\n/new\nCall me\n/quit\nnever read\n"};
    char *text = output(&s, (const char *const[]){"run", "-n", "5", NULL});
    char *half = strchr(text, '\n');
    assert_non_null(half);
    *half = 0;
    size_t n = strlen(half + 1);
    assert_true(n > 1 && half[n] == '\n');
    half[n] = 0;
    assert_string_equal(text, half + 1); /* forgotten in between, so the same again, and nothing after /quit */
    free(text);
}

/* ---- measurements ---- */

static void perplexity_is_json(void **state) {
    (void)state;
    cJSON *json = parse(OUT("perplexity", "-f", "models/data/moby-dick.txt", "--ctx", "512", "--chunks", "2", "--json"));
    assert_int_equal(number(json, "windows"), 2);
    assert_true(number(json, "scored") >= 500 && number(json, "scored") <= 512);
    assert_true(fabs(log(number(json, "perplexity")) - number(json, "nll")) < 1e-6);
    assert_true(number(json, "perplexity") > 20 && number(json, "perplexity") < 200);
    assert_true(number(json, "seconds") > 0);
    cJSON_Delete(json);
}

static void compare_takes_any_text_and_recipes(void **state) {
    (void)state;
    cJSON *json = parse(OUT("compare", "-f", "models/data/pride-and-prejudice.txt", "--lengths", "512,768", "--rows", "32", "-a",
                            "window:size=128", "--json"));
    const cJSON *rows = cJSON_GetObjectItem(json, "rows");
    assert_int_equal(cJSON_GetArraySize(rows), 4);
    const cJSON *dense = cJSON_GetArrayItem(rows, 0), *window = cJSON_GetArrayItem(rows, 1);
    assert_true(number(dense, "kl") < 1e-6 && number(dense, "top1") == 1 && number(dense, "forced") >= 5);
    assert_true(number(window, "kl") > 1e-4 && number(window, "density") < 0.8 &&
                number(window, "forced") < number(dense, "forced"));
    assert_int_equal(number(window, "kv_bytes"), number(dense, "kv_bytes"));
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(window, "kv_masked_only")));
    assert_true(strlen(string(json, "verdict")) > 20);
    cJSON_Delete(json);
    char *table = OUT("compare", "--lengths", "512", "--rows", "16", "-a", "window:size=128");
    assert_non_null(strstr(table, "only masked: KV bytes equal dense's"));
    free(table);
}

static void info_knows_the_model(void **state) {
    (void)state;
    cJSON *json = parse(OUT("info", "--json", "--tensors"));
    assert_string_equal(string(json, "architecture"), "llama");
    assert_int_equal(number(json, "context"), 32768);
    assert_int_equal(number(json, "h_kv"), 2);
    assert_int_equal(number(json, "kv_bytes_per_token"), 8 * 2 * 64 * 2 * 2);
    assert_string_equal(string(cJSON_GetObjectItem(json, "vocabulary"), "kind"), "smollm");
    assert_true(cJSON_GetArraySize(cJSON_GetObjectItem(json, "tensors")) > 60);
    assert_true(number(cJSON_GetObjectItem(json, "bytes_by_dtype"), "q8_0") > 2e7);
    cJSON_Delete(json);
    char *text = OUT("info", "--tensors");
    assert_non_null(strstr(text, "blk.0.attn_q.weight"));
    free(text);
}

static void tokenize_speaks_json_lines(void **state) {
    (void)state;
    static const char lines[] = "{\"text\": \"Call me Ishmael.\"}\n{\"text\": \"\\u00e9\\n<|end|>\"}\n";
    char *out = output(&(run_setup){.input = lines}, (const char *const[]){"tokenize", "--jsonl", NULL});
    assert_int_equal(run_lines(out), 2);
    char *second = strchr(out, '\n') + 1;
    second[-1] = 0;
    cJSON *a = parse(strdup(out)), *b = parse(strdup(second)), *c = parse(OUT("tokenize", "--json", "Call me Ishmael."));
    assert_string_equal(string(a, "text"), "Call me Ishmael.");
    assert_string_equal(string(b, "text"), "\xc3\xa9\n<|end|>");
    assert_true(cJSON_Compare(cJSON_GetObjectItem(a, "ids"), cJSON_GetObjectItem(c, "ids"), true));
    assert_int_equal(number(c, "count"), cJSON_GetArraySize(cJSON_GetObjectItem(c, "pieces")));
    cJSON_Delete(a);
    cJSON_Delete(b);
    cJSON_Delete(c);
    free(out);
    run_result r =
        run_with(&(run_setup){.input = "{\"text\": \"a\"}\n{\"text\": 1}\n"}, (const char *const[]){"tokenize", "--jsonl", NULL});
    assert_int_equal(r.code, 2);
    assert_non_null(strstr(r.err, "line 2"));
    run_free(&r);
}

static void methods_are_json(void **state) {
    (void)state;
    cJSON *list = parse(OUT("methods", "--json"));
    bool window = false;
    int keyed = 0; /* different keys: methods that share one are a row of the catalogue together */
    assert_true(cJSON_IsArray(list));
    for (const cJSON *m = list->child; m; m = m->next) {
        static const char *const names[] = {"name", "title", "paper", "key"};
        for (int i = 0; i < 4; i++) {
            string(m, names[i]);
        }
        bool choice = string(m, "not_a_choice")[0] == 0; /* what a recipe can name stands on an axis; a tool stands on none */
        assert_true(cJSON_GetArraySize(cJSON_GetObjectItem(m, "axes")) > 0 || !choice);
        assert_true(cJSON_IsArray(cJSON_GetObjectItem(m, "has")) && cJSON_IsArray(cJSON_GetObjectItem(m, "parameters")));
        keyed += string(m, "key")[0] != 0;
        for (const cJSON *other = list->child; string(m, "key")[0] != 0 && other != m; other = other->next) {
            if (strcmp(string(other, "key"), string(m, "key")) == 0) {
                keyed--;
                break;
            }
        }
        if (strcmp(string(m, "name"), "window") == 0) {
            window = true;
            assert_string_equal(string(cJSON_GetObjectItem(m, "parameters")->child, "name"), "size");
        }
    }
    assert_true(window);
    cJSON_Delete(list);
    char *one = OUT("methods", "window");
    assert_non_null(strstr(one, "size"));
    free(one);
    char *tool = OUT("methods", "fusemax");
    assert_non_null(strstr(tool, "tool"));
    assert_non_null(strstr(tool, "not for a recipe"));
    free(tool);
    cJSON *counts = parse(OUT("methods", "--coverage", "--json"));
    assert_true(number(counts, "forward") >= 0 && number(counts, "forward") == keyed);
    number(counts, "gpu");
    cJSON_Delete(counts);
}

/* ---- attend ---- */

enum { HQ = 4, HKV = 2, NQ = 9, NKV = 21, D = 16 };

static void write_random(const char *path, int h, int n, unsigned seed) {
    float data[HQ * NKV * D];
    npy array = {.dtype = FV_F32, .rank = 3, .shape = {h, n, D}, .data = data};
    char error[256];
    srand(seed);
    for (int i = 0; i < h * n * D; i++) {
        data[i] = (float)rand() / (float)RAND_MAX * 4 - 2;
    }
    assert_true(npy_write(path, &array, error, sizeof error));
}

static npy load(const char *path) {
    npy array;
    char error[256];
    if (!npy_read(path, &array, error, sizeof error)) {
        fail_msg("%s", error);
    }
    return array;
}

/* Textbook attention of one query row in double: causal with the last query at the last key, a window, sinks. */
static double textbook_row(const float *q, const float *k, const float *v, int position, int window, int sinks, double *out) {
    double sum = 0, score[NKV];
    memset(out, 0, D * sizeof *out);
    for (int j = 0; j < NKV; j++) {
        double dot = 0;
        for (int c = 0; c < D; c++) {
            dot += (double)q[c] * (double)k[j * D + c];
        }
        bool seen = j <= position && (position - j < window || j < sinks);
        score[j] = seen ? exp(dot / sqrt(D)) : 0;
        sum += score[j];
    }
    for (int j = 0; j < NKV; j++) {
        for (int c = 0; c < D; c++) {
            out[c] += score[j] / sum * (double)v[j * D + c];
        }
    }
    return log(sum);
}

static void attend_is_attention(void **state) {
    (void)state;
    const char *q = in_folder("q.npy"), *k = in_folder("k.npy"), *v = in_folder("v.npy"), *out = in_folder("o.npy"),
               *lse = in_folder("l.npy");
    write_random(q, HQ, NQ, 1);
    write_random(k, HKV, NKV, 2);
    write_random(v, HKV, NKV, 3);
    cJSON *stats = parse(OUT("attend", "--q", q, "--k", k, "--v", v, "--out", out, "--lse", lse, "--causal", "--window", "5",
                             "--sinks", "2", "--stats"));
    assert_true(number(stats, "exact_pairs") == HQ * NQ * 7);
    cJSON_Delete(stats);
    npy aq = load(q), ak = load(k), av = load(v), ao = load(out), al = load(lse);
    assert_true(ao.rank == 3 && ao.shape[0] == HQ && ao.shape[1] == NQ && ao.shape[2] == D && al.rank == 2);
    for (int row = 0; row < HQ * NQ; row++) {
        double want[D];
        int head = row / NQ / (HQ / HKV), position = row % NQ + NKV - NQ;
        double l = textbook_row((float *)aq.data + row * D, (float *)ak.data + head * NKV * D, (float *)av.data + head * NKV * D,
                                position, 5, 2, want);
        assert_true(fabs(l - (double)((float *)al.data)[row]) < 1e-5);
        for (int c = 0; c < D; c++) {
            assert_true(fabs(want[c] - (double)((float *)ao.data)[row * D + c]) < 1e-5);
        }
    }
    npy *all[] = {&aq, &ak, &av, &ao, &al};
    for (int i = 0; i < 5; i++) {
        npy_free(all[i]);
    }
}

static void write_array(const char *path, fv_dtype dtype, int rank, const int64_t *shape, void *data) {
    npy array = {.dtype = dtype, .rank = rank, .data = data};
    char error[256];
    memcpy(array.shape, shape, (size_t)rank * sizeof *shape);
    assert_true(npy_write(path, &array, error, sizeof error));
}

/* All that the options add to a score, at once: cap, slopes, a bias that repeats over heads, masked keys, a sink logit. */
static void attend_takes_every_option(void **state) {
    (void)state;
    const char *q = in_folder("q.npy"), *k = in_folder("k.npy"), *v = in_folder("v.npy"), *out = in_folder("o2.npy"),
               *lse = in_folder("l2.npy"), *bias = in_folder("bias.npy"), *mask = in_folder("mask.npy"),
               *slopes = in_folder("slopes.npy"), *sinks = in_folder("sinks.npy");
    float b[NQ * NKV], slope[HQ] = {0.5f, 0.25f, 0, -0.125f}, sink[HQ] = {-1, 0, 1, 2};
    int32_t visible[NKV];
    for (int i = 0; i < NQ * NKV; i++) {
        b[i] = i % 11 == 3 ? -INFINITY : (float)(i % 7) / 4;
    }
    for (int j = 0; j < NKV; j++) {
        visible[j] = j % 5 != 2;
    }
    write_random(q, HQ, NQ, 1);
    write_random(k, HKV, NKV, 2);
    write_random(v, HKV, NKV, 3);
    write_array(bias, FV_F32, 3, (int64_t[]){1, NQ, NKV}, b);
    write_array(mask, FV_I32, 1, (int64_t[]){NKV}, visible);
    write_array(slopes, FV_F32, 1, (int64_t[]){HQ}, slope);
    write_array(sinks, FV_F32, 1, (int64_t[]){HQ}, sink);
    run_result r = RUN("attend", "--q", q, "--k", k, "--v", v, "--out", out, "--lse", lse, "--scale", "0.3", "--soft-cap", "2",
                       "--alibi-slopes", slopes, "--bias", bias, "--key-mask", mask, "--sink-logits", sinks);
    if (r.code != 0) {
        fail_msg("%s", r.err);
    }
    run_free(&r);
    npy aq = load(q), ak = load(k), av = load(v), ao = load(out), al = load(lse);
    for (int row = 0; row < HQ * NQ; row++) {
        int head = row / NQ, i = row % NQ, shared = head / (HQ / HKV);
        double sum = exp((double)sink[head]), want[D] = {0};
        for (int j = 0; j < NKV; j++) {
            double dot = 0;
            for (int c = 0; c < D; c++) {
                dot += (double)((float *)aq.data)[row * D + c] * (double)((float *)ak.data)[(shared * NKV + j) * D + c];
            }
            double score = 2 * tanh(0.3 * dot / 2) - (double)slope[head] * abs(i + NKV - NQ - j) + (double)b[i * NKV + j];
            double w = visible[j] ? exp(score) : 0;
            sum += w;
            for (int c = 0; c < D; c++) {
                want[c] += w * (double)((float *)av.data)[(shared * NKV + j) * D + c];
            }
        }
        assert_true(fabs(log(sum) - (double)((float *)al.data)[row]) < 1e-5);
        for (int c = 0; c < D; c++) {
            assert_true(fabs(want[c] / sum - (double)((float *)ao.data)[row * D + c]) < 1e-5);
        }
    }
    npy *all[] = {&aq, &ak, &av, &ao, &al};
    for (int i = 0; i < 5; i++) {
        npy_free(all[i]);
    }
}

static void attend_says_what_does_not_fit(void **state) {
    (void)state;
    const char *q = in_folder("q.npy"), *k = in_folder("k.npy"), *v = in_folder("v5.npy"), *out = in_folder("none.npy");
    write_random(q, HQ, NQ, 1);
    write_random(k, HKV, NKV, 2);
    write_random(v, HKV, NKV - 1, 3);
    static const struct {
        const char *option, *value, *part;
    } bad[] = {{"--scale", "1", "rows"}, {"--window", "0", "--window 0"}, {"--sink-logits", "/nowhere", "/nowhere"}};
    for (int i = 0; i < 3; i++) {
        run_result r = RUN("attend", "--q", q, "--k", k, "--v", v, "--out", out, bad[i].option, bad[i].value);
        if (r.code != 2 || run_lines(r.err) != 1 || !strstr(r.err, bad[i].part)) {
            fail_msg("%s %s: exit %d, %s", bad[i].option, bad[i].value, r.code, r.err);
        }
        assert_int_not_equal(access(out, F_OK), 0);
        run_free(&r);
        write_random(v, HKV, NKV, 3);
    }
    FILE *f = fopen(v, "r+b");
    assert_int_equal(ftruncate(fileno(f), 200), 0);
    fclose(f);
    run_result r = RUN("attend", "--q", q, "--k", k, "--v", v, "--out", out);
    assert_int_equal(r.code, 1);
    assert_int_equal(run_lines(r.err), 1);
    run_free(&r);
}

static double pairs_of(char *text) {
    cJSON *stats = parse(text);
    double pairs = cJSON_GetObjectItem(stats, "exact_pairs")->valuedouble;
    cJSON_Delete(stats);
    return pairs;
}

/* 21 tokens are a plane of 3 x 7, or a volume. */
static void attend_writes_the_index(void **state) {
    (void)state;
    const char *q = in_folder("q21.npy"), *k = in_folder("k.npy"), *v = in_folder("v.npy"), *out = in_folder("o.npy"),
               *index = in_folder("i.json");
    write_random(q, HQ, NKV, 1);
    write_random(k, HKV, NKV, 2);
    write_random(v, HKV, NKV, 3);
    free(OUT("attend", "--q", q, "--k", k, "--v", v, "--out", out, "--causal", "-a", "dilated:size=3:dilation=2", "--index",
             index));
    cJSON *json = parse(run_slurp(open(index, O_RDONLY), NULL));
    assert_string_equal(string(json, "recipe"), "prefill=dilated:size=3:dilation=2:fallback=0,decode=dense");
    const cJSON *tiles = cJSON_GetObjectItem(json, "tiles"), *tile = tiles->child;
    assert_int_equal(cJSON_GetArraySize(tiles), HQ); /* 21 rows are one tile */
    assert_int_equal(cJSON_GetArrayItem(cJSON_GetObjectItem(tile, "rows"), 1)->valueint, NKV);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(tile, "keys")), 1); /* each key is some row's */
    cJSON_Delete(json);
    run_result r = RUN("attend", "--q", q, "--k", k, "--v", v, "--out", out, "-a", "window:size=3", "--index", index);
    assert_true(r.code != 0 && strstr(r.err, "makes no index"));
    run_free(&r);
}

static void attend_takes_shapes(void **state) {
    (void)state;
    const char *q = in_folder("q21.npy"), *k = in_folder("k.npy"), *v = in_folder("v.npy"), *out = in_folder("o.npy");
    write_random(q, HQ, NKV, 1);
    write_random(k, HKV, NKV, 2);
    write_random(v, HKV, NKV, 3);
    static const struct {
        const char *recipe, *shape;
        int keys; /* that each query sees */
    } good[] = {{"gna:window=3", "3x7", 9},
                {"prefill=gna:window=7:window_h=1,decode=dense", "3x7", 7},
                {"faster-na:window=1:window_h=3", "3x7x1", 3},
                {"faster-na:window=5", "21", 5}};
    for (int i = 0; i < 4; i++) {
        char *text =
            OUT("attend", "--q", q, "--k", k, "--v", v, "--out", out, "-a", good[i].recipe, "--shape", good[i].shape, "--stats");
        assert_true(pairs_of(text) == HQ * NKV * good[i].keys);
    }
    static const struct {
        const char *recipe, *shape, *part;
    } bad[] = {{"gna:window=3", "3x", "--shape 3x"},      {"gna:window=3", "1x1x3x7", "three lengths"},
               {"gna:window=3", "3x8", "number of keys"}, {"window", "3x7", "window has no width"},
               {"halonet", "1x3x7", "no depth"},          {"", "3x7", "needs a method"}};
    for (int i = 0; i < 6; i++) {
        run_result r = RUN("attend", "--q", q, "--k", k, "--v", v, "--out", out, "-a", bad[i].recipe, "--shape", bad[i].shape);
        if (r.code == 0 || run_lines(r.err) != 1 || !strstr(r.err, bad[i].part)) {
            fail_msg("%s in %s: exit %d, %s", bad[i].recipe, bad[i].shape, r.code, r.err);
        }
        run_free(&r);
    }
}

enum { STEPS = 5 };

static void write_steps(const char *path, int h, unsigned seed) {
    static float data[STEPS * HQ * NKV * D];
    npy array = {.dtype = FV_F32, .rank = 4, .shape = {STEPS, h, NKV, D}, .data = data};
    char error[256];
    srand(seed);
    for (int i = 0; i < STEPS * h * NKV * D; i++) {
        data[i] = (float)rand() / (float)RAND_MAX * 4 - 2;
    }
    assert_true(npy_write(path, &array, error, sizeof error));
}

/* Steps 0 to 2 of 5 are full (skip = 0.2), two of three blocks of 8 tokens are visited in the others. */
static void attend_takes_steps(void **state) {
    (void)state;
    const char *q = in_folder("qs.npy"), *k = in_folder("ks.npy"), *v = in_folder("vs.npy"), *full = in_folder("of.npy"),
               *out = in_folder("os.npy"), *recipe = "sparsed:block=8:select=0.1";
    write_steps(q, HQ, 1);
    write_steps(k, HKV, 2);
    write_steps(v, HKV, 3);
    char *text = OUT("attend", "--q", q, "--k", k, "--v", v, "--out", out, "-a", recipe, "--steps", "5", "--stats");
    double all = HQ * NKV * NKV, pairs = pairs_of(text);
    assert_true(pairs < 5 * all && pairs > 3 * all);
    run_result r = RUN("attend", "--q", q, "--k", k, "--v", v, "--out", full);
    assert_int_equal(r.code, 0);
    run_free(&r);
    npy dense = load(full), sparse = load(out);
    size_t step = (size_t)HQ * NKV * D * sizeof(float);
    assert_true(dense.bytes == STEPS * step && sparse.bytes == STEPS * step);
    for (int i = 0; i < STEPS; i++) {
        bool same = memcmp((char *)dense.data + i * step, (char *)sparse.data + i * step, step) == 0;
        assert_int_equal(same, i < 3);
    }
    npy_free(&dense);
    npy_free(&sparse);
    static const char *const bad[][3] = {{"sparsed", "4", "5 sequences"}, {"gna", "5", "sparsed has steps"}};
    for (int i = 0; i < 2; i++) {
        r = RUN("attend", "--q", q, "--k", k, "--v", v, "--out", out, "-a", bad[i][0], "--steps", bad[i][1]);
        assert_true(r.code == 2 && run_lines(r.err) == 1 && strstr(r.err, bad[i][2]));
        run_free(&r);
    }
    r = RUN("attend", "--q", q, "--k", k, "--v", v, "--out", out, "-a", "sparsed");
    assert_true(r.code == 2 && strstr(r.err, "give --steps"));
    run_free(&r);
}

/* What works on arrays alone is refused by a model, with the reason. */
static void run_refuses_what_has_no_line(void **state) {
    (void)state;
    static const char *const bad[][2] = {
        {"gna:window=3:width=7:height=3", "--shape"}, {"halonet", "--shape"}, {"sparsed", "--steps"}};
    for (int i = 0; i < 3; i++) {
        run_result r = RUN("run", "-p", "x", "-n", "1", "-a", bad[i][0]);
        assert_true(r.code != 0 && run_lines(r.err) == 1 && strstr(r.err, bad[i][1]));
        run_free(&r);
    }
}

int main(int argc, char **argv) {
    if (argc < 2) {
        return 77;
    }
    run_path = realpath(argv[1], NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_answers_from_text_and_file),
        cmocka_unit_test(progress_never_reaches_stdout),
        cmocka_unit_test(seeds_decide_what_is_sampled),
        cmocka_unit_test(stop_strings_are_not_printed),
        cmocka_unit_test(caches_are_kept_as_asked_for),
        cmocka_unit_test(a_saved_session_goes_on),
        cmocka_unit_test(a_conversation_ends),
        cmocka_unit_test(perplexity_is_json),
        cmocka_unit_test(compare_takes_any_text_and_recipes),
        cmocka_unit_test(info_knows_the_model),
        cmocka_unit_test(tokenize_speaks_json_lines),
        cmocka_unit_test(methods_are_json),
        cmocka_unit_test(attend_is_attention),
        cmocka_unit_test(attend_takes_every_option),
        cmocka_unit_test(attend_says_what_does_not_fit),
        cmocka_unit_test(attend_writes_the_index),
        cmocka_unit_test(attend_takes_shapes),
        cmocka_unit_test(attend_takes_steps),
        cmocka_unit_test(run_refuses_what_has_no_line),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
