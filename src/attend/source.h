/* source.h - where keys and values come from: tensors of any strides, or the pages of a cache. */
#ifndef FVI_SOURCE_H
#define FVI_SOURCE_H

#include "cache/cache.h"
#include "kernel/decode.h"
#include "kernel/wordop.h"

/* One leaf in place, or gathered into scratch where elements of a row do not stand side by side. */
typedef struct fvi_leaf {
    const uint8_t *k, *v;
    const uint16_t *k_scale, *v_scale; /* of quantised rows: see kernel/quant.h */
    const uint8_t *k_next, *v_next;    /* the next leaf's rows, to be asked for in time; NULL: none, or not known */
    int64_t k_row_bytes, v_row_bytes;
    fv_dtype k_dtype, v_dtype;
    int n;
    void *kt, *vt;           /* packed, where leaves are */
    const int32_t *position; /* n ascending; NULL: first, first + 1, ... */
    const int32_t *key;      /* numbers in the sequence of columns that were put side by side; NULL: a block's */
    int64_t first;
    bool entries;                    /* of an index, which are no keys */
    int64_t set;                     /* of the index's places that kt is packed by; 0: keys where they stand */
    bool v_open, v_looked, v_finite; /* values are packed; whether they are finite was looked at; they are */
} fvi_leaf;

typedef struct fvi_source {
    const fv_cache *cache; /* or NULL: tensors */
    int layer;
    const fv_tensor *k, *v;
    int64_t sequence, start; /* of tensors: batch index, first row */
    int64_t head, n_kv;
} fvi_source;

/* Where a head's rows of K, or of V, lie: one after the other, or in pages. */
typedef struct fvi_row_place {
    const uint8_t *rows; /* NULL: in pages */
    fvi_page *const *page;
    bool values;
    int64_t row_bytes;
} fvi_row_place;

/* Whether leaves are read where they are: no rows are gathered, so that several may be open at once. */
bool fvi_source_in_place(const fvi_source *source);

/* Leaf number `leaf`. `gather` holds 64 * (d_k + d_v) floats. */
void fvi_source_leaf(const fvi_source *source, int64_t leaf, void *gather, fvi_leaf *out);

/* Puts n <= 64 columns side by side in `room` (fvi_source_room bytes, 64-byte aligned): a leaf like another, but for its keys'
 * numbers `key`, ascending, which also are its positions. */
void fvi_source_columns(const fvi_source *source, const int32_t *key, int n, int64_t d_k, int64_t d_v, void *room, fvi_leaf *out);
/* A leaf of n <= 64 rows k (n, d_k) and v (n, d_v) that are no keys: in place, or, where leaves are packed as pairs of bf16
 * (half), rounded to such in `room`, of the same size. */
void fvi_source_entries(const float *k, const float *v, const int32_t *position, int n, bool half, int64_t d_k, int64_t d_v,
                        void *room, fvi_leaf *out);
/* The rows of K, or of V (values), to be read where they lie; false where rows do not lie whole, or need scales. */
bool fvi_source_place(const fvi_source *source, bool values, fvi_row_place *out);
/* Where the rows of n <= 64 keys lie. */
void fvi_source_point(const fvi_word_ops *ops, const fvi_row_place *place, const int32_t *key, int n, const void **at);
/* The same rows put side by side in `room`, which has 64 d floats. */
fvi_rows fvi_source_rows(const fvi_source *source, bool values, const int32_t *key, int n, void *room);
/* Asks for the rows of n keys, which are to be read soon, from the second cache on. */
void fvi_source_ask(const fvi_source *source, const int32_t *key, int n);
/* Likewise for a block. */
void fvi_source_ask_block(const fvi_source *source, int64_t block);
/* Bytes that 64 columns of any type take. */
size_t fvi_source_room(int64_t d_k, int64_t d_v);

/* Quantised K and V of a leaf become rows of bf16 (half) or f32 in `gather`; others stay where they are. */
void fvi_leaf_widen(const fvi_quant_ops *ops, bool half, int64_t d_k, int64_t d_v, void *gather, fvi_leaf *leaf);

/* n elements at `data`, `stride` elements apart, as f32. dtype is f32, f16 or bf16. */
void fvi_load_row(fv_dtype dtype, const void *data, int64_t stride, int64_t n, float *out);
void fvi_store_row(fv_dtype dtype, const float *row, int64_t n, void *data, int64_t stride);
/* Asks for what lies a few rows behind `row` in t: a prompt's queries and outputs come from memory, head by head a row, each
 * of which a processor follows too late. An address beyond the rows is harmless. */
void fvi_ask_row(const fv_tensor *t, const uint8_t *row);
/* Address of element (b, h, n, 0). */
static inline uint8_t *fvi_tensor_at(const fv_tensor *t, int64_t b, int64_t h, int64_t n) {
    return (uint8_t *)t->data + (b * t->stride[0] + h * t->stride[1] + n * t->stride[2]) * (int64_t)fv_dtype_bytes(t->dtype, 1);
}

#endif
