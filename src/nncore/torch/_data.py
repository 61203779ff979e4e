"""Examples from tensors, arrays and datasets, in the order of PyTorch's DataLoader."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, TensorDataset, default_collate

from ..training import ArrayData, Pieces
from ._losses import Problem

__all__ = ["BatchData", "as_arrays", "order_of_epoch"]

Array = npt.NDArray[Any]
Order = npt.NDArray[np.intp]


class BatchData(ArrayData):
    """The examples of a problem, of which each batch has a factor of its own.

    Parameters
    ----------
    problem : Problem
    n : int
        How many examples an epoch has.
    """

    def __init__(self, problem: Problem, n: int) -> None:
        super().__init__(problem.examples)
        self.n = n
        self._problem = problem

    def pieces(self, order: Order | None, batch_size: int, begin: int) -> Pieces:
        scales = self._problem.scales(order, self.n, batch_size)[begin // batch_size :]
        for piece in super().pieces(order, batch_size, begin):
            yield piece._replace(scales=scales)


def order_of_epoch(n: int, generator: torch.Generator | None, *, shuffle: bool) -> Order | None:
    """Return an epoch's order, and draw all that a DataLoader draws for it.

    A DataLoader draws a seed for its workers, which it does not have. Its RandomSampler draws a
    seed if it has no generator, and then two permutations, of which it uses the first.
    """
    torch.empty((), dtype=torch.int64).random_(generator=generator)
    if not shuffle:
        return None
    if generator is None:
        seed = int(torch.empty((), dtype=torch.int64).random_().item())
        generator = torch.Generator()
        generator.manual_seed(seed)
    order: Array = torch.randperm(n, generator=generator).numpy()
    torch.randperm(n, generator=generator)
    return order.astype(np.intp, copy=False)


def as_arrays(
    X: Any, y: Any, dtype: torch.dtype, *, flattens: bool, target_dims: int | None, name: str = ""
) -> tuple[Array, Array]:
    """Return inputs as rows, and targets, without copies of tensors.

    Parameters
    ----------
    X : tensor, array_like or Dataset
    y : tensor, array_like or None
        None for a dataset.
    dtype : torch.dtype
        Of the module. Arrays are converted.
    flattens : bool
        Whether the module flattens its inputs.
    target_dims : int or None
        How many dimensions the targets must have: as many as the outputs, or None for any.
    name : str, default ""
        What precedes "X" and "y" in messages.

    Raises
    ------
    TypeError, ValueError
        X or y is of another type, on another device, or requires gradients.
    """
    if isinstance(X, Dataset):
        if y is not None:
            raise ValueError(f"{name}y must be None with a dataset as {name}X")
        X, y = _collated(X, name)
    elif y is None:
        raise ValueError(f"{name}y must be given unless {name}X is a dataset, got None")
    inputs = _as_array(f"{name}X", X, dtype)
    if flattens and inputs.ndim > 2:
        inputs = inputs.reshape(len(inputs), -1)
    targets = _as_array(f"{name}y", y, dtype)
    if target_dims is not None and targets.ndim != target_dims:
        shape = "(n_samples,)" if target_dims == 1 else "(n_samples, n_outputs)"
        raise ValueError(
            f"{name}y must have shape {shape} like the outputs of module, got {targets.shape}"
        )
    return inputs, targets


def _collated(dataset: Dataset[Any], name: str) -> tuple[Any, Any]:
    """Return the inputs and the targets of a dataset as two tensors."""
    if isinstance(dataset, TensorDataset):
        pair = dataset.tensors
    elif hasattr(dataset, "__len__"):
        pair = default_collate([dataset[i] for i in range(len(dataset))])
    else:
        raise TypeError(f"{name}X must be a dataset with a length, got {type(dataset).__name__}")
    if len(pair) != 2:
        raise ValueError(f"{name}X must be a dataset of pairs (inputs, target), got {len(pair)}")
    return pair[0], pair[1]


def _as_array(name: str, value: Any, dtype: torch.dtype) -> Array:
    if not isinstance(value, torch.Tensor):
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(getattr(np, str(dtype).removeprefix("torch.")), copy=False)
        return array
    if value.requires_grad:
        raise ValueError(f"{name} must not require gradients: pass {name}.detach()")
    if value.device.type != "cpu" or value.layout != torch.strided:
        raise ValueError(
            f"{name} must be a dense tensor on the CPU, got {value.layout} on {value.device}"
        )
    if value.is_floating_point() and value.dtype != dtype:
        raise ValueError(f"{name} must have the dtype of module, {dtype}, got {value.dtype}")
    return np.asarray(value.numpy())
