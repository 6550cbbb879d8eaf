/* cascades.c - attention algorithms as cascades of einsums, after FuseMax (Nayak et al., MICRO 2024), sections IV and V.
 *
 * Which einsums the 2-D array does is the paper's choice for the one-pass cascade; in the others it does the two products. */
#include "fovea/experimental.h"

static const fv_einsum three_pass[] = {
    {"QK:mp", {"Q:ep", "K:em"}, FV_EINSUM_MAC, true},     {"GM:p", {"QK:mp"}, FV_EINSUM_MAX, false},
    {"SN:mp", {"QK:mp", "GM:p"}, FV_EINSUM_EXP, false},   {"SD:p", {"SN:mp"}, FV_EINSUM_ADD, false},
    {"A:mp", {"SN:mp", "SD:p"}, FV_EINSUM_DIVIDE, false}, {"AV:fp", {"A:mp", "V:fm"}, FV_EINSUM_MAC, true},
};

static const fv_einsum three_pass_deferred[] = {
    {"QK:mp", {"Q:ep", "K:em"}, FV_EINSUM_MAC, true},   {"GM:p", {"QK:mp"}, FV_EINSUM_MAX, false},
    {"SN:mp", {"QK:mp", "GM:p"}, FV_EINSUM_EXP, false}, {"SD:p", {"SN:mp"}, FV_EINSUM_ADD, false},
    {"SNV:fp", {"SN:mp", "V:fm"}, FV_EINSUM_MAC, true}, {"AV:fp", {"SNV:fp", "SD:p"}, FV_EINSUM_DIVIDE, false},
};

/* Numerators and denominators under each tile's own maximum; the second pass corrects them by the global one. */
static const fv_einsum two_pass[] = {
    {"QK:Mmp", {"Q:ep", "K:eMm"}, FV_EINSUM_MAC, true},
    {"LM:Mp", {"QK:Mmp"}, FV_EINSUM_MAX, false},
    {"SLN:Mmp", {"QK:Mmp", "LM:Mp"}, FV_EINSUM_EXP, false},
    {"SLD:Mp", {"SLN:Mmp"}, FV_EINSUM_ADD, false},
    {"GM:p", {"LM:Mp"}, FV_EINSUM_MAX, false},
    {"PM:Mp", {"LM:Mp", "GM:p"}, FV_EINSUM_EXP, false},
    {"SD:p", {"SLD:Mp", "PM:Mp"}, FV_EINSUM_MAC, false},
    {"SN:Mmp", {"SLN:Mmp", "PM:Mp"}, FV_EINSUM_MAC, false},
    {"A:Mmp", {"SN:Mmp", "SD:p"}, FV_EINSUM_DIVIDE, false},
    {"AV:fp", {"A:Mmp", "V:fMm"}, FV_EINSUM_MAC, true},
};

/* FlashAttention-2's, the paper's Cascade 5. */
static const fv_einsum one_pass[] = {
    {"QK:Mmp", {"Q:ep", "K:eMm"}, FV_EINSUM_MAC, true},
    {"LM:Mp", {"QK:Mmp"}, FV_EINSUM_MAX, true},
    {"RM:Mp", {"RM:Mp", "LM:Mp"}, FV_EINSUM_MAX, false},
    {"SLN:Mmp", {"QK:Mmp", "RM:Mp"}, FV_EINSUM_EXP, true},
    {"SLD:Mp", {"SLN:Mmp"}, FV_EINSUM_ADD, true},
    {"SLNV:Mfp", {"SLN:Mmp", "V:fMm"}, FV_EINSUM_MAC, true},
    {"PRM:Mp", {"RM:Mp"}, FV_EINSUM_EXP, false},
    {"SPD:Mp", {"RD:Mp", "PRM:Mp"}, FV_EINSUM_MAC, false},
    {"RD:Mp", {"SPD:Mp", "SLD:Mp"}, FV_EINSUM_ADD, false},
    {"SPNV:Mfp", {"RNV:Mfp", "PRM:Mp"}, FV_EINSUM_MAC, false},
    {"RNV:Mfp", {"SPNV:Mfp", "SLNV:Mfp"}, FV_EINSUM_ADD, false},
    {"AV:fp", {"RNV:fp", "RD:p"}, FV_EINSUM_DIVIDE, false},
};

#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))

static const fv_cascade cascade[] = {
    {"3-pass", "global maximum, then weights and their sum, then division and mix", three_pass, COUNT(three_pass)},
    {"3-pass-deferred", "the same with the division after the mix", three_pass_deferred, COUNT(three_pass_deferred)},
    {"2-pass", "weights under each tile's maximum, corrected by the global one", two_pass, COUNT(two_pass)},
    {"1-pass", "running maximum, sum and mix, rescaled as the maximum grows", one_pass, COUNT(one_pass)},
};

const fv_cascade *fv_cascade_at(int i) { return i >= 0 && i < COUNT(cascade) ? &cascade[i] : NULL; }
