/* tiny.h - vocabularies and a model small enough to be run a thousand times a second, with all that the large ones have. */
#ifndef FOVEA_FUZZ_TINY_H
#define FOVEA_FUZZ_TINY_H

#include "gguf_builder.h"

/* A byte in the letters of byte-level vocabularies, as UTF-8. */
static inline size_t tiny_letter(int byte, char *out) {
    int code = byte, next = 256;
    for (int b = 0; b <= byte; b++) {
        bool prints = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        code = prints ? b : next++;
    }
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3f));
    return 2;
}

/* Pieces, their types and scores, as they are collected. */
typedef struct tiny_pieces {
    char text[512][24];
    const char *piece[512];
    int32_t type[512];
    float score[512];
    int n;
} tiny_pieces;

static inline void tiny_add(tiny_pieces *p, const char *text, size_t size, int type) {
    memcpy(p->text[p->n], text, size);
    p->text[p->n][size] = '\0';
    p->piece[p->n] = p->text[p->n];
    p->type[p->n] = type;
    p->score[p->n] = (float)-p->n;
    p->n++;
}

static inline void tiny_add_text(tiny_pieces *p, const char *text, int type) { tiny_add(p, text, strlen(text), type); }

static inline void tiny_arrays(gguf_builder *b, const tiny_pieces *p) {
    gb_strings(b, "tokenizer.ggml.tokens", p->piece, (uint64_t)p->n);
    gb_array(b, "tokenizer.ggml.token_type", FVI_GGUF_I32, p->type, (uint64_t)p->n);
}

/* 256 bytes, some merges, control and user-defined tokens; `pre` is "gpt-2", "smollm" or "qwen2". */
static inline int tiny_bpe(gguf_builder *b, const char *pre) {
    static const char *const merge[][2] = {{"h", "e"},
                                           {"t", "h"},
                                           {"\xc4\xa0", "t"},
                                           {"\xc4\xa0t", "he"},
                                           {"i", "n"},
                                           {"in", "g"},
                                           {"e", "r"},
                                           {"1", "2"},
                                           {"a", "a"},
                                           {"aa", "aa"},
                                           {"\xc3\xa6", "\xc4\xb9"},
                                           {"\xc4\xa0", "\xc4\xa0"},
                                           {"'", "s"},
                                           {"\xc4\x8a", "\xc4\x8a"}};
    static const char *const special[] = {"<|end|>", "<|start|>", "<|im"};
    const int n_merges = (int)(sizeof merge / sizeof *merge);
    tiny_pieces *p = calloc(1, sizeof *p);
    char line[sizeof merge / sizeof *merge][24], letter[2];
    const char *lines[sizeof merge / sizeof *merge];
    for (int byte = 0; byte < 256; byte++) {
        tiny_add(p, letter, tiny_letter(byte, letter), 1);
    }
    for (int i = 0; i < n_merges; i++) {
        snprintf(line[i], sizeof line[i], "%s%s", merge[i][0], merge[i][1]);
        tiny_add_text(p, line[i], 1);
        snprintf(line[i], sizeof line[i], "%s %s", merge[i][0], merge[i][1]);
        lines[i] = line[i];
    }
    for (int i = 0; i < 3; i++) {
        tiny_add_text(p, special[i], i == 2 ? 4 : 3);
    }
    gb_string(b, "tokenizer.ggml.model", "gpt2");
    gb_string(b, "tokenizer.ggml.pre", pre);
    tiny_arrays(b, p);
    gb_strings(b, "tokenizer.ggml.merges", lines, (uint64_t)n_merges);
    gb_u32(b, "tokenizer.ggml.eos_token_id", (uint32_t)p->n - 3);
    gb_u32(b, "tokenizer.ggml.bos_token_id", (uint32_t)p->n - 2);
    int n = p->n;
    free(p);
    return n;
}

/* <unk>, two controls, 256 byte tokens, pieces, a user-defined and an unused one. */
static inline int tiny_spm(gguf_builder *b, bool space_prefix) {
    static const char *const piece[] = {"\xe2\x96\x81",
                                        "\xe2\x96\x81t",
                                        "he",
                                        "\xe2\x96\x81the",
                                        "in",
                                        "ing",
                                        "er",
                                        "a",
                                        "aa",
                                        "aaaa",
                                        "t",
                                        "h",
                                        "e",
                                        "i",
                                        "n",
                                        "g",
                                        "r",
                                        "\xc3\xa9",
                                        "\xe6\x97\xa5",
                                        "\xe6\x97\xa5\xe6\x9c\xac",
                                        "1",
                                        "12",
                                        "\xe2\x96\x81\xe2\x96\x81",
                                        "\n",
                                        "2",
                                        "st",
                                        "s"};
    tiny_pieces *p = calloc(1, sizeof *p);
    char name[8];
    tiny_add_text(p, "<unk>", 2);
    tiny_add_text(p, "<s>", 3);
    tiny_add_text(p, "</s>", 3);
    for (int byte = 0; byte < 256; byte++) {
        snprintf(name, sizeof name, "<0x%02X>", byte);
        tiny_add_text(p, name, 6);
    }
    for (size_t i = 0; i < sizeof piece / sizeof *piece; i++) {
        tiny_add_text(p, piece[i], 1);
    }
    tiny_add_text(p, "<|user|>", 4);
    tiny_add_text(p, "hein", 5);
    gb_string(b, "tokenizer.ggml.model", "llama");
    tiny_arrays(b, p);
    gb_array(b, "tokenizer.ggml.scores", FVI_GGUF_F32, p->score, (uint64_t)p->n);
    gb_u32(b, "tokenizer.ggml.bos_token_id", 1);
    gb_u32(b, "tokenizer.ggml.eos_token_id", 2);
    gb_bool(b, "tokenizer.ggml.add_space_prefix", space_prefix);
    int n = p->n;
    free(p);
    return n;
}

/* Byte-level again, with all words of up to five of a and b as tokens, and every way to cut one in two as a merge, in no order
 * that training would give: what merges when is as tangled as it can be. */
static inline void tiny_tangle(gguf_builder *b) {
    enum { LONGEST = 5, MOST = 256 };
    tiny_pieces *p = calloc(1, sizeof *p);
    char line[MOST][24], word[8], letter[2];
    const char *lines[MOST];
    int n = 0;
    fvi_rng rng = {5};
    for (int byte = 0; byte < 256; byte++) {
        tiny_add(p, letter, tiny_letter(byte, letter), 1);
    }
    for (int size = 2; size <= LONGEST; size++) {
        for (int bits = 0; bits < 1 << size; bits++) {
            for (int i = 0; i < size; i++) {
                word[i] = (char)('a' + (bits >> i & 1));
            }
            tiny_add(p, word, (size_t)size, 1);
            for (int cut = 1; cut < size; cut++) {
                snprintf(line[n], sizeof line[n], "%.*s %.*s", cut, word, size - cut, word + cut);
                lines[n] = line[n];
                n++;
            }
        }
    }
    for (int i = n - 1; i > 0; i--) {
        int64_t j = fvi_rng_below(&rng, i + 1);
        const char *other = lines[i];
        lines[i] = lines[j];
        lines[j] = other;
    }
    gb_string(b, "tokenizer.ggml.model", "gpt2");
    gb_strings(b, "tokenizer.ggml.tokens", p->piece, (uint64_t)p->n);
    gb_strings(b, "tokenizer.ggml.merges", lines, (uint64_t)n);
    free(p);
}

enum { TINY_KINDS = 6 };

/* The vocabularies by number, as a file. free() it. */
static inline uint8_t *tiny_vocab(int kind, size_t *size) {
    static const char *const pre[] = {"gpt-2", "smollm", "qwen2"};
    gguf_builder b = gb_begin();
    if (kind < 3) {
        tiny_bpe(&b, pre[kind]);
    } else if (kind < 5) {
        tiny_spm(&b, kind == 3);
    } else {
        tiny_tangle(&b);
    }
    uint8_t *image = gb_image(&b, size);
    gb_end(&b);
    return image;
}

/* Six tokens, so that a model's head is short. */
static inline int tiny_handful(gguf_builder *b) {
    static const char *const piece[] = {"<unk>", "<s>", "</s>", "a", "b", "ab"};
    static const int32_t type[] = {2, 3, 3, 1, 1, 1};
    static const float score[] = {0, 0, 0, -1, -2, -3};
    gb_string(b, "tokenizer.ggml.model", "llama");
    gb_strings(b, "tokenizer.ggml.tokens", piece, 6);
    gb_array(b, "tokenizer.ggml.token_type", FVI_GGUF_I32, type, 6);
    gb_array(b, "tokenizer.ggml.scores", FVI_GGUF_F32, score, 6);
    gb_u32(b, "tokenizer.ggml.bos_token_id", 1);
    return 6;
}

/* What a model may have beyond the plain ones, and what it must not have. */
typedef enum tiny_twist {
    TINY_PLAIN = 0,
    TINY_EXTRAS, /* chat template, rope scaling, rope factors, a head of its own */
    TINY_HEADS_APART,
    TINY_EXPERTS,
    TINY_SCALED,
    TINY_STRANGER, /* a tensor that nobody asked for */
    TINY_ODD_TYPES,
    TINY_NO_ROPE,
    TINY_ENDLESS,
    TINY_ZERO_BYTE, /* within its name */
    TINY_TWISTS
} tiny_twist;

static inline void tiny_metadata(gguf_builder *b, tiny_twist twist, int n_vocab) {
    gb_u32(b, "llama.block_count", twist == TINY_ENDLESS ? 1000000 : 2);
    gb_u32(b, "llama.context_length", 512);
    gb_u32(b, "llama.embedding_length", 64);
    gb_u32(b, "llama.feed_forward_length", 128);
    gb_u32(b, "llama.attention.head_count", 4);
    gb_u32(b, "llama.attention.head_count_kv", twist == TINY_HEADS_APART ? 3 : 2);
    gb_u32(b, "llama.rope.dimension_count", twist == TINY_NO_ROPE ? 7 : 16);
    gb_u32(b, "llama.vocab_size", (uint32_t)n_vocab);
    gb_f32(b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gb_f32(b, "llama.rope.freq_base", 10000);
    if (twist == TINY_EXTRAS) {
        gb_string(b, "general.name", "tiny");
        gb_string(b, "general.license", "mit");
        gb_string(b, "llama.rope.scaling.type", "linear");
        gb_f32(b, "llama.rope.scaling.factor", 2);
        gb_string(b, "tokenizer.chat_template", "{{ '<|im_start|>system\\nYou are small.<|im_end|>' }}<|im_start|>user");
    }
    if (twist == TINY_ZERO_BYTE) {
        gb_key(b, "general.name", FVI_GGUF_STRING);
        gb_put_string(&b->metadata, "ti\0ny", 5);
    }
    if (twist == TINY_EXPERTS) {
        gb_u32(b, "llama.expert_count", 4);
    }
    if (twist == TINY_SCALED) {
        gb_string(b, "llama.rope.scaling.type", "yarn");
    }
}

static inline void tiny_layer(gguf_builder *b, int layer, tiny_twist twist, fvi_rng *rng) {
    static const struct {
        const char *name;
        int64_t n_in, n_out;
        fv_dtype dtype;
    } matrix[] = {{"attn_q", 64, 64, FV_Q8_0},      {"attn_k", 64, 32, FV_Q4_0},    {"attn_v", 64, 32, FV_F16},
                  {"attn_output", 64, 64, FV_BF16}, {"ffn_gate", 64, 128, FV_Q4_1}, {"ffn_up", 64, 128, FV_Q8_0},
                  {"ffn_down", 128, 64, FV_F32}};
    char name[48];
    snprintf(name, sizeof name, "blk.%d.attn_norm.weight", layer);
    gb_random_mean(b, name, twist == TINY_ODD_TYPES ? FV_Q8_0 : FV_F32, 1, (int64_t[]){64}, 1, 0.1, rng);
    snprintf(name, sizeof name, "blk.%d.ffn_norm.weight", layer);
    gb_random_mean(b, name, FV_F32, 1, (int64_t[]){64}, 1, 0.1, rng);
    for (size_t i = 0; i < sizeof matrix / sizeof *matrix; i++) {
        snprintf(name, sizeof name, "blk.%d.%s.weight", layer, matrix[i].name);
        gb_random(b, name, matrix[i].dtype, 2, (int64_t[]){matrix[i].n_in, matrix[i].n_out}, 0.1, rng);
    }
}

/* A llama of two layers with random weights: d_model 64, 4 query heads over 2 of 16, trained length 512. Small weights (norms,
 * rope factors) stand first; *head gets the bytes before the others, if it is not NULL. */
static inline uint8_t *tiny_model(tiny_twist twist, bool small_vocab, size_t *size, size_t *head) {
    static const float factor[8] = {1, 1, 1, 1, 2, 2, 4, 8};
    fvi_rng rng = {11};
    gguf_builder b = gb_begin();
    gb_string(&b, "general.architecture", "llama");
    int n_vocab = small_vocab ? tiny_handful(&b) : tiny_bpe(&b, "smollm");
    tiny_metadata(&b, twist, n_vocab);
    if (twist == TINY_EXTRAS) {
        gb_tensor(&b, "rope_freqs.weight", FV_F32, 1, (int64_t[]){8}, factor);
    }
    gb_random_mean(&b, "output_norm.weight", FV_F32, 1, (int64_t[]){64}, 1, 0.1, &rng);
    const size_t small = b.body.n;
    gb_random(&b, "token_embd.weight", FV_Q8_0, 2, (int64_t[]){64, n_vocab}, 1, &rng);
    if (twist == TINY_EXTRAS) {
        gb_random(&b, "output.weight", FV_F16, 2, (int64_t[]){64, n_vocab}, 1, &rng);
    }
    if (twist == TINY_STRANGER) {
        gb_random(&b, "blk.0.attn_q.bias", FV_F32, 1, (int64_t[]){64}, 1, &rng);
    }
    tiny_layer(&b, 0, twist, &rng);
    tiny_layer(&b, 1, twist, &rng);
    uint8_t *image = gb_image(&b, size);
    if (head != NULL) {
        *head = *size - b.body.n + small;
    }
    gb_end(&b);
    return image;
}

#endif
