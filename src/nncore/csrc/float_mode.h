/* The processor's handling of subnormal numbers. Momenta of units that stopped learning decay below
 * the normal range, where operations take many times as long, so a run treats such numbers as 0. */

#ifndef NNCORE_FLOAT_MODE_H
#define NNCORE_FLOAT_MODE_H

#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

typedef uint64_t nncore_float_mode;

static inline nncore_float_mode nncore_get_float_mode(void) {
#if defined(__x86_64__)
    return _mm_getcsr();
#elif defined(__aarch64__)
    nncore_float_mode mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
#else
    return 0;
#endif
}

static inline void nncore_set_float_mode(nncore_float_mode mode) {
#if defined(__x86_64__)
    _mm_setcsr((unsigned)mode);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
#else
    (void)mode;
#endif
}

/* Flush subnormals to zero; returns the mode to restore. */
static inline nncore_float_mode nncore_flush_subnormals(void) {
    const nncore_float_mode mode = nncore_get_float_mode();
#if defined(__x86_64__)
    nncore_set_float_mode(mode | 0x8040); /* flush to zero, denormals are zero */
#elif defined(__aarch64__)
    nncore_set_float_mode(mode | UINT64_C(1) << 24); /* FZ */
#endif
    return mode;
}

#endif
