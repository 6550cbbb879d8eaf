/* attend_recipe.c - what --shape and --steps say, written into the recipe's prompt method. */
#include "attend.h"

#include "common.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The part of a recipe that names the method for prompts: after "prefill=", or a bare method. */
typedef struct method_part {
    const char *at;
    size_t n;    /* to the next comma or the end */
    size_t name; /* of those, the method's name */
} method_part;

static bool find_method(const char *recipe, method_part *out) {
    for (const char *item = recipe; *item; item += strcspn(item, ",") + (item[strcspn(item, ",")] == ',')) {
        size_t n = strcspn(item, ",");
        bool prefill = strncmp(item, "prefill=", 8) == 0;
        const char *equal = memchr(item, '=', n), *colon = memchr(item, ':', n);
        if (prefill || equal == NULL || (colon != NULL && colon < equal)) {
            const char *at = item + (prefill ? 8 : 0);
            *out = (method_part){at, n - (size_t)(at - item), strcspn(at, ":,")};
            return true;
        }
    }
    return false;
}

static bool has_parameter(const method_part *part, const char *name) {
    char method[64];
    snprintf(method, sizeof method, "%.*s", (int)part->name, part->at);
    const fv_method *m = fv_method_find(method);
    for (int i = 0; m != NULL && i < m->n_parameters; i++) {
        if (strcmp(m->parameters[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Up to three lengths, "DxHxW", into text as parameters, last first. */
static int shape_text(const char *shape, const method_part *part, char *out, size_t size) {
    static const char *const name[] = {"width", "height", "depth"};
    int64_t length[3];
    int n = 0;
    const char *at = shape;
    for (char *end = NULL; n < 3; at = end + 1) {
        length[n++] = strtoll(at, &end, 10);
        if (end == at || length[n - 1] < 1 || (*end != 'x' && *end != '\0')) {
            return terminal_error(EXIT_USAGE, "--shape %s: must be W, HxW or DxHxW, lengths of at least 1", shape);
        }
        if (*end == '\0') {
            at = end;
            break;
        }
    }
    if (*at != '\0') {
        return terminal_error(EXIT_USAGE, "--shape %s: has more than three lengths", shape);
    }
    size_t used = 0;
    for (int k = 0; k < n; k++) {
        if (!has_parameter(part, name[k])) {
            return terminal_error(EXIT_USAGE, "--shape %s: %.*s has no %s; gna and faster-na take three lengths, halonet two",
                                  shape, (int)part->name, part->at, name[k]);
        }
        used += (size_t)snprintf(out + used, size - used, ":%s=%" PRId64, name[k], length[n - 1 - k]);
    }
    return 0;
}

int attend_recipe(const attend_arguments *a, char out[ATTEND_RECIPE]) {
    char more[128] = "";
    method_part part;
    const char *recipe = a->common.recipe;
    if (a->shape == NULL && a->steps == 0) {
        snprintf(out, ATTEND_RECIPE, "%s", recipe);
        return 0;
    }
    if (!find_method(recipe, &part)) {
        return terminal_error(EXIT_USAGE, "%s needs a method for prompts, as in -a %s", a->shape ? "--shape" : "--steps",
                              a->shape ? "gna:window=7" : "sparsed");
    }
    int code = a->shape ? shape_text(a->shape, &part, more, sizeof more) : 0;
    if (!code && a->steps > 0) {
        if (!has_parameter(&part, "steps")) {
            return terminal_error(EXIT_USAGE, "--steps: %.*s works on one run; sparsed has steps", (int)part.name, part.at);
        }
        snprintf(more + strlen(more), sizeof more - strlen(more), ":steps=%" PRId64, a->steps);
    }
    size_t before = (size_t)(part.at - recipe) + part.n;
    int used = code ? 0 : snprintf(out, ATTEND_RECIPE, "%.*s%s%s", (int)before, recipe, more, recipe + before);
    return used < ATTEND_RECIPE ? code : terminal_error(EXIT_USAGE, "the recipe is too long");
}
