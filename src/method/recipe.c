/* recipe.c - the recipe parser: text to function tables and numbers.
 *
 *   recipe = item { "," item }      item = [ axis "=" ] choice | "kv=" [ format "/" ] format
 *   choice = method [ "@" path ] { ":" parameter "=" number } | wrapper "(" choice ")" { ":" parameter "=" number }
 *   format = type [ ":rotate=" ( "0" | "1" ) ]
 */
#include "attend/recipe.h"
#include "method/method.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is being parsed, for messages. */
typedef struct parser {
    fv_context *ctx;
    fv_recipe *recipe;
    const char *text;
    bool axis_set[3]; /* prefill, decode, kv */
} parser;

typedef struct piece {
    const char *s;
    size_t n;
} piece;

static bool is(piece p, const char *word) { return p.n == strlen(word) && memcmp(p.s, word, p.n) == 0; }

/* Cuts off what stands before the first `mark` that is in no brackets (all of it if there is none) and moves *rest past it. */
static piece cut(piece *rest, char mark) {
    size_t n = 0;
    for (int depth = 0; n < rest->n && (depth > 0 || rest->s[n] != mark); n++) {
        depth += (rest->s[n] == '(') - (rest->s[n] == ')');
    }
    piece head = {rest->s, n};
    size_t used = n + (n < rest->n);
    *rest = (piece){rest->s + used, rest->n - used};
    return head;
}

/* A method as it was read. */
typedef struct named {
    const fvi_method_row *row, *wrapper; /* wrapper: what stands around it, or NULL */
    fvi_choice choice;
    piece path; /* of its profile */
} named;

static fv_status parse_choice(const parser *p, piece value, named *out);

static fv_status fail(const parser *p, piece at, const char *what) {
    return fvi_fail(p->ctx, FV_ERR_ARGUMENT, "recipe '%s', column %d: '%.*s': %s", p->text, (int)(at.s - p->text) + 1, (int)at.n,
                    at.s, what);
}

static fv_status parse_format(const parser *p, piece at, fv_dtype *out, bool *rotate) {
    piece rest = at, type = cut(&rest, ':'), parameter = rest, name = cut(&rest, '=');
    int t = FV_F32;
    while (t <= FV_Q4_0 && !is(type, fv_dtype_name((fv_dtype)t))) {
        t++;
    }
    if (t > FV_Q4_0) {
        return fail(p, type, "not a format of the cache; there are f32, f16, bf16, q8_0 and q4_0");
    }
    if (type.n < at.n && (!is(name, "rotate") || (!is(rest, "0") && !is(rest, "1")))) {
        return fail(p, parameter, "a format's one parameter is rotate, 0 or 1 (rows are rotated before they are rounded)");
    }
    *out = (fv_dtype)t;
    *rotate = is(rest, "1");
    return FV_OK;
}

static fv_status parse_kv(parser *p, piece value) {
    piece rest = value, k = cut(&rest, '/');
    fv_recipe *r = p->recipe;
    fv_status status = parse_format(p, k, &r->k_dtype, &r->rotate_k);
    if (status == FV_OK) {
        status = parse_format(p, k.n < value.n ? rest : k, &r->v_dtype, &r->rotate_v);
    }
    p->recipe->kv_set = true;
    return status;
}

static fv_status parse_number(const parser *p, const fv_method_parameter *parameter, piece at, double *out) {
    char buffer[64];
    char *end = buffer;
    if (at.n > 0 && at.n < sizeof buffer) {
        memcpy(buffer, at.s, at.n);
        buffer[at.n] = '\0';
        *out = strtod(buffer, &end);
    }
    if (end == buffer || *end != '\0' || !(*out >= parameter->least && *out <= parameter->most)) {
        char what[160];
        snprintf(what, sizeof what, "%s takes a number from %g to %g (%s)", parameter->name, parameter->least, parameter->most,
                 parameter->help);
        return fail(p, at, what);
    }
    return FV_OK;
}

/* Whether the method has lengths below which it runs dense. */
static bool falls_back(const fvi_method_row *row) { return row->selector != NULL && row->selector->rule == NULL; }

static fv_status parse_fallback(const parser *p, piece at, fvi_choice *choice) {
    if (!is(at, "0") && !is(at, "1")) {
        return fail(p, at, "fallback is 0 (never) or 1 (dense where the method does not pay yet)");
    }
    choice->break_even = is(at, "1") ? choice->break_even : 0;
    return FV_OK;
}

static fv_status parse_parameters(const parser *p, const fvi_method_row *row, piece rest, fvi_choice *choice) {
    double *value = choice->value;
    for (int i = 0; i < row->info.n_parameters; i++) {
        value[i] = row->info.parameters[i].value;
    }
    while (rest.n > 0) {
        piece assignment = cut(&rest, ':'), whole = assignment, name = cut(&assignment, '=');
        int i = 0;
        while (i < row->info.n_parameters && !is(name, row->info.parameters[i].name)) {
            i++;
        }
        if (i == row->info.n_parameters && falls_back(row) && is(name, "fallback")) {
            fv_status status = parse_fallback(p, assignment, choice);
            if (status != FV_OK) {
                return status;
            }
            continue;
        }
        if (i == row->info.n_parameters) {
            char what[200];
            int used = snprintf(what, sizeof what, "%s has no such parameter;", row->info.name);
            for (int k = 0; k < row->info.n_parameters && used < (int)sizeof what; k++) {
                used += snprintf(what + used, sizeof what - (size_t)used, " %s", row->info.parameters[k].name);
            }
            return fail(p, whole, row->info.n_parameters > 0 ? what : "the method has no parameters");
        }
        fv_status status = parse_number(p, &row->info.parameters[i], assignment, &value[i]);
        if (status != FV_OK) {
            return status;
        }
    }
    return FV_OK;
}

/* name "(" method ")": the inner method's choice, corrected every so many rows. Its only kind today is delta. */
static fv_status parse_wrapped(const parser *p, piece value, piece name, piece inner, piece rest, named *out) {
    const fvi_method_row *wrapper = fvi_method_row_find(name.s, name.n);
    if (wrapper == NULL || !wrapper->wraps) {
        return fail(p, name, wrapper == NULL ? "no such method; `fovea methods` lists them" : "takes no method in brackets");
    }
    if (inner.n == 0 || inner.s[inner.n - 1] != ')') {
        return fail(p, value, "the bracket is not closed");
    }
    inner.n--;
    fv_status status = parse_choice(p, inner, out);
    if (status == FV_OK && out->wrapper != NULL) {
        return fail(p, value, "one correction is enough");
    }
    fvi_choice correction = {0};
    if (status == FV_OK) {
        status = parse_parameters(p, wrapper, rest, &correction);
        out->wrapper = wrapper;
        out->choice.delta = (int64_t)correction.value[0];
    }
    return status;
}

/* A method, its profile and its parameters. */
static fv_status parse_choice(const parser *p, piece value, named *out) {
    piece rest = value, head = cut(&rest, ':');
    const char *bracket = memchr(head.s, '(', head.n);
    if (bracket != NULL) {
        piece name = {head.s, (size_t)(bracket - head.s)}, inner = {bracket + 1, head.n - name.n - 1};
        return parse_wrapped(p, value, name, inner, rest, out);
    }
    piece path = head, name = cut(&path, '@');
    const fvi_method_row *row = fvi_method_row_find(name.s, name.n);
    if (row == NULL) {
        return fail(p, name, "no such method; `fovea methods` lists them");
    }
    if (row->info.not_a_choice != NULL) {
        return fail(p, name, row->info.not_a_choice);
    }
    if (row->wraps) {
        return fail(p, name, "stands around another method: give that in brackets");
    }
    if (path.n > 0 && !row->profile) {
        return fail(p, path, "the method takes no profile");
    }
    *out = (named){.row = row, .choice = {.selector = row->selector, .break_even = row->break_even}, .path = path};
    return parse_parameters(p, row, rest, &out->choice);
}

/* axes 0: all that the method works on. */
static fv_status parse_method(parser *p, piece value, unsigned axes) {
    named m = {0};
    fv_status status = parse_choice(p, value, &m);
    if (status != FV_OK) {
        return status;
    }
    unsigned works = m.row->info.axes & (m.wrapper != NULL ? m.wrapper->info.axes : ~0u);
    axes = axes != 0 ? axes : works & (FV_AXIS_PREFILL | FV_AXIS_DECODE);
    if (axes == 0 || (works & axes) != axes) {
        return fail(p, value, "the method does not work on that axis");
    }
    for (int phase = 0; phase < 2; phase++) {
        if (axes & 1u << phase) {
            if (p->axis_set[phase]) {
                return fail(p, value, "a second method for the same axis");
            }
            p->axis_set[phase] = true;
            p->recipe->choice[phase] = m.choice;
            p->recipe->row[phase] = m.row;
            p->recipe->method[phase] = m.row->info.name;
            p->recipe->wrapper[phase] = m.wrapper;
            snprintf(p->recipe->profile_path[phase], sizeof p->recipe->profile_path[phase], "%.*s", (int)m.path.n, m.path.s);
            p->recipe->masks_only |= m.row->masks_only;
        }
    }
    return FV_OK;
}

static fv_status parse_item(parser *p, piece item) {
    piece rest = item;
    const char *equal = memchr(item.s, '=', item.n), *colon = memchr(item.s, ':', item.n);
    if (equal == NULL || (colon != NULL && colon < equal)) {
        return parse_method(p, item, 0);
    }
    piece axis = cut(&rest, '=');
    if (is(axis, "prefill")) {
        return parse_method(p, rest, FV_AXIS_PREFILL);
    }
    if (is(axis, "decode")) {
        return parse_method(p, rest, FV_AXIS_DECODE);
    }
    if (is(axis, "kv") && !p->axis_set[2]) {
        p->axis_set[2] = true;
        return parse_kv(p, rest);
    }
    return fail(p, axis, is(axis, "kv") ? "a second format" : "no such axis; there are prefill, decode and kv");
}

static size_t write_method(const fv_recipe *r, int phase, char *text, size_t size) {
    const fvi_method_row *row = r->row[phase], *wrapper = r->wrapper[phase];
    const fvi_choice *choice = &r->choice[phase];
    size_t used = 0;
    if (wrapper != NULL) {
        used += (size_t)snprintf(text, size, "%s(", wrapper->info.name);
    }
    used += (size_t)snprintf(text + used, size - used, "%s%s%s", row->info.name, r->profile_path[phase][0] != '\0' ? "@" : "",
                             r->profile_path[phase]);
    for (int i = 0; i < row->info.n_parameters && used < size; i++) {
        used += (size_t)snprintf(text + used, size - used, ":%s=%.9g", row->info.parameters[i].name, choice->value[i]);
    }
    if (falls_back(row) && used < size) {
        used += (size_t)snprintf(text + used, size - used, ":fallback=%d", choice->break_even > 0);
    }
    if (wrapper != NULL && used < size) {
        used +=
            (size_t)snprintf(text + used, size - used, "):%s=%lld", wrapper->info.parameters[0].name, (long long)choice->delta);
    }
    return used;
}

static void write_normal_form(fv_recipe *r) {
    static const char *const axis[2] = {"prefill", "decode"};
    size_t used = 0, size = sizeof r->text;
    for (int phase = 0; phase < 2; phase++) {
        if (phase == FV_DECODE && r->row[FV_PREFILL]->step != NULL) { /* it follows */
            continue;
        }
        used += (size_t)snprintf(r->text + used, size - used, "%s%s=", phase > 0 ? "," : "", axis[phase]);
        used += write_method(r, phase, r->text + used, size - used);
    }
    static const char *const rotated[2] = {"", ":rotate=1"};
    if (r->kv_set && r->k_dtype == r->v_dtype && r->rotate_k == r->rotate_v) {
        snprintf(r->text + used, size - used, ",kv=%s%s", fv_dtype_name(r->k_dtype), rotated[r->rotate_k]);
    } else if (r->kv_set) {
        snprintf(r->text + used, size - used, ",kv=%s%s/%s%s", fv_dtype_name(r->k_dtype), rotated[r->rotate_k],
                 fv_dtype_name(r->v_dtype), rotated[r->rotate_v]);
    }
}

/* Where positions are the prompt's method's, generated tokens have to find keys at the same ones. */
static fv_status let_steps_follow(const parser *p) {
    fv_recipe *r = p->recipe;
    const fvi_method_row *row = r->row[FV_PREFILL];
    if (row->step == NULL) {
        return FV_OK;
    }
    if (p->axis_set[FV_DECODE]) {
        return fvi_fail(
            p->ctx, FV_ERR_ARGUMENT,
            "recipe '%s': %s gives keys positions of its own, which generated tokens have to follow: leave decode out", p->text,
            row->info.name);
    }
    r->choice[FV_DECODE] = r->choice[FV_PREFILL];
    r->choice[FV_DECODE].selector = row->step;
    r->choice[FV_DECODE].break_even = 0;
    r->choice[FV_DECODE].delta = 0;
    r->row[FV_DECODE] = row;
    r->method[FV_DECODE] = row->info.name;
    return FV_OK;
}

fv_status fv_recipe_parse(fv_context *ctx, const char *text, fv_recipe **out) {
    *out = NULL;
    if (strlen(text) > 256) {
        return fvi_fail(ctx, FV_ERR_ARGUMENT, "a recipe has at most 256 characters, this one %zu", strlen(text));
    }
    fv_recipe *r = fvi_zalloc(ctx, 1, sizeof *r);
    if (r == NULL) {
        return fvi_fail(ctx, FV_ERR_MEMORY, "no memory for a recipe");
    }
    const fvi_method_row *dense = fvi_method_row_find("dense", strlen("dense"));
    *r = (fv_recipe){.ctx = ctx,
                     .choice = {{.selector = dense->selector}, {.selector = dense->selector}},
                     .row = {dense, dense},
                     .method = {dense->info.name, dense->info.name}};
    parser p = {.ctx = ctx, .recipe = r, .text = text};
    fv_status status = FV_OK;
    for (piece rest = {text, strlen(text)}; rest.n > 0 && status == FV_OK;) {
        status = parse_item(&p, cut(&rest, ','));
    }
    if (status == FV_OK) {
        status = let_steps_follow(&p);
    }
    if (status != FV_OK) {
        fv_recipe_destroy(r);
        return status;
    }
    write_normal_form(r);
    *out = r;
    return FV_OK;
}

void fv_recipe_destroy(fv_recipe *recipe) {
    if (recipe != NULL) {
        fv_profile_destroy(recipe->profile[FV_PREFILL]);
        fv_profile_destroy(recipe->profile[FV_DECODE]);
        fvi_release(recipe->ctx, recipe, 1, sizeof *recipe);
    }
}

const char *fv_recipe_text(const fv_recipe *recipe) { return recipe->text; }

bool fv_recipe_kv(const fv_recipe *recipe, fv_cache_desc *desc) {
    if (recipe->kv_set) {
        desc->k_dtype = recipe->k_dtype;
        desc->v_dtype = recipe->v_dtype;
        desc->rotate_k = recipe->rotate_k;
        desc->rotate_v = recipe->rotate_v;
    }
    return recipe->kv_set;
}

int64_t fv_recipe_grain(const fv_recipe *recipe) {
    const fvi_selector *s = recipe->choice[FV_PREFILL].selector;
    /* a prepass looks at all keys: it is done once for the whole prompt, not once a chunk */
    const bool whole = recipe->choice[FV_PREFILL].delta > 0 || s->scope == FVI_SCOPE_PROMPT || s->prepare != NULL;
    return s->rule != NULL && !whole ? 1 : whole ? INT64_MAX : s->query_block;
}

const char *fv_recipe_arrays_only(const fv_recipe *recipe) {
    const char *reason = NULL;
    for (int phase = 0; phase < 2 && reason == NULL; phase++) {
        const fvi_method_row *row = recipe->row[phase];
        reason = row->arrays_only == NULL ? NULL : row->arrays_only(recipe->choice[phase].value);
    }
    return reason;
}

bool fv_recipe_masks_only(const fv_recipe *recipe) { return recipe->masks_only; }
