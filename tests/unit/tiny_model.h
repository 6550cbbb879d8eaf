/* tiny_model.h - a random model of the Llama architecture in a file of its own, for tests of the runtime.
 *
 *   tiny_model t = tiny_default();       // change what should differ
 *   char path[64];
 *   tiny_write(&t, path);                // unlink(path) when done
 */
#ifndef FOVEA_TEST_TINY_MODEL_H
#define FOVEA_TEST_TINY_MODEL_H

#include "gguf_builder.h"

#include <unistd.h>

typedef struct tiny_model {
    int64_t layers, d_model, d_ffn, h_q, h_kv, d_k, n_vocab, context;
    bool half_split, tied;
    fv_dtype dtype;
    uint64_t seed;
    const char *extra_tensor; /* a tensor that no llama has; NULL: none */
    const char *template;     /* tokenizer.chat_template; NULL: none */
    int64_t wrong_ffn;        /* added to the rows of blk.0.ffn_up */
} tiny_model;

static inline tiny_model tiny_default(void) {
    return (tiny_model){.layers = 2,
                        .d_model = 64,
                        .d_ffn = 96,
                        .h_q = 4,
                        .h_kv = 2,
                        .d_k = 16,
                        .n_vocab = 101,
                        .context = 4096,
                        .tied = true,
                        .dtype = FV_F32,
                        .seed = 20240501};
}

static inline void tiny_vocabulary(gguf_builder *b, int64_t n) {
    char *text = malloc((size_t)n * 8);
    fvi_string *token = malloc((size_t)n * sizeof *token);
    int32_t *type = malloc((size_t)n * sizeof *type);
    static const char *const special[] = {"<s>", "</s>", "<|im_start|>", "<|im_end|>"};
    if (text == NULL || token == NULL || type == NULL) {
        fprintf(stderr, "tiny_model: no memory\n");
        exit(1);
    }
    for (int64_t i = 0; i < n; i++) {
        char *s = text + i * 8;
        if (i < 4) {
            token[i] = (fvi_string){special[i], strlen(special[i])};
        } else if (i < 98) { /* the 94 letters that stand for themselves */
            s[0] = (char)('!' + i - 4);
            token[i] = (fvi_string){s, 1};
        } else {
            int size = snprintf(s, 8, "w%d", (int)(i % 100000));
            token[i] = (fvi_string){s, (size_t)size};
        }
        type[i] = i < 4 ? 3 : 1;
    }
    gb_string(b, "tokenizer.ggml.model", "gpt2");
    gb_string(b, "tokenizer.ggml.pre", "gpt-2");
    gb_string_array(b, "tokenizer.ggml.tokens", token, (uint64_t)n);
    gb_array(b, "tokenizer.ggml.token_type", FVI_GGUF_I32, type, (uint64_t)n);
    gb_string_array(b, "tokenizer.ggml.merges", NULL, 0);
    gb_u32(b, "tokenizer.ggml.bos_token_id", 0);
    gb_u32(b, "tokenizer.ggml.eos_token_id", 1);
    free(type);
    free(token);
    free(text);
}

static inline void tiny_metadata(gguf_builder *b, const tiny_model *t) {
    gb_string(b, "general.architecture", "llama");
    gb_string(b, "general.name", "tiny");
    gb_u32(b, "llama.block_count", (uint32_t)t->layers);
    gb_u32(b, "llama.context_length", (uint32_t)t->context);
    gb_u32(b, "llama.embedding_length", (uint32_t)t->d_model);
    gb_u32(b, "llama.feed_forward_length", (uint32_t)t->d_ffn);
    gb_u32(b, "llama.attention.head_count", (uint32_t)t->h_q);
    gb_u32(b, "llama.attention.head_count_kv", (uint32_t)t->h_kv);
    gb_u32(b, "llama.attention.key_length", (uint32_t)t->d_k);
    gb_u32(b, "llama.attention.value_length", (uint32_t)t->d_k);
    gb_f32(b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gb_f32(b, "llama.rope.freq_base", 10000);
    gb_bool(b, "fovea.rope.half_split", t->half_split);
    if (t->template != NULL) {
        gb_string(b, "tokenizer.chat_template", t->template);
    }
    tiny_vocabulary(b, t->n_vocab);
}

static inline void tiny_layer(gguf_builder *b, const tiny_model *t, int layer, fvi_rng *rng) {
    const struct {
        const char *name;
        int64_t n_in, n_out;
        double gain;
    } matrix[] = {
        {"attn_q", t->d_model, t->h_q * t->d_k, 2},  {"attn_k", t->d_model, t->h_kv * t->d_k, 2},
        {"attn_v", t->d_model, t->h_kv * t->d_k, 1}, {"attn_output", t->h_q * t->d_k, t->d_model, 1},
        {"ffn_gate", t->d_model, t->d_ffn, 1},       {"ffn_up", t->d_model, t->d_ffn + (layer == 0 ? t->wrong_ffn : 0), 1},
        {"ffn_down", t->d_ffn, t->d_model, 1}};
    char name[64];
    for (size_t i = 0; i < sizeof matrix / sizeof *matrix; i++) {
        snprintf(name, sizeof name, "blk.%d.%s.weight", layer, matrix[i].name);
        gb_random(b, name, t->dtype, 2, (int64_t[]){matrix[i].n_in, matrix[i].n_out},
                  matrix[i].gain / sqrt((double)matrix[i].n_in), rng);
    }
    static const char *const norm[] = {"attn_norm", "ffn_norm"};
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "blk.%d.%s.weight", layer, norm[i]);
        gb_random_mean(b, name, FV_F32, 1, &t->d_model, 1, 0.1, rng);
    }
}

/* The path, 64 bytes, is made. */
static inline void tiny_write(const tiny_model *t, char *path) {
    gguf_builder b = gb_begin();
    fvi_rng rng = {t->seed};
    tiny_metadata(&b, t);
    for (int layer = 0; layer < t->layers; layer++) {
        tiny_layer(&b, t, layer, &rng);
    }
    const int64_t shape[2] = {t->d_model, t->n_vocab};
    gb_random_mean(&b, "output_norm.weight", FV_F32, 1, &t->d_model, 1, 0.1, &rng);
    gb_random(&b, "token_embd.weight", t->dtype, 2, shape, 1, &rng);
    if (!t->tied) {
        gb_random(&b, "output.weight", t->dtype, 2, shape, 0.3, &rng);
    }
    if (t->extra_tensor != NULL) {
        gb_random(&b, t->extra_tensor, FV_F32, 1, &t->d_model, 1, &rng);
    }
    snprintf(path, 64, "/tmp/fovea-tiny-XXXXXX");
    int fd = mkstemp(path);
    if (fd < 0 || !gb_write(&b, path)) {
        fprintf(stderr, "tiny_model: cannot write %s\n", path);
        exit(1);
    }
    close(fd);
    gb_end(&b);
}

#endif
