/* session_file.h - a session in a file: the format, which session_save.c writes and session_load.c reads.
 *
 *   "FOVEASES" u32 version, u32 zero                                                little-endian throughout
 *   sections, in this order, each: u32 tag, u32 zero, u64 bytes, the bytes, u64 digest of tag, size and bytes
 *     OPTS  fingerprint of the model, options, position, statistics, what follows
 *     RCPE  the recipe's text        TOKS  int32 ids
 *     KV    for each layer one: for each 256 entries, K rows of all heads, then V rows of all heads, as fv_cache_read gives
 *           them (quantised: in GGUF's blocks, rotated where the recipe says so)
 *     HIDN  the prompt's last hidden row    LOGT  logits          (where there are any)
 *   "FOVEAEND" u64 digest of all before it
 *
 * Every size is known from OPTS and the model before a section is read, so nothing is allocated on the word of a file. */
#ifndef FVI_SESSION_FILE_H
#define FVI_SESSION_FILE_H

#include "model/session.h"

enum { FVI_SESSION_FILE_VERSION = 3, FVI_SESSION_FILE_ENTRIES = 256 };

/* The four letters of a section's name. */
enum {
    FVI_SESSION_OPTS = 0x5354504f,
    FVI_SESSION_RCPE = 0x45504352,
    FVI_SESSION_TOKS = 0x534b4f54,
    FVI_SESSION_KV = 0x2020564b,
    FVI_SESSION_HIDN = 0x4e444948,
    FVI_SESSION_LOGT = 0x54474f4c
};

#define FVI_SESSION_FILE_MAGIC "FOVEASES"
#define FVI_SESSION_FILE_END   "FOVEAEND"

/* Without holes. */
typedef struct fvi_session_opts {
    uint64_t fingerprint;
    int64_t context, chunk, position, recipe_bytes;
    uint64_t eligible_pairs, visited_pairs, exact_pairs, k_rows, v_rows;
    int32_t k_dtype, v_dtype, kv_option, beyond_trained;
    int32_t has_hidden, has_logits;
    int64_t kv_layer_bytes;
    int64_t n_vocab;
    double max_error;
} fvi_session_opts;

/* A file that is being written or read, with its digests. `path` is for messages. */
typedef struct fvi_stream {
    fv_context *ctx;
    const char *path;
    int fd;
    uint64_t offset, size; /* size: when reading */
    uint64_t whole, part;  /* digests */
} fvi_stream;

/* Bytes of K, of V, of one entry of one head; of one entry of all heads of a layer. */
static inline size_t fvi_session_k_bytes(fv_cache_desc d) { return fv_dtype_bytes(d.k_dtype, d.d_k); }
static inline size_t fvi_session_v_bytes(fv_cache_desc d) { return fv_dtype_bytes(d.v_dtype, d.d_v); }
static inline size_t fvi_session_entry_bytes(fv_cache_desc d) {
    return (size_t)d.h_kv * (fvi_session_k_bytes(d) + fvi_session_v_bytes(d));
}

#endif
