/* main.c - the fovea program: a table of commands, one file each. */
#include "common.h"

#include <stdlib.h>
#include <string.h>

typedef struct command {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} command;

static const command commands[] = {
    {"run", "generate text from a prompt, a file or a conversation", command_run},
    {"compare", "what attention methods cost and lose on your model and text", command_compare},
    {"calibrate", "what a method finds offline about a model's heads: its profile", command_calibrate},
    {"perplexity", "how well the model predicts a text", command_perplexity},
    {"info", "what is in a model file", command_info},
    {"tokenize", "text to tokens, with the pieces or as JSON lines", command_tokenize},
    {"attend", "attention on .npy arrays", command_attend},
    {"bench", "the machine's measured ceilings, and each kernel's share of them", command_bench},
    {"methods", "the attention methods, their papers and parameters", command_methods},
};

static const char *command_name_at(const void *user, int i) {
    (void)user;
    return i < CLI_COUNT(commands) ? commands[i].name : NULL;
}

static const command *find_command(const char *name) {
    for (int i = 0; i < CLI_COUNT(commands); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static void print_help(void) {
    terminal_style s = terminal_styles(stdout);
    printf(
        "%sfovea%s %s: run a language model with any attention method, and measure what the method costs and what it loses.\n\n"
        "%susage:%s fovea COMMAND [options]\n\n%scommands%s\n",
        s.bold, s.reset, fv_version(), s.bold, s.reset, s.bold, s.reset);
    for (int i = 0; i < CLI_COUNT(commands); i++) {
        printf("  %-12s %s\n", commands[i].name, commands[i].summary);
    }
    printf("\n`fovea COMMAND --help` explains each, with its defaults. A small model comes with Fovea: -m may be left out.\n\n"
           "%sexamples%s\n"
           "  fovea run -p \"It was a dark and stormy night\" -n 40\n"
           "      continues a text with dense attention\n"
           "  fovea compare -f book.txt --lengths 4096 -a window:size=1024\n"
           "      a sliding window against dense attention on your text: speed, memory, and what is lost\n",
           s.bold, s.reset);
}

static int dispatch(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || (strcmp(name, "help") == 0 && argc == 2)) {
        print_help();
        return EXIT_DONE;
    }
    if (strcmp(name, "--version") == 0) {
        printf("fovea %s\n", fv_version());
        return EXIT_DONE;
    }
    if (strcmp(name, "help") == 0) {
        static char option[] = "--help";
        argv[1] = argv[2];
        argv[2] = option;
        name = argv[1];
        argc = 3;
    }
    const command *c = find_command(name);
    if (!c) {
        const char *near = cli_nearest(name, command_name_at, NULL);
        return near ? terminal_error(EXIT_USAGE, "unknown command \"%s\": did you mean `fovea %s`?", name, near)
                    : terminal_error(EXIT_USAGE, "unknown command \"%s\": `fovea --help` lists them", name);
    }
    terminal_command(c->name);
    return c->run(argc - 1, argv + 1);
}

int main(int argc, char **argv) {
    terminal_catch_signals();
    int code = dispatch(argc, argv);
    terminal_progress_end();
    int written = code == EXIT_DONE || code == EXIT_INTERRUPTED ? terminal_flush() : 0;
    return written ? written : code;
}
