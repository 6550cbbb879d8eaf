/* context.c - creation and the parts of a context that need no room of their own: messages, cancel, names. */
#include "base/base.h"
#include "base/threads.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char *fv_version(void) { return FV_VERSION; }

const char *fv_status_name(fv_status status) {
    static const char *const name[] = {"ok",          "bad argument", "out of memory", "input/output error", "bad format",
                                       "unsupported", "wrong state",  "out of range",  "cancelled"};
    return (unsigned)status < sizeof name / sizeof *name ? name[status] : "unknown status";
}

const char *fv_level_name(fv_level level) {
    static const char *const name[] = {"best", "c", "avx2", "avx512"};
    return (unsigned)level < sizeof name / sizeof *name ? name[level] : "unknown level";
}

static void *default_alloc(void *user, size_t size) {
    (void)user;
    return aligned_alloc(64, (size + 63) & ~(size_t)63);
}

static void default_free(void *user, void *ptr, size_t size) {
    (void)user;
    (void)size;
    free(ptr);
}

static fvi_cpu cut_to_level(fvi_cpu cpu, fv_level level) {
    if (level < FV_LEVEL_AVX512) {
        cpu.avx512 = cpu.avx512_bf16 = cpu.avx512_vnni = cpu.avx512_vbmi2 = cpu.amx_bf16 = false;
    }
    if (level < FV_LEVEL_AVX2) {
        cpu.avx2 = false;
    }
    return cpu;
}

static fv_level best_level(fvi_cpu cpu) { return cpu.avx512 ? FV_LEVEL_AVX512 : cpu.avx2 ? FV_LEVEL_AVX2 : FV_LEVEL_C; }

fv_status fv_context_create(const fv_context_options *options, fv_context **out) {
    fv_context_options o = {0};
    if (options != NULL) {
        o = *options;
    }
    *out = NULL;
    fvi_cpu cpu = fvi_cpu_detect();
    fv_level level = o.level == FV_LEVEL_BEST ? best_level(cpu) : o.level;
    if (o.threads < 0 || o.threads > 256 || level < FV_LEVEL_C || level > best_level(cpu)) {
        return FV_ERR_ARGUMENT;
    }
    fv_allocator a = {default_alloc, default_free, NULL};
    if (o.allocator != NULL) {
        a = *o.allocator;
    }
    fv_context *ctx = a.alloc(a.user, sizeof *ctx);
    if (ctx == NULL) {
        return FV_ERR_MEMORY;
    }
    memset(ctx, 0, sizeof *ctx);
    ctx->allocator = a;
    ctx->level = level;
    ctx->cpu = cut_to_level(cpu, level);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    ctx->threads = o.threads > 0 ? o.threads : (int)fvi_min(fvi_max(online, 1), 256);
    atomic_init(&ctx->cancel, false);
    fv_status status = fvi_pool_create(ctx, ctx->threads, &ctx->pool);
    if (status != FV_OK) {
        a.free(a.user, ctx, sizeof *ctx);
        return status;
    }
    *out = ctx;
    return FV_OK;
}

void fv_context_destroy(fv_context *ctx) {
    if (ctx == NULL) {
        return;
    }
    fvi_pool_destroy(ctx, ctx->pool);
    ctx->allocator.free(ctx->allocator.user, ctx, sizeof *ctx);
}

const char *fv_message(const fv_context *ctx) { return ctx->message; }
int fv_threads(const fv_context *ctx) { return ctx->threads; }
fv_level fv_context_level(const fv_context *ctx) { return ctx->level; }
void fv_cancel(fv_context *ctx, bool raised) { atomic_store(&ctx->cancel, raised); }

fv_status fvi_fail(fv_context *ctx, fv_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(ctx->message, sizeof ctx->message, format, args);
    va_end(args);
    return status;
}

double fvi_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
