/* pretokenize.h - cuts a text into the pieces inside which a byte-level vocabulary merges. */
#ifndef FVI_PRETOKENIZE_H
#define FVI_PRETOKENIZE_H

#include "model/vocab.h"

/* The end of the piece that starts at text[at], at < size. Time is linear in the pieces' sizes. `kind` is one of the
 * byte-level ones. */
size_t fvi_pretokenize(fvi_vocab_kind kind, const char *text, size_t size, size_t at);

/* Bytes of the character at text[at] and its code point; a byte that starts no valid character counts as one of its own,
 * with code point -1. */
int fvi_utf8_next(const char *text, size_t size, size_t at, int32_t *code);

#endif
