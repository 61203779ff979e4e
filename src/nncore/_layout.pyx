"""The memory that a step works in: examples, parameters, activations and deltas, in panels or, with
BLAS, in row-major arrays. docs/internals.md describes the panels.
"""

cimport cython
cimport numpy as cnp
from libc.string cimport memcpy

from nncore._kernels cimport (
    BINARY_CROSS_ENTROPY, CROSS_ENTROPY, CUSTOM, POISSON, Loss, blas_tables, tables)
from nncore._tables cimport (
    NNCORE_FLOAT32, NNCORE_FLOAT64, NNCORE_UINT8, nncore_keeps_derivatives, nncore_kernels)

import contextlib
import mmap

import numpy as np

cnp.import_array()

# The dtypes that examples may have. They are converted row by row as they are gathered.
SOURCES = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.uint8))

_HUGE_PAGE = 2 << 20
_CACHE_LINE = 64

# The bytes of a tile of W, and of the row of it that an input has. A block of 128 examples of the
# panels in such a row takes 256 KB and stays in L2, while the inputs' activations go through L1
# panel by panel: on AMD Zen 4, 1024 x 1024 with 1024 examples, square tiles of 64 KB took 11 %
# longer in float64 and 4 % in float32.
cdef enum:
    MOST_TILE_BYTES = 131072
    TILE_ROW_BYTES = 2048

# A layer is cut into about this many tiles, so that threads share it evenly.
cdef enum:
    TILES_PER_LAYER = 24

# Multiplications below which a tile costs more to fetch than to compute.
cdef enum:
    LEAST_TILE_WORK = 100_000

# From this batch size on, a tile spans several panels: it reads the examples' activations from the
# cache once for all of them.
cdef enum:
    MANY_EXAMPLES = 64


def aligned_zeros(Py_ssize_t count, dtype):
    """Return a vector of zeros that begins on a 64-byte boundary."""
    cdef Py_ssize_t size = count * np.dtype(dtype).itemsize
    return _aligned(np.zeros(size + _CACHE_LINE, dtype=np.uint8), size, _CACHE_LINE).view(dtype)


cdef cnp.ndarray _aligned(cnp.ndarray buffer, Py_ssize_t size, Py_ssize_t boundary):
    cdef Py_ssize_t skip = -<Py_ssize_t> cnp.PyArray_DATA(buffer) & (boundary - 1)
    return buffer[skip:skip + size]


cdef tuple _workspace_memory(Py_ssize_t size):
    """Return that many zero bytes and, if there are many, their mapping, on huge pages.

    Panels are far apart: on pages of 4 KB a tile would touch more pages than the TLB holds.
    """
    if size < _HUGE_PAGE // 2 or not hasattr(mmap, "MADV_HUGEPAGE"):
        return aligned_zeros(size, np.uint8), None
    try:
        memory = mmap.mmap(-1, size + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"could not allocate {size} bytes of workspace: {error}") from None
    with contextlib.suppress(OSError):  # the kernel may lack huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return _aligned(np.frombuffer(memory, dtype=np.uint8), size, _HUGE_PAGE), memory


cdef extern from *:
    # GCC and Clang have it without a header.
    Py_ssize_t add "__atomic_add_fetch"(Py_ssize_t *count, Py_ssize_t value, int order)
    int RELAXED "__ATOMIC_RELAXED"


# The number of the latest version of any flat vector. Without the GIL, threads count at once.
cdef Py_ssize_t _latest = 0


cdef Py_ssize_t _next_version() noexcept:
    return add(&_latest, 1, RELAXED)


cdef class FlatVector:
    """A vector with the layout of an architecture's parameters, owned by a network or an optimizer.

    Sessions keep copies of it in panels. A copy is up to date if it has the vector's version and
    nobody else holds the array.

    Parameters
    ----------
    array : ndarray of shape (n_parameters,)

    Attributes
    ----------
    array : ndarray of shape (n_parameters,)
    is_shared : bool
        Whether the array has been handed to somebody who may write to it at any time.
    """

    def __init__(self, cnp.ndarray array not None):
        self.array = array
        self.version = _next_version()

    @staticmethod
    def zeros(architecture):
        """Return a vector of zeros that begins on a cache line's boundary."""
        return FlatVector(aligned_zeros(architecture.n_parameters, architecture.dtype))

    def share(self):
        """Return the array for anybody to read and write."""
        self.is_shared = True
        return self.array

    def write(self, values):
        """Copy values into the vector."""
        with cython.critical_section(self):
            self.array[:] = values
            self.version = _next_version()


cdef class Counter:
    """A count that the compiled step sets together with the vectors that it writes back.

    No signal's handler can run in between.
    """


cdef Source source_of(cnp.ndarray array) noexcept:
    """Return where the rows are, or the only one if the array has one dimension."""
    cdef Source source
    cdef int dtype = cnp.PyArray_TYPE(array)
    source.data = cnp.PyArray_BYTES(array)
    source.type = (
        NNCORE_FLOAT32 if dtype == cnp.NPY_FLOAT32
        else NNCORE_FLOAT64 if dtype == cnp.NPY_FLOAT64 else NNCORE_UINT8)
    source.row_stride = cnp.PyArray_STRIDE(array, 0)
    source.column_stride = cnp.PyArray_STRIDE(array, cnp.PyArray_NDIM(array) - 1)
    return source


cdef class Examples:
    """The examples of a call, as the addresses from which batches are gathered.

    Parameters
    ----------
    X : ndarray of shape (n, n_0) and a dtype of `SOURCES`, with any strides
    Y : ndarray of shape (n, n_L) likewise, or of shape (n,) and dtype intp: class indices; or None
        With a loss of the user's, any array of n rows, which only that reads.
    sample_weight : contiguous ndarray of shape (n,) in the network's dtype, or None

    Attributes
    ----------
    arrays : tuple (X, Y, sample_weight)
    n : int
    """

    def __init__(
        self, cnp.ndarray X not None, cnp.ndarray Y=None, cnp.ndarray sample_weight=None,
    ):
        self.arrays = (X, Y, sample_weight)
        self.n = cnp.PyArray_DIM(X, 0)
        self.X = source_of(X)
        if Y is not None and cnp.PyArray_NDIM(Y) == 1:
            self.classes = <const Py_ssize_t *> cnp.PyArray_DATA(Y)
        elif Y is not None:
            self.Y = source_of(Y)
        if sample_weight is not None:
            self.sample_weight = cnp.PyArray_DATA(sample_weight)


def plain_examples(X, Y, architecture):
    """Return the examples if the arrays need no conversion and few checks, else None.

    X is an array in C order of the network's dtype. Y is one, too, and the loss allows all numbers;
    with class indices it is a vector of them.
    """
    cdef:
        cnp.ndarray inputs, targets
        const nncore_kernels *kernels
        const Py_ssize_t *classes
        Py_ssize_t n, i, n_out
        int dtype
        Loss loss = architecture.loss
        bint has_classes = loss == CROSS_ENTROPY
    if not (cnp.PyArray_CheckExact(X) and cnp.PyArray_CheckExact(Y)):
        return None
    inputs, targets = X, Y
    sizes = architecture.sizes
    n_out = sizes[len(sizes) - 1]
    dtype = (<cnp.dtype> architecture.dtype).num
    if (
        loss == BINARY_CROSS_ENTROPY or loss == POISSON or loss == CUSTOM
        or cnp.PyArray_NDIM(inputs) != 2 or cnp.PyArray_NDIM(targets) != 2 - has_classes
        or cnp.PyArray_TYPE(inputs) != dtype
        or cnp.PyArray_TYPE(targets) != (cnp.NPY_INTP if has_classes else dtype)
        or not cnp.PyArray_ISCARRAY_RO(inputs) or not cnp.PyArray_ISCARRAY_RO(targets)
    ):
        return None
    n = cnp.PyArray_DIM(inputs, 0)
    if (
        n == 0 or cnp.PyArray_DIM(targets, 0) != n or cnp.PyArray_DIM(inputs, 1) != sizes[0]
        or (not has_classes and cnp.PyArray_DIM(targets, 1) != n_out)
    ):
        return None
    kernels = tables(dtype == cnp.NPY_FLOAT64)
    if not kernels.finite(cnp.PyArray_DATA(inputs), 1, n * sizes[0], n * sizes[0]):
        return None
    if has_classes:
        # Copy: indices become addresses, so they must not change after this check.
        targets = cnp.PyArray_Copy(targets)
        classes = <const Py_ssize_t *> cnp.PyArray_DATA(targets)
        for i in range(n):
            if not 0 <= classes[i] < n_out:
                return None
    elif not kernels.finite(cnp.PyArray_DATA(targets), 1, n * n_out, n * n_out):
        return None
    return Examples(inputs, targets)


def _shares(Py_ssize_t n, Py_ssize_t most):
    """Yield the bounds of the fewest equal parts of n with at most `most` in each."""
    cdef Py_ssize_t i, parts = (n + most - 1) // most
    for i in range(parts):
        yield n * i // parts, n * (i + 1) // parts


cdef class Layout:
    """The memory for batches of one architecture, and the vectors of parameters in it.

    Parameters
    ----------
    architecture : Architecture
    batch_size : int
        The most examples in a batch of `train` or `gradient`, or, for `total_loss` and `predict`,
        n_threads spans.
    span : int
        The examples whose losses are added up together. It depends on the shapes alone.
    most_spans : int
        How many spans a thread takes at a time, at most.
    n_threads : int
    blas : bool
        Whether BLAS forms the products.
    """

    def __init__(
        self, architecture, Py_ssize_t batch_size, Py_ssize_t span, Py_ssize_t most_spans,
        int n_threads, bint blas,
    ):
        self.batch_size, self.span, self.most_spans = batch_size, span, most_spans
        self.n_threads = n_threads
        self.depth = len(architecture.layers)
        self.n_in = architecture.sizes[0]
        self.n_out = architecture.sizes[self.depth]
        self.loss, self.threshold = architecture.loss, architecture.threshold
        self.double_precision = architecture.dtype == np.float64
        self.itemsize = 8 if self.double_precision else 4
        self.own_type = NNCORE_FLOAT64 if self.double_precision else NNCORE_FLOAT32
        self.kernels = (
            blas_tables(self.double_precision) if blas
            else <nncore_kernels *> tables(self.double_precision))
        self.panel_width = self.kernels.panel_width
        self.outputs_are_panel = self.panel_width == 0 or self.n_out <= self.panel_width
        self.output_stride = (
            width_of_panel(self.panel_width, 0, self.n_out) if self.outputs_are_panel
            else self.n_out)
        # Panels whose distance is a multiple of many cache lines would share few cache sets.
        self.capacity = batch_size + 5 if self.panel_width and batch_size % 8 == 0 else batch_size
        self._lay_out(architecture.layers)
        self._cut_tiles()
        self._allocate()
        self.forget()

    cdef Py_ssize_t _padded(self, Py_ssize_t n) noexcept:
        """The columns that the panels of n units occupy."""
        return n if n == 1 else self._whole_vectors(n)

    cdef Py_ssize_t _whole_vectors(self, Py_ssize_t count) noexcept:
        """Round up to whole vectors."""
        cdef Py_ssize_t lanes = self.panel_width // 2
        return (count + lanes - 1) // lanes * lanes if self.panel_width else count

    cdef _lay_out(self, tuple layers):
        cdef:
            Py_ssize_t l, n_prev, n, packed = 0, transposed = 0, A = 0
            Layer *layer
        array = np.empty(self.depth * sizeof(Layer), dtype=np.uint8)
        self.layers = <Layer *> cnp.PyArray_DATA(array)
        for l in range(self.depth):
            layer = &self.layers[l]
            n_prev, n, layer.sigma.kind, layer.sigma.slope, layer.flat_W, layer.flat_b = layers[l]
            layer.n_prev, layer.n, layer.dropout_rate, layer.has_bias = n_prev, n, 0, True
            layer.W, layer.b = packed, packed + self._whole_vectors(n_prev * self._padded(n))
            packed = layer.b + self._whole_vectors(n)
            layer.transposed = transposed
            if l > 0 and self.panel_width:
                transposed += self._whole_vectors(n * self._padded(n_prev))
            layer.A_prev = 0 if l == 0 else self.layers[l - 1].A
            layer.A = A
            A += self._whole_vectors(self._padded(n) * self.capacity)
        # The examples and derivatives come last: they have no deltas.
        self.layers[0].A_prev = A
        self.n_packed, self.n_transposed, self.n_units = packed, transposed, A
        A += self._whole_vectors(self._padded(self.n_in) * self.capacity)
        for l in range(self.depth):
            layer = &self.layers[l]
            layer.derivatives = layer.A
            if nncore_keeps_derivatives(layer.sigma):
                layer.derivatives = A
                A += self._whole_vectors(self._padded(layer.n) * self.capacity)
        self.n_activations = A
        self.arrays = (array,)
        self.mappings = []
        self.size = 0

    cdef _cut_tiles(self):
        """Cut each W into tiles that stay in the cache while they are updated."""
        cdef Py_ssize_t l, half, most
        cdef list tiles = []
        cdef Layer *layer
        self.scratch_size = 0
        for l in range(self.depth):
            layer = &self.layers[l]
            if self.panel_width:
                # All panels but a last one of half the width.
                half = (layer.n + self.panel_width // 2 - 1) // self.panel_width
                self._cut_panels(tiles, l, 0, half)
                self._cut_panels(
                    tiles, l, half, (layer.n + self.panel_width - 1) // self.panel_width)
            else:
                most = max(64, MOST_TILE_BYTES // layer.n)
                for k in range(0, layer.n_prev, most):
                    tiles.append((l, 0, 1, k, min(k + most, layer.n_prev)))
        self.n_tiles = len(tiles)
        array = np.empty(self.n_tiles * sizeof(Tile), dtype=np.uint8)
        self.tiles = <Tile *> cnp.PyArray_DATA(array)
        for i, (l, p_begin, p_end, k_begin, k_end) in enumerate(tiles):
            layer = &self.layers[l]
            width = width_of_panel(self.panel_width, p_begin, layer.n)
            step = self.panel_width * layer.n_prev
            self.tiles[i] = Tile(
                l, p_begin, p_end, k_begin, k_end, width, (k_end - k_begin) * width,
                layer.W + p_begin * step + k_begin * width, step)
            self.scratch_size = max(
                self.scratch_size, (p_end - p_begin) * max(k_end - k_begin, 1) * width)
        squares = np.empty(2 * self.n_tiles)
        finite = np.empty(self.n_tiles, dtype=np.intc)
        self.arrays += (array, squares, finite)
        self.weight_squares = <double *> cnp.PyArray_DATA(squares)
        self.gradient_squares = self.weight_squares + self.n_tiles
        self.tile_is_finite = <bint *> cnp.PyArray_DATA(finite)

    cdef _cut_panels(self, list tiles, Py_ssize_t l, Py_ssize_t p_begin, Py_ssize_t p_end):
        """Cut panels p_begin to p_end of W, equally wide, into tiles of about equal size.

        A tile consists of squares, a panel's width of inputs by one panel.
        """
        cdef:
            Py_ssize_t width = width_of_panel(self.panel_width, p_begin, self.layers[l].n)
            Py_ssize_t square = self.panel_width * width
            Py_ssize_t n_rows = (
                (self.layers[l].n_prev + self.panel_width - 1) // self.panel_width)
            Py_ssize_t n_panels = p_end - p_begin
            Py_ssize_t least = LEAST_TILE_WORK // (self.batch_size * square) + 1
            Py_ssize_t most = MOST_TILE_BYTES // (square * self.itemsize)
            Py_ssize_t squares = min(max(n_panels * n_rows // TILES_PER_LAYER, least), most)
            Py_ssize_t panels = (
                1 if self.batch_size < MANY_EXAMPLES else min(
                    squares, n_panels, TILE_ROW_BYTES // (width * self.itemsize)))
        if n_panels == 0:
            return
        for p, p_next in _shares(n_panels, panels):
            for k, k_next in _shares(n_rows, max(squares // panels, 1)):
                tiles.append((
                    l, p_begin + p, p_begin + p_next, k * self.panel_width,
                    min(k_next * self.panel_width, self.layers[l].n_prev)))

    cdef _allocate(self):
        """Place everything in one stretch of memory."""
        cdef:
            Py_ssize_t n_outputs = 0 if self.outputs_are_panel else self.batch_size * self.n_out
            Layer *last = &self.layers[self.depth - 1]
            Py_ssize_t end = 0
            list begins = []
            char *memory
        # Threads must not write to the same cache line.
        self.scratch_size = self._whole_lines(self.scratch_size) // self.itemsize
        for count in (
            *[self.n_packed] * 4, self.n_transposed, self.n_activations, self.n_units,
            n_outputs, n_outputs, n_outputs if last.derivatives != last.A else 0,
            self.batch_size * self.output_stride, self.batch_size,
            self.scratch_size * self.n_threads,
        ):
            begins.append(end)
            end += self._whole_lines(count)
        memory = self._new_memory(end)
        for i, slot in enumerate((PARAMETERS, STATE_1, STATE_2, GRADIENT)):
            self.packed[<int> slot] = memory + <Py_ssize_t> begins[i]
        self.transposes = memory + <Py_ssize_t> begins[4]
        self.activations = memory + <Py_ssize_t> begins[5]
        self.deltas = memory + <Py_ssize_t> begins[6]
        self.outputs = memory + <Py_ssize_t> begins[7]
        self.output_deltas = memory + <Py_ssize_t> begins[8]
        self.output_derivatives = memory + <Py_ssize_t> begins[9]
        self.Y = memory + <Py_ssize_t> begins[10]
        self.sample_weight = memory + <Py_ssize_t> begins[11]
        self.scratch = memory + <Py_ssize_t> begins[12]

    def reserve(self, Py_ssize_t n_vectors):
        """Allocate the slots of so many vectors, parameters and state."""
        if n_vectors > STATE_3 and self.packed[<int> STATE_3] == NULL:
            self.packed[<int> STATE_3] = self._new_memory(self._whole_lines(self.n_packed))

    cdef char *_new_memory(self, Py_ssize_t size) except NULL:
        array, mapping = _workspace_memory(size)
        self.arrays += (array,)
        if mapping is not None:
            self.mappings.append(mapping)
        self.size += size
        return cnp.PyArray_BYTES(array)

    def offer_memory(self):
        """Let the system take the memory back if it needs it, until the next load.

        Return whether the system does that: it keeps the pages for as long as it has others, so
        that the next run need not wait for new ones.
        """
        if not self.mappings or not hasattr(mmap, "MADV_FREE"):
            return False
        self.forget()
        try:
            for mapping in self.mappings:
                mapping.madvise(mmap.MADV_FREE)
        except OSError:  # the kernel may lack it
            return False
        return True

    def _whole_lines(self, Py_ssize_t count):
        """Return the bytes of whole cache lines that hold so many numbers."""
        return (count * self.itemsize + _CACHE_LINE - 1) // _CACHE_LINE * _CACHE_LINE

    def load(self, tuple vectors not None, bint transposes):
        """Copy parameters and state into their slots unless these are up to date.

        With `transposes`, the transposes of W^2, ..., W^L, which (4) reads, too.
        """
        cdef:
            Py_ssize_t slot = 0
            FlatVector vector
        self.reserve(len(vectors))
        if self.n_slots != len(vectors):
            self.n_slots = len(vectors)
            self.tiles_are_checked = False
        for vector in vectors:
            # Without the GIL, another thread may write to it.
            with cython.critical_section(vector):
                if vector.is_shared or self.loaded[slot] != vector.version:
                    self._pack(slot, vector.array)
                    self.loaded[slot] = vector.version
                    self.tiles_are_checked = False
                    if slot == PARAMETERS:
                        self.is_transposed = False
            slot += 1
        if transposes and not self.is_transposed:
            self._transpose()

    cdef _write_back(self, tuple vectors):
        """Copy the slots of parameters and state into the flat vectors."""
        cdef:
            Py_ssize_t slot = 0
            FlatVector vector
        for vector in vectors:
            with cython.critical_section(vector):
                self._unpack(slot, vector.array)
                self.loaded[slot] = vector.version = _next_version()
            slot += 1

    def copy_to(self, list vectors not None):
        """Copy the first slots into other flat vectors."""
        cdef Py_ssize_t slot
        for slot in range(len(vectors)):
            self._unpack(slot, vectors[slot])

    def forget(self):
        """Regard all slots as out of date."""
        cdef Py_ssize_t slot
        for slot in range(N_SLOTS):
            self.loaded[slot] = -1

    cdef _pack(self, Py_ssize_t slot, cnp.ndarray flat):
        """Copy a flat vector into a slot, laid out in panels."""
        cdef:
            Py_ssize_t l, size = self.itemsize
            const char *source = cnp.PyArray_BYTES(flat)
            char *packed = self.packed[slot]
            Layer *layer
        if not self.panel_width:
            memcpy(packed, source, self.n_packed * size)
            return
        for l in range(self.depth):
            layer = &self.layers[l]
            self.kernels.gather(
                packed + layer.W * size, source + layer.flat_W * size, self.own_type,
                layer.n * size, size, NULL, 0, 0, self.panel_width, 0, layer.n_prev, layer.n_prev,
                layer.n)
            self.kernels.gather(
                packed + layer.b * size, source + layer.flat_b * size, self.own_type,
                layer.n * size, size, NULL, 0, 0, self.panel_width, 0, 1, 1, layer.n)

    cdef _unpack(self, Py_ssize_t slot, cnp.ndarray flat):
        """Copy a slot into a flat vector."""
        self._unpack_layers(slot, flat, 0, self.depth)

    cdef _unpack_layers(
        self, Py_ssize_t slot, cnp.ndarray flat, Py_ssize_t begin, Py_ssize_t end,
    ):
        """Copy layers begin + 1 to end of a slot into their part of a flat vector."""
        cdef:
            Py_ssize_t l, size = self.itemsize
            const char *packed = self.packed[slot]
            char *out = cnp.PyArray_BYTES(flat)
            Layer *layer
        for l in range(begin, end):
            layer = &self.layers[l]
            if not self.panel_width:
                memcpy(
                    out + layer.flat_W * size, packed + layer.W * size,
                    (layer.n_prev + 1) * layer.n * size)
                continue
            self.kernels.scatter(
                out + layer.flat_W * size, packed + layer.W * size, 0, layer.n_prev, layer.n_prev,
                layer.n)
            self.kernels.scatter(
                out + layer.flat_b * size, packed + layer.b * size, 0, 1, 1, layer.n)

    cdef _transpose(self):
        cdef Py_ssize_t l
        self.is_transposed = True
        if self.panel_width:
            for l in range(1, self.depth):
                self._transpose_layer(
                    l, self.transposes + self.layers[l].transposed * self.itemsize)

    cdef _transpose_layer(self, Py_ssize_t l, char *out):
        cdef:
            Py_ssize_t p
            Layer *layer = &self.layers[l]
        for p in range((layer.n + self.panel_width - 1) // self.panel_width):
            self.kernels.transpose(
                out, self.packed[<int> PARAMETERS] + layer.W * self.itemsize, p, 0, layer.n_prev,
                layer.n_prev, layer.n)

    cdef _prepare_input_deltas(self):
        """Transpose W^1, and allocate memory for that and for δ^0 in the first call."""
        cdef Py_ssize_t deltas, columns = self._padded(self.n_in)
        if self.input_deltas == NULL:
            deltas = self._whole_lines(columns * self.layers[0].n if self.panel_width else 0)
            self.input_transpose = self._new_memory(
                deltas + self._whole_lines(columns * self.capacity))
            self.input_deltas = self.input_transpose + deltas
        if self.panel_width:
            self._transpose_layer(0, self.input_transpose)

    def is_finite(self):
        """Return whether parameters and state are finite, padding aside."""
        cdef Py_ssize_t i
        for i in range(self.n_tiles):
            if not (self.tile_is_finite[i] if self.tiles_are_checked
                    else self._check_tile(&self.tiles[i])):
                return False
        return True

    cdef bint _check_tile(self, const Tile *tile) noexcept nogil:
        """Whether a tile's parameters and state are finite."""
        cdef:
            Layer *layer = &self.layers[tile.l]
            Py_ssize_t slot, p, columns
            const char *W
            const char *b
        for slot in range(self.n_slots):
            W = self.packed[slot] + tile.W * self.itemsize
            b = self.packed[slot] + layer.b * self.itemsize
            for p in range(tile.p_begin, tile.p_end):
                columns = min(tile.width, layer.n - p * self.panel_width)
                if not self.kernels.finite(W, tile.k_end - tile.k_begin, columns, tile.width):
                    return False
                if tile.k_begin == 0 and not self.kernels.finite(
                        b + p * self.panel_width * self.itemsize, 1, columns, columns):
                    return False
                W += tile.panel_step * self.itemsize
        return True
