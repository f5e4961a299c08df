// Sixteen floats at a time, whatever the processor does at a time.
#include "kernel.h"

#define LANES 16

typedef float Floats __attribute__((ext_vector_type(LANES), aligned(4)));
typedef int32_t Ints __attribute__((ext_vector_type(LANES), aligned(4)));
typedef double Doubles __attribute__((ext_vector_type(LANES)));
typedef uint8_t Bytes __attribute__((ext_vector_type(LANES), aligned(1)));
typedef uint16_t Shorts __attribute__((ext_vector_type(LANES), aligned(2)));

static inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
static inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }

static inline uint32_t bits(Ints truth) { // of a comparison, the first lane's lowest
    typedef _Bool Bits __attribute__((ext_vector_type(LANES)));
    return __builtin_bit_cast(uint16_t, __builtin_convertvector(truth, Bits));
}

#if defined(__AVX2__)
typedef float Half __attribute__((ext_vector_type(LANES / 2), aligned(4)));
typedef int32_t HalfInts __attribute__((ext_vector_type(LANES / 2)));

static inline Half gather_half(const float *table, HalfInts at) {
    const Half low = __builtin_ia32_permvarsf256(*(const Half *)table, at);
    const Half high = __builtin_ia32_permvarsf256(*(const Half *)(table + LANES / 2), at);
    return at < LANES / 2 ? low : high;
}
#endif

// table[at] in each lane; `near` says that each is below LANES, and the table at least as long.
static inline Floats gather(const float *table, Ints at, int64_t near) {
#if defined(__AVX512F__)
    if (near) return __builtin_ia32_permvarsf512(*(const Floats *)table, at);
#elif defined(__AVX2__)
    if (near) {
        Floats values;
        values.lo = gather_half(table, at.lo), values.hi = gather_half(table, at.hi);
        return values;
    }
#endif
    (void)near;
    Floats values;
    for (int i = 0; i < LANES; i++) values[i] = table[at[i]];
    return values;
}

// a * b + c, rounded once. Where no instruction does it, doubles do but for one case in 2^29.
static inline Floats fused(Floats a, Floats b, Floats c) {
#if defined(__FMA__) || defined(__aarch64__)
    return __builtin_elementwise_fma(a, b, c);
#else
    const Doubles x = __builtin_convertvector(a, Doubles), y = __builtin_convertvector(b, Doubles);
    return __builtin_convertvector(x * y + __builtin_convertvector(c, Doubles), Floats);
#endif
}

// e^x for x up to 88 to 1 ulp, and no less than e^-60: beside e^0 that is nothing, and it never
// turns into a slow denormal number. NaN stays NaN. After Cephes' expf: x = n ln 2 + r.
static inline Floats exp_of(Floats x) {
    const Floats ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    const Floats round = 12582912.0f; // 1.5 * 2^23: what is added to it loses its fraction
    x = x < -60.0f ? (Floats)-60.0f : x;
    const Floats shifted = x * 1.44269504f + round, n = shifted - round;
    const Floats r = (x - n * ln2_high) - n * ln2_low; // the first product is exact
    Floats p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1;
    const Ints power = (__builtin_bit_cast(Ints, shifted) + 127) << 23; // the bits of 2^n
    return p * __builtin_bit_cast(Floats, power);
}
