"""The step, equations (1) to (6), for a team of threads.

A step has two phases. Phase 1 cuts the batch into spans of examples; each span goes through (1),
(3) and (4) for all layers, since W is only read; with fewer spans than threads, (1) and (4) go
through blocks of one layer after the other. Phase 2 cuts every W into tiles; each tile's gradient
(5) and update (6) run back to back while it is in the cache. Items go to whichever thread is free.
Spans and tiles depend on the shapes alone and no sum crosses blocks, so the result has the same
bits for any number of threads.

_items.pyx works on the items; the code here leads: it opens the phases one after the other.
"""

cimport numpy as cnp
from libc.math cimport isfinite, sqrt
from libc.stdint cimport uint64_t
from libc.string cimport memset

from nncore._items cimport (
    ACCUMULATE, ACTIVATE, ADAM, AMSGRAD, BACKWARD, DELTA_BLOCK, DESCEND, FORWARD, FORWARD_BLOCK,
    FUSED, GATHER, GO_BACK, GRADIENT_DESCENT, MEASURE, MEASURED, MOMENTUM, RMSPROP, UPDATE, Items,
    Phase, Rule, copy_outputs, panels_to_cut, run_phase, set_targets)
from nncore._kernels cimport CUSTOM, Loss
from nncore._layout cimport GRADIENT, Counter, Examples, Source, Tile, source_of
from nncore._team cimport is_stopped, watch

import numpy as np

from nncore.losses import batch_loss

cnp.import_array()

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
    # The most examples of a block, how many blocks of a layer a thread gets, about, and how many
    # multiplications pay for the phases that blocks add.
    BLOCK_ROWS = 256
    BLOCKS_PER_THREAD = 4
    LEAST_LAYER_WORK = 500_000
    # The inputs and units from which on the first layer reads rows in panels only: 1024-1024 took
    # 0.84 times as long in float32 and 0.91 in float64 (AMD Zen 4), 784-512 0.92 and 1.02,
    # 784-256 0.98 and 1.08.
    WIDE_LAYER = 512

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


cdef class Workspace(Items):
    """A `Layout` and the code that takes batches through it.

    The slots hold the parameters and the optimizer's state from one call to the next; `load` and
    `write_back` exchange them with flat vectors.
    """

    cdef:
        public Py_ssize_t step_count
        # The first example that the last call of `train` did not use.
        readonly Py_ssize_t done
        # The rates of consecutive steps, and the number of the first of these; None if all steps
        # have the rule's.
        const double[::1] rates
        Py_ssize_t first_rated
        # Their momenta, or β₁; None if all steps have the rule's.
        const double[::1] momenta
        # What scales each batch's gradient, and the batch's number; None for 1 / weight.
        const double[::1] scales
        Py_ssize_t batch
        # The sum of a batch's weights, and that of a run's losses.
        double weight, total
        # A loss of the user's, and whether batches call it; the sum of the last batch's losses.
        object custom_loss
        bint calls_loss
        double batch_loss
        cnp.ndarray span_sums

    def __init__(self, architecture, batch_size, span, most_spans, n_threads, blas):
        super().__init__(architecture, batch_size, span, most_spans, n_threads, blas)
        self.custom_loss = architecture.custom_loss
        self.calls_loss = self.custom_loss is not None
        self.scales = None

    def configure(self, rule, options):
        """Set the rule (6), an `optimizers.Rule`, and the `StepOptions` of the steps to come."""
        cdef Py_ssize_t l
        kinds = {
            "gradient_descent": GRADIENT_DESCENT, "momentum": MOMENTUM, "adam": ADAM,
            "amsgrad": AMSGRAD, "rmsprop": RMSPROP}
        self.rule = Rule(
            kinds[rule.kind], rule.learning_rate if rule.schedule is None else 0,
            rule.weight_decay, rule.decoupled_decay, rule.bias_decay, rule.decoupled_bias_decay,
            rule.momentum, rule.nesterov, rule.accumulates, rule.beta_1, rule.beta_2, rule.rho,
            rule.centered, rule.epsilon, rule.epsilon_uncorrected, rule.penalty, options.max_norm,
            options.dropout_seed)
        self.rates = self.momenta = None
        self.drops = any(options.dropout)
        for l in range(self.depth):
            self.layers[l].dropout_rate = (
                options.dropout[l] if l < len(options.dropout) else 0)
            self.layers[l].has_bias = options.biases[l] if options.biases else True

    def schedule(self, const double[::1] rates not None, const double[::1] momenta=None):
        """Set rate, and momentum or β₁, of each of the next steps; the next rule ends this."""
        self.rates, self.momenta = rates, momenta
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
        const double[::1] scales=None, Py_ssize_t epoch=0,
    ):
        """Make the steps of a range of examples; set `done` to the first one not used.

        Batches are cut from the examples begin to end, taken in `order` or, if it is None, as they
        lie; with `epoch`, from every so many of them. A row of `sums`, of shape (n_batches, 3),
        receives a batch's loss before its step, summed with the examples' weights; the sum of these
        weights; and the ‖W‖² before the step if the rule has a penalty. A batch without weight
        makes no step. With `scales`, these factors of the batches' summed gradients replace the
        reciprocals of the weights, and every batch makes a step.

        A batch whose loss is not finite ends the run before its step unless `keep_going`. Ctrl-C,
        or an exception in a loss of the user's, ends it after a whole step and is raised.
        """
        self.done = begin
        self._begin(examples, order, min(batch_size, end - begin))
        self.dropout_step = self.step_count
        self.scales, self.batch = scales, 0
        with nogil:
            self.done = _train(
                self, batch_size, begin, end, epoch or end, &sums[0, 0], keep_going)
        self.scales = None
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
            _train(self, n, 0, n, n, sums, False)
        self._end()
        if isfinite(sums[0]) and self.is_finite():
            self.write_back(vectors, steps)
            return sums[0], True
        self.forget()
        return sums[0], False

    def gradient(
        self, cnp.ndarray out, Examples examples not None, double scale, *,
        const Py_ssize_t[::1] rows=None, bint dropout=False, uint64_t step=0,
        uint64_t first_example=0,
    ):
        """Set `out` to `scale` times the gradient of the examples' summed loss; return that sum.

        Only the examples in `rows` count if it is given. Without `out` they are one batch, and (5)
        is left to `layer_gradients`.
        With `dropout`, units are dropped as in the step number `step`, where the
        examples follow `first_example` others of the same batch.
        """
        cdef bint drops = self.drops, accumulates = out is not None
        self._begin(examples, rows, self.batch_size)
        self.scale = scale
        self.dropout_step, self.first_example = step, first_example
        self.drops = dropout and drops
        with nogil:
            _gradient(self, accumulates)
        self.drops = drops
        self._end()
        if accumulates:
            self._unpack(GRADIENT, out)
        return self.total

    def layer_gradients(self, cnp.ndarray out not None, Py_ssize_t begin, Py_ssize_t end):
        """Set the part of layers begin + 1 to end of `out` to that of the last batch's gradient."""
        self._begin(None, None, 0)
        self.beta = 0
        with nogil:
            _accumulate_layers(self, begin, end)
        self._end()
        self._unpack_layers(GRADIENT, out, begin, end)

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
        """Apply (6) for the mean gradient of examples with that sum of weights.

        Return the ‖W‖² before the step if the rule has a penalty, otherwise 0.
        """
        self._pack(GRADIENT, gradient)
        self._begin(None, None, 0)
        self.weight = weight
        with nogil:
            _update_all(self)
        self._end()
        return _sum(self.weight_squares, self.n_tiles) if self.rule.penalty > 0 else 0.0

    def total_loss(
        self, Examples examples not None, cnp.ndarray rows=None, cnp.ndarray out=None,
        double total=0,
    ):
        """Return `total` plus weight times loss, summed over the examples or over those in `rows`.

        Their outputs are written into `out`, if it is given.
        """
        if out is not None:
            self.outs[self.depth - 1] = cnp.PyArray_BYTES(out)
        self._begin(examples, rows, examples.n if rows is None else len(rows))
        self.total = total
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
            Source source
        copy_outputs(self, cnp.PyArray_BYTES(A))
        rows = slice(self.first, self.first + self.n_rows)
        if self.order != NULL:
            rows = cnp.PyArray_SimpleNewFromData(
                1, &n_rows, cnp.NPY_INTP, <void *> (self.order + self.first))
        _, Y, sample_weight = self.examples.arrays
        self.batch_loss, derivative = batch_loss(
            self.custom_loss, A, Y[rows], None if sample_weight is None else sample_weight[rows])
        source = source_of(derivative)
        set_targets(self, self.Y, &source, NULL, 0, self.n_rows)

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
        self.begin()

    cdef _choose_rows_in_place(self):
        """Rows that are read once need not be laid out in panels, if they have the right type.

        Panels of a wide layer read them often: then rows far apart cost more than the gathering.
        """
        cdef Source X = self.examples.X
        self.rows_in_place = (
            self.panel_width > 0 and min(self.n_in, self.layers[0].n) < WIDE_LAYER
            and X.type == self.own_type and X.column_stride == self.itemsize
            and X.row_stride > 0 and X.row_stride % self.itemsize == 0
            and <Py_ssize_t> X.data % self.itemsize == 0)

    cdef _end(self):
        self.examples = None
        self.team.end()


# The leader: it opens phases one after the other.

cdef Py_ssize_t _train(
    Workspace w, Py_ssize_t batch_size, Py_ssize_t begin, Py_ssize_t end, Py_ssize_t epoch,
    double *sums, bint keep_going,
) noexcept nogil:
    w.team.enter()
    while begin < end:
        _backward(w, begin, min(batch_size, end - begin, epoch - begin % epoch), sums)
        if w.team.interrupted:
            break
        sums[2] = 0
        if not (isfinite(sums[0]) or keep_going):
            begin += w.n_rows
            break
        if w.weight != 0 or w.scales is not None:
            # The last step looks at its tiles while they are in the cache.
            w.tiles_are_checked = begin + w.n_rows == end
            _step(w)
            if w.rule.penalty > 0:
                sums[2] = _sum(w.weight_squares, w.n_tiles)
        begin += w.n_rows
        w.batch = w.batch + 1
        sums += 3
        if w.team.interrupted:
            break
    w.team.leave()
    return begin


cdef void _gradient(Workspace w, bint accumulates) noexcept nogil:
    cdef:
        Py_ssize_t begin = 0, n = w.examples.n if w.order == NULL else w.n_order
        double[2] sums
    w.team.enter()
    while begin < n and not w.team.interrupted:
        _backward(w, begin, min(w.batch_size, n - begin), sums)
        if w.team.interrupted:
            break
        w.total = w.total + sums[0]
        w.beta = 0 if begin == 0 else 1
        if accumulates:
            run_phase(w, ACCUMULATE, w.n_tiles)
        w.first_example = w.first_example + w.n_rows
        begin += w.n_rows
    w.team.leave()


cdef void _accumulate_layers(Workspace w, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """ACCUMULATE for the tiles of layers begin + 1 to end, which lie one after the other."""
    cdef:
        Tile *tiles = w.tiles
        Py_ssize_t first = 0, count = 0
    while tiles[first].l < begin:
        first += 1
    while first + count < w.n_tiles and tiles[first + count].l < end:
        count += 1
    w.team.enter()
    w.tiles = tiles + first
    run_phase(w, ACCUMULATE, count)
    w.tiles = tiles
    w.team.leave()


cdef void _jacobian(Workspace w, char *out) noexcept nogil:
    """A row of every example's Jacobian at a time: (4) from a derivative of one output."""
    cdef Py_ssize_t j, begin = 0, n = w.examples.n
    w.team.enter()
    while begin < n and not w.team.interrupted:
        _cut_spans(w, begin, min(w.batch_size, n - begin))
        _run_spans(w, ACTIVATE)
        for j in range(w.n_out):
            if w.team.interrupted:
                break
            _set_targets_to_unit(w, j)
            w.dX = out + j * w.n_in * w.itemsize
            _run_spans(w, GO_BACK)
        begin += w.n_rows
    w.team.leave()


cdef void _set_targets_to_unit(Workspace w, Py_ssize_t j) noexcept nogil:
    """Set each row of the targets to 1 in column j and 0 elsewhere."""
    cdef Py_ssize_t i
    memset(w.Y, 0, w.n_rows * w.output_stride * w.itemsize)
    for i in range(w.n_rows):
        if w.double_precision:
            (<double *> w.Y)[i * w.output_stride + j] = 1
        else:
            (<float *> w.Y)[i * w.output_stride + j] = 1


cdef void _update_all(Workspace w) noexcept nogil:
    w.team.enter()
    _count_step(w)
    if w.rule.max_norm > 0:
        run_phase(w, MEASURE, w.n_tiles)
        _clip(w)
    run_phase(w, UPDATE, w.n_tiles)
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
    _run_spans(w, FORWARD)
    w.team.has_workers = has_workers
    w.total = _sum(w.span_losses, w.n_spans, w.total)
    w.team.leave()


cdef inline void _cut_spans(Workspace w, Py_ssize_t first, Py_ssize_t n_rows) noexcept nogil:
    """Set the batch, and cut it into items of one or more spans, enough of them for all threads."""
    w.first, w.n_rows = first, n_rows
    w.n_spans = (n_rows + w.span - 1) // w.span
    w.item_spans = 1
    w.in_blocks = False
    if w.most_spans > 1:
        w.item_spans = max(1, min(w.most_spans, w.n_spans // w.n_threads))


cdef bint _needs_blocks(Workspace w) noexcept nogil:
    """Whether spans would leave more than a fifth of the threads' time idle, in a large step."""
    cdef Py_ssize_t rounds = (w.n_spans + w.n_threads - 1) // w.n_threads
    return (
        w.team.has_workers and w.panel_width > 0 and w.dX == NULL
        and 4 * rounds * w.n_threads > 5 * w.n_spans
        and w.n_rows * w.n_packed > LEAST_LAYER_WORK * w.depth * w.n_threads)


cdef inline void _run_spans(Workspace w, Phase phase) noexcept nogil:
    """Work on one of the phases whose items are spans."""
    cdef Py_ssize_t n_items = (
        w.n_spans if w.item_spans == 1 else (w.n_spans + w.item_spans - 1) // w.item_spans)
    if w.in_blocks:
        _run_blocks(w, phase, n_items)
    else:
        run_phase(w, phase, n_items)


cdef void _run_blocks(Workspace w, Phase phase, Py_ssize_t n_items) noexcept nogil:
    """The same with phases for each layer, whose items are blocks of its rows and panels."""
    cdef Py_ssize_t l
    if phase != GO_BACK:
        run_phase(w, GATHER, n_items)
        for l in range(w.depth):
            _run_layer(w, FORWARD_BLOCK, l, w.layers[l].n)
    run_phase(w, phase, n_items)
    if phase != ACTIVATE:
        for l in range(w.depth - 1, 0, -1):
            _run_layer(w, DELTA_BLOCK, l, w.layers[l].n_prev)


cdef void _run_layer(Workspace w, Phase phase, Py_ssize_t l, Py_ssize_t n) noexcept nogil:
    """(1) to, or (4) from, the layer at index l, in blocks of the n units that are computed."""
    cdef:
        Py_ssize_t row_blocks = (w.n_rows + BLOCK_ROWS - 1) // BLOCK_ROWS
        Py_ssize_t wanted = (BLOCKS_PER_THREAD * w.n_threads + row_blocks - 1) // row_blocks
    w.l, w.row_blocks, w.column_blocks = l, row_blocks, min(panels_to_cut(w, n), wanted)
    run_phase(w, phase, w.row_blocks * w.column_blocks)


cdef void _backward(Workspace w, Py_ssize_t first, Py_ssize_t n_rows, double *sums) noexcept nogil:
    """Phase 1 of a batch, and its sums of losses and weights."""
    _cut_spans(w, first, n_rows)
    w.in_blocks = _needs_blocks(w)
    if w.calls_loss:
        _run_spans(w, ACTIVATE)
        if not w.team.interrupted:
            _use_loss_of_user(w)
        if not w.team.interrupted:
            _run_spans(w, GO_BACK)
        sums[0] = w.batch_loss
    else:
        _run_spans(w, BACKWARD)
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
        run_phase(w, MEASURED, w.n_tiles)
        _clip(w)
        run_phase(w, UPDATE, w.n_tiles)
    else:
        if w.rule.kind == GRADIENT_DESCENT:
            # W <- (1 - η λ) W - η/N δ Aᵀ.
            w.beta = 1 - w.rule.learning_rate * w.decay
            w.scale = -w.rule.learning_rate * w.scale
            run_phase(w, DESCEND, w.n_tiles)
        else:
            run_phase(w, FUSED, w.n_tiles)
    w.dropout_step = w.step_count


cdef void _count_step(Workspace w) noexcept nogil:
    """Set what a step shares among its tiles: its rate, Adam's corrections, factors of decay."""
    cdef double correction
    if w.rates is not None:
        w.rule.learning_rate = w.rates[w.step_count - w.first_rated]
    if w.momenta is not None:
        w.rule.momentum = w.rule.beta_1 = w.momenta[w.step_count - w.first_rated]
    w.step_count = w.step_count + 1
    w.clipping = 1
    w.scale, w.beta = w.scales[w.batch] if w.scales is not None else 1 / w.weight, 0
    w.decay = w.rule.weight_decay + w.rule.penalty * w.scale
    w.bias_decay = w.rule.bias_decay
    w.shrinkage = w.rule.learning_rate * w.rule.decoupled_decay
    w.bias_shrinkage = w.rule.learning_rate * w.rule.decoupled_bias_decay
    if w.rule.kind == ADAM or w.rule.kind == AMSGRAD:
        correction = sqrt(1 - w.rule.beta_2 ** w.step_count)
        w.step_size = w.rule.learning_rate * correction / (1 - w.rule.beta_1 ** w.step_count)
        w.epsilon = w.rule.epsilon * (1 if w.rule.epsilon_uncorrected else correction)


cdef void _clip(Workspace w) noexcept nogil:
    """Set the factor that scales a long gradient to the limit. The L2 terms are part of it."""
    cdef double squares = _sum(w.gradient_squares, w.n_tiles)
    if squares > w.rule.max_norm ** 2:
        w.clipping = w.rule.max_norm / sqrt(squares)
    w.decay = w.bias_decay = 0


cdef inline double _sum(const double *x, Py_ssize_t count, double total=0) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        total += x[i]
    return total
