/* linear.c - see linear.h. For prompts a large matrix is cut into blocks of rows, kept unpacked or unpacked when they are met:
 * both are the same products of the same blocks. A block meets the rows of x in dnn.h's panels. */
#include "model/linear.h"

#include "base/threads.h"
#include "kernel/convert.h"
#include "kernel/matvec.h"
#include "model/dnn.h"

#include <string.h>

enum {
    BLOCK_WEIGHTS = 1 << 18, /* with 512 inputs 512 rows: as bf16 half a second-level cache */
    WHOLE_WEIGHTS = 1 << 20,
    WHOLE_ROWS = 2048, /* up to these a matrix is one block, whose products need no copy */
    STEP_LEAST = 16 << 10,
    STEP_MOST = 1 << 20 /* bytes of weights in one item of a step: 0.3 to 20 microseconds */
};
static const size_t default_extra = (size_t)256 << 20;

typedef struct kept {
    void *data;
    size_t bytes;
} kept;

/* One worker's room: a panel of x and of y, a block of W as numbers and as oneDNN wants it. */
typedef struct room {
    void *x, *rows, *packed;
    float *y;
} room;

struct fvi_gemm {
    fv_context *ctx;
    fvi_matvec_ops matvec;
    fvi_convert_ops convert;
    fvi_dnn *dnn;
    size_t extra, kept_bytes;
    kept *kept;
    int64_t n_kept, capacity;
    room *rooms;
    fvi_matvec_x *step_x; /* (fvi_matvec_pairs of the widest matrix): a step's x, quantised */
    int64_t step_pairs;
    size_t x_bytes, y_bytes, rows_bytes, packed_bytes; /* of each room's parts */
};

/* ---- life ---- */

fv_status fvi_gemm_create(fv_context *ctx, size_t extra_bytes, fvi_gemm **out) {
    *out = NULL;
    fvi_gemm *gemm = fvi_zalloc(ctx, 1, sizeof *gemm);
    if (gemm == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for the weight products");
    }
    gemm->ctx = ctx;
    gemm->extra = extra_bytes == 0 ? default_extra : extra_bytes;
    fvi_matvec_init(&ctx->cpu, &gemm->matvec);
    fvi_convert_init(&ctx->cpu, &gemm->convert);
    gemm->rooms = fvi_zalloc(ctx, (size_t)ctx->threads, sizeof *gemm->rooms);
    fv_status status = gemm->rooms == NULL ? fvi_fail(ctx, FV_ERR_MEMORY, "no memory for the weight products") : FV_OK;
    if (status == FV_OK) {
        status = fvi_dnn_create(ctx, &gemm->dnn);
    }
    if (status != FV_OK) {
        fvi_gemm_destroy(gemm);
        return status;
    }
    *out = gemm;
    return FV_OK;
}

void fvi_gemm_destroy(fvi_gemm *gemm) {
    if (gemm == NULL) {
        return;
    }
    fv_context *ctx = gemm->ctx;
    for (int64_t i = 0; i < gemm->n_kept; i++) {
        fvi_release(ctx, gemm->kept[i].data, gemm->kept[i].bytes, 1);
    }
    fvi_release(ctx, gemm->kept, (size_t)gemm->capacity, sizeof *gemm->kept);
    for (int i = 0; gemm->rooms != NULL && i < ctx->threads; i++) {
        fvi_release(ctx, gemm->rooms[i].x, gemm->x_bytes, 1);
        fvi_release(ctx, gemm->rooms[i].y, gemm->y_bytes, 1);
        fvi_release(ctx, gemm->rooms[i].rows, gemm->rows_bytes, 1);
        fvi_release(ctx, gemm->rooms[i].packed, gemm->packed_bytes, 1);
    }
    fvi_release(ctx, gemm->rooms, (size_t)ctx->threads, sizeof *gemm->rooms);
    fvi_release(ctx, gemm->step_x, (size_t)gemm->step_pairs, sizeof *gemm->step_x);
    fvi_dnn_destroy(gemm->dnn);
    fvi_release(ctx, gemm, 1, sizeof *gemm);
}

size_t fvi_gemm_bytes(const fvi_gemm *gemm) {
    size_t room_bytes = gemm->x_bytes + gemm->y_bytes + gemm->rows_bytes + gemm->packed_bytes;
    return gemm->kept_bytes + room_bytes * (size_t)gemm->ctx->threads + (size_t)gemm->step_pairs * sizeof *gemm->step_x +
           fvi_dnn_bytes(gemm->dnn);
}

void fvi_gemm_rowwise(fvi_gemm *gemm) { fvi_dnn_rowwise(gemm->dnn); }

/* ---- preparing ---- */

static bool in_bf16(const fvi_gemm *gemm, const fvi_linear *w) {
    return gemm->ctx->cpu.avx512_bf16 && w->dtype != FV_F32 && w->dtype != FV_F16;
}

static size_t element_bytes(const fvi_gemm *gemm, const fvi_linear *w) { return in_bf16(gemm, w) ? 2 : 4; }

static int64_t block_count(const fvi_linear *w) { return fvi_ceil_div(w->n_out, w->block); }
static int64_t block_rows(const fvi_linear *w, int64_t block) { return fvi_min(w->block, w->n_out - block * w->block); }
static int block_shape(const fvi_linear *w, int64_t block) { return block + 1 < block_count(w) ? w->shape : w->last_shape; }

static size_t packed_stride(const fvi_gemm *gemm, const fvi_linear *w) {
    return (size_t)fvi_round_up((int64_t)fvi_dnn_packed_bytes(gemm->dnn, w->shape), 64);
}

/* Rows [first, first + n) of W as numbers. */
static void unpack_rows(const fvi_convert_ops *convert, const fvi_linear *w, int64_t first, int64_t n, bool bf16, void *out) {
    size_t stride = fv_dtype_bytes(w->dtype, w->n_in);
    const char *row = (const char *)w->data + (size_t)first * stride;
    if (!bf16) {
        for (int64_t r = 0; r < n; r++, row += stride) {
            convert->to_f32(w->dtype, row, w->n_in, (float *)out + r * w->n_in);
        }
        return;
    }
    uint16_t *to = out;
    float part[256]; /* a multiple of the quantised block */
    for (int64_t r = 0; r < n; r++, row += stride, to += w->n_in) {
        for (int64_t i = 0; i < w->n_in; i += 256) {
            int64_t some = fvi_min(256, w->n_in - i);
            convert->to_f32(w->dtype, row + fv_dtype_bytes(w->dtype, i), some, part);
            convert->to_bf16(some, part, to + i);
        }
    }
}

/* False if oneDNN refused. */
static bool unpack_block(fvi_gemm *gemm, const fvi_linear *w, int64_t block, int worker, void *packed) {
    void *rows = gemm->rooms[worker].rows;
    const int shape = block_shape(w, block);
    const int64_t n = block_rows(w, block), strip = fvi_dnn_strip(gemm->dnn, shape);
    bool ok = true;
    for (int64_t first = 0; ok && first < n; first += strip) {
        const int64_t some = fvi_min(strip, n - first);
        unpack_rows(&gemm->convert, w, block * w->block + first, some, in_bf16(gemm, w), rows);
        ok = fvi_dnn_pack(gemm->dnn, shape, worker, first, some, rows, packed);
    }
    return ok;
}

static bool grow_part(fvi_gemm *gemm, size_t offset, size_t *bytes, size_t need) {
    if (need <= *bytes) {
        return true;
    }
    size_t before = *bytes;
    for (int i = 0; i < gemm->ctx->threads; i++) {
        void **part = (void **)((char *)&gemm->rooms[i] + offset);
        fvi_release(gemm->ctx, *part, before, 1);
        *part = NULL;
    }
    *bytes = need;
    for (int i = 0; i < gemm->ctx->threads; i++) {
        void **part = (void **)((char *)&gemm->rooms[i] + offset);
        *part = fvi_alloc(gemm->ctx, need, 1);
        if (*part == NULL) {
            return false; /* what is held, and what is NULL, is released with the new size */
        }
    }
    return true;
}

/* For steps with W, which allocate nothing. */
static bool grow_step(fvi_gemm *gemm, const fvi_linear *w) {
    const int64_t pairs = fvi_matvec_pairs(w->n_in);
    if (gemm->matvec.dots[w->dtype] == NULL || pairs <= gemm->step_pairs) {
        return true;
    }
    fvi_release(gemm->ctx, gemm->step_x, (size_t)gemm->step_pairs, sizeof *gemm->step_x);
    gemm->step_x = fvi_alloc(gemm->ctx, (size_t)pairs, sizeof *gemm->step_x);
    gemm->step_pairs = gemm->step_x != NULL ? pairs : 0;
    return gemm->step_x != NULL;
}

typedef struct unpack_job {
    fvi_gemm *gemm;
    const fvi_linear *w;
    atomic_bool refused;
} unpack_job;

static void unpack_item(void *arg, int64_t block, int worker) {
    unpack_job *job = arg;
    char *packed = (char *)job->w->packed + (size_t)block * packed_stride(job->gemm, job->w);
    if (!unpack_block(job->gemm, job->w, block, worker, packed)) {
        atomic_store(&job->refused, true);
    }
}

static fv_status finish(const fvi_gemm *gemm, const fvi_linear *w, bool refused) {
    if (refused) {
        return fvi_fail(gemm->ctx, FV_ERR_UNSUPPORTED, "oneDNN failed in a product with %s (%lld x %lld %s)",
                        w->name == NULL ? "a matrix" : w->name, (long long)w->n_out, (long long)w->n_in, fv_dtype_name(w->dtype));
    }
    if (fvi_cancelled(gemm->ctx)) {
        return fvi_fail(gemm->ctx, FV_ERR_CANCELLED, "cancelled");
    }
    return FV_OK;
}

/* Keeps the unpacked form if the budget allows. */
static fv_status keep_unpacked(fvi_gemm *gemm, fvi_linear *w) {
    size_t bytes = 0;
    if (!fvi_mul(packed_stride(gemm, w), (size_t)block_count(w), &bytes) || bytes > gemm->extra - gemm->kept_bytes) {
        return FV_OK;
    }
    if (!fvi_grow(gemm->ctx, (void **)&gemm->kept, &gemm->capacity, gemm->n_kept + 1, sizeof *gemm->kept) ||
        (w->packed = fvi_alloc(gemm->ctx, bytes, 1)) == NULL) {
        return fvi_fail(gemm->ctx, FV_ERR_MEMORY, "no memory for %zu bytes of %s, unpacked", bytes,
                        w->name == NULL ? "a matrix" : w->name);
    }
    gemm->kept[gemm->n_kept++] = (kept){w->packed, bytes};
    gemm->kept_bytes += bytes;
    unpack_job job = {.gemm = gemm, .w = w};
    fvi_parallel(gemm->ctx, block_count(w), unpack_item, &job);
    return finish(gemm, w, atomic_load(&job.refused));
}

static fv_status refuse_type(const fvi_gemm *gemm, const fvi_linear *w) {
    return fvi_fail(gemm->ctx, FV_ERR_UNSUPPORTED, "%s is %s; weights are f32, f16, bf16, q8_0, q4_0 or q4_1",
                    w->name == NULL ? "a matrix" : w->name, fv_dtype_name(w->dtype));
}

fv_status fvi_linear_prepare(fvi_gemm *gemm, fvi_linear *w) {
    const char *name = w->name == NULL ? "a matrix" : w->name;
    w->block = 0;
    w->packed = NULL;
    if ((unsigned)w->dtype >= FV_DTYPE_COUNT || (gemm->matvec.rows[w->dtype] == NULL && gemm->matvec.dots[w->dtype] == NULL)) {
        return refuse_type(gemm, w);
    }
    if (w->n_in < 1 || w->n_out < 1 || w->n_in > WHOLE_WEIGHTS || w->n_out > INT32_MAX ||
        fv_dtype_bytes(w->dtype, w->n_in) == 0) {
        return fvi_fail(gemm->ctx, FV_ERR_UNSUPPORTED,
                        "%s has %lld x %lld weights; rows hold 1 to %d, in blocks of 32 if quantised", name, (long long)w->n_out,
                        (long long)w->n_in, WHOLE_WEIGHTS);
    }
    const bool whole = w->n_out <= WHOLE_ROWS && w->n_out * w->n_in <= WHOLE_WEIGHTS;
    w->block = whole ? w->n_out : fvi_min(fvi_max(BLOCK_WEIGHTS / w->n_in, 64) / 64 * 64, w->n_out);
    fvi_dnn_key key = {w->block, w->n_in, in_bf16(gemm, w)};
    fv_status status = fvi_dnn_shape(gemm->dnn, key, &w->shape);
    if (status == FV_OK) {
        key.n = block_rows(w, block_count(w) - 1);
        status = fvi_dnn_shape(gemm->dnn, key, &w->last_shape);
    }
    w->half_shape = -1;
    if (status == FV_OK && block_count(w) == 1) {
        status = fvi_dnn_half(gemm->dnn, w->shape, &w->half_shape);
    }
    if (status == FV_OK) {
        size_t row = (size_t)w->n_in * element_bytes(gemm, w);
        const int64_t y_rows = block_count(w) == 1 ? FVI_DNN_LOWEST : FVI_DNN_TALLEST;
        const int64_t strip = fvi_dnn_strip(gemm->dnn, w->shape), last_strip = fvi_dnn_strip(gemm->dnn, w->last_shape);
        bool ok = grow_step(gemm, w) && grow_part(gemm, offsetof(room, x), &gemm->x_bytes, FVI_DNN_TALLEST * row) &&
                  grow_part(gemm, offsetof(room, y), &gemm->y_bytes, (size_t)(y_rows * w->block) * sizeof(float)) &&
                  grow_part(gemm, offsetof(room, rows), &gemm->rows_bytes, (size_t)fvi_max(strip, last_strip) * row);
        status = ok ? keep_unpacked(gemm, w) : fvi_fail(gemm->ctx, FV_ERR_MEMORY, "no memory for the weight products' scratch");
    }
    if (status == FV_OK && w->packed == NULL &&
        !grow_part(gemm, offsetof(room, packed), &gemm->packed_bytes, packed_stride(gemm, w))) {
        status = fvi_fail(gemm->ctx, FV_ERR_MEMORY, "no memory for the weight products' scratch");
    }
    w->block = status == FV_OK ? w->block : 0;
    return status;
}

/* ---- prompts ---- */

typedef struct prompt_job {
    fvi_gemm *gemm;
    const fvi_linear *const *w;
    float *const *y;
    int n;
    const float *x;
    int64_t m;
    int64_t parts;         /* items of a panel */
    int64_t first, blocks; /* passing: the blocks of the only matrix that are unpacked now, one in each room; else blocks is 0 */
    atomic_bool refused;
} prompt_job;

/* A panel of x: its rows, how many are real, and where the product finds them. */
typedef struct panel {
    int64_t first, rows, height;
    const void *x;
} panel;

/* Panels do not depend on the matrix: all shapes have the same heights unless rows disagreed, and then 1 divides any. */
static panel panel_at(int64_t m, int64_t first) {
    static const int64_t height[] = {FVI_DNN_TALLEST, FVI_DNN_MIDDLE, FVI_DNN_LOWEST};
    int i = 0;
    while (height[i] > m - first && height[i] > FVI_DNN_LOWEST) {
        i++;
    }
    return (panel){.first = first, .rows = fvi_min(height[i], m - first), .height = height[i]};
}

/* Rounds or pads a panel of x into the worker's room where it cannot be read in place. */
static void load_panel(const prompt_job *job, int worker, panel *p) {
    int64_t n_in = job->w[0]->n_in, n = p->rows * n_in;
    const float *x = job->x + p->first * n_in;
    void *to = job->gemm->rooms[worker].x;
    size_t element = element_bytes(job->gemm, job->w[0]);
    p->x = to;
    if (element == 2) {
        job->gemm->convert.to_bf16(n, x, to);
    } else if (p->rows == p->height) {
        p->x = x;
    } else {
        memcpy(to, x, (size_t)n * sizeof *x);
    }
    if (p->rows < p->height) {
        memset((char *)to + (size_t)n * element, 0, (size_t)((p->height - p->rows) * n_in) * element);
    }
}

/* Rows [first, first + n) of a matrix that are multiplied at once: a block, or half of one. */
typedef struct piece {
    int matrix, shape;
    int64_t first, n;
    const void *packed;
} piece;

static piece block_piece(const prompt_job *job, int matrix, int64_t block, const void *packed) {
    const fvi_linear *w = job->w[matrix];
    return (piece){matrix, block_shape(w, block), block * w->block, block_rows(w, block), packed};
}

/* A piece with one panel of x. y is made in place where the piece is the whole matrix and the panel full, else by way of the
 * room. */
static bool multiply(prompt_job *job, const piece *at, const panel *p, int worker) {
    fvi_gemm *gemm = job->gemm;
    const fvi_linear *w = job->w[at->matrix];
    const bool direct = p->rows == p->height && at->n == w->n_out;
    const int shape = at->shape;
    const int64_t n = at->n;
    const void *packed = at->packed;
    float *to = job->y[at->matrix] + p->first * w->n_out + at->first, *y = direct ? to : gemm->rooms[worker].y;
    size_t x_row = (size_t)w->n_in * element_bytes(gemm, w);
    bool ok = true;
    for (int64_t r = 0; ok && r < p->height;) {
        int64_t height = fvi_dnn_height(gemm->dnn, shape, p->height - r);
        ok = fvi_dnn_multiply(gemm->dnn, shape, worker, height, (const char *)p->x + (size_t)r * x_row, packed, y + r * n);
        r += height;
    }
    for (int64_t r = 0; ok && !direct && r < p->rows; r++) {
        memcpy(to + r * w->n_out, y + r * n, (size_t)n * sizeof *y);
    }
    return ok;
}

/* One low panel leaves the time to reading weights: halves of blocks then keep all threads at it. */
static bool by_halves(const prompt_job *job, const fvi_linear *w) { return job->m <= FVI_DNN_LOWEST && w->half_shape >= 0; }

static int64_t piece_count(const prompt_job *job, const fvi_linear *w) {
    return w->packed == NULL ? 0 : by_halves(job, w) ? 2 : block_count(w);
}

/* The job's n-th piece that is unpacked. False past the last. */
static bool find_piece(const prompt_job *job, int64_t n, piece *out) {
    if (job->blocks > 0 && n < job->blocks) {
        *out = block_piece(job, 0, job->first + n, job->gemm->rooms[n].packed);
    }
    if (job->blocks > 0) {
        return n < job->blocks;
    }
    int i = 0;
    while (i < job->n && n >= piece_count(job, job->w[i])) {
        n -= piece_count(job, job->w[i++]);
    }
    if (i == job->n) {
        return false;
    }
    const fvi_linear *w = job->w[i];
    if (!by_halves(job, w)) {
        *out = block_piece(job, i, n, (const char *)w->packed + (size_t)n * packed_stride(job->gemm, w));
        return true;
    }
    const int64_t half = w->n_out / 2, first = n * half;
    *out = (piece){i, w->half_shape, first, half, fvi_dnn_packed_row(job->gemm->dnn, w->shape, w->packed, first)};
    return true;
}

/* Item: a panel of x with its part of the pieces that are unpacked. */
static void panel_item(void *arg, int64_t item, int worker) {
    prompt_job *job = arg;
    panel p = panel_at(job->m, 0);
    for (int64_t i = 0; i < item / job->parts; i++) {
        p = panel_at(job->m, p.first + p.rows);
    }
    load_panel(job, worker, &p);
    piece at;
    for (int64_t n = item % job->parts; find_piece(job, n, &at); n += job->parts) {
        if (!multiply(job, &at, &p, worker)) {
            atomic_store(&job->refused, true);
            return;
        }
    }
}

/* Item: a block of the job's only matrix, unpacked into a room until the panels have met it. */
static void passing_item(void *arg, int64_t item, int worker) {
    prompt_job *job = arg;
    if (!unpack_block(job->gemm, job->w[0], job->first + item, worker, job->gemm->rooms[item].packed)) {
        atomic_store(&job->refused, true);
    }
}

static int64_t panel_count(int64_t m) {
    int64_t n = 0;
    for (panel p = panel_at(m, 0); p.rows > 0; p = panel_at(m, p.first + p.rows)) {
        n++;
    }
    return n;
}

/* Item: a block of the job's only matrix, unpacked and met by the only panel at once, on the worker that has it in its cache. */
static void single_item(void *arg, int64_t block, int worker) {
    prompt_job *job = arg;
    panel p = panel_at(job->m, 0);
    void *packed = job->gemm->rooms[worker].packed;
    load_panel(job, worker, &p);
    const piece at = block_piece(job, 0, block, packed);
    if (!unpack_block(job->gemm, job->w[0], block, worker, packed) || !multiply(job, &at, &p, worker)) {
        atomic_store(&job->refused, true);
    }
}

/* Where panels are fewer than threads' turns, each is met by several items that share the blocks. */
static void run_panels(prompt_job *job) {
    const int64_t panels = panel_count(job->m);
    int64_t pieces = job->blocks;
    for (int i = 0; job->blocks == 0 && i < job->n; i++) {
        pieces += piece_count(job, job->w[i]);
    }
    job->parts = fvi_max(1, fvi_min(pieces, 2 * job->gemm->ctx->threads / fvi_max(panels, 1)));
    fvi_parallel(job->gemm->ctx, panels * job->parts, panel_item, job);
}

/* As many blocks at a time as there are rooms. */
static fv_status prompt_passing(fvi_gemm *gemm, const fvi_linear *const *w, float *const *y, const float *x, int64_t m) {
    prompt_job job = {.gemm = gemm, .w = w, .y = y, .n = 1, .x = x, .m = m};
    if (panel_count(m) == 1) {
        fvi_parallel(gemm->ctx, block_count(*w), single_item, &job);
        return finish(gemm, *w, atomic_load(&job.refused));
    }
    fv_status status = FV_OK;
    for (; status == FV_OK && job.first < block_count(*w); job.first += job.blocks) {
        job.blocks = fvi_min(gemm->ctx->threads, block_count(*w) - job.first);
        fvi_parallel(gemm->ctx, job.blocks, passing_item, &job);
        run_panels(&job);
        status = finish(gemm, *w, atomic_load(&job.refused));
    }
    return status;
}

/* All matrices have the same n_in and element type. */
static fv_status prompt_alike(fvi_gemm *gemm, const fvi_linear *const *w, float *const *y, int n, const float *x, int64_t m) {
    prompt_job job = {.gemm = gemm, .w = w, .y = y, .n = n, .x = x, .m = m};
    run_panels(&job);
    fv_status status = finish(gemm, w[0], atomic_load(&job.refused));
    for (int i = 0; status == FV_OK && i < n; i++) {
        if (w[i]->packed == NULL) {
            status = prompt_passing(gemm, w + i, y + i, x, m);
        }
    }
    return status;
}

fv_status fvi_linear_prompt_many(fvi_gemm *gemm, const fvi_linear *const *w, float *const *y, int n, const float *x, int64_t m) {
    for (int i = 0; i < n; i++) {
        if (w[i]->block == 0 || w[i]->n_in != w[0]->n_in) {
            return fvi_fail(gemm->ctx, FV_ERR_STATE, "%s was not prepared for prompts, or is not as wide as its neighbours",
                            w[i]->name == NULL ? "a matrix" : w[i]->name);
        }
    }
    fv_status status = FV_OK;
    for (int i = 0, end = 0; status == FV_OK && i < n; i = end) {
        for (end = i + 1; end < n && in_bf16(gemm, w[end]) == in_bf16(gemm, w[i]); end++) {
        }
        status = prompt_alike(gemm, w + i, y + i, end - i, x, m);
    }
    return status;
}

fv_status fvi_linear_prompt(fvi_gemm *gemm, const fvi_linear *w, const float *x, int64_t m, float *y) {
    return fvi_linear_prompt_many(gemm, &w, &y, 1, x, m);
}

/* ---- single tokens and rows ---- */

/* The matrices' bytes one after the other, cut into items of equal size: each thread gets long runs, which is what a read from
 * memory or a far cache needs, and all end together. */
typedef struct step_job {
    const fvi_gemm *gemm;
    const fvi_linear *const *w;
    float *const *y;
    const float *x;
    int n;
    int64_t start[FVI_LINEAR_MANY + 1], item_bytes;
} step_job;

/* Rows of a matrix that begin before byte `at` of the line. */
static int64_t rows_before(const fvi_linear *w, int64_t start, int64_t at) {
    const int64_t row_bytes = (int64_t)fv_dtype_bytes(w->dtype, w->n_in);
    return fvi_min(fvi_ceil_div(fvi_max(at - start, 0), row_bytes), w->n_out);
}

static void step_item(void *arg, int64_t item, int worker) {
    (void)worker;
    const step_job *job = arg;
    const fvi_matvec_ops *matvec = &job->gemm->matvec;
    const int64_t from = item * job->item_bytes, to = from + job->item_bytes;
    for (int i = 0; i < job->n; i++) {
        const fvi_linear *w = job->w[i];
        const int64_t first = rows_before(w, job->start[i], from), rows = rows_before(w, job->start[i], to) - first;
        const char *data = (const char *)w->data + (size_t)first * fv_dtype_bytes(w->dtype, w->n_in);
        if (rows > 0 && matvec->dots[w->dtype] != NULL) {
            matvec->dots[w->dtype](data, rows, w->n_in, job->gemm->step_x, job->y[i] + first);
        } else if (rows > 0) {
            matvec->rows[w->dtype](data, rows, w->n_in, job->x, job->y[i] + first);
        }
    }
}

void fvi_linear_step_many(fvi_gemm *gemm, const fvi_linear *const *w, float *const *y, int n, const float *x) {
    step_job job = {.gemm = gemm, .w = w, .y = y, .x = x, .n = n};
    bool quantise = false;
    for (int i = 0; i < n; i++) {
        quantise = quantise || gemm->matvec.dots[w[i]->dtype] != NULL;
        job.start[i + 1] = job.start[i] + w[i]->n_out * (int64_t)fv_dtype_bytes(w[i]->dtype, w[i]->n_in);
    }
    if (quantise) {
        gemm->matvec.quantise(w[0]->n_in, x, gemm->step_x);
    }
    const int64_t share = fvi_ceil_div(job.start[n], gemm->ctx->threads);
    job.item_bytes = fvi_max(fvi_ceil_div(share, fvi_ceil_div(share, STEP_MOST)), STEP_LEAST);
    fvi_parallel(gemm->ctx, fvi_ceil_div(job.start[n], job.item_bytes), step_item, &job);
}

void fvi_linear_step(fvi_gemm *gemm, const fvi_linear *w, const float *x, float *y) { fvi_linear_step_many(gemm, &w, &y, 1, x); }

fv_status fvi_linear_rows(fvi_gemm *gemm, const fvi_linear *w, const int32_t *id, int64_t n, float *out) {
    size_t stride = fv_dtype_bytes(w->dtype, w->n_in);
    for (int64_t i = 0; i < n; i++) {
        if (id[i] < 0 || id[i] >= w->n_out) {
            return fvi_fail(gemm->ctx, FV_ERR_RANGE, "row %d of %s: there are %lld", (int)id[i],
                            w->name == NULL ? "a matrix" : w->name, (long long)w->n_out);
        }
        if (!gemm->convert.to_f32(w->dtype, (const char *)w->data + (size_t)id[i] * stride, w->n_in, out + i * w->n_in)) {
            return refuse_type(gemm, w);
        }
    }
    return FV_OK;
}
