/* A team of threads that works through phases. A leader opens each phase with a number of items;
 * whichever thread is free takes the next one; the phase ends when every item is finished. Nobody
 * waits for a thread, only for items that were taken: a worker that arrives late, or never, costs
 * nothing but its help.
 *
 * The items left are counted down in one atomic word together with the phase's number, so a worker
 * can only take an item of the phase that it sees. Between taking and finishing an item it may read
 * whatever the leader wrote before opening the phase: the leader cannot go on until the item is
 * finished. */

#ifndef NNCORE_TEAM_H
#define NNCORE_TEAM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "system.h"

/* The low bits of the ticket count items, the high ones phases. */
#define NNCORE_ITEM_BITS 40
#define NNCORE_ITEM_MASK ((UINT64_C(1) << NNCORE_ITEM_BITS) - 1)

/* A worker without an item spins this often, about 20 us, then yields its core this often before it
 * should sleep: phases of a running step follow each other within microseconds. */
#define NNCORE_SPINS 2000
#define NNCORE_YIELDS 200

typedef struct {
    atomic_uint_fast64_t ticket;
    atomic_ptrdiff_t finished;
    ptrdiff_t n_items;
    atomic_int stopped; /* items that are left are to be skipped */
    atomic_int closed;  /* workers leave */
    atomic_int *asleep; /* one per thread; the memory is the caller's */
} nncore_team;

static inline void nncore_pause(int spins) {
    if (spins >= NNCORE_SPINS)
        nncore_yield();
    else
        nncore_spin();
}

/* Begin without a phase. `asleep` has a zero per thread, the leader included. */
static inline void nncore_team_open(nncore_team *team, void *asleep) {
    team->asleep = asleep;
    atomic_store(&team->ticket, 0);
    atomic_store(&team->finished, 0);
    atomic_store(&team->stopped, 0);
    atomic_store(&team->closed, 0);
}

/* Workers leave as soon as they have finished their items. */
static inline void nncore_team_close(nncore_team *team) { atomic_store(&team->closed, 1); }

static inline int nncore_team_closed(nncore_team *team) {
    return atomic_load_explicit(&team->closed, memory_order_acquire);
}

/* Open a phase. All items of the one before are finished. */
static inline void nncore_team_begin(nncore_team *team, ptrdiff_t n_items) {
    const uint64_t ticket = atomic_load_explicit(&team->ticket, memory_order_relaxed);
    const uint64_t phase = (ticket >> NNCORE_ITEM_BITS) + 1;
    team->n_items = n_items;
    atomic_store_explicit(&team->finished, 0, memory_order_relaxed);
    /* Sequentially consistent, so that a worker about to sleep sees either this or its wake-up. */
    atomic_store(&team->ticket, phase << NNCORE_ITEM_BITS | (uint64_t)n_items);
}

/* The index of an item that the caller must finish, or -1 if none is left. */
static inline ptrdiff_t nncore_team_take(nncore_team *team) {
    uint_fast64_t ticket = atomic_load_explicit(&team->ticket, memory_order_acquire);
    while (ticket & NNCORE_ITEM_MASK)
        if (atomic_compare_exchange_weak_explicit(&team->ticket, &ticket, ticket - 1,
                                                  memory_order_acq_rel, memory_order_acquire))
            return team->n_items - (ptrdiff_t)(ticket & NNCORE_ITEM_MASK);
    return -1;
}

/* Announce that the worker sleeps until it is roused; false if there is work to do first. */
static inline int nncore_team_doze(nncore_team *team, int rank) {
    atomic_store(&team->asleep[rank], 1);
    if ((atomic_load(&team->ticket) & NNCORE_ITEM_MASK) || atomic_load(&team->closed))
        return !atomic_exchange(&team->asleep[rank], 0);
    return 1;
}

/* Whether the worker sleeps and the caller has to wake it. */
static inline int nncore_team_rouse(nncore_team *team, int rank) {
    return atomic_load_explicit(&team->asleep[rank], memory_order_seq_cst) &&
           atomic_exchange(&team->asleep[rank], 0);
}

static inline void nncore_team_finish(nncore_team *team) {
    atomic_fetch_add_explicit(&team->finished, 1, memory_order_release);
}

/* Whether all items of the phase are finished; what was written for them is then visible. */
static inline int nncore_team_done(nncore_team *team) {
    return atomic_load_explicit(&team->finished, memory_order_acquire) == team->n_items;
}

static inline void nncore_team_stop(nncore_team *team, int stopped) {
    atomic_store_explicit(&team->stopped, stopped, memory_order_relaxed);
}

static inline int nncore_team_stopped(nncore_team *team) {
    return atomic_load_explicit(&team->stopped, memory_order_relaxed);
}

#endif
