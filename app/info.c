/* info.c - what is in a model file: `fovea info`. Facts come from the model where it can be opened; the metadata and tensors
 * of any GGUF file, vocabularies without tensors included. */
#include "common.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DTYPES = 32 };

/* Bytes of the tensors by dtype, in the order of their first appearance. */
typedef struct dtype_bytes {
    const char *type[MAX_DTYPES];
    uint64_t bytes[MAX_DTYPES];
    int n;
} dtype_bytes;

static void sum_bytes(const fv_file *file, dtype_bytes *out) {
    const fv_file_entry *e;
    for (int64_t i = 0; (e = fv_file_tensor(file, i)); i++) {
        int k = 0;
        while (k < out->n && strcmp(out->type[k], e->type) != 0) {
            k++;
        }
        if (k == MAX_DTYPES) {
            continue;
        }
        out->type[k] = e->type;
        out->bytes[k] += e->bytes;
        out->n += k == out->n;
    }
}

/* ---- text ---- */

static void print_facts(const fv_model_facts *f, const fv_vocab *vocab, int threads) {
    char a[32], b[32], c[32];
    printf("architecture   %s%s%s%s\n", f->architecture, f->name[0] ? ", \"" : "", f->name, f->name[0] ? "\"" : "");
    if (f->license[0]) {
        printf("licence        %s\n", f->license);
    }
    printf("parameters     %.1f million\n", (double)f->parameters / 1e6);
    printf("layers         %d, width %" PRId64 ", FFN %" PRId64 "\n", f->layers, f->d_model, f->d_ffn);
    printf("heads          %" PRId64 " query, %" PRId64 " KV; widths %" PRId64 " (keys), %" PRId64 " (values)\n", f->h_q, f->h_kv,
           f->d_k, f->d_v);
    printf("context        %" PRId64 " tokens trained; RoPE base %g, %s pairs\n", f->context, f->rope_base,
           f->rope_interleaved ? "interleaved" : "half-split");
    printf("vocabulary     %" PRId64 " tokens, kind %s, BOS %d%s, EOS %d\n", f->n_vocab, fv_vocab_kind(vocab),
           fv_vocab_bos(vocab), fv_vocab_add_bos(vocab) ? " (prepended)" : "", fv_vocab_eos(vocab));
    printf("prompt form    %s\n", f->prompt_form);
    double kv = (double)f->kv_bytes_per_token, full = kv * (double)f->context;
    printf("KV             %s per 1,000 tokens, %s for the whole context (16-bit)\n", common_bytes(1000 * kv, a),
           common_bytes(full, b));
    printf("memory         %s file + %s unpacked + KV; this machine has %s, %d threads\n", common_bytes((double)f->file_bytes, a),
           common_bytes((double)f->extra_bytes, b), common_bytes((double)f->memory_total, c), threads);
}

static void print_vocab(const fv_vocab *vocab) {
    printf("vocabulary     %d tokens, kind %s, BOS %d%s, EOS %d\n", fv_vocab_size(vocab), fv_vocab_kind(vocab),
           fv_vocab_bos(vocab), fv_vocab_add_bos(vocab) ? " (prepended)" : "", fv_vocab_eos(vocab));
}

static void print_entries(const fv_file *file, bool tensors) {
    terminal_style s = terminal_styles(stdout);
    const fv_file_entry *e;
    printf("\n%smetadata%s\n", s.bold, s.reset);
    for (int64_t i = 0; (e = fv_file_metadata(file, i)); i++) {
        fputs("  ", stdout);
        common_print_clean(e->name);
        printf("  (%s)  ", e->type);
        common_print_clean(e->value);
        putchar('\n');
    }
    if (!tensors) {
        return;
    }
    printf("\n%stensors%s\n", s.bold, s.reset);
    for (int64_t i = 0; (e = fv_file_tensor(file, i)); i++) {
        fputs("  ", stdout);
        common_print_clean(e->name);
        printf("  %s  %s  %" PRIu64 " bytes at %" PRIu64 "\n", e->type, e->value, e->bytes, e->offset);
    }
}

static void print_file(const fv_file *file, const char *path) {
    dtype_bytes sums = {.n = 0};
    char text[32];
    printf("file           ");
    common_print_clean(path);
    printf(", GGUF version %d\n", fv_file_version(file));
    sum_bytes(file, &sums);
    printf("tensors        ");
    for (int i = 0; i < sums.n; i++) {
        printf("%s%s %s", i ? ", " : "", sums.type[i], common_bytes((double)sums.bytes[i], text));
    }
    printf("%s\n", sums.n ? "" : "none: a vocabulary");
}

/* ---- JSON ---- */

static void facts_json(cJSON *json, const fv_model_facts *f) {
    common_json_text(json, "architecture", f->architecture, strlen(f->architecture));
    common_json_text(json, "name", f->name, strlen(f->name));
    common_json_text(json, "license", f->license, strlen(f->license));
    cJSON_AddStringToObject(json, "prompt_form", f->prompt_form);
    const struct {
        const char *name;
        double value;
    } numbers[] = {
        {"parameters", (double)f->parameters},
        {"layers", f->layers},
        {"d_model", (double)f->d_model},
        {"d_ffn", (double)f->d_ffn},
        {"h_q", (double)f->h_q},
        {"h_kv", (double)f->h_kv},
        {"d_k", (double)f->d_k},
        {"d_v", (double)f->d_v},
        {"context", (double)f->context},
        {"rope_base", f->rope_base},
        {"file_bytes", (double)f->file_bytes},
        {"extra_bytes", (double)f->extra_bytes},
        {"kv_bytes_per_token", (double)f->kv_bytes_per_token},
        {"memory_total", (double)f->memory_total},
    };
    for (int i = 0; i < CLI_COUNT(numbers); i++) {
        cJSON_AddNumberToObject(json, numbers[i].name, numbers[i].value);
    }
    cJSON_AddBoolToObject(json, "rope_interleaved", f->rope_interleaved);
}

static cJSON *vocab_json(const fv_vocab *vocab) {
    cJSON *v = cJSON_CreateObject();
    cJSON_AddNumberToObject(v, "size", fv_vocab_size(vocab));
    cJSON_AddStringToObject(v, "kind", fv_vocab_kind(vocab));
    cJSON_AddNumberToObject(v, "bos", fv_vocab_bos(vocab));
    cJSON_AddNumberToObject(v, "eos", fv_vocab_eos(vocab));
    cJSON_AddBoolToObject(v, "add_bos", fv_vocab_add_bos(vocab));
    return v;
}

static cJSON *entry_json(const fv_file_entry *e, const char *value_name) {
    cJSON *o = cJSON_CreateObject();
    common_json_text(o, "name", e->name, strlen(e->name));
    common_json_text(o, "type", e->type, strlen(e->type));
    common_json_text(o, value_name, e->value, strlen(e->value));
    cJSON_AddNumberToObject(o, "offset", (double)e->offset);
    cJSON_AddNumberToObject(o, "bytes", (double)e->bytes);
    return o;
}

static void file_json(cJSON *json, const fv_file *file, bool tensors) {
    dtype_bytes sums = {.n = 0};
    sum_bytes(file, &sums);
    cJSON_AddNumberToObject(json, "gguf_version", fv_file_version(file));
    cJSON *by_dtype = cJSON_AddObjectToObject(json, "bytes_by_dtype");
    for (int i = 0; i < sums.n; i++) {
        cJSON_AddNumberToObject(by_dtype, sums.type[i], (double)sums.bytes[i]);
    }
    const fv_file_entry *e;
    cJSON *list = cJSON_AddArrayToObject(json, "metadata");
    for (int64_t i = 0; (e = fv_file_metadata(file, i)); i++) {
        cJSON_AddItemToArray(list, entry_json(e, "value"));
    }
    list = tensors ? cJSON_AddArrayToObject(json, "tensors") : NULL;
    for (int64_t i = 0; list && (e = fv_file_tensor(file, i)); i++) {
        cJSON_AddItemToArray(list, entry_json(e, "shape"));
    }
}

/* ---- the command ---- */

typedef struct subject {
    const char *path;
    fv_file *file;
    fv_model *model; /* NULL: the file has no tensors, or is of an architecture that cannot run here */
    fv_vocab *vocab; /* NULL: none in the file, or the model's is used */
    char why[512];   /* it cannot run */
} subject;

static int print_subject(const cli_common *common, const fv_context *ctx, const subject *s, bool tensors) {
    fv_model_facts facts;
    const fv_vocab *vocab = s->model ? fv_model_vocab(s->model) : s->vocab;
    if (s->model) {
        fv_model_describe(s->model, &facts);
    }
    if (common->json) {
        cJSON *json = cJSON_CreateObject();
        common_json_text(json, "file", s->path, strlen(s->path));
        cJSON_AddBoolToObject(json, "runs", s->model != NULL);
        if (s->model) {
            facts_json(json, &facts);
        }
        if (vocab) {
            cJSON_AddItemToObject(json, "vocabulary", vocab_json(vocab));
        }
        file_json(json, s->file, tensors);
        return common_print_json(json);
    }
    print_file(s->file, s->path);
    if (s->model) {
        print_facts(&facts, vocab, fv_threads(ctx));
    } else if (vocab) {
        print_vocab(vocab);
    }
    if (!s->model && fv_file_tensor(s->file, 0)) {
        printf("does not run   ");
        common_print_clean(s->why);
        putchar('\n');
    }
    print_entries(s->file, tensors);
    return terminal_flush();
}

/* A file whose tables are broken is an error; one that merely cannot run is shown, with the reason. */
static int inspect(const cli_common *common, fv_context *ctx, const char *path, bool tensors) {
    subject s = {.path = path};
    fv_status status = fv_file_open(ctx, path, &s.file);
    if (status) {
        return terminal_status(ctx, status);
    }
    if (fv_file_tensor(s.file, 0) && fv_model_open(ctx, path, NULL, &s.model)) {
        snprintf(s.why, sizeof s.why, "%s", fv_message(ctx));
    }
    if (!s.model && fv_vocab_open(ctx, path, &s.vocab)) {
        s.vocab = NULL;
    }
    int code = print_subject(common, ctx, &s, tensors);
    fv_vocab_destroy(s.vocab);
    fv_model_destroy(s.model);
    fv_file_destroy(s.file);
    return code;
}

int command_info(int argc, char **argv) {
    cli_common common = cli_common_default();
    bool tensors = false;
    cli_texts operand = {.n = 0};
    cli_option options[] = {{"tensors", 0, NULL, "list the tensors too", CLI_FLAG, &tensors, 0, 0}};
    cli_page page = {
        .name = "info",
        .usage = "[MODEL] [options]",
        .text =
            "What is in a model file (GGUF): architecture, sizes, tokenizer, prompt form, bytes by dtype, the memory it needs\n"
            "and what this machine has, and all metadata. Works for vocabularies without tensors, too.",
        .examples = "  fovea info\n  fovea info model.gguf --tensors\n  fovea info -m model.gguf --json\n",
        .operands = 1,
        .operand = &operand,
        .takes = CLI_MODEL | CLI_JSON | CLI_MACHINE,
        .options = options,
        .n_options = CLI_COUNT(options),
    };
    int code = cli_parse(&page, &common, argc, argv);
    if (code != CLI_GO) {
        return code;
    }
    if (operand.n) {
        common.model = operand.text[0];
    }
    char path[4096];
    fv_context *ctx = NULL;
    code = common_model_path(&common, path, sizeof path);
    code = code ? code : common_open(&common, &ctx);
    code = code ? code : inspect(&common, ctx, path, tensors);
    common_close(ctx);
    return code;
}
