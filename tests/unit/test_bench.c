/* test_bench.c - `fovea bench` from outside: names, JSON, filters, masks' pairs against a count of our own, two builds, refusals.
 * Usage: test_bench PROGRAM. */
#include "run_program.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cJSON.h>
#include <cmocka.h>

static char *output(run_result r) {
    if (r.code != 0 || r.err[0]) {
        fail_msg("exit %d, stderr: %s", r.code, r.err);
    }
    free(r.err);
    return r.out;
}

static cJSON *rows(run_result r) {
    char *text = output(r);
    cJSON *list = cJSON_Parse(text);
    if (!cJSON_IsArray(list)) {
        fail_msg("no JSON list: %.200s", text);
    }
    free(text);
    return list;
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

/* The row whose name begins so; NULL if there is none. */
static const cJSON *row_of(const cJSON *list, const char *start) {
    const cJSON *row;
    cJSON_ArrayForEach(row, list) {
        if (strncmp(string(row, "case"), start, strlen(start)) == 0) {
            return row;
        }
    }
    return NULL;
}

static void check_spread(const cJSON *row, double middle) {
    const cJSON *s = cJSON_GetObjectItemCaseSensitive(row, "spread");
    assert_true(number(s, "min") > 0 && number(s, "min") <= number(s, "q1") && number(s, "q1") <= middle);
    assert_true(middle <= number(s, "q3") && number(s, "q3") <= number(s, "max"));
}

static void refused(run_result r, int code, const char *word) {
    if (r.code != code || run_lines(r.err) != 1 || !strstr(r.err, word) || r.out_size) {
        fail_msg("exit %d, wanted %d and one line with \"%s\": %s", r.code, code, word, r.err);
    }
    run_free(&r);
}

/* ---- names ---- */

static void names_tell_the_kernel(void **state) {
    (void)state;
    char *best = output(RUN("bench", "--list")), *portable = output(RUN("bench", "--list", "--level", "c"));
    assert_non_null(strstr(best, "prefill/bf16/h32x8/d128/n4096/causal/"));
    assert_non_null(strstr(best, "decode/f16/h32x8/d128/n131072/"));
    assert_null(strstr(best, "masks/"));
    for (char *line = strtok(portable, "\n"); line; line = strtok(NULL, "\n")) {
        assert_string_equal(line + strlen(line) - 2, "/c");
        char name[256];
        snprintf(name, sizeof name, "%.*s", (int)strlen(line) - 1, line);
        assert_non_null(strstr(best, name)); /* the same cases whatever the level */
    }
    bool pairs = strstr(best, "prefill/bf16/h32x8/d128/n4096/causal/avx512bf16\n") ||
                 strstr(best, "prefill/bf16/h32x8/d128/n4096/causal/amx\n");
    assert_int_equal(pairs,
                     strstr(best, "decode/bf16/h32x8/d128/n4096/avx512bf16\n") != NULL); /* prompts take them if steps do */
    free(best);
    free(portable);
}

static void globs_filter(void **state) {
    (void)state;
    char *one = output(RUN("bench", "decode", "--list", "--case", "decode/f16/h8x2/d64/n31000/*"));
    assert_int_equal(run_lines(one), 1);
    char *masks = output(RUN("bench", "--list", "--case", "masks/causal/*"));
    assert_int_equal(run_lines(masks), 5); /* a glob reaches every group */
    free(one);
    free(masks);
    refused(RUN("bench", "decode", "--list", "--case", "prefill/*"), 2, "--case prefill/*");
}

/* ---- figures ---- */

static void rows_have_ceilings(void **state) {
    (void)state;
    cJSON *list = rows(RUN("bench", "--json", "--runs", "3", "--case", "decode/bf16/h8x2/d64/n31000/*"));
    static const char *const names[] = {"fma", "vdpbf16ps", "vpdpbusd", "tdpbf16ps", "read", "clock"};
    for (int i = 0; i < 6; i++) {
        char name[64];
        snprintf(name, sizeof name, "ceiling/%s", names[i]);
        const cJSON *row = row_of(list, name);
        assert_non_null(row);
        assert_string_equal(string(row, "ceiling_name"), names[i]);
        assert_true(number(row, "value") == number(row, "ceiling"));
    }
    assert_int_equal(cJSON_GetArraySize(list), 7);
    const cJSON *row = row_of(list, "decode/bf16/h8x2/d64/n31000/");
    assert_non_null(row);
    assert_string_equal(string(row, "unit"), "GB/s");
    assert_string_equal(string(row, "ceiling_name"), "read");
    assert_true(number(row, "ceiling") == number(row_of(list, "ceiling/read"), "value"));
    assert_true(fabs(number(row, "value") / number(row, "ceiling") - number(row, "fraction")) < 1e-9);
    assert_true(number(row, "runs") == 3);
    check_spread(row, number(row, "value"));
    const char *kernel = strrchr(string(row, "case"), '/') + 1; /* pairs of bf16 wherever there are products of them */
    bool pairs = strcmp(kernel, "avx512bf16") == 0 || strcmp(kernel, "amx") == 0;
    assert_int_equal(pairs, number(row_of(list, "ceiling/vdpbf16ps"), "value") > 0);
    cJSON_Delete(list);
}

static void prompts_name_the_ceiling_of_their_form(void **state) {
    (void)state;
    cJSON *list = rows(RUN("bench", "attention", "--json", "--runs", "1", "--no-ceilings", "--case", "prefill/*/n128/*"));
    assert_int_equal(cJSON_GetArraySize(list) >= 3, 1);
    assert_string_equal(string(row_of(list, "prefill/f32/"), "ceiling_name"), "fma");
    assert_string_equal(string(row_of(list, "prefill/f16/"), "ceiling_name"), "fma");
    const cJSON *pairs = row_of(list, "prefill/bf16/");
    const char *kernel = strrchr(string(pairs, "case"), '/') + 1;
    const char *wanted = strcmp(kernel, "amx") == 0 ? "tdpbf16ps" : strcmp(kernel, "avx512bf16") == 0 ? "vdpbf16ps" : "fma";
    assert_string_equal(string(pairs, "ceiling_name"), wanted);
    assert_true(number(pairs, "value") > 0 && number(pairs, "fraction") == 0);
    cJSON_Delete(list);
}

static void batches_are_compared(void **state) {
    (void)state;
    cJSON *list = rows(RUN("bench", "--json", "--runs", "3", "--no-ceilings", "--case", "decode/batch8/*/bf16/h8x2/*"));
    const cJSON *uneven = row_of(list, "decode/batch8/uneven/"), *even = row_of(list, "decode/batch8/even/"),
                *ratio = row_of(list, "decode/batch8/ratio/");
    assert_true(uneven && even && ratio);
    double apart = number(uneven, "value") / number(even, "value"), together = number(ratio, "value");
    assert_true(together > 0.3 * apart && together < 3 * apart); /* timed anew, in turn */
    assert_string_equal(string(ratio, "unit"), "x");
    assert_non_null(strstr(string(ratio, "case"), "/n207400/"));
    check_spread(ratio, number(ratio, "value"));
    cJSON_Delete(list);
}

/* The case's parts, below it: each stage, their sum, and for prompts attention by itself. */
static void check_parts(const cJSON *list, const char *name, bool alone) {
    static const char *const stages[] = {"weights", "attention", "rows", "cache", "embedding", "head"};
    char start[96];
    double total = 0;
    for (int i = 0; i < 6; i++) {
        snprintf(start, sizeof start, "%s/%s/", name, stages[i]);
        const cJSON *row = row_of(list, start);
        assert_non_null(row);
        assert_string_equal(string(row, "unit"), "ms");
        assert_string_equal(string(row, "ceiling_name"), "end_to_end");
        assert_true(number(row, "value") > 0 && number(row, "fraction") > 0 && number(row, "fraction") < 1);
        total += number(row, "value");
    }
    snprintf(start, sizeof start, "%s/sum/", name);
    const cJSON *sum = row_of(list, start);
    assert_non_null(sum);
    assert_true(fabs(number(sum, "value") - total) < 1e-6 * total); /* of one run: medians are the run's own */
    assert_true(isfinite(number(sum, "fraction")) && number(sum, "fraction") > 0);
    snprintf(start, sizeof start, "%s/attention_alone/", name);
    const cJSON *by_itself = row_of(list, start);
    assert_int_equal(by_itself != NULL, alone);
    assert_true(!alone || (number(by_itself, "value") > 0 && isfinite(number(by_itself, "of_stage"))));
}

static void models_have_parts(void **state) {
    (void)state;
    cJSON *list = rows(RUN("bench", "model", "--json", "--runs", "1", "--no-ceilings", "--case", "model/*/n[15]*/*"));
    assert_int_equal(cJSON_GetArraySize(list), 2 + 2 * 7 + 1);
    assert_string_equal(string(list->child, "unit"), "tokens/s"); /* a case's own row comes first: --against reads that */
    check_parts(list, "model/prompt/n512", true);
    check_parts(list, "model/generate/n16", false);
    cJSON_Delete(list);
}

static void passes_have_a_state(void **state) {
    (void)state;
    cJSON *list = rows(RUN("bench", "passes", "--json", "--quiet", "--no-ceilings", "--case", "*/f32/*/n1024/*"));
    assert_int_equal(cJSON_GetArraySize(list), 2);
    const cJSON *prompt = row_of(list, "passes/prefill/"), *step = row_of(list, "passes/decode/");
    assert_true(number(prompt, "value") >= 0 && number(prompt, "k_passes") >= 0 && number(prompt, "v_passes") >= 0);
    assert_true(number(step, "state_bytes") == 4 * (64 + 2) * 4); /* four query heads: an output, a maximum and a sum each */
    assert_true(number(prompt, "state_bytes") > number(step, "state_bytes") && number(prompt, "score_bytes") > 0);
    cJSON_Delete(list);
}

/* ---- masks: pairs counted one by one ---- */

enum { N = 1024 };

static int document(int i) {
    int k = 0;
    while (i >= N * (k + 1) * (k + 2) / 72) {
        k++;
    }
    return k;
}

static int start_of(int k) { return N * k * (k + 1) / 72; }

static bool sees(const char *mask, int i, int j) {
    bool causal = j <= i, same = document(i) == document(j);
    if (strcmp(mask, "full") == 0) {
        return true;
    }
    if (strcmp(mask, "causal") == 0) {
        return causal;
    }
    if (strcmp(mask, "full_document") == 0) {
        return same;
    }
    if (strcmp(mask, "causal_document") == 0) {
        return same && causal;
    }
    if (strcmp(mask, "sliding_window") == 0) {
        return abs(i - j) < 512;
    }
    if (strcmp(mask, "sliding_window_causal") == 0) {
        return causal && i - j < 512;
    }
    if (strcmp(mask, "sink_window_causal") == 0) {
        return causal && (i - j < 512 || j < 64);
    }
    if (strcmp(mask, "share_question") == 0) {
        return causal && (same || document(j) == 0);
    }
    if (strcmp(mask, "causal_blockwise") == 0) {
        return causal && (same || document(i) == 7);
    }
    if (strcmp(mask, "prefix_lm_causal") == 0) {
        return causal || (i < N / 4 && j < N / 4);
    }
    int k = document(i), begin = start_of(k), prefix = begin + (start_of(k + 1) - begin) / 4;
    if (strcmp(mask, "prefix_lm_document") == 0) {
        return same && (causal || (i < prefix && j < prefix));
    }
    if (strcmp(mask, "global_sliding_window") == 0) {
        return abs(i - j) < 512 || i < 64 || j < 64;
    }
    return same && (j - begin) / 128 <= (i - begin) / 128; /* block_causal_document */
}

static void masks_show_their_pairs(void **state) {
    (void)state;
    cJSON *list = rows(RUN("bench", "masks", "--json", "--runs", "1", "--no-ceilings", "--case", "*/n1024/*"));
    const cJSON *row;
    assert_int_equal(cJSON_GetArraySize(list), 13);
    cJSON_ArrayForEach(row, list) {
        char mask[64];
        assert_int_equal(sscanf(string(row, "case"), "masks/%63[^/]/", mask), 1);
        int64_t pairs = 0;
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < N; j++) {
                pairs += sees(mask, i, j);
            }
        }
        if (fabs(number(row, "density") * N * N - (double)pairs) > 1e-3) {
            fail_msg("%s: density %.9g, counted %.9g", mask, number(row, "density"), (double)pairs / N / N);
        }
    }
    cJSON_Delete(list);
    char *text = output(RUN("bench", "masks", "--runs", "1", "--no-ceilings", "--case", "masks/causal*/n1024/*"));
    assert_non_null(strstr(text, "( 50%)"));
    free(text);
}

/* ---- two builds, refusals, the end ---- */

static void builds_are_compared(void **state) {
    (void)state;
    cJSON *list = rows(
        RUN("bench", "attention", "--json", "--runs", "3", "-t", "1", "--case", "prefill/f32/*/n128/*", "--against", run_path));
    assert_int_equal(cJSON_GetArraySize(list), 1);
    const cJSON *row = list->child;
    assert_string_equal(string(row, "case"), "prefill/f32/h32x8/d128/n128/causal");
    assert_true(number(row, "this") > 0 && number(row, "other") > 0 && number(row, "runs") == 3);
    assert_true(fabs(number(row, "this") / number(row, "other") - number(row, "ratio")) < 1e-9);
    const cJSON *s = cJSON_GetObjectItemCaseSensitive(row, "spread");
    assert_true(number(s, "min") <= number(s, "q1") && number(s, "q3") <= number(s, "max"));
    cJSON_Delete(list);
    refused(RUN("bench", "attention", "--json", "--case", "prefill/f32/*/n128/*", "--against", "/bin/true"), 1, "/bin/true");
    refused(RUN("bench", "attention", "--json", "--case", "prefill/f32/*/n128/*", "--against", "/etc/passwd"), 1, "/etc/passwd");
    refused(RUN("bench", "--against", "/tmp"), 2, "directory");
}

static void interrupts_end_it(void **state) {
    (void)state;
    run_result r = run_with(&(run_setup){.interrupt_after = 1},
                            (const char *const[]){"bench", "--no-ceilings", "--case", "prefill/*/n16384/*", NULL});
    assert_int_equal(r.code, 130);
    assert_string_equal(r.err, "");
    run_free(&r);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fputs("usage: test_bench PROGRAM\n", stderr);
        return 2;
    }
    run_path = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_tell_the_kernel), cmocka_unit_test(globs_filter),
        cmocka_unit_test(rows_have_ceilings),    cmocka_unit_test(prompts_name_the_ceiling_of_their_form),
        cmocka_unit_test(batches_are_compared),  cmocka_unit_test(passes_have_a_state),
        cmocka_unit_test(models_have_parts),     cmocka_unit_test(masks_show_their_pairs),
        cmocka_unit_test(builds_are_compared),   cmocka_unit_test(interrupts_end_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
