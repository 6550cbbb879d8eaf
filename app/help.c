/* help.c - one command's page: what it does, its options with their defaults, examples. */
#include "help.h"

#include "terminal.h"

#include <inttypes.h>
#include <string.h>

/* The default is read from the variable that the option sets, so that the page cannot drift from the program. Zero, empty
 * and "best" defaults are told by the help text itself. */
static void print_default(const cli_option *o) {
    switch (o->kind) {
    case CLI_INT: {
        int64_t value = *(int64_t *)o->value;
        if (value != 0 && (double)value >= o->least && (double)value <= o->most) {
            printf(" (default %" PRId64 ")", value);
        }
        break;
    }
    case CLI_REAL:
        if (*(double *)o->value != 0) {
            printf(" (default %g)", *(double *)o->value);
        }
        break;
    case CLI_INTS: {
        const cli_ints *list = o->value;
        for (int i = 0; i < list->n; i++) {
            printf("%s%" PRId64 "%s", i ? "," : " (default ", list->value[i], i + 1 == list->n ? ")" : "");
        }
        break;
    }
    case CLI_DTYPE:
        printf(" (default %s)", fv_dtype_name(*(fv_dtype *)o->value));
        break;
    default:
        break;
    }
}

static void print_option(const cli_option *o) {
    char left[64];
    char letter[8] = "    ";
    if (o->letter) {
        snprintf(letter, sizeof letter, "-%c, ", o->letter);
    }
    snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, o->argument ? " " : "", o->argument ? o->argument : "");
    printf("  %-26s %s", left, o->help);
    print_default(o);
    putchar('\n');
}

void help_page(const cli_page *page, const cli_option *common, int n_common) {
    terminal_style s = terminal_styles(stdout);
    printf("%susage:%s fovea %s %s\n\n%s\n", s.bold, s.reset, page->name, page->usage, page->text);
    if (page->n_options > 0) {
        printf("\n%soptions%s\n", s.bold, s.reset);
        for (int i = 0; i < page->n_options; i++) {
            print_option(&page->options[i]);
        }
    }
    printf("\n%scommon options%s\n", s.bold, s.reset);
    for (int i = 0; i < n_common; i++) {
        print_option(&common[i]);
    }
    printf("\n%sexamples%s\n%s", s.bold, s.reset, page->examples);
}
