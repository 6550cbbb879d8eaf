/* vocab_load.c - a vocabulary out of a file's metadata. Everything is checked here, so that nothing has to be later.
 *
 * A token is a piece of text, unless its type says that it is a name (control, unknown) or a byte. Tokens that are written
 * the same are refused; duplicates only among what they stand for keep the first, as a table of strings would.
 */
#include "model/vocab.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_TOKENS = 1 << 24, LONGEST_TOKEN = 1024 };

static fv_status wrong(const fvi_gguf *g, const fvi_gguf_entry *e, const char *sentence) {
    return fvi_gguf_fail(g, FV_ERR_FORMAT, e->offset, "key", e->key, "%s", sentence);
}

static bool is(fvi_string s, const char *text) { return s.size == strlen(text) && memcmp(s.data, text, s.size) == 0; }

static fv_status read_kind(fv_vocab *v, const fvi_gguf *g) {
    static const char model_key[] = "tokenizer.ggml.model", pre_key[] = "tokenizer.ggml.pre";
    fvi_string model, pre;
    fv_status status = fvi_gguf_string(g, model_key, &model);
    status = status == FV_OK ? fvi_gguf_string(g, pre_key, &pre) : status;
    if (status != FV_OK) {
        return status;
    }
    if (model.data == NULL) {
        return fvi_fail(g->ctx, FV_ERR_FORMAT, "%s: the metadata has no '%s': there is no tokenizer in it", g->path, model_key);
    }
    if (is(model, "llama")) {
        v->kind = FVI_VOCAB_LLAMA;
        return FV_OK;
    }
    const fvi_gguf_entry *e = fvi_gguf_find(g, model_key);
    if (!is(model, "gpt2")) {
        return fvi_gguf_fail(g, FV_ERR_UNSUPPORTED, e->offset, "key", e->key, "no such tokenizer here: 'gpt2' and 'llama' are");
    }
    if (pre.data == NULL || is(pre, "default") || is(pre, "gpt-2")) {
        v->kind = FVI_VOCAB_GPT2;
    } else if (is(pre, "smollm")) {
        v->kind = FVI_VOCAB_SMOLLM;
    } else if (is(pre, "qwen2")) {
        v->kind = FVI_VOCAB_QWEN2;
    } else {
        e = fvi_gguf_find(g, pre_key);
        return fvi_gguf_fail(g, FV_ERR_UNSUPPORTED, e->offset, "key", e->key,
                             "no such pre-tokenizer here: 'gpt-2', 'smollm' and 'qwen2' are");
    }
    return FV_OK;
}

static fv_status find_tokens(const fvi_gguf *g, const fvi_gguf_entry **out) {
    const fvi_gguf_entry *e = fvi_gguf_find(g, "tokenizer.ggml.tokens");
    *out = e;
    if (e == NULL) {
        return fvi_fail(g->ctx, FV_ERR_FORMAT, "%s: the metadata has no 'tokenizer.ggml.tokens', an array of strings", g->path);
    }
    if (e->type != FVI_GGUF_ARRAY || e->element != FVI_GGUF_STRING) {
        return wrong(g, e, "its type is wrong, an array of strings is right");
    }
    if (e->count < 1 || e->count > MOST_TOKENS) {
        return fvi_gguf_fail(g, FV_ERR_FORMAT, e->offset, "key", e->key, "it has %llu tokens, 1 to %d is right",
                             (unsigned long long)e->count, MOST_TOKENS);
    }
    return FV_OK;
}

/* An array of numbers with one for each token, or NULL. */
static fv_status find_numbers(const fvi_gguf *g, const char *key, int32_t n, bool integer, const fvi_gguf_entry **out) {
    const fvi_gguf_entry *e = fvi_gguf_find(g, key);
    *out = e;
    if (e == NULL) {
        return FV_OK;
    }
    bool fits = integer ? e->element == FVI_GGUF_I32 || e->element == FVI_GGUF_U32 : e->element == FVI_GGUF_F32;
    if (e->type != FVI_GGUF_ARRAY || !fits) {
        return wrong(g, e,
                     integer ? "its type is wrong, an array of i32 is right" : "its type is wrong, an array of f32 is right");
    }
    if (e->count != (uint64_t)n) {
        return fvi_gguf_fail(g, FV_ERR_FORMAT, e->offset, "key", e->key,
                             "it has %llu values, one for each of the %d tokens is right", (unsigned long long)e->count, n);
    }
    return FV_OK;
}

static fv_status read_types(fv_vocab *v, const fvi_gguf *g) {
    const fvi_gguf_entry *e;
    fv_status status = find_numbers(g, "tokenizer.ggml.token_type", v->n, true, &e);
    if (status != FV_OK) {
        return status;
    }
    memset(v->type, FVI_TOKEN_NORMAL, (size_t)v->n);
    for (int32_t i = 0; e != NULL && i < v->n; i++) {
        int32_t type;
        memcpy(&type, e->data + 4 * (size_t)i, sizeof type);
        if (type < FVI_TOKEN_NORMAL || type > FVI_TOKEN_BYTE) {
            return fvi_gguf_fail(g, FV_ERR_FORMAT, e->offset + 4 * (uint64_t)i, "key", e->key,
                                 "the type of token %d is %d, 1 to 6 is right", i, type);
        }
        v->type[i] = (uint8_t)type;
    }
    return FV_OK;
}

fv_status fvi_vocab_scores(const fv_vocab *v, const fvi_gguf *g, float *out) {
    static const char key[] = "tokenizer.ggml.scores";
    const fvi_gguf_entry *e;
    fv_status status = find_numbers(g, key, v->n, false, &e);
    if (status == FV_OK && e == NULL) {
        status = fvi_fail(g->ctx, FV_ERR_FORMAT, "%s: the metadata has no '%s', which 'llama' tokenizers merge by", g->path, key);
    }
    if (status != FV_OK) {
        return status;
    }
    memcpy(out, e->data, (size_t)v->n * sizeof *out);
    for (int32_t i = 0; i < v->n; i++) {
        if (out[i] != out[i]) {
            return fvi_gguf_fail(g, FV_ERR_FORMAT, e->offset + 4 * (uint64_t)i, "key", e->key,
                                 "the score of token %d is not a number", i);
        }
    }
    return FV_OK;
}

/* ---- pieces ---- */

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "<0x0A>" */
static bool byte_token(fvi_string s, char *out) {
    if (s.size != 6 || memcmp(s.data, "<0x", 3) != 0 || s.data[5] != '>') {
        return false;
    }
    int high = hex_digit(s.data[3]), low = hex_digit(s.data[4]);
    if (high < 0 || low < 0) {
        return false;
    }
    *out = (char)(high << 4 | low);
    return true;
}

/* U+2581 stands for a space. */
static int64_t spaces_decode(fvi_string s, char *out) {
    int64_t n = 0;
    for (size_t i = 0; i < s.size; i++) {
        bool mark = s.size - i >= 3 && memcmp(s.data + i, "\xe2\x96\x81", 3) == 0;
        out[n++] = mark ? ' ' : s.data[i];
        i += mark ? 2 : 0;
    }
    return n;
}

/* Writes what the token stands for, s.size bytes at most; -1 if it should be a byte and is none. What is not written in
 * byte letters stands for itself: files add such tokens by hand. */
static int64_t decode_piece(const fv_vocab *v, uint8_t type, fvi_string s, char *out) {
    if (type == FVI_TOKEN_BYTE) {
        return byte_token(s, out) ? 1 : -1;
    }
    if (type == FVI_TOKEN_NORMAL || type == FVI_TOKEN_UNUSED) {
        int64_t n = v->kind == FVI_VOCAB_LLAMA ? spaces_decode(s, out) : fvi_bpe_decode(s.data, s.size, out);
        if (n >= 0) {
            return n;
        }
    }
    memcpy(out, s.data, s.size);
    return (int64_t)s.size;
}

/* Refuses two tokens that are written alike. `raw` has the tokens, `slot` v->slots entries of -1. */
static fv_status refuse_doubles(const fv_vocab *v, const fvi_gguf *g, const fvi_gguf_entry *e, const fvi_string *raw) {
    for (int32_t i = 0; i < v->n; i++) {
        size_t at = fvi_hash(raw[i].data, raw[i].size) & (v->slots - 1);
        for (; v->slot[at] >= 0; at = (at + 1) & (v->slots - 1)) {
            const fvi_string *other = &raw[v->slot[at]];
            if (other->size == raw[i].size && memcmp(other->data, raw[i].data, raw[i].size) == 0) {
                return fvi_gguf_fail(g, FV_ERR_FORMAT, fvi_gguf_record(g, raw[i]), "key", e->key,
                                     "token %d is the same as token %d: each may be there once", i, v->slot[at]);
            }
        }
        v->slot[at] = i;
    }
    memset(v->slot, 0xff, v->slots * sizeof *v->slot);
    return FV_OK;
}

static fv_status read_raw(fv_vocab *v, const fvi_gguf *g, const fvi_gguf_entry *e, fvi_string *raw) {
    const uint8_t *cursor = NULL;
    size_t total = 0;
    for (int32_t i = 0; i < v->n; i++) {
        raw[i] = fvi_gguf_next_string(e, &cursor);
        total += raw[i].size;
        if (raw[i].size > LONGEST_TOKEN) {
            return fvi_gguf_fail(g, FV_ERR_FORMAT, fvi_gguf_record(g, raw[i]), "key", e->key,
                                 "token %d has %zu bytes, %d at most is right", i, raw[i].size, LONGEST_TOKEN);
        }
    }
    if (total > UINT32_MAX) {
        return fvi_gguf_fail(g, FV_ERR_FORMAT, e->offset, "key", e->key, "its tokens have %zu bytes, %u at most is right", total,
                             UINT32_MAX);
    }
    fv_status status = refuse_doubles(v, g, e, raw);
    v->bytes_size = total + 1;
    v->bytes = status == FV_OK ? fvi_alloc(v->ctx, v->bytes_size, 1) : NULL;
    return status == FV_OK && v->bytes == NULL ? fvi_fail(v->ctx, FV_ERR_MEMORY, "no memory for %d tokens", v->n) : status;
}

/* Text can become what is no name and no byte token. */
static void index_piece(fv_vocab *v, int32_t id) {
    size_t size = fvi_piece_size(v, id);
    if (size == 0 || v->type[id] == FVI_TOKEN_CONTROL || v->type[id] == FVI_TOKEN_UNKNOWN || v->type[id] == FVI_TOKEN_BYTE ||
        fvi_vocab_find(v, fvi_piece(v, id), size) >= 0) {
        return;
    }
    size_t at = fvi_hash(fvi_piece(v, id), size) & (v->slots - 1);
    while (v->slot[at] >= 0) {
        at = (at + 1) & (v->slots - 1);
    }
    v->slot[at] = id;
}

static fv_status decode_pieces(fv_vocab *v, const fvi_gguf *g, const fvi_gguf_entry *e, const fvi_string *raw) {
    memset(v->byte_id, 0xff, sizeof v->byte_id);
    v->start[0] = 0;
    for (int32_t i = 0; i < v->n; i++) {
        char *at = v->bytes + v->start[i];
        int64_t size = decode_piece(v, v->type[i], raw[i], at);
        if (size < 0) {
            return fvi_gguf_fail(g, FV_ERR_FORMAT, fvi_gguf_record(g, raw[i]), "key", e->key,
                                 "token %d is of the type byte, a name as <0x0A> is right", i);
        }
        v->start[i + 1] = v->start[i] + (uint32_t)size;
        v->longest = (size_t)size > v->longest ? (size_t)size : v->longest;
        bool alone = v->type[i] == FVI_TOKEN_BYTE || (v->kind != FVI_VOCAB_LLAMA && v->type[i] == FVI_TOKEN_NORMAL);
        if (alone && size == 1 && v->byte_id[(unsigned char)*at] < 0) {
            v->byte_id[(unsigned char)*at] = i;
        }
        index_piece(v, i);
    }
    return FV_OK;
}

static fv_status read_tokens(fv_vocab *v, const fvi_gguf *g) {
    const fvi_gguf_entry *e;
    fv_status status = find_tokens(g, &e);
    if (status != FV_OK) {
        return status;
    }
    int32_t n = (int32_t)e->count;
    v->n = n;
    v->start = fvi_alloc(v->ctx, (size_t)n + 1, sizeof *v->start);
    v->type = fvi_alloc(v->ctx, (size_t)n, 1);
    v->slots = 16;
    while (v->slots < 2 * (size_t)n) {
        v->slots *= 2;
    }
    v->slot = fvi_alloc(v->ctx, v->slots, sizeof *v->slot);
    fvi_string *raw = fvi_alloc(v->ctx, (size_t)n, sizeof *raw);
    if (v->start == NULL || v->type == NULL || v->slot == NULL || raw == NULL) {
        status = fvi_fail(v->ctx, FV_ERR_MEMORY, "no memory for %d tokens", n);
    } else {
        memset(v->slot, 0xff, v->slots * sizeof *v->slot);
        status = read_types(v, g);
        status = status == FV_OK ? read_raw(v, g, e, raw) : status;
        status = status == FV_OK ? decode_pieces(v, g, e, raw) : status;
    }
    fvi_release(v->ctx, raw, (size_t)n, sizeof *raw);
    return status;
}

/* ---- special tokens ---- */

static fv_status read_id(const fv_vocab *v, const fvi_gguf *g, const char *key, int32_t *inout) {
    uint32_t id = UINT32_MAX;
    fv_status status = fvi_gguf_u32(g, key, false, 0, (uint32_t)v->n - 1, &id);
    if (status == FV_OK && id != UINT32_MAX) {
        *inout = (int32_t)id;
    }
    return status;
}

static fv_status read_ids(fv_vocab *v, const fvi_gguf *g) {
    v->bos = v->eos = v->eot = v->unknown = -1;
    for (int32_t i = 0; i < v->n && v->unknown < 0; i++) {
        v->unknown = v->type[i] == FVI_TOKEN_UNKNOWN ? i : -1;
    }
    fv_status status = read_id(v, g, "tokenizer.ggml.bos_token_id", &v->bos);
    status = status == FV_OK ? read_id(v, g, "tokenizer.ggml.eos_token_id", &v->eos) : status;
    status = status == FV_OK ? read_id(v, g, "tokenizer.ggml.eot_token_id", &v->eot) : status;
    status = status == FV_OK ? read_id(v, g, "tokenizer.ggml.unknown_token_id", &v->unknown) : status;
    v->add_bos = v->add_space_prefix = v->kind == FVI_VOCAB_LLAMA;
    status = status == FV_OK ? fvi_gguf_bool(g, "tokenizer.ggml.add_bos_token", &v->add_bos) : status;
    status = status == FV_OK ? fvi_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &v->add_space_prefix) : status;
    v->add_bos = v->add_bos && v->bos >= 0;
    v->add_space_prefix = v->add_space_prefix && v->kind == FVI_VOCAB_LLAMA;
    return status;
}

static int by_bytes(const void *a, const void *b, void *arg) {
    const fv_vocab *v = arg;
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    size_t nx = fvi_piece_size(v, x), ny = fvi_piece_size(v, y);
    int order = memcmp(fvi_piece(v, x), fvi_piece(v, y), nx < ny ? nx : ny);
    if (order != 0 || nx != ny) {
        return order != 0 ? order : nx < ny ? -1 : 1;
    }
    return x < y ? -1 : x > y;
}

static fv_status sort_specials(fv_vocab *v) {
    v->special = fvi_alloc(v->ctx, (size_t)v->n, sizeof *v->special);
    if (v->special == NULL) {
        return fvi_fail(v->ctx, FV_ERR_MEMORY, "no memory for %d tokens", v->n);
    }
    for (int32_t i = 0; i < v->n; i++) {
        bool user = v->type[i] == FVI_TOKEN_USER;
        if (fvi_piece_size(v, i) > 0 && (user || v->type[i] == FVI_TOKEN_CONTROL || v->type[i] == FVI_TOKEN_UNKNOWN)) {
            unsigned char first = (unsigned char)*fvi_piece(v, i);
            v->special[v->specials++] = i;
            v->special_first[first] = true;
            v->user_first[first] |= user;
        }
    }
    qsort_r(v->special, (size_t)v->specials, sizeof *v->special, by_bytes, v);
    return FV_OK;
}

static fv_status load(fv_vocab *v, const fvi_gguf *g) {
    fv_status status = read_kind(v, g);
    status = status == FV_OK ? read_tokens(v, g) : status;
    status = status == FV_OK ? read_ids(v, g) : status;
    status = status == FV_OK ? sort_specials(v) : status;
    if (status == FV_OK) {
        status = v->kind == FVI_VOCAB_LLAMA ? fvi_spm_load(v, g) : fvi_bpe_load(v, g);
    }
    if (status == FV_OK) {
        v->word = fvi_zalloc(v->ctx, FVI_WORD_SLOTS, sizeof *v->word);
        status = v->word != NULL ? FV_OK : fvi_fail(v->ctx, FV_ERR_MEMORY, "no memory for the cache of words");
    }
    return status;
}

fv_status fvi_vocab_from_gguf(fv_context *ctx, const fvi_gguf *g, fv_vocab **out) {
    *out = NULL;
    fv_vocab *v = fvi_zalloc(ctx, 1, sizeof *v);
    if (v == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a vocabulary");
    }
    v->ctx = ctx;
    fv_status status = load(v, g);
    if (status != FV_OK) {
        fv_vocab_destroy(v);
        return status;
    }
    *out = v;
    return FV_OK;
}
