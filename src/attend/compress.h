/* compress.h - the bits of a word at the places of a mask, side by side: in six steps, each of which moves what has to go down by
 * 1, 2, 4 ... 32 places. What each step moves is worked out once for a mask.
 *
 * Warren, Hacker's Delight, 2nd edition, 2012, section 7-4. The processor's own instruction for it is not in portable C. */
#ifndef FVI_COMPRESS_H
#define FVI_COMPRESS_H

#include <stdint.h>

enum { FVI_COMPRESS_STEPS = 6 };

static inline void fvi_compress_plan(uint64_t mask, uint64_t move[FVI_COMPRESS_STEPS]) {
    uint64_t gaps = ~mask << 1; /* places with an odd number of them below still move by this step */
    for (int step = 0; step < FVI_COMPRESS_STEPS; step++) {
        uint64_t odd = gaps;
        for (int shift = 1; shift < 64; shift *= 2) {
            odd ^= odd << shift;
        }
        move[step] = odd & mask;
        mask = (mask ^ move[step]) | move[step] >> (1 << step);
        gaps &= ~odd;
    }
}

static inline uint64_t fvi_compress(uint64_t word, uint64_t mask, const uint64_t move[FVI_COMPRESS_STEPS]) {
    word &= mask;
    for (int step = 0; step < FVI_COMPRESS_STEPS; step++) {
        uint64_t moved = word & move[step];
        word = (word ^ moved) | moved >> (1 << step);
    }
    return word;
}

#endif
