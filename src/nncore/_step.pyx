"""The step, equations (1) to (6), for a team of threads, and what it works on.

A step has two phases. In the first, the batch is cut into spans of examples, and each goes through
(1), (3) and (4) for all layers, since W is only read. In the second, every W is cut into tiles, and
each has its gradient (5) and its update (6) while it is in the cache. Spans and tiles are cut by
the problem's shape alone and go to whichever thread is free; nothing is ever added up across
threads, so that the result is the same to the last bit for any number of them.

The products run on the tiles of csrc/tile.h, or on BLAS: that is a table of the same functions,
whose panels are as wide as the layer, so that its matrices are plain arrays.
"""

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cython cimport floating
from libc.math cimport isfinite, sqrt
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from nncore._blas cimport delta_product, forward_product, gradient_product
from nncore._kernels cimport IDENTITY, SOFTMAX, Activation, Loss, tables
from nncore._tables cimport (
    NNCORE_FLOAT32, NNCORE_FLOAT64, NNCORE_UINT8, nncore_float_mode, nncore_flush_subnormals,
    nncore_kernels, nncore_mode, nncore_source, nncore_team,
    nncore_team_assemble, nncore_team_enter, nncore_team_open, nncore_team_stop,
    nncore_team_stopped, nncore_team_take, nncore_team_wait)

import contextlib
import math
import mmap
import threading

import numpy as np

cnp.import_array()

_HUGE_PAGE = 2 << 20


cdef extern from "team.h" nogil:
    double monotonic_seconds "nncore_seconds"() noexcept


# BLAS as a table of kernels.

cdef void _blas_forward(
    floating *A, const floating *A_prev, Py_ssize_t A_stride, const floating *W,
    const floating *b, Activation activation, Py_ssize_t row, Py_ssize_t n_rows,
    Py_ssize_t capacity, Py_ssize_t n_prev, Py_ssize_t n,
) noexcept nogil:
    A += row * n
    forward_product(A, A_prev + row * n_prev, W, n_rows, n_prev, n)
    tables(floating is double).bias_activation(A, b, activation, n_rows, n)


cdef void _blas_delta(
    floating *delta_prev, const floating *delta, const floating *W, const floating *A_prev,
    Activation activation, Py_ssize_t row, Py_ssize_t n_rows, Py_ssize_t capacity,
    Py_ssize_t n_prev, Py_ssize_t n,
) noexcept nogil:
    delta_prev += row * n_prev
    delta_product(delta_prev, delta + row * n, W, n_rows, n_prev, n)
    tables(floating is double).times_derivative(
        delta_prev, A_prev + row * n_prev, activation, n_rows * n_prev)


cdef void _blas_gradient(
    floating *dW, const floating *delta, const floating *A_prev, double scale, double beta,
    Py_ssize_t panel_step, Py_ssize_t p_begin, Py_ssize_t p_end, Py_ssize_t k_begin,
    Py_ssize_t k_end, Py_ssize_t n_examples, Py_ssize_t capacity, Py_ssize_t n_prev, Py_ssize_t n,
) noexcept nogil:
    gradient_product(
        dW, delta, A_prev + k_begin, <floating> scale, <floating> beta, n_examples,
        k_end - k_begin, n, n_prev)


ctypedef void (*forward_t)(
    void *, const void *, Py_ssize_t, const void *, const void *, Activation, Py_ssize_t,
    Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef void (*delta_t)(
    void *, const void *, const void *, const void *, Activation, Py_ssize_t, Py_ssize_t,
    Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef void (*gradient_t)(
    void *, const void *, const void *, double, double, Py_ssize_t, Py_ssize_t, Py_ssize_t,
    Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil

# For float and for double.
cdef nncore_kernels _blas[2]
_blas[0], _blas[1] = tables(False)[0], tables(True)[0]
_blas[0].panel = _blas[1].panel = 0
_blas[0].forward = <forward_t> _blas_forward[float]
_blas[1].forward = <forward_t> _blas_forward[double]
_blas[0].delta = <delta_t> _blas_delta[float]
_blas[1].delta = <delta_t> _blas_delta[double]
_blas[0].gradient = <gradient_t> _blas_gradient[float]
_blas[1].gradient = <gradient_t> _blas_gradient[double]


cpdef Py_ssize_t span_of(Py_ssize_t batch_size, bint blas) noexcept:
    """Return how many examples a span has: as many spans as share the work out well.

    A tile of W is read from the L2 cache or beyond once per span, which 32 examples are enough to
    make up for; a small batch is halved, so that two threads have something to do. BLAS packs W
    anew for every span and wants more.
    """
    cdef Py_ssize_t most
    if blas:
        most = max(64, (batch_size + 7) // 8)
    else:
        most = min(32, max((batch_size + 1) // 2, 4)) if batch_size <= 256 else 64
    cdef Py_ssize_t spans = (batch_size + most - 1) // most
    return (batch_size + spans - 1) // spans if spans else 1


def aligned_zeros(Py_ssize_t count, dtype):
    """Return a vector of zeros that begins on a 64-byte boundary."""
    cdef Py_ssize_t size = count * np.dtype(dtype).itemsize
    return _aligned(np.zeros(size + 64, dtype=np.uint8), size, 64).view(dtype)


cdef cnp.ndarray _aligned(cnp.ndarray buffer, Py_ssize_t size, Py_ssize_t boundary):
    cdef Py_ssize_t skip = -<Py_ssize_t> cnp.PyArray_DATA(buffer) & (boundary - 1)
    return buffer[skip:skip + size]


cdef cnp.ndarray _working_memory(Py_ssize_t size):
    """Return that many bytes, all 0; many of them lie on huge pages.

    Panels are far apart: with pages of 4 KB a tile would touch more of them than the processor's
    table of addresses holds.
    """
    if size < _HUGE_PAGE // 2 or not hasattr(mmap, "MADV_HUGEPAGE"):
        return aligned_zeros(size, np.uint8)
    try:
        memory = mmap.mmap(-1, size + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{size} bytes to work in could not be had: {error}") from None
    with contextlib.suppress(OSError):  # a kernel may come without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return _aligned(np.frombuffer(memory, dtype=np.uint8), size, _HUGE_PAGE)


cdef struct Source:
    const char *data
    nncore_source type
    Py_ssize_t row_stride
    Py_ssize_t column_stride


cdef Source _source(cnp.ndarray array):
    cdef Source source
    source.data = cnp.PyArray_BYTES(array)
    source.type = {
        "float32": NNCORE_FLOAT32, "float64": NNCORE_FLOAT64, "uint8": NNCORE_UINT8,
    }[array.dtype.name]
    source.row_stride, source.column_stride = array.strides[0], array.strides[1]
    return source


cdef class Examples:
    """The examples that a call works on, as addresses: all that a batch is gathered from.

    Parameters
    ----------
    X : ndarray of shape (n, n_0) and dtype float32, float64 or uint8, with any strides
    Y : ndarray of shape (n, n_L) likewise, or of shape (n,) and dtype intp: class indices; or None
    sample_weight : contiguous ndarray of shape (n,) in the network's dtype, or None
    """

    cdef:
        tuple arrays
        readonly Py_ssize_t n
        Source X
        Source Y
        bint has_targets
        const Py_ssize_t *classes
        const void *sample_weight

    def __init__(
        self, cnp.ndarray X not None, cnp.ndarray Y=None, cnp.ndarray sample_weight=None,
    ):
        self.arrays = (X, Y, sample_weight)
        self.n = X.shape[0]
        self.X = _source(X)
        self.has_targets = Y is not None
        if Y is not None and Y.ndim == 1:
            self.classes = <const Py_ssize_t *> cnp.PyArray_DATA(Y)
        elif Y is not None:
            self.Y = _source(Y)
        if sample_weight is not None:
            self.sample_weight = cnp.PyArray_DATA(sample_weight)


cdef enum Rule:
    GRADIENT_DESCENT
    MOMENTUM
    ADAM
    # The gradient is added to a vector of its own, and nothing is updated.
    ADD


cdef struct Coefficients:
    Rule rule
    double learning_rate
    double weight_decay
    double momentum
    bint nesterov
    double beta_1
    double beta_2
    double epsilon
    bint epsilon_uncorrected
    double penalty
    double max_norm
    uint64_t dropout_seed


cdef class Update:
    """An optimizer's rule (6) with its coefficients, and its state.

    `rule` is "gradient_descent", "momentum" (state: the velocity) or "adam" (state: m and v); each
    state vector is contiguous and has the layout and dtype of the network's parameters.

    The L2 term of the weights comes in two forms. `weight_decay` λ adds λ W to the mean gradient of
    every batch. `penalty` α adds ½ α ‖W‖² to the summed loss of a batch, and so α W to its summed
    gradient: the mean's share is α / N. With `epsilon_uncorrected` Adam's ε is added to √v instead
    of √v̂, the form of the paper's section 2.

    A gradient, all L2 terms included, whose Euclidean norm is above `max_norm` > 0 is scaled to it.
    `dropout` has a rate for each hidden layer, of units that a step leaves out.
    """

    cdef:
        readonly tuple state
        readonly Py_ssize_t step_count
        Coefficients coefficients
        tuple dropout

    def __init__(
        self, str rule, tuple state, Py_ssize_t step_count, *, double learning_rate,
        double weight_decay, double momentum=0.0, bint nesterov=False, double beta_1=0.0,
        double beta_2=0.0, double epsilon=0.0, bint epsilon_uncorrected=False,
        double penalty=0.0, double max_norm=0.0, tuple dropout=(), uint64_t dropout_seed=0,
    ):
        rules = {"gradient_descent": GRADIENT_DESCENT, "momentum": MOMENTUM, "adam": ADAM}
        self.state = state
        self.step_count = step_count
        self.coefficients = Coefficients(
            rules[rule], learning_rate, weight_decay, momentum, nesterov, beta_1, beta_2, epsilon,
            epsilon_uncorrected, penalty, max_norm, dropout_seed)
        self.dropout = dropout


def _shares(Py_ssize_t n, Py_ssize_t most):
    """Yield the bounds of the fewest parts of at most `most` that n falls into, evenly cut."""
    cdef Py_ssize_t i, parts = (n + most - 1) // most
    for i in range(parts):
        yield n * i // parts, n * (i + 1) // parts


cdef struct Layer:
    Py_ssize_t n_prev
    Py_ssize_t n
    Activation activation
    # The share of its units that a step of `train` drops.
    double dropout
    # Where W and b begin in the flat vector of parameters, and in one that is laid out in panels.
    Py_ssize_t flat_W
    Py_ssize_t flat_b
    Py_ssize_t W
    Py_ssize_t b
    # Where W's transpose begins among the transposes.
    Py_ssize_t transposed
    # Where the activations begin that the layer reads and writes; its delta begins in the deltas
    # where A does in the activations.
    Py_ssize_t A_prev
    Py_ssize_t A


cdef struct Tile:
    # Panels p_begin to p_end of layer l's units, all as wide, for its inputs k_begin to k_end.
    Py_ssize_t l
    Py_ssize_t p_begin
    Py_ssize_t p_end
    Py_ssize_t k_begin
    Py_ssize_t k_end
    # Its own number.
    Py_ssize_t i


# What one run of the team does.
cdef enum Task:
    TRAIN
    GRADIENT
    EVALUATE
    PREDICT


cdef class Workspace:
    """A network's shape and the memory that a call needs to take its batches through it.

    Parameters
    ----------
    sizes : sequence of n_0, ..., n_L
    activations : sequence of L Activations
    loss : Loss
    parameters : the network's flat vector
    batch_size : the most examples that a batch of `train` or `add_gradient` may have, or, for
        `total_loss` and `predict`, n_threads spans
    span : the examples that a thread takes at a time, see `span_of`
    n_threads : the members of the team
    blas : whether BLAS forms the products

    Between `load` and `store` the network's parameters, and the optimizer's state, live in here.
    """

    cdef:
        readonly Py_ssize_t batch_size
        readonly Py_ssize_t span
        # In bytes.
        readonly Py_ssize_t size
        # The rows that a batch's matrices have room for.
        Py_ssize_t capacity
        Py_ssize_t depth, n_in, n_out, n_tiles, panel, scratch_size
        # The lengths of vectors in panels: parameters, transposes, activations without examples.
        Py_ssize_t n_packed, n_transposed, n_units
        Loss loss
        bint double_precision
        nncore_kernels *kernels
        object dtype
        tuple arrays
        Layer *layers
        Tile *tiles
        # Vectors in panels, and the memory that is kept for them; with BLAS the flat vectors
        # themselves.
        object flat
        void *packed[4]
        void *parameters
        void *transposes
        void *gradients
        void *state_1
        void *state_2
        # A batch's, in panels, and below, in plain arrays.
        void *activations
        void *deltas
        void *outputs
        void *output_deltas
        void *Y
        void *sample_weight
        # A part per thread.
        void *scratch
        double *losses
        double *weights
        object sums
        # A tile's share of ‖W‖² and of the gradient's.
        double *squares
        double *gradient_squares
        # The run.
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
        bint check_rows
        Update update
        Coefficients rule
        Py_ssize_t step_count
        Py_ssize_t n_examples, batch, n_members
        double *batch_losses
        double scale, beta
        double total
        void *out
        object failure

    def __init__(
        self, sizes, activations, Loss loss, cnp.ndarray parameters, Py_ssize_t batch_size,
        Py_ssize_t span, int n_threads, bint blas,
    ):
        self.batch_size, self.span = batch_size, span
        self.n_members = n_threads
        self.depth = len(sizes) - 1
        self.n_in = sizes[0]
        self.n_out = sizes[self.depth]
        self.loss = loss
        self.dtype = parameters.dtype
        self.double_precision = self.dtype == np.float64
        self.kernels = (
            &_blas[self.double_precision] if blas
            else <nncore_kernels *> tables(self.double_precision))
        self.panel = self.kernels.panel
        self.flat = parameters
        # Panels whose distance is a multiple of many cache lines would fall on few cache sets.
        self.capacity = batch_size + 5 if self.panel and batch_size % 8 == 0 else batch_size
        self._lay_out(sizes, activations)
        self._cut_tiles()
        self._allocate()

    @property
    def shape(self):
        return self.batch_size, self.span, self.n_members

    cdef Py_ssize_t _padded(self, Py_ssize_t n) noexcept:
        """The columns that the panels of n units take up."""
        cdef Py_ssize_t half = self.panel // 2
        return (n + half - 1) // half * half if self.panel else n

    cdef Py_ssize_t _width(self, Py_ssize_t p, Py_ssize_t n) noexcept nogil:
        """The width of panel p of n units: that of the others, or half of it for the last."""
        if self.panel == 0:
            return n
        return self.panel if n - p * self.panel > self.panel // 2 else self.panel // 2

    cdef _lay_out(self, sizes, activations):
        cdef:
            Py_ssize_t l, n_prev, n, flat = 0, packed = 0, transposed = 0, A = 0
            Layer *layer
        layers = np.empty(self.depth * sizeof(Layer), dtype=np.uint8)
        self.layers = <Layer *> cnp.PyArray_DATA(layers)
        for l in range(self.depth):
            n_prev, n = sizes[l], sizes[l + 1]
            layer = &self.layers[l]
            layer.n_prev, layer.n, layer.activation = n_prev, n, activations[l]
            layer.flat_W, layer.flat_b = flat, flat + n_prev * n
            flat += (n_prev + 1) * n
            layer.W, layer.b = packed, packed + n_prev * self._padded(n)
            packed += (n_prev + 1) * self._padded(n)
            layer.transposed = transposed
            if l > 0:
                transposed += n * self._padded(n_prev)
            layer.A_prev = 0 if l == 0 else self.layers[l - 1].A
            layer.A = A
            A += self._padded(n) * self.capacity
        # The examples come last: they have activations, but no deltas.
        self.layers[0].A_prev = A
        self.n_packed, self.n_transposed, self.n_units = packed, transposed, A
        self.arrays = (layers,)

    cdef _cut_tiles(self):
        """Cut each W into tiles that stay in the cache while they are updated."""
        cdef Py_ssize_t l, wide, most
        cdef list tiles = []
        cdef Layer *layer
        self.scratch_size = 0
        for l in range(self.depth):
            layer = &self.layers[l]
            if self.panel:
                wide = (layer.n + self.panel // 2 - 1) // self.panel
                self._cut_panels(tiles, l, 0, wide)
                self._cut_panels(tiles, l, wide, (layer.n + self.panel - 1) // self.panel)
            else:
                most = max(64, 65536 // layer.n)
                for k in range(0, layer.n_prev, most):
                    tiles.append((l, 0, 1, k, min(k + most, layer.n_prev), len(tiles)))
        for l, p_begin, p_end, k_begin, k_end, _ in tiles:
            width = self._width(p_begin, self.layers[l].n)
            self.scratch_size = max(
                self.scratch_size, (p_end - p_begin) * max(k_end - k_begin, 1) * width)
        self.n_tiles = len(tiles)
        array = np.array(tiles, dtype=np.intp)
        squares = np.empty(2 * self.n_tiles)
        self.arrays += (array, squares)
        self.tiles = <Tile *> cnp.PyArray_DATA(array)
        self.squares = <double *> cnp.PyArray_DATA(squares)
        self.gradient_squares = self.squares + self.n_tiles

    cdef _cut_panels(self, list tiles, Py_ssize_t l, Py_ssize_t p_begin, Py_ssize_t p_end):
        """Cut panels p_begin to p_end of W, all as wide, into tiles of about equal size.

        A layer is worth 24 tiles, so that threads share it well, if each is worth the trouble of
        fetching it, and of at most 64 KB. Many examples are read from the cache for as many panels
        as possible, while few are read along the inputs for one panel.
        """
        cdef:
            Py_ssize_t square = self.panel * self.panel
            Py_ssize_t n_rows = (self.layers[l].n_prev + self.panel - 1) // self.panel
            Py_ssize_t n_panels = p_end - p_begin
            Py_ssize_t least = 100_000 // (self.batch_size * square) + 1
            Py_ssize_t most = 65536 // (square * np.dtype(self.dtype).itemsize)
            Py_ssize_t squares = min(max(n_panels * n_rows // 24, least), most)
            Py_ssize_t panels = 1 if self.batch_size < 64 else min(math.isqrt(squares), n_panels)
        if n_panels == 0:
            return
        for p, p_next in _shares(n_panels, panels):
            for k, k_next in _shares(n_rows, max(squares // panels, 1)):
                tiles.append((
                    l, p_begin + p, p_begin + p_next, k * self.panel,
                    min(k_next * self.panel, self.layers[l].n_prev), len(tiles)))

    cdef _allocate(self):
        """Find a place for everything in one stretch of memory."""
        cdef:
            Py_ssize_t size = 8 if self.double_precision else 4
            Py_ssize_t n_outputs = self.batch_size * self.n_out
            Py_ssize_t n_examples = self._padded(self.n_in) * self.capacity
            Py_ssize_t n_packed = self.n_packed if self.panel else 0
            Py_ssize_t n_transposed = self.n_transposed if self.panel else 0
            Py_ssize_t end = 0
            list begins = []
            char *memory
        # Threads must not write to the same cache line.
        self.scratch_size = (self.scratch_size * size + 63) // 64 * 64 // size
        for count in (
            n_packed, n_packed, n_packed, self.n_packed, n_transposed, self.n_units + n_examples,
            self.n_units, n_outputs, n_outputs, n_outputs, self.batch_size,
            self.scratch_size * self.n_members,
        ):
            begins.append(end)
            end += (count * size + 63) // 64 * 64
        array = _working_memory(end)
        self.arrays += (array,)
        self.size = end
        memory = cnp.PyArray_BYTES(array)
        for i in range(4):
            self.packed[i] = memory + <Py_ssize_t> begins[i]
        self.transposes = memory + <Py_ssize_t> begins[4]
        self.activations = memory + <Py_ssize_t> begins[5]
        self.deltas = memory + <Py_ssize_t> begins[6]
        self.outputs = memory + <Py_ssize_t> begins[7]
        self.output_deltas = memory + <Py_ssize_t> begins[8]
        self.Y = memory + <Py_ssize_t> begins[9]
        self.sample_weight = memory + <Py_ssize_t> begins[10]
        self.scratch = memory + <Py_ssize_t> begins[11]

    # Into panels and back; with BLAS the flat vectors are used where they are.

    cdef void *_packed(self, cnp.ndarray flat, int which):
        if not self.panel:
            return cnp.PyArray_DATA(flat)
        self._pack(self.packed[which], cnp.PyArray_DATA(flat))
        return self.packed[which]

    cdef void _pack(self, void *packed, const void *flat) noexcept:
        cdef:
            Py_ssize_t l, size = 8 if self.double_precision else 4
            nncore_source source = NNCORE_FLOAT64 if self.double_precision else NNCORE_FLOAT32
            Layer *layer
        for l in range(self.depth):
            layer = &self.layers[l]
            self.kernels.gather(
                <char *> packed + layer.W * size, <const char *> flat + layer.flat_W * size,
                source, layer.n * size, size, NULL, 0, 0, self.panel, 0, layer.n_prev, layer.n_prev,
                layer.n)
            self.kernels.gather(
                <char *> packed + layer.b * size, <const char *> flat + layer.flat_b * size,
                source, layer.n * size, size, NULL, 0, 0, self.panel, 0, 1, 1, layer.n)

    cdef void _unpack(self, void *flat, const void *packed) noexcept:
        cdef:
            Py_ssize_t l, size = 8 if self.double_precision else 4
            Layer *layer
        for l in range(self.depth):
            layer = &self.layers[l]
            self.kernels.scatter(
                <char *> flat + layer.flat_W * size, <const char *> packed + layer.W * size,
                0, layer.n_prev, layer.n_prev, layer.n)
            self.kernels.scatter(
                <char *> flat + layer.flat_b * size, <const char *> packed + layer.b * size,
                0, 1, 1, layer.n)

    def load(self, Update update=None, *, bint transposes=True):
        """Take the network's parameters in, and the optimizer's state."""
        cdef:
            Py_ssize_t l, p, size = 8 if self.double_precision else 4
            Layer *layer
        self.update = update
        if update is not None:
            self.rule, self.step_count = update.coefficients, update.step_count
            for l in range(self.depth):
                self.layers[l].dropout = update.dropout[l] if l < len(update.dropout) else 0
            if self.rule.max_norm > 0:
                self.gradients = self.packed[3]
        self.parameters = self._packed(self.flat, 0)
        if update is not None:
            if len(update.state) > 0:
                self.state_1 = self._packed(update.state[0], 1)
            if len(update.state) > 1:
                self.state_2 = self._packed(update.state[1], 2)
        if self.panel and transposes:
            for l in range(1, self.depth):
                layer = &self.layers[l]
                for p in range((layer.n + self.panel - 1) // self.panel):
                    self.kernels.transpose(
                        <char *> self.transposes + layer.transposed * size,
                        <char *> self.parameters + layer.W * size, p, 0, layer.n_prev,
                        layer.n_prev, layer.n)

    def store(self):
        """Write the parameters and the optimizer's state back to where they were taken from."""
        if self.panel:
            self._unpack(cnp.PyArray_DATA(self.flat), self.parameters)
            if len(self.update.state) > 0:
                self._unpack(cnp.PyArray_DATA(self.update.state[0]), self.state_1)
            if len(self.update.state) > 1:
                self._unpack(cnp.PyArray_DATA(self.update.state[1]), self.state_2)
        self.update = None

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
        self, cnp.ndarray out not None, Examples examples not None, *, bint check_rows=False,
    ):
        """Write the outputs of the examples into the rows of `out`; return whether that was done.

        With `check_rows`, for which X must be contiguous and of the network's dtype, its rows
        are looked through in passing, and NaN or infinity ends the work.
        """
        self._prepare(PREDICT, examples, examples.n)
        self.out = cnp.PyArray_DATA(out)
        self.check_rows = check_rows
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
        self.check_rows = False
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
            i = nncore_team_take(&w.team)
            if w.task == TRAIN and w.rule.max_norm > 0:
                while i < w.n_tiles:
                    _gradient_tile(w, &w.tiles[i], N, weight, _)
                    i = nncore_team_take(&w.team)
                nncore_team_wait(&w.team)
                clipping = _clipping(w)
                i = nncore_team_take(&w.team)
                while i < w.n_tiles:
                    _update_tile(w, &w.tiles[i], step, clipping, _)
                    i = nncore_team_take(&w.team)
            else:
                while i < w.n_tiles:
                    _tile(w, rank, &w.tiles[i], N, weight, step, 0 if start == 0 else 1, _)
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
    if w.check_rows and not w.kernels.finite(w.X.data + first * w.X.row_stride, n_rows * w.n_in):
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
            _in_panels(w, layer.activation), row, n_rows, capacity, layer.n_prev, layer.n)
        if w.task == TRAIN and layer.dropout > 0:
            w.kernels.dropout(
                activations + layer.A, layer.dropout, w.rule.dropout_seed, w.step_count, l + 1,
                w.panel or layer.n, row, n_rows, capacity, layer.n)
        A_prev = activations + layer.A
        A_stride = 0

    # What compares outputs with targets takes a row as a whole, and so a plain array.
    if w.panel or w.task == PREDICT:
        if w.task == PREDICT:
            outputs = <floating *> w.out + first * w.n_out
        else:
            outputs = <floating *> w.outputs + row * w.n_out
        _plain_rows(w, outputs, activations + last.A, row, n_rows)
        if w.panel and last.activation == SOFTMAX:
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

    if not w.panel:
        output_deltas = deltas + last.A + row * w.n_out
    w.kernels.output_delta(
        output_deltas, outputs, Y, sample_weight, w.loss, last.activation, n_rows, w.n_out)
    if w.panel:
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
                w.layers[l - 1].dropout, w.rule.dropout_seed, w.step_count, l,
                w.panel or layer.n_prev, row, n_rows, capacity, layer.n_prev)


cdef inline Activation _in_panels(Workspace w, Activation activation) noexcept nogil:
    """Softmax takes a row as a whole and waits until it is plain."""
    return IDENTITY if w.panel and activation == SOFTMAX else activation


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
    Workspace w, int rank, Tile *tile, Py_ssize_t N, double weight, Py_ssize_t step, double beta,
    const floating *_,
) noexcept nogil:
    """The second phase, (5) and (6), for a tile of a W; the first of a panel takes its biases."""
    cdef:
        Layer *layer = &w.layers[tile.l]
        Rule rule = ADD if w.task == GRADIENT else w.rule.rule
        bint indirect = rule == MOMENTUM or rule == ADAM
        Py_ssize_t p, width = w._width(tile.p_begin, layer.n)
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
                w, step, at + (p - tile.p_begin) * panel_step,
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
            _update(w, step, at, out, width, 0)


# Where the gradient's norm is limited, the second phase is two: all gradients, then all updates.

cdef void _gradient_tile(
    Workspace w, Tile *tile, Py_ssize_t N, double weight, const floating *_,
) noexcept nogil:
    """(5) for a tile of a W, with the L2 terms, into the vector of gradients; and its squares."""
    cdef:
        Layer *layer = &w.layers[tile.l]
        Py_ssize_t p, at, b, width = w._width(tile.p_begin, layer.n)
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
        Py_ssize_t p, width = w._width(tile.p_begin, layer.n)
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
    Workspace w, Tile *tile, Py_ssize_t step, double clipping, const floating *_,
) noexcept nogil:
    """(6) for a tile of a W, from the vector of gradients."""
    cdef:
        Layer *layer = &w.layers[tile.l]
        Py_ssize_t p, width = w._width(tile.p_begin, layer.n)
    for p in range(tile.p_begin, tile.p_end):
        _clipped_update(
            w, step, layer.W + p * w.panel * layer.n_prev + tile.k_begin * width,
            (tile.k_end - tile.k_begin) * width, clipping, _)
        if w.panel and tile.l > 0:
            w.kernels.transpose(
                <floating *> w.transposes + layer.transposed,
                <const floating *> w.parameters + layer.W, p, tile.k_begin, tile.k_end,
                layer.n_prev, layer.n)
        if tile.k_begin == 0:
            _clipped_update(w, step, layer.b + p * w.panel, width, clipping, _)


cdef void _clipped_update(
    Workspace w, Py_ssize_t step, Py_ssize_t at, Py_ssize_t count, double clipping,
    const floating *_,
) noexcept nogil:
    cdef floating *gradient = <floating *> w.gradients + at
    if clipping < 1:
        w.kernels.scale(gradient, clipping, count)
    _update(w, step, at, gradient, count, 0)


cdef void _update(
    Workspace w, Py_ssize_t step, Py_ssize_t at, const floating *gradient, Py_ssize_t count,
    double weight_decay,
) noexcept nogil:
    """(6) on a stretch of the parameters."""
    cdef:
        double correction_1, correction_2
        floating *parameters = <floating *> w.parameters + at
    if w.rule.rule == MOMENTUM:
        w.kernels.momentum(
            parameters, <floating *> w.state_1 + at, gradient, w.rule.learning_rate,
            w.rule.momentum, w.rule.nesterov, weight_decay, count)
    elif w.rule.rule == GRADIENT_DESCENT:
        w.kernels.sgd(parameters, gradient, w.rule.learning_rate, weight_decay, count)
    else:
        # Kingma and Ba's corrected means m/(1 - b1^t) and v/(1 - b2^t), taken out of the loop.
        correction_1 = 1 - w.rule.beta_1 ** step
        correction_2 = sqrt(1 - w.rule.beta_2 ** step)
        w.kernels.adam(
            parameters, <floating *> w.state_1 + at, <floating *> w.state_2 + at, gradient,
            w.rule.learning_rate * correction_2 / correction_1, w.rule.beta_1, w.rule.beta_2,
            w.rule.epsilon * (1 if w.rule.epsilon_uncorrected else correction_2), weight_decay,
            count)
