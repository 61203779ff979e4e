"""The team's parts, for `nncore._step`."""

cimport numpy as cnp
from cpython.pythread cimport PyThread_type_lock

from nncore._tables cimport nncore_float_mode, nncore_team, nncore_team_stop, nncore_team_stopped


# Works on item i of the phase; rank 0 is the leader.
ctypedef void (*run_item)(void *context, Py_ssize_t i, int rank) noexcept nogil


cdef class Team:
    cdef:
        readonly int n_threads
        # Whether the phases of a run are shared with the workers.
        bint has_workers
        # Whether a signal's handler or a loss raised; `end` raises the exception again.
        bint interrupted
        nncore_team state
        run_item work
        void *context
        # Whether a handler forked the process during a phase: the items that workers had taken are
        # never finished.
        readonly bint is_lost
        # Whether a signal may end the phase before all of its items are finished.
        bint may_stop
        # A lock per worker to sleep on.
        PyThread_type_lock *locks
        cnp.ndarray lock_array, asleep_array
        list running
        object process, failure
        # Called by the leader, None or a function, whenever it looks for signals.
        public object check
        unsigned long leader
        # Of the leader, which looks for signals.
        nncore_float_mode float_mode
        Py_ssize_t watched
        double seconds

    cdef void begin(self, run_item work, void *context) noexcept
    cdef fail(self, error)
    cdef end(self)
    cdef void enter(self) noexcept nogil
    cdef void leave(self) noexcept nogil
    cdef void share(self, Py_ssize_t n_items) noexcept nogil
    cdef void look(self) noexcept nogil
    cdef void _run_worker(self, int rank) noexcept nogil
    cdef void _wake(self) noexcept nogil
    cdef void abandon(self) noexcept
    cdef void _free_locks(self) noexcept


cdef inline void stop(Team team) noexcept nogil:
    """Skip the items of the phase that nobody has taken."""
    nncore_team_stop(&team.state, 1)


cdef inline bint is_stopped(Team team) noexcept nogil:
    return nncore_team_stopped(&team.state)


# How often signals are checked: the clock is read after so many multiplications.
cdef enum:
    WATCH_WORK = 10_000_000


cdef inline void watch(Team team, Py_ssize_t work) noexcept nogil:
    """Check for signals now and then, judged by the multiplications made since the last call."""
    team.watched = team.watched + work
    if team.watched >= WATCH_WORK:
        team.look()
