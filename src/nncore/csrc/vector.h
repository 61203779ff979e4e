/* A vector of reals with what the compiler's extensions lack, and the standard headers for all. */

#pragma once

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "nncore.h"

#if FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16 /* 16: half precision, too */
#error "float arithmetic must round to float; on 32-bit x86 compile with -msse2 -mfpmath=sse"
#endif

#ifndef VECTOR_BYTES /* an editor shows a header for these */
#define ISA baseline
#define VECTOR_BYTES 16
#define REAL_BITS 32
#endif

/* The target of all functions from here on, but not of those in the system's headers. Clang needs
 * no prefer-vector-width and rejects it; kernels.h ends Clang's. */
#if defined(__clang__) && VECTOR_BYTES == 64
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), \
                             apply_to = function)
#elif defined(__clang__) && VECTOR_BYTES == 32
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#elif VECTOR_BYTES == 64
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")
#elif VECTOR_BYTES == 32
#pragma GCC target("avx2,fma")
#endif

#define JOIN_(a, b, c, d) a##b##c##d
#define JOIN(a, b, c, d) JOIN_(a, b, c, d)

/* The translation unit's type is `real`; R(x) is a literal of it, FOR_TYPE selects one of two
 * values by it. X86(sqrt) is _mm256_sqrt_ps for float and AVX2, NEON(sqrtq) is vsqrtq_f32. */
#if REAL_BITS == 64
typedef double real;
typedef uint64_t bits;
#define FOR_TYPE(for_float, for_double) for_double
#define X86(operation) JOIN(X86_PREFIX, operation, _pd, )
#define NEON(operation) JOIN(v, operation, _f64, )
#else
typedef float real;
typedef uint32_t bits;
#define FOR_TYPE(for_float, for_double) for_float
#define X86(operation) JOIN(X86_PREFIX, operation, _ps, )
#define NEON(operation) JOIN(v, operation, _f32, )
#endif
#define R(literal) ((real)(literal))
#define MANTISSA_BITS FOR_TYPE(23, 52)
#define EXPONENT_BIAS FOR_TYPE(127, 1023)
#define EPSILON FOR_TYPE(FLT_EPSILON, DBL_EPSILON)
#define SMALLEST_NORMAL FOR_TYPE(FLT_MIN, DBL_MIN)

/* V is a vector of reals, VB the vector of their bits. */
typedef real V __attribute__((vector_size(VECTOR_BYTES)));
typedef bits VB __attribute__((vector_size(VECTOR_BYTES)));
#define LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(real)))

#define INLINE static inline __attribute__((always_inline))
/* Unroll a loop of constant length, at most the 2 x 12 sums of a register tile. */
#define UNROLL _Pragma("GCC unroll 24")

/* x - 0 and not 0 + x, which would turn -0 into 0 and cost an addition. */
INLINE V broadcast(real x) { return x - (V){0}; }
INLINE VB broadcast_bits(bits x) { return x - (VB){0}; }

INLINE V load(const real *p) {
    V x;
    memcpy(&x, p, sizeof x);
    return x;
}

INLINE void store(real *p, V x) { memcpy(p, &x, sizeof x); }

/* MASK enables the first `count` < LANES lanes of a load or a store. */
#if VECTOR_BYTES == 64
#define X86_PREFIX _mm512_
#define MASK(count) ((uint16_t)((1u << (count)) - 1))
#elif VECTOR_BYTES == 32
#define X86_PREFIX _mm256_
static const int32_t tail_mask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
#define MASK(count) _mm256_loadu_si256((const void *)((const bits *)tail_mask + LANES - (count)))
#else
#define X86_PREFIX _mm_
#endif

INLINE VB lane_numbers(void) {
    VB lane;
    for (ptrdiff_t j = 0; j < LANES; j++)
        lane[j] = (bits)j;
    return lane;
}

/* All ones in the first `count` lanes. */
INLINE VB first_lanes(ptrdiff_t count) {
    return (VB)(lane_numbers() < broadcast_bits((bits)count));
}

/* The first `count` < LANES elements; the other lanes are 0, and their memory is not accessed. */
INLINE V load_part(const real *p, ptrdiff_t count) {
#if VECTOR_BYTES == 64
    return X86(maskz_loadu)(MASK(count), p);
#elif VECTOR_BYTES == 32
    return X86(maskload)(p, MASK(count));
#else
    V x = {0};
    for (ptrdiff_t j = 0; j < count; j++)
        x[j] = p[j];
    return x;
#endif
}

INLINE void store_part(real *p, V x, ptrdiff_t count) {
#if VECTOR_BYTES == 64
    X86(mask_storeu)(p, MASK(count), x);
#elif VECTOR_BYTES == 32
    X86(maskstore)(p, MASK(count), x);
#else
    for (ptrdiff_t j = 0; j < count; j++)
        p[j] = x[j];
#endif
}

/* a * b + c, rounded once if the instruction set has such an instruction. */
INLINE V multiply_add(V a, V b, V c) {
#if VECTOR_BYTES >= 32
    return X86(fmadd)(a, b, c);
#elif defined(__aarch64__)
    return NEON(fmaq)(c, a, b);
#else
    return a * b + c;
#endif
}

/* Half a vector, where the processor has registers of this width, which it may multiply at twice
 * the rate. */
#if VECTOR_BYTES == 64
#define HAS_HALF_VECTORS 1
typedef real H __attribute__((vector_size(VECTOR_BYTES / 2)));
#if REAL_BITS == 64
INLINE H low_half(V x) { return _mm512_castpd512_pd256(x); }
INLINE V from_half(H x) { return _mm512_zextpd256_pd512(x); }
INLINE H half_multiply_add(H a, H b, H c) { return _mm256_fmadd_pd(a, b, c); }
#else
INLINE H low_half(V x) { return _mm512_castps512_ps256(x); }
INLINE V from_half(H x) { return _mm512_zextps256_ps512(x); }
INLINE H half_multiply_add(H a, H b, H c) { return _mm256_fmadd_ps(a, b, c); }
#endif
#else
#define HAS_HALF_VECTORS 0
#endif

INLINE V vector_sqrt(V x) {
#if defined(__x86_64__)
    return X86(sqrt)(x);
#elif defined(__aarch64__)
    return NEON(sqrtq)(x);
#else
    for (ptrdiff_t j = 0; j < LANES; j++)
        x[j] = FOR_TYPE(sqrtf, sqrt)(x[j]);
    return x;
#endif
}

/* A comparison of vectors gives all ones or all zeros per lane. */
#if VECTOR_BYTES == 32
#define SELECT(mask, yes, no) X86(blendv)((V)(no), (V)(yes), (V)(mask))
#else
#define SELECT(mask, yes, no) ((V)(((VB)(mask) & (VB)(yes)) | (~(VB)(mask) & (VB)(no))))
#endif

/* max(x, low) and min(x, high); a NaN in x stays. */
#if defined(__x86_64__)
INLINE V at_least(V x, V low) { return X86(max)(low, x); }
INLINE V at_most(V x, V high) { return X86(min)(high, x); }
#else
INLINE V at_least(V x, V low) { return SELECT(x < low, low, x); }
INLINE V at_most(V x, V high) { return SELECT(x > high, high, x); }
#endif

INLINE V absolute(V x) { return (V)((VB)x & broadcast_bits(~(bits)0 >> 1)); }

INLINE V negative_absolute(V x) { return (V)((VB)x | ~broadcast_bits(~(bits)0 >> 1)); }

INLINE V copy_sign(V x, V sign) {
    return (V)((VB)absolute(x) | ((VB)sign & ~broadcast_bits(~(bits)0 >> 1)));
}

/* By halves: a sum of one lane after the other would be a long chain of additions. */
INLINE real lane_sum(V x) {
    UNROLL for (ptrdiff_t half = LANES / 2; half > 0; half /= 2)
        UNROLL for (ptrdiff_t j = 0; j < half; j++) x[j] += x[j + half];
    return x[0];
}

/* Sums that run side by side hide the latency of an addition, about 4 cycles. */
#define PARTIAL_SUMS 4
INLINE V add_parts(const V *parts) { return (parts[0] + parts[1]) + (parts[2] + parts[3]); }

/* Run the statement for each vector of a row of n: j is its offset; `count` elements, which may be
 * more than LANES, are left from there on. */
#define FOR_EACH_VECTOR(j, count, n) \
    for (ptrdiff_t j = 0, count; j < (n) && (count = (n) - j, 1); j += LANES)
#define LOAD(p, count) ((count) >= LANES ? load(p) : load_part(p, count))
#define STORE(p, x, count)           \
    do {                             \
        if ((count) >= LANES)        \
            store(p, x);             \
        else                         \
            store_part(p, x, count); \
    } while (0)
