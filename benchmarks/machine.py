"""The machine: its description, its CPUs, its C compiler."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
GIT = ["git", "-C", str(HERE.parent)]


def available_cpus() -> list[int]:
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def describe() -> dict[str, Any]:
    """Describe the processor, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    facts = re.findall(r"^(cpu family|model|model name)\s*: (.*)$", text, re.M)
    return {
        "system": platform.platform(),
        "processor": ", ".join(dict.fromkeys(map(" ".join, facts))) or platform.processor(),
        "cpus": len(available_cpus()),
    }


def circumstances() -> dict[str, Any]:
    """Describe a run, and remove what would make BLAS slower than it is for users."""
    commit = [*GIT, "describe", "--always", "--dirty", "--abbrev=12"]
    results: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": subprocess.run(commit, capture_output=True, text=True).stdout.strip(),
        "machine": describe(),
        "load_average": os.getloadavg()[0],
        "removed_variables": [
            name for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if os.environ.pop(name, None)
        ],
    }
    if results["load_average"] > 0.5:
        say(f"the machine is busy (load {results['load_average']:.1f}): expect noise")
    if results["removed_variables"]:
        say(f"removed from the environment: {', '.join(results['removed_variables'])}")
    return results


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@cache
def load_c(source: str, *flags: str) -> ctypes.CDLL:
    """Compile a C file of this directory with the system's compiler and load it."""
    compiler = [*os.environ.get("CC", "cc").split(), "-O3", "-ffp-contract=fast", *flags]
    with TemporaryDirectory() as directory:
        library = f"{directory}/library.so"
        command = [*compiler, "-shared", "-fPIC", str(HERE / source), "-o", library]
        subprocess.run(command, check=True)
        return ctypes.CDLL(library)
