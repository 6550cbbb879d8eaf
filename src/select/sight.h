/* sight.h - one query head's queries and its keys and values, as a selector reads them.
 *
 * Row i of Q stands at position offset + i, key j at position j. Rows come as f32 whatever they are kept as, in the basis that
 * products meet them in (rotated, where a cache rotates K and V): dot products, norms and distances are those of the model.
 */
#ifndef FVI_SIGHT_H
#define FVI_SIGHT_H

#include "kernel/lowbit.h"
#include "kernel/rowop.h"
#include "kernel/sift.h"
#include "kernel/tile.h"

/* Sizes that state and scratch are made for: maxima. */
typedef struct fvi_extent {
    int64_t n_q, n_kv, h_q, h_kv, d_k, d_v;
    bool causal;
    bool rotary;     /* rows have rotary positions, which are known */
    int64_t trained; /* positions the model was trained on; 0: not known */
} fvi_extent;

typedef enum fvi_side { FVI_SIDE_Q, FVI_SIDE_K, FVI_SIDE_V } fvi_side;

typedef struct fvi_sight fvi_sight;
struct fvi_sight {
    int64_t n_q, n_kv, offset;
    int64_t h_q, h_kv, d_k, d_v;
    int64_t head, kv_head;
    int layer;
    int64_t step; /* of the run, for methods that work over several */
    float scale;  /* of the dot product: a score is scale * q . k, a natural logarithm */
    bool causal;
    const fvi_tile_ops *ops;   /* of the form that keys are packed in */
    const fvi_tile_ops *plain; /* of the f32 form: its soften leaves f32 weights */
    const fvi_rowop_ops *rowop;
    const fvi_sift_ops *sift;
    const fvi_lowbit_ops *lowbit;
    const void *source; /* attend's */
    /* Turns n rows (n, d_k) of Q or K on by so many positions, either way; NULL where rows have no rotary positions. */
    void (*turn)(const fvi_sight *sight, int64_t by, int64_t n, float *rows);
    /* Rows from .. from + n - 1 of a side to out (n, d), contiguous. */
    void (*rows)(const fvi_sight *sight, fvi_side side, int64_t from, int64_t n, float *out);
    /* Packs keys 64 leaf .. of the form `ops` (at most 64, zeros for the others); room: 64 * (d_k + d_v)
     * floats, 64-byte aligned. Returns how many. */
    int (*pack)(const fvi_sight *sight, int64_t leaf, void *room, void *kt);
    /* Packs keys key[0] .. key[n - 1], in any order, in the same way; n <= 64. */
    void (*pack_keys)(const fvi_sight *sight, const int32_t *key, int n, void *room, void *kt);
    /* Asks memory for keys that will soon be packed. */
    void (*ask_keys)(const fvi_sight *sight, const int32_t *key, int n);
};

/* Some query rows against any leaves of keys, by the tile's own products. */
typedef struct fvi_look {
    const fvi_sight *sight;
    int64_t rows;
    void *qt, *kt, *room;
} fvi_look;

/* Bytes of memory that a look at up to `rows` rows takes, a multiple of 64. */
size_t fvi_look_bytes(int64_t rows, int64_t d_k, int64_t d_v);
/* Packs q (rows, d_k) into `memory`, which is 64-byte aligned and serves until the look is over. */
fvi_look fvi_look_open(const fvi_sight *sight, const float *q, int64_t rows, void *memory);
/* s (rows, 64), 64-byte aligned, = scale * q . k for keys 64 leaf ..; 0 for keys that are not there. Returns how many are. */
int fvi_look_scores(fvi_look *look, int64_t leaf, float scale, float *s);
/* The same in two steps: packs keys 64 leaf .., returns how many there are; then s (n, 64) of rows first .. first + n - 1. */
int fvi_look_leaf(fvi_look *look, int64_t leaf);
void fvi_look_rows(const fvi_look *look, int64_t first, int64_t n, float scale, float *s);

/* Packs rows (n, d) of f32, n <= 64, as keys of the form `ops`, zeros for the others: d need not be the head's. kt has
 * fvi_tile_k_bytes(d); room 128 d bytes; both 64-byte aligned. */
void fvi_sight_pack_rows(const fvi_sight *sight, const float *rows, int64_t n, int64_t d, void *room, void *kt);
/* The same for n <= 64 keys, wherever they are. */
void fvi_look_keys(fvi_look *look, const int32_t *key, int n, float scale, float *s);

/* Means of rows over consecutive blocks: out (ceil(n / block), d) of the side's n rows; the last block may be shorter and is
 * divided by what it has. `row` has room for 64 rows. */
void fvi_sight_means(const fvi_sight *sight, fvi_side side, int64_t block, float *row, float *out);

#endif
