/* lab.h - measurements on the user's own model and text: perplexity, and methods compared with dense attention.
 *
 * Times are wall-clock and end to end; bytes are allocated bytes.
 */
#ifndef FOVEA_LAB_H
#define FOVEA_LAB_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Called often during long work: what is being done, and the share done of the whole (0..1). Non-zero stops with
 * FV_ERR_CANCELLED. */
typedef int (*fv_lab_progress)(void *user, const char *what, double share);

/* ---- perplexity ---------------------------------------------------------------------------------------------------- */

/* The text is tokenized whole and cut into windows of `context` tokens. In each of the first `windows` windows the first
 * token is replaced by BOS, the window is run as one prompt, and the tokens of its second half are scored. */
typedef struct fv_perplexity_options {
    const char *text;
    size_t size;
    int64_t context;     /* 4096 */
    bool beyond_trained; /* allow a context of more tokens than the model was trained on */
    int64_t windows;     /* 0: as many as there are */
    const char *recipe;  /* "": dense */
    float max_error;     /* as in fv_session_options */
    fv_dtype kv_dtype;   /* as in fv_session_options */
    fv_lab_progress progress;
    void *user;
} fv_perplexity_options;
typedef struct fv_perplexity_result {
    double perplexity, nll; /* nll: mean, in nats */
    int64_t scored, windows;
    double seconds;
} fv_perplexity_result;
FV_API fv_perplexity_options fv_perplexity_options_default(void);
FV_API fv_status fv_perplexity(fv_model *model, const fv_perplexity_options *options, fv_perplexity_result *out);

/* ---- calibrate ----------------------------------------------------------------------------------------------------- */

/* `prompts` prompts of `tokens` tokens, spread over the text, run densely while the recipe's prefill method looks at each head's
 * queries and keys; what it finds is a profile of the model (fv_profile_write). */
typedef struct fv_calibrate_options {
    const char *text;
    size_t size;
    const char *recipe; /* "prefill=minference" */
    int64_t tokens;     /* 4096 */
    int64_t prompts;    /* 1 */
    double budget;      /* share of the causal pairs that the method may visit; 0: the method's own choice */
    fv_dtype kv_dtype;  /* as in fv_session_options */
    fv_lab_progress progress;
    void *user;
} fv_calibrate_options;
FV_API fv_calibrate_options fv_calibrate_options_default(void);
FV_API fv_status fv_calibrate(fv_model *model, const fv_calibrate_options *options, fv_profile **out);

/* ---- compare ------------------------------------------------------------------------------------------------------- */

/* A fact is a sentence that is put into the text, and a question about it with its answer. */
typedef struct fv_fact {
    const char *fact, *question, *answer;
    double depth; /* 0..1: where in the text; the nearest sentence end before it is taken */
} fv_fact;

/* For each length L a document is made: BOS, then the text's tokens with the facts put in, L tokens in all, less the room
 * that the longest question and answer need. Each recipe runs it as a prompt. Measured are
 *   - the prompt's time, and the generation speed after it;
 *   - KL(dense || recipe) and top-1 agreement of the next-token distributions, over `rows` positions spread evenly over the
 *     document's second half;
 *   - each question, asked at the document's end (the session is rolled back between them): teacher-forced, that is every
 *     token of the answer is the most likely one when question and answer are part of the prompt; and greedily, that is what
 *     the model generates begins with the answer, its last word not going on.
 * The first recipe is always dense: it is the reference. */
typedef struct fv_compare_options {
    const char *text;
    size_t size;
    const int64_t *lengths;
    int n_lengths;
    const char *const *recipes; /* without dense, which is added */
    int n_recipes;
    const fv_fact *facts;
    int n_facts;
    const char *question_form; /* with {question}; NULL: "\n\nQuestion: {question}\nAnswer:" */
    int64_t rows;              /* 512 */
    fv_dtype kv_dtype;         /* as in fv_session_options */
    float max_error;           /* likewise, for the recipes; dense has none to check */
    fv_lab_progress progress;
    void *user;
} fv_compare_options;

typedef struct fv_compare_row {
    int64_t length; /* tokens of the document */
    char recipe[256];
    double prompt_seconds, prompt_tokens_per_second;
    double step_tokens_per_second; /* generation at the document's end */
    size_t kv_bytes;
    double attention_seconds; /* of the prompt's; choosing what to visit is a part */
    double select_share;      /* that part, 0..1 */
    double fallback;          /* share of the method's tiles, or of audited heads, that were run densely after all, 0..1 */
    double density;           /* visited / eligible pairs of the prompt */
    double kl, kl_p99;        /* nats */
    double top1;              /* 0..1 */
    int64_t rows;             /* positions behind kl and top1 */
    int forced, greedy;       /* facts answered */
    int facts;
    bool kv_masked_only; /* the recipe hides keys from the softmax but frees none */
} fv_compare_row;

typedef struct fv_compare fv_compare;
FV_API fv_compare_options fv_compare_options_default(void);
FV_API fv_status fv_compare_run(fv_model *model, const fv_compare_options *options, fv_compare **out);
FV_API void fv_compare_destroy(fv_compare *compare);
FV_API int fv_compare_rows(const fv_compare *compare);
FV_API const fv_compare_row *fv_compare_row_at(const fv_compare *compare, int i);
/* A sentence or two computed from the rows: which recipe is fastest among those that keep all that dense answers, and what
 * the others lose. Owned by `compare`. */
FV_API const char *fv_compare_verdict(const fv_compare *compare);

/* Facts from a questions file: a JSON array of {"fact", "question", "answer", "depth"}; checked, with line and field named
 * on error. Release with fv_facts_destroy. */
typedef struct fv_facts {
    fv_fact *fact;
    int n;
} fv_facts;
FV_API fv_status fv_facts_open(fv_context *ctx, const char *path, fv_facts *out);
FV_API void fv_facts_destroy(fv_context *ctx, fv_facts *facts);
/* Six facts of the forms the default model was trained on, the same each time. */
FV_API fv_facts fv_facts_builtin(void); /* static; not to be destroyed */

#ifdef __cplusplus
}
#endif
#endif
