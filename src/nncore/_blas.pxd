"""The three matrix products of a step, computed by SciPy's BLAS.

BLAS expects column-major matrices. It reads a row-major array of shape (N, n) as the n x N matrix
of the equations, with an example per column, so no array is ever transposed in memory. Only this
file depends on that.
"""

from cython cimport floating
from scipy.linalg cimport cython_blas

cdef extern from *:
    """
    #ifndef NNCORE_BLAS_INT
    #define NNCORE_BLAS_INT int
    #endif
    """
    ctypedef int blas_int "NNCORE_BLAS_INT"

# SciPy may use 64-bit integers; setup.py reads its declarations and defines NNCORE_BLAS_INT.
ctypedef void (*sgemm_t)(
    char *, char *, blas_int *, blas_int *, blas_int *, float *, float *, blas_int *,
    float *, blas_int *, float *, float *, blas_int *) noexcept nogil
ctypedef void (*dgemm_t)(
    char *, char *, blas_int *, blas_int *, blas_int *, double *, double *, blas_int *,
    double *, blas_int *, double *, double *, blas_int *) noexcept nogil


cdef inline void gemm(
    char transpose_a, char transpose_b, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
    floating alpha, const floating *a, Py_ssize_t lda, const floating *b, Py_ssize_t ldb,
    floating beta, floating *c, Py_ssize_t ldc,
) noexcept nogil:
    """C <- alpha op(A) op(B) + beta C for a column-major m x n matrix C and inner dimension k."""
    cdef:
        blas_int m_ = <blas_int> m
        blas_int n_ = <blas_int> n
        blas_int k_ = <blas_int> k
        # BLAS requires leading dimensions of at least 1, even for empty matrices.
        blas_int lda_ = <blas_int> max(lda, 1)
        blas_int ldb_ = <blas_int> max(ldb, 1)
        blas_int ldc_ = <blas_int> max(ldc, 1)
    if floating is float:
        (<sgemm_t> cython_blas.sgemm)(
            &transpose_a, &transpose_b, &m_, &n_, &k_, &alpha, <float *> a, &lda_,
            <float *> b, &ldb_, &beta, c, &ldc_)
    else:
        (<dgemm_t> cython_blas.dgemm)(
            &transpose_a, &transpose_b, &m_, &n_, &k_, &alpha, <double *> a, &lda_,
            <double *> b, &ldb_, &beta, c, &ldc_)


cdef inline void forward_product(
    floating *Z, const floating *A_prev, const floating *W,
    Py_ssize_t N, Py_ssize_t n_prev, Py_ssize_t n,
) noexcept nogil:
    """Z = W A_prev, the product of (1)."""
    gemm(c'N', c'N', n, N, n_prev, <floating> 1, W, n, A_prev, n_prev, <floating> 0, Z, n)


cdef inline void delta_product(
    floating *delta_prev, const floating *delta, const floating *W,
    Py_ssize_t N, Py_ssize_t n_prev, Py_ssize_t n,
) noexcept nogil:
    """delta_prev = W^T delta, the product of (4)."""
    gemm(c'T', c'N', n_prev, N, n, <floating> 1, W, n, delta, n, <floating> 0, delta_prev, n_prev)


cdef inline void gradient_product(
    floating *dW, const floating *delta, const floating *A_prev, floating scale, floating beta,
    Py_ssize_t N, Py_ssize_t n_prev, Py_ssize_t n, Py_ssize_t A_stride,
) noexcept nogil:
    """dW <- scale delta A_prev^T + beta dW, the product of (5); A_stride is A_prev's row stride."""
    gemm(c'N', c'T', n, n_prev, N, scale, delta, n, A_prev, A_stride, beta, dW, n)
