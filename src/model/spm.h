/* spm.h - what loading and encoding of SentencePiece-style vocabularies share. */
#ifndef FVI_SPM_H
#define FVI_SPM_H

#include "model/vocab.h"

/* The bit of `joint` for two characters side by side. */
static inline uint32_t fvi_joint_bit(int32_t before, int32_t code) {
    uint64_t h = ((uint64_t)(uint32_t)before << 32 | (uint32_t)code) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32) & (FVI_JOINT_WORDS * 64 - 1);
}

/* The id of these bytes: a token's, that of a character that is only part of tokens, or -1. */
int32_t fvi_spm_symbol(const fv_vocab *v, const char *bytes, size_t size);

#endif
