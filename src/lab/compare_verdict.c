/* compare_verdict.c - what a comparison says, in a few sentences computed from its rows and nothing else. */
#include "lab/compare.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { NAMED = 4 };               /* recipes named one by one; more are counted */
static const double clear = 1.02; /* ratios of times nearer to 1 than this are called equal */

typedef struct sentence {
    char *out;
    size_t size, n;
} sentence;

static void say(sentence *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(sentence *s, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int n = s->n < s->size ? vsnprintf(s->out + s->n, s->size - s->n, format, arguments) : 0;
    va_end(arguments);
    s->n = n < 0 || (size_t)n >= s->size - s->n ? s->size : s->n + (size_t)n;
}

/* A recipe over all lengths, or dense. */
typedef struct tally {
    char recipe[256];
    int forced, greedy, facts;          /* answered; asked */
    int lost_forced, lost_greedy, lost; /* of what dense answers; lost: the larger of the two */
    double seconds, kl, top1;           /* prompts; the worst KL and top-1 of a length */
    bool masked;
    int64_t rows;
} tally;

static int positive(int x) { return x > 0 ? x : 0; }

/* "prefill=X,decode=X" is called X. */
static void name_of(const char *recipe, char out[256]) {
    const char *decode = strstr(recipe, ",decode=");
    size_t n = decode != NULL && strncmp(recipe, "prefill=", 8) == 0 ? (size_t)(decode - recipe) - 8 : 0;
    bool same = n > 0 && strncmp(recipe + 8, decode + 8, n) == 0 && (decode[8 + n] == '\0' || decode[8 + n] == ',');
    if (snprintf(out, 256, "%.*s%s", same ? (int)n : 0, recipe + 8 * same, same ? decode + 8 + n : recipe) >= 256) {
        memcpy(out + 252, "...", 4);
    }
}

static tally tally_of(const fv_compare_row *row, int lengths, int recipes, int which) {
    tally t = {.top1 = 1};
    name_of(row[which].recipe, t.recipe);
    for (int l = 0; l < lengths; l++) {
        const fv_compare_row *dense = row + l * (recipes + 1), *r = dense + which;
        t.forced += r->forced;
        t.greedy += r->greedy;
        t.facts += r->facts;
        t.lost_forced += positive(dense->forced - r->forced);
        t.lost_greedy += positive(dense->greedy - r->greedy);
        t.seconds += r->prompt_seconds;
        t.kl = r->kl > t.kl ? r->kl : t.kl;
        t.top1 = r->top1 < t.top1 ? r->top1 : t.top1;
        t.masked = t.masked || r->kv_masked_only;
        t.rows += r->rows;
    }
    t.lost = t.lost_forced > t.lost_greedy ? t.lost_forced : t.lost_greedy;
    return t;
}

typedef struct field {
    const fv_compare_row *row;
    int lengths, recipes;
    tally dense;
} field;

static tally at(const field *f, int which) { return tally_of(f->row, f->lengths, f->recipes, which); }

/* The fastest recipe that keeps what dense answers, 0 if none does; *keepers counts them. */
static int fastest_keeper(const field *f, int *keepers) {
    int best = 0;
    *keepers = 0;
    for (int r = 1; r <= f->recipes; r++) {
        if (at(f, r).lost == 0) {
            (*keepers)++;
            best = best == 0 || at(f, r).seconds < at(f, best).seconds ? r : best;
        }
    }
    return best;
}

static void say_distance(sentence *s, const tally *t) {
    if (t->rows > 0) {
        say(s, " (KL %.2g nats, top-1 agreement %.1f%%)", t->kl, 100 * t->top1);
    }
}

static void say_speed(sentence *s, const field *f, const tally *t) {
    double ratio = t->seconds > 0 ? f->dense.seconds / t->seconds : 1;
    if (ratio >= clear) {
        say(s, "its prompts run %.2f times as fast as dense", ratio);
    } else if (ratio <= 1 / clear) {
        say(s, "but its prompts take %.2f times as long as dense", 1 / ratio);
    } else {
        say(s, "its prompts take as long as dense");
    }
    say_distance(s, t);
}

static void say_keepers(sentence *s, const field *f) {
    int keepers, best = fastest_keeper(f, &keepers);
    bool asked = f->dense.forced + f->dense.greedy > 0;
    if (best == 0 && f->recipes == 1) {
        say(s, "%s does not keep all that dense attention answers.", at(f, 1).recipe);
        return;
    }
    if (best == 0) {
        say(s, "None of the %d recipes keeps all that dense attention answers.", f->recipes);
        return;
    }
    tally t = at(f, best);
    if (!asked) {
        say(s, "%s is the fastest: ", t.recipe);
    } else if (f->recipes == 1) {
        say(s, "%s keeps every answer of dense attention: ", t.recipe);
    } else if (keepers == 1) {
        say(s, "Of %d recipes only %s keeps every answer of dense attention: ", f->recipes, t.recipe);
    } else {
        say(s, "%s is the fastest of the %d recipes that keep every answer of dense attention: ", t.recipe, keepers);
    }
    say_speed(s, f, &t);
    say(s, ".");
}

static void say_losers(sentence *s, const field *f) {
    int losers = 0;
    for (int r = 1; r <= f->recipes; r++) {
        tally t = at(f, r);
        if (t.lost == 0 || losers++ >= NAMED) {
            continue;
        }
        say(s, losers == 1 ? " Lost are: " : ", ");
        say(s, "with %s %d of %d answers as prompt rows and %d of %d generated", t.recipe, t.lost_forced, f->dense.forced,
            t.lost_greedy, f->dense.greedy);
        say_distance(s, &t);
    }
    if (losers > NAMED) {
        say(s, ", and answers with %d more", losers - NAMED);
    }
    say(s, losers > 0 ? "." : "");
}

static void say_dense(sentence *s, const field *f) {
    const tally *d = &f->dense;
    if (d->facts == 0) {
        say(s, "No questions were asked. ");
    } else if (d->forced + d->greedy == 0) {
        say(s, "Dense attention itself answers none of the %d questions, so they cannot tell recipes apart here. ", d->facts);
    } else if (d->forced < d->facts || d->greedy < d->facts) {
        say(s, "Dense attention itself answers %d of %d questions as prompt rows and %d generated. ", d->forced, d->facts,
            d->greedy);
    }
}

static void say_masked(sentence *s, const field *f) {
    int masked = 0;
    tally only = {0};
    for (int r = 1; r <= f->recipes; r++) {
        tally t = at(f, r);
        masked += t.masked;
        only = t.masked ? t : only;
    }
    if (masked == 1) {
        say(s, " %s only masks: the keys it hides stay in memory, so its KV bytes equal dense's.", only.recipe);
    } else if (masked > 1) {
        say(s, " %s recipes only mask: the keys they hide stay in memory, so their KV bytes equal dense's.",
            masked == f->recipes ? "These" : "Some");
    }
}

void fvi_compare_verdict(const fv_compare_row *row, int lengths, int recipes, char *out, size_t size) {
    field f = {.row = row, .lengths = lengths, .recipes = recipes, .dense = tally_of(row, lengths, recipes, 0)};
    sentence s = {.out = out, .size = size};
    out[0] = '\0';
    if (recipes == 0) {
        say(&s, "Only dense attention was run: it answers %d of %d questions as prompt rows and %d generated.", f.dense.forced,
            f.dense.facts, f.dense.greedy);
        return;
    }
    say_dense(&s, &f);
    say_keepers(&s, &f);
    say_losers(&s, &f);
    say_masked(&s, &f);
}
