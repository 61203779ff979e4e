"""Reading ahead: a thread prepares the next block of examples while training uses the last one."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

from ._threads import start

__all__ = ["ahead", "rows_of_a_block"]

T = TypeVar("T")

# The bytes of a block, unless one batch has more: small beside the data and, at some milliseconds
# of reading and training, large beside the handover between threads.
_BLOCK_BYTES = 4 << 20

# How many seconds an interruption waits for the thread, which may be in a slow call.
_PATIENCE = 1.0


def rows_of_a_block(row_bytes: int, batch_size: int) -> int:
    """Return the number of rows, a multiple of the batch size, to read at a time."""
    return max(1, _BLOCK_BYTES // max(1, row_bytes * batch_size)) * batch_size


def ahead(items: Generator[T, None, None], stop: bytearray) -> Generator[T, None, None]:
    """Yield the items, each computed by a thread, if there is one, while the one before is in use.

    Each item may overwrite the last but one: two blocks of memory will do.

    Parameters
    ----------
    items : generator
        Started, continued and closed by the thread. What it raises is raised here.
    stop : bytearray of length 1
        Set to 1 when this generator is closed, so that `items` can end at once.
    """
    # True requests an item, False ends the thread.
    requests: SimpleQueue[bool] = SimpleQueue()
    results: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            while requests.get():
                results.put((next(items, None), None))
        except BaseException as error:
            results.put((None, error))
        finally:
            items.close()

    thread = Thread(target=work, name="nncore-reading", daemon=True)
    try:
        requests.put(True)
        if not start(thread):
            yield from items
            return
        while True:
            item, error = results.get()
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # a cycle would keep the blocks
            if item is None:
                return
            requests.put(True)
            yield item
    finally:
        stop[0] = 1
        requests.put(False)
        _join(thread)


def _join(thread: Thread) -> None:
    """Wait for the thread; after an interruption, a second in which it should end."""
    end = time.monotonic() + _PATIENCE
    # An interruption of `start` may leave a thread that is about to run.
    while not thread.is_alive() and thread in threading.enumerate() and time.monotonic() < end:
        time.sleep(1e-4)
    if not thread.is_alive():
        return
    try:
        thread.join()
    except BaseException:
        while thread in threading.enumerate() and time.monotonic() < end:
            time.sleep(1e-4)
        raise
