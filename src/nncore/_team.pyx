"""A team of threads that share the items of a phase, and the leader's watch for signals.

csrc/team.h has the rules by which threads take and finish items.
"""

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_get_thread_ident,
    PyThread_release_lock, PyThread_type_lock, WAIT_LOCK)

from nncore._tables cimport (
    NNCORE_SPINS, NNCORE_YIELDS, nncore_float_mode, nncore_flush_subnormals, nncore_pause,
    nncore_seconds, nncore_set_float_mode, nncore_team_begin, nncore_team_close,
    nncore_team_closed, nncore_team_done, nncore_team_doze, nncore_team_finish, nncore_team_open,
    nncore_team_rouse, nncore_team_stop, nncore_team_take)

import _thread
import os

import numpy as np

from nncore._threads import forked

cnp.import_array()

# What a yield counts for, in multiplications, while the leader waits.
cdef enum:
    YIELD_WORK = 1_000_000

cdef double WATCH_SECONDS = 0.05

# How long `close` waits for a worker before it looks for signals and forks, in seconds.
_PATIENCE = 0.5


cdef class Team:
    """The calling thread, the leader, and up to n_threads - 1 workers while the team is open."""

    def __init__(self, int n_threads):
        self.n_threads = n_threads

    def open(self):
        """Start the workers; the calling thread leads them.

        A worker is started without waiting for it. If the system has no more threads, fewer do the
        same work.
        """
        cdef int rank
        self.lock_array = np.zeros(self.n_threads, dtype=np.uintp)
        self.asleep_array = np.zeros(self.n_threads, dtype=np.intc)
        self.locks = <PyThread_type_lock *> cnp.PyArray_DATA(self.lock_array)
        nncore_team_open(&self.state, cnp.PyArray_DATA(self.asleep_array))
        self.running = []
        self.process = os.getpid()
        self.is_lost = False
        # The operating system's thread, whatever a library makes of `_thread.get_ident`.
        self.leader = <unsigned long> PyThread_get_thread_ident()
        try:
            for rank in range(1, self.n_threads):
                self.locks[rank] = PyThread_allocate_lock()
                if self.locks[rank] == NULL:
                    break
                PyThread_acquire_lock(self.locks[rank], WAIT_LOCK)
                running = _thread.allocate_lock()
                running.acquire()
                try:
                    _thread.start_new_thread(self._join, (rank, running))
                except RuntimeError:
                    break
                self.running.append(running)
        except BaseException:
            self.close()
            raise
        self.has_workers = True

    def _join(self, int rank, running):
        try:
            # A green thread on the leader's own thread cannot help, and would never return.
            if <unsigned long> PyThread_get_thread_ident() != self.leader:
                with nogil:
                    self._run_worker(rank)
        finally:
            running.release()

    cdef void abandon(self) noexcept:
        """Make the workers leave without waiting for them; a closed team has none."""
        if self.locks != NULL:
            nncore_team_close(&self.state)
            self._wake()

    def close(self):
        """Make the workers leave, and wait until all have. A signal's exception is raised after."""
        failure = None
        if self.locks == NULL:
            return
        self.has_workers = False
        self.abandon()
        for running in self.running:
            # A forked process has no workers.
            while self.process == os.getpid():
                try:
                    # A signal that came before the lock was waited for does not end the wait.
                    PyErr_CheckSignals()
                    if running.acquire(timeout=_PATIENCE):
                        break
                except BaseException as error:
                    failure = failure or error
        self._free_locks()
        self.running = []
        if failure is not None:
            raise failure

    def __dealloc__(self):
        # Of a team that was abandoned, when the last worker has left.
        self._free_locks()

    cdef void _free_locks(self) noexcept:
        cdef int rank
        if self.locks == NULL or self.lock_array is None:
            return
        for rank in range(1, self.n_threads):
            if self.locks[rank] != NULL:
                PyThread_free_lock(self.locks[rank])
        self.locks = NULL

    # A run: the leader begins, enters, works through phases, leaves and ends.

    cdef void begin(self, run_item work, void *context) noexcept:
        """Prepare a run whose items are `work` on the context."""
        self.work, self.context = work, context
        self.failure = None
        self.interrupted = False
        nncore_team_stop(&self.state, 0)
        self.watched, self.seconds = 0, nncore_seconds()

    cdef fail(self, error):
        """Interrupt the run; `end` raises the exception."""
        self.failure = error
        self.interrupted = True

    cdef end(self):
        """Raise what interrupted the run."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    cdef void enter(self) noexcept nogil:
        """Treat subnormal numbers as 0 on the leader until `leave`."""
        self.float_mode = nncore_flush_subnormals()

    cdef void leave(self) noexcept nogil:
        nncore_set_float_mode(self.float_mode)

    cdef void share(self, Py_ssize_t n_items) noexcept nogil:
        """Work on a phase's items, with the workers that are there, until all are finished."""
        cdef:
            Py_ssize_t i
            int spins = 0
        nncore_team_begin(&self.state, n_items)
        self._wake()
        i = nncore_team_take(&self.state)
        while i >= 0:
            if not is_stopped(self):
                self.work(self.context, i, 0)
            nncore_team_finish(&self.state)
            i = nncore_team_take(&self.state)
        while not (nncore_team_done(&self.state) or self.is_lost):
            nncore_pause(spins)
            spins += 1
            if spins > NNCORE_SPINS:
                spins = NNCORE_SPINS
                watch(self, YIELD_WORK)

    cdef void look(self) noexcept nogil:
        """Check for signals if the last check was 50 ms ago."""
        cdef double now = nncore_seconds()
        self.watched = 0
        if now - self.seconds < WATCH_SECONDS or self.interrupted:
            return
        self.seconds = now
        # A handler finds arithmetic as it was before the run.
        nncore_set_float_mode(self.float_mode)
        _check_signals(self)
        nncore_flush_subnormals()
        if self.interrupted and self.may_stop:
            stop(self)

    # The workers.

    cdef void _run_worker(self, int rank) noexcept nogil:
        cdef:
            nncore_float_mode mode = nncore_flush_subnormals()
            Py_ssize_t i
            int spins = 0
        while True:
            i = nncore_team_take(&self.state)
            if i >= 0:
                if not is_stopped(self):
                    self.work(self.context, i, rank)
                nncore_team_finish(&self.state)
                spins = 0
            elif nncore_team_closed(&self.state):
                break
            elif spins < NNCORE_SPINS + NNCORE_YIELDS:
                nncore_pause(spins)
                spins += 1
            else:
                # The leader is busy with something else than a run, a callback for instance.
                if nncore_team_doze(&self.state, rank):
                    PyThread_acquire_lock(self.locks[rank], WAIT_LOCK)
                spins = 0
        nncore_set_float_mode(mode)

    cdef void _wake(self) noexcept nogil:
        cdef int rank
        for rank in range(1, self.n_threads):
            if nncore_team_rouse(&self.state, rank):
                PyThread_release_lock(self.locks[rank])


cdef void _check_signals(Team team) noexcept with gil:
    try:
        PyErr_CheckSignals()
        if team.check is not None:
            team.check()
    except BaseException as error:
        team.fail(error)
    if team.has_workers and team.process != os.getpid():
        team.is_lost = True
        if not team.interrupted:
            team.fail(forked())
