/* bpe.c - byte-level text: pieces of bytes that merge. Most words come again: a small cache keeps their ids (16,384 slots of
 * 64 bytes, one hash, a newcomer takes the slot), for the SentencePiece-style vocabularies too.
 */
#include "model/pretokenize.h"

#include <string.h>

/* ---- words ---- */

fv_status fvi_tokens_append(fv_context *ctx, fv_tokens *out, const int32_t *id, int64_t n) {
    if (!fvi_grow(ctx, (void **)&out->id, &out->capacity, out->n + n, sizeof *out->id)) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for %lld tokens", (long long)(out->n + n));
    }
    for (int64_t i = 0; i < n; i++) {
        out->id[out->n++] = id[i];
    }
    return FV_OK;
}

static fvi_word *word_slot(const fv_vocab *v, const char *word, size_t size) {
    return &v->word[fvi_hash(word, size) & (FVI_WORD_SLOTS - 1)];
}

fv_status fvi_word_take(fv_context *ctx, const fv_vocab *v, const char *word, size_t size, fv_tokens *out, bool *hit) {
    *hit = false;
    if (size > FVI_WORD_BYTES) {
        return FV_OK;
    }
    const fvi_word *w = word_slot(v, word, size);
    if (w->size != size || memcmp(w->bytes, word, size) != 0) {
        return FV_OK;
    }
    *hit = true;
    return fvi_tokens_append(ctx, out, w->id, w->n);
}

void fvi_word_keep(const fv_vocab *v, const char *word, size_t size, const fv_tokens *out, int64_t first) {
    int64_t n = out->n - first;
    if (size > FVI_WORD_BYTES || n > FVI_WORD_IDS) {
        return;
    }
    fvi_word *w = word_slot(v, word, size);
    w->size = (uint8_t)size;
    w->n = (uint8_t)n;
    memcpy(w->bytes, word, size);
    if (n > 0) {
        memcpy(w->id, out->id + first, (size_t)n * sizeof *w->id);
    }
}

/* ---- byte-level text ---- */

/* A byte without a token becomes the unknown token; where there is none it is left out, as the reference does. */
static size_t bytes_to_units(const fv_vocab *v, const char *piece, size_t size, int32_t *unit) {
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        int32_t id = v->byte_id[(unsigned char)piece[i]];
        if (id >= 0 || v->unknown >= 0) {
            unit[n++] = id;
        }
    }
    return n;
}

static fv_status encode_piece(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, const char *piece, size_t size,
                              fv_tokens *out) {
    fv_status status = fvi_units_reserve(ctx, scratch, size);
    if (status != FV_OK) {
        return status;
    }
    size_t n = bytes_to_units(v, piece, size, scratch->unit);
    status = fvi_units_merge(ctx, v, scratch, n, true);
    for (int64_t i = 0; i < scratch->ids; i++) {
        scratch->id[i] = scratch->id[i] >= 0 ? scratch->id[i] : v->unknown;
    }
    return status == FV_OK ? fvi_tokens_append(ctx, out, scratch->id, scratch->ids) : status;
}

fv_status fvi_bpe_encode(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, const char *text, size_t size,
                         fv_tokens *out) {
    fv_status status = FV_OK;
    for (size_t at = 0, end; at < size && status == FV_OK; at = end) {
        end = fvi_pretokenize(v->kind, text, size, at);
        int64_t first = out->n;
        bool hit;
        status = fvi_word_take(ctx, v, text + at, end - at, out, &hit);
        if (status == FV_OK && !hit) {
            status = encode_piece(ctx, v, scratch, text + at, end - at, out);
            if (status == FV_OK) {
                fvi_word_keep(v, text + at, end - at, out, first);
            }
        }
    }
    return status;
}
