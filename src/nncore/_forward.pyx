"""The forward pass (1) of a few examples over row-major arrays, for calls that take microseconds.

It packs nothing, keeps no memory and starts no thread. It adds in the same order as the tiles, so
a row's outputs do not depend on the other rows of the call.
"""

cimport cython
cimport numpy as cnp
from cpython.float cimport PyFloat_AsDouble, PyFloat_CheckExact
from cpython.list cimport PyList_GetItem
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_Malloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GetItem
from libc.math cimport NAN
from libc.string cimport memcpy

from nncore._kernels cimport tables
from nncore._layout cimport Source, source_of
from nncore._tables cimport (
    NNCORE_FLOAT32, NNCORE_FLOAT64, nncore_float_mode, nncore_flush_subnormals, nncore_kernels,
    nncore_set_float_mode, nncore_sigma, nncore_source)

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


cdef bint _is_sequence(x) noexcept:
    """Whether x is a list or tuple. Subclasses may compute their elements."""
    return type(x) is list or type(x) is tuple


cdef double _as_double(x) except? -1.0:
    """Return x as a double, or NaN if it is not a plain number or would be rounded."""
    cdef int overflow
    cdef long long value
    cdef bint exact
    if type(x) is int or type(x) is bool:
        value = PyLong_AsLongLongAndOverflow(x, &overflow)
        exact = not overflow and -LARGEST_EXACT <= value <= LARGEST_EXACT
        return <double> value if exact else NAN
    return <double> x if isinstance(x, FLOATING) else NAN


cdef bint _read(double *to, row, Py_ssize_t n) except -1:
    """Store a row's numbers. Return False if it is not a list or tuple of n elements."""
    cdef:
        bint is_list = type(row) is list
        PyObject *x
        Py_ssize_t i
    if not _is_sequence(row):
        return False
    # The references are borrowed, so without a GIL no other thread may change the list.
    with cython.critical_section(row):
        if len(row) != n:
            return False
        for i in range(n):
            x = PyList_GetItem(row, i) if is_list else PyTuple_GetItem(row, i)
            if PyFloat_CheckExact(<object> x):
                to[i] = PyFloat_AsDouble(<object> x)
            else:
                # What is no plain number may run code that removes it from the list.
                number = <object> x
                to[i] = _as_double(number)
    return True


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


@cython.final
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
        Py_ssize_t depth, n_in, n_out, n_parameters, widest, size
        nncore_source own_type
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
        self.n_parameters, self.size = parameters.size, parameters.itemsize
        self.type_number = parameters.dtype.num
        self.own_type = NNCORE_FLOAT64 if self.size == 8 else NNCORE_FLOAT32
        self.parameters = parameters
        self.layer_array = np.empty(self.depth * sizeof(Layer), dtype=np.uint8)
        self.layers = <Layer *> cnp.PyArray_DATA(self.layer_array)
        for l in range(self.depth):
            layer = &self.layers[l]
            layer.n_prev, layer.n, layer.sigma.kind, layer.sigma.slope, W, b = (
                architecture.layers[l])
            layer.W, layer.b = W * self.size, b * self.size

    # In Python's stable ABI, Cython's methods are called through a tuple of their arguments, unless
    # they have one positional argument and no binding.
    @cython.binding(False)
    def predict(self, X, /):
        """Return the outputs for X, or None if the arguments need the checks of other calls.

        Parameters
        ----------
        X : object
            Few rows, or a single one of one dimension, of finite numbers: an array of any type,
            order and strides, or lists or tuples.
        """
        return self._predict(X, None)

    @cython.binding(False)
    def predict_to(self, tuple X_and_out not None, /):
        """Store the outputs for X in `out` and return it, or return None as `predict` does.

        Parameters
        ----------
        X_and_out : tuple (X, out)
            X is as in `predict`, and `out` a row-major array of the outputs' shape and dtype. It is
            written when X has been read, so it may overlap with X.
        """
        return self._predict(X_and_out[0], X_and_out[1])

    cdef _predict(self, X, out):
        if cnp.PyArray_CheckExact(X):
            return self._predict_array(<cnp.ndarray> X, out)
        if not _is_sequence(X) or len(X) == 0:
            return None
        if len(X) == 1 and cnp.PyArray_CheckExact(X[0]):
            return self._predict_array(X[0][np.newaxis], out)
        return self._predict_numbers(X, out)

    cdef _predict_array(self, cnp.ndarray array, out):
        cdef:
            cnp.ndarray inputs = self._as_source(array)
            Source source
        if inputs is None:
            return None
        source = source_of(inputs)
        return self._outputs(
            &source, cnp.PyArray_ISCARRAY_RO(inputs), cnp.PyArray_NDIM(inputs),
            cnp.PyArray_DIM(inputs, 0) if cnp.PyArray_NDIM(inputs) == 2 else 1, out)

    cdef cnp.ndarray _as_source(self, cnp.ndarray array):
        """Return the array in a dtype of `nncore._layout.SOURCES`, or None."""
        cdef:
            const cnp.npy_intp *shape = cnp.PyArray_DIMS(array)
            int type_number = cnp.PyArray_TYPE(array)
        if not (
            (cnp.PyArray_NDIM(array) == 2 and self._takes(shape[0], shape[1]))
            or (cnp.PyArray_NDIM(array) == 1 and self._takes(1, shape[0]))
        ):
            return None
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

    cdef _predict_numbers(self, X, out):
        """Return the outputs for a list or tuple of numbers, or of rows of them."""
        cdef:
            bint has_rows = _is_sequence(X[0])
            Py_ssize_t n_rows = len(X) if has_rows else 1
            Source source
            double *numbers
            Py_ssize_t i
        if not self._takes(n_rows, self.n_in):
            return None
        numbers = <double *> PyMem_Malloc(n_rows * self.n_in * sizeof(double))
        if numbers == NULL:
            raise MemoryError()
        try:
            for i in range(n_rows):
                if not _read(numbers + i * self.n_in, X[i] if has_rows else X, self.n_in):
                    return None
            source.data, source.type = <char *> numbers, NNCORE_FLOAT64
            source.row_stride = self.n_in * sizeof(double)
            source.column_stride = sizeof(double)
            return self._outputs(&source, True, 2 if has_rows else 1, n_rows, out)
        finally:
            PyMem_Free(numbers)

    cdef bint _takes(self, Py_ssize_t n_rows, Py_ssize_t n_columns) noexcept:
        return (
            n_columns == self.n_in and n_rows <= MOST_ROWS
            and (n_rows <= 2 or self.n_parameters * self.size <= MOST_BYTES))

    cdef cnp.ndarray _outputs(
        self, const Source *source, bint is_row_major, int n_dimensions, Py_ssize_t n_rows, out,
    ):
        """Return the outputs for rows of the source, or None if one is not finite."""
        cdef:
            cnp.npy_intp shape[2]
            cnp.npy_intp *out_shape = shape + 2 - n_dimensions
            cnp.ndarray outputs
            char *memory
            const char *A = source.data
            nncore_float_mode mode
            bint is_finite
        shape[0], shape[1] = n_rows, self.n_out
        if out is None:
            outputs = cnp.PyArray_SimpleNew(n_dimensions, out_shape, self.type_number)
        elif (
            cnp.PyArray_CheckExact(out) and cnp.PyArray_NDIM(out) == n_dimensions
            and cnp.PyArray_CompareLists(cnp.PyArray_DIMS(out), out_shape, n_dimensions)
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
        if source.type != self.own_type or not is_row_major:
            A = memory + n_rows * self.widest * self.size
            self.kernels.gather(
                <void *> A, source.data, source.type, source.row_stride, source.column_stride, NULL,
                0, 0, self.n_in, 0, n_rows, n_rows, self.n_in)
        is_finite = self.kernels.finite(A, n_rows, self.n_in, self.n_in)
        if is_finite and n_rows * self.n_parameters < LONG_WORK:
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
