/* A vector of reals and the few operations on it that the compiler's vector extensions lack.
 *
 * A template: the including file defines NNCORE_DOUBLE (0 or 1) and VECTOR_BYTES (16, 32 or 64) and
 * NAME(x), which makes a name unique to type and instruction set, and includes this file and those
 * above it once per type. */

#if NNCORE_DOUBLE
typedef double NAME(real_t);
typedef uint64_t NAME(bits_t);
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#else
typedef float NAME(real_t);
typedef uint32_t NAME(bits_t);
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#endif
#define real NAME(real_t)
#define bits NAME(bits_t)
#define R(literal) ((real)(literal))
#define EPSILON (NNCORE_DOUBLE ? R(DBL_EPSILON) : R(FLT_EPSILON))
#define SMALLEST (NNCORE_DOUBLE ? R(DBL_MIN) : R(FLT_MIN))

typedef real NAME(vector_t) __attribute__((vector_size(VECTOR_BYTES)));
typedef bits NAME(vector_bits_t) __attribute__((vector_size(VECTOR_BYTES)));
#define V NAME(vector_t)
#define VB NAME(vector_bits_t)
#define LANES ((ptrdiff_t)(VECTOR_BYTES / sizeof(real)))

#define INLINE static inline __attribute__((always_inline))

/* x - 0 and not 0 + x, which would turn -0 into 0 and cost an addition. */
INLINE V NAME(all)(real x) { return x - (V){0}; }
INLINE VB NAME(all_bits)(bits x) { return x - (VB){0}; }

INLINE V NAME(load)(const real *p) {
    V x;
    memcpy(&x, p, sizeof x);
    return x;
}

INLINE void NAME(store)(real *p, V x) { memcpy(p, &x, sizeof x); }

/* The instruction set's own names: X86(sqrt) is _mm256_sqrt_ps where float and AVX2 meet. */
#if VECTOR_BYTES == 64
#define X86_PREFIX _mm512_
#elif VECTOR_BYTES == 32
#define X86_PREFIX _mm256_
#else
#define X86_PREFIX _mm_
#endif
#if NNCORE_DOUBLE
#define X86_SUFFIX _pd
#define NEON_SUFFIX _f64
#else
#define X86_SUFFIX _ps
#define NEON_SUFFIX _f32
#endif
#define X86(operation) NNCORE_JOIN(X86_PREFIX, operation, X86_SUFFIX)
#define NEON(operation) NNCORE_JOIN(v, operation, NEON_SUFFIX)

/* Lane masks with the first `count` < LANES lanes on. */
#if VECTOR_BYTES == 64
#define FIRST(count) ((uint16_t)((1u << (count)) - 1))
#elif VECTOR_BYTES == 32
#define FIRST(count) \
    _mm256_loadu_si256((const void *)((const bits *)nncore_tail_mask + LANES - (count)))
#endif

/* All ones in the first `count` lanes. */
INLINE VB NAME(first_lanes)(ptrdiff_t count) {
    VB lane;
    for (ptrdiff_t j = 0; j < LANES; j++)
        lane[j] = (bits)j;
    return (VB)(lane < NAME(all_bits)((bits)count));
}

/* The first `count` < LANES elements; the others read as 0 and are not touched in memory. */
INLINE V NAME(load_some)(const real *p, ptrdiff_t count) {
#if VECTOR_BYTES == 64
    return X86(maskz_loadu)(FIRST(count), p);
#elif VECTOR_BYTES == 32
    return X86(maskload)(p, FIRST(count));
#else
    V x = {0};
    for (ptrdiff_t j = 0; j < count; j++)
        x[j] = p[j];
    return x;
#endif
}

INLINE void NAME(store_some)(real *p, V x, ptrdiff_t count) {
#if VECTOR_BYTES == 64
    X86(mask_storeu)(p, FIRST(count), x);
#elif VECTOR_BYTES == 32
    X86(maskstore)(p, FIRST(count), x);
#else
    for (ptrdiff_t j = 0; j < count; j++)
        p[j] = x[j];
#endif
}

/* a * b + c, rounded once where the instruction set can. */
INLINE V NAME(fma)(V a, V b, V c) {
#if VECTOR_BYTES >= 32
    return X86(fmadd)(a, b, c);
#elif defined(__aarch64__)
    return NEON(fmaq)(c, a, b);
#else
    return a * b + c;
#endif
}

INLINE V NAME(sqrt)(V x) {
#if defined(__x86_64__)
    return X86(sqrt)(x);
#elif defined(__aarch64__)
    return NEON(sqrtq)(x);
#else
    for (ptrdiff_t j = 0; j < LANES; j++)
        x[j] = NNCORE_DOUBLE ? (real)sqrt(x[j]) : (real)sqrtf((float)x[j]);
    return x;
#endif
}

/* A comparison of vectors gives all ones or all zeros per lane. */
#if VECTOR_BYTES == 32
#define SELECT(mask, yes, no) X86(blendv)((V)(no), (V)(yes), (V)(mask))
#else
#define SELECT(mask, yes, no) ((V)(((VB)(mask) & (VB)(yes)) | (~(VB)(mask) & (VB)(no))))
#endif

/* The larger and the smaller; a NaN in x stays. */
#if defined(__x86_64__)
INLINE V NAME(at_least)(V x, V low) { return X86(max)(low, x); }
INLINE V NAME(at_most)(V x, V high) { return X86(min)(high, x); }
#else
INLINE V NAME(at_least)(V x, V low) { return SELECT(x < low, low, x); }
INLINE V NAME(at_most)(V x, V high) { return SELECT(x > high, high, x); }
#endif

INLINE V NAME(abs)(V x) { return (V)((VB)x & NAME(all_bits)(~(bits)0 >> 1)); }

INLINE V NAME(negative_abs)(V x) { return (V)((VB)x | ~NAME(all_bits)(~(bits)0 >> 1)); }

INLINE V NAME(copy_sign)(V x, V sign) {
    return (V)((VB)NAME(abs)(x) | ((VB)sign & ~NAME(all_bits)(~(bits)0 >> 1)));
}

INLINE real NAME(sum)(V x) {
    real total = 0;
    for (ptrdiff_t j = 0; j < LANES; j++)
        total += x[j];
    return total;
}

/* Run the statement for each vector of a row of n: j is its offset, `count` its length. */
#define FOR_EACH_VECTOR(j, count, n) \
    for (ptrdiff_t j = 0, count; j < (n) && (count = (n) - j, 1); j += LANES)
#define LOAD(p, count) ((count) >= LANES ? NAME(load)(p) : NAME(load_some)(p, count))
#define STORE(p, x, count)                 \
    do {                                   \
        if ((count) >= LANES)              \
            NAME(store)(p, x);             \
        else                               \
            NAME(store_some)(p, x, count); \
    } while (0)
