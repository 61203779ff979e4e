"""The items of a step's phases: spans of examples, blocks of layers, and tiles of W.

A span goes through (1) to (4) by itself, unless (1) and (4) have phases whose items are blocks of
one layer; a tile's gradient (5) and update (6) run back to back. The products run on the tiles of
csrc/products.h or on BLAS, behind the same table of functions. All addresses are bytes and all
offsets numbers, so one source serves float32 and float64.
"""

cimport numpy as cnp
from libc.string cimport memcpy, memset

from nncore._kernels cimport CROSS_ENTROPY, IDENTITY, SOFTMAX
from nncore._layout cimport (
    GRADIENT, PARAMETERS, STATE_1, STATE_2, STATE_3, Layer, Layout, Slot, Source, Tile,
    width_of_panel)
from nncore._tables cimport nncore_sigma
from nncore._team cimport Team, is_stopped, run_item, stop, watch

import numpy as np

cnp.import_array()

cdef nncore_sigma NO_SIGMA
NO_SIGMA.kind, NO_SIGMA.slope = IDENTITY, 0


cdef class Items(Layout):
    """A `Layout`, the batch in it, and what the phase in progress does with it."""

    def __init__(self, architecture, batch_size, span, most_spans, n_threads, blas):
        super().__init__(architecture, batch_size, span, most_spans, n_threads, blas)
        self.team = Team(n_threads)
        self.out_array = np.zeros(self.depth, dtype=np.intp)
        self.outs = <char **> cnp.PyArray_DATA(self.out_array)

    def __dealloc__(self):
        # Workers that nobody could close, because of a signal at the entry of `Session.__exit__`.
        if self.team is not None:
            self.team.abandon()

    cdef void begin(self) noexcept:
        """Begin a run of the team."""
        self.team.begin(<run_item> _shared_item, <void *> self)


cdef void run_phase(Items w, Phase phase, Py_ssize_t n_items) noexcept nogil:
    """Work on the items of a phase, with the workers that are there, until all are finished."""
    cdef Py_ssize_t i
    w.phase = phase
    # Spans and blocks may be abandoned; tiles that change the parameters may not.
    w.team.may_stop = phase < DESCEND
    if not w.team.has_workers:
        for i in range(n_items):
            _item(w, i, 0)
            if is_stopped(w.team):
                return
        return
    w.team.share(n_items)


cdef inline void _item(Items w, Py_ssize_t i, int rank) noexcept nogil:
    if w.phase < DESCEND:
        if w.phase < FORWARD_BLOCK:
            _spans(w, i, rank)
        else:
            _block(w, i)
        if rank == 0:
            watch(w.team, w.item_spans * w.span * w.n_packed)
        return
    if w.phase == DESCEND:
        _descend(w, &w.tiles[i], i)
    elif w.phase == UPDATE:
        _update_tile(w, &w.tiles[i], i)
    else:
        _gradient_tile(w, &w.tiles[i], i, rank)
    if w.tiles_are_checked and (w.phase <= FUSED or w.phase == UPDATE):
        w.tile_is_finite[i] = w._check_tile(&w.tiles[i])


cdef void _shared_item(Items w, Py_ssize_t i, int rank) noexcept nogil:
    _item(w, i, rank)


# Phase 1.

cdef void _spans(Items w, Py_ssize_t i, int rank) noexcept nogil:
    """(1) to (4), or the phase's part of them, for the spans of item i."""
    cdef:
        Py_ssize_t n_item = w.item_spans * w.span
        Py_ssize_t first = w.first + i * n_item
        Py_ssize_t n_rows = min(n_item, w.n_rows - i * n_item)
        # Where the item's rows are in the workspace.
        Py_ssize_t row = rank * n_item if w.phase == FORWARD else i * n_item
        char *outputs = _outputs_at(w, first, row)
        char *Y = w.Y + row * w.output_stride * w.itemsize
        const char *sample_weight = NULL
    if w.examples.sample_weight != NULL:
        sample_weight = w.sample_weight + row * w.itemsize
    if w.phase == GATHER or not (w.in_blocks or w.phase == GO_BACK):
        if sample_weight != NULL:
            _gather_weights(w, i * w.item_spans, <char *> sample_weight, first, n_rows)
        if not _take_examples(w, sample_weight, first, row, n_rows) or w.phase == GATHER:
            return
        _activate(w, first, row, n_rows)
    if w.phase != GO_BACK:
        if not w.outputs_are_panel:
            _complete_outputs(w, outputs, row, n_rows)
        if w.phase == ACTIVATE:
            return
        if w.examples.Y.data != NULL:
            set_targets(w, Y, &w.examples.Y, w.order, first, n_rows)
        elif not _has_classes(w):
            return
        _add_losses(w, i * w.item_spans, outputs, Y, sample_weight, first, n_rows)
        if w.phase == FORWARD:
            return
    _go_back(w, outputs, Y, sample_weight, first, row, n_rows)


cdef inline bint _has_classes(Items w) noexcept nogil:
    """Whether the targets are class indices that (2) and (3) read where they lie."""
    return w.loss == CROSS_ENTROPY and w.examples.classes != NULL


cdef inline char *_outputs_at(Items w, Py_ssize_t first, Py_ssize_t row) noexcept nogil:
    """Where whole rows of outputs, of the examples from `first` on, are or will be."""
    if w.outputs_are_panel:
        return w.activations + (w.layers[w.depth - 1].A + row * w.output_stride) * w.itemsize
    if w.outs[w.depth - 1] != NULL:
        return w.outs[w.depth - 1] + first * w.n_out * w.itemsize
    return w.outputs + row * w.n_out * w.itemsize


cdef void copy_outputs(Items w, char *out) noexcept nogil:
    """Copy the batch's outputs to a row-major array."""
    if w.outputs_are_panel:
        _copy_rows(
            w, out, w.activations + w.layers[w.depth - 1].A * w.itemsize, 0, w.n_rows, w.n_out)
    else:
        memcpy(out, w.outputs, w.n_rows * w.n_out * w.itemsize)


cdef bint _take_examples(
    Items w, const char *sample_weight, Py_ssize_t first, Py_ssize_t row, Py_ssize_t n_rows,
) noexcept nogil:
    """Gather some rows. Return False if they were to be checked and are not finite."""
    cdef:
        Py_ssize_t size = w.itemsize
        const Source *X = &w.examples.X
        char *examples = w.activations + w.layers[0].A_prev * size
    if w.rows_in_place:
        if w.checks_rows and not w.kernels.finite(
                X.data + first * X.row_stride, n_rows, w.n_in, X.row_stride // size):
            stop(w.team)
            return False
    else:
        w.kernels.gather(
            examples, X.data, X.type, X.row_stride, X.column_stride, w.order, w.n_order, first,
            w.panel_width or w.n_in, row, n_rows, w.capacity, w.n_in)
        if w.checks_rows and not _panels_are_finite(w, examples, row, n_rows):
            stop(w.team)
            return False
    if sample_weight != NULL and w.phase != FORWARD:
        _clear_weightless(w, examples, sample_weight, row, n_rows)
    return True


cdef void _activate(
    Items w, Py_ssize_t first, Py_ssize_t row, Py_ssize_t n_rows,
) noexcept nogil:
    """(1) for some rows."""
    cdef:
        Py_ssize_t l, A_stride = 0
        const Source *X = &w.examples.X
        const char *A_prev = w.activations + w.layers[0].A_prev * w.itemsize
        Layer *layer
    if w.rows_in_place:
        A_prev = X.data + (first - row) * X.row_stride
        A_stride = X.row_stride // w.itemsize
    for l in range(w.depth):
        layer = &w.layers[l]
        _forward(w, l, A_prev, A_stride, row, n_rows, 0, layer.n)
        A_prev = w.activations + layer.A * w.itemsize
        A_stride = 0
        if w.outs[l] != NULL:
            _copy_rows(w, w.outs[l] + first * layer.n * w.itemsize, A_prev, row, n_rows, layer.n)


cdef void _forward(
    Items w, Py_ssize_t l, const char *A_prev, Py_ssize_t A_stride, Py_ssize_t row,
    Py_ssize_t n_rows, Py_ssize_t unit, Py_ssize_t n_units,
) noexcept nogil:
    """(1) of layer l + 1, at index l, for some rows and n_units from the panel of `unit` on."""
    cdef:
        Py_ssize_t size = w.itemsize
        Layer *layer = &w.layers[l]
        char *parameters = w.packed[<int> PARAMETERS]
        char *A = w.activations + (layer.A + unit * w.capacity) * size
        char *derivatives = NULL
        nncore_sigma sigma = layer.sigma
    # Softmax needs whole rows, so in several panels it waits until they are row-major.
    if sigma.kind == SOFTMAX and not w.outputs_are_panel:
        sigma.kind = IDENTITY
    if w.phase != FORWARD and layer.derivatives != layer.A:
        derivatives = w.activations + (layer.derivatives + unit * w.capacity) * size
    w.kernels.forward(
        A, derivatives, A_prev, A_stride, parameters + (layer.W + unit * layer.n_prev) * size,
        parameters + (layer.b + unit) * size, sigma, row, n_rows, w.capacity, layer.n_prev, n_units)
    if w.drops and w.phase != FORWARD and layer.dropout_rate > 0:
        _dropout(w, l, A, row, n_rows, unit, n_units)
        if derivatives != NULL:
            _dropout(w, l, derivatives, row, n_rows, unit, n_units)


cdef void _complete_outputs(
    Items w, char *outputs, Py_ssize_t row, Py_ssize_t n_rows,
) noexcept nogil:
    """Copy outputs in several panels to a row-major array, and finish softmax there."""
    cdef Layer *last = &w.layers[w.depth - 1]
    if w.outs[w.depth - 1] == NULL:
        _copy_rows(w, outputs, w.activations + last.A * w.itemsize, row, n_rows, w.n_out)
    if last.sigma.kind == SOFTMAX:
        w.kernels.bias_activation(outputs, NULL, NULL, last.sigma, n_rows, w.n_out)


cdef void _dropout(
    Items w, Py_ssize_t l, char *A, Py_ssize_t row, Py_ssize_t n_rows, Py_ssize_t unit,
    Py_ssize_t n_units,
) noexcept nogil:
    """Drop units of layer l + 1, at index l, from `unit` on."""
    cdef Layer *layer = &w.layers[l]
    w.kernels.dropout(
        A, layer.dropout_rate, w.rule.dropout_seed, w.dropout_step, l + 1, w.first_example, unit,
        w.panel_width or layer.n, row, n_rows, w.capacity, n_units)


cdef void _go_back(
    Items w, const char *outputs, const char *Y, const char *sample_weight, Py_ssize_t first,
    Py_ssize_t row, Py_ssize_t n_rows,
) noexcept nogil:
    """(3) for some rows and, unless blocks follow, (4)."""
    cdef:
        Py_ssize_t l, size = w.itemsize
        Layer *last = &w.layers[w.depth - 1]
        char *delta = w.deltas + last.A * size
        char *output_deltas = (
            (delta if w.outputs_are_panel else w.output_deltas) + row * w.output_stride * size)
        const char *derivatives = outputs
    if _has_classes(w):
        w.kernels.class_delta(
            output_deltas, outputs, w.examples.classes, w.order, first, sample_weight, n_rows,
            w.n_out, w.output_stride)
    else:
        if last.derivatives != last.A:
            derivatives = _output_derivatives(w, row, n_rows)
        w.kernels.output_delta(
            output_deltas, outputs, derivatives, Y, sample_weight, w.loss, w.threshold,
            last.sigma, n_rows, w.n_out, w.output_stride)
    if not w.outputs_are_panel:
        w.kernels.gather(
            delta, output_deltas, w.own_type, w.n_out * size, size, NULL, 0, 0, w.panel_width,
            row, n_rows, w.capacity, w.n_out)
    if w.in_blocks:
        return
    for l in range(w.depth - 1, 0, -1):
        _delta(w, l, row, n_rows, 0, w.layers[l].n_prev)
    if w.dX != NULL:
        _input_delta(w, first, row, n_rows)


cdef const char *_output_derivatives(
    Items w, Py_ssize_t row, Py_ssize_t n_rows,
) noexcept nogil:
    """Return whole rows of the output layer's σ′(Z)."""
    cdef:
        const char *derivatives = (
            w.activations + w.layers[w.depth - 1].derivatives * w.itemsize)
        Py_ssize_t row_out = row * w.output_stride * w.itemsize
    if w.outputs_are_panel:
        return derivatives + row_out
    _copy_rows(w, w.output_derivatives + row_out, derivatives, row, n_rows, w.n_out)
    return w.output_derivatives + row_out


cdef void _gather_weights(
    Items w, Py_ssize_t span, char *out, Py_ssize_t first, Py_ssize_t n_rows,
) noexcept nogil:
    """Gather the sample weights of an item, and add up each span's."""
    while n_rows > 0:
        w.span_weights[span] = w.kernels.gather_weights(
            out, w.examples.sample_weight, w.order, first, min(w.span, n_rows))
        span, first, n_rows = span + 1, first + w.span, n_rows - w.span
        out += w.span * w.itemsize


cdef void _add_losses(
    Items w, Py_ssize_t span, const char *A, const char *Y, const char *sample_weight,
    Py_ssize_t first, Py_ssize_t n_rows,
) noexcept nogil:
    """(2) for each span of an item: sums that do not depend on how many spans an item has."""
    cdef Py_ssize_t count, step = w.span * w.output_stride * w.itemsize
    while n_rows > 0:
        count = min(w.span, n_rows)
        if _has_classes(w):
            w.span_losses[span] = w.kernels.class_loss(
                A, w.examples.classes, w.order, first, sample_weight, count, w.output_stride)
        else:
            w.span_losses[span] = w.kernels.loss(
                A, Y, sample_weight, w.loss, w.threshold, count, w.n_out, w.output_stride)
        span, first, n_rows, A, Y = span + 1, first + w.span, n_rows - w.span, A + step, Y + step
        if sample_weight != NULL:
            sample_weight += w.span * w.itemsize


cdef void _delta(
    Items w, Py_ssize_t l, Py_ssize_t row, Py_ssize_t n_rows, Py_ssize_t unit, Py_ssize_t n_units,
) noexcept nogil:
    """(4) from layer l + 1, at index l, to n_units of layer l from the panel of `unit` on."""
    cdef:
        Py_ssize_t size = w.itemsize, at = unit * w.capacity
        Layer *layer = &w.layers[l]
        Layer *before = &w.layers[l - 1]
        # The derivatives have gone through dropout themselves.
        bint drops = (
            w.drops and before.dropout_rate > 0 and before.derivatives == before.A)
        char *delta_prev = w.deltas + (layer.A_prev + at) * size
        const char *derivatives = w.activations + (before.derivatives + at) * size
        const char *W = (
            w.transposes + (layer.transposed + unit * layer.n) * size if w.panel_width
            else w.packed[<int> PARAMETERS] + layer.W * size)
    w.kernels.delta(
        delta_prev, w.deltas + layer.A * size, W, derivatives,
        NO_SIGMA if drops else before.sigma, row, n_rows, w.capacity, n_units, layer.n)
    if drops:
        w.kernels.dropout_derivative(
            delta_prev, derivatives, before.sigma, before.dropout_rate, w.rule.dropout_seed,
            w.dropout_step, l, w.first_example, unit, w.panel_width or layer.n_prev, row, n_rows,
            w.capacity, n_units)


cdef Py_ssize_t panels_to_cut(Items w, Py_ssize_t n) noexcept nogil:
    """The panels of n units, less a last one of one unit, which would have no panel by itself."""
    return max((n + w.panel_width - 2) // w.panel_width, 1)


cdef void _block(Items w, Py_ssize_t i) noexcept nogil:
    """(1) or (4) for block i of the layer in progress."""
    cdef:
        Layer *layer = &w.layers[w.l]
        Py_ssize_t n = layer.n if w.phase == FORWARD_BLOCK else layer.n_prev
        Py_ssize_t row = i % w.row_blocks * w.n_rows // w.row_blocks
        Py_ssize_t n_rows = (i % w.row_blocks + 1) * w.n_rows // w.row_blocks - row
        Py_ssize_t n_panels = panels_to_cut(w, n)
        Py_ssize_t column = i // w.row_blocks
        Py_ssize_t unit = column * n_panels // w.column_blocks * w.panel_width
        Py_ssize_t end = (column + 1) * n_panels // w.column_blocks * w.panel_width
    if column + 1 == w.column_blocks:
        end = n
    if w.phase == FORWARD_BLOCK:
        _forward(
            w, w.l, w.activations + layer.A_prev * w.itemsize, 0, row, n_rows, unit, end - unit)
    else:
        _delta(w, w.l, row, n_rows, unit, end - unit)


cdef void _input_delta(
    Items w, Py_ssize_t first, Py_ssize_t row, Py_ssize_t n_rows,
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
    Items w, const char *A, Py_ssize_t row, Py_ssize_t n_rows,
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
    Items w, char *A, const void *sample_weight, Py_ssize_t row, Py_ssize_t n_rows,
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
    Items w, char *out, const char *A, Py_ssize_t row, Py_ssize_t n_rows, Py_ssize_t n,
) noexcept nogil:
    """Copy a span's rows of a layer to a row-major array."""
    if w.panel_width:
        w.kernels.scatter(out, A, row, n_rows, w.capacity, n)
    else:
        memcpy(out, A + row * n * w.itemsize, n_rows * n * w.itemsize)


cdef void set_targets(
    Items w, char *Y, const Source *source, const Py_ssize_t *order, Py_ssize_t first,
    Py_ssize_t n_rows,
) noexcept nogil:
    """Set rows of targets, which lie as the outputs do."""
    w.kernels.gather(
        Y, source.data, source.type, source.row_stride, source.column_stride, order, w.n_order,
        first, (w.panel_width if w.outputs_are_panel else 0) or w.n_out, 0, n_rows, n_rows,
        w.n_out)


# Phase 2.

cdef void _descend(Items w, Tile *tile, Py_ssize_t i) noexcept nogil:
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
        if _has_biases(w, tile):
            w.kernels.column_sums(
                parameters + (layer.b + p * w.panel_width) * size,
                delta + p * w.panel_width * w.capacity * size, w.scale,
                1 - w.rule.learning_rate * w.bias_decay, w.n_rows, tile.width)


cdef void _gradient_tile(Items w, Tile *tile, Py_ssize_t i, int rank) noexcept nogil:
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
    if w.rule.penalty > 0 and fused:
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
    if _has_biases(w, tile):
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
                if w.bias_decay != 0:
                    w.kernels.sgd(
                        gradient + bias * size, parameters + bias * size, -w.bias_decay, 0,
                        tile.width)
                squares += w.kernels.square_sum(
                    gradient + bias * size, 1, min(tile.width, layer.n - p * w.panel_width),
                    tile.width)
    w.gradient_squares[i] = squares


cdef void _update_tile(Items w, Tile *tile, Py_ssize_t i) noexcept nogil:
    """(6) for a tile of W, and its biases, from the gradient's slot."""
    cdef Py_ssize_t p
    if w.rule.penalty > 0:
        w.weight_squares[i] = _squares(w, tile, w.packed[<int> PARAMETERS])
    for p in range(tile.p_begin, tile.p_end):
        _clipped_update(w, tile.W + (p - tile.p_begin) * tile.panel_step, tile.count, True)
        _transpose(w, tile, p)
        if _has_biases(w, tile):
            _clipped_update(w, w.layers[tile.l].b + p * w.panel_width, tile.width, False)


cdef inline bint _has_biases(Items w, Tile *tile) noexcept nogil:
    """Whether the tile's item includes the biases of its panels."""
    return tile.k_begin == 0 and (w.layers[tile.l].has_bias or w.phase == ACCUMULATE)


cdef inline void _transpose(Items w, Tile *tile, Py_ssize_t p) noexcept nogil:
    """Write a tile's part of panel p into W's transpose. No delta is computed for the input."""
    cdef Layer *layer = &w.layers[tile.l]
    if w.panel_width and tile.l > 0:
        w.kernels.transpose(
            w.transposes + layer.transposed * w.itemsize,
            w.packed[<int> PARAMETERS] + layer.W * w.itemsize, p, tile.k_begin, tile.k_end,
            layer.n_prev, layer.n)


cdef double _squares(Items w, Tile *tile, const char *vector) noexcept nogil:
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
    Items w, Py_ssize_t at, Py_ssize_t count, bint is_weight,
) noexcept nogil:
    cdef char *gradient = w.packed[<int> GRADIENT] + at * w.itemsize
    if w.clipping < 1:
        w.kernels.scale(gradient, w.clipping, count)
    _update(w, at, gradient, count, is_weight)


cdef inline void _update(
    Items w, Py_ssize_t at, const char *gradient, Py_ssize_t count, bint is_weight,
) noexcept nogil:
    """(6) for `count` parameters from `at` on: weights or biases."""
    cdef:
        double decay = w.decay if is_weight else w.bias_decay
        double shrinkage = w.shrinkage if is_weight else w.bias_shrinkage
        char *parameters = _part(w, PARAMETERS, at)
        char *state_1 = _part(w, STATE_1, at)
        char *state_2 = _part(w, STATE_2, at)
    if shrinkage != 0:
        # W <- W - η λ W.
        w.kernels.sgd(parameters, parameters, shrinkage, 0, count)
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
            w.rule.nesterov, decay, w.rule.accumulates, count)
    else:
        w.kernels.sgd(parameters, gradient, w.rule.learning_rate, decay, count)


cdef inline char *_part(Items w, Slot slot, Py_ssize_t at) noexcept nogil:
    """The part of a slot that begins with its element `at`."""
    return w.packed[<int> slot] + at * w.itemsize
