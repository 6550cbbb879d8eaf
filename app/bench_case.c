/* bench_case.c - the groups, the list of cases, and what several groups need for theirs. */
#include "bench.h"

#include "common.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const bench_group groups[] = {
    {"attention", true, bench_attention_add},
    {"decode", true, bench_decode_add},
    {"model", true, bench_model_add},
    {"masks", false, bench_masks_add},
    {"passes", false, bench_passes_add},
    {"sparse", false, bench_sparse_add},
    {"gna", false, bench_gna_add},
};

const bench_group *bench_group_at(int i) { return i < CLI_COUNT(groups) ? &groups[i] : NULL; }

const bench_group *bench_group_find(const char *name) {
    for (int i = 0; i < CLI_COUNT(groups); i++) {
        if (strcmp(name, groups[i].name) == 0) {
            return &groups[i];
        }
    }
    return NULL;
}

void bench_list_add(bench_list *list, const bench_case *c) {
    if (list->n == list->capacity) {
        int larger = list->capacity ? 2 * list->capacity : 64;
        bench_case *at = list->failed ? NULL : realloc(list->at, (size_t)larger * sizeof *at);
        if (!at) {
            list->failed = true;
            return;
        }
        list->at = at;
        list->capacity = larger;
    }
    list->at[list->n++] = *c;
}

const char *bench_shape(const bench_case *c, char out[BENCH_NAME]) {
    snprintf(out, BENCH_NAME, "%s/h%" PRId64 "x%" PRId64 "/d%" PRId64 "/n%" PRId64, fv_dtype_name(c->dtype), c->h_q, c->h_kv,
             c->d, c->n);
    return out;
}

bool bench_cache_takes(fv_context *ctx, fv_dtype dtype) {
    fv_cache_desc desc = {.layers = 1, .h_kv = 1, .d_k = 64, .d_v = 64, .k_dtype = dtype, .v_dtype = dtype};
    fv_cache *cache = NULL;
    bool takes = fv_cache_create(ctx, &desc, &cache) == FV_OK;
    fv_cache_destroy(cache);
    return takes;
}

fv_problem bench_problem(const bench_case *c, int64_t n_q, fv_phase phase) {
    fv_problem p = fv_problem_default();
    p.h_q = c->h_q;
    p.h_kv = c->h_kv;
    p.n_q = n_q;
    p.n_kv = c->n;
    p.d_k = p.d_v = c->d;
    p.causal = true;
    p.phase = phase;
    return p;
}

const char *bench_kernel(fv_context *ctx, const fv_problem *p, fv_dtype dtype) {
    fv_plan *plan = NULL;
    const char *name = fv_plan_create(ctx, p, &plan) == FV_OK ? fv_plan_kernel(plan, dtype, dtype) : "none";
    fv_plan_destroy(plan);
    return name; /* a literal of the library's */
}

bench_ceiling bench_kernel_ceiling(const fv_ceilings *c, const char *kernel) {
    if (strcmp(kernel, "amx") == 0) {
        return (bench_ceiling){"tdpbf16ps", c->amx_bf16 / 1e9};
    }
    if (strcmp(kernel, "avx512bf16") == 0) {
        return (bench_ceiling){"vdpbf16ps", c->dot_bf16 / 1e9};
    }
    return (bench_ceiling){"fma", c->fma_f32 / 1e9};
}
