/* run_program.h - runs a program and keeps what it wrote, for black-box tests. Include in one file of a test. */
#ifndef FOVEA_TESTS_RUN_PROGRAM_H
#define FOVEA_TESTS_RUN_PROGRAM_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct run_result {
    int code; /* exit code; 128 + signal if it was killed by one */
    char *out, *err;
    size_t out_size;
} run_result;

typedef struct run_setup {
    const char *input;       /* stdin; NULL: /dev/null */
    const char *variable[2]; /* "NAME=value" added to the environment */
    const char *output;      /* stdout goes to this file, and `out` is "" */
    const char *directory;   /* working directory */
    double interrupt_after;  /* seconds until SIGINT; 0: none */
    bool after_output;       /* the seconds count from the first byte on stdout */
    bool closed_pipe;        /* stdout is a pipe that nobody reads */
} run_setup;

static const char *run_path; /* the program */

static char *run_slurp(int fd, size_t *size) {
    size_t n = 0, capacity = 1 << 16;
    char *text = malloc(capacity + 1);
    lseek(fd, 0, SEEK_SET);
    for (ssize_t got; text && (got = read(fd, text + n, capacity - n)) > 0;) {
        n += (size_t)got;
        if (n == capacity) {
            capacity *= 2;
            text = realloc(text, capacity + 1);
        }
    }
    if (text) {
        text[n] = 0;
    }
    if (size) {
        *size = n;
    }
    close(fd);
    return text;
}

static int run_temporary(void) {
    char name[] = "/tmp/fovea-run-XXXXXX";
    int fd = mkstemp(name);
    unlink(name);
    return fd;
}

static void run_child(const run_setup *s, char *const *argv, int in, int out, int err) {
    dup2(in, 0);
    dup2(out, 1);
    dup2(err, 2);
    for (int i = 0; i < 2 && s->variable[i]; i++) {
        putenv((char *)s->variable[i]);
    }
    signal(SIGPIPE, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    if (!s->directory || chdir(s->directory) == 0) {
        execv(run_path, argv);
    }
    _exit(127);
}

static int run_open_output(const run_setup *s) {
    if (s->closed_pipe) {
        int ends[2];
        if (pipe(ends) != 0) {
            return -1;
        }
        close(ends[0]);
        return ends[1];
    }
    return s->output ? open(s->output, O_WRONLY | O_CREAT | O_TRUNC, 0600) : run_temporary();
}

/* argv[0] is filled in; the list ends with NULL. */
static run_result run_with(const run_setup *s, const char *const *arguments) {
    char *argv[64] = {(char *)run_path};
    for (int i = 0; arguments[i] && i < 62; i++) {
        argv[i + 1] = (char *)arguments[i];
    }
    int in = s->input ? run_temporary() : open("/dev/null", O_RDONLY), out = run_open_output(s), err = run_temporary();
    if (s->input && (write(in, s->input, strlen(s->input)) < 0 || lseek(in, 0, SEEK_SET) != 0)) {
        perror("stdin of the program");
    }
    pid_t pid = fork();
    if (pid == 0) {
        run_child(s, argv, in, out, err);
    }
    struct stat st;
    for (int i = 0; s->after_output && i < 6000 && fstat(out, &st) == 0 && st.st_size == 0; i++) {
        usleep(10000);
    }
    if (s->interrupt_after > 0) {
        usleep((useconds_t)(1e6 * s->interrupt_after));
        kill(pid, SIGINT);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    close(in);
    run_result r = {.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)};
    if (s->output || s->closed_pipe) {
        close(out);
        r.out = calloc(1, 1);
    } else {
        r.out = run_slurp(out, &r.out_size);
    }
    r.err = run_slurp(err, NULL);
    return r;
}

static void run_free(run_result *r) {
    free(r->out);
    free(r->err);
}

static int run_lines(const char *text) {
    int n = 0;
    for (; *text; text++) {
        n += *text == '\n';
    }
    return n;
}

#define RUN(...) run_with(&(run_setup){.input = NULL}, (const char *const[]){__VA_ARGS__, NULL})

#endif
