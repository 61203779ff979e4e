"""What the machine can do: its description, its peak, and a training step's gemm calls alone."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cases import Array, Case

HERE = Path(__file__).resolve().parent


class UnavailableError(RuntimeError):
    """Something the measurement can do without is not there; the message says what."""


@contextmanager
def pinned(cpus: Sequence[int]) -> Iterator[None]:
    """Let processes started inside inherit an affinity mask, where the system has such masks."""
    if sys.platform != "linux":
        yield
        return
    mask = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mask)


def available_cpus() -> list[int]:
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def compile_c(source: str, target: Path, *flags: str) -> Path:
    """Compile a C file of this directory with the system's compiler."""
    compiler = os.environ.get("CC", "cc").split()
    if shutil.which(compiler[0]) is None:
        raise UnavailableError(f"no C compiler ({compiler[0]}) for {source}")
    command = [*compiler, "-O3", "-ffp-contract=fast", *flags, str(HERE / source), "-o"]
    result = subprocess.run([*command, str(target)], capture_output=True, text=True)
    if result.returncode:
        raise UnavailableError(
            f"{source} does not compile: {result.stderr.strip().splitlines()[-1]}"
        )
    return target


class PeakMeter:
    """The fused-multiply-add peak of some CPUs, by one process each, all at the same time.

    It is that of the kernels that nncore is told to use, else of the widest vectors.
    """

    def __init__(self, program: Path, cpus: Sequence[int], kernels: str | None) -> None:
        self.processes = []
        self.instruction_set = ""
        for cpu in cpus:
            with pinned([cpu]):
                self.processes.append(
                    subprocess.Popen(
                        [program, *([kernels] if kernels is not None else [])],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                        start_new_session=True,
                    )
                )

    def sample(self, dtype: str, seconds: float) -> float:
        """Return operations per second."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{dtype} {seconds}\n")
            process.stdin.flush()
        total = 0.0
        for process in self.processes:
            assert process.stdout is not None
            gflops, self.instruction_set = process.stdout.readline().split()
            total += 1e9 * float(gflops)
        return total

    def close(self) -> None:
        for process in self.processes:
            process.communicate()


class _Product(ctypes.Structure):
    """Mirrors ``struct product``."""

    _fields_ = (
        ("trans_a", ctypes.c_char),
        ("trans_b", ctypes.c_char),
        *((name, ctypes.c_int) for name in ("m", "n", "k", "lda", "ldb", "ldc")),
        *((name, ctypes.c_void_p) for name in ("alpha", "a", "b", "beta", "c")),
    )


def _scipy_gemm(dtype: str) -> int:
    """Return the address of the gemm that SciPy hands to compiled code."""
    from scipy.linalg import cython_blas

    capsule = cython_blas.__pyx_capi__[{"float32": "sgemm", "float64": "dgemm"}[dtype]]
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    signature: bytes = get_name(capsule)
    if signature.count(b"int *") != 6:
        raise UnavailableError(f"SciPy's gemm does not take 32-bit integers: {signature.decode()}")
    address: int = get_pointer(capsule, signature)
    return address


class GemmSequence:
    """The products of one training step, through SciPy's BLAS, in the step's order."""

    def __init__(self, library: str, case: Case) -> None:
        self._run = ctypes.CDLL(library).run_products
        self._gemm = ctypes.c_void_p(_scipy_gemm(case.dtype))
        rng = np.random.default_rng(2)
        N, sizes = case.batch_size, case.sizes
        self._arrays: list[Array] = []
        zero, one = self._keep(np.zeros(1, case.dtype)), self._keep(np.ones(1, case.dtype))
        # So small a step leaves the weights where they are, however often it is made.
        step = self._keep(np.full(1, -1e-20, case.dtype))

        def random(*shape: int, scale: float = 1.0) -> int:
            return self._keep((scale * rng.random(shape)).astype(case.dtype))

        A = [random(N, n) for n in sizes]
        delta = [random(N, n) for n in sizes]
        # Every product stays of the order of 1, without an activation that would bound it.
        W = [random(n, m, scale=2 / max(n, m)) for n, m in case.shapes]
        if case.optimizer == "sgd":
            gradient, alpha, beta = W, step, one
        else:
            gradient = [random(n, m) for n, m in case.shapes]
            alpha, beta = one, zero

        products = []
        for layer, (n, m) in enumerate(case.shapes):
            w, a, z = W[layer], A[layer], A[layer + 1]
            products.append(_Product(b"N", b"N", m, N, n, m, n, m, one, w, a, zero, z))
        for layer in reversed(range(len(W))):
            n, m = case.shapes[layer]
            w, a, d, g = W[layer], A[layer], delta[layer + 1], gradient[layer]
            if layer > 0:
                d_below = delta[layer]
                products.append(_Product(b"T", b"N", n, N, m, m, m, n, one, w, d, zero, d_below))
            products.append(_Product(b"N", b"T", m, n, N, m, n, m, alpha, d, a, beta, g))
        self._products = (_Product * len(products))(*products)

    def _keep(self, array: Array) -> int:
        self._arrays.append(array)
        return array.ctypes.data

    def calibrate(self, seconds: float) -> None:
        """Warm up and choose the steps that take about so many seconds."""
        self.steps = 1
        self.seconds_per_step()
        while (elapsed := self.seconds_per_step() * self.steps) < seconds / 4:
            self.steps *= 4
        self.steps = max(1, round(self.steps * seconds / elapsed))

    def seconds_per_step(self) -> float:
        n_products, steps = ctypes.c_int(len(self._products)), ctypes.c_long(self.steps)
        start = time.perf_counter()
        self._run(self._gemm, self._products, n_products, steps)
        return (time.perf_counter() - start) / self.steps


def describe() -> dict[str, Any]:
    """Describe the processor, as far as the system tells."""
    description: dict[str, Any] = {
        "system": platform.platform(),
        "architecture": platform.machine(),
        "processor": platform.processor(),
        "cpus": len(available_cpus()),
    }
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields: dict[str, str] = {}
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
        description["processor"] = fields.get("model name", description["processor"])
        flags = set(fields.get("flags", fields.get("Features", "")).split())
        wanted = ("fma", "avx2", "avx512f", "avx512bw", "avx512vl", "asimd", "sve")
        description["features"] = [flag for flag in wanted if flag in flags]
        description["family"] = {
            name: fields[name] for name in ("cpu family", "model", "stepping") if name in fields
        }
    return description
