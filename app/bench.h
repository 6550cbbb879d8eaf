/* bench.h - `fovea bench`: what is measured, how it is timed, and how it is told.
 *
 * A case has a name, a rough cost and a function that measures it and tells one or more rows. Each group of cases (a file
 * bench_GROUP.c) adds its own to the list; nothing else knows what kinds there are.
 */
#ifndef FOVEA_APP_BENCH_H
#define FOVEA_APP_BENCH_H

#include "cli.h"

#include "fovea/experimental.h"

#include <cJSON.h>

enum { BENCH_NAME = 112, BENCH_RUNS_MAX = 1000, BENCH_EXTRAS = 4 };

/* ---- rows ---- */

typedef struct bench_ceiling {
    const char *name; /* "fma", "vdpbf16ps", "vpdpbusd", "tdpbf16ps" or "read"; others for rows that are no rates */
    double value;     /* in the row's unit; 0: not measured */
} bench_ceiling;

/* Of the runs of a case, in the row's unit. */
typedef struct bench_spread {
    double least, lower, median, upper, most; /* quartiles between */
} bench_spread;

typedef struct bench_row {
    char name[BENCH_NAME];
    const char *unit;
    bench_spread value; /* the row's value is the median */
    bench_ceiling ceiling;
    int runs;
    struct {
        const char *name;
        double value;
    } extra[BENCH_EXTRAS]; /* further members of the JSON object, until one without a name */
} bench_row;

/* ---- the machine, and what has been told so far ---- */

typedef struct bench_case bench_case;

typedef struct bench_machine {
    fv_context *ctx;
    fv_ceilings ceilings; /* zeros with --no-ceilings */
    int runs;
    const cli_common *common; /* names the model */
    fv_model *model;          /* opened by the first case that needs it */
    cJSON *list;              /* rows as JSON; NULL: print lines */
    bench_row *told;          /* every row so far */
    int n_told;
    const char *name;  /* of the case that runs, for the progress */
    double from, upto; /* its part of the whole, 0..1 */
    bool gna_fitted;
    fv_gna_costs gna_costs; /* of this machine, once fitted */
} bench_machine;

/* ---- cases ---- */

struct bench_case {
    const char *group;
    int (*measure)(bench_machine *m, const bench_case *c); /* 0, or the exit code after printing the reason */
    fv_dtype dtype;                                        /* of K and V */
    int64_t h_q, h_kv, d, n;
    int variant; /* the group's own: which mask, which lengths */
    bool cached; /* K and V stand in a cache */
    double cost; /* about seconds: it only cuts the progress into shares */
    char name[BENCH_NAME];
};

typedef struct bench_list {
    bench_case *at;
    int n, capacity;
    bool failed; /* memory ran out */
} bench_list;

/* The groups, in the order they are run; `next` yields the i-th, NULL past the end. */
typedef struct bench_group {
    const char *name;
    bool by_default; /* also where no group is named */
    void (*add)(fv_context *ctx, bench_list *list);
} bench_group;
const bench_group *bench_group_at(int i);
const bench_group *bench_group_find(const char *name);
void bench_list_add(bench_list *list, const bench_case *c);

void bench_attention_add(fv_context *ctx, bench_list *list);
void bench_decode_add(fv_context *ctx, bench_list *list);
void bench_model_add(fv_context *ctx, bench_list *list);
void bench_masks_add(fv_context *ctx, bench_list *list);
void bench_passes_add(fv_context *ctx, bench_list *list);
void bench_sparse_add(fv_context *ctx, bench_list *list);
void bench_gna_add(fv_context *ctx, bench_list *list);

/* "bf16/h32x8/d128/n4096" */
const char *bench_shape(const bench_case *c, char out[BENCH_NAME]);
/* False if a cache cannot keep this dtype. */
bool bench_cache_takes(fv_context *ctx, fv_dtype dtype);
/* Causal, one sequence. */
fv_problem bench_problem(const bench_case *c, int64_t n_q, fv_phase phase);
/* The form of the kernel that will run; it ends each case's name. */
const char *bench_kernel(fv_context *ctx, const fv_problem *p, fv_dtype dtype);
/* The ceiling of that form, in GFLOP/s. */
bench_ceiling bench_kernel_ceiling(const fv_ceilings *c, const char *kernel);

/* ---- buffers: random numbers, in huge pages where the system has them ---- */

/* 64-byte aligned; free() it. NULL if there is not as much memory, which has been said in the case's name. */
void *bench_data(const bench_machine *m, fv_dtype dtype, int64_t n);
void *bench_memory(const bench_machine *m, size_t size);

/* Everything that attention needs for a case. */
typedef struct bench_arena {
    void *q, *k, *v, *out, *workspace;
    fv_cache *cache;
    fv_plan *plan;
    size_t workspace_bytes;
    fv_run run;
} bench_arena;
/* q: n_q rows; K and V: c->n rows, in a cache if c->cached. 0 or the exit code. */
int bench_arena_make(const bench_machine *m, const bench_case *c, const fv_problem *p, bench_arena *a);
/* The plan and its workspace alone, for an arena that borrows the other buffers. */
int bench_arena_plan(const bench_machine *m, const fv_problem *p, bench_arena *a);
void bench_arena_free(bench_arena *a);
/* Times m->runs runs of each of n arenas in turn, after one to warm up, what is short repeated until it lasts 20 ms; seconds[t]
 * in the order of the runs. */
enum { BENCH_ARENAS = 2 };
int bench_time(const bench_machine *m, bench_arena *const *arenas, double *const *seconds, int n);
int bench_time_one(const bench_machine *m, bench_arena *a, double *seconds);

/* ---- time and telling ---- */

double bench_now(void);
/* Says that `run` of the runs are done; FV_ERR_CANCELLED after Ctrl-C. */
fv_status bench_progress(const bench_machine *m, int run);
/* Of n numbers, which get sorted. */
bench_spread bench_spread_of(double *values, int n);
/* Of work / seconds; the seconds get sorted. */
bench_spread bench_rates(double *seconds, int n, double work);
/* Prints the row, or adds it to the list. */
int bench_tell(bench_machine *m, const bench_row *row);
int bench_tell_ceilings(bench_machine *m);
/* The masks' matrix, after all rows; nothing where there is none. */
int bench_tell_masks(const bench_machine *m);

/* ---- a model's parts ---- */

enum { BENCH_STAGES = 6 };
typedef struct bench_parts {
    double stage[BENCH_STAGES][BENCH_RUNS_MAX]; /* seconds of a prompt or of a generated token */
    bool has_alone;
    double alone[BENCH_RUNS_MAX]; /* a prompt's attention run by itself */
} bench_parts;
/* What a run's stages took: the difference of two fv_session_seconds, over `units` tokens or prompts. */
void bench_parts_note(bench_parts *parts, int run, const fv_session_times *before, const fv_session_times *after, int units);
/* The attention of a prompt of c->n tokens in all layers, K and V as c->dtype. */
int bench_parts_alone(const bench_machine *m, const bench_case *c, const fv_model_facts *facts, bench_parts *parts);
/* A row a stage, their sum, and attention alone where it was run, beside the seconds `whole` of all; the parts get sorted. */
int bench_parts_tell(bench_machine *m, const bench_case *c, bench_parts *parts, double whole);

/* ---- two builds ---- */

/* Runs the cases of this build and of the program `other` in turn, run by run. */
int bench_compare(bench_machine *m, const bench_case *cases, int n, const char *other, const char *level);

#endif
