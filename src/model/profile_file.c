/* profile_file.c - profiles in files: JSON. */
#include "fovea/model.h"
#include "model/arch.h"

#include <cJSON.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 1, MOST_BYTES = 256 << 20 };

/* ---- reading ---- */

static fv_status wrong(fv_context *ctx, const char *path, const char *field, const char *right) {
    return fvi_fail(ctx, FV_ERR_FORMAT, "%s: %s: %s", path, field, right);
}

/* The file as text; release text_bytes + 1. */
static fv_status read_text(fv_context *ctx, const char *path, char **out, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        return fvi_fail(ctx, FV_ERR_IO, "%s: %s", path, strerror(errno));
    }
    long end = fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    fv_status status = FV_OK;
    if (end < 0 || end > MOST_BYTES || fseek(f, 0, SEEK_SET) != 0) {
        status = fvi_fail(ctx, FV_ERR_FORMAT, "%s is no profile: it is no file of up to 256 MB", path);
    }
    if (status == FV_OK) {
        *size = (size_t)end;
        *out = fvi_alloc(ctx, *size + 1, 1);
        status = *out == NULL ? fvi_fail(ctx, FV_ERR_MEMORY, "no memory for %s (%ld bytes)", path, end) : FV_OK;
    }
    if (status == FV_OK && fread(*out, 1, *size, f) != *size) {
        fvi_release(ctx, *out, *size + 1, 1);
        status = fvi_fail(ctx, FV_ERR_IO, "%s: could not be read", path);
    }
    fclose(f);
    return status;
}

static bool whole(const cJSON *item, double least, double most) {
    return cJSON_IsNumber(item) && item->valuedouble >= least && item->valuedouble <= most &&
           item->valuedouble == (double)(int64_t)item->valuedouble;
}

static fv_status set_head(fv_context *ctx, fv_profile *p, const char *path, int layer, int64_t head, const cJSON *list) {
    const int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : -1;
    if (n <= 0) {
        return n == 0 ? FV_OK : wrong(ctx, path, "numbers", "must hold a list of numbers for each head of each layer");
    }
    double *number = fvi_alloc(ctx, (size_t)n, sizeof *number);
    if (number == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for %d numbers of a profile", n);
    }
    int i = 0;
    fv_status status = FV_OK;
    for (const cJSON *x = list->child; x != NULL && status == FV_OK; x = x->next) {
        number[i++] = cJSON_IsNumber(x) ? x->valuedouble : 0;
        status = cJSON_IsNumber(x) ? FV_OK : wrong(ctx, path, "numbers", "holds something that is not a number");
    }
    if (status == FV_OK) {
        status = fv_profile_set(p, layer, head, number, n);
    }
    fvi_release(ctx, number, (size_t)n, sizeof *number);
    return status;
}

static fv_status set_all(fv_context *ctx, fv_profile *p, const char *path, const cJSON *layers) {
    if (!cJSON_IsArray(layers) || cJSON_GetArraySize(layers) != fv_profile_layers(p)) {
        return wrong(ctx, path, "numbers", "must be a list with an entry for each layer");
    }
    fv_status status = FV_OK;
    int layer = 0;
    for (const cJSON *l = layers->child; l != NULL && status == FV_OK; l = l->next, layer++) {
        if (!cJSON_IsArray(l) || cJSON_GetArraySize(l) != fv_profile_heads(p)) {
            return wrong(ctx, path, "numbers", "must hold, for each layer, a list with an entry for each head");
        }
        int64_t head = 0;
        for (const cJSON *h = l->child; h != NULL && status == FV_OK; h = h->next) {
            status = set_head(ctx, p, path, layer, head++, h);
        }
    }
    return status;
}

static fv_status read_fingerprint(fv_context *ctx, fv_profile *p, const char *path, const cJSON *model) {
    const char *text = cJSON_GetStringValue(model);
    char *end = NULL;
    if (text == NULL || (text[0] != '\0' && strlen(text) != 16)) {
        return wrong(ctx, path, "model", "must be 16 hexadecimal digits, or empty");
    }
    if (text[0] != '\0') {
        fv_profile_set_model(p, strtoull(text, &end, 16));
        return *end == '\0' ? FV_OK : wrong(ctx, path, "model", "must be 16 hexadecimal digits, or empty");
    }
    return FV_OK;
}

static fv_status from_json(fv_context *ctx, const char *path, const cJSON *json, fv_profile **out) {
    const cJSON *version = cJSON_GetObjectItemCaseSensitive(json, "fovea_profile");
    const cJSON *layers = cJSON_GetObjectItemCaseSensitive(json, "layers");
    const cJSON *heads = cJSON_GetObjectItemCaseSensitive(json, "heads");
    const char *method = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "method"));
    if (!whole(version, 1, 1e9) || version->valuedouble != VERSION) {
        return wrong(ctx, path, "fovea_profile", "the version must be 1");
    }
    if (method == NULL || !whole(layers, 1, 1 << 16) || !whole(heads, 1, 1 << 16)) {
        return wrong(ctx, path, "method, layers, heads", "must be a name and two numbers from 1 to 65536");
    }
    /* the lists must be there before memory is taken on their word */
    const cJSON *numbers = cJSON_GetObjectItemCaseSensitive(json, "numbers");
    if (!cJSON_IsArray(numbers) || cJSON_GetArraySize(numbers) != (int)layers->valuedouble ||
        cJSON_GetArraySize(numbers->child) != (int)heads->valuedouble) {
        return wrong(ctx, path, "numbers", "must be a list with an entry for each layer, of a list with one for each head");
    }
    fv_status status = fv_profile_create(ctx, method, (int)layers->valuedouble, (int64_t)heads->valuedouble, out);
    if (status == FV_OK) {
        status = read_fingerprint(ctx, *out, path, cJSON_GetObjectItemCaseSensitive(json, "model"));
    }
    return status == FV_OK ? set_all(ctx, *out, path, numbers) : status;
}

fv_status fv_profile_read(fv_context *ctx, const char *path, fv_profile **out) {
    *out = NULL;
    char *text = NULL;
    size_t size = 0;
    fv_status status = read_text(ctx, path, &text, &size);
    if (status != FV_OK) {
        return status;
    }
    const char *at = NULL;
    text[size] = '\0';
    cJSON *json = cJSON_ParseWithLengthOpts(text, size + 1, &at, 1);
    if (json == NULL) {
        status = fvi_fail(ctx, FV_ERR_FORMAT, "%s: no JSON from byte %td on", path, at != NULL ? at - text : (ptrdiff_t)0);
    } else {
        status = from_json(ctx, path, json, out);
    }
    cJSON_Delete(json);
    fvi_release(ctx, text, size + 1, 1);
    if (status != FV_OK) {
        fv_profile_destroy(*out);
        *out = NULL;
    }
    return status;
}

/* ---- writing ---- */

static void put_head(FILE *f, const fv_profile *p, int layer, int64_t head) {
    int64_t n = 0;
    const double *number = fv_profile_get(p, layer, head, &n);
    fprintf(f, "%s[", head > 0 ? ", " : "");
    for (int64_t i = 0; i < n; i++) {
        fprintf(f, "%s%.17g", i > 0 ? ", " : "", number[i]);
    }
    fputs("]", f);
}

static void put_profile(FILE *f, const fv_profile *p) {
    fprintf(f, "{\"fovea_profile\": %d, \"method\": \"%s\", \"model\": \"", VERSION, fv_profile_method(p));
    if (fv_profile_model(p) != 0) {
        fprintf(f, "%016" PRIx64, fv_profile_model(p));
    }
    fprintf(f, "\", \"layers\": %d, \"heads\": %lld,\n \"numbers\": [\n", fv_profile_layers(p), (long long)fv_profile_heads(p));
    for (int layer = 0; layer < fv_profile_layers(p); layer++) {
        fputs("  [", f);
        for (int64_t head = 0; head < fv_profile_heads(p); head++) {
            put_head(f, p, layer, head);
        }
        fprintf(f, "]%s\n", layer + 1 < fv_profile_layers(p) ? "," : "");
    }
    fputs(" ]}\n", f);
}

fv_status fv_profile_write(fv_context *ctx, const fv_profile *profile, const char *path) {
    FILE *f = fopen(path, "wb");
    if (f == NULL) {
        return fvi_fail(ctx, FV_ERR_IO, "%s: %s", path, strerror(errno));
    }
    put_profile(f, profile);
    const bool failed = ferror(f) != 0;
    if (fclose(f) != 0 || failed) {
        return fvi_fail(ctx, FV_ERR_IO, "%s: could not be written whole: %s", path, strerror(errno));
    }
    return FV_OK;
}

/* ---- recipes ---- */

fv_status fv_recipe_load(fv_context *ctx, const char *text, fv_recipe **out) {
    fv_status status = fv_recipe_parse(ctx, text, out);
    for (int phase = FV_PREFILL; phase <= FV_DECODE && status == FV_OK; phase++) {
        const char *path = fv_recipe_profile_path(*out, (fv_phase)phase);
        fv_profile *profile = NULL;
        if (path != NULL) {
            status = fv_profile_read(ctx, path, &profile);
            if (status == FV_OK) {
                status = fv_recipe_attach(*out, (fv_phase)phase, profile);
            }
            if (status != FV_OK) {
                fv_profile_destroy(profile);
            }
        }
    }
    if (status != FV_OK) {
        fv_recipe_destroy(*out);
        *out = NULL;
    }
    return status;
}
