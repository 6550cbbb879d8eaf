/* test_vocab.c - small vocabularies made for a purpose: pre-tokenizer pieces, space prefix and fallbacks, special tokens,
 * streaming, files that must be refused, memory that fails at each request. */
#include "alloc_fail.h"
#include "gguf_builder.h"
#include "model/pretokenize.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static fv_context *ctx;

static int setup(void **state) {
    (void)state;
    return fv_context_create(&(fv_context_options){.threads = 1, .level = FV_LEVEL_BEST}, &ctx) == FV_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    fv_context_destroy(ctx);
    return 0;
}

/* ---- pre-tokenizers ---- */

/* `pieces` has the text with a bar at each cut. */
static void check_pieces(fvi_vocab_kind kind, const char *pieces) {
    char text[128], cut[160];
    size_t size = 0, n = 0;
    for (const char *p = pieces; *p != '\0'; p++) {
        if (*p != '|') {
            text[size++] = *p;
        }
    }
    for (size_t at = 0, end; at < size; at = end) {
        end = fvi_pretokenize(kind, text, size, at);
        assert_true(end > at && end <= size);
        cut[n] = '|';
        n += at > 0;
        memcpy(cut + n, text + at, end - at);
        n += end - at;
    }
    cut[n] = '\0';
    assert_string_equal(cut, pieces);
}

static void test_pieces(void **state) {
    (void)state;
    check_pieces(FVI_VOCAB_GPT2, "I|'m| sure| they|'ll| say| it|'|S| 1234|,|56|!?|  | \"|x");
    check_pieces(FVI_VOCAB_GPT2, "a|  |\n|b| |\t|c| \u00bd\u00b2| d|   ");
    check_pieces(FVI_VOCAB_GPT2, "a|\u3000|b|\u00a0|\u00e9t\u00e9|\xff\xfe|z| '|s");
    check_pieces(FVI_VOCAB_SMOLLM, "a|  |1|2|3|x| |4| '|5|'s| |\u2167");
    check_pieces(FVI_VOCAB_SMOLLM, "\u00bd|\u2460| a| |\u2460| .");
    check_pieces(FVI_VOCAB_QWEN2, "It|'S| O|'\u017f| don|'T| .|x|\u00a0y|\tz|1|2");
    check_pieces(FVI_VOCAB_QWEN2, "a|.\r\n\r\n|b|  \n \n|  | c|\n|d|  ");
    check_pieces(FVI_VOCAB_QWEN2, "!!| !!\n|a|?b");
}

/* ---- small vocabularies ---- */

/* Byte-level: every byte, four merges, two control tokens and a user-defined one. */
static const char *const bpe_extra[] = {"ab", "abc", "\u0120a", "\u0120ab", "<|s|>", "<|s|>x", "[u]", "<|e|>"};
enum { BPE_EXTRA = 8, BPE_AB = 256, BPE_ABC, BPE_SA, BPE_SAB, BPE_S, BPE_SX, BPE_U, BPE_E, BPE_SIZE };
static const char *const bpe_merges[] = {"\u0120 a", "\u0120a b", "a b", "ab c"};

/* The letter of a byte, see bpe_load.c. */
static void put_letter(int byte, char out[3]) {
    bool prints = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    int code = prints ? byte : byte < 33 ? 256 + byte : byte < 161 ? 256 + 33 + byte - 127 : 256 + 67;
    memset(out, 0, 3);
    if (code < 128) {
        out[0] = (char)code;
    } else {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 63));
    }
}

typedef struct sample {
    const char *model, *pre;
    char letter[256][3];
    const char *token[BPE_SIZE + 8];
    int32_t type[BPE_SIZE + 8];
    float score[BPE_SIZE + 8];
    int32_t tokens, types, scores;
    const char *merge[8];
    int32_t merges;
    int32_t bos, eos, unknown; /* -2: leave the key out */
} sample;

static sample bpe_sample(void) {
    static char letters[256][3];
    sample s = {.model = "gpt2", .pre = "gpt-2", .tokens = BPE_SIZE, .types = BPE_SIZE, .merges = 4, .bos = BPE_S, .eos = BPE_E};
    s.unknown = -2;
    for (int i = 0; i < BPE_SIZE; i++) {
        s.type[i] = i < BPE_S ? FVI_TOKEN_NORMAL : i == BPE_U ? FVI_TOKEN_USER : FVI_TOKEN_CONTROL;
        if (i < 256) {
            put_letter(i, letters[i]);
        }
        s.token[i] = i < 256 ? letters[i] : bpe_extra[i - 256];
    }
    memcpy(s.merge, bpe_merges, sizeof bpe_merges);
    return s;
}

/* SentencePiece-style: <unk>, <s>, </s>, the bytes if asked, then pieces. "yz" has a character that is no piece, "pq" is unused.
 */
static const char *const spm_pieces[] = {"\u2581", "a", "b",  "\u2581a", "ab", "aa", "\u2581\u2581",
                                         "p",      "q", "pq", "yz",      "y",  "[u]"};
enum { SPM_PIECES = 13, SPM_SPACE = 3, SPM_A, SPM_B, SPM_SA, SPM_AB, SPM_AA, SPM_SS, SPM_P, SPM_Q, SPM_PQ, SPM_YZ, SPM_Y, SPM_U };

static sample spm_sample(bool bytes) {
    static const char *const first[] = {"<unk>", "<s>", "</s>"};
    static char byte[256][8];
    static const float score[] = {-9, -9, -9, -2, -3, -1, -1.5f, -9, -9, -4, -5, -9, 0};
    sample s = {.model = "llama", .bos = 1, .eos = 2, .unknown = -2};
    for (int i = 0; i < 3; i++) {
        s.token[s.tokens] = first[i];
        s.type[s.tokens++] = i == 0 ? FVI_TOKEN_UNKNOWN : FVI_TOKEN_CONTROL;
    }
    for (int i = 0; i < SPM_PIECES; i++) {
        s.score[s.tokens] = score[i];
        s.token[s.tokens] = spm_pieces[i];
        s.type[s.tokens++] = i == SPM_PQ - 3 ? FVI_TOKEN_UNUSED : i == SPM_U - 3 ? FVI_TOKEN_USER : FVI_TOKEN_NORMAL;
    }
    for (int i = 0; i < 256 && bytes; i++) {
        snprintf(byte[i], sizeof byte[i], "<0x%02X>", (unsigned)i);
        s.token[s.tokens] = byte[i];
        s.type[s.tokens++] = FVI_TOKEN_BYTE;
    }
    s.types = s.scores = s.tokens;
    return s;
}

static uint8_t *build(const sample *s, size_t *size) {
    gguf_builder b = gb_begin();
    if (s->model != NULL) {
        gb_string(&b, "tokenizer.ggml.model", s->model);
    }
    if (s->pre != NULL) {
        gb_string(&b, "tokenizer.ggml.pre", s->pre);
    }
    gb_strings(&b, "tokenizer.ggml.tokens", s->token, (uint64_t)s->tokens);
    if (s->types > 0) {
        gb_array(&b, "tokenizer.ggml.token_type", FVI_GGUF_I32, s->type, (uint64_t)s->types);
    }
    if (s->scores > 0) {
        gb_array(&b, "tokenizer.ggml.scores", FVI_GGUF_F32, s->score, (uint64_t)s->scores);
    }
    if (s->merges > 0) {
        gb_strings(&b, "tokenizer.ggml.merges", s->merge, (uint64_t)s->merges);
    }
    static const char *const key[] = {"bos", "eos", "unknown"};
    const int32_t id[] = {s->bos, s->eos, s->unknown};
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "tokenizer.ggml.%s_token_id", key[i]);
        if (id[i] > -2) {
            gb_u32(&b, name, (uint32_t)id[i]);
        }
    }
    uint8_t *image = gb_image(&b, size);
    gb_end(&b);
    return image;
}

static fv_status load_image(fv_context *with, const uint8_t *image, size_t size, fv_vocab **out) {
    fvi_gguf *g = NULL;
    *out = NULL;
    fv_status status = fvi_gguf_parse(with, "sample", image, size, &g);
    if (status == FV_OK) {
        status = fvi_vocab_from_gguf(with, g, out);
    }
    fvi_gguf_destroy(g);
    return status;
}

static fv_status load_sample(const sample *s, fv_vocab **out) {
    size_t size;
    uint8_t *image = build(s, &size);
    fv_status status = load_image(ctx, image, size, out);
    free(image);
    return status;
}

static fv_vocab *load(const sample *s) {
    fv_vocab *v;
    if (load_sample(s, &v) != FV_OK) {
        fail_msg("%s", fv_message(ctx));
    }
    return v;
}

/* `ids` ends with -1. */
static void check_ids(const fv_vocab *v, const char *text, size_t size, bool special, const int32_t *ids) {
    fv_tokens t = {NULL, 0, 0};
    assert_int_equal(fv_tokenize(ctx, v, text, size, special, &t), FV_OK);
    int64_t n = 0;
    while (ids[n] >= 0) {
        n++;
    }
    assert_int_equal(t.n, n);
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(t.id[i], ids[i]);
    }
    fv_tokens_release(ctx, &t);
}

#define IDS(...) ((const int32_t[]){__VA_ARGS__, -1})

static void test_bpe(void **state) {
    (void)state;
    const sample s = bpe_sample();
    fv_vocab *v = load(&s);
    check_ids(v, "", 0, false, IDS(-1));
    check_ids(v, "abc ab b", 8, false, IDS(BPE_ABC, BPE_SAB, ' ', 'b'));
    check_ids(v, "ab\0ab", 5, false, IDS(BPE_AB, 0, BPE_AB));
    check_ids(v, "\xff\x80", 2, false, IDS(0xff, 0x80));
    fv_vocab_destroy(v);
}

/* Control tokens only where asked, user-defined ones always; the longest of those that start first. */
static void test_special_tokens(void **state) {
    (void)state;
    const sample s = bpe_sample();
    fv_vocab *v = load(&s);
    check_ids(v, "<|s|>x<|s|><|s|", 15, true, IDS(BPE_SX, BPE_S, '<', '|', 's', '|'));
    check_ids(v, "<|e|>[u]ab", 10, false, IDS('<', '|', 'e', '|', '>', BPE_U, BPE_AB));
    check_ids(v, "[u][u", 5, true, IDS(BPE_U, '[', 'u'));
    assert_true(fv_vocab_is_end(v, BPE_E) && !fv_vocab_is_end(v, BPE_S));
    fv_vocab_destroy(v);
}

static void test_spm(void **state) {
    (void)state;
    const sample s = spm_sample(true);
    fv_vocab *v = load(&s);
    const int32_t byte = 3 + SPM_PIECES;
    check_ids(v, "", 0, false, IDS(-1));
    check_ids(v, "a", 1, false, IDS(SPM_SA));
    check_ids(v, " a", 2, false, IDS(SPM_SS, SPM_A));
    /* "aa" has the best score, so "aaab" is aa ab, and the prefix stays alone */
    check_ids(v, "aaab", 4, false, IDS(SPM_SPACE, SPM_AA, SPM_AB));
    /* y and z merge though z is no piece; alone it is a byte; pq is not to be used */
    check_ids(v, "yzzpq", 5, false, IDS(SPM_SPACE, SPM_YZ, byte + 'z', SPM_P, SPM_Q));
    check_ids(v, "\u2581", 3, false, IDS(SPM_SPACE, byte + 0xe2, byte + 0x96, byte + 0x81));
    check_ids(v, "a\0\xff", 3, false, IDS(SPM_SA, byte, byte + 0xff));
    check_ids(v, "<s>a</s>", 8, true, IDS(1, SPM_A, 2));
    check_ids(v, "[u]a", 4, false, IDS(SPM_U, SPM_A));
    assert_true(fv_vocab_add_bos(v));
    fv_vocab_destroy(v);
}

/* Without byte tokens: <unk>, once for a run, whichever words the cache knows. */
static void test_unknown(void **state) {
    (void)state;
    const sample s = spm_sample(false);
    fv_vocab *v = load(&s);
    for (int i = 0; i < 3; i++) {
        check_ids(v, "?!#a?", 5, false, IDS(SPM_SPACE, 0, SPM_A, 0));
        check_ids(v, "z?z", 3, false, IDS(SPM_SPACE, 0));
        check_ids(v, "a z", 3, false, IDS(SPM_SA, SPM_SPACE, 0));
    }
    fv_vocab_destroy(v);
}

/* ---- long pieces ---- */

/* A table of merges alone: `letters` first ids, then one for each merge. */
static fv_vocab merge_table(size_t merges) {
    fv_vocab v = {.ctx = ctx};
    assert_true(fvi_merges_reserve(&v, merges));
    return v;
}

static void drop_table(fv_vocab *v) { fvi_release(ctx, v->merge, v->merge_slots, sizeof *v->merge); }

/* Whether one piece of the first n units becomes what the scratch has now. */
static bool same_as_whole(const fv_vocab *v, const fvi_scratch *parts, fvi_scratch *whole, size_t n) {
    assert_int_equal(fvi_units_reserve(ctx, whole, n), FV_OK);
    memcpy(whole->unit, parts->unit, n * sizeof *whole->unit);
    assert_int_equal(fvi_units_merge(ctx, v, whole, n, false), FV_OK);
    return parts->ids == whole->ids && memcmp(parts->id, whole->id, (size_t)whole->ids * sizeof *whole->id) == 0;
}

/* Random pairs of random ranks, many of them equal: a token may be worth more than its parts. */
static fv_vocab random_table(fvi_rng *rng, int letters, int merges) {
    fv_vocab v = merge_table((size_t)merges);
    int64_t ranks = 1 + fvi_rng_below(rng, merges);
    for (int i = 0; i < merges; i++) {
        int32_t left = (int32_t)fvi_rng_below(rng, letters + i), right = (int32_t)fvi_rng_below(rng, letters + i);
        fvi_merges_add(&v, (fvi_merge){left, right, (int32_t)fvi_rng_below(rng, ranks), letters + i});
    }
    return v;
}

/* Wherever a piece is cut: if the seam is said to hold, both sides apart give what the whole gives. */
static void test_seams(void **state) {
    (void)state;
    const uint64_t seed = 97;
    fvi_rng rng = {seed};
    fvi_scratch parts = {0}, whole = {0};
    long held = 0, right = 0;
    for (int round = 0; round < 40000; round++) {
        int letters = 1 + (int)fvi_rng_below(&rng, 3);
        fv_vocab v = random_table(&rng, letters, 1 + (int)fvi_rng_below(&rng, 12));
        size_t n = 2 + (size_t)fvi_rng_below(&rng, 30), cut = 1 + (size_t)fvi_rng_below(&rng, (int64_t)n - 1);
        assert_int_equal(fvi_units_reserve(ctx, &parts, n), FV_OK);
        for (size_t i = 0; i < n; i++) {
            parts.unit[i] = (int32_t)fvi_rng_below(&rng, letters);
        }
        bool holds = false;
        assert_int_equal(fvi_units_merge_at(ctx, &v, &parts, n, cut, &holds), FV_OK);
        bool same = same_as_whole(&v, &parts, &whole, n);
        assert_true(same || !holds);
        held += holds;
        right += same;
        drop_table(&v);
    }
    print_message("seed %llu: of %ld seams that were right, %ld were proven\n", (unsigned long long)seed, right, held);
    assert_true(held > right / 2 && right < 40000);
    fvi_scratch_release(ctx, &parts);
    fvi_scratch_release(ctx, &whole);
}

/* Pairs that rank lower to the right: which of them merge is decided at the far end, beyond what a trial sees. A seam that held
 * in its trial then does not, and the piece is merged as one. */
static void test_dominoes(void **state) {
    (void)state;
    enum { LETTERS = 9001, N = 30000 };
    fvi_scratch parts = {0}, whole = {0};
    fv_vocab v = merge_table(LETTERS);
    for (int32_t i = 0; i + 1 < LETTERS; i++) {
        fvi_merges_add(&v, (fvi_merge){i, i + 1, LETTERS - i, LETTERS + i});
    }
    assert_int_equal(fvi_units_reserve(ctx, &parts, N), FV_OK);
    for (int32_t period = LETTERS - 9; period <= LETTERS; period++) {
        for (int32_t i = 0; i < N; i++) {
            parts.unit[i] = i % period;
        }
        assert_int_equal(fvi_units_merge(ctx, &v, &parts, N, true), FV_OK);
        assert_true(same_as_whole(&v, &parts, &whole, N));
    }
    drop_table(&v);
    fvi_scratch_release(ctx, &parts);
    fvi_scratch_release(ctx, &whole);
}

/* ---- detokenizing ---- */

static size_t feed(const fv_vocab *v, fv_detokenizer *d, int id, bool show, char *out) {
    size_t n;
    assert_int_equal(fv_detokenize(ctx, v, d, id, show, out, 16, &n), FV_OK);
    return n;
}

static void test_streaming(void **state) {
    (void)state;
    const sample s = bpe_sample();
    fv_vocab *v = load(&s);
    fv_detokenizer d = {{0}, 0, false};
    char out[16];
    /* U+1F600 comes whole with its fourth byte; an E2 that never ends comes with the letter behind it */
    assert_int_equal(feed(v, &d, 0xf0, false, out), 0);
    assert_int_equal(feed(v, &d, 0x9f, false, out), 0);
    assert_int_equal(feed(v, &d, 0x98, false, out), 0);
    assert_int_equal(feed(v, &d, 0x80, false, out), 4);
    assert_memory_equal(out, "\xf0\x9f\x98\x80", 4);
    assert_int_equal(feed(v, &d, 0xe2, false, out), 0);
    assert_int_equal(feed(v, &d, BPE_S, false, out), 0);
    assert_int_equal(feed(v, &d, BPE_AB, false, out), 3);
    assert_memory_equal(out,
                        "\xe2"
                        "ab",
                        3);
    /* what cannot become a character does not wait: a stray byte, an overlong form, a surrogate */
    assert_int_equal(feed(v, &d, 0x80, false, out), 1);
    assert_int_equal(feed(v, &d, 0xe0, false, out), 0);
    assert_int_equal(feed(v, &d, 0x80, false, out), 2);
    assert_int_equal(feed(v, &d, 0xed, false, out), 0);
    assert_int_equal(feed(v, &d, 0xa0, false, out), 2);
    assert_int_equal(feed(v, &d, BPE_S, true, out), 5);
    assert_int_equal(feed(v, &d, 0xe2, false, out), 0);
    assert_int_equal(fv_detokenize_flush(&d, out, 16), 1);
    assert_int_equal(fv_detokenize_flush(&d, out, 16), 0);
    fv_vocab_destroy(v);
}

static void test_detokenize_errors(void **state) {
    (void)state;
    const sample s = bpe_sample();
    fv_vocab *v = load(&s);
    fv_detokenizer d = {{0}, 0, false};
    char out[8];
    size_t n;
    assert_int_equal(fv_detokenize(ctx, v, &d, BPE_SIZE, false, out, 8, &n), FV_ERR_ARGUMENT);
    assert_int_equal(fv_detokenize(ctx, v, &d, -1, false, out, 8, &n), FV_ERR_ARGUMENT);
    assert_int_equal(feed(v, &d, 0xe2, false, out), 0);
    assert_int_equal(fv_detokenize(ctx, v, &d, BPE_ABC, false, out, 3, &n), FV_ERR_RANGE);
    assert_int_equal(d.n_pending, 1);
    assert_int_equal(fv_detokenize(ctx, v, &d, BPE_ABC, false, out, 4, &n), FV_OK);
    assert_int_equal(n, 4);
    fv_vocab_destroy(v);
}

/* Only the space that the prefix put there goes. */
static void test_prefix_strip(void **state) {
    (void)state;
    const sample s = spm_sample(true);
    fv_vocab *v = load(&s);
    fv_detokenizer d = {{0}, 0, false};
    char out[16];
    assert_int_equal(feed(v, &d, 1, false, out), 0);
    assert_int_equal(feed(v, &d, SPM_SS, false, out), 1);
    assert_int_equal(feed(v, &d, SPM_SA, false, out), 2);
    d = (fv_detokenizer){{0}, 0, false};
    assert_int_equal(feed(v, &d, SPM_SPACE, false, out), 0);
    assert_int_equal(feed(v, &d, SPM_SA, false, out), 2);
    d = (fv_detokenizer){{0}, 0, false};
    assert_int_equal(feed(v, &d, 1, true, out), 3);
    assert_int_equal(feed(v, &d, SPM_SA, true, out), 2);
    fv_vocab_destroy(v);
}

/* ---- files that must be refused ---- */

static void refused(const sample *s, fv_status wanted, const char *field) {
    fv_vocab *v;
    fv_status status = load_sample(s, &v);
    if (status != wanted || v != NULL || strstr(fv_message(ctx), field) == NULL || strstr(fv_message(ctx), "sample") == NULL) {
        fail_msg("%s, not %s with '%s': %s", fv_status_name(status), fv_status_name(wanted), field, fv_message(ctx));
    }
}

static void test_bad_tokens(void **state) {
    (void)state;
    static char huge[2000];
    memset(huge, 'a', sizeof huge - 1);
    sample s = bpe_sample();
    s.tokens = s.types = 0;
    refused(&s, FV_ERR_FORMAT, "tokens");
    s = bpe_sample();
    s.token[BPE_ABC] = "ab";
    refused(&s, FV_ERR_FORMAT, "tokens");
    s = bpe_sample();
    s.token[BPE_SX] = huge;
    refused(&s, FV_ERR_FORMAT, "tokens");
    s = bpe_sample();
    s.types--;
    refused(&s, FV_ERR_FORMAT, "token_type");
    s = bpe_sample();
    s.type[7] = 9;
    refused(&s, FV_ERR_FORMAT, "token_type");
    s = bpe_sample();
    s.type[7] = FVI_TOKEN_BYTE;
    refused(&s, FV_ERR_FORMAT, "tokens");
}

static void test_bad_merges(void **state) {
    (void)state;
    static const char *const bad[] = {"ab d", "x ab", "zz b", "ab", " ab", "ab ", "", "a  b", "\u4e2d a", "a \xff"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sample s = bpe_sample();
        s.merge[1] = bad[i];
        refused(&s, FV_ERR_FORMAT, "merges");
    }
    sample s = bpe_sample();
    s.merges = 0;
    refused(&s, FV_ERR_FORMAT, "merges");
}

static void test_bad_keys(void **state) {
    (void)state;
    sample s = bpe_sample();
    s.model = "bert";
    refused(&s, FV_ERR_UNSUPPORTED, "tokenizer.ggml.model");
    s.model = NULL;
    refused(&s, FV_ERR_FORMAT, "tokenizer.ggml.model");
    s = bpe_sample();
    s.pre = "tekken";
    refused(&s, FV_ERR_UNSUPPORTED, "tokenizer.ggml.pre");
    s = bpe_sample();
    s.bos = BPE_SIZE;
    refused(&s, FV_ERR_FORMAT, "bos_token_id");
    s = bpe_sample();
    s.eos = -1;
    refused(&s, FV_ERR_FORMAT, "eos_token_id");
    s = spm_sample(true);
    s.scores--;
    refused(&s, FV_ERR_FORMAT, "scores");
    s.scores = 0;
    refused(&s, FV_ERR_FORMAT, "scores");
    s = spm_sample(true);
    s.score[5] = NAN;
    refused(&s, FV_ERR_FORMAT, "scores");
}

/* ---- memory that fails ---- */

static fv_status work(fv_context *with, const uint8_t *image, size_t size) {
    static char text[6000];
    memset(text, 'a', sizeof text);
    memcpy(text, "[u] ab abc <|s|> yzpq \xff", 23);
    fv_vocab *v;
    fv_tokens t = {NULL, 0, 0};
    fv_status status = load_image(with, image, size, &v);
    if (status == FV_OK) {
        status = fv_tokenize(with, v, text, sizeof text, true, &t);
    }
    fv_tokens_release(with, &t);
    fv_vocab_destroy(v);
    return status;
}

static void test_memory_fails(void **state) {
    (void)state;
    const sample samples[] = {bpe_sample(), spm_sample(true)};
    for (int i = 0; i < 2; i++) {
        size_t size;
        uint8_t *image = build(&samples[i], &size);
        long long n = 1;
        for (bool more = true; more; n += more) {
            alloc_fail a;
            fv_context *with = alloc_fail_begin(&a, 1);
            alloc_fail_arm(&a, n);
            fv_status status = work(with, image, size);
            more = a.failed;
            assert_int_equal(status, more ? FV_ERR_MEMORY : FV_OK);
            assert_true(!more || fv_message(with)[0] != '\0');
            assert_int_equal(alloc_fail_end(&a, with), 0);
        }
        print_message("%s: each of %lld requests refused\n", samples[i].model, n - 1);
        assert_true(n > 10);
        free(image);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),       cmocka_unit_test(test_bpe),          cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_spm),          cmocka_unit_test(test_unknown),      cmocka_unit_test(test_seams),
        cmocka_unit_test(test_dominoes),     cmocka_unit_test(test_streaming),    cmocka_unit_test(test_detokenize_errors),
        cmocka_unit_test(test_prefix_strip), cmocka_unit_test(test_bad_tokens),   cmocka_unit_test(test_bad_merges),
        cmocka_unit_test(test_bad_keys),     cmocka_unit_test(test_memory_fails),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
