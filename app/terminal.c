/* terminal.c - see terminal.h. The state here is the process's own terminal, of which there is one. */
#include "terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static const char *command_name;
static bool color_off, quiet_on, progress_on;

static fv_context *volatile watched;
static volatile sig_atomic_t interrupts;

static struct {
    bool running, drawn;
    double began, last;
    char what[96];
} line;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- messages ---- */

void terminal_command(const char *name) { command_name = name; }

void terminal_setup(bool no_color, bool quiet, bool progress) {
    color_off = no_color;
    quiet_on = quiet;
    progress_on = progress;
}

/* One line whatever the arguments hold: control bytes (and the C1 controls, which UTF-8 writes as C2 80 .. C2 9F) become
 * spaces. */
static void make_harmless(char *text) {
    for (unsigned char *c = (unsigned char *)text; *c; c++) {
        if (*c < 0x20 || *c == 0x7f) {
            *c = ' ';
        } else if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f) {
            c[0] = c[1] = ' ';
        }
    }
}

static void print_line(const char *style, const char *format, va_list args) {
    char text[2048];
    vsnprintf(text, sizeof text, format, args);
    make_harmless(text);
    terminal_progress_clear();
    terminal_style s = terminal_styles(stderr);
    fprintf(stderr, "%sfovea%s%s:%s %s\n", style, command_name ? " " : "", command_name ? command_name : "", s.reset, text);
}

int terminal_error(int code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    print_line(terminal_styles(stderr).red, format, args);
    va_end(args);
    return code;
}

void terminal_note(const char *format, ...) {
    if (quiet_on) {
        return;
    }
    va_list args;
    va_start(args, format);
    print_line(terminal_styles(stderr).dim, format, args);
    va_end(args);
}

int terminal_status(const fv_context *ctx, fv_status status) {
    if (status == FV_ERR_CANCELLED || interrupts) {
        terminal_progress_clear();
        return EXIT_INTERRUPTED;
    }
    const char *message = ctx ? fv_message(ctx) : "";
    size_t n = command_name ? strlen(command_name) : 0;
    if (n && strncmp(message, command_name, n) == 0 && strncmp(message + n, ": ", 2) == 0) {
        message += n + 2; /* the command's name already stands in front */
    }
    bool users = status == FV_ERR_ARGUMENT || status == FV_ERR_RANGE || status == FV_ERR_UNSUPPORTED;
    return terminal_error(users ? EXIT_USAGE : EXIT_RUNTIME, "%s", message[0] ? message : fv_status_name(status));
}

/* ---- colour ---- */

terminal_style terminal_styles(FILE *stream) {
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    bool plain = color_off || (no && no[0]) || !term || strcmp(term, "dumb") == 0 || !isatty(fileno(stream));
    if (plain) {
        return (terminal_style){"", "", "", ""};
    }
    return (terminal_style){"\033[1m", "\033[2m", "\033[31m", "\033[0m"};
}

/* ---- signals ---- */

static void on_interrupt(int signal_number) {
    (void)signal_number;
    if (interrupts++) {
        static const char restore[] = "\r\033[K\033[0m";
        ssize_t written = isatty(STDERR_FILENO) ? write(STDERR_FILENO, restore, sizeof restore - 1) : 0;
        (void)written;
        _exit(EXIT_INTERRUPTED);
    }
    if (watched) {
        fv_cancel(watched, true);
    }
}

void terminal_catch_signals(void) {
    signal(SIGPIPE, SIG_IGN); /* a write then fails with EPIPE, and terminal_flush ends the program in order */
    struct sigaction old, action = {0};
    if (sigaction(SIGINT, NULL, &old) == 0 && old.sa_handler == SIG_IGN) {
        return; /* started by nohup or in the background of a script: not ours to change */
    }
    action.sa_handler = on_interrupt; /* no SA_RESTART: a read from the keyboard must come back */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

void terminal_watch(fv_context *ctx) {
    watched = ctx;
    if (ctx && interrupts) {
        fv_cancel(ctx, true);
    }
}

bool terminal_interrupted(void) { return interrupts != 0; }

/* ---- progress ---- */

static void format_time(char *out, size_t size, double seconds) {
    long s = (long)(seconds + 0.5);
    if (s >= 3600) {
        snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    } else {
        snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
    }
}

/* A line that wraps could not be redrawn in place. */
static int terminal_columns(void) {
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col - 1 : 79;
}

/* On a terminal the line is redrawn ten times a second; --progress into a file writes a line every two seconds. */
static void draw(double share, double elapsed, bool tty) {
    char left[32], eta[64] = "";
    double total = share > 0.005 ? elapsed / share : 0;
    if (total > 2 && elapsed > 0.3) {
        format_time(left, sizeof left, total - elapsed);
        snprintf(eta, sizeof eta, "  %s left", left);
    }
    if (tty) {
        int room = terminal_columns() - 8 - (int)strlen(eta);
        fprintf(stderr, "\r\033[K%5.1f%%  %.*s%s", 100 * share, room, line.what, eta);
    } else {
        fprintf(stderr, "%5.1f%%  %s%s\n", 100 * share, line.what, eta);
    }
    fflush(stderr);
    line.drawn = tty;
}

int terminal_progress(void *unused, const char *what, double share) {
    (void)unused;
    bool tty = isatty(STDERR_FILENO);
    if (quiet_on || !(tty || progress_on)) {
        return interrupts != 0;
    }
    double t = now();
    if (!line.running) {
        line.running = true;
        line.began = t;
        line.last = t;
    }
    snprintf(line.what, sizeof line.what, "%s", what ? what : "");
    make_harmless(line.what);
    if (t - line.last >= (tty ? 0.1 : 2.0)) {
        line.last = t;
        draw(share < 0 ? 0 : share > 1 ? 1 : share, t - line.began, tty);
    }
    return interrupts != 0;
}

void terminal_progress_clear(void) {
    if (line.drawn) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
    line.drawn = false;
}

void terminal_progress_end(void) {
    terminal_progress_clear();
    line.running = false;
}

/* ---- stdout ---- */

int terminal_flush(void) {
    errno = 0;
    bool failed = fflush(stdout) != 0;
    int reason = errno;
    if (!failed && !ferror(stdout)) {
        return 0;
    }
    if (reason == 0) { /* an earlier write failed and the stream forgot why: one byte more asks again */
        fputc('\n', stdout);
        fflush(stdout);
        reason = errno;
    }
    if (reason == EPIPE) {
        return EXIT_PIPE;
    }
    return terminal_error(EXIT_RUNTIME, "cannot write to standard output: %s", strerror(reason ? reason : EIO));
}
