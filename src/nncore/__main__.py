"""The command ``nncore``, also ``python -m nncore``: a demo, a report and a self-test."""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn, TextIO

import numpy as np
import numpy.typing as npt
import scipy
import threadpoolctl

from nncore import SGD, DivergenceError, EpochEnd, Network, selftest
from nncore._caches import l2_bytes
from nncore._kernels import COMPILER, KERNELS, STABLE_ABI, available
from nncore._threads import available_threads
from nncore.datasets import load_digits, load_mnist

__all__ = ["main"]

Floats = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.int64]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; by default those of the process.

    Returns
    -------
    int
        0 on success, 1 if the self-test fails, 2 without a command or if the output cannot be
        written, 130 after Ctrl-C, 141 after a broken pipe.

    Raises
    ------
    SystemExit
        With status 2 and one line on standard error if arguments or data are invalid, with status
        0 after ``--help`` or ``--version``.
    """
    if sys.stdout is None:
        print("nncore: error: standard output is closed", file=sys.stderr)
        return 2
    output: Any = _Output(sys.stdout)
    try:
        try:
            with redirect_stdout(output):
                parser = _parser()
                arguments = parser.parse_args(argv)
                if "run" not in arguments:
                    parser.print_help(sys.stderr)
                    return 2
                status: int = arguments.run(arguments)
        finally:
            output.flush()
    except KeyboardInterrupt:
        print("nncore: interrupted", file=sys.stderr)
        return 130
    except _OutputError as error:
        # Otherwise Python's flush at exit would raise the error again.
        with suppress(AttributeError, OSError):  # an output in memory has no descriptor
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error.__cause__, BrokenPipeError):
            return 141
        print(f"nncore: error: the output cannot be written: {error}", file=sys.stderr)
        return 2
    return status


class _OutputError(Exception):
    """Standard output raised OSError."""


class _Output:
    """Standard output, with errors of its own: a command may raise OSError for other reasons."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise _OutputError(error) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise _OutputError(error) from error


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(prog="nncore", description="Train neural networks fast on a CPU.")
    parser.add_argument("--version", action="version", version=f"nncore {version('nncore')}")
    commands = parser.add_subparsers(metavar="{demo,info,selftest}")

    demo = commands.add_parser(
        "demo",
        help="train a network on handwritten digits",
        description="Train a network on handwritten digits, with sigmoid units, squared error and "
        "mini-batch gradient descent.",
    )
    option = demo.add_argument
    option(
        "--data",
        metavar="DIRECTORY",
        type=Path,
        help="directory of MNIST's IDX files; by default the digits in the package",
    )
    option(
        "--hidden",
        metavar="UNITS",
        type=_integer(1),
        nargs="+",
        default=[30],
        help="units of each hidden layer (default: 30)",
    )
    option(
        "--epochs",
        metavar="N",
        type=_integer(1),
        default=30,
        help="passes over the training examples (default: %(default)s)",
    )
    option(
        "--batch-size",
        metavar="N",
        type=_integer(1),
        default=10,
        help="examples per step (default: %(default)s)",
    )
    option(
        "--learning-rate",
        metavar="RATE",
        type=_positive_number,
        default=3.0,
        help="default: %(default)s",
    )
    option(
        "--seed",
        metavar="N",
        type=_integer(0),
        default=0,
        help="seed of the split, the initial weights and the shuffling (default: %(default)s)",
    )
    option(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="default: %(default)s",
    )
    demo.set_defaults(run=_demo, error=demo.error)

    info = commands.add_parser(
        "info",
        help="print versions, the build, and what was chosen for this machine",
        description="Print what to include in a benchmark or a bug report.",
    )
    info.set_defaults(run=_info)

    test = commands.add_parser(
        "selftest",
        help="check the numerical core on this machine",
        description="Compare the compiled code with its specification and with what nncore "
        "promises, in about half a minute.",
    )
    test.set_defaults(run=_selftest)
    return parser


def _integer(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(
                f"got {text!r}, expected an integer of at least {minimum}"
            )
        return value

    return parse


def _positive_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a finite number above 0")
    return value


# nncore demo


def _demo(arguments: argparse.Namespace) -> int:
    try:
        (X, labels), (X_test, labels_test) = (
            _split_digits(arguments.seed) if arguments.data is None else load_mnist(arguments.data)
        )
    except (OSError, ValueError) as error:
        arguments.error(str(error))

    n_classes = 10
    sizes = [X.shape[1], *arguments.hidden, n_classes]
    optimizer = SGD(learning_rate=arguments.learning_rate)

    def report(end: EpochEnd) -> None:
        accuracy = np.mean(end.network.predict(X_test).argmax(axis=1) == labels_test)
        print(
            f"epoch {end.epoch:{len(str(arguments.epochs))}}/{arguments.epochs}"
            f"  loss {end.loss:.4f}  test accuracy {accuracy:.4f}",
            flush=True,
        )

    try:
        network = Network(
            sizes,
            activation="sigmoid",
            output_activation="sigmoid",
            loss="squared_error",
            dtype=arguments.dtype,
            init="glorot_uniform",
            seed=arguments.seed,
        )
        print(
            f"{'-'.join(map(str, sizes))} network of sigmoid units, {arguments.dtype}\n"
            f"squared error, gradient descent with batches of {arguments.batch_size}, "
            f"learning rate {arguments.learning_rate:g}\n"
            f"{len(X)} training examples, {len(X_test)} test examples\n",
            flush=True,
        )
        history = network.fit(
            X,
            np.eye(n_classes, dtype=arguments.dtype)[labels],
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            optimizer=optimizer,
            seed=arguments.seed,
            callbacks=[report],
        )
    except (DivergenceError, MemoryError, OverflowError, ValueError) as error:
        arguments.error(str(error))

    outputs = network.predict(X_test)
    answers = outputs.argmax(axis=1)
    wrong = np.flatnonzero(answers != labels_test)
    print(
        f"\ntest accuracy {np.mean(answers == labels_test):.4f}"
        f" ({len(wrong)} of {len(X_test)} wrong)"
        f"\n{arguments.epochs * len(X) / sum(history.seconds):,.0f} examples per second"
    )
    _print_digits("The first test digits:", X_test, answers, labels_test, np.arange(len(X_test)))
    _print_digits("The first mistakes:", X_test, answers, labels_test, wrong)
    return 0


def _split_digits(seed: int) -> tuple[tuple[Floats, Labels], tuple[Floats, Labels]]:
    images, labels = load_digits()
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = order[:-360], order[-360:]
    return (images[train], labels[train]), (images[test], labels[test])


_PICTURE_ROWS, _PICTURE_COLUMNS, _PICTURE_GAP = 8, 16, 4


def _print_digits(
    title: str, X: Floats, answers: Labels, labels: Labels, which: npt.NDArray[np.intp]
) -> None:
    """Draw as many of the images `which` as fit side by side in the terminal."""
    side = math.isqrt(X.shape[1])
    width = shutil.get_terminal_size().columns
    which = which[: max(1, (width + _PICTURE_GAP) // (_PICTURE_COLUMNS + _PICTURE_GAP))]
    if side * side != X.shape[1] or len(which) == 0:
        return
    captions = [
        f"{answers[i]}" if answers[i] == labels[i] else f"{answers[i]}, correct: {labels[i]}"
        for i in which
    ]
    print(f"\n{title}\n")
    for cells in [*zip(*_pictures(X[which].reshape(-1, side, side)), strict=True), captions]:
        print((" " * _PICTURE_GAP).join(f"{cell:<{_PICTURE_COLUMNS}}" for cell in cells).rstrip())


def _pictures(images: Floats) -> list[list[str]]:
    """Return each square image as lines of text."""
    shades = " ░▒▓█"
    try:
        shades.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        shades = " .:+#"
    # Crop the empty frame of MNIST's digits.
    side = images.shape[1]
    ink_at = np.argwhere(images.any(axis=0))
    frame = min(ink_at.min(), side - 1 - ink_at.max()) if ink_at.size else 0
    images = images[:, frame : side - frame, frame : side - frame]

    side = images.shape[1]
    ink = _averages(_PICTURE_ROWS, side) @ images @ _averages(_PICTURE_COLUMNS, side).T
    levels = np.rint(ink * (len(shades) - 1)).astype(int)
    return [["".join(shades[level] for level in row) for row in picture] for picture in levels]


def _averages(n_cells: int, n_pixels: int) -> Floats:
    """Return the n_cells x n_pixels matrix that averages pixels over cells of equal width."""
    edges = np.linspace(0, n_pixels, n_cells + 1)[:, None]
    pixels = np.arange(n_pixels)
    overlaps = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return overlaps.clip(min=0) * n_cells / n_pixels


# nncore info

# The vector instructions that OpenBLAS uses on x86, from old to new, and the values of
# OPENBLAS_CORETYPE that select kernels for each.
_VECTORS = ("SSE", "AVX", "AVX2", "AVX-512")
_KERNELS = {
    "SSE": "katmai coppermine northwood banias prescott core2 penryn dunnington nehalem atom nano "
    "athlon opteron opteron_sse3 barcelona bobcat",
    "AVX": "sandybridge bulldozer piledriver steamroller",
    "AVX2": "excavator haswell zen",
    "AVX-512": "skylakex cooperlake sapphirerapids",
}
_VARIABLES = (
    "NNCORE_KERNELS",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
)


def _info(_: argparse.Namespace) -> int:
    cpu, features = _cpu()
    blas = _scipy_blas()
    settings = [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    facts = {
        "nncore": version("nncore"),
        "build": f"{COMPILER}, {_python_interface()}",
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "NumPy": np.__version__,
        "SciPy": scipy.__version__,
        "threadpoolctl": version("threadpoolctl"),
        "safetensors": _version("safetensors"),
        "BLAS": "not recognised by threadpoolctl",
        "CPU": cpu,
        "CPU features": " ".join(filter(_ARITHMETIC.match, features)) or "unknown",
        "CPU threads": f"{os.cpu_count()}, {available_threads()} of them usable by this process",
        "caches": f"blocks for an L2 cache of {l2_bytes() >> 10} KiB",
        "kernels": f"{KERNELS}, {_reason()}; available: {', '.join(available())}",
        "environment": " ".join(settings) or "no variables that affect kernels or threads",
    }
    if blas is not None:
        facts["BLAS"] = (
            f"{blas['internal_api']} {blas['version']}, kernels {blas.get('architecture')}, "
            f"{blas['num_threads']} threads, {blas['filepath']}"
        )
    for name, fact in facts.items():
        print(f"{name:<14} {fact}")
    warning = _coretype_warning(os.environ.get("OPENBLAS_CORETYPE"), blas, features)
    if warning:
        print(f"\nwarning: {warning}")
    return 0


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _python_interface() -> str:
    if STABLE_ABI:
        return "stable ABI of Python"
    return f"for {sysconfig.get_config_var('SOABI') or platform.python_implementation()}"


def _reason() -> str:
    if os.environ.get("NNCORE_KERNELS"):
        return "set by NNCORE_KERNELS"
    return "the widest vectors of this CPU that nncore knows"


def _scipy_blas() -> dict[str, Any] | None:
    """Return threadpoolctl's entry for the BLAS that scipy.linalg.cython_blas calls."""
    libraries = [lib for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]

    def bundled_with(module: Any) -> list[dict[str, Any]]:
        # A wheel contains its BLAS, in the package or in a directory next to it.
        package = Path(module.__file__).resolve().parent
        places = (package, package.with_name(f"{package.name}.libs"))
        return [
            library
            for library in libraries
            if any(Path(library["filepath"]).resolve().is_relative_to(place) for place in places)
        ]

    numpys = bundled_with(np)
    others = [library for library in libraries if library not in numpys]
    return next(iter(bundled_with(scipy) or others), None)


# The CPU features that concern floating-point vectors, as /proc/cpuinfo and NumPy name them.
_ARITHMETIC = re.compile(r"sse4|avx|fma|f16c|amx|neon|asimd|sve|sme\d?$|vsx|vxe?2?$|rvv|lsx")


def _cpu() -> tuple[str, list[str]]:
    """Return the CPU's name and the names of its features, as far as they are known."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    cpuinfo: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        cpuinfo.setdefault(key.strip().lower(), value.strip())
    name = cpuinfo.get("model name") or platform.processor() or platform.machine()
    features = cpuinfo.get("flags") or cpuinfo.get("features")
    if features is None:
        # Not public, but numpy.show_runtime prints it, and other systems have no other source.
        module = sys.modules.get("numpy._core._multiarray_umath")
        found: dict[str, bool] = getattr(module, "__cpu_features__", {})
        features = " ".join(feature.lower() for feature, present in found.items() if present)
    return name, features.split()


def _coretype_warning(
    coretype: str | None, blas: dict[str, Any] | None, features: Sequence[str]
) -> str | None:
    """Return a warning if OPENBLAS_CORETYPE forces older kernels than the CPU supports."""
    if not coretype or blas is None or blas["internal_api"] != "openblas":
        return None
    # Like OpenBLAS, which requires avx512vl, since its kernels need more than avx512f.
    names = {"avx": "AVX", "avx2": "AVX2", "avx512vl": "AVX-512"}
    best = max((names[f] for f in features if f in names), key=_VECTORS.index, default="SSE")
    chosen = str(blas.get("architecture"))
    for vectors, kernels in _KERNELS.items():
        if chosen.lower() in kernels.split() and _VECTORS.index(vectors) < _VECTORS.index(best):
            return (
                f"OPENBLAS_CORETYPE={coretype} makes BLAS use its {chosen} kernels ({vectors}), "
                f"but this CPU supports {best}: unset it for full speed"
            )
    return None


# nncore selftest


def _selftest(_: argparse.Namespace) -> int:
    print(f"nncore {version('nncore')}, kernels {KERNELS}, {COMPILER}\n", flush=True)
    began = time.perf_counter()
    passed = selftest.run()
    seconds = time.perf_counter() - began
    if passed:
        print(f"\nall checks passed in {seconds:.0f} s")
    else:
        print("\nsome checks failed: please report them with the output of `nncore info`")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
