/* test_tokenizer.c - the five real vocabularies: all goldens, text that comes back, long pieces, bytes that are no text. */
#include "base/rng.h"
#include "golden.h"
#include "model/pretokenize.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cJSON.h>
#include <cmocka.h>

static fv_context *ctx;
static fv_vocab *vocab[GOLDEN_NAMES];

static int setup(void **state) {
    (void)state;
    if (fv_context_create(&(fv_context_options){.threads = 1, .level = FV_LEVEL_BEST}, &ctx) != FV_OK) {
        return -1;
    }
    for (int i = 0; i < GOLDEN_NAMES; i++) {
        if (golden_vocab(ctx, golden_name[i], &vocab[i]) != FV_OK) {
            fprintf(stderr, "%s\n", fv_message(ctx));
            return -1;
        }
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    for (int i = 0; i < GOLDEN_NAMES; i++) {
        fv_vocab_destroy(vocab[i]);
    }
    fv_context_destroy(ctx);
    return 0;
}

static fv_tokens tokenize(const fv_vocab *v, const char *text, size_t size, bool special) {
    fv_tokens t = {NULL, 0, 0};
    if (fv_tokenize(ctx, v, text, size, special, &t) != FV_OK) {
        fail_msg("%s", fv_message(ctx));
    }
    return t;
}

/* Whether text[0..size) is whole UTF-8 characters. */
static bool whole_characters(const char *text, size_t size) {
    int32_t code = 0;
    for (size_t at = 0; at < size && code >= 0;) {
        at += (size_t)fvi_utf8_next(text, size, at, &code);
    }
    return code >= 0;
}

/* The text of some ids, streamed; `text` has room. `valid`: each piece of the stream must be whole characters. */
static size_t detokenize(const fv_vocab *v, const fv_tokens *t, bool valid, char *text, size_t room) {
    fv_detokenizer d = {{0}, 0, false};
    size_t at = 0, n;
    for (int64_t i = 0; i < t->n; i++) {
        if (fv_detokenize(ctx, v, &d, t->id[i], true, text + at, room - at, &n) != FV_OK) {
            fail_msg("%s", fv_message(ctx));
        }
        assert_true(!valid || whole_characters(text + at, n));
        at += n;
    }
    assert_true(!valid || d.n_pending == 0);
    return at + fv_detokenize_flush(&d, text + at, room - at);
}

static void comes_back(const fv_vocab *v, const char *text, size_t size, bool valid, const char *what) {
    fv_tokens t = tokenize(v, text, size, false);
    size_t room = size + 2048;
    char *back = malloc(room);
    assert_non_null(back);
    size_t n = detokenize(v, &t, valid, back, room);
    if (n != size || memcmp(back, text, size) != 0) {
        fail_msg("%s: %s: %zu bytes come back as %zu others", fv_vocab_kind(v), what, size, n);
    }
    free(back);
    fv_tokens_release(ctx, &t);
}

/* ---- goldens ---- */

static bool same_ids(const fv_tokens *t, const cJSON *ids) {
    const cJSON *id = ids->child;
    for (int64_t i = 0; i < t->n; i++, id = id->next) {
        if (id == NULL || id->valueint != t->id[i]) {
            return false;
        }
    }
    return id == NULL;
}

/* Lines of {"text", "ids"}; gives their number. */
static int check_goldens(const char *name, const fv_vocab *v) {
    size_t size;
    int lines = 0;
    char *data = golden_unpack(name, "jsonl", &size);
    assert_non_null(data);
    for (char *line = data, *end; (end = strchr(line, '\n')) != NULL; line = end + 1, lines++) {
        *end = '\0';
        cJSON *json = cJSON_Parse(line);
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(json, "text"));
        assert_non_null(text);
        fv_tokens t = tokenize(v, text, strlen(text), false);
        if (!same_ids(&t, cJSON_GetObjectItem(json, "ids"))) {
            fail_msg("%s, line %d: other ids for %s", name, lines + 1, line);
        }
        comes_back(v, text, strlen(text), true, "a golden");
        fv_tokens_release(ctx, &t);
        cJSON_Delete(json);
    }
    free(data);
    return lines;
}

static void test_goldens(void **state) {
    (void)state;
    int total = 0;
    for (int i = 0; i < GOLDEN_NAMES; i++) {
        total += check_goldens(golden_name[i], vocab[i]);
    }
    print_message("%d goldens\n", total);
    assert_int_equal(total, GOLDEN_TEXTS);
}

/* ---- text that comes back ---- */

static void test_books(void **state) {
    (void)state;
    static const char *const path[] = {"models/data/moby-dick.txt", "models/data/pride-and-prejudice.txt"};
    for (int b = 0; b < 2; b++) {
        size_t size;
        char *text = golden_file(path[b], &size);
        assert_non_null(text);
        assert_true(size > 500000);
        for (int i = 0; i < GOLDEN_NAMES; i++) {
            comes_back(vocab[i], text, size, true, path[b]);
        }
        free(text);
    }
}

static size_t put_character(char *out, uint32_t c) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6) {
        out[i] = (char)(0x80 | (c & 0x3f));
    }
    out[0] = (char)((n == 2 ? 0xc0 : n == 3 ? 0xe0 : 0xf0) | c);
    return n;
}

static bool has_bytes(const fv_vocab *v, const char *text, size_t size) {
    bool all = true;
    for (size_t i = 0; i < size; i++) {
        all &= v->byte_id[(unsigned char)text[i]] >= 0;
    }
    return all;
}

/* Any scalar value, NUL and U+2581 included, often ASCII and spaces; only those that the vocabulary has bytes for. */
static size_t random_text(fvi_rng *rng, const fv_vocab *v, int characters, char *out) {
    static const uint32_t limit[] = {0x80, 0x80, 0x80, 0x250, 0x3100, 0x10000, 0x110000};
    static const uint32_t often[] = {' ', ' ', ' ', '\n', '\r', '\'', 0x2581, 0x3000, 0xa0, 0};
    size_t n = 0;
    while (characters-- > 0) {
        uint32_t c = (uint32_t)fvi_rng_below(rng, limit[fvi_rng_below(rng, 7)]);
        c = fvi_rng_below(rng, 4) == 0 ? often[fvi_rng_below(rng, 10)] : c;
        size_t size = c >= 0xd800 && c < 0xe000 ? 0 : put_character(out + n, c);
        n += has_bytes(v, out + n, size) ? size : 0;
    }
    return n;
}

static void test_random_unicode(void **state) {
    (void)state;
    const uint64_t seed = 20240611;
    char text[4 * 300];
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int i = 0; i < GOLDEN_NAMES; i++) {
        fvi_rng rng = {seed};
        for (int round = 0; round < 2000; round++) {
            size_t size = random_text(&rng, vocab[i], (int)fvi_rng_below(&rng, 300), text);
            comes_back(vocab[i], text, size, true, "random text");
        }
    }
}

/* Every character alone and before a letter: all of Unicode goes through the classes. */
static void test_every_character(void **state) {
    (void)state;
    for (int i = 0; i < GOLDEN_NAMES; i++) {
        static char text[64 * 8];
        for (uint32_t c = 0; c < 0x110000;) {
            size_t n = 0;
            for (int k = 0; k < 64; k++, c++) {
                size_t size = c >= 0xd800 && c < 0xe000 ? 0 : put_character(text + n, c);
                n += has_bytes(vocab[i], text + n, size) ? size : 0;
                text[n++] = k % 2 == 0 ? ' ' : 'a';
            }
            comes_back(vocab[i], text, n, true, "each character");
        }
    }
}

/* Bytes that are no UTF-8 come back too where there is a token for each. */
static void test_random_bytes(void **state) {
    (void)state;
    const uint64_t seed = 77;
    char text[256];
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int i = 0; i < GOLDEN_NAMES; i++) {
        fvi_rng rng = {seed};
        for (int round = 0; round < 2000; round++) {
            size_t n = 0;
            for (int64_t k = fvi_rng_below(&rng, (int64_t)sizeof text); k > 0; k--) {
                bool high = fvi_rng_below(&rng, 2) == 0;
                text[n] = (char)(high ? 0x80 + fvi_rng_below(&rng, 128) : fvi_rng_below(&rng, 128));
                n += has_bytes(vocab[i], text + n, 1);
            }
            comes_back(vocab[i], text, n, false, "random bytes");
        }
    }
}

/* SmolLM2's vocabulary has no token for 0x04: it is left out, as the reference does. */
static void test_byte_without_token(void **state) {
    (void)state;
    fv_tokens with = tokenize(vocab[1], "a\x04z", 3, false), without = tokenize(vocab[1], "a", 1, false);
    assert_int_equal(with.n, 2);
    assert_int_equal(with.id[0], without.id[0]);
    fv_tokens_release(ctx, &with);
    fv_tokens_release(ctx, &without);
}

/* ---- long pieces ---- */

/* Units that repeat with a period, or are drawn from a few tokens. */
static void random_units(fvi_rng *rng, const fv_vocab *v, int64_t n, int32_t *unit) {
    int32_t letter[6];
    int64_t letters = 1 + fvi_rng_below(rng, 6), period = 1 + fvi_rng_below(rng, 50);
    for (int i = 0; i < 6; i++) {
        int32_t byte = v->byte_id[32 + fvi_rng_below(rng, 90)];
        letter[i] = v->kind != FVI_VOCAB_LLAMA && fvi_rng_below(rng, 2) == 0 ? byte : (int32_t)fvi_rng_below(rng, v->n);
    }
    bool periodic = fvi_rng_below(rng, 2) == 0;
    for (int64_t i = 0; i < n; i++) {
        unit[i] = periodic && i >= period ? unit[i - period] : letter[fvi_rng_below(rng, letters)];
    }
}

/* The rule itself: look for the lowest rank, merge its leftmost pair, again. */
static int64_t merge_plainly(const fv_vocab *v, int32_t *id, int64_t n) {
    for (;;) {
        int64_t best = -1;
        fvi_merge least = {.rank = INT32_MAX};
        for (int64_t i = 0; i + 1 < n; i++) {
            for (size_t k = 0; k < v->merge_slots; k++) {
                const fvi_merge *m = &v->merge[k];
                if (m->left == id[i] && m->right == id[i + 1] && id[i] >= 0 && m->rank < least.rank) {
                    least = *m;
                    best = i;
                }
            }
        }
        if (best < 0) {
            return n;
        }
        id[best] = least.result;
        memmove(id + best + 1, id + best + 2, (size_t)(n - best - 2) * sizeof *id);
        n--;
    }
}

static void test_merging_plainly(void **state) {
    (void)state;
    const uint64_t seed = 5;
    fvi_rng rng = {seed};
    fvi_scratch s = {0};
    int32_t plain[12];
    print_message("seed %llu\n", (unsigned long long)seed);
    const fv_vocab *two[] = {vocab[0], vocab[4]};
    assert_int_equal(fvi_units_reserve(ctx, &s, 12), FV_OK);
    for (int round = 0; round < 100; round++) {
        const fv_vocab *v = two[round % 2];
        int64_t n = 1 + fvi_rng_below(&rng, 12);
        random_units(&rng, v, n, s.unit);
        memcpy(plain, s.unit, (size_t)n * sizeof *plain);
        assert_int_equal(fvi_units_merge(ctx, v, &s, (size_t)n, true), FV_OK);
        n = merge_plainly(v, plain, n);
        assert_int_equal(s.ids, n);
        assert_memory_equal(s.id, plain, (size_t)n * sizeof *plain);
    }
    fvi_scratch_release(ctx, &s);
}

static void test_cuts_change_nothing(void **state) {
    (void)state;
    const uint64_t seed = 11;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int i = 0; i < GOLDEN_NAMES; i++) {
        fvi_rng rng = {seed + (uint64_t)i};
        fvi_scratch cut = {0}, whole = {0};
        for (int round = 0; round < 40; round++) {
            int64_t n = 4097 + fvi_rng_below(&rng, 20000);
            assert_int_equal(fvi_units_reserve(ctx, &cut, (size_t)n), FV_OK);
            assert_int_equal(fvi_units_reserve(ctx, &whole, (size_t)n), FV_OK);
            random_units(&rng, vocab[i], n, cut.unit);
            memcpy(whole.unit, cut.unit, (size_t)n * sizeof *cut.unit);
            assert_int_equal(fvi_units_merge(ctx, vocab[i], &cut, (size_t)n, true), FV_OK);
            assert_int_equal(fvi_units_merge(ctx, vocab[i], &whole, (size_t)n, false), FV_OK);
            assert_int_equal(cut.ids, whole.ids);
            assert_memory_equal(cut.id, whole.id, (size_t)cut.ids * sizeof *cut.id);
        }
        fvi_scratch_release(ctx, &cut);
        fvi_scratch_release(ctx, &whole);
    }
}

static void test_hostile_texts(void **state) {
    (void)state;
    static const char *const unit[] = {"a", " ", "\u65e5\u672c\u8a9e\u4e2d", "\n", " \n", "'", "<|", "\xff", "\xf0\x9f", "1"};
    enum { SIZE = 300000 };
    static char text[SIZE];
    for (size_t u = 0; u < sizeof unit / sizeof *unit; u++) {
        size_t size = strlen(unit[u]);
        for (size_t i = 0; i < SIZE; i++) {
            text[i] = unit[u][i % size];
        }
        for (int i = 0; i < GOLDEN_NAMES; i++) {
            if (has_bytes(vocab[i], unit[u], size)) {
                comes_back(vocab[i], text, SIZE / size * size, false, unit[u]);
            }
        }
    }
}

/* ---- special tokens ---- */

static void test_specials(void **state) {
    (void)state;
    static const char text[] = "<|im_start|>user\nHi<|im_end|>\n<|im_start";
    fv_tokens plain = tokenize(vocab[1], text, strlen(text), false), parsed = tokenize(vocab[1], text, strlen(text), true);
    assert_int_equal(parsed.id[0], 1);
    int starts = 0, ends = 0;
    for (int64_t i = 0; i < parsed.n; i++) {
        starts += parsed.id[i] == 1;
        ends += parsed.id[i] == 2;
    }
    assert_true(starts == 1 && ends == 1 && plain.n > parsed.n + 8);
    for (int64_t i = 0; i < plain.n; i++) {
        assert_true(plain.id[i] > 16);
    }
    char back[256];
    size_t n = detokenize(vocab[1], &parsed, true, back, sizeof back);
    assert_true(n == strlen(text) && memcmp(back, text, n) == 0);
    assert_true(fv_vocab_is_end(vocab[1], 2) && fv_vocab_is_end(vocab[1], 0) && !fv_vocab_is_end(vocab[1], 1));
    fv_tokens_release(ctx, &plain);
    fv_tokens_release(ctx, &parsed);
}

static void test_facts(void **state) {
    (void)state;
    static const char *const kind[] = {"smollm", "smollm", "gpt-2", "qwen2", "llama"};
    static const int size[] = {8192, 49152, 50257, 151646, 32000}, bos[] = {0, 1, -1, -1, 1}, eos[] = {1, 2, 50256, 151643, 2};
    for (int i = 0; i < GOLDEN_NAMES; i++) {
        assert_string_equal(fv_vocab_kind(vocab[i]), kind[i]);
        assert_int_equal(fv_vocab_size(vocab[i]), size[i]);
        assert_int_equal(fv_vocab_bos(vocab[i]), bos[i]);
        assert_int_equal(fv_vocab_eos(vocab[i]), eos[i]);
        assert_false(fv_vocab_add_bos(vocab[i]));
        assert_true(fv_vocab_is_end(vocab[i], eos[i]));
        size_t n;
        assert_null(fv_vocab_piece(vocab[i], size[i], &n));
        assert_null(fv_vocab_piece(vocab[i], -1, &n));
        assert_false(fv_vocab_is_end(vocab[i], -1));
    }
    size_t n;
    const char *piece = fv_vocab_piece(vocab[4], 28705, &n);
    assert_true(n == 1 && *piece == ' ');
    piece = fv_vocab_piece(vocab[4], 13, &n);
    assert_true(n == 1 && *piece == '\n');
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),         cmocka_unit_test(test_books),
        cmocka_unit_test(test_random_unicode),  cmocka_unit_test(test_every_character),
        cmocka_unit_test(test_random_bytes),    cmocka_unit_test(test_byte_without_token),
        cmocka_unit_test(test_merging_plainly), cmocka_unit_test(test_cuts_change_nothing),
        cmocka_unit_test(test_hostile_texts),   cmocka_unit_test(test_specials),
        cmocka_unit_test(test_facts),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
