/* fuzz_tokenizer.c - the first byte says what the others are:
 *   0..5   text for one of the tiny vocabularies, which has to come back from its ids unchanged and in whole characters
 *   6, 7   a vocabulary file, which has to be refused or to work; with 7, when memory fails too
 *   8..15  units to be merged, in long pieces, as they would be one by one
 */
#include "fuzz.h"
#include "model/pretokenize.h"
#include "model/vocab.h"
#include "tiny.h"

static alloc_fail memory;
static fv_context *ctx;
static fv_vocab *vocab[TINY_KINDS];

static fv_vocab *load(fv_context *in, const uint8_t *image, size_t size) {
    fvi_gguf *g;
    fv_vocab *v = NULL;
    if (fvi_gguf_parse(in, "fuzz", image, size, &g) == FV_OK) {
        fv_status status = fvi_vocab_from_gguf(in, g, &v);
        FUZZ_CHECK((status == FV_OK) == (v != NULL));
        fvi_gguf_destroy(g);
    }
    return v;
}

static void start(void) {
    ctx = alloc_fail_begin(&memory, 1);
    for (int kind = 0; kind < TINY_KINDS; kind++) {
        size_t size;
        uint8_t *image = tiny_vocab(kind, &size);
        vocab[kind] = load(ctx, image, size);
        if (vocab[kind] == NULL) {
            fprintf(stderr, "%s\n", fv_message(ctx));
        }
        FUZZ_CHECK(vocab[kind] != NULL);
        free(image);
    }
}

/* Bytes of a UTF-8 character, 0 if there is none. */
static size_t character(const uint8_t *s, size_t size) {
    uint32_t lead = s[0];
    size_t n = lead < 0x80                   ? 1
               : lead >= 0xc2 && lead < 0xe0 ? 2
               : lead >= 0xe0 && lead < 0xf0 ? 3
               : lead >= 0xf0 && lead < 0xf5 ? 4
                                             : 0;
    if (n == 0 || n > size) {
        return 0;
    }
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool bad = (lead == 0xe0 && s[1] < 0xa0) || (lead == 0xed && s[1] > 0x9f) || (lead == 0xf0 && s[1] < 0x90) ||
               (lead == 0xf4 && s[1] > 0x8f);
    return bad ? 0 : n;
}

static bool is_utf8(const uint8_t *s, size_t size) {
    for (size_t i = 0, n; i < size; i += n) {
        n = character(s + i, size - i);
        if (n == 0) {
            return false;
        }
    }
    return true;
}

/* The text of the ids; free() it. `whole`: each part has to be whole characters. */
static uint8_t *text_of(fv_context *in, const fv_vocab *v, const fv_tokens *t, bool special, bool whole, size_t *size) {
    size_t capacity = v->longest + 8, n;
    uint8_t *out = malloc((size_t)t->n * capacity + 8);
    fv_detokenizer state = {.n_pending = 0};
    *size = 0;
    for (int64_t i = 0; i < t->n; i++) {
        FUZZ_CHECK(fv_detokenize(in, v, &state, t->id[i], special, (char *)out + *size, capacity, &n) == FV_OK);
        FUZZ_CHECK(!whole || is_utf8(out + *size, n));
        *size += n;
    }
    n = fv_detokenize_flush(&state, (char *)out + *size, 8);
    FUZZ_CHECK(!whole || n == 0);
    *size += n;
    return out;
}

static void check_ids(const fv_vocab *v, const fv_tokens *t) {
    for (int64_t i = 0; i < t->n; i++) {
        FUZZ_CHECK(t->id[i] >= 0 && t->id[i] < v->n);
    }
}

/* Special tokens parsed: only that nothing breaks and that all ids are some. */
static void check_special(const fv_vocab *v, const char *text, size_t size) {
    fv_tokens t = {NULL, 0, 0};
    FUZZ_CHECK(fv_tokenize(ctx, v, text, size, true, &t) == FV_OK);
    check_ids(v, &t);
    size_t n;
    free(text_of(ctx, v, &t, true, false, &n));
    fv_tokens_release(ctx, &t);
}

static void check_text(const fv_vocab *v, const uint8_t *data, size_t size) {
    uint8_t *text = fuzz_copy(data, size);
    fv_tokens t = {NULL, 0, 0}, again = {NULL, 0, 0};
    size_t n;
    bool utf8 = is_utf8(text, size);
    FUZZ_CHECK(fv_tokenize(ctx, v, (const char *)text, size, false, &t) == FV_OK);
    check_ids(v, &t);
    uint8_t *back = text_of(ctx, v, &t, false, utf8, &n);
    if (v->kind != FVI_VOCAB_QWEN2) {
        FUZZ_CHECK(n == size && memcmp(back, text, n) == 0);
    }
    /* a second time: from the cache of words, and for qwen2 from text in its normal form */
    FUZZ_CHECK(fv_tokenize(ctx, v, (const char *)back, n, false, &again) == FV_OK);
    FUZZ_CHECK(again.n == t.n && (t.n == 0 || memcmp(t.id, again.id, (size_t)t.n * sizeof *t.id) == 0));
    check_special(v, (const char *)text, size);
    fv_tokens_release(ctx, &t);
    fv_tokens_release(ctx, &again);
    free(back);
    free(text);
}

static void check_vocab(const uint8_t *data, size_t size, long long failing) {
    static const char text[] =
        "The thing,  12 in 'the' \xe6\x97\xa5\xe6\x9c\xac \xc3\xa9t\xc3\xa9\n\n<|im aaaaaaaa \xff\xfe\xf0\x9f\x98\x80 <s>";
    alloc_fail a;
    fv_context *own = alloc_fail_begin(&a, 1);
    uint8_t *copy = fuzz_copy(data, size);
    alloc_fail_arm(&a, failing);
    fv_vocab *v = load(own, copy, size);
    fv_tokens t = {NULL, 0, 0};
    if (v != NULL && fv_tokenize(own, v, text, sizeof text - 1, true, &t) == FV_OK) {
        size_t n;
        check_ids(v, &t);
        free(text_of(own, v, &t, true, false, &n));
    }
    for (int id = -1; v != NULL && id <= fv_vocab_size(v); id++) {
        size_t n = 0;
        const char *piece = fv_vocab_piece(v, id, &n);
        FUZZ_CHECK((piece == NULL) == (id < 0 || id == fv_vocab_size(v)));
        FUZZ_CHECK(piece == NULL || n <= v->longest);
        (void)fv_vocab_is_end(v, id);
    }
    if (v != NULL) {
        FUZZ_CHECK(fv_vocab_kind(v)[0] != '\0' && fv_vocab_bos(v) < v->n && fv_vocab_eos(v) < v->n);
        (void)fv_vocab_add_bos(v);
    }
    fv_tokens_release(own, &t);
    fv_vocab_destroy(v);
    free(copy);
    FUZZ_CHECK(alloc_fail_end(&a, own) == 0);
}

/* ---- merging ---- */

static const fvi_merge *merge_of(const fv_vocab *v, int32_t left, int32_t right) {
    for (size_t i = 0; i < v->merge_slots; i++) {
        if (v->merge[i].left >= 0 && v->merge[i].left == left && v->merge[i].right == right) {
            return &v->merge[i];
        }
    }
    return NULL;
}

/* The rule as it is defined: the lowest rank, the leftmost of those, until none is left. */
static size_t merge_plainly(const fv_vocab *v, int32_t *id, size_t n) {
    for (;;) {
        const fvi_merge *best = NULL;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const fvi_merge *m = merge_of(v, id[i], id[i + 1]);
            if (m != NULL && (best == NULL || m->rank < best->rank)) {
                best = m;
                at = i;
            }
        }
        if (best == NULL) {
            return n;
        }
        id[at] = best->result;
        memmove(id + at + 1, id + at + 2, (n - at - 2) * sizeof *id);
        n--;
    }
}

/* `how` has two bytes: how long it gets and how fast the pattern shifts. */
static void fill_units(const fv_vocab *v, const uint8_t *how, const uint8_t *data, size_t size, int32_t *unit, size_t n) {
    size_t shift = size * (1 + how[1] % 8);
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = data[(i + i / shift) % size];
        unit[i] = v == vocab[TINY_KINDS - 1] ? v->byte_id[byte == 255 ? 'c' : 'a' + byte % 2] : v->byte_id[byte];
    }
}

static void check_merges(const fv_vocab *v, const uint8_t *how, const uint8_t *data, size_t size) {
    enum { PLAIN = 48 };
    size_t n = how[0] < 128 ? (size_t)how[0] % PLAIN + 1 : how[0] < 224 ? (size_t)how[0] * 4 : (size_t)(how[0] - 223) * 500;
    fvi_scratch cut = {0}, whole = {0};
    int32_t plain[PLAIN];
    FUZZ_CHECK(fvi_units_reserve(ctx, &cut, n) == FV_OK && fvi_units_reserve(ctx, &whole, n) == FV_OK);
    fill_units(v, how, data, size, cut.unit, n);
    memcpy(whole.unit, cut.unit, n * sizeof *cut.unit);
    if (n <= PLAIN) {
        memcpy(plain, cut.unit, n * sizeof *plain);
    }
    FUZZ_CHECK(fvi_units_merge(ctx, v, &cut, n, true) == FV_OK);
    FUZZ_CHECK(fvi_units_merge(ctx, v, &whole, n, false) == FV_OK);
    FUZZ_CHECK(cut.ids == whole.ids && memcmp(cut.id, whole.id, (size_t)cut.ids * sizeof *cut.id) == 0);
    if (n <= PLAIN) {
        FUZZ_CHECK((size_t)whole.ids == merge_plainly(v, plain, n));
        FUZZ_CHECK(memcmp(whole.id, plain, (size_t)whole.ids * sizeof *plain) == 0);
    }
    fvi_scratch_release(ctx, &cut);
    fvi_scratch_release(ctx, &whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (ctx == NULL) {
        start();
    }
    if (size == 0) {
        return 0;
    }
    int what = data[0] % 16;
    if (what < TINY_KINDS) {
        check_text(vocab[what], data + 1, size - 1);
    } else if (what < 8) {
        check_vocab(data + 1, size - 1, what == 7 ? fuzz_failing(data, size) : 0);
    } else if (size > 3) {
        check_merges(vocab[what % TINY_KINDS], data + 1, data + 3, size - 3);
    }
    return 0;
}
