"""The step, equations (1) to (6), for a team of threads.

A step has two phases. Phase 1 cuts the batch into spans of examples; each span goes through (1),
(3) and (4) for all layers, since W is only read. Phase 2 cuts every W into tiles; each tile's
gradient (5) and update (6) run back to back while it is in the cache. Spans and tiles depend on the
shapes alone and go to whichever thread is free. Nothing is summed across threads, so the result has
the same bits for any number of them.

The products run on the tiles of csrc/products.h or on BLAS, behind the same table of functions. All
addresses are bytes and all offsets numbers, so one source serves float32 and float64.
"""

cimport numpy as cnp
from libc.math cimport isfinite, sqrt
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from nncore._kernels cimport CUSTOM, IDENTITY, SOFTMAX, Loss
from nncore._layout cimport (
    GRADIENT, PARAMETERS, STATE_1, STATE_2, STATE_3, Counter, Examples, Layer, Layout, Slot, Source,
    Tile, width_of_panel)
from nncore._tables cimport nncore_sigma
from nncore._team cimport Team, is_stopped, run_item, stop, watch

import numpy as np

from nncore.losses import batch_loss

cnp.import_array()

cdef nncore_sigma NO_SIGMA
NO_SIGMA.kind, NO_SIGMA.slope = IDENTITY, 0

# The examples of a span: enough to read a tile of W from the cache rarely, few enough for their
# activations to stay in it. benchmarks/README.md has the measurements.
cdef enum:
    SPAN = 32
    LONG_SPAN = 64
    LONG_SPAN_BATCH = 256
    BLAS_SPAN = 64
    BLAS_SPANS = 8
    BLAS_OUTPUT_SPAN = 256
    LEAST_SPAN = 4
    # A network whose span would hold fewer multiplications takes more examples: calls count, too.
    LEAST_SPAN_WORK = 400_000
    # The most examples of an item: a W beyond L2 is read from memory once per item.
    LONGEST_ITEM = 256

# What a batch counts for, in multiplications, until signals are checked again.
cdef enum:
    BATCH_WORK = 1_000


cpdef Py_ssize_t span_of(Py_ssize_t batch_size, Py_ssize_t n_parameters, bint blas) noexcept:
    """Return how many examples a span has, so that spans share a batch out evenly.

    A small batch is halved so that two threads have work. BLAS packs W for every span and needs
    longer ones. A batch size of 0 stands for outputs alone.
    """
    cdef Py_ssize_t most
    if batch_size == 0:
        return BLAS_OUTPUT_SPAN if blas else SPAN
    if blas:
        most = max(BLAS_SPAN, (batch_size + BLAS_SPANS - 1) // BLAS_SPANS)
    else:
        most = max(
            SPAN if batch_size <= LONG_SPAN_BATCH else LONG_SPAN,
            LEAST_SPAN_WORK // max(n_parameters, 1))
        most = min(most, max((batch_size + 1) // 2, LEAST_SPAN))
    cdef Py_ssize_t spans = (batch_size + most - 1) // most
    return (batch_size + spans - 1) // spans if spans else 1


cpdef Py_ssize_t spans_of(Py_ssize_t span, Py_ssize_t parameter_bytes, Py_ssize_t l2) noexcept:
    """Return how many spans a thread may take at a time."""
    return max(1, LONGEST_ITEM // span) if parameter_bytes > l2 else 1


cdef enum Kind:
    GRADIENT_DESCENT
    MOMENTUM
    ADAM
    AMSGRAD
    RMSPROP


# What the items of a phase are: one or more spans that go forward, or forward and back, or one of
# both for the whole batch first, and tiles.
cdef enum Phase:
    FORWARD
    BACKWARD
    # (1), keeping every layer's activations; then (3) and (4) from ∂E/∂A in the targets' place.
    ACTIVATE
    GO_BACK
    # (5) and (6) on a tile: of plain gradient descent, and of the other rules.
    DESCEND
    FUSED
    # (5) into the gradient's slot, added to what the batches before left there.
    ACCUMULATE
    # (5) into the gradient's slot with the L2 terms, and its squared norm.
    MEASURED
    # The L2 terms added to the gradient's slot, and its squared norm.
    MEASURE
    # (6) from the gradient's slot.
    UPDATE


cdef struct Rule:
    Kind kind
    double learning_rate
    double weight_decay
    double decoupled_decay
    double momentum
    bint nesterov
    double beta_1
    double beta_2
    double rho
    bint centered
    double epsilon
    bint epsilon_uncorrected
    double penalty
    double max_norm
    uint64_t dropout_seed


cdef class Workspace(Layout):
    """A `Layout` and the code that takes batches through it.

    The slots hold the parameters and the optimizer's state from one call to the next; `load` and
    `write_back` exchange them with flat vectors.
    """

    cdef:
        public Py_ssize_t step_count
        # The first example that the last call of `train` did not use.
        readonly Py_ssize_t done
        readonly Team team
        Rule rule
        # The phase, and the batch that it works on.
        Phase phase
        Py_ssize_t first, n_rows
        double weight, decay, clipping
        # Of (5): the gradient is scaled and added to what W and b, or the gradient's slot, hold.
        double scale, beta
        double step_size, epsilon
        # η λ of the decoupled decay.
        double shrinkage
        # The rates of consecutive steps, and the number of the first of these; None if all steps
        # have the rule's.
        const double[::1] rates
        Py_ssize_t first_rated
        # The run.
        Examples examples
        const Py_ssize_t *order
        Py_ssize_t n_order
        bint rows_in_place, drops, checks_rows
        uint64_t dropout_step, first_example
        double total
        char **outs
        # A loss of the user's, and whether batches call it; the sum of the last batch's losses.
        object custom_loss
        bint calls_loss
        double batch_loss
        # Where δ^0 goes, if anywhere, and the bytes between its rows.
        char *dX
        Py_ssize_t dX_stride
        # The spans of the batch, and how many of them an item has.
        Py_ssize_t n_spans, item_spans
        # Of each span.
        double *span_losses
        double *span_weights
        cnp.ndarray span_sums, out_array

    def __init__(self, architecture, batch_size, span, most_spans, n_threads, blas):
        super().__init__(architecture, batch_size, span, most_spans, n_threads, blas)
        self.team = Team(n_threads)
        self.custom_loss = architecture.custom_loss
        self.calls_loss = self.custom_loss is not None
        self.out_array = np.zeros(self.depth, dtype=np.intp)
        self.outs = <char **> cnp.PyArray_DATA(self.out_array)

    def configure(self, rule, options):
        """Set the rule (6), an `optimizers.Rule`, and the `StepOptions` of the steps to come."""
        cdef Py_ssize_t l
        kinds = {
            "gradient_descent": GRADIENT_DESCENT, "momentum": MOMENTUM, "adam": ADAM,
            "amsgrad": AMSGRAD, "rmsprop": RMSPROP}
        self.rule = Rule(
            kinds[rule.kind], rule.learning_rate if rule.schedule is None else 0,
            rule.weight_decay, rule.decoupled_decay, rule.momentum, rule.nesterov, rule.beta_1,
            rule.beta_2, rule.rho, rule.centered, rule.epsilon, rule.epsilon_uncorrected,
            rule.penalty, options.max_norm, options.dropout_seed)
        self.rates = None
        self.drops = any(options.dropout)
        for l in range(self.depth):
            self.layers[l].dropout_rate = (
                options.dropout[l] if l < len(options.dropout) else 0)

    def schedule(self, const double[::1] rates not None):
        """Set the learning rate of each of the next steps; the next rule ends this."""
        self.rates = rates
        self.first_rated = self.step_count
        self.rule.learning_rate = rates[0]

    def knows_rates(self, Py_ssize_t n_steps):
        """Return whether the rates of that many next steps have been set."""
        return self.rates is not None and (
            0 <= self.step_count - self.first_rated <= self.rates.shape[0] - n_steps)

    @property
    def learning_rate(self):
        """The learning rate of the last step, or before it that of the first one."""
        return self.rule.learning_rate

    # The runs.

    def train(
        self, Examples examples not None, const Py_ssize_t[::1] order, Py_ssize_t batch_size,
        Py_ssize_t begin, Py_ssize_t end, double[:, ::1] sums, bint keep_going,
    ):
        """Make the steps of a range of examples; set `done` to the first one not used.

        Batches are cut from the examples begin to end, taken in `order` or, if it is None, as they
        lie. A row of `sums`, of shape (n_batches, 3), receives a batch's loss before its step,
        summed with the examples' weights; the sum of these weights; and the ‖W‖² before the step
        if the rule has a penalty. A batch without weight makes no step.

        A batch whose loss is not finite ends the run before its step unless `keep_going`. Ctrl-C,
        or an exception in a loss of the user's, ends it after a whole step and is raised.
        """
        self.done = begin
        self._begin(examples, order, min(batch_size, end - begin))
        self.dropout_step = self.step_count
        with nogil:
            self.done = _train(self, batch_size, begin, end, &sums[0, 0], keep_going)
        self._end()

    def write_back(self, tuple vectors not None, Counter steps):
        """Copy parameters and state into the flat vectors, and the steps made into the counter."""
        self._write_back(vectors)
        if steps is not None:
            steps.value = self.step_count

    def step(self, Examples examples not None, tuple vectors not None, Counter steps not None):
        """Make one step with all examples as its batch, and write it back if all is finite.

        Return the loss before the step, summed with the examples' weights, and whether the step
        was written back. Otherwise the slots are out of date.
        """
        cdef:
            double[3] sums
            Py_ssize_t n = examples.n
        self._begin(examples, None, n)
        self.dropout_step = self.step_count
        with nogil:
            _train(self, n, 0, n, sums, False)
        self._end()
        if isfinite(sums[0]) and self.is_finite():
            self.write_back(vectors, steps)
            return sums[0], True
        self.forget()
        return sums[0], False

    def gradient(
        self, cnp.ndarray out not None, Examples examples not None, double scale, *,
        bint dropout=False, uint64_t step=0, uint64_t first_example=0,
    ):
        """Set `out` to `scale` times the gradient of the examples' summed loss; return that sum.

        With `dropout`, units are dropped as in the step number `step`, where the
        examples follow `first_example` others of the same batch.
        """
        cdef bint drops = self.drops
        self._begin(examples, None, self.batch_size)
        self.scale = scale
        self.dropout_step, self.first_example = step, first_example
        self.drops = dropout and drops
        with nogil:
            _gradient(self)
        self.drops = drops
        self._end()
        self._unpack(GRADIENT, out)
        return self.total

    def backward(
        self, cnp.ndarray out not None, cnp.ndarray dX not None, Examples examples not None,
    ):
        """Set `out` and `dX` to ∂f/∂(parameters) and ∂f/∂X, where the targets are ∂f/∂A^L."""
        cdef Loss loss = self.loss
        cdef bint calls_loss = self.calls_loss
        self._prepare_input_deltas()
        self.dX, self.dX_stride = cnp.PyArray_BYTES(dX), self.n_in * self.itemsize
        self.loss, self.calls_loss = CUSTOM, False
        try:
            self.gradient(out, examples, 1.0)
        finally:
            self.loss, self.calls_loss = loss, calls_loss
            self.dX = NULL

    def jacobian(self, cnp.ndarray out not None, Examples examples not None):
        """Set `out`, of shape (n, n_L, n_0), to ∂A^L/∂X."""
        cdef Loss loss = self.loss
        cdef bint drops = self.drops
        self._prepare_input_deltas()
        self.dX_stride = self.n_out * self.n_in * self.itemsize
        self._begin(examples, None, self.batch_size)
        # The steps before may have dropped units.
        self.loss, self.drops = CUSTOM, False
        with nogil:
            _jacobian(self, cnp.PyArray_BYTES(out))
        self.loss, self.drops = loss, drops
        self.dX = NULL
        self._end()

    def update(self, cnp.ndarray gradient not None, double weight):
        """Apply (6) for the mean gradient of examples with that sum of weights."""
        self._pack(GRADIENT, gradient)
        self._begin(None, None, 0)
        self.weight = weight
        with nogil:
            _update_all(self)
        self._end()

    def total_loss(self, Examples examples not None, cnp.ndarray rows=None, cnp.ndarray out=None):
        """Return the sum of weight times loss over the examples, or over those in `rows`.

        Their outputs are written into `out`, if it is given.
        """
        if out is not None:
            self.outs[self.depth - 1] = cnp.PyArray_BYTES(out)
        self._begin(examples, rows, examples.n if rows is None else len(rows))
        if rows is None:
            self._choose_rows_in_place()
        with nogil:
            _forward_all(self)
        self.outs[self.depth - 1] = NULL
        self._end()
        return self.total

    def predict(self, list outs not None, Examples examples not None, bint check):
        """Write each layer's activations into an array of `outs`, or nowhere where it is None.

        With `check`, an input that is not finite in the network's dtype ends the run early. Return
        whether all were finite.
        """
        cdef Py_ssize_t l
        for l in range(self.depth):
            self.outs[l] = NULL if outs[l] is None else cnp.PyArray_BYTES(outs[l])
        self._begin(examples, None, examples.n)
        self._choose_rows_in_place()
        self.checks_rows = check
        with nogil:
            _forward_all(self)
        for l in range(self.depth):
            self.outs[l] = NULL
        self._end()
        return not is_stopped(self.team)

    cdef _call_loss(self):
        """Call the user's loss for the batch; write ∂E/∂A in the place of its targets."""
        cdef:
            cnp.ndarray derivative
            cnp.ndarray A = np.empty(
                (self.n_rows, self.n_out), np.float64 if self.double_precision else np.float32)
            cnp.npy_intp n_rows = self.n_rows
        memcpy(cnp.PyArray_DATA(A), _outputs(self, self.first, 0), A.nbytes)
        rows = slice(self.first, self.first + self.n_rows)
        if self.order != NULL:
            rows = cnp.PyArray_SimpleNewFromData(
                1, &n_rows, cnp.NPY_INTP, <void *> (self.order + self.first))
        _, Y, sample_weight = self.examples.arrays
        self.batch_loss, derivative = batch_loss(
            self.custom_loss, A, Y[rows], None if sample_weight is None else sample_weight[rows])
        memcpy(self.Y, cnp.PyArray_DATA(derivative), A.nbytes)

    cdef _begin(self, Examples examples, const Py_ssize_t[::1] order, Py_ssize_t batch):
        cdef Py_ssize_t n_spans = (batch + self.span - 1) // self.span
        self.examples = examples
        self.order, self.n_order = NULL, 0
        if order is not None:
            self.order, self.n_order = &order[0], order.shape[0]
        self.rows_in_place = self.checks_rows = False
        self.first_example = 0
        self.total = 0
        if self.span_sums is None or len(self.span_sums) < 2 * n_spans:
            self.span_sums = np.empty(2 * n_spans)
        self.span_losses = <double *> cnp.PyArray_DATA(self.span_sums)
        self.span_weights = self.span_losses + n_spans
        self.tiles_are_checked = False
        self.team.begin(<run_item> _shared_item, <void *> self)

    cdef _choose_rows_in_place(self):
        """Rows that are read once need not be laid out in panels, if they have the right type."""
        cdef Source X = self.examples.X
        self.rows_in_place = (
            self.panel_width > 0 and X.type == self.own_type and X.column_stride == self.itemsize
            and X.row_stride > 0 and X.row_stride % self.itemsize == 0
            and <Py_ssize_t> X.data % self.itemsize == 0)

    cdef _end(self):
        self.examples = None
        self.team.end()


# The leader: it opens phases one after the other.

cdef Py_ssize_t _train(
    Workspace w, Py_ssize_t batch_size, Py_ssize_t begin, Py_ssize_t end, double *sums,
    bint keep_going,
) noexcept nogil:
    w.team.enter()
    while begin < end:
        _backward(w, begin, min(batch_size, end - begin), sums)
        if w.team.interrupted:
            break
        sums[2] = 0
        if not (isfinite(sums[0]) or keep_going):
            begin += w.n_rows
            break
        if w.weight != 0:
            # The last step looks at its tiles while they are in the cache.
            w.tiles_are_checked = begin + w.n_rows == end
            _step(w)
            if w.rule.penalty > 0:
                sums[2] = _sum(w.weight_squares, w.n_tiles)
        begin += w.n_rows
        sums += 3
        if w.team.interrupted:
            break
    w.team.leave()
    return begin


cdef void _gradient(Workspace w) noexcept nogil:
    cdef:
        Py_ssize_t begin = 0, n = w.examples.n
        double[2] sums
    w.team.enter()
    while begin < n and not w.team.interrupted:
        _backward(w, begin, min(w.batch_size, n - begin), sums)
        if w.team.interrupted:
            break
        w.total = w.total + sums[0]
        w.beta = 0 if begin == 0 else 1
        _run_phase(w, ACCUMULATE, w.n_tiles)
        w.first_example = w.first_example + w.n_rows
        begin += w.n_rows
    w.team.leave()


cdef void _jacobian(Workspace w, char *out) noexcept nogil:
    """A row of every example's Jacobian at a time: (4) from a derivative of one output."""
    cdef Py_ssize_t j, begin = 0, n = w.examples.n
    w.team.enter()
    while begin < n and not w.team.interrupted:
        _cut_spans(w, begin, min(w.batch_size, n - begin))
        _run_phase(w, ACTIVATE, _n_items(w))
        for j in range(w.n_out):
            if w.team.interrupted:
                break
            _set_targets_to_unit(w, j)
            w.dX = out + j * w.n_in * w.itemsize
            _run_phase(w, GO_BACK, _n_items(w))
        begin += w.n_rows
    w.team.leave()


cdef void _set_targets_to_unit(Workspace w, Py_ssize_t j) noexcept nogil:
    """Set each row of the targets to 1 in column j and 0 elsewhere."""
    cdef Py_ssize_t i
    memset(w.Y, 0, w.n_rows * w.n_out * w.itemsize)
    for i in range(w.n_rows):
        if w.double_precision:
            (<double *> w.Y)[i * w.n_out + j] = 1
        else:
            (<float *> w.Y)[i * w.n_out + j] = 1


cdef void _update_all(Workspace w) noexcept nogil:
    w.team.enter()
    _count_step(w)
    if w.rule.max_norm > 0:
        _run_phase(w, MEASURE, w.n_tiles)
        _clip(w)
    _run_phase(w, UPDATE, w.n_tiles)
    w.team.leave()


cdef void _forward_all(Workspace w) noexcept nogil:
    """FORWARD for any number of examples, each thread in a span's rows of its own."""
    cdef:
        bint has_workers = w.team.has_workers
        Py_ssize_t spans_per_thread = w.batch_size // w.span // w.n_threads
    w.team.enter()
    _cut_spans(w, 0, w.examples.n if w.order == NULL else w.n_order)
    # A workspace for small batches may lack the rows for every thread.
    w.team.has_workers = has_workers and spans_per_thread > 0
    w.item_spans = max(1, min(w.item_spans, spans_per_thread))
    _run_phase(w, FORWARD, _n_items(w))
    w.team.has_workers = has_workers
    w.total = _sum(w.span_losses, w.n_spans)
    w.team.leave()


cdef inline void _cut_spans(Workspace w, Py_ssize_t first, Py_ssize_t n_rows) noexcept nogil:
    """Set the batch, and cut it into items of one or more spans, enough of them for all threads."""
    w.first, w.n_rows = first, n_rows
    w.n_spans = (n_rows + w.span - 1) // w.span
    w.item_spans = 1
    if w.most_spans > 1:
        w.item_spans = max(1, min(w.most_spans, w.n_spans // w.n_threads))


cdef inline Py_ssize_t _n_items(Workspace w) noexcept nogil:
    return w.n_spans if w.item_spans == 1 else (w.n_spans + w.item_spans - 1) // w.item_spans


cdef void _backward(Workspace w, Py_ssize_t first, Py_ssize_t n_rows, double *sums) noexcept nogil:
    """Phase 1 of a batch, and its sums of losses and weights."""
    _cut_spans(w, first, n_rows)
    if w.calls_loss:
        _run_phase(w, ACTIVATE, _n_items(w))
        if not w.team.interrupted:
            _use_loss_of_user(w)
        if not w.team.interrupted:
            _run_phase(w, GO_BACK, _n_items(w))
        sums[0] = w.batch_loss
    else:
        _run_phase(w, BACKWARD, _n_items(w))
        sums[0] = _sum(w.span_losses, w.n_spans)
    watch(w.team, BATCH_WORK)
    sums[1] = n_rows if w.examples.sample_weight == NULL else _sum(w.span_weights, w.n_spans)
    w.weight = sums[1]


cdef void _use_loss_of_user(Workspace w) noexcept with gil:
    """Call the loss with arithmetic as it was before the run; an exception interrupts the run."""
    w.team.leave()
    try:
        w._call_loss()
    except BaseException as error:
        w.team.fail(error)
    w.team.enter()


cdef void _step(Workspace w) noexcept nogil:
    """Phase 2 of a batch. A limit of the gradient's norm splits it: all gradients, then updates."""
    _count_step(w)
    if w.rule.max_norm > 0:
        _run_phase(w, MEASURED, w.n_tiles)
        _clip(w)
        _run_phase(w, UPDATE, w.n_tiles)
    else:
        if w.rule.kind == GRADIENT_DESCENT:
            # W <- (1 - η λ) W - η/N δ Aᵀ.
            w.beta = 1 - w.rule.learning_rate * w.decay
            w.scale = -w.rule.learning_rate * w.scale
            _run_phase(w, DESCEND, w.n_tiles)
        else:
            _run_phase(w, FUSED, w.n_tiles)
    w.dropout_step = w.step_count


cdef void _count_step(Workspace w) noexcept nogil:
    """Set what a step shares among its tiles: its rate, Adam's corrections, factors of decay."""
    cdef double correction
    if w.rates is not None:
        w.rule.learning_rate = w.rates[w.step_count - w.first_rated]
    w.step_count = w.step_count + 1
    w.clipping = 1
    w.scale, w.beta = 1 / w.weight, 0
    w.decay = w.rule.weight_decay + w.rule.penalty * w.scale
    w.shrinkage = w.rule.learning_rate * w.rule.decoupled_decay
    if w.rule.kind == ADAM or w.rule.kind == AMSGRAD:
        correction = sqrt(1 - w.rule.beta_2 ** w.step_count)
        w.step_size = w.rule.learning_rate * correction / (1 - w.rule.beta_1 ** w.step_count)
        w.epsilon = w.rule.epsilon * (1 if w.rule.epsilon_uncorrected else correction)


cdef void _clip(Workspace w) noexcept nogil:
    """Set the factor that scales a long gradient to the limit. The L2 terms are part of it."""
    cdef double squares = _sum(w.gradient_squares, w.n_tiles)
    if squares > w.rule.max_norm ** 2:
        w.clipping = w.rule.max_norm / sqrt(squares)
    w.decay = 0


cdef inline double _sum(const double *x, Py_ssize_t count) noexcept nogil:
    cdef:
        Py_ssize_t i
        double total = 0
    for i in range(count):
        total += x[i]
    return total


cdef void _run_phase(Workspace w, Phase phase, Py_ssize_t n_items) noexcept nogil:
    """Work on the items of a phase, with the workers that are there, until all are finished."""
    cdef Py_ssize_t i
    w.phase = phase
    # Spans may be abandoned; tiles that change the parameters may not.
    w.team.may_stop = phase <= GO_BACK
    if not w.team.has_workers:
        for i in range(n_items):
            _item(w, i, 0)
            if is_stopped(w.team):
                return
        return
    w.team.share(n_items)


cdef inline void _item(Workspace w, Py_ssize_t i, int rank) noexcept nogil:
    if w.phase <= GO_BACK:
        _spans(w, i, rank)
        if rank == 0:
            watch(w.team, w.item_spans * w.span * w.n_packed)
        return
    if w.phase == DESCEND:
        _descend(w, &w.tiles[i], i)
    elif w.phase == UPDATE:
        _update_tile(w, &w.tiles[i])
    else:
        _gradient_tile(w, &w.tiles[i], i, rank)
    if w.tiles_are_checked and (w.phase <= FUSED or w.phase == UPDATE):
        w.tile_is_finite[i] = w._check_tile(&w.tiles[i])


cdef void _shared_item(Workspace w, Py_ssize_t i, int rank) noexcept nogil:
    _item(w, i, rank)


# Phase 1.

cdef void _spans(Workspace w, Py_ssize_t i, int rank) noexcept nogil:
    """(1) to (4), or the phase's part of them, for the spans of item i."""
    cdef:
        Py_ssize_t n_item = w.item_spans * w.span
        Py_ssize_t first = w.first + i * n_item
        Py_ssize_t n_rows = min(n_item, w.n_rows - i * n_item)
        # Where the item's rows are in the workspace.
        Py_ssize_t row = rank * n_item if w.phase == FORWARD else i * n_item
        char *outputs = _outputs(w, first, row)
        char *Y = w.Y + row * w.n_out * w.itemsize
        const char *sample_weight = NULL
    if w.examples.sample_weight != NULL:
        sample_weight = w.sample_weight + row * w.itemsize
    if w.phase != GO_BACK:
        if sample_weight != NULL:
            _gather_weights(w, i * w.item_spans, <char *> sample_weight, first, n_rows)
        if not _activate(w, outputs, sample_weight, first, row, n_rows) or w.phase == ACTIVATE:
            return
        if w.examples.classes == NULL and w.examples.Y.data == NULL:
            return
        _gather_targets(w, Y, first, n_rows)
        _add_losses(w, i * w.item_spans, outputs, Y, sample_weight, n_rows)
        if w.phase == FORWARD:
            return
    _go_back(w, outputs, Y, sample_weight, first, row, n_rows)


cdef inline bint _is_row_major(Workspace w) noexcept nogil:
    """Whether the outputs are row-major in the workspace. The panel of a single output is, too."""
    return w.panel_width == 0 or w.n_out == 1


cdef inline char *_outputs(Workspace w, Py_ssize_t first, Py_ssize_t row) noexcept nogil:
    """Where the row-major outputs of the examples from `first` on are, or will be."""
    cdef Py_ssize_t size = w.n_out * w.itemsize
    if w.outs[w.depth - 1] != NULL:
        return w.outs[w.depth - 1] + first * size
    if _is_row_major(w):
        return w.activations + w.layers[w.depth - 1].A * w.itemsize + row * size
    return w.outputs + row * size


cdef bint _activate(
    Workspace w, char *outputs, const char *sample_weight, Py_ssize_t first, Py_ssize_t row,
    Py_ssize_t n_rows,
) noexcept nogil:
    """(1) for some rows. Return False if their inputs were to be checked and are not finite."""
    cdef:
        Py_ssize_t l, A_stride = 0, capacity = w.capacity, size = w.itemsize
        const Source *X = &w.examples.X
        char *examples = w.activations + w.layers[0].A_prev * size
        char *parameters = w.packed[<int> PARAMETERS]
        const char *A_prev
        char *A
        char *derivatives
        Layer *layer
        bint is_row_major = _is_row_major(w)
        nncore_sigma sigma
    if w.rows_in_place:
        A_prev = X.data + (first - row) * X.row_stride
        A_stride = X.row_stride // size
        if w.checks_rows and not w.kernels.finite(
                A_prev + row * X.row_stride, n_rows, w.n_in, A_stride):
            stop(w.team)
            return False
    else:
        A_prev = examples
        w.kernels.gather(
            examples, X.data, X.type, X.row_stride, X.column_stride, w.order, w.n_order, first,
            w.panel_width or w.n_in, row, n_rows, capacity, w.n_in)
        if w.checks_rows and not _panels_are_finite(w, examples, row, n_rows):
            stop(w.team)
            return False
    if sample_weight != NULL and w.phase != FORWARD:
        _clear_weightless(w, examples, sample_weight, row, n_rows)
    for l in range(w.depth):
        layer = &w.layers[l]
        # Softmax needs whole rows, so in panels it waits until they are row-major.
        sigma = layer.sigma
        if sigma.kind == SOFTMAX and not is_row_major:
            sigma.kind = IDENTITY
        A = w.activations + layer.A * size
        derivatives = NULL
        if w.phase != FORWARD and layer.derivatives != layer.A:
            derivatives = w.activations + layer.derivatives * size
        w.kernels.forward(
            A, derivatives, A_prev, A_stride, parameters + layer.W * size,
            parameters + layer.b * size, sigma, row, n_rows, capacity, layer.n_prev, layer.n)
        if w.drops and w.phase != FORWARD and layer.dropout_rate > 0:
            _dropout(w, l, A, row, n_rows)
            if derivatives != NULL:
                _dropout(w, l, derivatives, row, n_rows)
        if w.outs[l] != NULL:
            _copy_rows(w, w.outs[l] + first * layer.n * size, A, row, n_rows, layer.n)
        A_prev = A
        A_stride = 0
    if not is_row_major:
        if w.outs[w.depth - 1] == NULL:
            _copy_rows(w, outputs, A_prev, row, n_rows, w.n_out)
        layer = &w.layers[w.depth - 1]
        if layer.sigma.kind == SOFTMAX:
            w.kernels.bias_activation(outputs, NULL, NULL, layer.sigma, n_rows, w.n_out)
    return True


cdef void _dropout(
    Workspace w, Py_ssize_t l, char *A, Py_ssize_t row, Py_ssize_t n_rows,
) noexcept nogil:
    """Drop units of layer l + 1, at index l."""
    cdef Layer *layer = &w.layers[l]
    w.kernels.dropout(
        A, layer.dropout_rate, w.rule.dropout_seed, w.dropout_step, l + 1, w.first_example,
        w.panel_width or layer.n, row, n_rows, w.capacity, layer.n)


cdef void _go_back(
    Workspace w, const char *outputs, const char *Y, const char *sample_weight, Py_ssize_t first,
    Py_ssize_t row, Py_ssize_t n_rows,
) noexcept nogil:
    """(3) and (4) for some rows."""
    cdef:
        Py_ssize_t l, size = w.itemsize
        Layer *last = &w.layers[w.depth - 1]
        char *delta = w.deltas + last.A * size
        char *output_deltas = (
            (delta if _is_row_major(w) else w.output_deltas) + row * w.n_out * size)
        const char *derivatives = outputs
    if last.derivatives != last.A:
        derivatives = _output_derivatives(w, row, n_rows)
    w.kernels.output_delta(
        output_deltas, outputs, derivatives, Y, sample_weight, w.loss, w.threshold,
        last.sigma, n_rows, w.n_out)
    if not _is_row_major(w):
        w.kernels.gather(
            delta, output_deltas, w.own_type, w.n_out * size, size, NULL, 0, 0, w.panel_width,
            row, n_rows, w.capacity, w.n_out)
    for l in range(w.depth - 1, 0, -1):
        _delta(w, l, row, n_rows)
    if w.dX != NULL:
        _input_delta(w, first, row, n_rows)


cdef const char *_output_derivatives(
    Workspace w, Py_ssize_t row, Py_ssize_t n_rows,
) noexcept nogil:
    """Return the output layer's σ′(Z) of some rows, row-major."""
    cdef:
        const char *derivatives = (
            w.activations + w.layers[w.depth - 1].derivatives * w.itemsize)
        Py_ssize_t row_out = row * w.n_out * w.itemsize
    if _is_row_major(w):
        return derivatives + row_out
    _copy_rows(w, w.output_derivatives + row_out, derivatives, row, n_rows, w.n_out)
    return w.output_derivatives + row_out


cdef void _gather_weights(
    Workspace w, Py_ssize_t span, char *out, Py_ssize_t first, Py_ssize_t n_rows,
) noexcept nogil:
    """Gather the sample weights of an item, and add up each span's."""
    while n_rows > 0:
        w.span_weights[span] = w.kernels.gather_weights(
            out, w.examples.sample_weight, w.order, first, min(w.span, n_rows))
        span, first, n_rows = span + 1, first + w.span, n_rows - w.span
        out += w.span * w.itemsize


cdef void _add_losses(
    Workspace w, Py_ssize_t span, const char *A, const char *Y, const char *sample_weight,
    Py_ssize_t n_rows,
) noexcept nogil:
    """(2) for each span of an item: sums that do not depend on how many spans an item has."""
    cdef Py_ssize_t step = w.span * w.n_out * w.itemsize
    while n_rows > 0:
        w.span_losses[span] = w.kernels.loss(
            A, Y, sample_weight, w.loss, w.threshold, min(w.span, n_rows), w.n_out)
        span, n_rows, A, Y = span + 1, n_rows - w.span, A + step, Y + step
        if sample_weight != NULL:
            sample_weight += w.span * w.itemsize


cdef void _delta(Workspace w, Py_ssize_t l, Py_ssize_t row, Py_ssize_t n_rows) noexcept nogil:
    """(4) from layer l + 1, at index l, to layer l."""
    cdef:
        Py_ssize_t size = w.itemsize
        Layer *layer = &w.layers[l]
        Layer *before = &w.layers[l - 1]
        # The derivatives have gone through dropout themselves.
        bint drops = (
            w.drops and before.dropout_rate > 0 and before.derivatives == before.A)
        char *delta_prev = w.deltas + layer.A_prev * size
        const char *derivatives = w.activations + before.derivatives * size
        const char *W = (
            w.transposes + layer.transposed * size if w.panel_width
            else w.packed[<int> PARAMETERS] + layer.W * size)
    w.kernels.delta(
        delta_prev, w.deltas + layer.A * size, W, derivatives,
        NO_SIGMA if drops else before.sigma, row, n_rows, w.capacity, layer.n_prev, layer.n)
    if drops:
        w.kernels.dropout_derivative(
            delta_prev, derivatives, before.sigma, before.dropout_rate, w.rule.dropout_seed,
            w.dropout_step, l, w.first_example, w.panel_width or layer.n_prev, row, n_rows,
            w.capacity, layer.n_prev)


cdef void _input_delta(
    Workspace w, Py_ssize_t first, Py_ssize_t row, Py_ssize_t n_rows,
) noexcept nogil:
    """δ^0 = δ^1 W^1ᵀ for some rows: (4), without the derivative of a σ."""
    cdef:
        Py_ssize_t i, size = w.itemsize
        Layer *layer = &w.layers[0]
        const char *A_prev = w.activations + layer.A_prev * size
        const char *W = (
            w.input_transpose if w.panel_width else w.packed[<int> PARAMETERS] + layer.W * size)
    w.kernels.delta(
        w.input_deltas, w.deltas + layer.A * size, W, A_prev, NO_SIGMA, row, n_rows, w.capacity,
        w.n_in, layer.n)
    for i in range(n_rows):
        _copy_rows(w, w.dX + (first + i) * w.dX_stride, w.input_deltas, row + i, 1, w.n_in)


cdef bint _panels_are_finite(
    Workspace w, const char *A, Py_ssize_t row, Py_ssize_t n_rows,
) noexcept nogil:
    """Whether a span's gathered examples are finite, padding aside."""
    cdef Py_ssize_t column = 0, width
    while column < w.n_in:
        width = width_of_panel(
            w.panel_width, column // w.panel_width if w.panel_width else 0, w.n_in)
        if not w.kernels.finite(
                A + (column * w.capacity + row * width) * w.itemsize, n_rows,
                min(width, w.n_in - column), width):
            return False
        column += width
    return True


cdef void _clear_weightless(
    Workspace w, char *A, const void *sample_weight, Py_ssize_t row, Py_ssize_t n_rows,
) noexcept nogil:
    """Set the inputs of a span's examples of weight 0 to 0.

    Their deltas are 0, but in (5) these would meet activations that may not be finite.
    """
    cdef Py_ssize_t i, column, width
    for i in range(n_rows):
        if (<const double *> sample_weight)[i] != 0 if w.double_precision else (
                <const float *> sample_weight)[i] != 0:
            continue
        column = 0
        while column < w.n_in:
            width = width_of_panel(
                w.panel_width, column // w.panel_width if w.panel_width else 0, w.n_in)
            memset(
                A + (column * w.capacity + (row + i) * width) * w.itemsize, 0,
                min(width, w.n_in - column) * w.itemsize)
            column += width


cdef inline void _copy_rows(
    Workspace w, char *out, const char *A, Py_ssize_t row, Py_ssize_t n_rows, Py_ssize_t n,
) noexcept nogil:
    """Copy a span's rows of a layer to a row-major array."""
    if w.panel_width:
        w.kernels.scatter(out, A, row, n_rows, w.capacity, n)
    else:
        memcpy(out, A + row * n * w.itemsize, n_rows * n * w.itemsize)


cdef inline void _gather_targets(
    Workspace w, char *Y, Py_ssize_t first, Py_ssize_t n_rows,
) noexcept nogil:
    cdef const Source *source = &w.examples.Y
    if w.examples.classes != NULL:
        w.kernels.one_hot(Y, w.examples.classes, w.order, first, n_rows, w.n_out)
    else:
        w.kernels.gather(
            Y, source.data, source.type, source.row_stride, source.column_stride, w.order,
            w.n_order, first, w.n_out, 0, n_rows, n_rows, w.n_out)


# Phase 2.

cdef void _descend(Workspace w, Tile *tile, Py_ssize_t i) noexcept nogil:
    """(5) and (6) of plain gradient descent: the gradient is added to W and never stored."""
    cdef:
        Layer *layer = &w.layers[tile.l]
        Py_ssize_t size = w.itemsize, p
        char *parameters = w.packed[<int> PARAMETERS]
        const char *delta = w.deltas + layer.A * size
    if w.rule.penalty > 0:
        w.weight_squares[i] = _squares(w, tile, parameters)
    w.kernels.gradient(
        parameters + tile.W * size, delta, w.activations + layer.A_prev * size, w.scale, w.beta,
        tile.panel_step, tile.p_begin, tile.p_end, tile.k_begin, tile.k_end, w.n_rows, w.capacity,
        layer.n_prev, layer.n)
    for p in range(tile.p_begin, tile.p_end):
        _transpose(w, tile, p)
        if tile.k_begin == 0:
            w.kernels.column_sums(
                parameters + (layer.b + p * w.panel_width) * size,
                delta + p * w.panel_width * w.capacity * size, w.scale, 1, w.n_rows, tile.width)


cdef void _gradient_tile(Workspace w, Tile *tile, Py_ssize_t i, int rank) noexcept nogil:
    """(5) for a tile of W and, in its first inputs' tile, its biases; in FUSED also (6)."""
    cdef:
        Layer *layer = &w.layers[tile.l]
        Py_ssize_t size = w.itemsize, count = tile.count, p, at, bias
        char *gradient = w.packed[<int> GRADIENT]
        char *parameters = w.packed[<int> PARAMETERS]
        char *scratch = w.scratch + rank * w.scratch_size * size
        const char *delta = w.deltas + layer.A * size
        bint fused = w.phase == FUSED
        bint measures = w.phase == MEASURED or w.phase == MEASURE
        double squares = 0
    if w.rule.penalty > 0 and w.phase != ACCUMULATE:
        w.weight_squares[i] = _squares(w, tile, parameters)
    if w.phase != MEASURE:
        w.kernels.gradient(
            scratch if fused else gradient + tile.W * size, delta,
            w.activations + layer.A_prev * size, w.scale, w.beta, count if fused else
            tile.panel_step, tile.p_begin, tile.p_end, tile.k_begin, tile.k_end, w.n_rows,
            w.capacity, layer.n_prev, layer.n)
    for p in range(tile.p_begin, tile.p_end):
        at = tile.W + (p - tile.p_begin) * tile.panel_step
        if fused:
            _update(w, at, scratch + (p - tile.p_begin) * count * size, count, True)
            _transpose(w, tile, p)
        elif measures and w.decay != 0:
            w.kernels.sgd(gradient + at * size, parameters + at * size, -w.decay, 0, count)
    if measures:
        squares = _squares(w, tile, gradient)
    if tile.k_begin == 0:
        for p in range(tile.p_begin, tile.p_end):
            bias = layer.b + p * w.panel_width
            if w.phase != MEASURE:
                w.kernels.column_sums(
                    scratch if fused else gradient + bias * size,
                    delta + p * w.panel_width * w.capacity * size, w.scale, w.beta, w.n_rows,
                    tile.width)
            if fused:
                _update(w, bias, scratch, tile.width, False)
            elif measures:
                squares += w.kernels.square_sum(
                    gradient + bias * size, 1, min(tile.width, layer.n - p * w.panel_width),
                    tile.width)
    w.gradient_squares[i] = squares


cdef void _update_tile(Workspace w, Tile *tile) noexcept nogil:
    """(6) for a tile of W, and its biases, from the gradient's slot."""
    cdef Py_ssize_t p
    for p in range(tile.p_begin, tile.p_end):
        _clipped_update(w, tile.W + (p - tile.p_begin) * tile.panel_step, tile.count, True)
        _transpose(w, tile, p)
        if tile.k_begin == 0:
            _clipped_update(w, w.layers[tile.l].b + p * w.panel_width, tile.width, False)


cdef inline void _transpose(Workspace w, Tile *tile, Py_ssize_t p) noexcept nogil:
    """Write a tile's part of panel p into W's transpose. No delta is computed for the input."""
    cdef Layer *layer = &w.layers[tile.l]
    if w.panel_width and tile.l > 0:
        w.kernels.transpose(
            w.transposes + layer.transposed * w.itemsize,
            w.packed[<int> PARAMETERS] + layer.W * w.itemsize, p, tile.k_begin, tile.k_end,
            layer.n_prev, layer.n)


cdef double _squares(Workspace w, Tile *tile, const char *vector) noexcept nogil:
    """The sum of the squares of a tile of W in a vector with the layout of the parameters."""
    cdef:
        Py_ssize_t p, n = w.layers[tile.l].n
        double total = 0
    vector += tile.W * w.itemsize
    for p in range(tile.p_begin, tile.p_end):
        total += w.kernels.square_sum(
            vector, tile.k_end - tile.k_begin, min(tile.width, n - p * w.panel_width), tile.width)
        vector += tile.panel_step * w.itemsize
    return total


cdef inline void _clipped_update(
    Workspace w, Py_ssize_t at, Py_ssize_t count, bint decays,
) noexcept nogil:
    cdef char *gradient = w.packed[<int> GRADIENT] + at * w.itemsize
    if w.clipping < 1:
        w.kernels.scale(gradient, w.clipping, count)
    _update(w, at, gradient, count, decays)


cdef inline void _update(
    Workspace w, Py_ssize_t at, const char *gradient, Py_ssize_t count, bint decays,
) noexcept nogil:
    """(6) for `count` parameters from `at` on: weights, which decay, or biases."""
    cdef:
        double decay = w.decay if decays else 0
        char *parameters = _part(w, PARAMETERS, at)
        char *state_1 = _part(w, STATE_1, at)
        char *state_2 = _part(w, STATE_2, at)
    if decays and w.shrinkage != 0:
        # W <- W - η λ W.
        w.kernels.sgd(parameters, parameters, w.shrinkage, 0, count)
    if w.rule.kind == ADAM:
        w.kernels.adam(
            parameters, state_1, state_2, gradient, w.step_size, w.rule.beta_1, w.rule.beta_2,
            w.epsilon, decay, count)
    elif w.rule.kind == AMSGRAD:
        w.kernels.amsgrad(
            parameters, state_1, state_2, _part(w, STATE_3, at), gradient, w.step_size,
            w.rule.beta_1, w.rule.beta_2, w.epsilon, decay, count)
    elif w.rule.kind == RMSPROP:
        w.kernels.rmsprop(
            parameters, state_1, state_2 if w.rule.centered else NULL,
            NULL if w.rule.momentum == 0 else _part(w, STATE_3, at) if w.rule.centered else
            state_2, gradient, w.rule.learning_rate, w.rule.rho, w.rule.momentum, w.rule.epsilon,
            decay, count)
    elif w.rule.kind == MOMENTUM:
        w.kernels.momentum(
            parameters, state_1, gradient, w.rule.learning_rate, w.rule.momentum,
            w.rule.nesterov, decay, count)
    else:
        w.kernels.sgd(parameters, gradient, w.rule.learning_rate, decay, count)


cdef inline char *_part(Workspace w, Slot slot, Py_ssize_t at) noexcept nogil:
    """The part of a slot that begins with its element `at`."""
    return w.packed[<int> slot] + at * w.itemsize
