"""The compiled kernels over row-major arrays, in the order of equations (1) to (6).

`nncore.kernels` is their public face in Python; `nncore.reference` specifies them in NumPy. Public
kernels take arrays and check their shapes; the underscored ones take addresses and check nothing.
BLAS computes the products, and C code with the widest vectors of this machine everything around
them. ``nncore._step`` runs whole steps instead.
"""

from cython cimport floating
from libc.math cimport INFINITY, isinf

from nncore._blas cimport delta_product, forward_product, gradient_product
from nncore._tables cimport (
    NNCORE_EXP, NNCORE_LOG, nncore_choose, nncore_compiler, nncore_f32, nncore_f64,
    nncore_keeps_derivatives, nncore_kernels, nncore_sigma, nncore_supports)

cdef extern from *:
    """
    #ifdef Py_LIMITED_API
    #define NNCORE_STABLE_ABI 1
    #else
    #define NNCORE_STABLE_ABI 0
    #endif
    """
    bint NNCORE_STABLE_ABI

import os

from nncore._checks import LARGEST as _LARGEST
from nncore.architecture import OUTPUT_ACTIVATIONS as _OUTPUT_ACTIVATIONS
from nncore.enums import SLOPES as _SLOPES


# What compiled the C core, and whether the modules serve every later Python.
COMPILER = nncore_compiler.decode()
STABLE_ABI = bool(NNCORE_STABLE_ABI)


def available():
    """Return the values that NNCORE_KERNELS may have on this machine, the widest vectors last."""
    names = ("baseline", "neon", "avx2", "avx512")
    return ["blas", *(name for name in names if nncore_supports(name.encode()))]


# The kernels of `Network`: NNCORE_KERNELS, by default the widest vectors of this machine. "blas"
# computes the products in BLAS and everything else with the widest vectors.
*_, _widest = available()
KERNELS = os.environ.get("NNCORE_KERNELS") or _widest
if KERNELS not in available():
    raise ImportError(
        f"NNCORE_KERNELS must be one of {', '.join(available())} on this processor, "
        f"got {KERNELS!r}")
cdef bytes _table = (_widest if KERNELS == "blas" else KERNELS).encode()
nncore_choose(_table)


cdef const nncore_kernels *tables(bint double_precision) noexcept nogil:
    return nncore_f64 if double_precision else nncore_f32


cdef inline const nncore_kernels *table_of(const floating *address) noexcept nogil:
    """The table for the type that the address points to; the address itself is not used."""
    return tables(floating is double)


# The address of an array's first element, NULL for an empty array.

cdef inline const floating *vector(const floating[::1] x) noexcept nogil:
    return &x[0] if x.shape[0] else NULL


cdef inline const floating *matrix(const floating[:, ::1] A) noexcept nogil:
    return &A[0, 0] if A.shape[0] and A.shape[1] else NULL


cdef inline const floating *optional_matrix(const floating[:, ::1] A) noexcept nogil:
    if A is None:
        return NULL
    return matrix(A)


cdef inline const floating *optional_vector(const floating[::1] x) noexcept nogil:
    if x is None:
        return NULL
    return vector(x)


cdef Py_ssize_t LARGEST = _LARGEST

# The activations that each loss allows.
cdef bint[<int> CUSTOM + 1][<int> SOFTMAX + 1] _fits
for _loss, _activations in _OUTPUT_ACTIVATIONS.items():
    for _activation in range(<int> SOFTMAX + 1):
        _fits[<int> _loss][<int> _activation] = _activation in _activations

# The default slopes; most activations have none.
cdef double[<int> SOFTMAX + 1] _slopes
for _activation in range(<int> SOFTMAX + 1):
    _slopes[<int> _activation] = _SLOPES.get(_activation, 0)


cdef described(const Py_ssize_t[::1] classes):
    """What an error says of class indices: their shape and range."""
    cdef Py_ssize_t n = classes.shape[0]
    return f"({n},) from {min(classes)} to {max(classes)}" if n else (n,)


cdef shape_of(const floating[:, ::1] A):
    return None if A is None else (A.shape[0], A.shape[1])


cdef int refuse(str needs, got) except -1:
    raise ValueError(f"needs {needs}; got {', '.join(map(str, got))}")


cdef inline bint fits_if_given(
    const floating[:, ::1] derivatives, Py_ssize_t N, Py_ssize_t n,
) noexcept nogil:
    return derivatives is None or (derivatives.shape[0] == N and derivatives.shape[1] == n)


cdef inline bint are_classes(const Py_ssize_t[::1] classes, Py_ssize_t n) noexcept nogil:
    """Whether all are columns of an array with n columns."""
    cdef Py_ssize_t i
    for i in range(classes.shape[0]):
        if not 0 <= classes[i] < n:
            return False
    return True


cdef inline nncore_sigma sigma_of(Py_ssize_t activation, double slope) noexcept nogil:
    cdef nncore_sigma sigma
    sigma.kind, sigma.slope = <Activation> activation, slope
    if isinf(slope):
        sigma.slope = _slopes[activation]
    return sigma


cdef inline bint fits(Py_ssize_t loss, Py_ssize_t activation) noexcept nogil:
    """Whether the loss allows the activation."""
    return (
        0 <= loss <= <Py_ssize_t> CUSTOM and 0 <= activation <= <Py_ssize_t> SOFTMAX
        and _fits[loss][activation])


# The kernels on addresses.

cdef void _forward(
    floating *A, floating *derivatives, const floating *A_prev, const floating *W,
    const floating *b, nncore_sigma sigma, Py_ssize_t N, Py_ssize_t n_prev, Py_ssize_t n,
) noexcept nogil:
    """(1): A = σ(W A_prev + b)."""
    forward_product(A, A_prev, W, N, n_prev, n)
    table_of(A).bias_activation(A, derivatives, b, sigma, N, n)


cdef void _delta(
    floating *delta_prev, const floating *delta, const floating *W, const floating *A_prev,
    nncore_sigma sigma, Py_ssize_t N, Py_ssize_t n_prev, Py_ssize_t n,
) noexcept nogil:
    """(4): delta_prev = W^T delta . σ'(Z_prev)."""
    delta_product(delta_prev, delta, W, N, n_prev, n)
    table_of(delta).times_derivative(delta_prev, A_prev, sigma, N * n_prev)


cdef void _gradient(
    floating *dW, floating *db, const floating *delta, const floating *A_prev,
    double scale, double beta_W, double beta_b, Py_ssize_t N, Py_ssize_t n_prev, Py_ssize_t n,
) noexcept nogil:
    """(5): dW = scale delta A_prev^T + beta_W dW, db = scale delta 1 + beta_b db."""
    gradient_product(dW, delta, A_prev, <floating> scale, <floating> beta_W, N, n_prev, n, n_prev)
    table_of(delta).column_sums(db, delta, scale, beta_b, N, n)


cdef inline void _gradient_descent(
    floating *W, floating *b, const floating *delta, const floating *A_prev,
    double step_size, double decay, Py_ssize_t N, Py_ssize_t n_prev, Py_ssize_t n,
) noexcept nogil:
    """(5) and (6) in one product: the gradient is added to W and never stored."""
    _gradient(W, b, delta, A_prev, -step_size, 1 - decay, 1, N, n_prev, n)


# The kernels on arrays. Activation and Loss are integers here, so that the range can be checked.

cpdef int forward(
    floating[:, ::1] A, const floating[:, ::1] A_prev, const floating[:, ::1] W,
    const floating[::1] b, Py_ssize_t activation, floating[:, ::1] derivatives=None,
    double slope=INFINITY,
) except -1 nogil:
    """(1): A = σ(A_prev W + b).

    Parameters
    ----------
    A : ndarray of shape (N, n)
        The outputs of the layer; overwritten.
    A_prev : ndarray of shape (N, n_prev)
        Its inputs.
    W : ndarray of shape (n_prev, n)
    b : ndarray of shape (n,)
    activation : Activation
    derivatives : ndarray of shape (N, n), optional
        Overwritten with σ′(Z) if the activation is SILU, GELU or GELU_TANH, or if the slope is
        negative: then σ′ does not follow from σ. Not used otherwise.
    slope : float, optional
        LEAKY_RELU's slope below 0, by default 0.01, or ELU's α, by default 1; infinity stands for
        the default.
    """
    cdef:
        Py_ssize_t N = A.shape[0]
        Py_ssize_t n_prev = W.shape[0]
        Py_ssize_t n = W.shape[1]
    if (A.shape[1] != n or A_prev.shape[0] != N or A_prev.shape[1] != n_prev
            or b.shape[0] != n or not 0 <= activation <= <Py_ssize_t> SOFTMAX
            or not fits_if_given(derivatives, N, n) or max(N, n_prev, n) > LARGEST):
        with gil:
            refuse(
                "A (N, n), A_prev (N, n_prev), W (n_prev, n), b (n,), an Activation, derivatives "
                "(N, n) or None", (
                    (N, A.shape[1]), (A_prev.shape[0], A_prev.shape[1]), (n_prev, n),
                    (b.shape[0],), activation, shape_of(derivatives)))
    _forward(
        <floating *> matrix(A), <floating *> optional_matrix(derivatives), matrix(A_prev),
        matrix(W), vector(b), sigma_of(activation, slope), N, n_prev, n)
    return 0


cpdef int dropout(
    floating[:, ::1] A, double rate, unsigned long long seed, unsigned long long step,
    unsigned long long l, unsigned long long first_example=0,
) except -1 nogil:
    """Set the units of layer l that the step drops to 0, and divide the others by 1 - rate.

    Parameters
    ----------
    A : ndarray of shape (N, n)
        Outputs of `forward`, changed in place; where `forward` wrote derivatives, call it for
        these, too.
    rate : float
        In [0, 1).
    seed, step, l : int
        Not negative. Together with the example and the unit they determine what is dropped.
    first_example : int, default 0
        Row i is example first_example + i of the batch.
    """
    if not 0 <= rate < 1:
        with gil:
            refuse("a rate in [0, 1)", (rate,))
    if A.shape[1]:
        table_of(matrix(A)).dropout(
            <void *> matrix(A), rate, seed, step, l, first_example, 0, A.shape[1], 0, A.shape[0],
            A.shape[0], A.shape[1])
    return 0


cpdef int dropout_derivative(
    floating[:, ::1] delta, const floating[:, ::1] A, double rate, unsigned long long seed,
    unsigned long long step, unsigned long long l, unsigned long long first_example,
    Py_ssize_t activation, double slope=INFINITY,
) except -1 nogil:
    """Compute the factors of (4) with dropout: δ ⊙ σ′(Z) / (1 - rate), 0 for dropped units.

    Parameters
    ----------
    delta : ndarray of shape (N, n)
        δ Wᵀ, from `delta` with IDENTITY; changed in place.
    A : ndarray of shape (N, n)
        The outputs after `dropout`; where `forward` writes derivatives, those after it.
    rate, seed, step, l, first_example
        As in `dropout`.
    activation : Activation
        Any but SOFTMAX.
    slope : float, optional
        As in `forward`.
    """
    if (A.shape[0] != delta.shape[0] or A.shape[1] != delta.shape[1] or not 0 <= rate < 1
            or not 0 <= activation < <Py_ssize_t> SOFTMAX):
        with gil:
            refuse("delta and A (N, n), a rate in [0, 1), an elementwise Activation", (
                (delta.shape[0], delta.shape[1]), (A.shape[0], A.shape[1]), rate, activation))
    if A.shape[1]:
        table_of(matrix(A)).dropout_derivative(
            <void *> matrix(delta), matrix(A), sigma_of(activation, slope), rate, seed, step, l,
            first_example, 0, A.shape[1], 0, A.shape[0], A.shape[0], A.shape[1])
    return 0


cpdef double loss(
    const floating[:, ::1] A, const floating[:, ::1] Y, const floating[::1] sample_weight,
    Py_ssize_t loss, double threshold=1.0,
) except? -1 nogil:
    """(2): the sum of weight times loss over the examples.

    Parameters
    ----------
    A : ndarray of shape (N, n)
        The network's outputs. Probabilities are clipped to [eps, 1 - eps].
    Y : ndarray of shape (N, n)
        The targets; for CUSTOM any numbers, with the loss Σ y a. Their range is not checked.
    sample_weight : ndarray of shape (N,) or None
        Not negative. An example of weight 0 counts as 0, even if it is not finite.
    loss : Loss
    threshold : float, default 1
        From which |y - a| on HUBER is linear.

    Returns
    -------
    float
        Added up in double precision.
    """
    cdef:
        Py_ssize_t N = A.shape[0]
        Py_ssize_t n = A.shape[1]
    if (Y.shape[0] != N or Y.shape[1] != n
            or (sample_weight is not None and sample_weight.shape[0] != N)
            or not 0 <= loss <= <Py_ssize_t> CUSTOM):
        with gil:
            refuse("A (N, n), Y (N, n), sample_weight (N,) or None, a Loss", (
                (N, n), (Y.shape[0], Y.shape[1]),
                None if sample_weight is None else (sample_weight.shape[0],), loss))
    return table_of(matrix(A)).loss(
        matrix(A), matrix(Y), optional_vector(sample_weight), <Loss> loss, threshold, N, n, n)


cpdef int output_delta(
    floating[:, ::1] delta, const floating[:, ::1] A, const floating[:, ::1] Y,
    const floating[::1] sample_weight, Py_ssize_t loss, Py_ssize_t activation,
    const floating[:, ::1] derivatives=None, double slope=INFINITY, double threshold=1.0,
) except -1 nogil:
    """(3): δ = ∂E/∂A ⊙ σ′(Z), times the example's weight; A - Y for matching pairs.

    Parameters
    ----------
    delta : ndarray of shape (N, n)
        Overwritten; it may be Y.
    A : ndarray of shape (N, n)
        The network's outputs.
    Y : ndarray of shape (N, n)
        The targets; for CUSTOM ∂E/∂A, from a loss of your own.
    sample_weight : ndarray of shape (N,) or None
        As in `loss`. An example of weight 0 has a delta of 0, even if it is not finite.
    loss : Loss
    activation : Activation
        One that the loss allows: EXPONENTIAL for POISSON, SIGMOID for BINARY_CROSS_ENTROPY, SOFTMAX
        for CROSS_ENTROPY; any for CUSTOM; any but SOFTMAX for the others.
    derivatives : ndarray of shape (N, n), optional
        Those of `forward`, where it writes any.
    slope : float, optional
        As in `forward`.
    threshold : float, default 1
        As in `loss`.
    """
    cdef:
        Py_ssize_t N = A.shape[0]
        Py_ssize_t n = A.shape[1]
        nncore_sigma sigma
    if (delta.shape[0] != N or delta.shape[1] != n or Y.shape[0] != N or Y.shape[1] != n
            or (sample_weight is not None and sample_weight.shape[0] != N)
            or not fits(loss, activation) or not fits_if_given(derivatives, N, n)
            or (derivatives is None and nncore_keeps_derivatives(sigma_of(activation, slope)))):
        with gil:
            refuse(
                "delta, A and Y (N, n), sample_weight (N,) or None, a Loss and an Activation that "
                "fit, derivatives (N, n) if the Activation keeps them", (
                    (delta.shape[0], delta.shape[1]), (N, n), (Y.shape[0], Y.shape[1]),
                    None if sample_weight is None else (sample_weight.shape[0],),
                    loss, activation, shape_of(derivatives)))
    sigma = sigma_of(activation, slope)
    table_of(matrix(A)).output_delta(
        <void *> matrix(delta), matrix(A),
        matrix(derivatives) if nncore_keeps_derivatives(sigma) else matrix(A), matrix(Y),
        optional_vector(sample_weight), <Loss> loss, threshold, sigma, N, n, n)
    return 0


cpdef double class_loss(
    const floating[:, ::1] A, const Py_ssize_t[::1] classes, const floating[::1] sample_weight,
) except? -1 nogil:
    """(2) for CROSS_ENTROPY, with targets of 1 in the column of an example's class, 0 elsewhere.

    Parameters
    ----------
    A : ndarray of shape (N, n)
        The network's outputs. Probabilities are clipped to [eps, 1 - eps].
    classes : ndarray of shape (N,)
        Integers of type intp in [0, n).
    sample_weight : ndarray of shape (N,) or None
        As in `loss`.

    Returns
    -------
    float
        Added up in double precision.
    """
    cdef:
        Py_ssize_t N = A.shape[0]
        Py_ssize_t n = A.shape[1]
    if (classes.shape[0] != N or (sample_weight is not None and sample_weight.shape[0] != N)
            or not are_classes(classes, n)):
        with gil:
            refuse("A (N, n), classes (N,) in [0, n), sample_weight (N,) or None", (
                (N, n), described(classes),
                None if sample_weight is None else (sample_weight.shape[0],)))
    return table_of(matrix(A)).class_loss(
        matrix(A), &classes[0] if N else NULL, NULL, 0, optional_vector(sample_weight), N, n)


cpdef int class_delta(
    floating[:, ::1] delta, const floating[:, ::1] A, const Py_ssize_t[::1] classes,
    const floating[::1] sample_weight,
) except -1 nogil:
    """(3) for the targets of `class_loss`: A - 1 in the column of an example's class, A elsewhere.

    Parameters
    ----------
    delta : ndarray of shape (N, n)
        Overwritten; it may be A.
    A : ndarray of shape (N, n)
        The network's outputs.
    classes : ndarray of shape (N,)
        As in `class_loss`.
    sample_weight : ndarray of shape (N,) or None
        As in `loss`. An example of weight 0 has a delta of 0, even if it is not finite.
    """
    cdef:
        Py_ssize_t N = A.shape[0]
        Py_ssize_t n = A.shape[1]
    if (delta.shape[0] != N or delta.shape[1] != n or classes.shape[0] != N
            or (sample_weight is not None and sample_weight.shape[0] != N)
            or not are_classes(classes, n)):
        with gil:
            refuse("delta and A (N, n), classes (N,) in [0, n), sample_weight (N,) or None", (
                (delta.shape[0], delta.shape[1]), (N, n), described(classes),
                None if sample_weight is None else (sample_weight.shape[0],)))
    table_of(matrix(A)).class_delta(
        <void *> matrix(delta), matrix(A), &classes[0] if N else NULL, NULL, 0,
        optional_vector(sample_weight), N, n, n)
    return 0


cpdef int delta(
    floating[:, ::1] delta_prev, const floating[:, ::1] delta, const floating[:, ::1] W,
    const floating[:, ::1] A_prev, Py_ssize_t activation, double slope=INFINITY,
) except -1 nogil:
    """(4): δ_prev = δ Wᵀ ⊙ σ′(Z_prev), with σ′ from A_prev = σ(Z_prev).

    Parameters
    ----------
    delta_prev : ndarray of shape (N, n_prev)
        Overwritten.
    delta : ndarray of shape (N, n)
    W : ndarray of shape (n_prev, n)
    A_prev : ndarray of shape (N, n_prev)
        The outputs of the layer before; where `forward` writes derivatives, those.
    activation : Activation
        That of the layer before, any but SOFTMAX. IDENTITY leaves σ′ out, for the derivative by the
        inputs or before `dropout_derivative`.
    slope : float, optional
        As in `forward`.
    """
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
        sigma_of(activation, slope), N, n_prev, n)
    return 0


cpdef int gradient(
    floating[:, ::1] dW, floating[::1] db, const floating[:, ::1] delta,
    const floating[:, ::1] A_prev, double scale, double beta=0.0,
) except -1 nogil:
    """(5): dW = scale A_prevᵀ δ + beta dW, db = scale 1ᵀ δ + beta db.

    Parameters
    ----------
    dW : ndarray of shape (n_prev, n)
    db : ndarray of shape (n,)
    delta : ndarray of shape (N, n)
    A_prev : ndarray of shape (N, n_prev)
    scale : float
        1 / N for the mean of the examples.
    beta : float, default 0
        1 adds to what dW and db hold. With 0 they are overwritten, whatever they hold.
    """
    check_gradient(dW, db, delta, A_prev)
    _gradient(
        <floating *> matrix(dW), <floating *> vector(db), matrix(delta), matrix(A_prev),
        scale, beta, beta, delta.shape[0], dW.shape[0], dW.shape[1])
    return 0


cpdef int gradient_descent(
    floating[:, ::1] W, floating[::1] b, const floating[:, ::1] delta,
    const floating[:, ::1] A_prev, double step_size, double decay=0.0,
) except -1 nogil:
    """(5) and (6) at once: W -= step_size A_prevᵀ δ + decay W, b -= step_size 1ᵀ δ.

    Parameters
    ----------
    W : ndarray of shape (n_prev, n)
        Changed in place, as b. Compute the layer's `delta` from the old W first.
    b : ndarray of shape (n,)
    delta : ndarray of shape (N, n)
    A_prev : ndarray of shape (N, n_prev)
    step_size : float
        η / N for the mean of the examples.
    decay : float, default 0
        η λ.
    """
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
    """(6): w -= η g, with g = ∂E/∂w + λ w.

    Parameters
    ----------
    parameters : ndarray of shape (n,)
        Changed in place.
    gradient : ndarray of shape (n,)
    learning_rate, weight_decay : float
        η and λ.
    """
    check_lengths(parameters, gradient, gradient, gradient, gradient)
    table_of(vector(parameters)).sgd(
        <void *> vector(parameters), vector(gradient), learning_rate, weight_decay,
        parameters.shape[0])
    return 0


cpdef int momentum(
    floating[::1] parameters, floating[::1] velocity, const floating[::1] gradient,
    double learning_rate, double momentum, bint nesterov, double weight_decay,
    bint accumulates=False,
) except -1 nogil:
    """(6) with momentum: v = μ v - η g, w += v; Nesterov's form w += μ v - η g.

    Parameters
    ----------
    parameters, velocity : ndarray of shape (n,)
        Changed in place; v is 0 at first.
    gradient : ndarray of shape (n,)
    learning_rate, momentum : float
        η and μ.
    nesterov : bool
    weight_decay : float
        λ, as in `sgd`.
    accumulates : bool, default False
        Whether v adds up gradients instead of steps, v = μ v + g, w -= η v; Nesterov's form
        w -= η (μ v + g). The parameters are the same as long as η is.
    """
    check_lengths(parameters, gradient, velocity, velocity, velocity)
    table_of(vector(parameters)).momentum(
        <void *> vector(parameters), <void *> vector(velocity), vector(gradient),
        learning_rate, momentum, nesterov, weight_decay, accumulates, parameters.shape[0])
    return 0


cpdef int adam(
    floating[::1] parameters, floating[::1] m, floating[::1] v, const floating[::1] gradient,
    double step_size, double beta_1, double beta_2, double epsilon, double weight_decay,
) except -1 nogil:
    """(6) by Adam: m and v are running means of g and g², w -= step_size m / (√v + ε).

    Parameters
    ----------
    parameters, m, v : ndarray of shape (n,)
        Changed in place; m and v are 0 at first.
    gradient : ndarray of shape (n,)
    step_size : float
        With the bias corrections, η √(1 - β₂ᵗ) / (1 - β₁ᵗ) in step t = 1, 2, ...
    beta_1, beta_2 : float
    epsilon : float
        A normal number; with the bias correction, ε √(1 - β₂ᵗ).
    weight_decay : float
        λ, as in `sgd`.
    """
    check_lengths(parameters, gradient, m, v, v)
    table_of(vector(parameters)).adam(
        <void *> vector(parameters), <void *> vector(m), <void *> vector(v), vector(gradient),
        step_size, beta_1, beta_2, epsilon, weight_decay, parameters.shape[0])
    return 0


cpdef int amsgrad(
    floating[::1] parameters, floating[::1] m, floating[::1] v, floating[::1] v_max,
    const floating[::1] gradient, double step_size, double beta_1, double beta_2, double epsilon,
    double weight_decay,
) except -1 nogil:
    """(6) by AMSGrad: `adam` with v_max, the largest v so far, in place of v.

    Parameters
    ----------
    parameters, m, v, v_max : ndarray of shape (n,)
        Changed in place; all but the parameters are 0 at first.
    gradient, step_size, beta_1, beta_2, epsilon, weight_decay
        As in `adam`.
    """
    check_lengths(parameters, gradient, m, v, v_max)
    table_of(vector(parameters)).amsgrad(
        <void *> vector(parameters), <void *> vector(m), <void *> vector(v),
        <void *> vector(v_max), vector(gradient), step_size, beta_1, beta_2, epsilon,
        weight_decay, parameters.shape[0])
    return 0


cpdef int rmsprop(
    floating[::1] parameters, floating[::1] v, floating[::1] mean, floating[::1] velocity,
    const floating[::1] gradient, double learning_rate, double rho, double momentum,
    double epsilon, double weight_decay,
) except -1 nogil:
    """(6) by RMSprop: v is a running mean of g², w -= η s with the step s = g / (√v + ε).

    Parameters
    ----------
    parameters, v : ndarray of shape (n,)
        Changed in place; v is 0 at first.
    mean : ndarray of shape (n,) or None
        A running mean of g, so that the variance v - mean² takes the place of v; 0 at first.
    velocity : ndarray of shape (n,) or None
        velocity = μ velocity + s in the place of s; 0 at first.
    gradient : ndarray of shape (n,)
    learning_rate, rho, momentum : float
        η, the share of the old mean in a new one, and μ.
    epsilon : float
        A normal number.
    weight_decay : float
        λ, as in `sgd`.
    """
    check_lengths(
        parameters, gradient, v, v if mean is None else mean, v if velocity is None else velocity)
    table_of(vector(parameters)).rmsprop(
        <void *> vector(parameters), <void *> vector(v), <void *> optional_vector(mean),
        <void *> optional_vector(velocity), vector(gradient), learning_rate, rho, momentum,
        epsilon, weight_decay, parameters.shape[0])
    return 0


cdef int check_lengths(
    const floating[::1] parameters, const floating[::1] gradient, const floating[::1] state_1,
    const floating[::1] state_2, const floating[::1] state_3,
) except -1 nogil:
    cdef Py_ssize_t count = parameters.shape[0]
    if (gradient.shape[0] != count or state_1.shape[0] != count or state_2.shape[0] != count
            or state_3.shape[0] != count):
        with gil:
            refuse("vectors of one length", (
                count, gradient.shape[0], state_1.shape[0], state_2.shape[0], state_3.shape[0]))
    return 0


cpdef double square_sum(const floating[::1] x) except? -1 nogil:
    """Return Σ x², with each square rounded to the type and most of the sum in double.

    Parameters
    ----------
    x : ndarray of shape (n,)
    """
    return table_of(vector(x)).square_sum(vector(x), 1, x.shape[0], x.shape[0])


cpdef int exp(floating[::1] out, const floating[::1] x) except -1 nogil:
    """Write eˣ to out, with an error of at most 2 units in the last place.

    Parameters
    ----------
    out : ndarray of shape (n,)
        Overwritten; it may be x.
    x : ndarray of shape (n,)
    """
    check_lengths(out, x, x, x, x)
    table_of(vector(x)).map(<void *> vector(out), vector(x), NNCORE_EXP, x.shape[0])
    return 0


cpdef int log(floating[::1] out, const floating[::1] x) except -1 nogil:
    """Write ln x to out, with an error of at most 3 units in the last place.

    Parameters
    ----------
    out : ndarray of shape (n,)
        Overwritten; it may be x.
    x : ndarray of shape (n,)
        Normal numbers above 0, which is not checked.
    """
    check_lengths(out, x, x, x, x)
    table_of(vector(x)).map(<void *> vector(out), vector(x), NNCORE_LOG, x.shape[0])
    return 0


cpdef Py_ssize_t first_beyond(const floating[::1] x, double limit) except -1 nogil:
    """Return the index of the first element outside ±limit, or the length.

    Parameters
    ----------
    x : ndarray of shape (n,)
        NaN is outside.
    limit : float
    """
    return table_of(vector(x)).first_beyond(vector(x), limit, x.shape[0])


# The table of kernels for steps on BLAS. A layer is a single panel there, a row-major array.

cdef void _blas_forward(
    floating *A, floating *derivatives, const floating *A_prev, Py_ssize_t A_stride,
    const floating *W, const floating *b, nncore_sigma sigma, Py_ssize_t row,
    Py_ssize_t n_rows, Py_ssize_t capacity, Py_ssize_t n_prev, Py_ssize_t n,
) noexcept nogil:
    if derivatives != NULL:
        derivatives += row * n
    _forward(
        A + row * n, derivatives, A_prev + row * n_prev, W, b, sigma, n_rows, n_prev, n)


cdef void _blas_delta(
    floating *delta_prev, const floating *delta, const floating *W, const floating *A_prev,
    nncore_sigma sigma, Py_ssize_t row, Py_ssize_t n_rows, Py_ssize_t capacity,
    Py_ssize_t n_prev, Py_ssize_t n,
) noexcept nogil:
    _delta(
        delta_prev + row * n_prev, delta + row * n, W, A_prev + row * n_prev, sigma, n_rows,
        n_prev, n)


cdef void _blas_gradient(
    floating *dW, const floating *delta, const floating *A_prev, double scale, double beta,
    Py_ssize_t panel_step, Py_ssize_t p_begin, Py_ssize_t p_end, Py_ssize_t k_begin,
    Py_ssize_t k_end, Py_ssize_t n_examples, Py_ssize_t capacity, Py_ssize_t n_prev, Py_ssize_t n,
) noexcept nogil:
    gradient_product(
        dW, delta, A_prev + k_begin, <floating> scale, <floating> beta, n_examples,
        k_end - k_begin, n, n_prev)


ctypedef void (*forward_t)(
    void *, void *, const void *, Py_ssize_t, const void *, const void *, nncore_sigma, Py_ssize_t,
    Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef void (*delta_t)(
    void *, const void *, const void *, const void *, nncore_sigma, Py_ssize_t, Py_ssize_t,
    Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef void (*gradient_t)(
    void *, const void *, const void *, double, double, Py_ssize_t, Py_ssize_t, Py_ssize_t,
    Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil

# For float and for double.
cdef nncore_kernels _blas[2]
_blas[0], _blas[1] = tables(False)[0], tables(True)[0]
_blas[0].panel_width = _blas[1].panel_width = 0
_blas[0].forward = <forward_t> _blas_forward[float]
_blas[1].forward = <forward_t> _blas_forward[double]
_blas[0].delta = <delta_t> _blas_delta[float]
_blas[1].delta = <delta_t> _blas_delta[double]
_blas[0].gradient = <gradient_t> _blas_gradient[float]
_blas[1].gradient = <gradient_t> _blas_gradient[double]


cdef nncore_kernels *blas_tables(bint double_precision) noexcept nogil:
    return &_blas[double_precision]
