/* check_wordop.c - kernel/wordop.h at every level, bit by bit. */
#include "base/rng.h"
#include "kernel/wordop.h"
#include "poison.h"

enum { WORDS = 32, MANY = 300 };

static int failures;

static void expect(bool ok, const char *what, const char *level, int n) {
    if (!ok && failures++ < 20) {
        printf("FAIL %s %s: %d\n", what, level, n);
    }
}

/* Few bits, many, none, or all. */
static uint64_t word(fvi_rng *r) {
    uint64_t x = fvi_rng_next(r), y = fvi_rng_next(r), z = fvi_rng_next(r);
    uint64_t kind = fvi_rng_below(r, 5);
    return kind == 0 ? 0 : kind == 1 ? UINT64_MAX : kind == 2 ? x : kind == 3 ? (x & y & z) : (x | y);
}

static void check_numbers(const fvi_word_ops *ops, const char *level, int n, fvi_rng *r) {
    uint64_t w[WORDS], mask[WORDS];
    int32_t want[WORDS * 64], first = (int32_t)fvi_rng_below(r, 1 << 20) * 64;
    int count = 0;
    for (int i = 0; i < n; i++) {
        w[i] = word(r);
        mask[i] = word(r);
        for (int j = 0; j < 64; j++) {
            if (w[i] >> j & mask[i] >> j & 1) {
                want[count++] = first + 64 * i + j;
            }
        }
    }
    guard out = guard_make((size_t)(count + FVI_NUMBERS_OVER) * 4, 4, true);
    int got = ops->numbers(w, mask, n, first, (int32_t *)out.data);
    expect(got == count && memcmp(out.data, want, (size_t)count * 4) == 0, "numbers", level, n);
    expect(guard_intact(&out), "numbers: wrote outside", level, n);
    guard_free(&out);
}

static void check_addresses(const fvi_word_ops *ops, const char *level, int n, fvi_rng *r) {
    guard key = guard_make((size_t)n * 4, 4, true), at = guard_make((size_t)n * sizeof(void *), sizeof(void *), true);
    int32_t *k = (int32_t *)key.data;
    const void **to = (const void **)(void *)at.data;
    const char base[1] = {0};
    int64_t row_bytes = (int64_t)fvi_rng_below(r, 4000) * 2 - 4000;
    for (int i = 0; i < n; i++) {
        k[i] = (int32_t)fvi_rng_below(r, 1u << 30);
    }
    ops->addresses(k, n, base, row_bytes, to);
    for (int i = 0; i < n; i++) {
        expect((uintptr_t)to[i] == (uintptr_t)base + (uintptr_t)(k[i] * row_bytes), "addresses", level, i);
    }
    expect(guard_intact(&key) && guard_intact(&at), "addresses: wrote outside", level, n);
    guard_free(&key), guard_free(&at);
}

/* Counts up to 255 stand in the planes; 256 and more in `over`. */
static void check_tally(const fvi_word_ops *ops, const char *level, int rows, fvi_rng *r) {
    static uint64_t w[MANY][FVI_TALLY_WORDS];
    const uint64_t *row[MANY];
    fvi_tally t = {0};
    for (int i = 0; i < rows; i++) {
        for (int k = 0; k < FVI_TALLY_WORDS; k++) {
            w[i][k] = k < 2 ? UINT64_MAX : word(r);
        }
        row[i] = w[i];
    }
    ops->tally(row, rows / 3, &t);
    ops->tally(row + rows / 3, rows - rows / 3, &t);
    uint64_t key[FVI_TALLY_WORDS];
    int64_t visits[FVI_TALLY_WORDS], expected[FVI_TALLY_WORDS] = {0};
    for (int k = 0; k < FVI_TALLY_WORDS; k++) {
        key[k] = word(r);
        for (int j = 0; j < 64; j++) {
            int count = 0, planes = 0;
            for (int i = 0; i < rows; i++) {
                count += (int)(w[i][k] >> j & 1);
            }
            for (int p = 0; p < FVI_TALLY_PLANES; p++) {
                planes += (int)(t.plane[p][k] >> j & 1) << p;
            }
            expect(planes == count % 256 && (int)(t.over[k] >> j & 1) == (count >= 256), "tally", level, rows);
            expected[k] += key[k] >> j & 1 ? count % 256 : 0;
        }
    }
    ops->visits(&t, key, visits);
    expect(memcmp(visits, expected, sizeof visits) == 0, "visits", level, rows);
}

static void check_level(const fvi_word_ops *ops, const char *level) {
    fvi_rng r = {7};
    for (int n = 0; n <= 64; n++) {
        for (int round = 0; round < 20; round++) {
            check_numbers(ops, level, n % (WORDS + 1), &r);
            check_addresses(ops, level, n, &r);
        }
        check_tally(ops, level, n, &r);
    }
    check_tally(ops, level, 255, &r);
    check_tally(ops, level, 256, &r);
    check_tally(ops, level, MANY, &r);
}

int main(void) {
    fvi_cpu cpu = fvi_cpu_detect();
    fvi_word_ops ops;
    fvi_word_init(&(fvi_cpu){0}, &ops);
    check_level(&ops, "c");
    if (cpu.avx512) {
        fvi_word_init(&(fvi_cpu){.avx2 = true, .avx512 = true}, &ops);
        check_level(&ops, "avx512");
    }
    if (cpu.avx512_vbmi2) {
        fvi_word_init(&cpu, &ops);
        check_level(&ops, "avx512vbmi2");
    }
    printf("wordop: %d failed\n", failures);
    return failures != 0;
}
