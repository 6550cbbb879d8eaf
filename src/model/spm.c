/* spm.c - SentencePiece-style text: characters merge, the best score first; what stays without a token becomes bytes.
 *
 * There are no words: a text is one stretch behind its space prefix. But a merge makes a piece, so none can cross two
 * characters that stand side by side in no piece. The stretch is cut there, which changes nothing and makes words of it
 * (pieces have no letter before a space), so that the cache works and sorting stays local. Pairs of characters are kept
 * as a set of 65,536 hashed bits; a false hit only joins two words.
 *
 * A literal U+2581 is no space here: it becomes bytes, so that it comes back as it was.
 */
#include "model/spm.h"

#include "model/pretokenize.h"
#include <string.h>
#include <utf8proc.h>

static int32_t lone_id(const fv_vocab *v, uint32_t code) {
    int64_t low = 0, high = v->lones;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (v->lone[middle] < code) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < v->lones && v->lone[low] == code ? v->n + (int32_t)low : -1;
}

int32_t fvi_spm_symbol(const fv_vocab *v, const char *bytes, size_t size) {
    int32_t code, id = fvi_vocab_find(v, bytes, size);
    if (id >= 0 || v->lones == 0) {
        return id;
    }
    return (size_t)fvi_utf8_next(bytes, size, 0, &code) == size && code >= 0 ? lone_id(v, (uint32_t)code) : -1;
}

/* One character without a token: its bytes if all have one, else the unknown token (once for a run of them), else nothing. */
static fv_status emit_bytes(fv_context *ctx, const fv_vocab *v, const char *bytes, size_t size, fv_tokens *out, bool *unknown) {
    int32_t id[4];
    bool all = true;
    for (size_t i = 0; i < size; i++) {
        id[i] = v->byte_id[(unsigned char)bytes[i]];
        all &= id[i] >= 0;
    }
    bool repeated = *unknown;
    *unknown = !all;
    if (all) {
        return fvi_tokens_append(ctx, out, id, (int64_t)size);
    }
    return repeated || v->unknown < 0 ? FV_OK : fvi_tokens_append(ctx, out, &v->unknown, 1);
}

/* A symbol that stands at `bytes`; an unused token goes back to what it was merged from. */
static fv_status emit(fv_context *ctx, const fv_vocab *v, int32_t id, const char *bytes, size_t size, fv_tokens *out,
                      bool *unknown) {
    if (id < 0 || id >= v->n) {
        return emit_bytes(ctx, v, bytes, size, out, unknown);
    }
    if (v->type[id] == FVI_TOKEN_UNUSED && v->part != NULL && v->part[id][0] >= 0) {
        int32_t left = v->part[id][0], code;
        size_t cut = left < v->n ? fvi_piece_size(v, left) : (size_t)fvi_utf8_next(bytes, size, 0, &code);
        fv_status status = emit(ctx, v, left, bytes, cut, out, unknown);
        return status != FV_OK ? status : emit(ctx, v, v->part[id][1], bytes + cut, size - cut, out, unknown);
    }
    *unknown = false;
    return fvi_tokens_append(ctx, out, &id, 1);
}

static fv_status encode_stretch(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, const char *text, size_t size,
                                fv_tokens *out, bool *unknown) {
    fv_status status = fvi_units_reserve(ctx, scratch, size);
    if (status != FV_OK) {
        return status;
    }
    size_t n = 0;
    int32_t code;
    for (size_t at = 0, bytes; at < size; at += bytes) {
        bytes = (size_t)fvi_utf8_next(text, size, at, &code);
        scratch->unit[n++] = code >= 0 ? fvi_spm_symbol(v, text + at, bytes) : -1;
    }
    status = fvi_units_merge(ctx, v, scratch, n, true);
    size_t at = 0;
    for (int64_t i = 0; i < scratch->ids && status == FV_OK; i++) {
        int32_t id = scratch->id[i];
        size_t bytes = id >= 0 && id < v->n ? fvi_piece_size(v, id) : (size_t)fvi_utf8_next(text, size, at, &code);
        status = emit(ctx, v, id, text + at, bytes, out, unknown);
        at += bytes;
    }
    return status;
}

/* The end of the stretch from `at` that no merge can cross. */
static size_t stretch_end(const fv_vocab *v, const char *text, size_t size, size_t at) {
    int32_t before, code;
    at += (size_t)fvi_utf8_next(text, size, at, &before);
    for (; at < size; before = code) {
        size_t n = (size_t)fvi_utf8_next(text, size, at, &code);
        uint32_t bit = fvi_joint_bit(before, code);
        if ((v->joint[bit / 64] >> bit % 64 & 1) == 0) {
            break;
        }
        at += n;
    }
    return at;
}

static fv_status put_prefix(fv_context *ctx, fvi_scratch *scratch, const char *text, size_t size) {
    if (!fvi_grow(ctx, (void **)&scratch->text, &scratch->text_capacity, (int64_t)size + 1, 1)) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a text of %zu bytes", size);
    }
    scratch->text[0] = ' ';
    memcpy(scratch->text + 1, text, size);
    return FV_OK;
}

fv_status fvi_spm_encode(fv_context *ctx, const fv_vocab *v, fvi_scratch *scratch, const char *text, size_t size, bool prefix,
                         fv_tokens *out) {
    fv_status status = FV_OK;
    if (prefix && v->add_space_prefix && size > 0) {
        status = put_prefix(ctx, scratch, text, size++);
        text = scratch->text;
    }
    bool unknown = false;
    for (size_t at = 0, end; at < size && status == FV_OK; at = end) {
        end = stretch_end(v, text, size, at);
        int64_t first = out->n;
        bool hit, lead = unknown;
        status = fvi_word_take(ctx, v, text + at, end - at, out, &hit);
        if (hit) {
            unknown = false;
        } else if (status == FV_OK) {
            status = encode_stretch(ctx, v, scratch, text + at, end - at, out, &unknown);
        }
        /* a word that begins or ends in a run of unknown characters depends on its neighbours */
        if (status == FV_OK && !hit && !lead && !unknown) {
            fvi_word_keep(v, text + at, end - at, out, first);
        }
    }
    return status;
}
