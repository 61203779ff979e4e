"""Numbers, durations and tables for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["as_table", "duration", "number"]

_UNITS = {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6}


def number(value: float) -> str:
    """Return a number with four significant digits.

    >>> number(0.12345), number(98765.0), number(1234.5)
    ('0.1235', '9.876e+04', '1234')
    """
    return f"{value:#.4g}".removesuffix(".")


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it, with three significant digits.

    >>> duration(0.0123), duration(5.0), duration(200.0)
    ('12.3 ms', '5.00 s', '3.33 min')
    """
    unit = next((unit for unit, size in _UNITS.items() if seconds >= size), "µs")
    count = seconds / _UNITS[unit]
    decimals = 2 if count < 10 else 1 if count < 100 else 0
    return f"{count:.{decimals}f} {unit}"


def as_table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows of equally many cells as lines with columns that are aligned to the right.

    >>> print(as_table([["epoch", "loss"], ["1", "0.5000"]]))
      epoch    loss
          1  0.5000
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in zip(*columns, strict=True)
    )
