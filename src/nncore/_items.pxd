"""The parts of a step's items, for `nncore._step`."""

cimport numpy as cnp
from libc.stdint cimport uint64_t

from nncore._layout cimport Examples, Layout, Source
from nncore._team cimport Team


cdef enum Kind:
    GRADIENT_DESCENT
    MOMENTUM
    ADAM
    AMSGRAD
    RMSPROP


# What the items of a phase are: one or more spans that go forward, or forward and back, or one of
# both for the whole batch first; blocks of a layer's activations or deltas; and tiles.
cdef enum Phase:
    FORWARD
    BACKWARD
    # (1), keeping every layer's activations; then (3) and (4) from ∂E/∂A in the targets' place.
    ACTIVATE
    GO_BACK
    # The three before with the work on whole layers in phases of its own: the examples' gathering,
    # then (1) layer by layer, before the phase itself, and (4) after it.
    GATHER
    FORWARD_BLOCK
    DELTA_BLOCK
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
    double bias_decay
    double decoupled_bias_decay
    double momentum
    bint nesterov
    bint accumulates
    double beta_1
    double beta_2
    double rho
    bint centered
    double epsilon
    bint epsilon_uncorrected
    double penalty
    double max_norm
    uint64_t dropout_seed


cdef class Items(Layout):
    cdef:
        readonly Team team
        Rule rule
        # The phase, and the batch that it works on.
        Phase phase
        Py_ssize_t first, n_rows
        Examples examples
        const Py_ssize_t *order
        Py_ssize_t n_order
        bint rows_in_place, drops, checks_rows
        uint64_t dropout_step, first_example
        # Of (5): the gradient is scaled and added to what W and b, or the gradient's slot, hold.
        double scale, beta
        double step_size, epsilon, decay, bias_decay, clipping
        # η λ of the decoupled decay of weights and of biases.
        double shrinkage, bias_shrinkage
        # The spans of the batch, and how many of them an item has.
        Py_ssize_t n_spans, item_spans
        # Whether (1) and (4) have phases of their own; the layer, and how it is cut into blocks.
        readonly bint in_blocks
        Py_ssize_t l, row_blocks, column_blocks
        # Of each span.
        double *span_losses
        double *span_weights
        # Where each layer's activations go, if anywhere.
        char **outs
        # Where δ^0 goes, if anywhere, and the bytes between its rows.
        char *dX
        Py_ssize_t dX_stride
        cnp.ndarray out_array

    cdef void begin(self) noexcept


cdef void run_phase(Items w, Phase phase, Py_ssize_t n_items) noexcept nogil

cdef Py_ssize_t panels_to_cut(Items w, Py_ssize_t n) noexcept nogil

cdef void copy_outputs(Items w, char *out) noexcept nogil

cdef void set_targets(
    Items w, char *Y, const Source *source, const Py_ssize_t *order, Py_ssize_t first,
    Py_ssize_t n_rows) noexcept nogil
