/* terminal.h - what reaches the user: messages, colour, progress, interrupts, and stdout that notices a full disk.
 *
 * Results go to stdout, everything else to stderr. Messages are one line; control characters in them (names and texts come
 * from files) are made harmless.
 */
#ifndef FOVEA_APP_TERMINAL_H
#define FOVEA_APP_TERMINAL_H

#include <fovea/fovea.h>

#include <stdio.h>

enum { EXIT_DONE = 0, EXIT_RUNTIME = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130, EXIT_PIPE = 141 };

/* The command whose name stands before each message; NULL: the program itself. */
void terminal_command(const char *name);
/* Prints "fovea COMMAND: sentence" and returns `code`. */
int terminal_error(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A line on stderr that is no error; silent with --quiet. */
void terminal_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A library error as one line, and its exit code: 2 for what the user gave, 130 after Ctrl-C, 1 for what happened. */
int terminal_status(const fv_context *ctx, fv_status status);

void terminal_setup(bool no_color, bool quiet, bool progress);
/* Escape sequences for stdout or stderr, "" where there is no colour. */
typedef struct terminal_style {
    const char *bold, *dim, *red, *reset;
} terminal_style;
terminal_style terminal_styles(FILE *stream);

/* Ctrl-C raises the cancel flag of the watched context; a second one ends the program at once. */
void terminal_catch_signals(void);
void terminal_watch(fv_context *ctx); /* NULL: none */
bool terminal_interrupted(void);

/* A line on stderr that redraws itself: what is being done, the share done, and an ETA if it takes over two seconds. Both
 * have the types of the library's callbacks; a non-zero answer means that the user pressed Ctrl-C. */
int terminal_progress(void *unused, const char *what, double share);
/* Takes the line away for a moment, so that something else can be printed; the work and its ETA go on. */
void terminal_progress_clear(void);
/* The work is over: the next progress has a clock of its own. */
void terminal_progress_end(void);

/* Flushes stdout; 0, or the exit code: EXIT_PIPE in silence if the reader has gone, EXIT_RUNTIME with a message otherwise. */
int terminal_flush(void);

#endif
