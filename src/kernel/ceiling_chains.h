/* ceiling_chains.h - a loop of one instruction over 24 registers of 512 bits, whole in assembly: compilers spill such chains or
 * copy them about, and then the ceiling reads low.
 *
 * 24 chains cover a latency of 6 cycles at four a cycle, more than any processor has. */
#ifndef FVI_CEILING_CHAINS_H
#define FVI_CEILING_CHAINS_H

enum { FVI_CHAINS = 24 };

#define FVI_CHAINS_RUN(instruction, steps, x, sink)                                                                              \
    __asm__ volatile("vmovups (%[from]), %%zmm0\n\t"                                                                             \
                     "vmovups (%[from]), %%zmm1\n\t"                                                                             \
                     ".irp r,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n\t"                          \
                     "vmovups (%[from]), %%zmm\\r\n\t"                                                                           \
                     ".endr\n"                                                                                                   \
                     "1:\n\t"                                                                                                    \
                     ".irp r,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n\t" instruction              \
                     " %%zmm0, %%zmm1, %%zmm\\r\n\t"                                                                             \
                     ".endr\n\t"                                                                                                 \
                     "dec %[left]\n\t"                                                                                           \
                     "jnz 1b\n\t"                                                                                                \
                     "vmovups %%zmm8, (%[to])\n\t"                                                                               \
                     "vzeroupper"                                                                                                \
                     : [left] "+r"(steps)                                                                                        \
                     : [from] "r"(x), [to] "r"(sink)                                                                             \
                     : "memory", "cc", "xmm0", "xmm1", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",     \
                       "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26",        \
                       "xmm27", "xmm28", "xmm29", "xmm30", "xmm31")

#endif
