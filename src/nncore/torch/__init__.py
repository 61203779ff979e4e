"""PyTorch modules, trained in place by nncore: ``pip install 'nncore[torch]'``.

`fit` replaces the loop over epochs and batches of a script that trains a ``torch.nn.Sequential``.
`network` returns a `nncore.Network` with a module's parameters, `Network.to_torch` goes back.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("nncore.torch needs PyTorch: pip install 'nncore[torch]'") from error

from ._fit import fit
from ._modules import network, to_torch

__all__ = ["fit", "network", "to_torch"]
