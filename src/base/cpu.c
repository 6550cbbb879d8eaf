/* cpu.c - what the processor and the operating system allow. */
#include "base/base.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t enabled_state(void) {
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

/* Linux gives a process the AMX tiles' state only when asked: arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA). */
static bool ask_for_tiles(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

fvi_cpu fvi_cpu_detect(void) {
    fvi_cpu cpu = {0};
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_FMA) || !(c & bit_F16C)) {
        return cpu;
    }
    uint64_t state = enabled_state();
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        return cpu;
    }
    cpu.avx2 = (state & 0x6) == 0x6 && (b & bit_AVX2);
    bool zmm = cpu.avx2 && (state & 0xe6) == 0xe6;
    cpu.avx512 = zmm && (b & bit_AVX512F) && (b & bit_AVX512BW) && (b & bit_AVX512DQ) && (b & bit_AVX512VL);
    cpu.avx512_vnni = cpu.avx512 && (c & bit_AVX512VNNI);
    cpu.avx512_vbmi2 = cpu.avx512 && (c & bit_AVX512VBMI2);
    cpu.amx_bf16 = cpu.avx512 && (state & 0x60000) == 0x60000 && (d & 1u << 22) && ask_for_tiles();
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) {
        cpu.avx512_bf16 = cpu.avx512 && (a & 1u << 5);
    }
    return cpu;
}
#else
fvi_cpu fvi_cpu_detect(void) { return (fvi_cpu){0}; }
#endif
