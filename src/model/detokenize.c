/* detokenize.c - ids back to text, in whole characters.
 *
 * Tokens may end inside a character. What is held back is always the start of one that may still become whole, three bytes
 * at most; bytes that cannot are passed on as they are, since a text that was no UTF-8 should come back too.
 */
#include "model/vocab.h"

#include <string.h>

/* Bytes of the character that `lead` starts; 0 if it starts none that is longer than a byte. */
static size_t character_size(unsigned char lead) {
    return lead >= 0xc2 && lead <= 0xdf ? 2 : lead >= 0xe0 && lead <= 0xef ? 3 : lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
}

/* Whether `second` may follow `lead`: no overlong forms, no surrogates, nothing past U+10FFFF. */
static bool follows(unsigned char lead, unsigned char second) {
    unsigned char least = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    unsigned char most = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    return second >= least && second <= most;
}

static unsigned char byte_at(const fv_detokenizer *state, const char *piece, size_t at) {
    size_t held = (size_t)state->n_pending;
    return (unsigned char)(at < held ? state->pending[at] : piece[at - held]);
}

/* How many bytes at the end of what is held and the piece are the start of an unfinished character. */
static size_t unfinished(const fv_detokenizer *state, const char *piece, size_t total) {
    for (size_t n = 1; n <= 3 && n <= total; n++) {
        unsigned char lead = byte_at(state, piece, total - n);
        if ((lead & 0xc0) == 0x80) {
            continue;
        }
        bool may = character_size(lead) > n && (n < 2 || follows(lead, byte_at(state, piece, total - n + 1)));
        return may ? n : 0;
    }
    return 0;
}

/* What the id adds to the text; an empty piece if it is hidden. */
static fv_status text_of(fv_context *ctx, const fv_vocab *v, fv_detokenizer *state, int id, bool show_special, const char **piece,
                         size_t *size) {
    if (id < 0 || id >= v->n) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "token %d is not in the vocabulary, 0 to %d are", id, v->n - 1);
    }
    uint8_t type = v->type[id];
    bool special = type == FVI_TOKEN_CONTROL || type == FVI_TOKEN_UNKNOWN;
    *piece = fvi_piece(v, id);
    *size = special && !show_special ? 0 : fvi_piece_size(v, id);
    bool strip = v->add_space_prefix && !state->started && !special && type != FVI_TOKEN_USER && *size > 0 && **piece == ' ';
    *piece += strip;
    *size -= strip;
    return FV_OK;
}

fv_status fv_detokenize(fv_context *ctx, const fv_vocab *vocab, fv_detokenizer *state, int id, bool show_special, char *out,
                        size_t capacity, size_t *size) {
    const char *piece = NULL;
    size_t n = 0;
    *size = 0;
    if (state->n_pending < 0 || state->n_pending > (int)sizeof state->pending) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "the detokenizer holds %d bytes: zero-initialise it", state->n_pending);
    }
    fv_status status = text_of(ctx, vocab, state, id, show_special, &piece, &n);
    if (status != FV_OK || (n == 0 && fvi_piece_size(vocab, id) == 0)) {
        return status;
    }
    size_t held = (size_t)state->n_pending, total = held + n, tail = unfinished(state, piece, total);
    if (total - tail > capacity) {
        return fvi_fail(ctx, FV_ERR_RANGE, "token %d completes %zu bytes, there is room for %zu", id, total - tail, capacity);
    }
    char last[3] = {0};
    for (size_t i = 0; i < total; i++) {
        char byte = (char)byte_at(state, piece, i);
        if (i < total - tail) {
            out[i] = byte;
        } else {
            last[i - (total - tail)] = byte;
        }
    }
    memcpy(state->pending, last, sizeof last);
    state->n_pending = (int)tail;
    state->started |= n > 0 || piece != fvi_piece(vocab, id);
    *size = total - tail;
    return FV_OK;
}

size_t fv_detokenize_flush(fv_detokenizer *state, char *out, size_t capacity) {
    size_t held = (size_t)state->n_pending, n = held < capacity ? held : capacity;
    if (n > 0) {
        memcpy(out, state->pending, n);
    }
    memmove(state->pending, state->pending + n, held - n);
    state->n_pending = (int)(held - n);
    return n;
}
