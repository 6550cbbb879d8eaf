/* methods.c - the registry on paper: `fovea methods`. */
#include "common.h"

#include <string.h>

typedef struct bit_name {
    unsigned bit;
    const char *name;
} bit_name;

static const bit_name axis_names[] = {
    {FV_AXIS_PREFILL, "prefill"}, {FV_AXIS_DECODE, "decode"}, {FV_AXIS_HEADS, "heads"}, {FV_AXIS_KV, "kv"}};
static const bit_name has_names[] = {
    {FV_HAS_FORWARD, "forward"}, {FV_HAS_STEP, "step"}, {FV_HAS_BACKWARD, "backward"}, {FV_HAS_GPU, "gpu"}};
enum { N_NAMES = 4 };

/* "prefill,decode"; a tool stands on no axis */
static const char *join(unsigned bits, const bit_name *names, char out[64]) {
    out[0] = 0;
    for (int i = 0; i < N_NAMES; i++) {
        if (bits & names[i].bit) {
            strcat(strcat(out, out[0] ? "," : ""), names[i].name);
        }
    }
    return names == axis_names && bits == 0 ? "tool" : out;
}

static cJSON *bits_json(unsigned bits, const bit_name *names) {
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < N_NAMES; i++) {
        if (bits & names[i].bit) {
            cJSON_AddItemToArray(list, cJSON_CreateString(names[i].name));
        }
    }
    return list;
}

static cJSON *method_json(const fv_method *m) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "name", m->name);
    cJSON_AddStringToObject(object, "title", m->title);
    cJSON_AddStringToObject(object, "paper", m->paper);
    cJSON_AddStringToObject(object, "key", m->key);
    cJSON_AddItemToObject(object, "axes", bits_json(m->axes, axis_names));
    cJSON_AddItemToObject(object, "has", bits_json(m->has, has_names));
    cJSON_AddStringToObject(object, "not_a_choice", m->not_a_choice ? m->not_a_choice : "");
    cJSON *parameters = cJSON_AddArrayToObject(object, "parameters");
    for (int i = 0; i < m->n_parameters; i++) {
        const fv_method_parameter *p = &m->parameters[i];
        cJSON *row = cJSON_CreateObject();
        cJSON_AddStringToObject(row, "name", p->name);
        cJSON_AddStringToObject(row, "help", p->help);
        cJSON_AddNumberToObject(row, "default", p->value);
        cJSON_AddNumberToObject(row, "least", p->least);
        cJSON_AddNumberToObject(row, "most", p->most);
        cJSON_AddItemToArray(parameters, row);
    }
    return object;
}

static int print_all_json(void) {
    cJSON *list = cJSON_CreateArray();
    const fv_method *m;
    for (int i = 0; (m = fv_method_at(i)); i++) {
        cJSON_AddItemToArray(list, method_json(m));
    }
    return common_print_json(list);
}

static int print_table(void) {
    terminal_style s = terminal_styles(stdout);
    const fv_method *m;
    char axes[64], has[64];
    int wide = 4;
    for (int i = 0; (m = fv_method_at(i)); i++) {
        wide = (int)strlen(m->name) > wide ? (int)strlen(m->name) : wide;
    }
    printf("%s%-*s  %-16s %-22s %s%s\n", s.bold, wide, "name", "axes", "has", "what it does", s.reset);
    for (int i = 0; (m = fv_method_at(i)); i++) {
        printf("%-*s  %-16s %-22s %s\n", wide, m->name, join(m->axes, axis_names, axes), join(m->has, has_names, has), m->title);
    }
    printf("\n`fovea methods NAME` shows a method's parameters and paper.\n");
    return terminal_flush();
}

/* Whether `-a NAME` is a recipe that a model takes as it is: some want another method in brackets, or work on arrays alone. */
static bool has_example(const fv_method *m) {
    fv_context *ctx = NULL;
    fv_recipe *recipe = NULL;
    char text[96];
    snprintf(text, sizeof text, "%s%s", m->axes == FV_AXIS_DECODE ? "decode=" : "", m->name);
    bool good = !fv_context_create(&(fv_context_options){.threads = 1}, &ctx) && !fv_recipe_parse(ctx, text, &recipe) &&
                !fv_recipe_arrays_only(recipe);
    fv_recipe_destroy(recipe);
    fv_context_destroy(ctx);
    return good;
}

static int print_method(const fv_method *m) {
    terminal_style s = terminal_styles(stdout);
    char text[64];
    printf("%s%s%s: %s\n", s.bold, m->name, s.reset, m->title);
    if (m->paper[0]) {
        printf("  paper      %s\n", m->paper);
    }
    if (m->key[0]) {
        printf("  catalogue  %s\n", m->key);
    }
    printf("  axes       %s\n", join(m->axes, axis_names, text));
    printf("  has        %s\n", join(m->has, has_names, text));
    printf("%sparameters%s%s\n", s.bold, s.reset, m->n_parameters ? "" : ": none");
    for (int i = 0; i < m->n_parameters; i++) {
        const fv_method_parameter *p = &m->parameters[i];
        printf("  %-12s %s; %.10g to %.10g, default %.10g\n", p->name, p->help, p->least, p->most, p->value);
    }
    if (m->not_a_choice) {
        printf("%snot for a recipe%s: %s\n", s.bold, s.reset, m->not_a_choice);
        return terminal_flush();
    }
    if (!has_example(m)) {
        return terminal_flush();
    }
    bool decode_only = m->axes == FV_AXIS_DECODE; /* a bare name would stand for prefill too */
    printf("%sexample%s\n  fovea run -a %s%s", s.bold, s.reset, decode_only ? "decode=" : "", m->name);
    for (int i = 0; i < m->n_parameters; i++) {
        printf(":%s=%.10g", m->parameters[i].name, m->parameters[i].value);
    }
    printf(" -f book.txt -n 20\n");
    return terminal_flush();
}

/* Rows of the catalogue that have each kind of code: a row may have several methods, and counts once. */
static int print_coverage(bool json) {
    cJSON *counts = cJSON_CreateObject();
    for (int h = 0; h < N_NAMES; h++) {
        cJSON *seen = cJSON_CreateObject();
        const fv_method *m;
        for (int i = 0; (m = fv_method_at(i)); i++) {
            if (m->key[0] && (m->has & has_names[h].bit) && !cJSON_HasObjectItem(seen, m->key)) {
                cJSON_AddTrueToObject(seen, m->key);
            }
        }
        cJSON_AddNumberToObject(counts, has_names[h].name, cJSON_GetArraySize(seen));
        cJSON_Delete(seen);
    }
    if (json) {
        return common_print_json(counts);
    }
    printf("rows of the catalogue with\n");
    for (const cJSON *row = counts->child; row; row = row->next) {
        printf("  %-9s %4d\n", row->string, row->valueint);
    }
    cJSON_Delete(counts);
    return terminal_flush();
}

static const char *method_name_at(const void *user, int i) {
    (void)user;
    const fv_method *m = fv_method_at(i);
    return m ? m->name : NULL;
}

static int show_one(const char *name, bool json) {
    const fv_method *m = fv_method_find(name);
    if (!m) {
        const char *near = cli_nearest(name, method_name_at, NULL);
        return terminal_error(EXIT_USAGE, "no method \"%s\"%s%s%s: `fovea methods` lists them", name,
                              near ? ", did you mean \"" : "", near ? near : "", near ? "\"" : "");
    }
    return json ? common_print_json(method_json(m)) : print_method(m);
}

int command_methods(int argc, char **argv) {
    cli_common common = cli_common_default();
    cli_texts names = {.n = 0};
    bool coverage = false;
    cli_option options[] = {
        {"coverage", 0, NULL, "count the rows of the catalogue of papers that have forward, step, backward, gpu", CLI_FLAG,
         &coverage, 0, 0},
    };
    cli_page page = {
        .name = "methods",
        .usage = "[NAME] [options]",
        .text = "The attention methods that a recipe (-a) can name: on which axes each may stand, what it has, and where it was\n"
                "published. With NAME: its parameters, their ranges and defaults.\n\n"
                "A recipe names a method on each axis, with parameters after colons:\n"
                "  prefill=window:size=1024,decode=window:size=1024,kv=f16\n"
                "A bare method stands for prefill and decode, or the one that it works on; an empty recipe is dense attention. "
                "kv is the format of keys and\n"
                "values: f32, f16, bf16, q8_0 or q4_0, one for both or two (kv=q8_0/q4_0), rotated with :rotate=1.",
        .examples =
            "  fovea methods\n"
            "  fovea methods window\n"
            "  fovea methods --json\n"
            "      a list of {\"name\", \"title\", \"paper\", \"key\", \"axes\", \"has\", \"not_a_choice\", \"parameters\"}\n",
        .operands = 1,
        .operand = &names,
        .takes = CLI_JSON,
        .options = options,
        .n_options = CLI_COUNT(options),
    };
    int code = cli_parse(&page, &common, argc, argv);
    if (code != CLI_GO) {
        return code;
    }
    if (coverage) {
        return print_coverage(common.json);
    }
    return names.n ? show_one(names.text[0], common.json) : common.json ? print_all_json() : print_table();
}
