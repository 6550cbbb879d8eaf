/* spm_load.c - a SentencePiece-style vocabulary as merges of pairs of ids.
 *
 * Two neighbours merge if their concatenation is a piece; so each piece gives a merge for each way to cut it into two
 * pieces, and its rank is the place of its score. A character may be part of pieces without being one: it gets an id past
 * the vocabulary, so that it can merge, and falls back to bytes if it did not.
 */
#include "model/pretokenize.h"

#include "model/spm.h"
#include <stdlib.h>
#include <string.h>

/* Cutting a piece in two is quadratic in its length. */
enum { LONGEST_PIECE = 512 };

static bool can_merge(const fv_vocab *v, int32_t id) {
    return v->type[id] == FVI_TOKEN_NORMAL || v->type[id] == FVI_TOKEN_USER || v->type[id] == FVI_TOKEN_UNUSED;
}

static int by_score(const void *a, const void *b, void *arg) {
    const float *score = arg;
    float x = score[*(const int32_t *)a], y = score[*(const int32_t *)b];
    return x > y ? -1 : x < y;
}

/* The place of each token's score, 0 the best, equal ones the same. */
static void rank_scores(int32_t n, float *score, int32_t *order, int32_t *rank) {
    for (int32_t i = 0; i < n; i++) {
        order[i] = i;
    }
    qsort_r(order, (size_t)n, sizeof *order, by_score, score);
    for (int32_t i = 0, place = 0; i < n; i++) {
        place += i > 0 && score[order[i]] < score[order[i - 1]];
        rank[order[i]] = place;
    }
}

static int by_code(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Notes the characters of a piece that are none themselves, and which ones stand side by side. */
static bool scan_piece(fv_vocab *v, int32_t id) {
    const char *piece = fvi_piece(v, id);
    size_t size = fvi_piece_size(v, id);
    int32_t code, before = 0;
    for (size_t at = 0, n; at < size; at += n, before = code) {
        n = (size_t)fvi_utf8_next(piece, size, at, &code);
        if (n == size) {
            return true;
        }
        if (at > 0) {
            uint32_t bit = fvi_joint_bit(before, code);
            v->joint[bit / 64] |= (uint64_t)1 << bit % 64;
        }
        if (code >= 0 && fvi_vocab_find(v, piece + at, n) < 0) {
            if (!fvi_grow(v->ctx, (void **)&v->lone, &v->lone_capacity, v->lones + 1, sizeof *v->lone)) {
                return false;
            }
            v->lone[v->lones++] = (uint32_t)code;
        }
    }
    return true;
}

/* *pairs gets the most merges that there can be. */
static fv_status scan_pieces(fv_vocab *v, const fvi_gguf *g, size_t *pairs) {
    *pairs = 0;
    for (int32_t i = 0; i < v->n; i++) {
        size_t size = fvi_piece_size(v, i);
        if (!can_merge(v, i) || size < 2) {
            continue;
        }
        if (size > LONGEST_PIECE) {
            return fvi_fail(v->ctx, FV_ERR_FORMAT,
                            "%s: 'tokenizer.ggml.tokens': token %d has %zu bytes, %d at most is right for a piece of text",
                            g->path, i, size, LONGEST_PIECE);
        }
        if (!scan_piece(v, i)) {
            return fvi_fail(v->ctx, FV_ERR_MEMORY, "no memory for the characters of %d tokens", v->n);
        }
        *pairs += size - 1;
    }
    int64_t kept = 0;
    if (v->lones > 0) {
        qsort(v->lone, (size_t)v->lones, sizeof *v->lone, by_code);
    }
    for (int64_t i = 0; i < v->lones; i++) {
        if (kept == 0 || v->lone[kept - 1] != v->lone[i]) {
            v->lone[kept++] = v->lone[i];
        }
    }
    v->lones = kept;
    return FV_OK;
}

/* The number of ways to cut a piece into two symbols; `add` makes merges of them. */
static size_t cut_piece(fv_vocab *v, int32_t id, const int32_t *rank, bool add) {
    const char *piece = fvi_piece(v, id);
    size_t size = fvi_piece_size(v, id), found = 0;
    int32_t code, best = INT32_MAX;
    for (size_t at = (size_t)fvi_utf8_next(piece, size, 0, &code); at < size;
         at += (size_t)fvi_utf8_next(piece, size, at, &code)) {
        fvi_merge m = {fvi_spm_symbol(v, piece, at), fvi_spm_symbol(v, piece + at, size - at), rank[id], id};
        if (m.left < 0 || m.right < 0) {
            continue;
        }
        found++;
        if (!add) {
            continue;
        }
        fvi_merges_add(v, m);
        int32_t worst = (int32_t)fvi_max(m.left < v->n ? rank[m.left] : 0, m.right < v->n ? rank[m.right] : 0);
        if (v->type[id] == FVI_TOKEN_UNUSED && worst < best) {
            best = worst;
            v->part[id][0] = m.left;
            v->part[id][1] = m.right;
        }
    }
    return found;
}

static size_t cut_pieces(fv_vocab *v, const int32_t *rank, bool add) {
    size_t found = 0;
    for (int32_t i = 0; i < v->n; i++) {
        if (can_merge(v, i) && fvi_piece_size(v, i) > 1) {
            found += cut_piece(v, i, rank, add);
        }
    }
    return found;
}

static fv_status load_merges(fv_vocab *v, const fvi_gguf *g, float *score, int32_t *order, int32_t *rank) {
    size_t pairs;
    fv_status status = fvi_vocab_scores(v, g, score);
    status = status == FV_OK ? scan_pieces(v, g, &pairs) : status;
    if (status != FV_OK) {
        return status;
    }
    rank_scores(v->n, score, order, rank);
    if (!fvi_merges_reserve(v, cut_pieces(v, rank, false))) {
        return fvi_fail(v->ctx, FV_ERR_MEMORY, "no memory for the merges of %d tokens", v->n);
    }
    cut_pieces(v, rank, true);
    return FV_OK;
}

static bool has_unused(const fv_vocab *v) { return memchr(v->type, FVI_TOKEN_UNUSED, (size_t)v->n) != NULL; }

fv_status fvi_spm_load(fv_vocab *v, const fvi_gguf *g) {
    size_t n = (size_t)v->n;
    float *score = fvi_alloc(v->ctx, n, sizeof *score);
    int32_t *order = fvi_alloc(v->ctx, n, sizeof *order), *rank = fvi_alloc(v->ctx, n, sizeof *rank);
    v->joint = fvi_zalloc(v->ctx, FVI_JOINT_WORDS, sizeof *v->joint);
    bool room = score != NULL && order != NULL && rank != NULL && v->joint != NULL;
    if (room && has_unused(v)) {
        v->part = fvi_alloc(v->ctx, n, sizeof *v->part);
        room = v->part != NULL;
        if (room) {
            memset(v->part, 0xff, n * sizeof *v->part);
        }
    }
    fv_status status =
        room ? load_merges(v, g, score, order, rank) : fvi_fail(v->ctx, FV_ERR_MEMORY, "no memory for %d tokens", v->n);
    fvi_release(v->ctx, score, n, sizeof *score);
    fvi_release(v->ctx, order, n, sizeof *order);
    fvi_release(v->ctx, rank, n, sizeof *rank);
    return status;
}
