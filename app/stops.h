/* stops.h - text on its way out, held back where it could be the beginning of a stop string. */
#ifndef FOVEA_APP_STOPS_H
#define FOVEA_APP_STOPS_H

#include "cli.h"

#include <stddef.h>

typedef struct stops {
    const cli_texts *strings;
    char *held; /* text not yet given out, after `shown` bytes that the last call gave */
    size_t n, capacity, shown;
    bool found, failed; /* a stop string has come; memory ran out */
} stops;

void stops_init(stops *s, const cli_texts *strings);
void stops_release(stops *s);
/* Adds text; *ready gets what may be shown now, valid until the next call. */
size_t stops_add(stops *s, const char *text, size_t size, const char **ready);
/* The rest, at the end of the stream. */
size_t stops_end(stops *s, const char **ready);

#endif
