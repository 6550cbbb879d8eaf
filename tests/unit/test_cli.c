/* test_cli.c - the program's manners: help, one clear line for what is wrong, exit codes, interrupts, closed pipes, full disks.
 * Usage: test_cli PROGRAM. Runs in the project's root. */
#include "run_program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

static const char *const all_commands[] = {"run", "compare", "perplexity", "info", "tokenize", "attend", "bench", "methods"};
enum { N_COMMANDS = sizeof all_commands / sizeof *all_commands };

static const char model[] = "models/fovea-27m-32k-q8_0.gguf";
static const char book[] = "models/data/pride-and-prejudice.txt";
static char folder[] = "/tmp/fovea-cli-XXXXXX";

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
    static char path[4][128];
    static int next;
    next = (next + 1) % 4;
    snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
    return path[next];
}

static void write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    fclose(f);
}

/* Nothing on stdout, one line on stderr that has `part`, and this exit code. */
static void check_refused(run_result r, int code, const char *part) {
    if (r.code != code || run_lines(r.err) != 1 || !strstr(r.err, part) || r.out_size) {
        fail_msg("exit %d (wanted %d), stdout %zu bytes, stderr: %s(wanted one line with \"%s\")", r.code, code, r.out_size,
                 r.err, part);
    }
    run_free(&r);
}

static void top_help_teaches(void **state) {
    (void)state;
    run_result plain = RUN("--help"), bare = run_with(&(run_setup){.input = NULL}, (const char *const[]){NULL});
    assert_int_equal(plain.code, 0);
    assert_string_equal(plain.out, bare.out);
    assert_string_equal(plain.err, "");
    for (int i = 0; i < N_COMMANDS; i++) {
        assert_non_null(strstr(plain.out, all_commands[i]));
    }
    assert_non_null(strstr(plain.out, "examples"));
    run_free(&plain);
    run_free(&bare);
}

static void each_help_has_an_example(void **state) {
    (void)state;
    for (int i = 0; i < N_COMMANDS; i++) {
        char example[64];
        run_result r = RUN(all_commands[i], "--help");
        snprintf(example, sizeof example, "  fovea %s", all_commands[i]);
        if (r.code != 0 || r.err[0] || !strstr(r.out, "usage: fovea") || !strstr(r.out, example)) {
            fail_msg("%s --help: exit %d, stderr %s", all_commands[i], r.code, r.err);
        }
        run_free(&r);
        r = RUN("help", all_commands[i]);
        assert_int_equal(r.code, 0);
        run_free(&r);
    }
    run_result r = RUN("perplexity", "--help");
    assert_non_null(strstr(r.out, "replaced by BOS"));
    assert_non_null(strstr(r.out, "second half"));
    run_free(&r);
}

static void unknown_options_are_refused(void **state) {
    (void)state;
    for (int i = 0; i < N_COMMANDS; i++) {
        check_refused(RUN(all_commands[i], "--colour-of-the-sky"), 2, "--colour-of-the-sky");
        check_refused(RUN(all_commands[i], "-Z"), 2, "-Z");
    }
    check_refused(RUN("run", "--tmep", "1"), 2, "did you mean --temp?");
    check_refused(RUN("compare", "--length", "64"), 2, "did you mean --lengths?");
    check_refused(RUN("comapre"), 2, "fovea compare");
    check_refused(RUN("methods", "widnow"), 2, "window");
}

static void missing_files_are_refused(void **state) {
    (void)state;
    static const char gone[] = "/nowhere/at/all";
    check_refused(RUN("run", "-f", gone), 2, gone);
    check_refused(RUN("run", "-m", gone, "-p", "x"), 2, gone);
    check_refused(RUN("run", "--load", gone, "-p", "x"), 2, gone);
    check_refused(RUN("run", "-f", "/tmp"), 2, "directory");
    check_refused(RUN("compare", "-f", gone), 2, gone);
    check_refused(RUN("compare", "--questions", gone), 2, gone);
    check_refused(RUN("perplexity", "-f", gone), 2, gone);
    check_refused(RUN("info", gone), 2, gone);
    check_refused(RUN("tokenize", "-m", gone, "x"), 2, gone);
    check_refused(RUN("tokenize", "-f", gone), 2, gone);
    check_refused(RUN("attend", "--q", gone, "--k", gone, "--v", gone, "--out", gone), 2, gone);
}

static void impossible_values_are_refused(void **state) {
    (void)state;
    check_refused(RUN("run", "-p", "x", "-n", "many"), 2, "not a whole number");
    check_refused(RUN("run", "-p", "x", "-n", "-1"), 2, "--predict -1");
    check_refused(RUN("run", "-p", "x", "-n", "99999"), 2, "32768");
    check_refused(RUN("run", "-p", "x", "--temp", "nan"), 2, "not a number");
    check_refused(RUN("run", "-p", "x", "--top-p", "1.5"), 2, "0 to 1");
    check_refused(RUN("run", "-p", "x", "-t", "0"), 2, "1 to 256");
    check_refused(RUN("run", "-p", "x", "-t", "99999999999999999999"), 2, "1 to 256");
    check_refused(RUN("run", "-p", "x", "--level", "sse"), 2, "avx2");
    check_refused(RUN("run", "-p", "x", "--kv", "f64"), 2, "bf16");
    check_refused(RUN("run", "-p", "x", "-a", "windwo:size=9"), 2, "windwo");
    check_refused(RUN("run", "-p", "x", "--form", "verse"), 2, "chatml");
    check_refused(RUN("run", "-p", "x", "--stop", ""), 2, "--stop");
    check_refused(RUN("run", "-p", "x", "-f", book), 2, "not both");
    check_refused(RUN("run", "-p"), 2, "needs a value");
    check_refused(RUN("run", "-f", "-n", "5"), 2, "--file needs a value");
    check_refused(RUN("run", "-p", "x", "--save", "/nowhere/at/all"), 2, "/nowhere/at/all");
    check_refused(RUN("run", "-p", "x", "--save", "/"), 2, "directory");
    check_refused(RUN("run", "-f", book), 2, "more than the model's trained 32768");
    check_refused(RUN("perplexity", "-f", book, "--ctx", "99999999"), 2, "more than the model's trained 32768");
    check_refused(RUN("perplexity", "-f", book, "--ctx", "1"), 2, "at least 2");
    check_refused(RUN("perplexity"), 2, "-f FILE");
    check_refused(RUN("compare", "--lengths", "4096,99999999"), 2, "32768");
    check_refused(RUN("compare", "--lengths", "4096,,1"), 2, "whole number");
    check_refused(RUN("compare", "-a", "nothing"), 2, "nothing");
    check_refused(RUN("bench", "everything"), 2, "attention, decode, model, masks, passes");
    check_refused(RUN("bench", "--runs", "0"), 2, "1 to");
    check_refused(RUN("bench", "--case", "nothing"), 2, "--case nothing");
    check_refused(RUN("bench", "--against", "/nowhere/at/all"), 2, "/nowhere/at/all");
    check_refused(RUN("methods", "--json=yes"), 2, "takes no value");
    check_refused(RUN("info", "a", "b"), 2, "unexpected");
}

static void broken_models_are_refused(void **state) {
    (void)state;
    static char part[300000];
    const char *empty = in_folder("empty.gguf"), *torn = in_folder("torn.gguf"), *junk = in_folder("junk.gguf");
    FILE *f = fopen(model, "rb");
    assert_non_null(f);
    size_t size = fread(part, 1, sizeof part, f);
    fclose(f);
    write_file(empty, "", 0);
    write_file(torn, part, size);
    memset(part, 'x', sizeof part);
    write_file(junk, part, sizeof part);
    const char *const files[] = {empty, torn, junk};
    for (int i = 0; i < 3; i++) {
        check_refused(RUN("run", "-m", files[i], "-p", "x"), 1, files[i]);
        check_refused(RUN("info", "-m", files[i]), 1, files[i]);
        check_refused(RUN("tokenize", "-m", files[i], "x"), 1, files[i]);
    }
}

static void empty_texts_are_refused(void **state) {
    (void)state;
    const char *empty = in_folder("empty.txt");
    write_file(empty, "", 0);
    run_result r = RUN("run", "-f", empty, "-n", "3"); /* this model begins with BOS, so nothing else is needed */
    assert_int_equal(r.code, 0);
    assert_true(r.out_size > 0);
    run_free(&r);
    r = RUN("perplexity", "-f", empty, "--ctx", "64");
    assert_true(r.code == 1 || r.code == 2);
    assert_int_equal(run_lines(r.err), 1);
    run_free(&r);
    r = RUN("compare", "-f", empty, "--lengths", "128");
    assert_true(r.code == 1 || r.code == 2);
    assert_int_equal(run_lines(r.err), 1);
    run_free(&r);
}

static void the_default_model_is_found(void **state) {
    (void)state;
    char cwd[4096], program[8192], variable[128];
    run_result r = run_with(&(run_setup){.directory = "/"}, (const char *const[]){"run", "-p", "x", "-n", "1", NULL});
    assert_int_equal(r.code, 0); /* beside the program */
    run_free(&r);
    const char *own = in_folder("nothing.gguf");
    snprintf(variable, sizeof variable, "FOVEA_MODEL=%s", own);
    check_refused(run_with(&(run_setup){.variable = {variable}}, (const char *const[]){"run", "-p", "x", NULL}), 2, own);
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(program, sizeof program, "FOVEA_MODEL=%s/%s", cwd, model);
    r = run_with(&(run_setup){.variable = {program}, .directory = "/"}, (const char *const[]){"run", "-p", "x", "-n", "1", NULL});
    assert_int_equal(r.code, 0);
    run_free(&r);
}

static void ctrl_c_ends_cleanly(void **state) {
    (void)state;
    run_setup s = {.interrupt_after = 1.0};
    run_result r = run_with(&s, (const char *const[]){"perplexity", "-f", book, "--ctx", "4096", NULL});
    assert_int_equal(r.code, 130);
    assert_string_equal(r.out, "");
    assert_string_equal(r.err, "");
    run_free(&r);
    s = (run_setup){.interrupt_after = 0.05, .after_output = true};
    r = run_with(&s, (const char *const[]){"run", "-p", "x", "-n", "30000", NULL});
    assert_int_equal(r.code, 130);
    assert_true(r.out_size > 0);
    assert_string_equal(r.err, "");
    run_free(&r);
}

static void closed_pipes_are_quiet_and_full_disks_are_not(void **state) {
    (void)state;
    run_result r = run_with(&(run_setup){.closed_pipe = true}, (const char *const[]){"methods", NULL});
    assert_int_equal(r.code, 141);
    assert_string_equal(r.err, "");
    run_free(&r);
    r = run_with(&(run_setup){.closed_pipe = true}, (const char *const[]){"run", "-p", "x", "-n", "20000", NULL});
    assert_int_equal(r.code, 141);
    assert_string_equal(r.err, "");
    run_free(&r);
    static const char *const writers[][5] = {{"methods"}, {"--help"}, {"methods", "--json"}, {"run", "-p", "x"}, {"info"}};
    for (int i = 0; access("/dev/full", W_OK) == 0 && i < 5; i++) {
        r = run_with(&(run_setup){.output = "/dev/full"}, writers[i]);
        if (r.code != 1 || run_lines(r.err) != 1 || !strstr(r.err, "No space left")) {
            fail_msg("%s into a full disk: exit %d, stderr %s", writers[i][0], r.code, r.err);
        }
        run_free(&r);
    }
}

/* What a terminal would show. */
static void run_on_terminal(const char *variable, const char *const *arguments, char *shown, size_t size) {
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    run_setup s = {.output = ptsname(master), .variable = {"TERM=xterm", variable}};
    int keep = open(s.output, O_RDWR | O_NOCTTY); /* else what was written is gone with the last writer */
    run_result r = run_with(&s, arguments);
    assert_int_equal(r.code, 0);
    run_free(&r);
    ssize_t n = read(master, shown, size - 1);
    shown[n > 0 ? n : 0] = 0;
    close(keep);
    close(master);
}

static void colour_is_for_terminals(void **state) {
    (void)state;
    char shown[8192];
    run_on_terminal("NO_COLOR=", (const char *const[]){"methods", NULL}, shown, sizeof shown);
    assert_non_null(strstr(shown, "\033["));
    run_on_terminal("NO_COLOR=1", (const char *const[]){"methods", NULL}, shown, sizeof shown);
    assert_null(strstr(shown, "\033["));
    run_on_terminal("NO_COLOR=", (const char *const[]){"methods", "--no-color", NULL}, shown, sizeof shown);
    assert_null(strstr(shown, "\033["));
    run_result r = RUN("methods");
    assert_null(strstr(r.out, "\033["));
    run_free(&r);
}

static void messages_are_harmless(void **state) {
    (void)state;
    check_refused(RUN("run", "-f",
                      "/nowhere/\033[2J\n\xc2\x9b"
                      "31m"),
                  2, "/nowhere/ [2J");
    run_result r = RUN("run", "-f", "/nowhere/\033[2J\xc2\x9b");
    assert_null(strchr(r.err, '\033'));
    assert_null(strstr(r.err, "\xc2\x9b"));
    run_free(&r);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        return 77;
    }
    run_path = realpath(argv[1], NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(top_help_teaches),
        cmocka_unit_test(each_help_has_an_example),
        cmocka_unit_test(unknown_options_are_refused),
        cmocka_unit_test(missing_files_are_refused),
        cmocka_unit_test(impossible_values_are_refused),
        cmocka_unit_test(broken_models_are_refused),
        cmocka_unit_test(empty_texts_are_refused),
        cmocka_unit_test(the_default_model_is_found),
        cmocka_unit_test(ctrl_c_ends_cleanly),
        cmocka_unit_test(closed_pipes_are_quiet_and_full_disks_are_not),
        cmocka_unit_test(colour_is_for_terminals),
        cmocka_unit_test(messages_are_harmless),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
