/* test_session_file.c - a saved session goes on as if it had never been away; a file with anything wrong in it is refused. */
#include "fovea/fovea.h"
#include "model/session_file.h"
#include "tiny_model.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { PROMPT = 300 };

static fv_context *ctx;
static fv_model *model;
static char model_path[64], folder[64], path[128];
static int32_t prompt[PROMPT];

#define assert_ok(call)                                                                                                          \
    do {                                                                                                                         \
        fv_status status_ = (call);                                                                                              \
        if (status_ != FV_OK) {                                                                                                  \
            fail_msg("%s: %s: %s", #call, fv_status_name(status_), fv_message(ctx));                                             \
        }                                                                                                                        \
    } while (0)

static fv_session *fed(const char *recipe, fv_dtype kv, int64_t n) {
    fv_session *s;
    const fv_session_options o = {.recipe = recipe, .kv_dtype = kv, .context = 400, .chunk = 100};
    assert_ok(fv_session_create(model, &o, &s));
    assert_ok(fv_session_feed(s, prompt, n, NULL));
    return s;
}

static void assert_alike(fv_session *a, fv_session *b) {
    const size_t bytes = (size_t)model->facts.n_vocab * sizeof(float);
    assert_int_equal(fv_session_position(a), fv_session_position(b));
    assert_memory_equal(fv_session_tokens(a), fv_session_tokens(b), (size_t)a->tokens.n * sizeof(int32_t));
    assert_string_equal(fv_session_recipe(a), fv_session_recipe(b));
    assert_int_equal(fv_session_kv_bytes(a), fv_session_kv_bytes(b));
    const fv_run_stats x = fv_session_stats(a), y = fv_session_stats(b);
    assert_memory_equal(&x, &y, offsetof(fv_run_stats, tiles)); /* the others a file does not keep */
    assert_int_equal(a->has_logits, b->has_logits);
    if (a->has_logits) {
        assert_memory_equal(fv_session_logits(a), fv_session_logits(b), bytes);
    }
}

/* Both go on the same way to the same bits. */
static void go_on(fv_session *a, fv_session *b) {
    assert_alike(a, b);
    fv_session *both[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        if (fv_session_position(both[i]) == 0) {
            assert_ok(fv_session_feed(both[i], prompt, 10, NULL));
        }
        if (!both[i]->has_logits) {
            assert_ok(fv_session_finish(both[i]));
        }
    }
    assert_alike(a, b);
    for (int step = 0; step < 4; step++) {
        assert_ok(fv_session_step(a, step * 3));
        assert_ok(fv_session_step(b, step * 3));
        assert_alike(a, b);
    }
    for (int i = 0; i < 2; i++) {
        assert_ok(fv_session_feed(both[i], prompt + 200, 77, NULL));
        assert_ok(fv_session_finish(both[i]));
    }
    assert_alike(a, b);
}

static void check_round_trip(fv_session *s) {
    fv_session *loaded;
    assert_ok(fv_session_save(s, path));
    assert_ok(fv_session_load(model, path, &loaded));
    go_on(s, loaded);
    fv_session_destroy(loaded);
    fv_session_destroy(s);
}

static void test_round_trip(void **state) {
    static const int64_t length[] = {0, 1, 63, 64, 65, 256, 257, PROMPT};
    (void)state;
    for (int i = 0; i < 8; i++) {
        for (int kv = FV_F32; kv <= FV_BF16; kv++) {
            check_round_trip(fed(kv == FV_F16 ? "window:size=20" : "", (fv_dtype)kv, length[i]));
        }
    }
    check_round_trip(fed("kv=f32/bf16", FV_F16, 100));
    check_round_trip(fed("", FV_Q8_0, 65));
    check_round_trip(fed("kv=q8_0/q4_0:rotate=1", FV_F16, PROMPT));
    check_round_trip(fed("kv=bf16:rotate=1", FV_F16, 257));
}

static void test_after_the_end(void **state) {
    (void)state;
    fv_session *s = fed("", FV_F16, 130);
    assert_ok(fv_session_finish(s));
    check_round_trip(s);
    s = fed("", FV_F16, 130);
    assert_ok(fv_session_finish(s));
    assert_ok(fv_session_step(s, 17));
    check_round_trip(s);
    /* what generated tokens keep is made again of the cache */
    static const char *const placed[] = {"prefill=longheads:chunk=64:length=192", "prefill=gali:trained=100:local=16:chunk=64",
                                         "prefill=longheads:chunk=64:length=192,kv=q8_0:rotate=1"};
    for (int i = 0; i < 3; i++) {
        s = fed(placed[i], FV_F16, 255);
        assert_ok(fv_session_finish(s));
        assert_ok(fv_session_step(s, 17));
        check_round_trip(s);
    }
}

static int files_in_folder(void) {
    int n = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        n += e->d_name[0] != '.';
    }
    closedir(dir);
    return n;
}

/* The old file stays until the new one is whole, and nothing is left behind. */
static void test_replaced_whole(void **state) {
    (void)state;
    fv_session *s = fed("", FV_F16, 20), *loaded;
    unlink(path);
    assert_ok(fv_session_save(s, path));
    assert_ok(fv_session_feed(s, prompt, 10, NULL));
    assert_ok(fv_session_save(s, path));
    assert_int_equal(files_in_folder(), 1);
    assert_ok(fv_session_load(model, path, &loaded));
    assert_int_equal(fv_session_position(loaded), 30);
    fv_session_destroy(loaded);
    assert_int_equal(fv_session_save(s, "/nonexistent/x"), FV_ERR_IO);
    assert_int_equal(fv_session_save(s, folder), FV_ERR_IO); /* a folder has the name */
    assert_int_equal(files_in_folder(), 1);
    assert_int_equal(fv_session_load(model, "/nonexistent/x", &loaded), FV_ERR_IO);
    assert_int_equal(fv_session_load(model, folder, &loaded), FV_ERR_FORMAT);
    assert_null(loaded);
    fv_session_destroy(s);
}

static void assert_unreadable(const char *how, int64_t where) {
    fv_session *s;
    fv_status status = fv_session_load(model, path, &s);
    if (status != FV_ERR_FORMAT || s != NULL) {
        fail_msg("%s at %lld: %s, \"%s\"", how, (long long)where, fv_status_name(status), fv_message(ctx));
    }
}

/* The file is damaged where it stands: a new one for each case would cost a wait for the disk. */
static void test_torn(void **state) {
    (void)state;
    fv_session *s = fed("", FV_F16, 3);
    assert_ok(fv_session_finish(s));
    assert_ok(fv_session_save(s, path));
    fv_session_destroy(s);
    int fd = open(path, O_RDWR);
    const off_t size = lseek(fd, 0, SEEK_END);
    assert_true(size > 1000);
    for (off_t i = 0; i < size; i++) {
        uint8_t byte, flipped;
        assert_int_equal(pread(fd, &byte, 1, i), 1);
        flipped = byte ^ (uint8_t)(1u << (i * 5 % 8));
        assert_int_equal(pwrite(fd, &flipped, 1, i), 1);
        assert_unreadable("flipped", i);
        assert_int_equal(pwrite(fd, &byte, 1, i), 1);
    }
    assert_ok(fv_session_load(model, path, &s));
    fv_session_destroy(s);
    assert_int_equal(ftruncate(fd, size + 1), 0);
    assert_unreadable("longer", size);
    for (off_t n = size - 1; n >= 0; n--) {
        assert_int_equal(ftruncate(fd, n), 0);
        assert_unreadable("torn", n);
    }
    close(fd);
    print_message("%lld bytes: flipped at each, torn at each\n", (long long)size);
}

static void test_another_model(void **state) {
    (void)state;
    tiny_model t = tiny_default();
    char other[64];
    fv_model *second;
    fv_session *s = fed("", FV_F16, 3), *loaded;
    assert_ok(fv_session_save(s, path));
    fv_session_destroy(s);
    t.seed++; /* the same shapes, other weights */
    tiny_write(&t, other);
    assert_ok(fv_model_open(ctx, other, NULL, &second));
    assert_int_equal(fv_session_load(second, path, &loaded), FV_ERR_FORMAT);
    assert_non_null(strstr(fv_message(ctx), "another model"));
    fv_model_destroy(second);
    unlink(other);
}

int main(void) {
    tiny_model t = tiny_default();
    t.d_k = 32; /* quantised caches want that */
    tiny_write(&t, model_path);
    strcpy(folder, "/tmp/fovea-sessions-XXXXXX");
    if (mkdtemp(folder) == NULL ||
        fv_context_create(&(fv_context_options){.threads = 1, .level = FV_LEVEL_BEST}, &ctx) != FV_OK ||
        fv_model_open(ctx, model_path, NULL, &model) != FV_OK) {
        fprintf(stderr, "cannot begin: %s\n", ctx != NULL ? fv_message(ctx) : "no context");
        return 1;
    }
    snprintf(path, sizeof path, "%s/a.session", folder);
    for (int i = 0; i < PROMPT; i++) {
        prompt[i] = (i * 7919 + 11) % (int)t.n_vocab;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_after_the_end), cmocka_unit_test(test_replaced_whole),
        cmocka_unit_test(test_torn),       cmocka_unit_test(test_another_model),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
    unlink(path);
    unlink(model_path);
    rmdir(folder);
    return failed;
}
