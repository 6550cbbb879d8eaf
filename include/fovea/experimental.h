/* experimental.h - what works but may still change its form: methods that are no choice on a recipe's axes, and tools.
 *
 * Not part of fovea.h. Errors, threads and numbers as in attention.h.
 */
#ifndef FOVEA_EXPERIMENTAL_H
#define FOVEA_EXPERIMENTAL_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- EL-attention --------------------------------------------------------------------------------------------------- */

/* Yan et al., EL-Attention: Memory Efficient Lossless Attention for Generation, ICML 2021. Multi-head attention whose cache
 * holds the hidden states X and no K or V. With x_j a row of X,
 *   q_h . (W_k,h x_j + b_k,h) = (W_k,h^T q_h) . x_j + q_h . b_k,h
 * and the last term is the same for all keys: it leaves the softmax as it is. So each head's query is expanded to d_model numbers
 * and attends to X itself, as key and as value, and W_v,h, b_v,h and W_o see the mix once, since weights sum to 1.
 *
 * X is half of what K and V are where h * d_head = d_model, and one X serves all layers that attend to one encoder's output.
 * The price is arithmetic: d_model instead of d_head multiplications a head and key. Positions that are turned into K after
 * its projection (RoPE) are not possible: what is cached does not know them.
 *
 * Weights are f32, a row for each output: w_q, w_k, w_v (h * d_head, d_model) with biases (h * d_head) or NULL, w_o (d_model,
 * h * d_head) with its bias (d_model) or NULL. All borrowed. */
typedef struct fv_el_layer {
    int64_t d_model; /* 1..16384 */
    int64_t h, d_head;
    float scale; /* on the dot product; 0: 1/sqrt(d_head) */
    const float *w_q, *w_k, *w_v, *w_o;
    const float *b_q, *b_k, *b_v, *b_o; /* b_k is accepted and has no effect */
} fv_el_layer;

/* out (n_q, d_model) for the rows `query` (n_q, d_model), both f32 and contiguous, over layer `cache_layer` of a cache of h_kv =
 * 1, d_k = d_model, d_v = 0 (see fv_cache_desc): append X to it first. Causal: the last row sees the last entry, and so on
 * backwards. A row that sees nothing gives b_o. Allocates its scratch for the call: about 512 d_model + 12 h d_model bytes a
 * thread, and the heads' mixes.
 * The same bits for any number of threads, and for rows at once or one by one. */
FV_API fv_status fv_el_attention(fv_context *ctx, const fv_el_layer *layer, const fv_cache *x, int cache_layer,
                                 const float *query, int64_t n_q, bool causal, float *out);

/* ---- GALI --------------------------------------------------------------------------------------------------------------- */

/* Greedy Attention Logit Interpolation (2025): attention over a text longer than a model was trained on. Q and K come before
 * their rotation, (h, n, d) f32 and contiguous. The first `trained` rows are ordinary; each chunk after them sees all keys at
 * positions 0 .. trained - 1, those in between by interpolating two logits, with noise. Defaults of the paper's code: local 128,
 * chunk 3000, noise 1. Causal. The same bits for any number of threads. */
typedef struct fv_gali {
    int64_t h_q, h_kv, n, d_k, d_v; /* d_k even, widths up to 256 */
    int64_t trained, local, chunk;  /* the last `local` positions are never shared */
    double rope_base;
    bool interleaved; /* pairs (x[2j], x[2j+1]); else (x[j], x[j + d_k/2]) */
    float scale;      /* 0: 1/sqrt(d_k) */
    double noise;     /* standard deviation per distance in parts of the text; 0: none */
    uint64_t seed;
} fv_gali;
/* out (h_q, n, d_v); lse (h_q, n) or NULL. Allocates its scratch for the call. */
FV_API fv_status fv_gali_attention(fv_context *ctx, const fv_gali *g, const float *q, const float *k, const float *v, float *out,
                                   float *lse);
/* position (n): where n keys stand in 0 .. trained - 1. */
FV_API fv_status fv_gali_positions(fv_context *ctx, int64_t trained, int64_t local, int64_t n, double *position);

/* ---- HyperAttention ------------------------------------------------------------------------------------------------------ */

/* Han et al., HyperAttention: Long-context Attention in Near-Linear Time, ICLR 2024. Approximate: rows that hash alike meet
 * exactly, uniform samples stand for the rest. Defaults of the paper's code: block 256, samples 256, least 4096, projections 7.
 * f32, contiguous (h, n, d). Causal needs n_q = n_kv. The same bits for any number of threads. */
typedef struct fv_hyper {
    int64_t h_q, h_kv, n_q, n_kv, d_k, d_v;
    bool causal;
    int64_t block;       /* keys of a block of sorted ones */
    int64_t samples;     /* keys that stand for those outside; 0: none do */
    int64_t least;       /* up to so many rows (without causal: fewer) are exact */
    int64_t projections; /* 1..12: bits of a hash */
    float scale;         /* 0: 1/sqrt(d_k) */
    uint64_t seed;
    const float *projection; /* (d_k, projections), for all heads; NULL: normal numbers of the seed */
    /* A place 0 .. keys - 1 among the sorted keys first .. first + keys - 1, called by any thread; NULL: by the seed. */
    int64_t (*draw)(void *user, int64_t head, int64_t first, int64_t keys, int64_t sample);
    void *user;
} fv_hyper;
/* out (h_q, n_q, d_v); lse (h_q, n_q) or NULL, an estimate too. Allocates about 4 n_q (d_v + 8) bytes a thread for the call. */
FV_API fv_status fv_hyper_attention(fv_context *ctx, const fv_hyper *h, const float *q, const float *k, const float *v,
                                    float *out, float *lse);

/* The paper's two parameters of an input, on which its bounds rest, for one head over all keys; n_q x n_kv products in double. */
typedef struct fv_hyper_report {
    double alpha;      /* n times the largest squared norm of a column of the attention matrix: least 1 for even attention */
    double kappa;      /* largest over smallest of rows' unnormalised weight outside their blocks */
    double block_mass; /* attention within blocks, mean over rows */
} fv_hyper_report;
FV_API fv_status fv_hyper_measure(fv_context *ctx, const fv_hyper *h, int64_t head, const float *q, const float *k,
                                  fv_hyper_report *out);

/* ---- which keys a method visits --------------------------------------------------------------------------------------- */

/* One tile of an index: query rows first .. first + n - 1 of a query head, or, where the method puts queries into an order of its
 * own, the n rows named. Bit j of word b of `key` is key 64 b + j: some row of the tile visits it. The problem's own masks apply
 * beside it: ask fv_index_sees. Valid during the call. */
typedef struct fv_index_tile {
    int64_t sequence, head, first, n;
    const int32_t *row; /* (n); NULL: first, first + 1, ... */
    int64_t offset;     /* position of row 0 */
    int64_t n_kv;
    const uint64_t *key; /* (ceil(n_kv / 64)) */
    int64_t entries;     /* that are no keys (pooled ones): those in the leaves of 64 that some row of the tile visits */
    bool fell_back;
    const void *inside; /* the library's */
} fv_index_tile;
/* Whether a row of the tile visits the key: index and the problem's causal rule and window together. */
FV_API bool fv_index_sees(const fv_index_tile *tile, int64_t row, int64_t key);
/* A non-zero answer stops the call with FV_ERR_CANCELLED. */
typedef int (*fv_on_index)(void *user, const fv_index_tile *tile);
/* Makes the index of a run and attends to nothing: `on_index` is called for each tile, heads ascending, late tiles first, on the
 * calling thread. Operands and workspace as for fv_plan_run; out and lse may be empty. A plan whose method is a rule has no
 * index: FV_ERR_UNSUPPORTED. */
FV_API fv_status fv_plan_index(fv_plan *plan, const fv_run *run, void *workspace, size_t workspace_bytes, fv_on_index on_index,
                               void *user);

/* ---- generalized neighborhood attention: how much faster it will be ------------------------------------------------------ */

/* Hassani et al., Generalized Neighborhood Attention: Multi-dimensional Sparse Attention at the Speed of Light, 2025. The method
 * is `gna` of recipes; this says beforehand what it visits and what that is worth. Tokens in row-major order, the first axis
 * slowest. */
typedef struct fv_gna {
    int axes; /* 1..3 */
    int64_t size[3], window[3], stride[3], dilation[3];
    bool causal[3];
} fv_gna;

/* The same attention in three stages over memory, slow on purpose: scores of all queries written out, softmax, mixes (Hassani et
 * al., Faster Neighborhood Attention, NeurIPS 2024, section 3.1). q, out (1, h_q, tokens, d), k, v (1, h_kv, tokens, d); a scale
 * of 0 is 1/sqrt(d_k). Allocates h_q x tokens x window numbers for the call. */
FV_API fv_status fv_na_unfused(fv_context *ctx, const fv_gna *problem, const fv_tensor *q, const fv_tensor *k, const fv_tensor *v,
                               float scale, const fv_tensor *out);

/* Time that the parts of a run take, a leaf (64 queries x 64 keys) of dense attention being 1. Another machine, width or type has
 * others: `fovea bench gna` measures them. */
typedef struct fv_gna_costs {
    double tile;   /* a tile of 64 queries, whatever it visits */
    double whole;  /* a leaf of which every query sees every key */
    double masked; /* a block of keys folded where it lies, some hidden */
    double column; /* 64 keys put side by side */
    double look;   /* asking what a query sees of a block, where queries differ */
} fv_gna_costs;
FV_API fv_gna_costs fv_gna_costs_default(void);

typedef struct fv_gna_forecast {
    int64_t tiles, dense_leaves; /* of queries; what dense attention would fold */
    int64_t whole_leaves, masked_leaves, column_leaves, looks;
    uint64_t exact_pairs, visited_pairs;
    double pair_bound; /* all pairs over those that are seen */
    double tile_bound; /* dense leaves over visited ones: the paper's measure */
    double speedup;    /* with the costs */
} fv_gna_forecast;
/* Counts leaf by leaf what a run of one head visits, without causal rule or window of the problem's own; allocates for the call
 * about 13 bytes a token. NULL costs: the default. */
FV_API fv_status fv_gna_predict(fv_context *ctx, const fv_gna *problem, const fv_gna_costs *costs, fv_gna_forecast *out);

/* ---- MoA: which elastic span each head gets --------------------------------------------------------------------------- */

/* Fu et al., MoA: Mixture of Sparse Attention for Automatic Large Language Model Compression, 2024. Under a rule a head sees,
 * of a prompt of N keys, the first 64 and the alpha + beta N before a row. The method is `moa` of recipes; fv_calibrate finds the
 * rules of a model; this is the search behind it, for losses of any origin. */
typedef struct fv_moa_rule {
    double alpha, beta;
} fv_moa_rule;

/* What is searched: alpha from -shortest to profiled in steps of about `step`, `betas` values from 0 to 1. Rules whose span is
 * not positive at `shortest`, or longer than the prompt at `profiled` or `longest`, are left out. */
typedef struct fv_moa_grid {
    int64_t shortest, profiled, longest; /* prompts: of all, of the longest that was profiled, of all */
    int64_t step, betas;                 /* 1024 and 9 in the paper */
} fv_moa_grid;
/* Writes at most `room` rules, shorter spans at `longest` first; returns how many there are. */
FV_API int64_t fv_moa_rules(const fv_moa_grid *grid, fv_moa_rule *out, int64_t room);
/* Blocks of 64 that the rule's span has in a prompt of `blocks`, the row's own among them: 1..blocks. */
FV_API int64_t fv_moa_span(fv_moa_rule rule, int64_t blocks);
/* Blocks that a row may see of `blocks` before it, sink block included, as a share. */
FV_API double fv_moa_density(fv_moa_rule rule, int64_t blocks);

enum { FV_MOA_LOSSES = 4, FV_MOA_LIMITS = 4 };
typedef struct fv_moa_problem {
    int64_t heads, rules;
    int64_t losses;      /* profiled lengths, 1..FV_MOA_LOSSES */
    const double *loss;  /* (losses, heads, rules), not negative */
    int64_t budgets;     /* lengths with a density bound */
    const double *cost;  /* (budgets, rules): density */
    const double *bound; /* (budgets): of the mean density over heads */
    int64_t limit;       /* nodes that a choice may take; where they do not suffice, the best choice found counts */
} fv_moa_problem;
typedef struct fv_moa_plans {
    int64_t n, room, heads, losses;
    int32_t *rule; /* (n, heads) */
    double *loss;  /* (n, losses) */
    bool exact;    /* no choice ran into the limit */
} fv_moa_plans;
/* The plans that no other found one beats. FV_ERR_UNSUPPORTED where no choice keeps to the bounds. Release with
 * fv_moa_plans_free, whatever the status. */
FV_API fv_status fv_moa_search(fv_context *ctx, const fv_moa_problem *problem, fv_moa_plans *out);
FV_API void fv_moa_plans_free(fv_context *ctx, fv_moa_plans *plans);

/* ---- work of decoding ------------------------------------------------------------------------------------------------- */

/* Sanovar et al., Lean Attention, 2024. How evenly a batch of one-row decodes with uneven lengths lies on workers: keys that each
 * worker folds, load (workers). Units of work are handed out in order, each to the worker that is free first, as a run does
 * when a unit's time is proportional to its keys. A unit is one piece of up to `piece` keys of one sequence and KV head; or,
 * with piece = 0, all keys of a sequence and KV head. fv_decode_piece() is the piece that runs use; it does not depend on
 * threads. */
FV_API fv_status fv_decode_loads(fv_context *ctx, const int32_t *lengths, int64_t b, int64_t h_kv, int64_t piece, int workers,
                                 int64_t *load);
FV_API int64_t fv_decode_piece(void);

/* ---- FuseMax: what an attention algorithm costs, from its einsums ------------------------------------------------------- */

/* Nayak et al., FuseMax: Leveraging Extended Einsums to Optimize Attention Accelerator Design, MICRO 2024. An algorithm is a
 * cascade: einsums in order, each making one tensor. Tensors are written NAME:ranks, a letter a rank:
 *   p queries    e width of Q and K    f width of V    m keys, or, where they are cut into tiles: M tiles of m keys each
 * "SN:mp" is read or made for each key and query. A tensor that no einsum makes is an input. A tensor read before it is made, or
 * by what makes it, is a running one: the value of the tile before. One read without its M is read at its last tile. */
typedef enum fv_einsum_op { FV_EINSUM_MAC, FV_EINSUM_ADD, FV_EINSUM_MAX, FV_EINSUM_EXP, FV_EINSUM_DIVIDE } fv_einsum_op;
typedef struct fv_einsum {
    const char *out;
    const char *in[4]; /* NULL past the last */
    fv_einsum_op op;   /* exp is of a difference */
    bool on_array;     /* done by the 2-D array, else by the row of lanes beside it */
} fv_einsum;
typedef struct fv_cascade {
    const char *name, *title;
    const fv_einsum *einsum;
    int n; /* 1..32 */
} fv_cascade;
/* The i-th cascade there is, NULL past the end: "3-pass", "3-pass-deferred" (one division a query and column), "2-pass" (local
 * maxima), "1-pass" (running maxima: FlashAttention-2, and this library's tiles). */
FV_API const fv_cascade *fv_cascade_at(int i);

typedef struct fv_cascade_sizes {
    int64_t keys, queries, e, f;
    int64_t tile;      /* keys of a tile; used where a cascade has M */
    int64_t rows;      /* queries that are worked on together; 0: all */
    int64_t instances; /* batch x heads */
    int element_bytes; /* 2, say */
} fv_cascade_sizes;

/* A pass is a traversal of all keys that must end before the next can begin. Counted for each input that has keys, where what
 * is made from it key by key is taken for it; derived from who reads what, not from a schedule. Bounds are the algorithm's: no
 * order of work needs less. */
typedef struct fv_cascade_report {
    int passes; /* of the input with the most */
    int n_inputs;
    struct {
        char name[16];
        int passes;    /* 0: has no keys */
        uint64_t rows; /* rows read if passes are read anew: blocks of queries x passes x keys, over all instances */
    } input[8];
    int64_t fibre_elements; /* that one query keeps from pass to pass: grows with keys; 0 for one pass */
    int64_t state_elements; /* that one query keeps within a pass: its own row, running values and sums */
    uint64_t buffer_bytes;  /* `rows` queries' fibres and states, and a tile (or one key) of each input with keys */
    uint64_t traffic_bytes; /* inputs and output, each block of queries reading keys once: fibres stay in the buffer */
    uint64_t spill_bytes;   /* what comes on top if they do not: written once, read once in each later pass */
    uint64_t array_ops[5], lane_ops[5]; /* by fv_einsum_op */
} fv_cascade_report;
FV_API fv_status fv_cascade_analyse(fv_context *ctx, const fv_cascade *cascade, const fv_cascade_sizes *sizes,
                                    fv_cascade_report *out);

/* A spatial accelerator: an array of rows x columns cells and a row of lanes, each doing one operation a cycle. */
typedef struct fv_cascade_machine {
    int64_t rows, columns, lanes;
    double hz, bytes_per_second;
    uint64_t buffer_bytes;
    int exp_macs;                                      /* an exponential is so many multiply-adds, and a subtraction */
    double pj_mac, pj_add, pj_max, pj_divide, pj_byte; /* picojoules; pj_byte: of memory */
} fv_cascade_machine;
/* The paper's: 256 x 256 cells, 256 lanes, 940 MHz, 400 GiB/s, 16 MiB; energies of a 45 nm process. */
FV_API fv_cascade_machine fv_cascade_machine_default(void);

/* Work of each part if it is never idle; the longest bounds the time. As many queries are worked on together as the buffer
 * holds, in equal blocks of whole array columns (sizes->rows is not used); if not even one block of columns fits, fibres are
 * spilled. Registers and the buffer's own energy are not counted. */
typedef struct fv_cascade_cost {
    int64_t rows; /* queries worked on together */
    bool spilled;
    double array_seconds, lane_seconds, memory_seconds, seconds;
    double joules;
    uint64_t memory_bytes;
} fv_cascade_cost;
FV_API fv_status fv_cascade_estimate(fv_context *ctx, const fv_cascade *cascade, const fv_cascade_sizes *sizes,
                                     const fv_cascade_machine *machine, fv_cascade_cost *out);

#ifdef __cplusplus
}
#endif
#endif
