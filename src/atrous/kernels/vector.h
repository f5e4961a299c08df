// Sixteen floats at a time, whatever the processor does at a time.
#include "kernel.h"

#define LANES 16

typedef float Floats __attribute__((ext_vector_type(LANES), aligned(4)));
typedef int32_t Ints __attribute__((ext_vector_type(LANES), aligned(4)));
typedef double Doubles __attribute__((ext_vector_type(LANES)));

static inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
static inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }

// a * b + c, rounded once. Where no instruction does it, doubles do but for one case in 2^29.
static inline Floats fused(Floats a, Floats b, Floats c) {
#if defined(__FMA__) || defined(__aarch64__)
    return __builtin_elementwise_fma(a, b, c);
#else
    const Doubles product = __builtin_convertvector(a, Doubles) * __builtin_convertvector(b, Doubles);
    return __builtin_convertvector(product + __builtin_convertvector(c, Doubles), Floats);
#endif
}

// e^x for x in [-87, 88] to 1 ulp; below, as at -87. After Cephes' expf: x = n ln 2 + r.
static inline Floats exp_of(Floats x) {
    const Floats ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    const Floats round = 12582912.0f; // 1.5 * 2^23: what is added to it loses its fraction
    x = larger(x, (Floats)-87.0f);
    const Floats n = (x * 1.44269504f + round) - round;
    const Floats r = (x - n * ln2_high) - n * ln2_low; // the first product is exact
    Floats p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1;
    const Ints power = (__builtin_convertvector(n, Ints) + 127) << 23; // the bits of 2^n
    return p * __builtin_bit_cast(Floats, power);
}
