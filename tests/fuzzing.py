"""Hostile input: what reads files and arguments refuses them with the documented errors, or works.

``python tests/fuzzing.py TARGET RUNS [CORPUS]`` searches with atheris, guided by coverage, if it is
installed, and otherwise mutates the corpus at random; it prints how many inputs it tried. Inputs of
the directory CORPUS are added, and atheris stores there those that reach new code.
"""

import functools
import importlib
import importlib.util
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"

# No input is longer, after mutation.
LONGEST = 8192


@contextmanager
def stored(data: bytes, suffix: str = "") -> Iterator[Path]:
    """Store the data in a file, in memory where the system can."""
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
    path = Path(folder, f"nncore-fuzzing-{os.getpid()}{suffix}")
    try:
        path.write_bytes(data)
        yield path
    finally:
        path.unlink()


def without_checksum(file: Path) -> bytes:
    """Return a stored network without its checksum, which would hide everything behind it."""
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"]["nncore"] = '{"version":1}'
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + content[end:]


# The targets. Whatever they raise is a finding.


def idx(data: bytes) -> None:
    from nncore.datasets import load_idx

    with stored(data) as path, suppress(ValueError):
        load_idx(path)


def network(data: bytes) -> None:
    import nncore

    with stored(data) as path, suppress(ValueError):
        net, optimizer = nncore.load(path, with_optimizer=True)
        with np.errstate(all="ignore"):
            net.predict(np.zeros((3, net.sizes[0])))
        net.save(path, optimizer)


def checkpoint(data: bytes) -> None:
    """Resume the run that wrote the corpus, unless the file is refused."""
    import nncore
    from nncore.callbacks import EarlyStopping

    net, X, Y = interrupted()
    with stored(data) as path, suppress(ValueError, nncore.DivergenceError):
        net.fit(
            X,
            Y,
            epochs=3,
            batch_size=4,
            optimizer=nncore.Adam(),
            seed=0,
            callbacks=[EarlyStopping("loss")],
            resume=path,
        )


@functools.cache
def interrupted() -> Any:
    """Return network and examples of the run, whose parameters come from the file."""
    import nncore

    X, Y = (np.arange(9.0 * n).reshape(9, n) * 37 % 101 / 128 for n in (2, 1))
    return nncore.Network([2, 2, 1], seed=0), X, Y


def onnx(data: bytes) -> None:
    import nncore

    with stored(data) as path, suppress(ValueError):
        nncore.from_onnx(path)


def npy(data: bytes) -> None:
    """Use the file as inputs, targets and weights."""

    net, X, Y = interrupted()
    with stored(data, ".npy") as path:
        for examples in ((path, Y), (X, path), (X, Y, path)):
            with suppress(OSError, TypeError, ValueError):
                net.evaluate(*examples)


def arguments(data: bytes) -> None:
    """Parse a command line, in which a zero separates arguments."""
    words = data.decode(errors="surrogateescape").split("\0")
    with suppress(SystemExit), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        parser().parse_args(words)


@functools.cache
def parser() -> Any:
    from nncore import __main__ as program

    return program._parser()


def steps(data: bytes) -> None:
    """Let the C functions work on shapes, options and numbers that the data choose."""
    from helpers import HIDDEN, OPTIMIZERS, PAIRS, make
    from helpers import data as examples

    import nncore

    seed = int.from_bytes(data[:8], "little")
    rng = np.random.default_rng(seed)
    choices = iter(data[8:])

    def choose(values: Any) -> Any:
        return values[next(choices, 0) % len(values)]

    sizes = [1 + choose(range(70)) for _ in range(choose(range(2, 5)))]
    loss, output = choose(PAIRS)
    dtype = choose(["float32", "float64"])
    hidden = choose(HIDDEN)
    net = make(sizes, hidden, loss, output, dtype=dtype, seed=rng)
    X, Y = examples(net, 1 + choose(range(200)), rng, choose(["float32", "float64", "float16"]))
    X, Y = X[:, :: choose([1, -1])], Y[:: choose([1, -1])]
    if loss == "cross_entropy":
        Y = (Y / Y.sum(axis=1, keepdims=True, dtype="f8")).astype("f8")
    # To start a thread takes longer than everything else.
    n_threads = choose([1] * 14 + [2, 3])
    with np.errstate(all="ignore"), suppress(nncore.DivergenceError):
        net.fit(
            X,
            Y,
            batch_size=1 + choose(range(100)),
            optimizer=choose(list(OPTIMIZERS.values()))(),
            seed=seed,
            dropout=choose([0.0, 0.5]),
            gradient_clipping=choose([None, 1.0]),
            n_threads=n_threads,
        )
        net.predict(X[: choose(range(1, 40))], n_threads=n_threads)
        net.gradient(X, Y, n_threads=n_threads)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (idx, network, checkpoint, onnx, npy, arguments, steps)
}


# The corpus, and mutations of it.


def corpus(name: str, folder: Path | None = None) -> list[bytes]:
    """Return the inputs that a search begins with."""
    folders = [CORPUS / name, *([folder] if folder else [])]
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]
    inputs = [file.read_bytes() for file in files]
    if name == "network":
        inputs += [without_checksum(file) for file in sorted((HERE / "files").iterdir())]
    return inputs


def mutated(data: bytes, inputs: list[bytes], rng: np.random.Generator) -> bytes:
    """Return data that differ in a few places."""
    mutable = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(mutable) + 1))
        n = min(int(rng.geometric(0.2)), 32)
        change = rng.integers(5)
        if change == 0:
            del mutable[at : at + n]
        elif change == 1:
            mutable[at:at] = rng.bytes(n)
        elif change == 2:
            mutable[at : at + 1] = rng.choice([b"\0", b"\1", b"\x7f", b"\x80", b"\xff", b"9", b"-"])
        elif change == 3:
            mutable[at : at + n] = rng.bytes(n)
        else:
            other = inputs[int(rng.integers(len(inputs)))]
            begin = int(rng.integers(len(other) + 1))
            mutable[at : at + n] = other[begin : begin + n]
    return bytes(mutable[:LONGEST])


def mutate(name: str, n_runs: int, seed: int, folder: Path | None = None) -> None:
    """Try the corpus and random mutations of it.

    Raises
    ------
    AssertionError
        A target raised something; the message holds the input.
    """
    rng = np.random.default_rng(seed)
    inputs = corpus(name, folder) or [b""]
    for run in range(max(n_runs, len(inputs))):
        data = inputs[run] if run < len(inputs) else mutated(inputs[run % len(inputs)], inputs, rng)
        try:
            TARGETS[name](data)
        except Exception as error:
            raise AssertionError(f"{name} fails with the input {data!r}") from error


def search(name: str, n_runs: int, folder: Path) -> None:
    """Search with atheris, which exits at the first finding."""
    atheris: Any = importlib.import_module("atheris")
    for number, data in enumerate(corpus(name)):
        (folder / f"seed-{number}").write_bytes(data)
    with atheris.instrument_imports(include=["nncore"]):
        import nncore.__main__
        import nncore.onnx  # noqa: F401
    options = [f"-runs={n_runs}", f"-max_len={LONGEST}", "-print_final_stats=1", "-timeout=600"]
    options.append("-report_slow_units=600")
    atheris.Setup([sys.argv[0], *options, str(folder)], TARGETS[name])
    atheris.Fuzz()


def main(name: str, n_runs: int, folder: Path | None = None) -> None:
    """Try `n_runs` inputs."""
    warnings.simplefilter("ignore")
    begin = time.monotonic()
    if importlib.util.find_spec("atheris"):
        with tempfile.TemporaryDirectory() as temporary:
            search(name, n_runs, folder or Path(temporary))
    else:
        mutate(name, n_runs, int(time.time()), folder)
    print(f"{name}: {n_runs} inputs in {time.monotonic() - begin:.0f} s, no finding")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(Path, sys.argv[3:4]))
