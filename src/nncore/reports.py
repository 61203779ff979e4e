"""Callbacks that show or record what each epoch led to."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from ._display import duration, number
from ._files import FilePath, as_path, naming
from .history import Callback, EpochEnd, History

__all__ = ["Lines", "Log", "NetworksReport", "Progress", "verbose_callback"]

# The least time between two lines.
_SECONDS_PER_LINE = 0.1


class Log:
    """Write a row for each epoch to a file: the epoch, losses, metrics and seconds.

    Parameters
    ----------
    path : str or path
        A path that ends in ".csv" gets comma-separated values with a header, one that ends in
        ".jsonl" a JSON object per line, in which numbers that are not finite are null.

    Raises
    ------
    TypeError, ValueError
        The path has another suffix, or a file that is not such a log. As a callback: a resumed fit
        has other losses or metrics than the CSV file.
    OSError
        The file could not be read; as a callback: or written.

    Notes
    -----
    The file belongs to one fit: epoch 1 replaces the rows of an earlier one, and a resumed fit
    replaces the rows from its first epoch on. Each row is complete in the file before the next
    epoch begins.

    Examples
    --------
    >>> import nncore, pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "log.csv")
    ...     log = nncore.callbacks.Log(path)
    ...     history = nncore.Network([1, 1], seed=0).fit([[0.0]], [1.0], epochs=2, callbacks=[log])
    ...     header, *rows = path.read_text().splitlines()
    >>> header, len(rows)
    ('epoch,loss,seconds', 2)
    """

    def __init__(self, path: FilePath) -> None:
        self.path = as_path(path)
        suffix = os.path.splitext(self.path)[1]
        if suffix not in (".csv", ".jsonl"):
            raise ValueError(f"path must end in '.csv' or '.jsonl', got {self.path!r}")
        self._is_csv = suffix == ".csv"
        # The epoch of the last row written.
        self._epoch = 0
        with suppress(FileNotFoundError), open(self.path, "rb") as file:
            begin = b"epoch," if self._is_csv else b'{"epoch":'
            if not begin.startswith(found := file.read(len(begin))):
                raise ValueError(f"path must lead to no file or to a log, got {found!r} in {path}")

    def __call__(self, end: EpochEnd) -> None:
        """Write the row of the epoch."""
        row = {"epoch": end.epoch, **end.values, "seconds": end.seconds}
        header, line = self._lines(row)
        if self._epoch != end.epoch - 1 > 0:
            self._keep_rows_before(end.epoch, header)
        self._epoch = -1  # after an error the row may be incomplete
        mode = "a" if end.epoch > 1 else "w"
        with naming(self.path), open(self.path, mode, encoding="utf-8", newline="") as file:
            file.write(line if file.tell() else header + line)
        self._epoch = end.epoch

    def _lines(self, row: dict[str, float]) -> tuple[str, str]:
        """Return the header and a row as text."""
        if not self._is_csv:
            finite = {name: x if math.isfinite(x) else None for name, x in row.items()}
            return "", json.dumps(finite) + "\n"
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(row)
        header = buffer.getvalue()
        writer.writerow(row.values())
        return header, buffer.getvalue()[len(header) :]

    def _keep_rows_before(self, epoch: int, header: str) -> None:
        """Cut the file off before the row of the epoch, or before one that is not complete."""
        with suppress(FileNotFoundError), open(self.path, "r+b") as file:
            size = len(file.readline()) if header else 0
            file.seek(0)
            if size and (found := file.read(size)) != header.encode():
                raise ValueError(
                    f"{self.path} must have the columns {header.rstrip()} to go on with, "
                    f"got {found.decode(errors='replace').rstrip()}"
                )
            for line in file:
                if not self._is_before(line, epoch):
                    break
                size += len(line)
            file.truncate(size)

    def _is_before(self, line: bytes, epoch: int) -> bool:
        """Return whether the line is a complete row of an epoch before this one."""
        try:
            found = int(line.partition(b",")[0]) if self._is_csv else json.loads(line)["epoch"]
        except (KeyError, TypeError, ValueError):
            return False
        return line.endswith(b"\n") and bool(found < epoch)


class Progress:
    """A progress bar over the epochs, with losses, metrics, examples per second and time left.

    It needs tqdm, the extra ``nncore[progress]``. In a notebook it is a widget.

    Parameters
    ----------
    **options
        Of `tqdm.auto.tqdm`, for example ``leave=False``. By default the bar goes to stderr.

    Raises
    ------
    ImportError
        tqdm is not installed.

    Examples
    --------
    >>> import nncore
    >>> bar = nncore.callbacks.Progress(disable=True)
    >>> history = nncore.Network([1, 1], seed=0).fit([[0.0]], [1.0], epochs=2, callbacks=[bar])
    """

    def __init__(self, **options: Any) -> None:
        self._new_bar = _bars(**options)
        self._bar: Any = None

    def __call__(self, end: EpochEnd) -> None:
        """Show the epoch."""
        if self._bar is None or end.epoch == 1:
            self._close()
            self._bar = self._new_bar(total=end.epochs, initial=end.epoch - 1)
            if not self._bar.disable:
                # The first epoch counts for the estimate of the time left.
                self._bar.start_t -= end.seconds
                self._bar.last_print_t = self._bar.start_t
        text = ", ".join(f"{name} {number(value)}" for name, value in end.values.items())
        if end.seconds > 0:
            text += f", {self._bar.format_sizeof(end.n_examples / end.seconds)} examples/s"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update()
        end.when_last(self._close)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _bars(**options: Any) -> Callable[..., Any]:
    """Return what creates a bar of tqdm."""
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError:
        raise ImportError("Progress needs tqdm: pip install nncore[progress]") from None
    layout = "{n_fmt}/{total_fmt} |{bar}| {remaining} left{postfix}"
    return partial(tqdm, **{"bar_format": layout, **options})


class Lines:
    """Print a line after an epoch: at most ten a second, but always for the last epoch.

    Parameters
    ----------
    clock : callable, optional
        Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._due = -math.inf

    def __call__(self, end: EpochEnd) -> None:
        """Print the epoch if it is time."""
        now = self._clock()
        if now < self._due:
            end.when_last(lambda: self._print(end))
            return
        self._due = now + _SECONDS_PER_LINE
        self._print(end)

    @staticmethod
    def _print(end: EpochEnd) -> None:
        width = len(str(end.epochs))
        values = "  ".join(f"{name} {number(x):<9}" for name, x in end.values.items())
        print(
            f"epoch {end.epoch:{width}}/{end.epochs}  {values}  {duration(end.seconds)}", flush=True
        )


class NetworksReport:
    """Show how many of several networks have been trained, in the way of `verbose_callback`.

    Parameters
    ----------
    n : int
        The number of networks.
    clock : callable, optional
        Returns the time in seconds.
    """

    def __init__(self, n: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._n, self._clock = n, clock
        self._done = 0
        self._due = -math.inf
        # Several threads train.
        self._lock = threading.Lock()
        self._bar: Any = None
        if _shows_bars():
            with suppress(ImportError):
                self._bar = _bars(file=sys.stdout)(total=n)

    def add(self, history: History) -> None:
        """Count a network, and show its last loss."""
        with self._lock:
            self._done += 1
            text = f"loss {number(history.loss[-1])}" if history.error is None else "diverged"
            if self._bar is not None:
                self._bar.set_postfix_str(text, refresh=False)
                self._bar.update()
                return
            now = self._clock()
            if now >= self._due or self._done == self._n:
                self._due = now + _SECONDS_PER_LINE
                print(f"network {self._done:{len(str(self._n))}}/{self._n}  {text}", flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def _shows_bars() -> bool:
    """Return whether the output is a terminal or a notebook."""
    output = sys.stdout
    is_notebook = type(output).__module__.startswith("ipykernel.")
    return is_notebook or (output is not None and output.isatty())


def verbose_callback() -> Callback:
    """Return a bar if tqdm is installed and the output is a terminal or notebook, else `Lines`."""
    if _shows_bars():
        with suppress(ImportError):
            return Progress(file=sys.stdout)
    return Lines()
