/* model.h - model files, tokenizers, sessions.
 *
 *   fv_model_open() -> fv_session_create() -> fv_session_feed() ... fv_session_finish() -> fv_session_step() ...
 *
 * A session is one sequence over a model. A prompt has an end: `feed` brings its tokens in any number of calls, `finish` says
 * that it is whole; only then are there logits. A second turn is a second prompt over the same cache. Logits after `finish`
 * do not depend on how the prompt was cut into calls or chunks, on the number of threads, or on other sessions.
 *
 * A model serves any number of sessions of the same context, one call at a time.
 */
#ifndef FOVEA_MODEL_H
#define FOVEA_MODEL_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- vocabulary ---------------------------------------------------------------------------------------------------- */

typedef struct fv_vocab fv_vocab;

/* Reads the tokenizer of a GGUF file (a vocabulary without tensors is enough). */
FV_API fv_status fv_vocab_open(fv_context *ctx, const char *path, fv_vocab **out);
FV_API void fv_vocab_destroy(fv_vocab *vocab);
FV_API int fv_vocab_size(const fv_vocab *vocab);
/* Special ids, -1 where the vocabulary has none. */
FV_API int fv_vocab_bos(const fv_vocab *vocab);
FV_API int fv_vocab_eos(const fv_vocab *vocab);
/* Whether the model wants BOS before a prompt. */
FV_API bool fv_vocab_add_bos(const fv_vocab *vocab);
/* "gpt-2", "smollm", "qwen2" or "llama" (SentencePiece-style). */
FV_API const char *fv_vocab_kind(const fv_vocab *vocab);
/* True if generation ends at this id (EOS, or an end-of-turn token). */
FV_API bool fv_vocab_is_end(const fv_vocab *vocab, int id);
/* The bytes of one token as text (a special token's own name); not terminated. *size gets their number. NULL for a bad id. */
FV_API const char *fv_vocab_piece(const fv_vocab *vocab, int id, size_t *size);

/* A growing list of ids, from the context's allocator. Zero-initialise; release with fv_tokens_release. */
typedef struct fv_tokens {
    int32_t *id;
    int64_t n, capacity;
} fv_tokens;
FV_API void fv_tokens_release(fv_context *ctx, fv_tokens *tokens);

/* Appends the ids of text[0..size). No BOS is added. Special tokens are parsed only if parse_special. Any bytes are taken;
 * what is not UTF-8 is encoded byte by byte. */
FV_API fv_status fv_tokenize(fv_context *ctx, const fv_vocab *vocab, const char *text, size_t size, bool parse_special,
                             fv_tokens *out);

/* Streaming detokenizer: holds back the bytes of an unfinished UTF-8 character. Zero-initialise. */
typedef struct fv_detokenizer {
    char pending[8];
    int n_pending;
    bool started;
} fv_detokenizer;
/* The text that this id completes, up to `capacity` bytes; *size gets how many. FV_ERR_RANGE if it does not fit (nothing is
 * taken then): the longest piece + 8 always fits. Special tokens give nothing unless show_special. */
FV_API fv_status fv_detokenize(fv_context *ctx, const fv_vocab *vocab, fv_detokenizer *state, int id, bool show_special,
                               char *out, size_t capacity, size_t *size);
/* What is still held back, as it is, at the end of the stream. */
FV_API size_t fv_detokenize_flush(fv_detokenizer *state, char *out, size_t capacity);

/* ---- model --------------------------------------------------------------------------------------------------------- */

typedef struct fv_model fv_model;

typedef struct fv_model_options {
    size_t extra_bytes; /* most memory beyond the file and the caches, for weights unpacked for prompts; 0: 256 MiB */
} fv_model_options;

FV_API fv_status fv_model_open(fv_context *ctx, const char *path, const fv_model_options *options, fv_model **out);
FV_API void fv_model_destroy(fv_model *model);
FV_API const fv_vocab *fv_model_vocab(const fv_model *model);
/* The context that it was opened with. */
FV_API fv_context *fv_model_context(const fv_model *model);

typedef struct fv_model_facts {
    const char *architecture, *name, *license,
        *prompt_form; /* "" where the file says nothing; prompt_form: "plain" or "chatml" */
    int layers;
    int64_t d_model, d_ffn, n_vocab;
    int64_t h_q, h_kv, d_k, d_v;
    int64_t context; /* trained length */
    double rope_base;
    bool rope_interleaved;
    int64_t parameters;
    size_t file_bytes;
    size_t extra_bytes;        /* allocated beyond the file */
    size_t kv_bytes_per_token; /* at 16-bit K and V */
    size_t memory_total;       /* of this machine */
} fv_model_facts;
FV_API void fv_model_describe(const fv_model *model, fv_model_facts *out);

/* What is in a model file, without loading it: `fovea info`. Text lines of the metadata (long arrays cut) and the tensors. */
typedef struct fv_file_entry {
    const char *name;
    const char *type;  /* "u32", "string", "f32[8192]"; for a tensor its dtype: "q8_0" */
    const char *value; /* metadata: printed value; tensors: shape as "512 x 8192" */
    uint64_t offset;   /* in the file */
    uint64_t bytes;
} fv_file_entry;
typedef struct fv_file fv_file;
FV_API fv_status fv_file_open(fv_context *ctx, const char *path, fv_file **out);
FV_API void fv_file_destroy(fv_file *file);
FV_API int fv_file_version(const fv_file *file);
/* i-th metadata entry or tensor; NULL past the end. */
FV_API const fv_file_entry *fv_file_metadata(const fv_file *file, int64_t i);
FV_API const fv_file_entry *fv_file_tensor(const fv_file *file, int64_t i);

/* ---- profiles ------------------------------------------------------------------------------------------------------- */

/* fv_recipe_parse, and the profile that the recipe names is read. */
FV_API fv_status fv_recipe_load(fv_context *ctx, const char *text, fv_recipe **out);
/* A profile's file is JSON: {"fovea_profile": 1, "method": name, "model": fingerprint as 16 hexadecimal digits, or "",
 * "layers", "heads", "numbers": [a list for each layer, of a list for each head, of numbers; [] where there are none]}. */
FV_API fv_status fv_profile_read(fv_context *ctx, const char *path, fv_profile **out);
FV_API fv_status fv_profile_write(fv_context *ctx, const fv_profile *profile, const char *path);
/* A number that tells model files apart; never 0. */
FV_API uint64_t fv_model_fingerprint(fv_model *model);

/* ---- session ------------------------------------------------------------------------------------------------------- */

typedef struct fv_session fv_session;

typedef struct fv_session_options {
    const char *recipe; /* NULL or "": dense; see fv_recipe_parse */
    fv_dtype kv_dtype;  /* f32, f16, bf16, q8_0, q4_0 or FV_AUTO: bf16 where the CPU has bf16 dot products, else f16; a recipe's
                         * kv= wins */
    int64_t context;    /* most tokens; 0: the trained length. More than that is FV_ERR_RANGE unless beyond_trained */
    bool beyond_trained;
    int64_t chunk;               /* prompt tokens worked on at once, 1..1024; 0: 512. Does not change results */
    fv_calibration *calibration; /* watches the prompts, each of which then runs when it is finished; borrowed. NULL: none */
    float max_error;             /* of a prompt's heads: see fv_problem. A prompt then runs when it is finished. 0: off */
    const fv_profile *profile;   /* of the recipe's prefill method, in place of a file's; borrowed, for forks too. Its numbers
                                  * may change between prompts. Such a session cannot be saved. NULL: none */
} fv_session_options;
FV_API fv_session_options fv_session_options_default(void);

FV_API fv_status fv_session_create(fv_model *model, const fv_session_options *options, fv_session **out);
FV_API void fv_session_destroy(fv_session *session);

/* Called after each chunk of a prompt and before it; a non-zero answer stops the call with FV_ERR_CANCELLED. */
typedef int (*fv_progress)(void *user, int64_t done, int64_t total);

/* Called for prompt rows, in order, with the logits that follow the token at `position` (n_vocab floats, valid during the call).
 */
typedef int (*fv_on_logits)(void *user, int64_t position, const float *logits);

typedef struct fv_feed {
    fv_progress progress;   /* NULL: none */
    fv_on_logits on_logits; /* NULL: none */
    int64_t logits_from;    /* first position whose logits are wanted */
    int64_t logits_every;   /* of those, each so many-th; 0 and 1: all */
    void *user;
} fv_feed;

/* More tokens of the prompt. `options` may be NULL. After an error the session is where it was before the call. Tokens that the
 * recipe's method needs others beside (fv_recipe_grain) wait: they run, and the callbacks are called, in a later feed or in
 * finish; what `user` points to must live until then. */
FV_API fv_status fv_session_feed(fv_session *session, const int32_t *tokens, int64_t n, const fv_feed *options);
/* The prompt is whole: runs what still waits and makes the logits of its last token available. */
FV_API fv_status fv_session_finish(fv_session *session);
/* One generated token: makes its logits available. */
FV_API fv_status fv_session_step(fv_session *session, int32_t token);
/* n_vocab floats after finish or step; NULL while a prompt is open or nothing was fed. Valid until the next call. */
FV_API const float *fv_session_logits(const fv_session *session);
/* Tokens so far. */
FV_API int64_t fv_session_position(const fv_session *session);
/* The ids of the tokens so far. */
FV_API const int32_t *fv_session_tokens(const fv_session *session);
/* Back to `position` <= the present one; the next call is a feed. Logits are gone until then. */
FV_API fv_status fv_session_rollback(fv_session *session, int64_t position);
FV_API fv_status fv_session_fork(fv_session *session, fv_session **out);
FV_API size_t fv_session_kv_bytes(const fv_session *session);
FV_API const char *fv_session_recipe(const fv_session *session);
/* Sums over all attention of the session so far. */
FV_API fv_run_stats fv_session_stats(const fv_session *session);

/* Where the time of this object's feed, finish and step calls went, in seconds of the calling thread (a fork and a loaded session
 * begin at 0). The stages do not overlap; `total` is the calls' whole time, the callers' callbacks included. */
typedef struct fv_session_times {
    double embed;     /* embedding rows, table of rotary angles */
    double rows;      /* norms, residual sums, rotations, gates */
    double weights;   /* products with the layers' matrices */
    double append;    /* keys and values into the cache */
    double attention; /* fv_plan_run */
    double head;      /* the output's norm and product */
    double total;
} fv_session_times;
FV_API fv_session_times fv_session_seconds(const fv_session *session);

/* Saves tokens, cache and logits. The file is written beside `path` and put in its place whole; it carries a version, the
 * model's fingerprint and checksums. */
FV_API fv_status fv_session_save(fv_session *session, const char *path);
/* A session over `model` from such a file. A file that is torn, of another model or of another version is refused. */
FV_API fv_status fv_session_load(fv_model *model, const char *path, fv_session **out);

/* ---- sampling ------------------------------------------------------------------------------------------------------ */

typedef struct fv_sampler fv_sampler;
typedef struct fv_sampler_options {
    float temperature;    /* 0: greedy (the lowest id among equals) */
    int top_k;            /* 0: off */
    float top_p;          /* 1: off */
    float min_p;          /* 0: off; keeps p >= min_p * max p */
    float repeat_penalty; /* 1: off; divides positive and multiplies negative logits of recent tokens */
    int repeat_last;      /* how many recent tokens; 64 */
    uint64_t seed;
} fv_sampler_options;
FV_API fv_sampler_options fv_sampler_options_default(void); /* greedy, all filters off */
FV_API fv_status fv_sampler_create(fv_context *ctx, const fv_sampler_options *options, fv_sampler **out);
FV_API void fv_sampler_destroy(fv_sampler *sampler);
/* Picks the next id from n_vocab logits and remembers it. */
FV_API fv_status fv_sample(fv_sampler *sampler, const float *logits, int64_t n_vocab, int32_t *out);
/* Makes the sampler aware of a token that it did not pick (a prompt's). */
FV_API fv_status fv_sampler_accept(fv_sampler *sampler, int32_t token);

/* ---- prompt forms -------------------------------------------------------------------------------------------------- */

/* Wraps a user's turn in the model's prompt form ("chatml": with its special tokens and the opening of the answer; "plain":
 * as it is) and appends its ids, BOS first if `first` and the model asks for it. form NULL: the model's own. The text is never
 * parsed for special tokens. In chatml a first turn begins with the system message that the model's template has of its own,
 * if any, and a later one by closing the answer before it: the end token that ended a generation is not to be stepped. */
FV_API fv_status fv_chat_turn(fv_model *model, const char *form, const char *text, size_t size, bool first, fv_tokens *out);

#ifdef __cplusplus
}
#endif
#endif
