/* dnn.c - see dnn.h. Primitives are made once per shape and height; memory objects, which are small, once per call. */
#include "model/dnn.h"

#include "base/rng.h"
#include "kernel/convert.h"

#include <oneapi/dnnl/dnnl.h>
#include <string.h>

/* libgomp's, which oneDNN runs on; declared here since clang's omp.h is that of another library. */
int omp_get_max_threads(void);
void omp_set_num_threads(int n);

static const int64_t panel_height[FVI_DNN_HEIGHTS] = {FVI_DNN_TALLEST, FVI_DNN_MIDDLE, FVI_DNN_LOWEST};

typedef struct matmul {
    int64_t height;
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t x, y, scratch;
} matmul;

typedef struct shape {
    fvi_dnn_key key;
    dnnl_memory_desc_t plain, packed; /* W as rows, and as oneDNN wants it */
    bool ours;                        /* `packed` is what fvi_convert_ops.pack makes, four times as fast: there is no reorder */
    dnnl_primitive_t reorder;
    dnnl_memory_desc_t reorder_scratch;
    matmul panel[FVI_DNN_HEIGHTS]; /* tallest first */
    int n_panels;
    bool half_known;
    int half; /* the number of the shape of half its rows, -1: none */
} shape;

struct fvi_dnn {
    fv_context *ctx;
    dnnl_engine_t engine;
    dnnl_primitive_attr_t attr;
    dnnl_stream_t *stream; /* per worker */
    void **scratch;        /* per worker */
    size_t scratch_bytes;  /* of each */
    shape *shapes;
    int64_t n_shapes, capacity;
    bool rowwise;
    fvi_convert_ops convert;
};

/* oneDNN plans for, and runs on, as many threads as the calling thread's OpenMP setting says: one, while we call it. */
static int enter_single(void) {
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    return threads;
}
static void leave_single(int threads) { omp_set_num_threads(threads); }

/* ---- life ---- */

fv_status fvi_dnn_create(fv_context *ctx, fvi_dnn **out) {
    *out = NULL;
    fvi_dnn *dnn = fvi_zalloc(ctx, 1, sizeof *dnn);
    if (dnn == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for the weight products");
    }
    dnn->ctx = ctx;
    fvi_convert_init(&ctx->cpu, &dnn->convert);
    size_t workers = (size_t)ctx->threads;
    dnn->stream = fvi_zalloc(ctx, workers, sizeof *dnn->stream);
    dnn->scratch = fvi_zalloc(ctx, workers, sizeof *dnn->scratch);
    if (dnn->stream == NULL || dnn->scratch == NULL) {
        fvi_dnn_destroy(dnn);
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for the weight products");
    }
    bool ok = dnnl_engine_create(&dnn->engine, dnnl_cpu, 0) == dnnl_success &&
              dnnl_primitive_attr_create(&dnn->attr) == dnnl_success &&
              dnnl_primitive_attr_set_scratchpad_mode(dnn->attr, dnnl_scratchpad_mode_user) == dnnl_success;
    for (size_t i = 0; ok && i < workers; i++) {
        ok = dnnl_stream_create(&dnn->stream[i], dnn->engine, dnnl_stream_default_flags) == dnnl_success;
    }
    if (!ok) {
        fvi_dnn_destroy(dnn);
        return fvi_fail(ctx, FV_ERR_UNSUPPORTED, "oneDNN gave no CPU engine; it needs SSE4.1 and memory");
    }
    *out = dnn;
    return FV_OK;
}

static void release_shape(shape *s) {
    for (int i = 0; i < FVI_DNN_HEIGHTS; i++) {
        if (s->panel[i].primitive != NULL) {
            dnnl_primitive_destroy(s->panel[i].primitive);
        }
    }
    if (s->reorder != NULL) {
        dnnl_primitive_destroy(s->reorder);
    }
}

void fvi_dnn_destroy(fvi_dnn *dnn) {
    if (dnn == NULL) {
        return;
    }
    fv_context *ctx = dnn->ctx;
    size_t workers = (size_t)ctx->threads;
    for (int64_t i = 0; i < dnn->n_shapes; i++) {
        release_shape(&dnn->shapes[i]);
    }
    fvi_release(ctx, dnn->shapes, (size_t)dnn->capacity, sizeof *dnn->shapes);
    for (size_t i = 0; i < workers; i++) {
        if (dnn->stream != NULL && dnn->stream[i] != NULL) {
            dnnl_stream_destroy(dnn->stream[i]);
        }
        if (dnn->scratch != NULL) {
            fvi_release(ctx, dnn->scratch[i], dnn->scratch_bytes, 1);
        }
    }
    fvi_release(ctx, dnn->stream, workers, sizeof *dnn->stream);
    fvi_release(ctx, dnn->scratch, workers, sizeof *dnn->scratch);
    if (dnn->attr != NULL) {
        dnnl_primitive_attr_destroy(dnn->attr);
    }
    if (dnn->engine != NULL) {
        dnnl_engine_destroy(dnn->engine);
    }
    fvi_release(ctx, dnn, 1, sizeof *dnn);
}

/* ---- making a shape ---- */

static dnnl_status_t make_matmul(fvi_dnn *dnn, shape *s, int64_t height, matmul *p) {
    const fvi_dnn_key *key = &s->key;
    dnnl_data_type_t type = key->bf16 ? dnnl_bf16 : dnnl_f32;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd = NULL;
    p->height = height;
    dnnl_status_t status =
        dnnl_memory_desc_init_by_strides(&p->x, 2, (dnnl_dims_t){height, key->k}, type, (dnnl_dims_t){key->k, 1});
    if (status == dnnl_success) {
        status = dnnl_memory_desc_init_by_strides(&p->y, 2, (dnnl_dims_t){height, key->n}, dnnl_f32, (dnnl_dims_t){key->n, 1});
    }
    if (status == dnnl_success) {
        status = dnnl_matmul_desc_init(&desc, &p->x, &s->packed, NULL, &p->y);
    }
    if (status == dnnl_success) {
        status = dnnl_primitive_desc_create(&pd, &desc, dnn->attr, dnn->engine, NULL);
    }
    if (status == dnnl_success) {
        s->packed = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
        p->scratch = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        status = dnnl_primitive_create(&p->primitive, pd);
    }
    if (pd != NULL) {
        dnnl_primitive_desc_destroy(pd);
    }
    return status;
}

static dnnl_status_t make_reorder(fvi_dnn *dnn, shape *s) {
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t status = dnnl_reorder_primitive_desc_create(&pd, &s->plain, dnn->engine, &s->packed, dnn->engine, dnn->attr);
    if (status == dnnl_success) {
        s->reorder_scratch = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        status = dnnl_primitive_create(&s->reorder, pd);
    }
    if (pd != NULL) {
        dnnl_primitive_desc_destroy(pd);
    }
    return status;
}

static bool is_ours(const shape *s) {
    const dnnl_blocking_desc_t *b = &s->packed.format_desc.blocking;
    const int64_t columns = fvi_round_up(s->key.k, 32);
    return s->key.bf16 && s->packed.format_kind == dnnl_blocked && s->packed.offset0 == 0 && s->packed.extra.flags == 0 &&
           b->inner_nblks == 3 && b->inner_blks[0] == 16 && b->inner_blks[1] == 64 && b->inner_blks[2] == 2 &&
           b->inner_idxs[0] == 0 && b->inner_idxs[1] == 1 && b->inner_idxs[2] == 0 && b->strides[0] == 2048 &&
           b->strides[1] == columns * 64 && s->packed.padded_dims[0] == columns &&
           s->packed.padded_dims[1] == fvi_round_up(s->key.n, 64);
}

/* The tallest panel chooses the packed form, the others take it over. */
static dnnl_status_t make_shape(fvi_dnn *dnn, shape *s, const int64_t *height, int n_heights) {
    const fvi_dnn_key *key = &s->key;
    dnnl_data_type_t type = key->bf16 ? dnnl_bf16 : dnnl_f32;
    dnnl_dims_t dims = {key->k, key->n};
    dnnl_status_t status = dnnl_memory_desc_init_by_strides(&s->plain, 2, dims, type, (dnnl_dims_t){1, key->k});
    if (status == dnnl_success) {
        status = dnnl_memory_desc_init_by_tag(&s->packed, 2, dims, type, dnnl_format_tag_any);
    }
    for (int i = 0; status == dnnl_success && i < n_heights; i++) {
        status = make_matmul(dnn, s, height[i], &s->panel[i]);
        s->n_panels = i + 1;
    }
    s->ours = status == dnnl_success && is_ours(s);
    return status == dnnl_success && !s->ours ? make_reorder(dnn, s) : status;
}

static bool grow_scratch(fvi_dnn *dnn, const shape *s) {
    size_t need = dnnl_memory_desc_get_size(&s->reorder_scratch);
    for (int i = 0; i < s->n_panels; i++) {
        size_t bytes = dnnl_memory_desc_get_size(&s->panel[i].scratch);
        need = bytes > need ? bytes : need;
    }
    if (need <= dnn->scratch_bytes) {
        return true;
    }
    for (int i = 0; i < dnn->ctx->threads; i++) {
        fvi_release(dnn->ctx, dnn->scratch[i], dnn->scratch_bytes, 1);
        dnn->scratch[i] = NULL;
    }
    dnn->scratch_bytes = need;
    for (int i = 0; i < dnn->ctx->threads; i++) {
        dnn->scratch[i] = fvi_alloc(dnn->ctx, need, 1);
        if (dnn->scratch[i] == NULL) {
            return false;
        }
    }
    return true;
}

/* ---- the check of rows ---- */

/* Multiplies panels whose rows are all alike, and compares every row of y with the first of the lowest panel. -1: no memory or
 * refused. */
static int rows_agree(fvi_dnn *dnn, int number) {
    const shape *s = &dnn->shapes[number];
    const fvi_dnn_key *key = &s->key;
    size_t n_w = (size_t)(key->n * key->k), n_x = (size_t)(FVI_DNN_TALLEST * key->k), n_y = (size_t)(FVI_DNN_TALLEST * key->n);
    size_t element = key->bf16 ? 2 : 4, packed_bytes = fvi_dnn_packed_bytes(dnn, number);
    char *w = fvi_alloc(dnn->ctx, n_w, element), *x = fvi_alloc(dnn->ctx, n_x, element);
    char *packed = fvi_alloc(dnn->ctx, packed_bytes, 1);
    float *y = fvi_alloc(dnn->ctx, n_y, sizeof *y), *first = fvi_alloc(dnn->ctx, (size_t)key->n, sizeof *first);
    int agree = -1;
    if (w != NULL && x != NULL && packed != NULL && y != NULL && first != NULL) {
        fvi_rng rng = {1};
        for (size_t i = 0; i < n_w + n_x; i++) {
            size_t at = i < n_w ? i : i - n_w;
            float value = (float)(fvi_rng_unit(&rng) - 0.5);
            uint16_t half = fvi_f32_to_bf16(value);
            if (i >= n_w && at >= (size_t)key->k) {
                memcpy(x + at * element, x + (at - (size_t)key->k) * element, element);
            } else {
                memcpy((i < n_w ? w : x) + at * element, key->bf16 ? (void *)&half : (void *)&value, element);
            }
        }
        agree = fvi_dnn_pack(dnn, number, 0, 0, key->n, w, packed) ? 1 : -1;
        for (int p = s->n_panels - 1; p >= 0 && agree == 1; p--) {
            agree = fvi_dnn_multiply(dnn, number, 0, s->panel[p].height, x, packed, y) ? 1 : -1;
            if (p == s->n_panels - 1) {
                memcpy(first, y, (size_t)key->n * sizeof *y);
            }
            for (int64_t r = 0; agree == 1 && r < s->panel[p].height; r++) {
                agree = memcmp(first, y + r * key->n, (size_t)key->n * sizeof *y) == 0;
            }
        }
    }
    fvi_release(dnn->ctx, w, n_w, element);
    fvi_release(dnn->ctx, x, n_x, element);
    fvi_release(dnn->ctx, packed, packed_bytes, 1);
    fvi_release(dnn->ctx, y, n_y, sizeof *y);
    fvi_release(dnn->ctx, first, (size_t)key->n, sizeof *first);
    return agree;
}

static fv_status refuse(fvi_dnn *dnn, fvi_dnn_key key, dnnl_status_t status) {
    return fvi_fail(dnn->ctx, status == dnnl_out_of_memory ? FV_ERR_MEMORY : FV_ERR_UNSUPPORTED,
                    "oneDNN would not make a %s product of %lld x %lld weights (status %d)", key.bf16 ? "bf16" : "f32",
                    (long long)key.n, (long long)key.k, (int)status);
}

static dnnl_status_t start_shape(fvi_dnn *dnn, shape *s, const int64_t *height, int n_heights) {
    int threads = enter_single();
    dnnl_status_t status = make_shape(dnn, s, height, n_heights);
    leave_single(threads);
    return status == dnnl_success && !grow_scratch(dnn, s) ? dnnl_out_of_memory : status;
}

fv_status fvi_dnn_shape(fvi_dnn *dnn, fvi_dnn_key key, int *out) {
    for (int64_t i = 0; i < dnn->n_shapes; i++) {
        const fvi_dnn_key *has = &dnn->shapes[i].key;
        if (has->n == key.n && has->k == key.k && has->bf16 == key.bf16) {
            *out = (int)i;
            return FV_OK;
        }
    }
    if (!fvi_grow(dnn->ctx, (void **)&dnn->shapes, &dnn->capacity, dnn->n_shapes + 1, sizeof *dnn->shapes)) {
        return fvi_fail(dnn->ctx, FV_ERR_MEMORY, "no memory for the weight products");
    }
    static const int64_t single = 1;
    shape *s = &dnn->shapes[dnn->n_shapes];
    *s = (shape){.key = key};
    dnnl_status_t status = dnnl_success;
    int agree = 0;
    if (!dnn->rowwise) {
        status = start_shape(dnn, s, panel_height, FVI_DNN_HEIGHTS);
        agree = status == dnnl_success ? rows_agree(dnn, (int)dnn->n_shapes) : -1;
    }
    if (status == dnnl_success && agree == 0) {
        release_shape(s);
        *s = (shape){.key = key};
        status = start_shape(dnn, s, &single, 1);
    }
    if (status != dnnl_success || agree < 0) {
        release_shape(s);
        return refuse(dnn, key, status == dnnl_success ? dnnl_out_of_memory : status);
    }
    *out = (int)dnn->n_shapes++;
    return FV_OK;
}

/* ---- halves ---- */

/* Multiplies random x with random W, whole and by halves, in the lowest panel. -1: no memory or refused. */
static int halves_agree(fvi_dnn *dnn, int whole, int half) {
    const shape *s = &dnn->shapes[whole];
    const int64_t k = s->key.k, n = s->key.n, m = s->panel[s->n_panels - 1].height;
    size_t packed_bytes = fvi_dnn_packed_bytes(dnn, whole), n_y = (size_t)(m * n);
    uint16_t *w = fvi_alloc(dnn->ctx, (size_t)((n + m) * k), sizeof *w), *x = w + n * k;
    char *packed = fvi_alloc(dnn->ctx, packed_bytes, 1);
    float *y = fvi_alloc(dnn->ctx, 2 * n_y, sizeof *y), *part = y + n_y;
    int agree = -1;
    if (w != NULL && packed != NULL && y != NULL) {
        fvi_rng rng = {2};
        for (int64_t i = 0; i < (n + m) * k; i++) {
            w[i] = fvi_f32_to_bf16((float)(fvi_rng_unit(&rng) - 0.5));
        }
        bool ok = fvi_dnn_pack(dnn, whole, 0, 0, n, w, packed) && fvi_dnn_multiply(dnn, whole, 0, m, x, packed, y);
        agree = ok ? 1 : -1;
        for (int64_t first = 0; first < n && agree == 1; first += n / 2) {
            agree = fvi_dnn_multiply(dnn, half, 0, m, x, fvi_dnn_packed_row(dnn, whole, packed, first), part) ? 1 : -1;
            for (int64_t r = 0; r < m && agree == 1; r++) {
                agree = memcmp(y + r * n + first, part + r * (n / 2), (size_t)(n / 2) * sizeof *y) == 0;
            }
        }
    }
    fvi_release(dnn->ctx, w, (size_t)((n + m) * k), sizeof *w);
    fvi_release(dnn->ctx, packed, packed_bytes, 1);
    fvi_release(dnn->ctx, y, 2 * n_y, sizeof *y);
    return agree;
}

fv_status fvi_dnn_half(fvi_dnn *dnn, int whole, int *out) {
    fvi_dnn_key key = dnn->shapes[whole].key;
    *out = dnn->shapes[whole].half;
    if (dnn->shapes[whole].half_known) {
        return FV_OK;
    }
    int half = -1, agree = 0;
    if (dnn->shapes[whole].ours && key.n % 128 == 0) {
        key.n /= 2;
        fv_status status = fvi_dnn_shape(dnn, key, &half);
        if (status != FV_OK) {
            return status;
        }
        bool alike = dnn->shapes[half].ours && dnn->shapes[half].n_panels == dnn->shapes[whole].n_panels;
        agree = alike ? halves_agree(dnn, whole, half) : 0;
    }
    if (agree < 0) {
        return refuse(dnn, key, dnnl_out_of_memory);
    }
    dnn->shapes[whole].half = *out = agree == 1 ? half : -1;
    dnn->shapes[whole].half_known = true;
    return FV_OK;
}

void fvi_dnn_rowwise(fvi_dnn *dnn) { dnn->rowwise = true; }

size_t fvi_dnn_packed_bytes(const fvi_dnn *dnn, int number) { return dnnl_memory_desc_get_size(&dnn->shapes[number].packed); }

size_t fvi_dnn_bytes(const fvi_dnn *dnn) { return dnn->scratch_bytes * (size_t)dnn->ctx->threads; }

/* ---- work ---- */

int64_t fvi_dnn_height(const fvi_dnn *dnn, int number, int64_t rows) {
    const shape *s = &dnn->shapes[number];
    int i = 0;
    while (i + 1 < s->n_panels && s->panel[i].height > rows) {
        i++;
    }
    return s->panel[i].height;
}

typedef struct operand {
    int arg;
    const dnnl_memory_desc_t *desc;
    const void *data;
} operand;

static bool execute(fvi_dnn *dnn, int worker, dnnl_primitive_t primitive, const operand *operands, int n) {
    dnnl_exec_arg_t args[4];
    int made = 0, threads = enter_single();
    bool ok = true;
    for (; ok && made < n; made += ok) {
        args[made].arg = operands[made].arg;
        ok = dnnl_memory_create(&args[made].memory, operands[made].desc, dnn->engine, (void *)(uintptr_t)operands[made].data) ==
             dnnl_success;
    }
    ok = ok && dnnl_primitive_execute(primitive, dnn->stream[worker], n, args) == dnnl_success &&
         dnnl_stream_wait(dnn->stream[worker]) == dnnl_success;
    for (int i = 0; i < made; i++) {
        dnnl_memory_destroy(args[i].memory);
    }
    leave_single(threads);
    return ok;
}

int64_t fvi_dnn_strip(const fvi_dnn *dnn, int number) { return dnn->shapes[number].ours ? 64 : dnn->shapes[number].key.n; }

bool fvi_dnn_pack(fvi_dnn *dnn, int number, int worker, int64_t first, int64_t n, const void *w, void *packed) {
    const shape *s = &dnn->shapes[number];
    if (s->ours) {
        dnn->convert.pack(n, s->key.k, w, (uint16_t *)packed + fvi_convert_packed(first, s->key.k));
        return true;
    }
    operand operands[] = {{DNNL_ARG_FROM, &s->plain, w},
                          {DNNL_ARG_TO, &s->packed, packed},
                          {DNNL_ARG_SCRATCHPAD, &s->reorder_scratch, dnn->scratch[worker]}};
    return execute(dnn, worker, s->reorder, operands, 3);
}

const void *fvi_dnn_packed_row(const fvi_dnn *dnn, int number, const void *packed, int64_t first) {
    return (const uint16_t *)packed + fvi_convert_packed(first, dnn->shapes[number].key.k);
}

bool fvi_dnn_multiply(fvi_dnn *dnn, int number, int worker, int64_t height, const void *x, const void *packed, float *y) {
    const shape *s = &dnn->shapes[number];
    const matmul *p = s->panel;
    while (p->height != height) {
        p++;
    }
    operand operands[] = {{DNNL_ARG_SRC, &p->x, x},
                          {DNNL_ARG_WEIGHTS, &s->packed, packed},
                          {DNNL_ARG_DST, &p->y, y},
                          {DNNL_ARG_SCRATCHPAD, &p->scratch, dnn->scratch[worker]}};
    return execute(dnn, worker, p->primitive, operands, 4);
}
