"""The kernels for other Cython modules: `from nncore._kernels cimport forward`.

They need no GIL, check shapes, raise ValueError and allocate nothing. Compile with
nncore.get_include() among the include directories.
"""

from cython cimport floating

cdef extern from "nncore.h" nogil:
    enum Activation "nncore_activation":
        IDENTITY "NNCORE_IDENTITY"
        SIGMOID "NNCORE_SIGMOID"
        TANH "NNCORE_TANH"
        RELU "NNCORE_RELU"
        LEAKY_RELU "NNCORE_LEAKY_RELU"
        ELU "NNCORE_ELU"
        SOFTPLUS "NNCORE_SOFTPLUS"
        EXPONENTIAL "NNCORE_EXPONENTIAL"
        SILU "NNCORE_SILU"
        GELU "NNCORE_GELU"
        GELU_TANH "NNCORE_GELU_TANH"
        SOFTMAX "NNCORE_SOFTMAX"

    enum Loss "nncore_loss":
        SQUARED_ERROR "NNCORE_SQUARED_ERROR"
        BINARY_CROSS_ENTROPY "NNCORE_BINARY_CROSS_ENTROPY"
        CROSS_ENTROPY "NNCORE_CROSS_ENTROPY"
        POISSON "NNCORE_POISSON"
        ABSOLUTE_ERROR "NNCORE_ABSOLUTE_ERROR"
        HUBER "NNCORE_HUBER"
        CUSTOM "NNCORE_CUSTOM"

cpdef int forward(
    floating[:, ::1] A, const floating[:, ::1] A_prev, const floating[:, ::1] W,
    const floating[::1] b, Py_ssize_t activation,
    floating[:, ::1] derivatives=*, double slope=*) except -1 nogil

cpdef int dropout(
    floating[:, ::1] A, double rate, unsigned long long seed, unsigned long long step,
    unsigned long long l, unsigned long long first_example=*) except -1 nogil

cpdef int dropout_derivative(
    floating[:, ::1] delta, const floating[:, ::1] A, double rate, unsigned long long seed,
    unsigned long long step, unsigned long long l, unsigned long long first_example,
    Py_ssize_t activation, double slope=*) except -1 nogil

cpdef double loss(
    const floating[:, ::1] A, const floating[:, ::1] Y, const floating[::1] sample_weight,
    Py_ssize_t loss, double threshold=*) except? -1 nogil

cpdef int output_delta(
    floating[:, ::1] delta, const floating[:, ::1] A, const floating[:, ::1] Y,
    const floating[::1] sample_weight, Py_ssize_t loss, Py_ssize_t activation,
    const floating[:, ::1] derivatives=*, double slope=*, double threshold=*) except -1 nogil

cpdef double class_loss(
    const floating[:, ::1] A, const Py_ssize_t[::1] classes,
    const floating[::1] sample_weight) except? -1 nogil

cpdef int class_delta(
    floating[:, ::1] delta, const floating[:, ::1] A, const Py_ssize_t[::1] classes,
    const floating[::1] sample_weight) except -1 nogil

cpdef int delta(
    floating[:, ::1] delta_prev, const floating[:, ::1] delta, const floating[:, ::1] W,
    const floating[:, ::1] A_prev, Py_ssize_t activation,
    double slope=*) except -1 nogil

cpdef int gradient(
    floating[:, ::1] dW, floating[::1] db, const floating[:, ::1] delta,
    const floating[:, ::1] A_prev, double scale, double beta=*) except -1 nogil

cpdef int gradient_descent(
    floating[:, ::1] W, floating[::1] b, const floating[:, ::1] delta,
    const floating[:, ::1] A_prev, double step_size, double decay=*) except -1 nogil

cpdef int sgd(
    floating[::1] parameters, const floating[::1] gradient, double learning_rate,
    double weight_decay) except -1 nogil

cpdef int momentum(
    floating[::1] parameters, floating[::1] velocity, const floating[::1] gradient,
    double learning_rate, double momentum, bint nesterov, double weight_decay,
    bint accumulates=*) except -1 nogil

cpdef int adam(
    floating[::1] parameters, floating[::1] m, floating[::1] v, const floating[::1] gradient,
    double step_size, double beta_1, double beta_2, double epsilon,
    double weight_decay) except -1 nogil

cpdef int amsgrad(
    floating[::1] parameters, floating[::1] m, floating[::1] v, floating[::1] v_max,
    const floating[::1] gradient, double step_size, double beta_1, double beta_2, double epsilon,
    double weight_decay) except -1 nogil

cpdef int rmsprop(
    floating[::1] parameters, floating[::1] v, floating[::1] mean, floating[::1] velocity,
    const floating[::1] gradient, double learning_rate, double rho, double momentum,
    double epsilon, double weight_decay) except -1 nogil

cpdef double square_sum(const floating[::1] x) except? -1 nogil

cpdef int exp(floating[::1] out, const floating[::1] x) except -1 nogil

cpdef int log(floating[::1] out, const floating[::1] x) except -1 nogil

cpdef Py_ssize_t first_beyond(const floating[::1] x, double limit) except -1 nogil

# For nncore's own modules: the tables of C functions for double or float, on tiles and on BLAS.
from nncore._tables cimport nncore_kernels

cdef const nncore_kernels *tables(bint double_precision) noexcept nogil
cdef nncore_kernels *blas_tables(bint double_precision) noexcept nogil
