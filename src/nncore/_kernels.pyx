"""The compiled kernels, in the order of the data's way, and the step that strings them together.

The first part is for loops of one's own: functions over arrays, checked, whose NumPy twins in
``nncore.reference`` are their specification. An underscore marks the same kernel on addresses,
which trusts its arguments. The second part is what ``Network`` runs on: a ``Workspace`` takes
whole stretches of batches through the kernels without the GIL.
"""

cimport numpy as cnp
from cython cimport floating
from libc.math cimport isfinite, sqrt
from libc.string cimport memcpy, memset

from nncore._blas cimport delta_product, forward_product, gradient_product

import numpy as np

cdef extern from "nncore.h" nogil:
    enum nncore_function:
        NNCORE_EXP
        NNCORE_LOG

    ctypedef struct nncore_elementwise:
        const char *name
        void (*bias_activation)(
            void *A, const void *b, Activation activation, Py_ssize_t n_rows, Py_ssize_t n
        ) noexcept nogil
        void (*times_derivative)(
            void *delta, const void *A, Activation activation, Py_ssize_t count) noexcept nogil
        double (*loss)(
            const void *A, const void *Y, const void *sample_weight, Loss loss,
            Py_ssize_t n_rows, Py_ssize_t n) noexcept nogil
        void (*output_delta)(
            void *delta, const void *A, const void *Y, const void *sample_weight, Loss loss,
            Activation activation, Py_ssize_t n_rows, Py_ssize_t n) noexcept nogil
        void (*column_sums)(
            void *db, const void *delta, double scale, double beta,
            Py_ssize_t n_rows, Py_ssize_t n) noexcept nogil
        void (*sgd)(
            void *parameters, const void *gradient, double learning_rate, double weight_decay,
            Py_ssize_t count) noexcept nogil
        void (*momentum)(
            void *parameters, void *velocity, const void *gradient, double learning_rate,
            double momentum, bint nesterov, double weight_decay, Py_ssize_t count) noexcept nogil
        void (*adam)(
            void *parameters, void *m, void *v, const void *gradient, double step_size,
            double beta_1, double beta_2, double epsilon, double weight_decay,
            Py_ssize_t count) noexcept nogil
        void (*map)(
            void *out, const void *x, nncore_function function, Py_ssize_t count) noexcept nogil
        Py_ssize_t (*first_nonfinite)(const void *x, Py_ssize_t count) noexcept nogil

    const nncore_elementwise *nncore_f32
    const nncore_elementwise *nncore_f64
    void nncore_choose() noexcept

cnp.import_array()
nncore_choose()

# The widest vectors that the compiled loops use here: "baseline", "avx2" or "avx512".
INSTRUCTION_SET = nncore_f32.name.decode()


cdef inline const nncore_elementwise *elementwise(const floating *_) noexcept nogil:
    return nncore_f32 if floating is float else nncore_f64


# Addresses of arrays, empty ones included.

cdef inline const floating *vector(const floating[::1] x) noexcept nogil:
    return &x[0] if x.shape[0] else NULL


cdef inline const floating *matrix(const floating[:, ::1] A) noexcept nogil:
    return &A[0, 0] if A.shape[0] and A.shape[1] else NULL


cdef inline const floating *optional_vector(const floating[::1] x) noexcept nogil:
    if x is None:
        return NULL
    return vector(x)


# BLAS counts rows and columns in 32-bit integers.
cdef enum:
    LARGEST = 2147483647


cdef int refuse(str needs, got) except -1:
    raise ValueError(f"needs {needs}; got {', '.join(map(str, got))}")


cdef inline bint fits(Py_ssize_t loss, Py_ssize_t activation) noexcept nogil:
    """Whether (3) is right for the pair."""
    if loss == SQUARED_ERROR:
        return 0 <= activation < <Py_ssize_t> SOFTMAX
    if loss == BINARY_CROSS_ENTROPY:
        return activation == SIGMOID
    return loss == CROSS_ENTROPY and activation == SOFTMAX


# The kernels on addresses.

cdef void _forward(
    floating *A, const floating *A_prev, const floating *W, const floating *b,
    Activation activation, Py_ssize_t N, Py_ssize_t n_prev, Py_ssize_t n,
) noexcept nogil:
    """(1): A = σ(W A_prev + b)."""
    forward_product(A, A_prev, W, N, n_prev, n)
    elementwise(A).bias_activation(A, b, activation, N, n)


cdef void _delta(
    floating *delta_prev, const floating *delta, const floating *W, const floating *A_prev,
    Activation activation, Py_ssize_t N, Py_ssize_t n_prev, Py_ssize_t n,
) noexcept nogil:
    """(4): delta_prev = W^T delta . σ'(Z_prev)."""
    delta_product(delta_prev, delta, W, N, n_prev, n)
    elementwise(delta).times_derivative(delta_prev, A_prev, activation, N * n_prev)


cdef void _gradient(
    floating *dW, floating *db, const floating *delta, const floating *A_prev,
    double scale, double beta_W, double beta_b, Py_ssize_t N, Py_ssize_t n_prev, Py_ssize_t n,
) noexcept nogil:
    """(5): dW = scale delta A_prev^T + beta_W dW, db = scale delta 1 + beta_b db."""
    gradient_product(dW, delta, A_prev, <floating> scale, <floating> beta_W, N, n_prev, n)
    elementwise(delta).column_sums(db, delta, scale, beta_b, N, n)


cdef inline void _gradient_descent(
    floating *W, floating *b, const floating *delta, const floating *A_prev,
    double step_size, double decay, Py_ssize_t N, Py_ssize_t n_prev, Py_ssize_t n,
) noexcept nogil:
    """(5) and (6) in one product: the gradient is added to W and never stored."""
    _gradient(W, b, delta, A_prev, -step_size, 1 - decay, 1, N, n_prev, n)


# The kernels on arrays. Activation and Loss come as integers, so that one out of range is seen.

cpdef int forward(
    floating[:, ::1] A, const floating[:, ::1] A_prev, const floating[:, ::1] W,
    const floating[::1] b, Py_ssize_t activation,
) except -1 nogil:
    """(1): A = σ(A_prev W + b)."""
    cdef:
        Py_ssize_t N = A.shape[0]
        Py_ssize_t n_prev = W.shape[0]
        Py_ssize_t n = W.shape[1]
    if (A.shape[1] != n or A_prev.shape[0] != N or A_prev.shape[1] != n_prev
            or b.shape[0] != n or not 0 <= activation <= <Py_ssize_t> SOFTMAX
            or max(N, n_prev, n) > LARGEST):
        with gil:
            refuse("A (N, n), A_prev (N, n_prev), W (n_prev, n), b (n,), an Activation", (
                (N, A.shape[1]), (A_prev.shape[0], A_prev.shape[1]), (n_prev, n), (b.shape[0],),
                activation))
    _forward(
        <floating *> matrix(A), matrix(A_prev), matrix(W), vector(b),
        <Activation> activation, N, n_prev, n)
    return 0


cpdef double loss(
    const floating[:, ::1] A, const floating[:, ::1] Y, const floating[::1] sample_weight,
    Py_ssize_t loss,
) except? -1 nogil:
    """(2): the sum, over the examples, of weight times loss; sample_weight may be None."""
    cdef:
        Py_ssize_t N = A.shape[0]
        Py_ssize_t n = A.shape[1]
    if (Y.shape[0] != N or Y.shape[1] != n
            or (sample_weight is not None and sample_weight.shape[0] != N)
            or not 0 <= loss <= <Py_ssize_t> CROSS_ENTROPY):
        with gil:
            refuse("A (N, n), Y (N, n), sample_weight (N,) or None, a Loss", (
                (N, n), (Y.shape[0], Y.shape[1]),
                None if sample_weight is None else (sample_weight.shape[0],), loss))
    return elementwise(matrix(A)).loss(
        matrix(A), matrix(Y), optional_vector(sample_weight), <Loss> loss, N, n)


cpdef int output_delta(
    floating[:, ::1] delta, const floating[:, ::1] A, const floating[:, ::1] Y,
    const floating[::1] sample_weight, Py_ssize_t loss, Py_ssize_t activation,
) except -1 nogil:
    """(3): δ = (A - Y) ⊙ σ′(Z), and A - Y for either cross-entropy, times the example's weight."""
    cdef:
        Py_ssize_t N = A.shape[0]
        Py_ssize_t n = A.shape[1]
    if (delta.shape[0] != N or delta.shape[1] != n or Y.shape[0] != N or Y.shape[1] != n
            or (sample_weight is not None and sample_weight.shape[0] != N)
            or not fits(loss, activation)):
        with gil:
            refuse(
                "delta, A and Y (N, n), sample_weight (N,) or None, a Loss and an Activation that "
                "fit", (
                    (delta.shape[0], delta.shape[1]), (N, n), (Y.shape[0], Y.shape[1]),
                    None if sample_weight is None else (sample_weight.shape[0],),
                    loss, activation))
    elementwise(matrix(A)).output_delta(
        <void *> matrix(delta), matrix(A), matrix(Y), optional_vector(sample_weight),
        <Loss> loss, <Activation> activation, N, n)
    return 0


cpdef int delta(
    floating[:, ::1] delta_prev, const floating[:, ::1] delta, const floating[:, ::1] W,
    const floating[:, ::1] A_prev, Py_ssize_t activation,
) except -1 nogil:
    """(4): δ_prev = δ Wᵀ ⊙ σ′(Z_prev), with σ′ from A_prev = σ(Z_prev)."""
    cdef:
        Py_ssize_t N = delta.shape[0]
        Py_ssize_t n_prev = W.shape[0]
        Py_ssize_t n = W.shape[1]
    if (delta_prev.shape[0] != N or delta_prev.shape[1] != n_prev or delta.shape[1] != n
            or A_prev.shape[0] != N or A_prev.shape[1] != n_prev
            or not 0 <= activation < <Py_ssize_t> SOFTMAX or max(N, n_prev, n) > LARGEST):
        with gil:
            refuse(
                "delta_prev (N, n_prev), delta (N, n), W (n_prev, n), A_prev (N, n_prev), "
                "an elementwise Activation", (
                    (delta_prev.shape[0], delta_prev.shape[1]), (N, delta.shape[1]), (n_prev, n),
                    (A_prev.shape[0], A_prev.shape[1]), activation))
    _delta(
        <floating *> matrix(delta_prev), matrix(delta), matrix(W), matrix(A_prev),
        <Activation> activation, N, n_prev, n)
    return 0


cpdef int gradient(
    floating[:, ::1] dW, floating[::1] db, const floating[:, ::1] delta,
    const floating[:, ::1] A_prev, double scale, double beta=0.0,
) except -1 nogil:
    """(5): dW = scale A_prevᵀ δ + beta dW, db = scale 1ᵀ δ + beta db."""
    check_gradient(dW, db, delta, A_prev)
    _gradient(
        <floating *> matrix(dW), <floating *> vector(db), matrix(delta), matrix(A_prev),
        scale, beta, beta, delta.shape[0], dW.shape[0], dW.shape[1])
    return 0


cpdef int gradient_descent(
    floating[:, ::1] W, floating[::1] b, const floating[:, ::1] delta,
    const floating[:, ::1] A_prev, double step_size, double decay=0.0,
) except -1 nogil:
    """(5) and (6) at once: W -= step_size A_prevᵀ δ + decay W, b -= step_size 1ᵀ δ."""
    check_gradient(W, b, delta, A_prev)
    _gradient_descent(
        <floating *> matrix(W), <floating *> vector(b), matrix(delta), matrix(A_prev),
        step_size, decay, delta.shape[0], W.shape[0], W.shape[1])
    return 0


cdef int check_gradient(
    const floating[:, ::1] W, const floating[::1] b, const floating[:, ::1] delta,
    const floating[:, ::1] A_prev,
) except -1 nogil:
    if (b.shape[0] != W.shape[1] or delta.shape[1] != W.shape[1]
            or A_prev.shape[0] != delta.shape[0] or A_prev.shape[1] != W.shape[0]
            or max(delta.shape[0], W.shape[0], W.shape[1]) > LARGEST):
        with gil:
            refuse(
                "weights (n_prev, n), biases (n,), delta (N, n), A_prev (N, n_prev)", (
                    (W.shape[0], W.shape[1]), (b.shape[0],), (delta.shape[0], delta.shape[1]),
                    (A_prev.shape[0], A_prev.shape[1])))
    return 0


cpdef int sgd(
    floating[::1] parameters, const floating[::1] gradient, double learning_rate,
    double weight_decay,
) except -1 nogil:
    """(6): w -= η g, with g = ∂E/∂w + λ w."""
    check_lengths(parameters, gradient, gradient, gradient)
    elementwise(vector(parameters)).sgd(
        <void *> vector(parameters), vector(gradient), learning_rate, weight_decay,
        parameters.shape[0])
    return 0


cpdef int momentum(
    floating[::1] parameters, floating[::1] velocity, const floating[::1] gradient,
    double learning_rate, double momentum, bint nesterov, double weight_decay,
) except -1 nogil:
    """(6) with momentum: v = μ v - η g, w += v; Nesterov's form w += μ v - η g."""
    check_lengths(parameters, gradient, velocity, velocity)
    elementwise(vector(parameters)).momentum(
        <void *> vector(parameters), <void *> vector(velocity), vector(gradient),
        learning_rate, momentum, nesterov, weight_decay, parameters.shape[0])
    return 0


cpdef int adam(
    floating[::1] parameters, floating[::1] m, floating[::1] v, const floating[::1] gradient,
    double step_size, double beta_1, double beta_2, double epsilon, double weight_decay,
) except -1 nogil:
    """(6) by Adam: m and v are running means of g and g², w -= step_size m / (√v + ε)."""
    check_lengths(parameters, gradient, m, v)
    elementwise(vector(parameters)).adam(
        <void *> vector(parameters), <void *> vector(m), <void *> vector(v), vector(gradient),
        step_size, beta_1, beta_2, epsilon, weight_decay, parameters.shape[0])
    return 0


cdef int check_lengths(
    const floating[::1] parameters, const floating[::1] gradient, const floating[::1] state_1,
    const floating[::1] state_2,
) except -1 nogil:
    cdef Py_ssize_t count = parameters.shape[0]
    if gradient.shape[0] != count or state_1.shape[0] != count or state_2.shape[0] != count:
        with gil:
            refuse("vectors of one length", (
                count, gradient.shape[0], state_1.shape[0], state_2.shape[0]))
    return 0


cpdef int exp(floating[::1] out, const floating[::1] x) except -1 nogil:
    """Write eˣ to out, at most 2 units in the last place off."""
    check_lengths(out, x, x, x)
    elementwise(vector(x)).map(<void *> vector(out), vector(x), NNCORE_EXP, x.shape[0])
    return 0


cpdef int log(floating[::1] out, const floating[::1] x) except -1 nogil:
    """Write ln x to out, for normal x > 0."""
    check_lengths(out, x, x, x)
    elementwise(vector(x)).map(<void *> vector(out), vector(x), NNCORE_LOG, x.shape[0])
    return 0


cpdef Py_ssize_t first_nonfinite(const floating[::1] x) except -1 nogil:
    """Return the index of the first NaN or infinity in a vector, or its length."""
    return elementwise(vector(x)).first_nonfinite(vector(x), x.shape[0])


# What Network runs on.

def aligned_empty(Py_ssize_t count, dtype):
    """Return an uninitialised vector of `count` elements that begins on a 64-byte boundary."""
    cdef Py_ssize_t itemsize = np.dtype(dtype).itemsize
    buffer = np.empty(count * itemsize + 64, dtype=np.uint8)
    cdef Py_ssize_t skip = -<Py_ssize_t> cnp.PyArray_DATA(buffer) & 63
    return buffer[skip:skip + count * itemsize].view(dtype)


cdef class Examples:
    """The examples that a call works on, as addresses: all that a batch is gathered from.

    Parameters
    ----------
    X : ndarray of shape (n, n_0) in the network's dtype, with any strides
    Y : ndarray of shape (n, n_L) likewise, or of shape (n,) and dtype intp: class indices; or None
    sample_weight : contiguous ndarray of shape (n,) in the network's dtype, or None
    """

    cdef:
        tuple arrays
        readonly Py_ssize_t n
        const char *X
        const char *Y
        const Py_ssize_t *classes
        const void *sample_weight
        Py_ssize_t X_row, X_column, Y_row, Y_column

    def __init__(
        self, cnp.ndarray X not None, cnp.ndarray Y=None, cnp.ndarray sample_weight=None,
    ):
        self.arrays = (X, Y, sample_weight)
        self.n = X.shape[0]
        self.X = cnp.PyArray_BYTES(X)
        self.X_row, self.X_column = X.strides[0], X.strides[1]
        if Y is not None and Y.ndim == 1:
            self.classes = <const Py_ssize_t *> cnp.PyArray_DATA(Y)
        elif Y is not None:
            self.Y = cnp.PyArray_BYTES(Y)
            self.Y_row, self.Y_column = Y.strides[0], Y.strides[1]
        if sample_weight is not None:
            self.sample_weight = cnp.PyArray_DATA(sample_weight)


cdef enum Rule:
    GRADIENT_DESCENT
    MOMENTUM
    ADAM


cdef class Update:
    """An optimizer's rule (6) with its coefficients, and where its state lies.

    `rule` is "gradient_descent", "momentum" (state: the velocity) or "adam" (state: m and v); each
    state vector is contiguous and has the layout and dtype of the network's parameters.
    """

    cdef:
        tuple state
        Rule rule
        double learning_rate, weight_decay, momentum, beta_1, beta_2, epsilon
        bint nesterov
        readonly Py_ssize_t step_count
        void *state_1
        void *state_2

    def __init__(
        self, str rule, tuple state, Py_ssize_t step_count, *, double learning_rate,
        double weight_decay, double momentum=0.0, bint nesterov=False, double beta_1=0.0,
        double beta_2=0.0, double epsilon=0.0,
    ):
        rules = {"gradient_descent": GRADIENT_DESCENT, "momentum": MOMENTUM, "adam": ADAM}
        self.rule = rules[rule]
        self.state = state
        self.state_1 = cnp.PyArray_DATA(state[0]) if len(state) > 0 else NULL
        self.state_2 = cnp.PyArray_DATA(state[1]) if len(state) > 1 else NULL
        self.step_count = step_count
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.nesterov = nesterov
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon


cdef struct Layer:
    Py_ssize_t n_prev
    Py_ssize_t n
    Activation activation
    # Where W and b begin in the flat vector of parameters.
    Py_ssize_t W
    Py_ssize_t b
    # Where the activations that the layer reads and writes begin in the workspace; its delta
    # begins in the deltas where A does in the activations.
    Py_ssize_t A_prev
    Py_ssize_t A


cdef struct Batch:
    Py_ssize_t N
    double weight
    const void *X
    const void *Y
    const void *sample_weight


cdef class Workspace:
    """A network's shape and the memory that one batch needs on its way through it.

    Parameters
    ----------
    sizes : sequence of n_0, ..., n_L
    activations : sequence of L Activations
    loss : Loss
    parameters : the network's flat vector, which the workspace reads and `train` changes in place
    batch_size : the most examples that a batch may have
    """

    cdef:
        readonly Py_ssize_t batch_size
        Py_ssize_t depth, n_in, n_out
        Loss loss
        bint double_precision
        tuple arrays
        Layer *layers
        void *parameters
        void *gradients
        void *activations
        void *deltas
        void *X
        void *Y
        void *sample_weight

    def __init__(
        self, sizes, activations, Loss loss, cnp.ndarray parameters, Py_ssize_t batch_size,
    ):
        cdef:
            Py_ssize_t parameter = 0, activation = 0, l, n_prev, n
            Layer *layer
        self.batch_size = batch_size
        self.depth = len(sizes) - 1
        self.n_in = sizes[0]
        self.n_out = sizes[self.depth]
        self.loss = loss
        self.double_precision = parameters.dtype == np.float64
        layers = np.empty(self.depth * sizeof(Layer), dtype=np.uint8)
        self.layers = <Layer *> cnp.PyArray_DATA(layers)
        for l in range(self.depth):
            n_prev, n = sizes[l], sizes[l + 1]
            layer = &self.layers[l]
            layer.n_prev, layer.n = n_prev, n
            layer.activation = activations[l]
            layer.W, layer.b = parameter, parameter + n_prev * n
            parameter += (n_prev + 1) * n
            layer.A_prev, layer.A = 0 if l == 0 else self.layers[l - 1].A, activation
            activation += (batch_size * n + 15) // 16 * 16
        dtype = parameters.dtype
        gradients = aligned_empty(parameter, dtype)
        activations_ = aligned_empty(activation, dtype)
        deltas = aligned_empty(activation, dtype)
        X = aligned_empty(batch_size * self.n_in, dtype)
        Y = aligned_empty(batch_size * self.n_out, dtype)
        sample_weight = aligned_empty(batch_size, dtype)
        self.arrays = (layers, parameters, gradients, activations_, deltas, X, Y, sample_weight)
        self.parameters = cnp.PyArray_DATA(parameters)
        self.gradients = cnp.PyArray_DATA(gradients)
        self.activations = cnp.PyArray_DATA(activations_)
        self.deltas = cnp.PyArray_DATA(deltas)
        self.X = cnp.PyArray_DATA(X)
        self.Y = cnp.PyArray_DATA(Y)
        self.sample_weight = cnp.PyArray_DATA(sample_weight)

    def train(
        self, Examples examples not None, const Py_ssize_t[::1] rows, Py_ssize_t start,
        Py_ssize_t stop, Py_ssize_t batch_size, Update update not None,
    ):
        """Run the steps of a stretch of an epoch; return the sum of its examples' losses.

        Batches are cut from `rows[start:stop]`, an order of the examples, or from the examples as
        they lie where `rows` is None. The losses are those before each step. A batch whose loss is
        not finite ends the stretch with the parameters as they were before it.
        """
        cdef double total
        with nogil:
            if self.double_precision:
                total = _train(
                    self, examples, rows, start, stop, batch_size, update,
                    <double *> self.parameters)
            else:
                total = _train(
                    self, examples, rows, start, stop, batch_size, update,
                    <float *> self.parameters)
        return total

    def total_loss(self, Examples examples not None, Py_ssize_t start, Py_ssize_t stop):
        """Return the sum of weight times loss over the examples from start to stop."""
        cdef double total
        with nogil:
            if self.double_precision:
                total = _total_loss(self, examples, start, stop, <double *> self.parameters)
            else:
                total = _total_loss(self, examples, start, stop, <float *> self.parameters)
        return total

    def add_gradient(
        self, cnp.ndarray out not None, Examples examples not None, Py_ssize_t start,
        Py_ssize_t stop, double scale,
    ):
        """Add scale times the gradient of the examples' loss to `out`, or, at start 0, set it."""
        cdef void *data = cnp.PyArray_DATA(out)
        with nogil:
            if self.double_precision:
                _add_gradient(self, <double *> data, examples, start, stop, scale)
            else:
                _add_gradient(self, <float *> data, examples, start, stop, scale)

    def predict(
        self, cnp.ndarray out not None, Examples examples not None, Py_ssize_t start,
        Py_ssize_t stop,
    ):
        """Write the outputs of the examples from start to stop into those rows of `out`."""
        cdef void *data = cnp.PyArray_DATA(out)
        with nogil:
            if self.double_precision:
                _predict(self, <double *> data, examples, start, stop)
            else:
                _predict(self, <float *> data, examples, start, stop)


cdef const floating *_gather(
    floating *out, const char *data, Py_ssize_t row_stride, Py_ssize_t column_stride,
    const Py_ssize_t *rows, Py_ssize_t start, Py_ssize_t N, Py_ssize_t n,
) noexcept nogil:
    """Copy N rows of n elements to `out`; rows that lie as wanted are returned where they are."""
    cdef:
        Py_ssize_t i, j
        const char *row
    if column_stride == sizeof(floating) or n == 1:
        if rows == NULL and (row_stride == n * <Py_ssize_t> sizeof(floating) or N == 1):
            return <const floating *> (data + start * row_stride)
        for i in range(N):
            row = data + (start + i if rows == NULL else rows[start + i]) * row_stride
            memcpy(out + i * n, row, n * sizeof(floating))
    else:
        for i in range(N):
            row = data + (start + i if rows == NULL else rows[start + i]) * row_stride
            for j in range(n):
                memcpy(out + i * n + j, row + j * column_stride, sizeof(floating))
    return out


cdef Batch _batch(
    Workspace w, Examples examples, const Py_ssize_t *rows, Py_ssize_t start, Py_ssize_t N,
    const floating *_,
) noexcept nogil:
    """Gather the N examples from `start` on in the order of `rows`."""
    cdef:
        Batch batch
        Py_ssize_t i
        floating *Y = <floating *> w.Y
        floating *sample_weight = <floating *> w.sample_weight
    batch.N = N
    batch.weight = <double> N
    batch.X = _gather(
        <floating *> w.X, examples.X, examples.X_row, examples.X_column, rows, start, N, w.n_in)
    batch.Y = NULL
    if examples.classes != NULL:
        memset(Y, 0, N * w.n_out * sizeof(floating))
        for i in range(N):
            Y[i * w.n_out + examples.classes[start + i if rows == NULL else rows[start + i]]] = 1
        batch.Y = Y
    elif examples.Y != NULL:
        batch.Y = _gather(Y, examples.Y, examples.Y_row, examples.Y_column, rows, start, N, w.n_out)
    batch.sample_weight = NULL
    if examples.sample_weight != NULL:
        batch.weight = 0
        for i in range(N):
            sample_weight[i] = (<const floating *> examples.sample_weight)[
                start + i if rows == NULL else rows[start + i]]
            batch.weight += sample_weight[i]
        batch.sample_weight = sample_weight
    return batch


cdef inline const floating *_layer_input(
    Workspace w, Py_ssize_t l, Batch *batch, const floating *_,
) noexcept nogil:
    """A^(l-1) of a batch, where the first layer is l = 0."""
    if l == 0:
        return <const floating *> batch.X
    return <const floating *> w.activations + w.layers[l].A_prev


cdef const floating *_forward_pass(
    Workspace w, Batch *batch, const floating *parameters, floating *out,
) noexcept nogil:
    """(1) from layer to layer; the last one's activations go to `out` unless it is NULL."""
    cdef:
        Py_ssize_t l
        Layer *layer
        floating *A = NULL
    for l in range(w.depth):
        layer = &w.layers[l]
        A = <floating *> w.activations + layer.A
        if l == w.depth - 1 and out != NULL:
            A = out
        _forward(
            A, _layer_input(w, l, batch, parameters), parameters + layer.W, parameters + layer.b,
            layer.activation, batch.N, layer.n_prev, layer.n)
    return A


cdef double _batch_loss(Workspace w, Batch *batch, const floating *A) noexcept nogil:
    return elementwise(A).loss(A, batch.Y, batch.sample_weight, w.loss, batch.N, w.n_out)


cdef floating *_output_delta(Workspace w, Batch *batch, const floating *A) noexcept nogil:
    """(3), at its place in the workspace."""
    cdef:
        Layer *layer = &w.layers[w.depth - 1]
        floating *delta = <floating *> w.deltas + layer.A
    elementwise(A).output_delta(
        delta, A, batch.Y, batch.sample_weight, w.loss, layer.activation, batch.N, w.n_out)
    return delta


cdef floating *_delta_pass(
    Workspace w, Py_ssize_t l, Batch *batch, const floating *delta, const floating *parameters,
) noexcept nogil:
    """(4): the delta of the layer before l; the first layer has none before it."""
    cdef:
        Layer *layer = &w.layers[l]
        floating *delta_prev = <floating *> w.deltas + layer.A_prev
    if l == 0:
        return NULL
    _delta(
        delta_prev, delta, parameters + layer.W, _layer_input(w, l, batch, parameters),
        w.layers[l - 1].activation, batch.N, layer.n_prev, layer.n)
    return delta_prev


cdef double _train(
    Workspace w, Examples examples, const Py_ssize_t[::1] order, Py_ssize_t start,
    Py_ssize_t stop, Py_ssize_t batch_size, Update update, floating *parameters,
) noexcept nogil:
    cdef:
        const Py_ssize_t *rows = NULL
        double total = 0, loss
        Batch batch
    if order is not None:
        rows = &order[0]
    while start < stop:
        batch = _batch(w, examples, rows, start, min(batch_size, stop - start), parameters)
        loss = _step(w, &batch, update, parameters)
        total += loss
        if not isfinite(loss):
            break
        start += batch.N
    return total


cdef double _step(
    Workspace w, Batch *batch, Update update, floating *parameters,
) noexcept nogil:
    """One step, (1) to (6); returns the loss of the batch, summed, before it.

    W changes right after the delta of the layer before was made from it.
    """
    cdef:
        Py_ssize_t l
        Layer *layer
        const floating *A = _forward_pass(w, batch, parameters, <floating *> NULL)
        const floating *delta
        const floating *delta_prev
        floating *gradients = <floating *> w.gradients
        double loss = _batch_loss(w, batch, A)
        double learning_rate = update.learning_rate
    # A batch of examples that weigh nothing has no mean to descend.
    if not isfinite(loss) or batch.weight == 0:
        return loss
    update.step_count = update.step_count + 1
    delta = _output_delta(w, batch, A)
    for l in range(w.depth - 1, -1, -1):
        layer = &w.layers[l]
        delta_prev = _delta_pass(w, l, batch, delta, parameters)
        if update.rule == GRADIENT_DESCENT:
            _gradient_descent(
                parameters + layer.W, parameters + layer.b, delta,
                _layer_input(w, l, batch, parameters), learning_rate / batch.weight,
                learning_rate * update.weight_decay, batch.N, layer.n_prev, layer.n)
        else:
            _gradient(
                gradients + layer.W, gradients + layer.b, delta,
                _layer_input(w, l, batch, parameters), 1 / batch.weight, 0, 0, batch.N,
                layer.n_prev, layer.n)
            _update(update, parameters, gradients, layer.W, layer.n_prev * layer.n,
                    update.weight_decay)
            _update(update, parameters, gradients, layer.b, layer.n, 0)
        delta = delta_prev
    return loss


cdef void _update(
    Update update, floating *parameters, const floating *gradients, Py_ssize_t at,
    Py_ssize_t count, double weight_decay,
) noexcept nogil:
    """(6) on a stretch of the flat vector."""
    cdef:
        double correction_1, correction_2
        floating *state_1 = <floating *> update.state_1 + at
        floating *state_2 = <floating *> update.state_2 + at
    if update.rule == MOMENTUM:
        elementwise(parameters).momentum(
            parameters + at, state_1, gradients + at, update.learning_rate, update.momentum,
            update.nesterov, weight_decay, count)
    else:
        # Kingma and Ba's corrected means m/(1 - b1^t) and v/(1 - b2^t), taken out of the loop.
        correction_1 = 1 - update.beta_1 ** update.step_count
        correction_2 = sqrt(1 - update.beta_2 ** update.step_count)
        elementwise(parameters).adam(
            parameters + at, state_1, state_2, gradients + at,
            update.learning_rate * correction_2 / correction_1, update.beta_1, update.beta_2,
            update.epsilon * correction_2, weight_decay, count)


cdef double _total_loss(
    Workspace w, Examples examples, Py_ssize_t start, Py_ssize_t stop, const floating *parameters,
) noexcept nogil:
    cdef:
        double total = 0
        Batch batch
    while start < stop:
        batch = _batch(w, examples, NULL, start, min(w.batch_size, stop - start), parameters)
        total += _batch_loss(
            w, &batch, _forward_pass(w, &batch, parameters, <floating *> NULL))
        start += batch.N
    return total


cdef void _add_gradient(
    Workspace w, floating *out, Examples examples, Py_ssize_t start, Py_ssize_t stop, double scale,
) noexcept nogil:
    cdef:
        Py_ssize_t l
        Layer *layer
        const floating *parameters = <const floating *> w.parameters
        const floating *delta
        double beta
        Batch batch
    while start < stop:
        beta = 0 if start == 0 else 1
        batch = _batch(w, examples, NULL, start, min(w.batch_size, stop - start), parameters)
        delta = _output_delta(
            w, &batch, _forward_pass(w, &batch, parameters, <floating *> NULL))
        for l in range(w.depth - 1, -1, -1):
            layer = &w.layers[l]
            _gradient(
                out + layer.W, out + layer.b, delta, _layer_input(w, l, &batch, parameters),
                scale, beta, beta, batch.N, layer.n_prev, layer.n)
            delta = _delta_pass(w, l, &batch, delta, parameters)
        start += batch.N


cdef void _predict(
    Workspace w, floating *out, Examples examples, Py_ssize_t start, Py_ssize_t stop,
) noexcept nogil:
    cdef Batch batch
    while start < stop:
        batch = _batch(
            w, examples, NULL, start, min(w.batch_size, stop - start), <const floating *> out)
        _forward_pass(w, &batch, <const floating *> w.parameters, out + start * w.n_out)
        start += batch.N
