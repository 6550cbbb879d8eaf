/* bpe_load.c - the merges of a byte-level vocabulary.
 *
 * Tokens and merges are written in letters that stand for bytes: 188 bytes that print are the character of the same
 * number, the other 68 are U+0100 and up, in their order.
 */
#include "model/pretokenize.h"

#include <string.h>

/* -1: no such letter */
static int letter_byte(int32_t code) {
    if ((code >= 33 && code <= 126) || (code >= 161 && code <= 172) || (code >= 174 && code <= 255)) {
        return code;
    }
    int32_t n = code - 256;
    if (n < 0 || n > 67) {
        return -1;
    }
    return n < 33 ? n : n < 67 ? 127 + (n - 33) : 173;
}

int64_t fvi_bpe_decode(const char *letters, size_t size, char *out) {
    int64_t n = 0;
    for (size_t at = 0; at < size;) {
        int32_t code;
        at += (size_t)fvi_utf8_next(letters, size, at, &code);
        int byte = letter_byte(code);
        if (byte < 0) {
            return -1;
        }
        out[n++] = (char)byte;
    }
    return n;
}

/* "LEFT RIGHT"; both and their concatenation must be tokens. `bytes` has room for the line. */
static fv_status read_merge(const fv_vocab *v, const fvi_gguf *g, const fvi_gguf_entry *e, fvi_string s, char *bytes,
                            fvi_merge *out) {
    const char *space = s.size > 2 ? memchr(s.data + 1, ' ', s.size - 2) : NULL;
    if (space == NULL) {
        return fvi_gguf_fail(g, FV_ERR_FORMAT, fvi_gguf_record(g, s), "key", e->key,
                             "merge %d is not two tokens with a space between them", out->rank);
    }
    size_t left = (size_t)(space - s.data), right = s.size - left - 1;
    int64_t n = fvi_bpe_decode(s.data, left, bytes);
    int64_t m = n >= 0 ? fvi_bpe_decode(space + 1, right, bytes + n) : -1;
    if (m >= 0) {
        out->left = fvi_vocab_find(v, bytes, (size_t)n);
        out->right = fvi_vocab_find(v, bytes + n, (size_t)m);
        out->result = fvi_vocab_find(v, bytes, (size_t)(n + m));
    }
    if (m < 0 || out->left < 0 || out->right < 0 || out->result < 0) {
        const char *which = m < 0 || out->left < 0 ? "left side" : out->right < 0 ? "right side" : "result";
        return fvi_gguf_fail(g, FV_ERR_FORMAT, fvi_gguf_record(g, s), "key", e->key,
                             "the %s of merge %d is not a token of the vocabulary", which, out->rank);
    }
    return FV_OK;
}

static fv_status read_merges(fv_vocab *v, const fvi_gguf *g, const fvi_gguf_entry *e, char *bytes, size_t most) {
    const uint8_t *cursor = NULL;
    fv_status status = FV_OK;
    for (int32_t i = 0; i < (int32_t)e->count && status == FV_OK; i++) {
        fvi_string s = fvi_gguf_next_string(e, &cursor);
        fvi_merge merge = {-1, -1, i, -1};
        if (s.size > most) {
            return fvi_gguf_fail(g, FV_ERR_FORMAT, fvi_gguf_record(g, s), "key", e->key,
                                 "merge %d has %zu bytes, tokens allow for %zu at most", i, s.size, most);
        }
        status = read_merge(v, g, e, s, bytes, &merge);
        if (status == FV_OK) {
            fvi_merges_add(v, merge);
        }
    }
    return status;
}

fv_status fvi_bpe_load(fv_vocab *v, const fvi_gguf *g) {
    static const char key[] = "tokenizer.ggml.merges";
    const fvi_gguf_entry *e = fvi_gguf_find(g, key);
    if (e == NULL) {
        return fvi_fail(g->ctx, FV_ERR_FORMAT, "%s: the metadata has no '%s', an array of strings", g->path, key);
    }
    bool fits = e->type == FVI_GGUF_ARRAY && e->element == FVI_GGUF_STRING;
    if (!fits || e->count > INT32_MAX / 4) {
        return fvi_gguf_fail(g, FV_ERR_FORMAT, e->offset, "key", e->key, "an array of %d strings at most is right",
                             INT32_MAX / 4);
    }
    /* a letter takes two bytes at most, and a merge has the letters of a token */
    size_t most = 2 * v->longest + 1;
    char *bytes = fvi_alloc(v->ctx, most, 1);
    if (bytes == NULL || !fvi_merges_reserve(v, (size_t)e->count)) {
        fvi_release(v->ctx, bytes, most, 1);
        return fvi_fail(v->ctx, FV_ERR_MEMORY, "no memory for %llu merges", (unsigned long long)e->count);
    }
    fv_status status = read_merges(v, g, e, bytes, most);
    fvi_release(v->ctx, bytes, most, 1);
    /* text is looked up by its bytes from here on */
    fvi_release(v->ctx, v->slot, v->slots, sizeof *v->slot);
    v->slot = NULL;
    v->slots = 0;
    return status;
}
