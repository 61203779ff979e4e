/* What differs between systems and processors: how a thread waits, a monotonic clock, and the
 * handling of subnormal numbers. */

#ifndef NNCORE_SYSTEM_H
#define NNCORE_SYSTEM_H

#include <stdint.h>

#if defined(_WIN32)
#include <windows.h>
#else
#include <sched.h>
#include <time.h>
#endif
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

/* Let another thread have the core. */
static inline void nncore_yield(void) {
#if defined(_WIN32)
    SwitchToThread();
#else
    sched_yield();
#endif
}

/* Tell the core that the thread spins. */
static inline void nncore_spin(void) {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Seconds since some moment. */
static inline double nncore_seconds(void) {
#if defined(_WIN32)
    LARGE_INTEGER count, frequency;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&frequency);
    return (double)count.QuadPart / (double)frequency.QuadPart;
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
#endif
}

/* The thread's floating-point mode. FPCR has 64 bits, which `unsigned long` lacks on Windows. */
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

/* Treat subnormal numbers as 0 where the processor can; returns the mode to restore. Momenta of
 * units that stopped learning decay below the normal range, where operations take many times as
 * long. */
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
