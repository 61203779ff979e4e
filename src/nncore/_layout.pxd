"""The layout's parts, for `nncore._step`."""

cimport numpy as cnp
from libc.stdint cimport uint64_t

from nncore._kernels cimport Loss
from nncore._tables cimport nncore_kernels, nncore_sigma, nncore_source


cdef struct Source:
    const char *data
    nncore_source type
    Py_ssize_t row_stride
    Py_ssize_t column_stride


cdef Source source_of(cnp.ndarray array) noexcept


cdef class Examples:
    cdef:
        readonly tuple arrays
        readonly Py_ssize_t n
        Source X
        Source Y
        const Py_ssize_t *classes
        const void *sample_weight


cdef class FlatVector:
    cdef:
        readonly cnp.ndarray array
        readonly bint is_shared
        Py_ssize_t version


cdef class Counter:
    cdef public Py_ssize_t value


cdef struct Layer:
    Py_ssize_t n_prev
    Py_ssize_t n
    nncore_sigma sigma
    double dropout_rate
    # Whether steps change its biases.
    bint has_bias
    # Where W and b begin in a flat vector, and in one that is laid out in panels.
    Py_ssize_t flat_W
    Py_ssize_t flat_b
    Py_ssize_t W
    Py_ssize_t b
    # Where W's transpose begins among the transposes.
    Py_ssize_t transposed
    # Where the layer's input and output begin among the activations; its delta begins among the
    # deltas where A does among the activations.
    Py_ssize_t A_prev
    Py_ssize_t A
    # Where (4) finds what σ′ follows from among the activations: A, or σ′(Z) itself.
    Py_ssize_t derivatives


cdef struct Tile:
    # Panels p_begin to p_end of layer l's units, equally wide, for its inputs k_begin to k_end.
    Py_ssize_t l
    Py_ssize_t p_begin
    Py_ssize_t p_end
    Py_ssize_t k_begin
    Py_ssize_t k_end
    # The width of its panels, and how many numbers its part of a panel has.
    Py_ssize_t width
    Py_ssize_t count
    # Where its part of the first panel begins in a packed vector, and the distance to the next.
    Py_ssize_t W
    Py_ssize_t panel_step


cdef inline Py_ssize_t width_of_panel(
    Py_ssize_t panel_width, Py_ssize_t p, Py_ssize_t n,
) noexcept nogil:
    """The width of panel p of n units: full, or half in the last one, or 1 for a single unit."""
    if panel_width == 0 or n == 1:
        return n
    return panel_width if n - p * panel_width > panel_width // 2 else panel_width // 2


# The slots: vectors with the layout of the parameters, in the order of `Layout.packed`. All but the
# gradient are in the order of a session's vectors.
cdef enum Slot:
    PARAMETERS
    STATE_1
    STATE_2
    STATE_3
    GRADIENT
    N_SLOTS


cdef class Layout:
    cdef:
        readonly Py_ssize_t batch_size
        readonly Py_ssize_t span
        readonly Py_ssize_t most_spans
        readonly int n_threads
        # In bytes.
        readonly Py_ssize_t size
        # The rows that a batch's matrices have room for.
        Py_ssize_t capacity
        Py_ssize_t depth, n_in, n_out, n_tiles
        # Columns of a panel; 0 with BLAS, whose matrices are row-major arrays.
        Py_ssize_t panel_width
        # Whether the outputs are a single panel, or an array with BLAS, so that rows are whole, and
        # how far apart rows of outputs, their deltas and targets are.
        bint outputs_are_panel
        Py_ssize_t output_stride
        # Bytes of a number, and numbers in a thread's scratch memory.
        Py_ssize_t itemsize, scratch_size
        # The lengths of vectors in panels: parameters, transposes, activations without examples and
        # derivatives, and with them.
        Py_ssize_t n_packed, n_transposed, n_units, n_activations
        Loss loss
        double threshold
        bint double_precision
        nncore_source own_type
        nncore_kernels *kernels
        tuple arrays
        # Those of the arrays that are mappings of their own.
        readonly list mappings
        Layer *layers
        Tile *tiles
        # Vectors in panels. Few rules need STATE_3; it is NULL until one does.
        char *packed[N_SLOTS]
        # The version of the flat vector that each slot is a copy of; -1 for none.
        Py_ssize_t loaded[N_SLOTS]
        # How many slots hold parameters and state.
        Py_ssize_t n_slots
        bint is_transposed
        char *transposes
        # W^1's transpose and δ^0, which steps do not need.
        char *input_transpose
        char *input_deltas
        # A batch's, in panels, and below, row-major. The outputs' are empty where they are a panel.
        char *activations
        char *deltas
        char *outputs
        char *output_deltas
        char *output_derivatives
        char *Y
        char *sample_weight
        # A part per thread.
        char *scratch
        # A tile's share of ‖W‖² and of the gradient's squared norm.
        double *weight_squares
        double *gradient_squares
        # Whether the last step left each tile finite, if that step looked.
        bint *tile_is_finite
        bint tiles_are_checked

    cdef Py_ssize_t _padded(self, Py_ssize_t n) noexcept
    cdef Py_ssize_t _whole_vectors(self, Py_ssize_t count) noexcept
    cdef _lay_out(self, tuple layers)
    cdef _cut_tiles(self)
    cdef _cut_panels(self, list tiles, Py_ssize_t l, Py_ssize_t p_begin, Py_ssize_t p_end)
    cdef _allocate(self)
    cdef char *_new_memory(self, Py_ssize_t size) except NULL
    cdef _write_back(self, tuple vectors)
    cdef _pack(self, Py_ssize_t slot, cnp.ndarray flat)
    cdef _unpack(self, Py_ssize_t slot, cnp.ndarray flat)
    cdef _unpack_layers(
        self, Py_ssize_t slot, cnp.ndarray flat, Py_ssize_t begin, Py_ssize_t end)
    cdef _transpose(self)
    cdef _transpose_layer(self, Py_ssize_t l, char *out)
    cdef _prepare_input_deltas(self)
    cdef bint _check_tile(self, const Tile *tile) noexcept nogil
