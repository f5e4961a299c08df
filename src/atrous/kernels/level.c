// What exists once, for any processor: which level it has, and what compilers call by themselves.
#include "kernel.h"

#if LEVEL == 1

#if defined(__x86_64__)
#include <cpuid.h>

static unsigned saved_states(void) { // the registers that the system saves: XCR0's lower half
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

EXPORT int processor_level(void) { // 4: AVX-512; 3: AVX2 and FMA; 1: any
    const unsigned avx2 = bit_AVX2 | bit_BMI | bit_BMI2;
    const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL;
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_FMA)) return 1;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 1;
    const unsigned states = saved_states();
    if ((states & 0x6) != 0x6 || (b & avx2) != avx2) return 1;
    return (states & 0xe6) == 0xe6 && (b & avx512) == avx512 ? 4 : 3;
}
#else
EXPORT int processor_level(void) { return 1; }
#endif

void *memcpy(void *to, const void *from, size_t count) {
    for (size_t i = 0; i < count; i++) ((char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memset(void *to, int value, size_t count) {
    for (size_t i = 0; i < count; i++) ((char *)to)[i] = (char)value;
    return to;
}

#if defined(_WIN32)
int DllMainCRTStartup(void *module, unsigned long reason, void *reserved) {
    (void)module, (void)reason, (void)reserved;
    return 1;
}
#endif

#endif
