"""The layout's parts, for `nncore._step`."""

cimport numpy as cnp
from libc.stdint cimport uint64_t

from nncore._kernels cimport Activation, Loss
from nncore._tables cimport nncore_kernels, nncore_source


cdef struct Source:
    const char *data
    nncore_source type
    Py_ssize_t row_stride
    Py_ssize_t column_stride


cdef class Examples:
    cdef:
        tuple arrays
        readonly Py_ssize_t n
        Source X
        Source Y
        bint has_targets
        const Py_ssize_t *classes
        const void *sample_weight


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
    cdef:
        readonly tuple state
        readonly Py_ssize_t step_count
        Coefficients coefficients
        tuple dropout


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


cdef inline Py_ssize_t panel_width(Py_ssize_t panel, Py_ssize_t p, Py_ssize_t n) noexcept nogil:
    """The width of panel p of n units: that of the others, or half of it, or 1 of a single unit."""
    if panel == 0 or n == 1:
        return n
    return panel if n - p * panel > panel // 2 else panel // 2


cdef class Layout:
    cdef:
        readonly Py_ssize_t batch_size
        readonly Py_ssize_t span
        # In bytes.
        readonly Py_ssize_t size
        # The rows that a batch's matrices have room for.
        Py_ssize_t capacity
        Py_ssize_t n_members
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
        # A tile's share of ‖W‖² and of the gradient's.
        double *squares
        double *gradient_squares
        Update update
        Coefficients rule
        Py_ssize_t step_count

    cdef Py_ssize_t _padded(self, Py_ssize_t n) noexcept
    cdef Py_ssize_t _whole_vectors(self, Py_ssize_t count) noexcept
    cdef _lay_out(self, sizes, activations)
    cdef _cut_tiles(self)
    cdef _cut_panels(self, list tiles, Py_ssize_t l, Py_ssize_t p_begin, Py_ssize_t p_end)
    cdef _allocate(self)
    cdef void *_packed(self, cnp.ndarray flat, int which)
    cdef void _pack(self, void *packed, const void *flat) noexcept
    cdef void _unpack(self, void *flat, const void *packed) noexcept
