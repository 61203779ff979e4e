"""The step, equations (1) to (6), for a team of threads.

A step has two phases. In the first, the batch is cut into spans of examples, and each goes through
(1), (3) and (4) for all layers, since W is only read. In the second, every W is cut into tiles, and
each has its gradient (5) and its update (6) while it is in the cache. Spans and tiles are cut by
the problem's shape alone and go to whichever thread is free; nothing is ever added up across
threads, so that the result is the same to the last bit for any number of them.

The products run on the tiles of csrc/products.h or on BLAS, a table of the same functions.
"""

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cython cimport floating
from libc.math cimport isfinite, sqrt
from libc.string cimport memcpy, memset

from nncore._kernels cimport IDENTITY, SOFTMAX, Activation, tables
from nncore._layout cimport (
    ADAM, ADD, GRADIENT_DESCENT, MOMENTUM, Examples, Layer, Layout, Rule, Source, Tile, panel_width)
from nncore._tables cimport (
    NNCORE_FLOAT32, NNCORE_FLOAT64, nncore_float_mode, nncore_flush_subnormals, nncore_mode,
    nncore_source, nncore_team, nncore_team_assemble, nncore_team_enter, nncore_team_open,
    nncore_team_stop, nncore_team_stopped, nncore_team_take, nncore_team_wait)

import threading

import numpy as np

cnp.import_array()


cdef extern from "team.h" nogil:
    double monotonic_seconds "nncore_seconds"() noexcept


cpdef Py_ssize_t span_of(Py_ssize_t batch_size, Py_ssize_t n_parameters, bint blas) noexcept:
    """Return how many examples a span has: as many spans as share the work out well.

    A tile of W is read from the L2 cache or beyond once per span, which 32 examples are enough to
    make up for, unless W is so small that the calls themselves count; a small batch is halved, so
    that two threads have something to do. BLAS packs W anew for every span and wants more.
    """
    cdef Py_ssize_t most
    if blas:
        most = max(64, (batch_size + 7) // 8)
    else:
        most = max(32 if batch_size <= 256 else 64, 400_000 // max(n_parameters, 1))
        most = min(most, max((batch_size + 1) // 2, 4))
    cdef Py_ssize_t spans = (batch_size + most - 1) // most
    return (batch_size + spans - 1) // spans if spans else 1


# What one run of the team does.
cdef enum Task:
    TRAIN
    GRADIENT
    EVALUATE
    PREDICT


cdef class Workspace(Layout):
    """What takes a network's batches through its layers: a `Layout` and a team of threads."""

    cdef:
        double *losses
        double *weights
        object sums
        nncore_team team
        nncore_mode float_mode
        Task task
        Examples examples
        Source X
        Source targets
        const Py_ssize_t *classes
        const void *all_weights
        const Py_ssize_t *order
        bint rows_in_place
        double limit
        Py_ssize_t n_examples, batch
        double *batch_losses
        double scale, beta
        double total
        void *out
        object failure

    # What a team does.

    def train(
        self, Examples examples not None, const Py_ssize_t[::1] order, Py_ssize_t batch_size,
        double[:, ::1] batch_losses=None,
    ):
        """Run the steps of an epoch; return the sum of the examples' losses.

        Batches are cut from the examples in `order`, or as they lie where `order` is None. The
        losses are those before each step. A batch whose loss is not finite ends the epoch with the
        parameters as they were before it; so does Ctrl-C, which raises KeyboardInterrupt.

        With `batch_losses`, of shape (n_batches, 2), each row takes its batch's mean loss and the
        penalty's part in the mean, zeros if the batch has no weight; a loss that is not finite
        then ends nothing.
        """
        self._prepare(TRAIN, examples, batch_size)
        if order is not None:
            self.order = &order[0]
        if batch_losses is not None:
            self.batch_losses = &batch_losses[0, 0]
        try:
            self._run_team()
        finally:
            self.update.step_count = self.step_count
        return self.total

    def add_gradient(
        self, cnp.ndarray out not None, Examples examples not None, double scale,
    ):
        """Set `out` to scale times the gradient of the examples' summed loss; return that sum."""
        self._prepare(GRADIENT, examples, self.batch_size)
        self.gradients = self._packed(out, 3)
        self.scale = scale
        self._run_team()
        if self.panel:
            self._unpack(cnp.PyArray_DATA(out), self.gradients)
        return self.total

    def total_loss(self, Examples examples not None):
        """Return the sum of weight times loss over the examples."""
        self._prepare(EVALUATE, examples, examples.n)
        self._run_team()
        return self.total

    def predict(
        self, cnp.ndarray out not None, Examples examples not None, *, double limit=0.0,
    ):
        """Write the outputs of the examples into the rows of `out`; return whether that was done.

        With `limit` > 0, for which X must be contiguous floats, its rows are looked through in
        passing, and what is not within ±limit, NaN included, ends the work.
        """
        self._prepare(PREDICT, examples, examples.n)
        self.out = cnp.PyArray_DATA(out)
        self.limit = limit
        self._run_team()
        return not nncore_team_stopped(&self.team)

    cdef _prepare(self, Task task, Examples examples, Py_ssize_t batch):
        cdef:
            Py_ssize_t n_spans = (batch + self.span - 1) // self.span
            Py_ssize_t size = 8 if self.double_precision else 4
        self.task = task
        self.examples = examples  # keeps alive what is pointed to
        self.n_examples = examples.n
        self.X, self.targets = examples.X, examples.Y
        self.classes, self.all_weights = examples.classes, examples.sample_weight
        self.order = NULL
        self.limit = 0
        # Rows that are of use once only need not be laid out in panels, if they can be read.
        self.rows_in_place = (
            self.panel > 0 and (task == EVALUATE or task == PREDICT)
            and self.X.type == (NNCORE_FLOAT64 if self.double_precision else NNCORE_FLOAT32)
            and self.X.column_stride == size and self.X.row_stride > 0
            and self.X.row_stride % size == 0 and <Py_ssize_t> self.X.data % size == 0)
        self.batch_losses = NULL
        self.batch = batch
        self.total = 0
        self.failure = None
        if self.sums is None or len(self.sums) < 2 * n_spans:
            self.sums = np.empty(2 * n_spans)
        self.losses = <double *> cnp.PyArray_DATA(self.sums)
        self.weights = self.losses + n_spans

    cdef _run_team(self):
        """Let the members loose on the task; this thread is the first of them."""
        cdef int members = 0
        workers = []
        nncore_team_assemble(&self.team)
        try:
            for rank in range(1, self.n_members):
                worker = threading.Thread(target=self._join_team, args=(rank,))
                try:
                    worker.start()
                except RuntimeError:
                    break  # no more threads are to be had; fewer do the same work
                workers.append(worker)
            members = len(workers) + 1
            with nogil:
                nncore_team_open(&self.team, members)
                _run(self, 0)
        finally:
            if members == 0:
                nncore_team_open(&self.team, 0)
            for worker in workers:
                worker.join()
            self.examples = None
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def _join_team(self, int rank):
        with nogil:
            if nncore_team_enter(&self.team):
                _run(self, rank)


cdef int _look_for_signals(Workspace w) noexcept with gil:
    """Whether a signal's handler raised, Ctrl-C's say; the exception is kept for `_run_team`."""
    try:
        PyErr_CheckSignals()
    except BaseException as error:
        w.failure = error
        return 1
    return 0


cdef struct Watch:
    # Multiplications since the clock was read last, and when signals were looked for.
    Py_ssize_t work
    double seconds


# What a batch costs beside its multiplications, in such: where there are more threads than cores, a
# barrier may take as long as the system lets others run.
cdef enum:
    BATCH_WORK = 1_000
    BARRIER_WORK = 1_000_000


cdef bint _interrupted(Workspace w, int rank, Watch *watch, Py_ssize_t work) noexcept nogil:
    """Look for signals every 50 ms, in the first member only, and stop the team if one raised."""
    cdef double now
    cdef bint interrupted
    if rank != 0:
        return False
    watch.work += work
    if watch.work < 10_000_000:
        return False
    watch.work = 0
    now = monotonic_seconds()
    if now - watch.seconds < 0.05:
        return False
    watch.seconds = now
    # A handler finds arithmetic as it was before the run.
    nncore_float_mode(w.float_mode)
    interrupted = _look_for_signals(w)
    nncore_flush_subnormals()
    if not interrupted:
        return False
    nncore_team_stop(&w.team)
    return True


cdef void _run(Workspace w, int rank) noexcept nogil:
    cdef nncore_mode mode = nncore_flush_subnormals()
    if rank == 0:
        w.float_mode = mode
    if w.double_precision:
        if w.task == TRAIN or w.task == GRADIENT:
            _run_batches(w, rank, <double *> w.parameters)
        else:
            _run_spans(w, rank, <double *> w.parameters)
    else:
        if w.task == TRAIN or w.task == GRADIENT:
            _run_batches(w, rank, <float *> w.parameters)
        else:
            _run_spans(w, rank, <float *> w.parameters)
    nncore_float_mode(mode)


cdef void _run_batches(Workspace w, int rank, const floating *_) noexcept nogil:
    """TRAIN and GRADIENT: both phases, batch after batch."""
    cdef:
        Py_ssize_t start = 0, N, n_spans, i, row
        Py_ssize_t step = w.step_count
        double loss, weight, squares, clipping
        AdamStep adam
        Watch watch = Watch(0, monotonic_seconds())
    while start < w.n_examples:
        N = min(w.batch, w.n_examples - start)
        n_spans = (N + w.span - 1) // w.span
        i = nncore_team_take(&w.team)
        while i < n_spans and not nncore_team_stopped(&w.team):
            row = i * w.span
            _span(w, start + row, row, min(w.span, N - row), i, _)
            _interrupted(w, rank, &watch, min(w.span, N - row) * w.n_packed)
            i = nncore_team_take(&w.team)
        _interrupted(w, rank, &watch, BATCH_WORK if w.team.members == 1 else BARRIER_WORK)
        nncore_team_wait(&w.team)
        if nncore_team_stopped(&w.team):
            return

        loss = weight = 0
        for i in range(n_spans):
            loss += w.losses[i]
            weight += w.weights[i]
        if rank == 0:
            w.total = w.total + loss
        if not isfinite(loss) and w.task == TRAIN and w.batch_losses == NULL:
            return
        # A batch of examples that weigh nothing has no mean to descend.
        if weight > 0 or w.task == GRADIENT:
            step += 1
            adam = _adam_step(w, step)
            i = nncore_team_take(&w.team)
            if w.task == TRAIN and w.rule.max_norm > 0:
                while i < w.n_tiles:
                    _gradient_tile(w, &w.tiles[i], N, weight, _)
                    i = nncore_team_take(&w.team)
                nncore_team_wait(&w.team)
                clipping = _clipping(w)
                i = nncore_team_take(&w.team)
                while i < w.n_tiles:
                    _update_tile(w, &w.tiles[i], &adam, clipping, _)
                    i = nncore_team_take(&w.team)
            else:
                while i < w.n_tiles:
                    _tile(w, rank, &w.tiles[i], N, weight, &adam, 0 if start == 0 else 1, _)
                    i = nncore_team_take(&w.team)
            if rank == 0:
                w.step_count = step
        nncore_team_wait(&w.team)
        if rank == 0 and w.batch_losses != NULL:
            # The next barrier keeps the others from the next batch's squares.
            squares = 0
            if w.rule.penalty > 0:
                for i in range(w.n_tiles):
                    squares += w.squares[i]
            w.batch_losses[2 * (start // w.batch)] = loss / weight if weight > 0 else 0
            w.batch_losses[2 * (start // w.batch) + 1] = (
                0.5 * w.rule.penalty * squares / weight if weight > 0 else 0)
        start += N


cdef struct AdamStep:
    double step_size
    double epsilon


cdef AdamStep _adam_step(Workspace w, Py_ssize_t step) noexcept nogil:
    """Adam's corrected means m/(1 - β₁ᵗ) and v/(1 - β₂ᵗ), taken out of the loop over parameters."""
    cdef AdamStep adam = AdamStep(0, 0)
    cdef double correction
    if w.rule.rule == ADAM:
        correction = sqrt(1 - w.rule.beta_2 ** step)
        adam.step_size = w.rule.learning_rate * correction / (1 - w.rule.beta_1 ** step)
        adam.epsilon = w.rule.epsilon * (1 if w.rule.epsilon_uncorrected else correction)
    return adam


cdef void _run_spans(Workspace w, int rank, const floating *_) noexcept nogil:
    """EVALUATE and PREDICT: the first phase only, each member in a span of its own."""
    cdef:
        Py_ssize_t n_spans = (w.n_examples + w.span - 1) // w.span
        Py_ssize_t i = nncore_team_take(&w.team), first
        Watch watch = Watch(0, monotonic_seconds())
    while i < n_spans and not nncore_team_stopped(&w.team):
        first = i * w.span
        _span(w, first, rank * w.span, min(w.span, w.n_examples - first), i, _)
        _interrupted(w, rank, &watch, w.span * w.n_packed)
        i = nncore_team_take(&w.team)
    nncore_team_wait(&w.team)
    if rank == 0 and w.task == EVALUATE:
        for i in range(n_spans):
            w.total = w.total + w.losses[i]


cdef void _span(
    Workspace w, Py_ssize_t first, Py_ssize_t row, Py_ssize_t n_rows, Py_ssize_t i,
    const floating *_,
) noexcept nogil:
    """The first phase, (1) to (4), for the examples from `first` on, in rows `row` and on."""
    cdef:
        Py_ssize_t l, A_stride = 0, capacity = w.capacity
        const floating *A_prev
        Layer *layer
        Layer *last = &w.layers[w.depth - 1]
        floating *activations = <floating *> w.activations
        floating *deltas = <floating *> w.deltas
        const floating *parameters = <const floating *> w.parameters
        floating *outputs
        floating *output_deltas = <floating *> w.output_deltas + row * w.n_out
        const floating *Y
        const floating *sample_weight
        nncore_source own = NNCORE_FLOAT64 if floating is double else NNCORE_FLOAT32
        # A single output's panel is a plain array, too.
        bint plain = w.panel == 0 or w.n_out == 1
    if w.limit > 0 and not _within(w, first, n_rows):
        nncore_team_stop(&w.team)
        return
    if w.rows_in_place:
        A_prev = <const floating *> (w.X.data + (first - row) * w.X.row_stride)
        A_stride = w.X.row_stride // <Py_ssize_t> sizeof(floating)
    else:
        A_prev = activations + w.layers[0].A_prev
        w.kernels.gather(
            activations + w.layers[0].A_prev, w.X.data, w.X.type, w.X.row_stride,
            w.X.column_stride, w.order, w.n_examples, first, w.panel or w.n_in, row, n_rows,
            capacity, w.n_in)
    for l in range(w.depth):
        layer = &w.layers[l]
        w.kernels.forward(
            activations + layer.A, A_prev, A_stride, parameters + layer.W, parameters + layer.b,
            layer.activation if plain else _in_panels(layer.activation), row, n_rows, capacity,
            layer.n_prev, layer.n)
        if w.task == TRAIN and layer.dropout > 0:
            w.kernels.dropout(
                activations + layer.A, layer.dropout, w.rule.dropout_seed, w.step_count, l + 1, 0,
                w.panel or layer.n, row, n_rows, capacity, layer.n)
        A_prev = activations + layer.A
        A_stride = 0

    # What compares outputs with targets takes a row as a whole, and so a plain array.
    if not plain or w.task == PREDICT:
        if w.task == PREDICT:
            outputs = <floating *> w.out + first * w.n_out
        else:
            outputs = <floating *> w.outputs + row * w.n_out
        _plain_rows(w, outputs, activations + last.A, row, n_rows)
        if not plain and last.activation == SOFTMAX:
            w.kernels.bias_activation(outputs, NULL, SOFTMAX, n_rows, w.n_out)
    else:
        outputs = activations + last.A + row * w.n_out
    if w.task == PREDICT:
        return
    Y = _targets(w, first, row, n_rows, _)
    sample_weight = _weights(w, first, row, n_rows, i, _)
    w.losses[i] = w.kernels.loss(outputs, Y, sample_weight, w.loss, n_rows, w.n_out)
    if w.task == EVALUATE:
        return

    if plain:
        output_deltas = deltas + last.A + row * w.n_out
    w.kernels.output_delta(
        output_deltas, outputs, Y, sample_weight, w.loss, last.activation, n_rows, w.n_out)
    if not plain:
        w.kernels.gather(
            deltas + last.A, output_deltas, own, w.n_out * sizeof(floating), sizeof(floating),
            NULL, 0, 0, w.panel, row, n_rows, capacity, w.n_out)
    for l in range(w.depth - 1, 0, -1):
        layer = &w.layers[l]
        w.kernels.delta(
            deltas + layer.A_prev, deltas + layer.A,
            <const floating *> w.transposes + layer.transposed if w.panel
            else <const floating *> (parameters + layer.W),
            activations + layer.A_prev,
            IDENTITY if w.task == TRAIN and w.layers[l - 1].dropout > 0
            else w.layers[l - 1].activation, row, n_rows, capacity, layer.n_prev, layer.n)
        if w.task == TRAIN and w.layers[l - 1].dropout > 0:
            w.kernels.dropout_derivative(
                deltas + layer.A_prev, activations + layer.A_prev, w.layers[l - 1].activation,
                w.layers[l - 1].dropout, w.rule.dropout_seed, w.step_count, l, 0,
                w.panel or layer.n_prev, row, n_rows, capacity, layer.n_prev)


cdef bint _within(Workspace w, Py_ssize_t first, Py_ssize_t n_rows) noexcept nogil:
    """Whether rows of X are within the limit."""
    cdef Py_ssize_t count = n_rows * w.n_in
    return count == tables(w.X.type == NNCORE_FLOAT64).first_beyond(
        w.X.data + first * w.X.row_stride, w.limit, count)


cdef inline Activation _in_panels(Activation activation) noexcept nogil:
    """Softmax takes a row as a whole and waits until it is plain."""
    return IDENTITY if activation == SOFTMAX else activation


cdef inline void _plain_rows(
    Workspace w, floating *out, const floating *A, Py_ssize_t row, Py_ssize_t n_rows,
) noexcept nogil:
    if w.panel:
        w.kernels.scatter(out, A, row, n_rows, w.capacity, w.n_out)
    else:
        memcpy(out, A + row * w.n_out, n_rows * w.n_out * sizeof(floating))


cdef const floating *_targets(
    Workspace w, Py_ssize_t first, Py_ssize_t row, Py_ssize_t n_rows, const floating *_,
) noexcept nogil:
    """The rows of Y, those of class indices with a 1 each."""
    cdef:
        Py_ssize_t i
        floating *Y = <floating *> w.Y + row * w.n_out
    if w.classes == NULL:
        w.kernels.gather(
            Y, w.targets.data, w.targets.type, w.targets.row_stride, w.targets.column_stride,
            w.order, w.n_examples, first, w.n_out, 0, n_rows, n_rows, w.n_out)
    else:
        memset(Y, 0, n_rows * w.n_out * sizeof(floating))
        for i in range(n_rows):
            Y[i * w.n_out + w.classes[_example(w, first + i)]] = 1
    return Y


cdef const floating *_weights(
    Workspace w, Py_ssize_t first, Py_ssize_t row, Py_ssize_t n_rows, Py_ssize_t i,
    const floating *_,
) noexcept nogil:
    """The examples' weights, or NULL; their sum is noted as the span's."""
    cdef:
        Py_ssize_t j
        double total = 0
        const floating *all_weights = <const floating *> w.all_weights
        floating *sample_weight = <floating *> w.sample_weight + row
    if all_weights == NULL:
        w.weights[i] = <double> n_rows
        return NULL
    for j in range(n_rows):
        sample_weight[j] = all_weights[_example(w, first + j)]
        total += sample_weight[j]
    w.weights[i] = total
    return sample_weight


cdef inline Py_ssize_t _example(Workspace w, Py_ssize_t i) noexcept nogil:
    return i if w.order == NULL else w.order[i]


cdef void _tile(
    Workspace w, int rank, Tile *tile, Py_ssize_t N, double weight, const AdamStep *adam,
    double beta, const floating *_,
) noexcept nogil:
    """The second phase, (5) and (6), for a tile of a W; the first of a panel takes its biases."""
    cdef:
        Layer *layer = &w.layers[tile.l]
        Rule rule = ADD if w.task == GRADIENT else w.rule.rule
        bint indirect = rule == MOMENTUM or rule == ADAM
        Py_ssize_t p, width = panel_width(w.panel, tile.p_begin, layer.n)
        Py_ssize_t panel_step = w.panel * layer.n_prev
        Py_ssize_t count = (tile.k_end - tile.k_begin) * width
        Py_ssize_t at = layer.W + tile.p_begin * panel_step + tile.k_begin * width
        const floating *A_prev = <const floating *> w.activations + layer.A_prev
        const floating *delta = <const floating *> w.deltas + layer.A
        floating *parameters = <floating *> w.parameters
        floating *scratch = <floating *> w.scratch + rank * w.scratch_size
        floating *out = (
            scratch if indirect else <floating *> w.gradients if rule == ADD else parameters)
        double scale = 1 / weight if weight > 0 else 0
        double decay = w.rule.weight_decay + w.rule.penalty * scale
        double beta_W = 0
        double beta_b = 0
    if rule == ADD:
        scale, beta_W, beta_b = w.scale, beta, beta
    elif rule == GRADIENT_DESCENT:
        beta_W, beta_b = 1 - w.rule.learning_rate * decay, 1
        scale = -w.rule.learning_rate * scale

    if rule != ADD and w.rule.penalty > 0 and w.batch_losses != NULL:
        w.squares[tile.i] = _square_sum(w, tile, <const floating *> parameters)
    w.kernels.gradient(
        out if indirect else out + at, delta, A_prev, scale, beta_W,
        count if indirect else panel_step, tile.p_begin, tile.p_end, tile.k_begin, tile.k_end, N,
        w.capacity, layer.n_prev, layer.n)
    for p in range(tile.p_begin, tile.p_end):
        if indirect:
            _update(
                w, adam, at + (p - tile.p_begin) * panel_step,
                scratch + (p - tile.p_begin) * count, count, decay)
        if w.panel and tile.l > 0 and rule != ADD:
            w.kernels.transpose(
                <floating *> w.transposes + layer.transposed, parameters + layer.W, p,
                tile.k_begin, tile.k_end, layer.n_prev, layer.n)
    if tile.k_begin > 0:
        return
    for p in range(tile.p_begin, tile.p_end):
        at = layer.b + p * w.panel
        w.kernels.column_sums(
            out if indirect else out + at, delta + p * w.panel * w.capacity, scale, beta_b, N,
            width)
        if indirect:
            _update(w, adam, at, out, width, 0)


# Where the gradient's norm is limited, the second phase is two: all gradients, then all updates.

cdef void _gradient_tile(
    Workspace w, Tile *tile, Py_ssize_t N, double weight, const floating *_,
) noexcept nogil:
    """(5) for a tile of a W, with the L2 terms, into the vector of gradients; and its squares."""
    cdef:
        Layer *layer = &w.layers[tile.l]
        Py_ssize_t p, at, b, width = panel_width(w.panel, tile.p_begin, layer.n)
        Py_ssize_t panel_step = w.panel * layer.n_prev
        Py_ssize_t count = (tile.k_end - tile.k_begin) * width
        Py_ssize_t begin = layer.W + tile.p_begin * panel_step + tile.k_begin * width
        const floating *delta = <const floating *> w.deltas + layer.A
        const floating *parameters = <const floating *> w.parameters
        floating *gradient = <floating *> w.gradients
        double decay = w.rule.weight_decay + w.rule.penalty / weight
        double squares = 0
    w.kernels.gradient(
        gradient + begin, delta, <const floating *> w.activations + layer.A_prev, 1 / weight, 0,
        panel_step, tile.p_begin, tile.p_end, tile.k_begin, tile.k_end, N, w.capacity,
        layer.n_prev, layer.n)
    if decay > 0:
        for p in range(tile.p_begin, tile.p_end):
            at = begin + (p - tile.p_begin) * panel_step
            w.kernels.sgd(gradient + at, parameters + at, -decay, 0, count)
    squares += _square_sum(w, tile, gradient)
    if tile.k_begin == 0:
        for p in range(tile.p_begin, tile.p_end):
            b = layer.b + p * w.panel
            w.kernels.column_sums(
                gradient + b, delta + p * w.panel * w.capacity, 1 / weight, 0, N, width)
            squares += w.kernels.square_sum(
                gradient + b, 1, min(width, layer.n - p * w.panel), width)
    w.gradient_squares[tile.i] = squares
    if w.rule.penalty > 0 and w.batch_losses != NULL:
        w.squares[tile.i] = _square_sum(w, tile, parameters)


cdef double _square_sum(Workspace w, Tile *tile, const floating *vector) noexcept nogil:
    """The sum of the squares of a tile of a W in a vector in the layout of the parameters."""
    cdef:
        Layer *layer = &w.layers[tile.l]
        Py_ssize_t p, width = panel_width(w.panel, tile.p_begin, layer.n)
        double total = 0
    for p in range(tile.p_begin, tile.p_end):
        total += w.kernels.square_sum(
            vector + layer.W + p * w.panel * layer.n_prev + tile.k_begin * width,
            tile.k_end - tile.k_begin, min(width, layer.n - p * w.panel), width)
    return total


cdef double _clipping(Workspace w) noexcept nogil:
    """What the gradient is to be multiplied with; every member adds up in the same order."""
    cdef:
        Py_ssize_t i
        double squares = 0
    for i in range(w.n_tiles):
        squares += w.gradient_squares[i]
    return w.rule.max_norm / sqrt(squares) if squares > w.rule.max_norm ** 2 else 1


cdef void _update_tile(
    Workspace w, Tile *tile, const AdamStep *adam, double clipping, const floating *_,
) noexcept nogil:
    """(6) for a tile of a W, from the vector of gradients."""
    cdef:
        Layer *layer = &w.layers[tile.l]
        Py_ssize_t p, width = panel_width(w.panel, tile.p_begin, layer.n)
    for p in range(tile.p_begin, tile.p_end):
        _clipped_update(
            w, adam, layer.W + p * w.panel * layer.n_prev + tile.k_begin * width,
            (tile.k_end - tile.k_begin) * width, clipping, _)
        if w.panel and tile.l > 0:
            w.kernels.transpose(
                <floating *> w.transposes + layer.transposed,
                <const floating *> w.parameters + layer.W, p, tile.k_begin, tile.k_end,
                layer.n_prev, layer.n)
        if tile.k_begin == 0:
            _clipped_update(w, adam, layer.b + p * w.panel, width, clipping, _)


cdef void _clipped_update(
    Workspace w, const AdamStep *adam, Py_ssize_t at, Py_ssize_t count, double clipping,
    const floating *_,
) noexcept nogil:
    cdef floating *gradient = <floating *> w.gradients + at
    if clipping < 1:
        w.kernels.scale(gradient, clipping, count)
    _update(w, adam, at, gradient, count, 0)


cdef void _update(
    Workspace w, const AdamStep *adam, Py_ssize_t at, const floating *gradient,
    Py_ssize_t count, double weight_decay,
) noexcept nogil:
    """(6) on a stretch of the parameters."""
    cdef floating *parameters = <floating *> w.parameters + at
    if w.rule.rule == MOMENTUM:
        w.kernels.momentum(
            parameters, <floating *> w.state_1 + at, gradient, w.rule.learning_rate,
            w.rule.momentum, w.rule.nesterov, weight_decay, count)
    elif w.rule.rule == GRADIENT_DESCENT:
        w.kernels.sgd(parameters, gradient, w.rule.learning_rate, weight_decay, count)
    else:
        w.kernels.adam(
            parameters, <floating *> w.state_1 + at, <floating *> w.state_2 + at, gradient,
            adam.step_size, w.rule.beta_1, w.rule.beta_2, adam.epsilon, weight_decay,
            count)
