/* vocab.c - a vocabulary once it is loaded: opening, asking, destroying. */
#include "model/vocab.h"

#include <string.h>

/* Eight bytes a step, mixed by a multiply. Words are short, and slots are compared byte by byte. */
uint64_t fvi_hash(const char *bytes, size_t size) {
    uint64_t h = size * 0x9e3779b97f4a7c15u;
    while (size >= 8) {
        uint64_t w;
        memcpy(&w, bytes, 8);
        h = (h ^ w) * 0xbf58476d1ce4e5b9u;
        h ^= h >> 29;
        bytes += 8;
        size -= 8;
    }
    uint64_t w = 0;
    for (size_t i = 0; i < size; i++) {
        w |= (uint64_t)(unsigned char)bytes[i] << (8 * i);
    }
    h = (h ^ w) * 0x94d049bb133111ebu;
    return h ^ h >> 32;
}

int32_t fvi_vocab_find(const fv_vocab *v, const char *bytes, size_t size) {
    for (size_t at = fvi_hash(bytes, size) & (v->slots - 1);; at = (at + 1) & (v->slots - 1)) {
        int32_t id = v->slot[at];
        if (id < 0 || (fvi_piece_size(v, id) == size && memcmp(fvi_piece(v, id), bytes, size) == 0)) {
            return id;
        }
    }
}

fv_status fv_vocab_open(fv_context *ctx, const char *path, fv_vocab **out) {
    fvi_gguf *g = NULL;
    *out = NULL;
    fv_status status = fvi_gguf_open(ctx, path, &g);
    if (status == FV_OK) {
        status = fvi_vocab_from_gguf(ctx, g, out);
        fvi_gguf_destroy(g);
    }
    return status;
}

void fv_vocab_destroy(fv_vocab *vocab) {
    if (vocab == NULL) {
        return;
    }
    fv_context *ctx = vocab->ctx;
    size_t n = (size_t)vocab->n;
    fvi_release(ctx, vocab->bytes, vocab->bytes_size, 1);
    fvi_release(ctx, vocab->start, n + 1, sizeof *vocab->start);
    fvi_release(ctx, vocab->type, n, 1);
    fvi_release(ctx, vocab->slot, vocab->slots, sizeof *vocab->slot);
    fvi_release(ctx, vocab->merge, vocab->merge_slots, sizeof *vocab->merge);
    fvi_release(ctx, vocab->special, n, sizeof *vocab->special);
    fvi_release(ctx, vocab->lone, (size_t)vocab->lone_capacity, sizeof *vocab->lone);
    fvi_release(ctx, vocab->joint, FVI_JOINT_WORDS, sizeof *vocab->joint);
    fvi_release(ctx, vocab->part, n, sizeof *vocab->part);
    fvi_release(ctx, vocab->word, FVI_WORD_SLOTS, sizeof *vocab->word);
    fvi_release(ctx, vocab, 1, sizeof *vocab);
}

int fv_vocab_size(const fv_vocab *vocab) { return vocab->n; }
int fv_vocab_bos(const fv_vocab *vocab) { return vocab->bos; }
int fv_vocab_eos(const fv_vocab *vocab) { return vocab->eos; }
bool fv_vocab_add_bos(const fv_vocab *vocab) { return vocab->add_bos; }

const char *fv_vocab_kind(const fv_vocab *vocab) {
    static const char *const name[] = {
        [FVI_VOCAB_GPT2] = "gpt-2", [FVI_VOCAB_SMOLLM] = "smollm", [FVI_VOCAB_QWEN2] = "qwen2", [FVI_VOCAB_LLAMA] = "llama"};
    return name[vocab->kind];
}

const char *fv_vocab_piece(const fv_vocab *vocab, int id, size_t *size) {
    if (id < 0 || id >= vocab->n) {
        *size = 0;
        return NULL;
    }
    *size = fvi_piece_size(vocab, id);
    return fvi_piece(vocab, id);
}

/* Files name one end at most, but chat models have two: that of the text and that of a turn. The names are those that
 * published models give it. */
bool fv_vocab_is_end(const fv_vocab *vocab, int id) {
    static const char *const name[] = {"<|im_end|>", "<|endoftext|>", "<|end_of_text|>",
                                       "<|eot_id|>", "<|end|>",       "<end_of_turn>"};
    if (id < 0 || id >= vocab->n) {
        return false;
    }
    if (id == vocab->eos || id == vocab->eot) {
        return true;
    }
    bool found = false;
    for (size_t i = 0; i < sizeof name / sizeof *name && vocab->type[id] == FVI_TOKEN_CONTROL; i++) {
        size_t size = strlen(name[i]);
        found |= fvi_piece_size(vocab, id) == size && memcmp(fvi_piece(vocab, id), name[i], size) == 0;
    }
    return found;
}

void fv_tokens_release(fv_context *ctx, fv_tokens *tokens) {
    if (tokens != NULL) {
        fvi_release(ctx, tokens->id, (size_t)tokens->capacity, sizeof *tokens->id);
        *tokens = (fv_tokens){NULL, 0, 0};
    }
}
