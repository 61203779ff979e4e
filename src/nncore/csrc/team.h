/* A team of threads that work through the same steps: numbered pieces of work go to whoever is
 * free, and a barrier stands between the phases. Plain C11 atomics: nothing outlives a run. */

#ifndef NNCORE_TEAM_H
#define NNCORE_TEAM_H

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

/* Moments of units that died sink below the normal numbers, where an operation takes several times
 * as long: a run counts such numbers as 0. Returned is what nncore_float_mode puts back. */
#if defined(__x86_64__)
#include <xmmintrin.h>
typedef unsigned nncore_mode;
static inline nncore_mode nncore_flush_subnormals(void) {
    const nncore_mode mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040); /* flush to zero, denormals are zero */
    return mode;
}
static inline void nncore_float_mode(nncore_mode mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
typedef unsigned long nncore_mode;
static inline nncore_mode nncore_flush_subnormals(void) {
    nncore_mode mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" : : "r"(mode | 1ul << 24));
    return mode;
}
static inline void nncore_float_mode(nncore_mode mode) {
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
}
#else
typedef int nncore_mode;
static inline nncore_mode nncore_flush_subnormals(void) { return 0; }
static inline void nncore_float_mode(nncore_mode mode) { (void)mode; }
#endif

typedef struct {
    int members;
    atomic_int open; /* 0: members wait for the start, 1: they may, -1: they shall go home */
    atomic_int stop; /* somebody saw a reason to end the run at the next barrier */
    atomic_int arrived;
    atomic_uint generation;
    atomic_ptrdiff_t next;
} nncore_team;

static inline double nncore_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* With a free core for each member a wait is far shorter than the spins; without, it must let the
 * others run. */
#define NNCORE_SPINS 2000

static inline void nncore_pause(int *spins) {
    if (++*spins < NNCORE_SPINS) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    } else {
        sched_yield();
    }
}

static inline void nncore_team_assemble(nncore_team *team) {
    atomic_store(&team->open, 0);
    atomic_store(&team->stop, 0);
    atomic_store(&team->arrived, 0);
    atomic_store(&team->generation, 0);
    atomic_store(&team->next, 0);
}

/* Start the work of the members that have come, or, with 0, send them home. */
static inline void nncore_team_open(nncore_team *team, int members) {
    team->members = members;
    atomic_store_explicit(&team->open, members > 0 ? 1 : -1, memory_order_release);
}

/* Whether there is work to do. */
static inline int nncore_team_enter(nncore_team *team) {
    int spins = 0, open;
    while ((open = atomic_load_explicit(&team->open, memory_order_acquire)) == 0)
        nncore_pause(&spins);
    return open > 0;
}

/* The number of the next piece of work of this phase. */
static inline ptrdiff_t nncore_team_take(nncore_team *team) {
    if (team->members == 1) {
        const ptrdiff_t next = atomic_load_explicit(&team->next, memory_order_relaxed);
        atomic_store_explicit(&team->next, next + 1, memory_order_relaxed);
        return next;
    }
    return atomic_fetch_add_explicit(&team->next, 1, memory_order_relaxed);
}

/* End the run at the next barrier. */
static inline void nncore_team_stop(nncore_team *team) { atomic_store(&team->stop, 1); }

/* Asked after a barrier: the same answer for all. */
static inline int nncore_team_stopped(nncore_team *team) {
    return atomic_load_explicit(&team->stop, memory_order_relaxed);
}

/* Wait for all; what each wrote before is seen by all after. The next phase counts from 0. */
static inline void nncore_team_wait(nncore_team *team) {
    const unsigned generation = atomic_load_explicit(&team->generation, memory_order_relaxed);
    if (team->members == 1 ||
        atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == team->members - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->next, 0, memory_order_relaxed);
        atomic_store_explicit(&team->generation, generation + 1, memory_order_release);
        return;
    }
    int spins = 0;
    while (atomic_load_explicit(&team->generation, memory_order_acquire) == generation)
        nncore_pause(&spins);
}

#endif
