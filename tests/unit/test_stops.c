/* test_stops.c - stop strings over any cut of a text into tokens, against a search of the whole text. */
#include "stops.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Gives `text` to a stopper in pieces of 1 to 4 bytes and collects what comes out. */
static void stream(const cli_texts *strings, const char *text, unsigned *state, char *out) {
    stops s;
    const char *ready;
    size_t n = 0, size = strlen(text), at = 0;
    stops_init(&s, strings);
    while (at < size && !s.found) {
        size_t piece = 1 + (size_t)(rand_r(state) % 4);
        piece = piece < size - at ? piece : size - at;
        size_t shown = stops_add(&s, text + at, piece, &ready);
        memcpy(out + n, ready, shown);
        n += shown;
        at += piece;
    }
    size_t rest = stops_end(&s, &ready);
    if (rest) {
        memcpy(out + n, ready, rest);
    }
    out[n + rest] = 0;
    stops_release(&s);
}

/* Words over {a, b} overlap with themselves and each other as often as can be. */
static void random_word(unsigned *state, int most, char *out) {
    int n = 1 + rand_r(state) % most;
    for (int i = 0; i < n; i++) {
        out[i] = (char)('a' + rand_r(state) % 2);
    }
    out[n] = 0;
}

static void random_streams(void **unused) {
    (void)unused;
    unsigned state = 20240607;
    print_message("seed %u\n", state);
    int stopped = 0;
    for (int round = 0; round < 20000; round++) {
        char text[64], stop[8], out[80], *first;
        random_word(&state, 40, text);
        random_word(&state, 6, stop);
        cli_texts strings = {.text = {stop}, .n = 1};
        stream(&strings, text, &state, out);
        first = strstr(text, stop);
        stopped += first != NULL;
        if (first) {
            *first = 0;
        }
        assert_string_equal(out, text);
    }
    assert_in_range(stopped, 2000, 18000);
}

static void the_first_of_several_wins(void **unused) {
    (void)unused;
    unsigned state = 3;
    char out[64];
    cli_texts strings = {.text = {"never", "two", "one"}, .n = 3};
    stream(&strings, "zero one two", &state, out);
    assert_string_equal(out, "zero ");
    cli_texts none = {.n = 0};
    stream(&none, "zero one two", &state, out);
    assert_string_equal(out, "zero one two");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_streams),
        cmocka_unit_test(the_first_of_several_wins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
