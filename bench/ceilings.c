/* ceilings.c - are the ceilings ceilings? Against the issue width (products a cycle and thread, which must come near a whole
 * number) and against the best that oneDNN's matrix products reach.
 *
 *   build/bench/ceilings [THREADS]      ends with 1 if a product beats its ceiling or a ceiling misses 0.95 of the issue width
 */
#include <fovea/fovea.h>
#include <math.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void omp_set_num_threads(int n); /* libgomp's, which oneDNN runs on */

enum { RUNS = 12 };

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void need(dnnl_status_t status, const char *what) {
    if (status != dnnl_success) {
        fprintf(stderr, "ceilings: oneDNN cannot %s (status %d)\n", what, (int)status);
        exit(2);
    }
}

static dnnl_memory_t memory_of(dnnl_engine_t engine, const dnnl_memory_desc_t *desc) {
    dnnl_memory_t memory;
    need(dnnl_memory_create(&memory, desc, engine, DNNL_MEMORY_ALLOCATE), "allocate");
    void *data;
    need(dnnl_memory_get_data_handle(memory, &data), "show memory");
    for (size_t i = 0; i < dnnl_memory_desc_get_size(desc) / 2; i++) {
        ((unsigned short *)data)[i] = 0x3c00; /* small and finite, in pairs or alone */
    }
    return memory;
}

/* FLOP/s of a product of n x n matrices, the fastest of some, with weights in the form that oneDNN likes best. */
static double product(dnnl_engine_t engine, dnnl_stream_t stream, dnnl_data_type_t type, int64_t n) {
    dnnl_memory_desc_t x, w, y;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t primitive;
    dnnl_dims_t dims = {n, n};
    need(dnnl_memory_desc_init_by_tag(&x, 2, dims, type, dnnl_ab), "describe");
    need(dnnl_memory_desc_init_by_tag(&w, 2, dims, type, dnnl_format_tag_any), "describe");
    need(dnnl_memory_desc_init_by_tag(&y, 2, dims, dnnl_f32, dnnl_ab), "describe");
    need(dnnl_matmul_desc_init(&desc, &x, &w, NULL, &y), "describe a product");
    need(dnnl_primitive_desc_create(&pd, &desc, NULL, engine, NULL), "plan a product");
    need(dnnl_primitive_create(&primitive, pd), "make a product");
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, memory_of(engine, &x)},
        {DNNL_ARG_WEIGHTS, memory_of(engine, dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0))},
        {DNNL_ARG_DST, memory_of(engine, &y)},
    };
    double best = INFINITY;
    for (int i = 0; i < RUNS; i++) {
        double began = seconds_now();
        need(dnnl_primitive_execute(primitive, stream, 3, args), "run a product");
        need(dnnl_stream_wait(stream), "wait");
        best = fmin(best, seconds_now() - began);
    }
    for (int i = 0; i < 3; i++) {
        dnnl_memory_destroy(args[i].memory);
    }
    dnnl_primitive_destroy(primitive);
    dnnl_primitive_desc_destroy(pd);
    return 2 * (double)n * (double)n * (double)n / best;
}

static double best_product(dnnl_data_type_t type) {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    need(dnnl_engine_create(&engine, dnnl_cpu, 0), "make an engine");
    need(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "make a stream");
    double best = 0;
    for (int64_t n = 512; n <= 2048; n *= 2) {
        best = fmax(best, product(engine, stream, type, n));
    }
    dnnl_stream_destroy(stream);
    dnnl_engine_destroy(engine);
    return best;
}

/* Prints a row; true if the ceiling holds. `per` operations an instruction; gemm 0: none to compare with. */
static bool row(const char *name, double ceiling, double per, const fv_ceilings *c, int threads, double gemm) {
    if (ceiling <= 0) {
        printf("%-10s not on this processor\n", name);
        return true;
    }
    double issue = ceiling / per / c->clock_hz / threads, width = fmax(1, round(issue));
    printf("%-10s %8.1f G/s, %.3f instructions a cycle and thread", name, ceiling * 1e-9, issue);
    if (gemm > 0) {
        printf(", oneDNN %.1f G/s (%.3f of it)", gemm * 1e-9, gemm / ceiling);
    }
    putchar('\n');
    return issue >= 0.95 * width && gemm <= ceiling;
}

int main(int argc, char **argv) {
    fv_context *ctx = NULL;
    fv_ceilings c;
    int threads = argc > 1 ? atoi(argv[1]) : 0;
    if (fv_context_create(&(fv_context_options){threads, FV_LEVEL_BEST, NULL}, &ctx) != FV_OK) {
        fprintf(stderr, "ceilings: THREADS must be from 1 to 256\n");
        return 2;
    }
    if (fv_measure_ceilings(ctx, &c) != FV_OK) {
        fprintf(stderr, "ceilings: %s\n", fv_message(ctx));
        return 2;
    }
    threads = fv_threads(ctx);
    omp_set_num_threads(threads);
    double lanes = fv_context_level(ctx) == FV_LEVEL_AVX512 ? 16 : fv_context_level(ctx) == FV_LEVEL_AVX2 ? 8 : 4;
    double best_bf16 = c.dot_bf16 > 0 ? best_product(dnnl_bf16) : 0;
    printf("%d threads at %.2f GHz, read %.1f GB/s\n", threads, c.clock_hz * 1e-9, c.read * 1e-9);
    bool good = row("fma", c.fma_f32, 2 * lanes, &c, threads, best_product(dnnl_f32));
    good &= row("vdpbf16ps", c.dot_bf16, 64, &c, threads, c.amx_bf16 > 0 ? 0 : best_bf16);
    good &= row("vpdpbusd", c.dot_int8, 128, &c, threads, 0);
    if (c.amx_bf16 > 0) { /* a tile product takes 16 cycles */
        good &= row("tdpbf16ps", c.amx_bf16, 16384.0 / 16, &c, threads, best_bf16);
    }
    fv_context_destroy(ctx);
    puts(good ? "all ceilings hold" : "a ceiling does not hold");
    return good ? 0 : 1;
}
