/* attention.h - Fovea's core: contexts, tensors, attention, caches.
 *
 * From simple to advanced:
 *   1. fv_attention()                            one call, allocates its own scratch
 *   2. fv_plan_create() ... fv_plan_run()        plan once, run often, the caller owns the workspace
 *   3. fv_cache_*()                              keys and values that grow, fork and roll back
 * Models, tokenizers and sessions are in model.h, measurements in lab.h.
 *
 * Terms. query, key, value; b batch, h_q and h_kv heads, n_q and n_kv lengths, d_k and d_v widths. Query head h is served by
 * KV head h / (h_q / h_kv), so h_q must be a multiple of h_kv (equal: MHA, h_kv = 1: MQA, between: GQA).
 *
 * Positions. Key j has position j. Query i has position i + offset. With the default offset = n_kv - n_q the last query sees
 * the last key. A causal query sees the keys at positions up to its own; a window of w lets it see its own position and
 * the w - 1 before it (and, where not causal, the w - 1 after it); the first `sinks` keys stay visible beyond the window.
 *
 * A row that sees no key and has no sink logit gives zeros and a log-sum-exp of -inf.
 *
 * Errors. Each call that can fail returns an fv_status and leaves a sentence in its context (fv_message) that says what was
 * wrong, where, and what would be right. Outputs of a failed call are unspecified, its inputs untouched.
 *
 * Threads. A context owns a pool of threads and is used by one thread at a time; two contexts are independent.
 * Results are the same bits for any number of threads, any company in a batch and any chunking of a prompt.
 *
 * Numbers. Inputs are f32, f16 or bf16; scores, weights and sums are held in f32. docs/numerics.md states the error bound.
 */
#ifndef FOVEA_ATTENTION_H
#define FOVEA_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define FV_API
#else
#define FV_API __attribute__((visibility("default")))
#endif

#define FV_VERSION "0.1.0"

/* The library's version, as in FV_VERSION of the header it was built with. */
FV_API const char *fv_version(void);

/* ---- status ------------------------------------------------------------------------------------------------------- */

typedef enum fv_status {
    FV_OK = 0,
    FV_ERR_ARGUMENT,    /* a value that cannot be right: the message names it and its range */
    FV_ERR_MEMORY,      /* the allocator said no, or a size would overflow */
    FV_ERR_IO,          /* a file could not be opened, read, written or replaced */
    FV_ERR_FORMAT,      /* a file is not what it should be: the message has the file, the offset and the field */
    FV_ERR_UNSUPPORTED, /* legal, but not here: the message says what is */
    FV_ERR_STATE,       /* the call does not fit the object's state (a step before the prompt's end, say) */
    FV_ERR_RANGE,       /* beyond a length, a capacity or the trained context */
    FV_ERR_CANCELLED    /* the cancel flag was raised */
} fv_status;

/* The status's name in words, never NULL. */
FV_API const char *fv_status_name(fv_status status);

/* ---- context ------------------------------------------------------------------------------------------------------ */

typedef struct fv_context fv_context;

/* Every byte of ours comes from here. `size` is never 0; alloc returns memory aligned to 64 bytes or NULL; free gets the
 * size that was asked for. Both may be called from any thread of the pool. */
typedef struct fv_allocator {
    void *(*alloc)(void *user, size_t size);
    void (*free)(void *user, void *ptr, size_t size);
    void *user;
} fv_allocator;

typedef enum fv_level { FV_LEVEL_BEST = 0, FV_LEVEL_C, FV_LEVEL_AVX2, FV_LEVEL_AVX512 } fv_level;

typedef struct fv_context_options {
    int threads;                   /* 0: one per available core; else 1..256 */
    fv_level level;                /* kernels to use; FV_LEVEL_BEST: what the CPU can. Higher than the CPU's is an error */
    const fv_allocator *allocator; /* NULL: the C library's */
} fv_context_options;

/* NULL options: all defaults, which are zeros. On FV_ERR_MEMORY *out is NULL and there is no message to ask for. */
FV_API fv_status fv_context_create(const fv_context_options *options, fv_context **out);
FV_API void fv_context_destroy(fv_context *ctx);
/* The last error's sentence, "" if there was none. Valid until the next call with this context. */
FV_API const char *fv_message(const fv_context *ctx);
FV_API int fv_threads(const fv_context *ctx);
FV_API fv_level fv_context_level(const fv_context *ctx);
FV_API const char *fv_level_name(fv_level level); /* "best", "c", "avx2", "avx512" */
/* Raises or lowers the cancel flag; safe from a signal handler or another thread. A running call returns FV_ERR_CANCELLED
 * soon after; the flag stays up until lowered. */
FV_API void fv_cancel(fv_context *ctx, bool raised);

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

typedef enum fv_dtype {
    FV_AUTO = -1, /* in options: the library chooses; no tensor has it */
    FV_F32 = 0,
    FV_F16,
    FV_BF16,
    FV_Q8_0, /* 32 weights: f16 scale, 32 int8 */
    FV_Q4_0, /* 32 weights: f16 scale, 32 nibbles, offset 8 */
    FV_Q4_1, /* 32 weights: f16 scale, f16 minimum, 32 nibbles */
    FV_I32,
    FV_U8,
    FV_DTYPE_COUNT
} fv_dtype;

FV_API const char *fv_dtype_name(fv_dtype dtype); /* "f32", "f16", "bf16", "q8_0", ... */
/* Bytes of n elements in a row; n must be a multiple of 32 for the quantised types (0 is returned otherwise). */
FV_API size_t fv_dtype_bytes(fv_dtype dtype, int64_t n);

/* A borrowed view. Attention takes rank 4: (b, h, n, d), slowest first; strides are in elements, may be 0 or negative. */
typedef struct fv_tensor {
    void *data;
    fv_dtype dtype;
    int rank;
    int64_t shape[4];
    int64_t stride[4];
} fv_tensor;

/* A contiguous (b, h, n, d) view of `data`. */
FV_API fv_tensor fv_tensor_view(const void *data, fv_dtype dtype, int64_t b, int64_t h, int64_t n, int64_t d);
/* Lays a rank 3 or 4 DLPack tensor (a DLTensor *, CPU, float 32/16 or bfloat 16) out as a view; nothing is copied. Rank 3
 * is (h, n, d) with b = 1. The view borrows the DLTensor's memory. */
FV_API fv_status fv_tensor_from_dlpack(fv_context *ctx, const void *dl_tensor, fv_tensor *out);
/* Makes a DLManagedTensor * that borrows the view's memory; its deleter frees only the wrapper. */
FV_API fv_status fv_tensor_to_dlpack(fv_context *ctx, const fv_tensor *view, void **out_managed);

/* ---- recipes ------------------------------------------------------------------------------------------------------ */

/* A recipe names a method on each axis: "prefill=window:size=1024,decode=window:size=1024,kv=f16". A bare method
 * ("window:size=1024") stands for prefill and decode both, or for the one that it works on. An empty string is dense attention.
 * The axis kv takes a format for K and V, or one for each ("kv=q8_0/q4_0"), each with rotate=1 if its rows are to be rotated
 * ("kv=q4_0:rotate=1"). */
typedef struct fv_recipe fv_recipe;
struct fv_cache_desc;
struct fv_run;

typedef enum fv_phase { FV_PREFILL = 0, FV_DECODE = 1 } fv_phase;

FV_API fv_status fv_recipe_parse(fv_context *ctx, const char *text, fv_recipe **out);
FV_API void fv_recipe_destroy(fv_recipe *recipe);
/* The recipe in its normal form, every parameter written out. Owned by the recipe. */
FV_API const char *fv_recipe_text(const fv_recipe *recipe);
/* Sets the formats of K and V that the recipe asks for, and their rotations; false, and *desc as it was, if it leaves them open.
 */
FV_API bool fv_recipe_kv(const fv_recipe *recipe, struct fv_cache_desc *desc);
/* How many rows of a prompt its method must have together, cut at absolute multiples of that number: 1 where a row stands for
 * itself, INT64_MAX where the method looks at the whole prompt. */
FV_API int64_t fv_recipe_grain(const fv_recipe *recipe);
/* Why no model can take the recipe, which works on arrays alone (windows of a plane, denoising steps); NULL: one can. */
FV_API const char *fv_recipe_arrays_only(const fv_recipe *recipe);
/* True if a method hides keys from the softmax while the cache keeps them all. */
FV_API bool fv_recipe_masks_only(const fv_recipe *recipe);

/* A profile: what was found offline for a model, a list of numbers for each layer and query head; what they mean is the
 * method's. A recipe names its file, "prefill=moa@profile.json". fv_recipe_parse only remembers the path; fv_recipe_load of
 * model.h reads it. */
typedef struct fv_profile fv_profile;
FV_API fv_status fv_profile_create(fv_context *ctx, const char *method, int layers, int64_t heads, fv_profile **out);
FV_API void fv_profile_destroy(fv_profile *profile);
FV_API const char *fv_profile_method(const fv_profile *profile);
FV_API int fv_profile_layers(const fv_profile *profile);
FV_API int64_t fv_profile_heads(const fv_profile *profile);
/* Fingerprint of the model that it was made on, 0 if it fits any. */
FV_API uint64_t fv_profile_model(const fv_profile *profile);
FV_API void fv_profile_set_model(fv_profile *profile, uint64_t fingerprint);
/* Copies n finite numbers, in place of those that were there. */
FV_API fv_status fv_profile_set(fv_profile *profile, int layer, int64_t head, const double *number, int64_t n);
/* NULL, and n = 0, where nothing was set or there is no such layer or head. */
FV_API const double *fv_profile_get(const fv_profile *profile, int layer, int64_t head, int64_t *n);
/* Its method on the axis of that phase: "minference". */
FV_API const char *fv_recipe_method(const fv_recipe *recipe, fv_phase phase);
/* The path that the recipe's text names, or NULL. */
FV_API const char *fv_recipe_profile_path(const fv_recipe *recipe, fv_phase phase);
/* The profile that it has, or NULL. */
FV_API const fv_profile *fv_recipe_profile(const fv_recipe *recipe, fv_phase phase);
/* Gives the recipe a profile of its method; on FV_OK the recipe owns it. Before plans are made of it. */
FV_API fv_status fv_recipe_attach(fv_recipe *recipe, fv_phase phase, fv_profile *profile);
/* The same, but the profile stays the caller's: it outlives the recipe and its plans. Its numbers may change between runs. */
FV_API fv_status fv_recipe_lend(fv_recipe *recipe, fv_phase phase, const fv_profile *profile);

/* ---- calibration: where profiles come from ---- */

/* Watches prompts for a method that finds something offline, and makes its profile. A run that is to be watched has whole
 * prompts, causal, one sequence, n_q = n_kv up to `tokens`. */
typedef struct fv_calibration fv_calibration;
typedef struct fv_calibration_options {
    int layers;
    int64_t h_q, h_kv, d_k, d_v;
    int64_t tokens;  /* of a prompt at most */
    int64_t prompts; /* how many there will be */
    double budget;   /* share of the causal pairs that the method may visit, 0..1; 0: the method's own choice */
} fv_calibration_options;
/* Of the recipe's prefill method; the recipe is borrowed. FV_ERR_UNSUPPORTED where the method finds nothing offline. */
FV_API fv_status fv_calibration_create(fv_context *ctx, const fv_recipe *recipe, const fv_calibration_options *options,
                                       fv_calibration **out);
FV_API void fv_calibration_destroy(fv_calibration *calibration);
/* Looks at the queries and keys of a run. */
FV_API fv_status fv_calibration_add(fv_calibration *calibration, const struct fv_run *run);
/* The profile of all that it saw. */
FV_API fv_status fv_calibration_find(fv_calibration *calibration, fv_profile **out);

/* The registry behind `fovea methods`. */
typedef enum fv_axis { FV_AXIS_PREFILL = 1, FV_AXIS_DECODE = 2, FV_AXIS_HEADS = 4, FV_AXIS_KV = 8 } fv_axis; /* a bit set */
typedef enum fv_has { FV_HAS_FORWARD = 1, FV_HAS_STEP = 2, FV_HAS_BACKWARD = 4, FV_HAS_GPU = 8 } fv_has;     /* a bit set */
typedef struct fv_method_parameter {
    const char *name; /* as written in a recipe */
    const char *help; /* one line with its unit */
    double value;     /* default */
    double least, most;
} fv_method_parameter;
typedef struct fv_method {
    const char *name;  /* as written in a recipe */
    const char *title; /* one line: what it does */
    const char *paper; /* citation, or "" */
    const char *key;   /* its row in the catalogue, or "" */
    unsigned axes;     /* fv_axis bits; 0: a tool, which computes something about methods */
    unsigned has;      /* fv_has bits: what a test holds */
    const fv_method_parameter *parameters;
    int n_parameters;
    const char *not_a_choice; /* why a recipe cannot name it; NULL: it can */
} fv_method;
/* The i-th method in the order of names, NULL past the end. */
FV_API const fv_method *fv_method_at(int i);
FV_API const fv_method *fv_method_find(const char *name);

/* ---- attention: plan, then run ------------------------------------------------------------------------------------- */

/* The rotary positions that rows of Q and K come with (Su et al., RoFormer, 2021): the pairs of a row's first `width` numbers are
 * turned by position * frequency. Dense attention does not look at it; methods that give queries and keys positions of their own
 * do, and turn rows on from where they stand. */
typedef struct fv_rope {
    int64_t width;           /* even, up to d_k; 0: rows have no such positions, or it is not known */
    bool interleaved;        /* pairs (x[2j], x[2j+1]); else (x[j], x[j + width/2]) */
    const double *frequency; /* (width / 2) radians a position; read while a plan is made */
    int64_t trained;         /* positions that the model was trained on; 0: not known */
} fv_rope;

/* What is to be computed. Start from fv_problem_default() and set what differs. Lengths are maxima: a run may bring less. */
typedef struct fv_problem {
    int64_t b;            /* sequences, at least 1; with `packed`, sequences in the pack */
    int64_t h_q, h_kv;    /* heads */
    int64_t n_q, n_kv;    /* longest rows of queries and of keys of one sequence; n_kv up to 2^30 */
    int64_t d_k, d_v;     /* widths, 1..256 */
    fv_dtype out_dtype;   /* f32 (default), f16 or bf16 */
    float scale;          /* on the dot product; 0: 1/sqrt(d_k) */
    float soft_cap;       /* c > 0: score = c tanh(score / c), before bias; 0: off */
    bool causal;          /* see "Positions" above */
    bool offset_set;      /* false: offset = n_kv - n_q of each sequence */
    int64_t offset;       /* position of query 0, if offset_set */
    int64_t window;       /* 0: off */
    int64_t sinks;        /* keys that a window never hides; needs window > 0 */
    bool packed;          /* sequences stand one after the other in tensors of b = 1: see q_start and k_start of fv_run */
    bool has_bias;        /* an additive bias comes at run */
    bool has_alibi;       /* ALiBi slopes come at run: score -= slope[h] * |position_q - position_k| */
    bool has_sink_logits; /* a logit per query head joins each row's softmax without a value */
    bool has_key_mask;    /* a mask over keys comes at run */
    float max_error;      /* 0: off. Else some rows of each head are computed densely too (the last 64, and 64 before them), and
                           * a head whose outputs differ there by more than this, relative to their size, is run densely */
    fv_rope rope;         /* how Q and K were rotated, for methods that have to know */
    const fv_recipe
        *recipe; /* NULL: dense. A recipe's window and the problem's both apply. Borrowed until the plan is destroyed */
    fv_phase
        phase; /* prefill (default) or decode: which of the recipe's methods, and which kernels. Decode's are for the few queries
                * of generated tokens and read K and V in place; the two phases' bits differ, within the error bound */
} fv_problem;

FV_API fv_problem fv_problem_default(void);

typedef struct fv_plan fv_plan;
typedef struct fv_cache fv_cache;

/* Checks the problem, picks kernels and tile sizes, sizes the workspace. */
FV_API fv_status fv_plan_create(fv_context *ctx, const fv_problem *problem, fv_plan **out);
FV_API void fv_plan_destroy(fv_plan *plan);
/* Bytes that fv_plan_run needs; independent of n_q x n_kv (it grows with threads, widths and n_kv / 4096). */
FV_API size_t fv_plan_workspace(const fv_plan *plan);
/* Bytes that a method keeps from step to step in fv_run.state; 0 where it keeps nothing. */
FV_API size_t fv_plan_state(const fv_plan *plan);
/* The form of the kernel that a run with K and V of these dtypes takes: "c", "avx2", "avx512" (f32 arithmetic), "avx512bf16" or
 * "amx" (products of bf16 pairs), "avx512vnni" (of bytes); with FV_DECODE that of K. Never NULL. */
FV_API const char *fv_plan_kernel(const fv_plan *plan, fv_dtype k, fv_dtype v);
/* The tile that a plan works in: what stays in the caches while K and V pass by. A run may take smaller tiles, so that all
 * threads have work. */
typedef struct fv_tile_facts {
    int64_t rows;       /* query positions times query heads of a group */
    int64_t keys;       /* of one leaf */
    size_t score_bytes; /* the scores of a leaf against the rows that are worked on at once */
    size_t state_bytes; /* running maximum, sum and output of all rows */
} fv_tile_facts;
FV_API void fv_plan_tile(const fv_plan *plan, fv_tile_facts *out);

/* What the last run visited. Pairs are (query head row, key). */
typedef struct fv_run_stats {
    uint64_t eligible_pairs; /* what the problem's own masks (causal, window, padding by length) leave visible */
    uint64_t visited_pairs;  /* pairs in visited 64 x 64 blocks that are within the causal triangle */
    uint64_t exact_pairs;    /* pairs of a query and a key that took part in a softmax */
    uint64_t k_rows, v_rows; /* rows of K and of V read, over all items: a row that serves a whole group counts once */
    uint64_t tiles;          /* query tiles, of a head each, that a method chose keys for; 0 where a rule is enough */
    uint64_t fallback_tiles; /* of those, tiles that were run dense because the method gives up there */
    double select_seconds;   /* of all threads together, spent on choosing; part of the run's time */
    uint64_t audited_heads;  /* heads, times sequences, that max_error had checked */
    uint64_t dense_heads;    /* of those, heads that were run densely since their error was larger */
    double worst_error;      /* the largest estimate of a head's error */
    uint64_t entry_pairs; /* pairs with entries that are no keys (pooled ones) that took part; visited_pairs has those visited */
} fv_run_stats;

/* The operands of one run. Zero-initialise, set what the problem asked for.
 *   q (b, h_q, n_q, d_k), out (b, h_q, n_q, d_v), k (b, h_kv, n_kv, d_k), v (b, h_kv, n_kv, d_v)
 * packed: q (1, h_q, sum n_q, d_k) and so on; rows q_start[s] .. q_start[s+1] belong to sequence s. */
typedef struct fv_run {
    fv_tensor q, k, v, out;
    float *lse; /* (b, h_q, n_q) contiguous, natural logarithm, sink logit included; NULL: not wanted. packed: (h_q, sum n_q) */
    const int32_t *q_start; /* b + 1 ascending row numbers, packed only */
    const int32_t *k_start; /* likewise for keys */
    const int32_t
        *kv_length; /* b lengths: keys at or past it are padding; the offset counts from it. NULL: all. Not with packed */
    const uint8_t *key_mask; /* (b, n_kv), 0 hides the key; packed: (sum n_kv). NULL unless has_key_mask */
    fv_tensor bias; /* f32 (b, h_q, n_q, n_kv), added after the cap; a stride of 0 repeats. -inf hides. Not with packed */
    const float *alibi_slopes; /* h_q */
    const float *sink_logits;  /* h_q */
    const fv_cache *cache;     /* if set, K and V come from layer `layer` of it and k, v are ignored; b must be 1 */
    int layer;
    int64_t step; /* of a method that works over several runs of one sequence (denoising steps, say), from 0 */
    void *state;  /* fv_plan_state bytes, 64-byte aligned, kept from step to step; a sequence and layer has its own */
    size_t state_bytes;
    fv_run_stats *stats; /* NULL: not wanted */
} fv_run;

/* `workspace` is 64-byte aligned, fv_plan_workspace bytes, and may be shared between plans that do not run at once. No
 * allocation. */
FV_API fv_status fv_plan_run(fv_plan *plan, const fv_run *run, void *workspace, size_t workspace_bytes);

/* One-shot: softmax(q k^T scale [+ causal mask]) v. q, k, v, out as in fv_run, lse may be NULL. */
FV_API fv_status fv_attention(fv_context *ctx, const fv_tensor *q, const fv_tensor *k, const fv_tensor *v, bool causal,
                              const fv_tensor *out, float *lse);

/* ---- cache --------------------------------------------------------------------------------------------------------- */

/* Keys and values of one sequence: layers x KV heads, in pages of 64 entries (rows of K, rows of V, positions). Forks share
 * full pages; bytes are allocated bytes.
 *
 * Quantised rows take an orthonormal Walsh-Hadamard rotation well: it spreads a row's outliers over its blocks. Rows are then
 * kept rotated, in blocks of the largest power of two that divides the width; queries are rotated and outputs rotated back by
 * the run, so nothing but rounding changes (Ashkboos et al., QuaRot, NeurIPS 2024).
 *
 * With d_v = 0 a cache has rows of K alone, of widths up to 16384, not quantised and not rotated: rows that are key and value at
 * once (fv_el_attention of experimental.h); plans do not take it. */
typedef struct fv_cache_desc {
    int layers;
    int64_t h_kv, d_k, d_v;    /* widths 1..256; a multiple of 32 where quantised */
    fv_dtype k_dtype, v_dtype; /* f32, f16, bf16, q8_0 or q4_0, each its own */
    bool rotate_k, rotate_v;   /* before rounding; worth it with q4_0, legal with all */
} fv_cache_desc;

FV_API fv_status fv_cache_create(fv_context *ctx, const fv_cache_desc *desc, fv_cache **out);
FV_API void fv_cache_destroy(fv_cache *cache);
FV_API fv_cache_desc fv_cache_describe(const fv_cache *cache);
/* Bytes that the pages of n entries in every layer and head take, before there is a cache; SIZE_MAX if no size_t holds them.
 * Tables are beside that, some 8 to 16 bytes a page. */
FV_API size_t fv_cache_page_bytes(const fv_cache_desc *desc, int64_t n);
/* Appends n entries to one layer: k (1, h_kv, n, d_k), v (1, h_kv, n, d_v), any of f32, f16, bf16; rotated if the cache says so
 * and rounded to its dtypes: a block of 32 of q8_0 to scale * -127..127, scale = max |x| / 127, of q4_0 to scale * -8..7, both
 * with an f16 scale. A block with a number that is not finite, or whose scale no f16 holds, reads as NaN. Entry e of the call
 * gets position length + e. All or nothing. v is NULL where d_v is 0. */
FV_API fv_status fv_cache_append(fv_cache *cache, int layer, const fv_tensor *k, const fv_tensor *v);
/* Entries of a layer. */
FV_API int64_t fv_cache_length(const fv_cache *cache, int layer);
/* Drops the entries at positions >= length in every layer. */
FV_API fv_status fv_cache_truncate(fv_cache *cache, int64_t length);
/* A second cache with the same entries; pages are shared until one of the two writes. */
FV_API fv_status fv_cache_fork(fv_cache *cache, fv_cache **out);
/* Bytes that this cache keeps allocated; a page shared by two forks counts in both. */
FV_API size_t fv_cache_bytes(const fv_cache *cache);
/* Copies entries [from, from + n) of one head out as they are kept (rotated, if they are): row-major, in the cache's dtypes,
 * n * fv_dtype_bytes(dtype, d) bytes each; either may be NULL. Quantised rows come in GGUF's blocks: f16 scale, then integers. */
FV_API fv_status fv_cache_read(const fv_cache *cache, int layer, int64_t head, int64_t from, int64_t n, void *k, void *v);
/* Appends n entries to one layer as fv_cache_read gave them, bit for bit: k and v (h_kv, n) rows. All or nothing. */
FV_API fv_status fv_cache_restore(fv_cache *cache, int layer, int64_t n, const void *k, const void *v);

/* ---- the machine --------------------------------------------------------------------------------------------------- */

/* Measured ceilings of this machine with the context's threads and level, in units per second: the fastest of several short
 * rounds in which all threads work at once, since a ceiling is what the machine can do, not what it does beside other programs.
 * Used by `fovea bench`. 0: the processor, or the level, has no such instruction. */
typedef struct fv_ceilings {
    double fma_f32;  /* FLOP/s of f32 multiply-adds at the context's level (2 per multiply-add) */
    double dot_bf16; /* FLOP/s of vdpbf16ps */
    double dot_int8; /* op/s of vpdpbusd */
    double amx_bf16; /* FLOP/s of tdpbf16ps */
    double read;     /* bytes/s read from memory, each thread its own part of four times the last cache, which it wrote first */
    double clock_hz; /* cycles a second, by a chain of dependent integer products */
} fv_ceilings;
FV_API fv_status fv_measure_ceilings(fv_context *ctx, fv_ceilings *out);
/* Bytes a second that all threads together read of one piece of memory of so many bytes, each all of it, over and over: what the
 * level of the caches that holds it gives. */
FV_API fv_status fv_measure_read(fv_context *ctx, size_t bytes, double *out);

#ifdef __cplusplus
}
#endif
#endif
