/* tokenize.c - a text as special tokens and the stretches between them.
 *
 * User-defined tokens are part of the text and are always found, as in the reference libraries; control tokens (and the
 * name of the unknown one) only where the caller asks, since text that looks like one is text. The leftmost is taken, the
 * longest of those that start there.
 */
#include "model/vocab.h"

#include <string.h>

/* The first of the specials [low, high) that has a byte of at least `byte` at `depth`. They all are longer than that. */
static int32_t first_at_least(const fv_vocab *v, int32_t low, int32_t high, size_t depth, int byte) {
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if ((unsigned char)fvi_piece(v, v->special[middle])[depth] < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The longest special token that starts the text, -1 if none does: the sorted list is narrowed byte by byte. */
static int32_t match(const fv_vocab *v, const char *text, size_t size, bool control) {
    int32_t low = 0, high = v->specials, found = -1;
    for (size_t depth = 0; low < high && depth < size; depth++) {
        int byte = (unsigned char)text[depth];
        low = first_at_least(v, low, high, depth, byte);
        high = first_at_least(v, low, high, depth, byte + 1);
        while (low < high && fvi_piece_size(v, v->special[low]) == depth + 1) {
            int32_t id = v->special[low++];
            found = control || v->type[id] == FVI_TOKEN_USER ? id : found;
        }
    }
    return found;
}

/* The next special token from `at` on and where it starts; `size` and -1 if there is none. */
static size_t next_special(const fv_vocab *v, const char *text, size_t size, size_t at, bool control, int32_t *id) {
    const bool *first = control ? v->special_first : v->user_first;
    *id = -1;
    for (; v->specials > 0 && at < size; at++) {
        if (first[(unsigned char)text[at]] && (*id = match(v, text + at, size - at, control)) >= 0) {
            return at;
        }
    }
    return size;
}

static fv_status tokenize(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, const char *text, size_t size, bool control,
                          fv_tokens *out) {
    fv_status status = FV_OK;
    for (size_t at = 0; at < size && status == FV_OK;) {
        int32_t id;
        size_t end = next_special(v, text, size, at, control, &id);
        status = v->kind == FVI_VOCAB_LLAMA ? fvi_spm_encode(ctx, v, scratch, text + at, end - at, at == 0, out)
                                            : fvi_bpe_encode(ctx, v, scratch, text + at, end - at, out);
        at = end;
        if (status == FV_OK && id >= 0) {
            status = fvi_tokens_append(ctx, out, &id, 1);
            at += fvi_piece_size(v, id);
        }
    }
    return status;
}

fv_status fv_tokenize(fv_context *ctx, const fv_vocab *vocab, const char *text, size_t size, bool parse_special, fv_tokens *out) {
    if (text == NULL && size > 0) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "text is NULL, but its size is %zu", size);
    }
    fvi_scratch scratch = {0};
    int64_t before = out->n;
    fv_status status = tokenize(ctx, vocab, &scratch, text, size, parse_special, out);
    fvi_scratch_release(ctx, &scratch);
    if (status != FV_OK) {
        out->n = before;
    }
    return status;
}
