"""The forward pass (1) of a few examples over row-major arrays, for calls that take microseconds.

It packs nothing, keeps no memory and starts no thread. It adds in the same order as the tiles, so
a row's outputs do not depend on the other rows of the call.
"""

cimport numpy as cnp
from cpython.mem cimport PyMem_Malloc, PyMem_Free

from nncore._kernels cimport Activation, tables
from nncore._tables cimport (
    nncore_float_mode, nncore_flush_subnormals, nncore_kernels, nncore_set_float_mode)

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


cdef struct Layer:
    Py_ssize_t n_prev
    Py_ssize_t n
    Activation activation
    # Offsets in bytes.
    Py_ssize_t W
    Py_ssize_t b


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
        cdef Py_ssize_t l, n_prev, n, W, b
        cdef Activation activation
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
            n_prev, n, activation, W, b = architecture.layers[l]
            self.layers[l] = Layer(n_prev, n, activation, W * self.size, b * self.size)

    def predict(self, X):
        """Return the outputs for X, or None if X does not qualify.

        X must be a finite row-major array of the network's dtype with the right number of columns
        and few rows.
        """
        cdef:
            cnp.ndarray array, outputs
            cnp.npy_intp shape[2]
            const char *A_prev
            const char *parameters = cnp.PyArray_BYTES(self.parameters)
            char *memory
            Py_ssize_t n_rows
            nncore_float_mode mode
        if not cnp.PyArray_CheckExact(X):
            return None
        array = X
        if (
            cnp.PyArray_NDIM(array) != 2 or cnp.PyArray_TYPE(array) != self.type_number
            or not cnp.PyArray_ISCARRAY_RO(array)
        ):
            return None
        n_rows = cnp.PyArray_DIM(array, 0)
        if cnp.PyArray_DIM(array, 1) != self.n_in or n_rows > MOST_ROWS:
            return None
        if n_rows > 2 and cnp.PyArray_NBYTES(self.parameters) > MOST_BYTES:
            return None
        A_prev = cnp.PyArray_BYTES(array)
        if not self.kernels.finite(A_prev, n_rows, self.n_in, self.n_in):
            return None

        shape[0], shape[1] = n_rows, self.n_out
        outputs = cnp.PyArray_EMPTY(2, shape, self.type_number, 0)
        # Layers read from one half and write to the other.
        memory = <char *> PyMem_Malloc(2 * n_rows * self.widest * self.size)
        if memory == NULL:
            raise MemoryError()
        # A session does the same, so the outputs are the same.
        mode = nncore_flush_subnormals()
        if n_rows * cnp.PyArray_SIZE(self.parameters) < LONG_WORK:
            self._run(cnp.PyArray_BYTES(outputs), A_prev, parameters, memory, n_rows)
        else:
            with nogil:
                self._run(cnp.PyArray_BYTES(outputs), A_prev, parameters, memory, n_rows)
        nncore_set_float_mode(mode)
        PyMem_Free(memory)
        return outputs

    cdef void _run(
        self, char *outputs, const char *A_prev, const char *parameters, char *memory,
        Py_ssize_t n_rows,
    ) noexcept nogil:
        cdef:
            Py_ssize_t l
            Layer *layer
            char *A
        for l in range(self.depth):
            layer = &self.layers[l]
            A = outputs
            if l < self.depth - 1:
                A = memory + l % 2 * n_rows * self.widest * self.size
            self.kernels.forward_rows(
                A, A_prev, parameters + layer.W, parameters + layer.b, layer.activation, n_rows,
                layer.n_prev, layer.n)
            A_prev = A
