"""The forward pass (1) of a few examples over row-major arrays, for calls that take microseconds.

It packs nothing, keeps no memory and starts no thread. It adds in the same order as the tiles, so
a row's outputs do not depend on the other rows of the call.
"""

cimport cython
cimport numpy as cnp
from cpython.list cimport PyList_AsTuple
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_Malloc, PyMem_Free
from libc.math cimport NAN
from libc.string cimport memcpy

from nncore._kernels cimport tables
from nncore._layout cimport Source, source_of
from nncore._tables cimport (
    nncore_float_mode, nncore_flush_subnormals, nncore_kernels, nncore_set_float_mode,
    nncore_sigma)

import numpy as np

cnp.import_array()

# With more rows, packing the weights in panels pays off. The weights are read once per pair of
# rows, so with weights of more bytes than this it pays off from the second pair on.
cdef enum:
    MOST_ROWS = 16
    MOST_BYTES = 524_288

# Release the GIL from this number of multiplications on.
cdef enum:
    LONG_WORK = 100_000

# Doubles hold all integers up to here.
cdef long long LARGEST_EXACT = 1 << 53

# The types of NumPy's floating-point scalars.
cdef object FLOATING = np.floating


cdef struct Layer:
    Py_ssize_t n_prev
    Py_ssize_t n
    nncore_sigma sigma
    # Offsets in bytes.
    Py_ssize_t W
    Py_ssize_t b


cdef tuple _as_tuple(x):
    """Return a list or tuple as a tuple, which no other thread can change, anything else as None.

    Subclasses may compute their elements.
    """
    if type(x) is tuple:
        return <tuple> x
    return PyList_AsTuple(x) if type(x) is list else None


cdef double _as_double(x) except? -1.0:
    """Return a number as a double, or NaN if x is not a plain number or would be rounded."""
    cdef int overflow
    cdef long long value
    cdef bint exact
    if type(x) is float:
        return <double> x
    if type(x) is int or type(x) is bool:
        value = PyLong_AsLongLongAndOverflow(x, &overflow)
        exact = not overflow and -LARGEST_EXACT <= value <= LARGEST_EXACT
        return <double> value if exact else NAN
    return <double> x if isinstance(x, FLOATING) else NAN


cdef cnp.ndarray _narrow(cnp.ndarray array):
    """Return long doubles as doubles; NumPy would warn of those that become infinite."""
    cdef:
        cnp.ndarray wide = cnp.PyArray_Cast(array, cnp.NPY_LONGDOUBLE)
        cnp.ndarray doubles = cnp.PyArray_EMPTY(
            cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array), cnp.NPY_FLOAT64, 0)
        const long double *x = <const long double *> cnp.PyArray_DATA(wide)
        double *to = <double *> cnp.PyArray_DATA(doubles)
        Py_ssize_t i
    for i in range(cnp.PyArray_SIZE(array)):
        to[i] = <double> x[i]
    return doubles


cdef class ForwardPass:
    """The forward pass of one network.

    Parameters
    ----------
    architecture : Architecture
    parameters : ndarray of shape (n_parameters,)
        The network's flat vector, read in every call.
    """

    cdef:
        const nncore_kernels *kernels
        Py_ssize_t depth, n_in, n_out, widest, size
        int type_number
        cnp.ndarray parameters
        object layer_array
        Layer *layers

    def __init__(self, architecture, cnp.ndarray parameters not None):
        cdef:
            Py_ssize_t l, W, b
            Layer *layer
        self.kernels = tables(architecture.dtype == np.float64)
        self.depth = len(architecture.layers)
        self.n_in, self.n_out = architecture.sizes[0], architecture.sizes[self.depth]
        self.widest = max(architecture.sizes)
        self.size = parameters.itemsize
        self.type_number = parameters.dtype.num
        self.parameters = parameters
        self.layer_array = np.empty(self.depth * sizeof(Layer), dtype=np.uint8)
        self.layers = <Layer *> cnp.PyArray_DATA(self.layer_array)
        for l in range(self.depth):
            layer = &self.layers[l]
            layer.n_prev, layer.n, layer.sigma.kind, layer.sigma.slope, W, b = (
                architecture.layers[l])
            layer.W, layer.b = W * self.size, b * self.size

    # A bound method as Cython makes it is called through a tuple in Python's stable ABI.
    @cython.binding(False)
    def predict(self, X, out=None):
        """Return the outputs for X, or None if the arguments need the checks of other calls.

        Parameters
        ----------
        X : object
            Few rows, or a single one of one dimension, of finite numbers: an array of any type,
            order and strides, or lists or tuples.
        out : object
            None or a row-major array of the outputs' shape and dtype. It is written when X has been
            read, so it may overlap with X.
        """
        cdef:
            cnp.ndarray inputs = self._inputs(X), outputs
            cnp.npy_intp shape[2]
            cnp.npy_intp *out_shape
            Py_ssize_t n_rows
            Source source
            char *memory
            char *A
            nncore_float_mode mode
            bint is_finite
        if inputs is None:
            return None
        n_rows = cnp.PyArray_DIM(inputs, 0) if cnp.PyArray_NDIM(inputs) == 2 else 1
        shape[0], shape[1] = n_rows, self.n_out
        out_shape = shape + 2 - cnp.PyArray_NDIM(inputs)
        if out is None:
            outputs = cnp.PyArray_EMPTY(
                cnp.PyArray_NDIM(inputs), out_shape, self.type_number, 0)
        elif (
            cnp.PyArray_CheckExact(out) and cnp.PyArray_NDIM(out) == cnp.PyArray_NDIM(inputs)
            and cnp.PyArray_CompareLists(
                cnp.PyArray_DIMS(out), out_shape, cnp.PyArray_NDIM(inputs))
            and cnp.PyArray_TYPE(out) == self.type_number and cnp.PyArray_ISCARRAY(out)
        ):
            outputs = out
        else:
            return None

        # Layers read from one half and write to the other.
        memory = <char *> PyMem_Malloc(2 * n_rows * self.widest * self.size)
        if memory == NULL:
            raise MemoryError()
        # A session does the same, so the outputs are the same.
        mode = nncore_flush_subnormals()
        A = cnp.PyArray_BYTES(inputs)
        if cnp.PyArray_TYPE(inputs) != self.type_number or not cnp.PyArray_ISCARRAY_RO(inputs):
            A = memory + n_rows * self.widest * self.size
            source = source_of(inputs)
            self.kernels.gather(
                A, source.data, source.type, source.row_stride, source.column_stride, NULL, 0, 0,
                self.n_in, 0, n_rows, n_rows, self.n_in)
        is_finite = self.kernels.finite(A, n_rows, self.n_in, self.n_in)
        if is_finite and n_rows * cnp.PyArray_SIZE(self.parameters) < LONG_WORK:
            self._run(cnp.PyArray_BYTES(outputs), A, memory, n_rows)
        elif is_finite:
            with nogil:
                self._run(cnp.PyArray_BYTES(outputs), A, memory, n_rows)
        nncore_set_float_mode(mode)
        PyMem_Free(memory)
        return outputs if is_finite else None

    cdef void _run(
        self, char *outputs, const char *A_prev, char *memory, Py_ssize_t n_rows,
    ) noexcept nogil:
        cdef:
            const char *parameters = cnp.PyArray_BYTES(self.parameters)
            Py_ssize_t l
            Layer *layer
            char *A
        for l in range(self.depth):
            layer = &self.layers[l]
            A = memory + l % 2 * n_rows * self.widest * self.size
            self.kernels.forward_rows(
                A, A_prev, parameters + layer.W, parameters + layer.b, layer.sigma, n_rows,
                layer.n_prev, layer.n)
            A_prev = A
        memcpy(outputs, A_prev, n_rows * self.n_out * self.size)

    cdef bint _takes(self, Py_ssize_t n_rows, Py_ssize_t n_columns) noexcept:
        return (
            n_columns == self.n_in and n_rows <= MOST_ROWS
            and (n_rows <= 2 or cnp.PyArray_NBYTES(self.parameters) <= MOST_BYTES))

    cdef cnp.ndarray _inputs(self, X):
        """Return X as an array of a dtype of `nncore._layout.SOURCES`, or None."""
        cdef:
            cnp.ndarray array
            const cnp.npy_intp *shape
            int type_number
        if not cnp.PyArray_CheckExact(X):
            return self._numbers(X)
        array = X
        shape = cnp.PyArray_DIMS(array)
        if not (
            (cnp.PyArray_NDIM(array) == 2 and self._takes(shape[0], shape[1]))
            or (cnp.PyArray_NDIM(array) == 1 and self._takes(1, shape[0]))
        ):
            return None
        type_number = cnp.PyArray_TYPE(array)
        if (
            type_number == cnp.NPY_FLOAT32 or type_number == cnp.NPY_FLOAT64
            or type_number == cnp.NPY_UINT8
        ):
            if cnp.PyArray_ISNOTSWAPPED(array):
                return array
            return cnp.PyArray_Cast(array, type_number)
        if type_number == cnp.NPY_LONGDOUBLE:
            return _narrow(array)
        if (
            cnp.PyTypeNum_ISINTEGER(type_number) or cnp.PyTypeNum_ISBOOL(type_number)
            or type_number == cnp.NPY_FLOAT16
        ):
            return cnp.PyArray_Cast(array, self.type_number)
        return None

    cdef cnp.ndarray _numbers(self, X):
        """Return a list or tuple of numbers, of rows or of one array; None for anything else."""
        cdef:
            tuple rows = _as_tuple(X), row
            cnp.npy_intp shape[2]
            Py_ssize_t i, j
            int n_dimensions
            cnp.ndarray doubles
            double *to
        if not rows:
            return None
        if len(rows) == 1 and cnp.PyArray_CheckExact(rows[0]):
            return self._inputs(rows[0][np.newaxis])
        n_dimensions = 2 if isinstance(rows[0], (list, tuple)) else 1
        if n_dimensions == 1:
            rows = (rows,)
        shape[0], shape[1] = len(rows), self.n_in
        if not self._takes(shape[0], shape[1]):
            return None
        doubles = cnp.PyArray_EMPTY(n_dimensions, shape + 2 - n_dimensions, cnp.NPY_FLOAT64, 0)
        to = <double *> cnp.PyArray_DATA(doubles)
        for i in range(shape[0]):
            row = _as_tuple(rows[i])
            if row is None or len(row) != self.n_in:
                return None
            for j in range(self.n_in):
                to[i * self.n_in + j] = _as_double(row[j])
        return doubles
