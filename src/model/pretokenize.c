/* pretokenize.c - the three published patterns as scanners over character classes.
 *
 *   gpt-2   '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *   smollm  each \p{N} stands alone; what is between two of them is a text of its own for gpt-2's pattern
 *   qwen2   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 *
 * A regular expression engine walks back over a run of spaces for its look-ahead, and has limits on how far; here each
 * character is classified at most three times. Classes are utf8proc's categories, with a table for ASCII. A byte that is
 * no UTF-8 counts as a character that is neither letter, number nor space.
 */
#include "model/pretokenize.h"

#include <utf8proc.h>

typedef enum char_class { OTHER = 0, LETTER, NUMBER, SPACE, NEWLINE } char_class; /* NEWLINE: \r and \n, spaces too */

typedef struct scanner {
    const char *text;
    size_t size;
    bool stop_at_number; /* smollm: the text ends before a number */
} scanner;

/* The White_Space property beyond ASCII. */
static bool is_wide_space(int32_t c) {
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

static char_class ascii_class(unsigned char c) {
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
        return LETTER;
    }
    if (c >= '0' && c <= '9') {
        return NUMBER;
    }
    if (c == '\n' || c == '\r') {
        return NEWLINE;
    }
    return c == ' ' || (c >= '\t' && c <= '\f') ? SPACE : OTHER;
}

static char_class wide_class(int32_t c) {
    if (is_wide_space(c)) {
        return SPACE;
    }
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return NUMBER;
    default:
        return OTHER;
    }
}

int fvi_utf8_next(const char *text, size_t size, size_t at, int32_t *code) {
    unsigned char c = (unsigned char)text[at];
    if (c < 0x80) {
        *code = c;
        return 1;
    }
    size_t left = size - at < 4 ? size - at : 4;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)left, code);
    if (n < 1) {
        *code = -1;
        return 1;
    }
    return (int)n;
}

/* The class of the character at `at`, which gets to be past it; false at the end of the text. */
static bool take(const scanner *s, size_t *at, char_class *out) {
    if (*at >= s->size) {
        return false;
    }
    unsigned char c = (unsigned char)s->text[*at];
    int32_t code;
    int n = 1;
    if (c < 0x80) {
        *out = ascii_class(c);
    } else {
        n = fvi_utf8_next(s->text, s->size, *at, &code);
        *out = code < 0 ? OTHER : wide_class(code);
    }
    if (s->stop_at_number && *out == NUMBER) {
        return false;
    }
    *at += (size_t)n;
    return true;
}

/* Past the run of one class that goes on at `at`. */
static size_t run_of(const scanner *s, size_t at, char_class wanted) {
    char_class c;
    size_t next = at;
    while (take(s, &next, &c) && c == wanted) {
        at = next;
    }
    return at;
}

/* Past the contraction whose apostrophe is at `at`, or `at`. Where case is folded, U+017F is an s. */
static size_t contraction(const scanner *s, size_t at, bool fold) {
    const unsigned char *t = (const unsigned char *)s->text + at;
    size_t left = s->size - at;
    if (left < 2) {
        return at;
    }
    unsigned char bit = fold ? 0x20 : 0;
    unsigned char a = t[1] | bit, b = left > 2 ? t[2] | bit : 0;
    if (a == 's' || a == 'd' || a == 'm' || a == 't') {
        return at + 2;
    }
    if ((a == 'l' && b == 'l') || (a == 'v' && b == 'e') || (a == 'r' && b == 'e')) {
        return at + 3;
    }
    return fold && left > 2 && t[1] == 0xc5 && t[2] == 0xbf ? at + 3 : at;
}

/* A run of spaces from `at`: all of it before the end of the text, all but its last character before anything else. Where
 * newlines are cut off (qwen2), up to its last newline. */
static size_t spaces(const scanner *s, size_t at, bool to_newline) {
    size_t next = at, end = at, last = at, newline = 0;
    char_class c = OTHER;
    bool more;
    while ((more = take(s, &next, &c)) && (c == SPACE || c == NEWLINE)) {
        last = end;
        end = next;
        newline = c == NEWLINE ? end : newline;
    }
    if (to_newline && newline > 0) {
        return newline;
    }
    return !more || last == at ? end : last;
}

static size_t gpt2_piece(const scanner *s, size_t at) {
    size_t next = at;
    char_class c = OTHER;
    if (s->text[at] == '\'') {
        size_t end = contraction(s, at, false);
        if (end > at) {
            return end;
        }
    }
    take(s, &next, &c);
    if (c != SPACE && c != NEWLINE) {
        return run_of(s, next, c);
    }
    size_t second = next;
    if (s->text[at] == ' ' && take(s, &second, &c) && c != SPACE && c != NEWLINE) {
        return run_of(s, second, c);
    }
    return spaces(s, at, false);
}

static size_t smollm_piece(const scanner *s, size_t at) {
    size_t next = at;
    char_class c = OTHER;
    take(s, &next, &c);
    if (c == NUMBER) {
        return next;
    }
    scanner part = {s->text, s->size, true};
    return gpt2_piece(&part, at);
}

static size_t qwen2_piece(const scanner *s, size_t at) {
    size_t next = at;
    char_class c = OTHER, after = OTHER;
    if (s->text[at] == '\'') {
        size_t end = contraction(s, at, true);
        if (end > at) {
            return end;
        }
    }
    take(s, &next, &c);
    if (c == NUMBER) {
        return next;
    }
    size_t second = next;
    bool more = take(s, &second, &after);
    if (c == LETTER || (c != NEWLINE && more && after == LETTER)) {
        return run_of(s, next, LETTER);
    }
    if (c == OTHER || (s->text[at] == ' ' && more && after == OTHER)) {
        return run_of(s, run_of(s, next, OTHER), NEWLINE);
    }
    return spaces(s, at, true);
}

size_t fvi_pretokenize(fvi_vocab_kind kind, const char *text, size_t size, size_t at) {
    scanner s = {text, size, false};
    switch (kind) {
    case FVI_VOCAB_SMOLLM:
        return smollm_piece(&s, at);
    case FVI_VOCAB_QWEN2:
        return qwen2_piece(&s, at);
    default:
        return gpt2_piece(&s, at);
    }
}
