/* Reading from a place in a file, which other threads may do with the same file at the same time.
 */

#ifndef NNCORE_READ_AT_H
#define NNCORE_READ_AT_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

/* Return how many bytes were read, at most 2^30: 0 at the end of the file, -1 with errno set on an
   error. Unlike a mapping of the file, it never raises a signal. */
#if defined(_WIN32)
#include <io.h>
#include <windows.h>
static inline int64_t nncore_read_at(int file, void *out, int64_t size, int64_t offset) {
    OVERLAPPED place = {.Offset = (DWORD)offset, .OffsetHigh = (DWORD)(offset >> 32)};
    DWORD done = 0;
    if (ReadFile((HANDLE)_get_osfhandle(file), out, (DWORD)(size < 1 << 30 ? size : 1 << 30), &done,
                 &place) ||
        GetLastError() == ERROR_HANDLE_EOF)
        return done;
    errno = EIO;
    return -1;
}
#else
#include <unistd.h>
static inline int64_t nncore_read_at(int file, void *out, int64_t size, int64_t offset) {
    int64_t done;
    do
        done = pread(file, out, (size_t)(size < 1 << 30 ? size : 1 << 30), (off_t)offset);
    while (done < 0 && errno == EINTR);
    return done;
}
#endif

#endif
