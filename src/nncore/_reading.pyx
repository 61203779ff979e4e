"""Reading rows of a file, without the GIL and without a mapping."""

from libc.errno cimport errno
from libc.stdint cimport int64_t

cdef extern from "read_at.h" nogil:
    int64_t nncore_read_at(int file, void *out, int64_t size, int64_t offset) noexcept

# The most bytes of consecutive rows to read at a time: stopping waits for them.
cdef enum:
    MOST_BYTES = 1_048_576


def read_rows(
    int file, const int64_t[::1] offsets not None, const Py_ssize_t[::1] places not None,
    unsigned char[:, ::1] out not None, const unsigned char[::1] stop not None,
):
    """Read the row at each offset of a file into the row of `out` at the same index of `places`.

    `stop` is one byte, and ends the reading as soon as it is not 0. Return the number of rows read,
    and the error's number if it is less for another reason than the end of the file.
    """
    cdef:
        Py_ssize_t done
        int error = 0
    with nogil:
        done = _read_rows(file, offsets, places, out, &stop[0], &error)
    return done, error


cdef Py_ssize_t _read_rows(
    int file, const int64_t[::1] offsets, const Py_ssize_t[::1] places, unsigned char[:, ::1] out,
    const volatile unsigned char *stop, int *error,
) noexcept nogil:
    cdef:
        Py_ssize_t i = 0, rows, n = offsets.shape[0]
        int64_t size = out.shape[1], done, got
    while i < n and not stop[0]:
        rows = 1
        while (
            i + rows < n and (rows + 1) * size <= MOST_BYTES
            and offsets[i + rows] == offsets[i] + rows * size
            and places[i + rows] == places[i] + rows
        ):
            rows += 1
        done = 0
        while done < rows * size:
            got = nncore_read_at(
                file, &out[places[i], 0] + done, rows * size - done, offsets[i] + done)
            if got <= 0:
                error[0] = errno if got < 0 else 0
                return i + done // size
            done += got
        i += rows
    return i
