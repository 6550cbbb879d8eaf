/* seeds.c - writes valid files for the fuzzers to begin with: seeds DIRECTORY makes DIRECTORY/gguf, npy, tokenizer, model,
 * session. A second argument names a file to write when all is done, which tells a build that they are there. */
#include "gguf_sample.h"
#include "npy.h"
#include "tiny.h"

#include <sys/stat.h>

static const char *root;
static int failed;

static void path_of(char *out, size_t size, const char *room, const char *name) {
    snprintf(out, size, "%s/%s", root, room);
    mkdir(out, 0777);
    snprintf(out, size, "%s/%s/%s", root, room, name);
}

static void save(const char *room, const char *name, const void *data, size_t size) {
    char path[1024];
    path_of(path, sizeof path, room, name);
    if (!gb_save(path, data, size)) {
        fprintf(stderr, "cannot write %s\n", path);
        failed = 1;
    }
}

static void gguf_seeds(void) {
    static const uint32_t alignment[] = {8, 32, 64};
    for (int i = 0; i < 3; i++) {
        char name[32];
        size_t size;
        uint8_t *image = sample_image(i == 0 ? 2 : 3, alignment[i], &size);
        snprintf(name, sizeof name, "sample-%d", i);
        save("gguf", name, image, size);
        free(image);
    }
    gguf_builder b = gb_begin();
    gb_u32(&b, "one", 1);
    size_t size;
    uint8_t *image = gb_image(&b, &size);
    save("gguf", "small", image, size);
    free(image);
    gb_end(&b);
    image = tiny_vocab(3, &size);
    save("gguf", "vocabulary", image, size);
    free(image);
}

/* The three versions by hand: npy_write makes version 1 only. */
static void npy_version(int version) {
    static const char text[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }\n";
    uint8_t file[128] = "\x93NUMPY";
    size_t head = version == 1 ? 10 : 12;
    file[6] = (uint8_t)version;
    file[8] = sizeof text - 1;
    memcpy(file + head, text, sizeof text - 1);
    char name[32];
    snprintf(name, sizeof name, "version-%d", version);
    save("npy", name, file, head + sizeof text - 1 + 16);
}

static void npy_seeds(void) {
    static const fv_dtype dtype[] = {FV_F32, FV_F16, FV_BF16, FV_I32};
    static int32_t values[24];
    char path[1024], error[256], name[32];
    for (int t = 0; t < 4; t++) {
        npy a = {.dtype = dtype[t], .rank = t + 1, .shape = {2, 3, 2, 2}, .data = values};
        snprintf(name, sizeof name, "rank-%d", t + 1);
        path_of(path, sizeof path, "npy", name);
        failed |= !npy_write(path, &a, error, sizeof error);
    }
    for (int version = 1; version <= 3; version++) {
        npy_version(version);
    }
}

static void tokenizer_seeds(void) {
    static const char *const text[] = {
        "The whale, the thing in 1851.  It's here;\n\nthey're not.", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "\xc3\xa9t\xc3\xa9 e\xcc\x81t\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e \xf0\x9f\x98\x80\xe2\x80\x8d\xf0\x9f\x98\x80",
        "\xff\xfe\xc3 \xe2\x82 \xed\xa0\x80 broken", "  \t \r\n <|end|><|im <s> <|user|> hein \xe2\x96\x81 \xc2\xa0 123456"};
    char name[32];
    for (int kind = 0; kind < TINY_KINDS; kind++) {
        for (int i = 0; i < 5; i++) {
            gb_bytes file = {NULL, 0, 0};
            uint8_t what = (uint8_t)kind;
            gb_put(&file, &what, 1);
            gb_put(&file, text[i], strlen(text[i]));
            snprintf(name, sizeof name, "text-%d-%d", kind, i);
            save("tokenizer", name, file.data, file.n);
            free(file.data);
        }
        gb_bytes file = {NULL, 0, 0};
        const uint8_t what = kind % 2 == 0 ? 6 : 7;
        size_t size;
        uint8_t *image = tiny_vocab(kind, &size);
        gb_put(&file, &what, 1);
        gb_put(&file, image, size);
        snprintf(name, sizeof name, "vocabulary-%d", kind);
        save("tokenizer", name, file.data, file.n);
        free(file.data);
        free(image);
    }
}

/* A byte token whose name is no number. */
static void bad_byte_seed(void) {
    size_t size;
    uint8_t *image = tiny_vocab(3, &size), *file = malloc(size + 1);
    image[sample_record(image, size, "<0x0A>") + 8 + 3] = 'G';
    file[0] = 6;
    memcpy(file + 1, image, size);
    save("tokenizer", "bad-byte", file, size + 1);
    free(file);
    free(image);
}

/* Units to merge: short and long, in a loop and shifting. */
static void merge_seeds(void) {
    static const char pattern[] = "abbabaaab\xff"
                                  "bbbaabab in the the aaaa";
    for (int i = 0; i < 24; i++) {
        uint8_t file[64] = {(uint8_t)(8 + i % 8), (uint8_t)(i < 8 ? 40 : 160 + 4 * i), (uint8_t)i};
        char name[32];
        memcpy(file + 3, pattern, sizeof pattern - 1);
        snprintf(name, sizeof name, "merge-%d", i);
        save("tokenizer", name, file, 3 + sizeof pattern - 1);
    }
}

/* Metadata and directory, up to where the large weights begin; the twists are the only seeds that are to be refused. */
static void model_seeds(void) {
    for (int twist = 0; twist < TINY_TWISTS; twist++) {
        size_t size, head;
        char name[32];
        uint8_t *image = tiny_model((tiny_twist)twist, true, &size, &head);
        snprintf(name, sizeof name, "model-%d", twist);
        save("model", name, image, head);
        free(image);
    }
}

/* ---- sessions ---- */

static fv_status session_seed(fv_model *model, const fv_session_options *options, int tokens, bool finish, const char *path) {
    fv_session *s;
    int32_t id[300];
    for (int i = 0; i < 300; i++) {
        id[i] = i * 7 % 250;
    }
    fv_status status = fv_session_create(model, options, &s);
    if (status == FV_OK && tokens > 0) {
        status = fv_session_feed(s, id, tokens, NULL);
    }
    if (status == FV_OK && finish) {
        status = fv_session_finish(s);
    }
    if (status == FV_OK) {
        status = fv_session_save(s, path);
    }
    fv_session_destroy(s);
    return status;
}

/* The byte behind the file tells the fuzzer to repair digests and fingerprint. */
static fv_status session_seeds(fv_model *model) {
    static const struct {
        int tokens;
        bool finish;
        fv_dtype dtype;
        const char *recipe;
    } row[] = {{0, false, FV_F16, ""},
               {3, true, FV_F32, ""},
               {9, true, FV_BF16, "window:size=4"},
               {5, false, FV_F16, "prefill=window:size=8,decode=window:size=8"},
               {260, true, FV_F16, ""}};
    fv_status status = FV_OK;
    for (int i = 0; i < (int)(sizeof row / sizeof *row) && status == FV_OK; i++) {
        char path[1024], name[32];
        fv_session_options o = fv_session_options_default();
        o.kv_dtype = row[i].dtype;
        o.recipe = row[i].recipe;
        snprintf(name, sizeof name, "session-%d", i);
        path_of(path, sizeof path, "session", name);
        status = session_seed(model, &o, row[i].tokens, row[i].finish, path);
        FILE *f = status == FV_OK ? fopen(path, "ab") : NULL;
        failed |= f == NULL || fputc(i % 2 == 0 ? 3 : 7, f) == EOF || fclose(f) != 0;
    }
    return status;
}

static void all_session_seeds(void) {
    char path[1024];
    size_t size;
    uint8_t *image = tiny_model(TINY_PLAIN, false, &size, NULL);
    snprintf(path, sizeof path, "%s/tiny.gguf", root);
    failed |= !gb_save(path, image, size);
    free(image);
    fv_context *ctx;
    fv_model *model = NULL;
    if (fv_context_create(&(fv_context_options){.threads = 1, .level = FV_LEVEL_BEST}, &ctx) != FV_OK) {
        failed = 1;
        return;
    }
    if (fv_model_open(ctx, path, NULL, &model) != FV_OK || session_seeds(model) != FV_OK) {
        fprintf(stderr, "session seeds: %s\n", fv_message(ctx));
        failed = 1;
    }
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: seeds DIRECTORY [DONE]\n");
        return 2;
    }
    root = argv[1];
    mkdir(root, 0777);
    gguf_seeds();
    npy_seeds();
    tokenizer_seeds();
    bad_byte_seed();
    merge_seeds();
    model_seeds();
    all_session_seeds();
    if (argc > 2 && failed == 0) {
        failed = !gb_save(argv[2], "", 0);
    }
    return failed;
}
