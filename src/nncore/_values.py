"""Python values as JSON and tensors, for files, and back.

What JSON lacks becomes an object with a single key, a tag that begins with $.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from .schedules import SCHEDULES, Schedule

__all__ = ["decode", "encode"]

Array = npt.NDArray[Any]
Tensors = dict[str, Array]

_CODE_POINTS = 0x110000

# How often Python may compare keys of the same hash, each with all others: files could be full of
# them. Per key, so that ordinary keys that share a few hashes, such as powers of 2, take linear
# time; and at least as often as takes some milliseconds.
_COMPARISONS_PER_KEY = 16
_COMPARISONS = 2**20


def encode(name: str, value: object, tensors: Tensors) -> Any:
    """Return a value as JSON, and add its arrays to `tensors`, under names that begin with `name`.

    Parameters
    ----------
    name : str
        What the value is, also for messages.
    value : object
        None, numbers, strings, arrays of these, schedules, and lists, tuples and dicts of all
        these. Scalars of NumPy become Python's.
    tensors : dict of str to ndarray

    Raises
    ------
    TypeError
        The value holds something else.
    """
    if isinstance(value, np.ndarray):
        return _encode_array(name, value, tensors)
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, (list, tuple)):
        items = [encode(f"{name}.{i}", item, tensors) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: encode(f"{name}.{key}", item, tensors) for key, item in value.items()}
        # Labels, for example, are keys of other types.
        return {"$dict": encode(name, [list(item) for item in value.items()], tensors)}
    kind = type(value)
    if isinstance(value, Schedule) and SCHEDULES.get(kind.__name__) is kind:
        return {"$schedule": [kind.__name__, dataclasses.asdict(value)]}
    raise TypeError(
        f"{name} must hold numbers, strings, arrays of them, schedules of nncore.schedules, or "
        f"lists, tuples and dicts, to be stored in a file, got {value!r}"
    )


def _encode_array(name: str, array: Array, tensors: Tensors) -> Any:
    kind = array.dtype.kind
    while name in tensors:  # keys with dots may give the same name twice
        name += "_"
    if kind == "O":
        for item in array.flat:
            if not isinstance(item, str):
                raise TypeError(
                    f"{name} must hold numbers or strings to be stored in a file, got the object "
                    f"{item!r}"
                )
        return {"$strings": [list(array.shape), array.reshape(-1).tolist()]}
    if kind == "U":
        codes = np.array(array, array.dtype.newbyteorder("="), order="C", ndmin=1)
        tensors[name] = codes.view(np.uint32).reshape(*array.shape, codes.itemsize // 4)
        return {"$text": name}
    if kind not in "biuf" or array.itemsize > 8:
        raise TypeError(
            f"{name} must hold numbers or strings to be stored in a file, got dtype {array.dtype}"
        )
    tensors[name] = array
    return {"$array": name}


def decode(value: Any, tensors: Tensors) -> Any:
    """Return the value that `encode` turned into JSON, and remove its arrays from `tensors`.

    Raises
    ------
    LookupError, TypeError, ValueError
        `encode` does not return such JSON and tensors.
    """
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    tag: str = next(iter(value), "")
    if not tag.startswith("$"):
        return {key: decode(item, tensors) for key, item in value.items()}
    content: Any = value[tag]
    if tag == "$float":
        return float(content)
    if tag == "$tuple":
        return tuple(decode(content, tensors))
    if tag == "$dict":
        items = decode(content, tensors)
        hashes = Counter(hash(key) for key, _ in items)
        comparisons = sum(count * count for count in hashes.values())
        if comparisons > _COMPARISONS_PER_KEY * len(items) + _COMPARISONS:
            raise ValueError("too many keys have the same hash")
        return dict(items)
    if tag == "$schedule":
        name, parameters = content
        return SCHEDULES[name](**parameters)
    if tag == "$strings":
        shape, strings = content
        array = np.empty(len(strings), dtype=object)
        array[:] = [_as_string(string) for string in strings]
        return array.reshape(shape)
    if tag == "$text":
        codes = np.ascontiguousarray(tensors.pop(content))
        if codes.dtype != np.uint32 or (codes >= _CODE_POINTS).any():
            raise ValueError(f"{content} does not hold text")
        return codes.view(f"=U{codes.shape[-1]}").reshape(codes.shape[:-1])
    if tag == "$array":
        array = tensors.pop(content)
        # A bool is 0 or 1 in memory.
        return (array.view(np.uint8) != 0) if array.dtype == bool else array.copy()
    raise ValueError(f"the tag {tag!r} is unknown")


def _as_string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a string was expected, got {value!r}")
    return value
