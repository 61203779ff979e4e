"""Where a step finds what it works on: examples, parameters, activations and deltas, in panels or,
with BLAS, in plain arrays.
"""

cimport numpy as cnp
from libc.stdint cimport uint64_t

from nncore._kernels cimport blas_tables, tables
from nncore._tables cimport NNCORE_FLOAT32, NNCORE_FLOAT64, NNCORE_UINT8, nncore_source

import contextlib
import math
import mmap

import numpy as np

cnp.import_array()

_HUGE_PAGE = 2 << 20


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


cdef class Layout:
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
            blas_tables(self.double_precision) if blas
            else <nncore_kernels *> tables(self.double_precision))
        self.panel = self.kernels.panel_width
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
        return n if n == 1 else self._whole_vectors(n)

    cdef Py_ssize_t _whole_vectors(self, Py_ssize_t count) noexcept:
        """Round up to whole vectors."""
        cdef Py_ssize_t half = self.panel // 2
        return (count + half - 1) // half * half if self.panel else count

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
            layer.W, layer.b = packed, packed + self._whole_vectors(n_prev * self._padded(n))
            packed = layer.b + self._whole_vectors(n)
            layer.transposed = transposed
            if l > 0:
                transposed += self._whole_vectors(n * self._padded(n_prev))
            layer.A_prev = 0 if l == 0 else self.layers[l - 1].A
            layer.A = A
            A += self._whole_vectors(self._padded(n) * self.capacity)
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
            width = panel_width(self.panel, p_begin, self.layers[l].n)
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
            Py_ssize_t square = self.panel * panel_width(self.panel, p_begin, self.layers[l].n)
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
