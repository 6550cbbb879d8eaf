/* model.c - opening a model file: the mapping, the vocabulary, the architecture's weights, the facts. */
#include "model/arch.h"
#include "model/vocab.h"

#include <string.h>
#include <unistd.h>

static const fvi_arch *const fvi_arch_table[] = {&fvi_arch_llama};

const fvi_arch *fvi_arch_find(fvi_string name) {
    for (size_t i = 0; i < sizeof fvi_arch_table / sizeof *fvi_arch_table; i++) {
        const char *known = fvi_arch_table[i]->name;
        if (strlen(known) == name.size && memcmp(known, name.data, name.size) == 0) {
            return fvi_arch_table[i];
        }
    }
    return NULL;
}

static size_t machine_memory(void) {
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (size_t)pages * (size_t)page : SIZE_MAX;
}

fv_status fvi_model_fits(const fv_model *model, size_t bytes, const char *what) {
    size_t file = model->facts.file_bytes, extra = model->facts.extra_bytes, total = model->facts.memory_total, sum;
    if (fvi_add(file, extra, &sum) && fvi_add(sum, bytes, &sum) && sum <= total) {
        return FV_OK;
    }
    const double mib = 1024.0 * 1024.0;
    return fvi_fail(
        model->ctx, FV_ERR_MEMORY,
        "%s: the file (%.1f MiB), unpacked weights (%.1f MiB) and %s (%.1f MiB) do not fit in this machine's %.1f MiB",
        model->gguf->path, (double)file / mib, (double)extra / mib, what, (double)bytes / mib, (double)total / mib);
}

static fv_status copy_string(fv_model *model, const char *key, char **out) {
    fvi_string s;
    fv_status status = fvi_gguf_string(model->gguf, key, &s);
    if (status != FV_OK) {
        return status;
    }
    *out = fvi_strdup(model->ctx, s.data != NULL ? s.data : "", s.size);
    return *out != NULL ? FV_OK : fvi_fail(model->ctx, FV_ERR_MEMORY, "no memory for the value of %s", key);
}

/* A template may bring a system message of its own for chats without one, written as one literal without expressions:
 *   '<|im_start|>system\n ... <|im_end|>\n'      the line's end as it is, or as a backslash and an n */
static fv_status find_system(fv_model *model, fvi_string template) {
    static const char open[] = "'<|im_start|>system", close[] = "<|im_end|>";
    const char *end = template.data + template.size;
    const char *from = memmem(template.data, template.size, open, sizeof open - 1);
    if (from == NULL) {
        return FV_OK;
    }
    from += sizeof open - 1;
    const bool escaped = end - from >= 2 && from[0] == '\\' && from[1] == 'n';
    if (!escaped && (from == end || *from != '\n')) {
        return FV_OK;
    }
    from += escaped ? 2 : 1;
    const char *to = memmem(from, (size_t)(end - from), close, sizeof close - 1);
    if (to == NULL || memchr(from, '\'', (size_t)(to - from)) != NULL || memchr(from, '\\', (size_t)(to - from)) != NULL) {
        return FV_OK;
    }
    model->system = fvi_strdup(model->ctx, from, (size_t)(to - from));
    return model->system != NULL ? FV_OK : fvi_fail(model->ctx, FV_ERR_MEMORY, "no memory for the chat template");
}

static fv_status read_prompt_form(fv_model *model) {
    fvi_string template;
    fv_status status = fvi_gguf_string(model->gguf, "tokenizer.chat_template", &template);
    model->facts.prompt_form = "plain";
    static const char marker[] = "<|im_start|>";
    if (status != FV_OK || template.data == NULL || memmem(template.data, template.size, marker, sizeof marker - 1) == NULL) {
        return status;
    }
    model->facts.prompt_form = "chatml";
    return find_system(model, template);
}

static fv_status read_facts(fv_model *model) {
    fv_status status = copy_string(model, "general.architecture", &model->architecture);
    if (status == FV_OK) {
        status = copy_string(model, "general.name", &model->name);
    }
    if (status == FV_OK) {
        status = copy_string(model, "general.license", &model->license);
    }
    if (status != FV_OK) {
        return status;
    }
    model->facts.architecture = model->architecture;
    model->facts.name = model->name;
    model->facts.license = model->license;
    model->facts.file_bytes = model->gguf->map_bytes;
    model->facts.memory_total = machine_memory();
    return read_prompt_form(model);
}

static int64_t count_parameters(const fvi_gguf *g) {
    uint64_t sum = 0;
    for (int64_t i = 0; i < g->n_tensors; i++) {
        uint64_t n = 1;
        for (int r = 0; r < g->tensor[i].rank; r++) {
            n *= (uint64_t)g->tensor[i].shape[r];
        }
        sum += n;
    }
    return (int64_t)sum;
}

static fv_status load(fv_model *model, size_t extra_bytes) {
    fv_status status = read_facts(model);
    if (status != FV_OK) {
        return status;
    }
    model->arch = fvi_arch_find((fvi_string){model->architecture, strlen(model->architecture)});
    if (model->arch == NULL) {
        return fvi_fail(model->ctx, FV_ERR_UNSUPPORTED, "%s: general.architecture is \"%.64s\"; \"llama\" is what can be run",
                        model->gguf->path, model->architecture);
    }
    status = fvi_model_fits(model, extra_bytes, "room for weights unpacked for prompts");
    if (status == FV_OK) {
        status = fvi_vocab_from_gguf(model->ctx, model->gguf, &model->vocab);
    }
    if (status == FV_OK) {
        status = fvi_gemm_create(model->ctx, extra_bytes, &model->gemm);
    }
    if (status != FV_OK) {
        return status;
    }
    model->facts.n_vocab = fv_vocab_size(model->vocab);
    fvi_rowop_init(&model->ctx->cpu, &model->rowop);
    status = model->arch->load(model);
    fv_model_facts *f = &model->facts;
    f->parameters = count_parameters(model->gguf);
    f->extra_bytes = fvi_gemm_bytes(model->gemm);
    f->kv_bytes_per_token = (size_t)(f->layers * f->h_kv * (f->d_k + f->d_v)) * 2;
    return status;
}

fv_status fv_model_open(fv_context *ctx, const char *path, const fv_model_options *options, fv_model **out) {
    *out = NULL;
    fv_model *model = fvi_zalloc(ctx, 1, sizeof *model);
    if (model == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a model");
    }
    model->ctx = ctx;
    size_t extra = options != NULL && options->extra_bytes > 0 ? options->extra_bytes : (size_t)256 << 20;
    fv_status status = fvi_gguf_open(ctx, path, &model->gguf);
    if (status == FV_OK) {
        status = load(model, extra);
    }
    if (status != FV_OK) {
        fv_model_destroy(model);
        return status;
    }
    *out = model;
    return FV_OK;
}

void fv_model_destroy(fv_model *model) {
    if (model == NULL) {
        return;
    }
    fv_context *ctx = model->ctx;
    if (model->arch != NULL) {
        model->arch->unload(model);
    }
    fvi_gemm_destroy(model->gemm);
    fv_vocab_destroy(model->vocab);
    fvi_gguf_destroy(model->gguf);
    fvi_strfree(ctx, model->architecture);
    fvi_strfree(ctx, model->name);
    fvi_strfree(ctx, model->license);
    fvi_strfree(ctx, model->system);
    fvi_release(ctx, model, 1, sizeof *model);
}

const fv_vocab *fv_model_vocab(const fv_model *model) { return model->vocab; }
fv_context *fv_model_context(const fv_model *model) { return model->ctx; }

void fv_model_describe(const fv_model *model, fv_model_facts *out) {
    *out = model->facts;
    out->extra_bytes = fvi_gemm_bytes(model->gemm); /* scratch may have grown since */
}

uint64_t fvi_digest(uint64_t hash, const void *data, size_t size) {
    const uint8_t *p = data;
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = 0;
        memcpy(&word, p + i, size - i < 8 ? size - i : 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 32;
    }
    return (hash ^ size) * 0xd6e8feb86659fd93u;
}

/* 64 bytes at 64 places spread over a tensor: enough to tell fine-tuned copies of a model apart, and quick to read. */
static uint64_t hash_sample(uint64_t hash, const fvi_gguf_tensor *t) {
    enum { PLACES = 64, SIZE = 64 };
    const uint8_t *data = t->data;
    if (t->bytes <= PLACES * SIZE) {
        return fvi_digest(hash, data, t->bytes);
    }
    for (uint64_t i = 0; i < PLACES; i++) {
        hash = fvi_digest(hash, data + (t->bytes - SIZE) / (PLACES - 1) * i, SIZE);
    }
    return hash;
}

uint64_t fv_model_fingerprint(fv_model *model) {
    if (model->fingerprint != 0) {
        return model->fingerprint;
    }
    const fvi_gguf *g = model->gguf;
    uint64_t hash = fvi_digest(1, model->architecture, strlen(model->architecture));
    uint64_t numbers[] = {g->map_bytes, (uint64_t)g->n_tensors, (uint64_t)model->facts.context};
    hash = fvi_digest(hash, numbers, sizeof numbers);
    for (int64_t i = 0; i < g->n_tensors; i++) {
        const fvi_gguf_tensor *t = &g->tensor[i];
        uint64_t shape[] = {t->file_type, (uint64_t)t->rank, t->bytes, (uint64_t)t->shape[0]};
        hash = fvi_digest(fvi_digest(hash, t->name.data, t->name.size), shape, sizeof shape);
        hash = hash_sample(hash, t);
    }
    model->fingerprint = hash != 0 ? hash : 1;
    return model->fingerprint;
}
