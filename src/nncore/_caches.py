"""The processor's caches, for the choice of block sizes. Results do not depend on them."""

from __future__ import annotations

import functools
from pathlib import Path

__all__ = ["l2_bytes"]

# The smallest L2 cache of processors with AVX-512.
_USUAL_L2 = 1 << 20


@functools.cache
def l2_bytes() -> int:
    """Return the size of a core's L2 cache, 1 MiB if the system does not say."""
    directory = Path("/sys/devices/system/cpu/cpu0/cache/index2")
    try:
        if (directory / "level").read_text().strip() != "2":
            return _USUAL_L2
        size = (directory / "size").read_text().strip()
        return int(size.removesuffix("K")) << 10
    except (OSError, ValueError):
        return _USUAL_L2
