/* stops.c - a stop string may span tokens, so the longest end of the text that could still become one waits for the next
 * token. What was given out is dropped at the next call: the buffer stays as short as the stop strings and one token. */
#include "stops.h"

#include <stdlib.h>
#include <string.h>

void stops_init(stops *s, const cli_texts *strings) { *s = (stops){.strings = strings}; }

void stops_release(stops *s) {
    free(s->held);
    s->held = NULL;
}

static void drop_shown(stops *s) {
    if (s->shown) {
        memmove(s->held, s->held + s->shown, s->n - s->shown);
        s->n -= s->shown;
        s->shown = 0;
    }
}

static bool append(stops *s, const char *text, size_t size) {
    if (s->n + size > s->capacity) {
        size_t capacity = 2 * (s->n + size);
        char *larger = realloc(s->held, capacity);
        if (!larger) {
            return false;
        }
        s->held = larger;
        s->capacity = capacity;
    }
    memcpy(s->held + s->n, text, size);
    s->n += size;
    return true;
}

/* Where the first stop string begins; n if there is none. */
static size_t find_stop(const stops *s) {
    size_t first = s->n;
    for (int i = 0; i < s->strings->n; i++) {
        const char *stop = s->strings->text[i];
        const char *at = s->n ? memmem(s->held, s->n, stop, strlen(stop)) : NULL;
        if (at && (size_t)(at - s->held) < first) {
            first = (size_t)(at - s->held);
        }
    }
    return first;
}

/* Bytes at the end that are the beginning of a stop string. */
static size_t open_end(const stops *s) {
    size_t longest = 0;
    for (int i = 0; i < s->strings->n; i++) {
        const char *stop = s->strings->text[i];
        size_t n = strlen(stop) - 1;
        n = n < s->n ? n : s->n;
        for (; n > longest; n--) {
            if (memcmp(s->held + s->n - n, stop, n) == 0) {
                longest = n;
            }
        }
    }
    return longest;
}

size_t stops_add(stops *s, const char *text, size_t size, const char **ready) {
    *ready = text;
    if (s->strings->n == 0 || s->found) {
        return s->found ? 0 : size;
    }
    drop_shown(s);
    if (!append(s, text, size)) {
        s->failed = true;
        return 0;
    }
    size_t out = find_stop(s);
    s->found = out < s->n;
    if (!s->found) {
        out = s->n - open_end(s);
    }
    *ready = s->held;
    s->shown = out;
    return out;
}

size_t stops_end(stops *s, const char **ready) {
    drop_shown(s);
    *ready = s->held;
    return s->found ? 0 : s->n;
}
