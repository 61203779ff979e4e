from __future__ import annotations

import errno
import gzip
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
import threadpoolctl

import nncore
from nncore import __main__ as program
from nncore import _kernels
from nncore.__main__ import main

needs_mnist = pytest.mark.skipif(
    "NNCORE_MNIST" not in os.environ,
    reason="NNCORE_MNIST must name a directory with MNIST's 10,000 test digits",
)
needs_posix = pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")

Run = Callable[..., tuple[int, str, str]]

# Python's handler of Ctrl-C, which a background process does not inherit.
START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from nncore.__main__ import main; sys.exit(main())"
)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call main and return the exit status, the output and the errors."""

    def call(*argv: str) -> tuple[int, str, str]:
        try:
            status: Any = main(argv)
        except SystemExit as leave:
            status = leave.code
        return status, *capsys.readouterr()

    return call


def accuracy(out: str) -> float:
    found = re.search(r"^test accuracy (\S+)", out, re.MULTILINE)
    assert found
    return float(found[1])


def write_digits(directory: Path, n: int = 20, side: int = 28) -> None:
    rng = np.random.default_rng(0)
    images = bytes([0, 0, 8, 3]) + np.array([n, side, side], ">u4").tobytes()
    images += rng.integers(0, 256, n * side * side, dtype=np.uint8).tobytes()
    labels = bytes([0, 0, 8, 1]) + np.array([n], ">u4").tobytes()
    labels += rng.integers(0, 10, n, dtype=np.uint8).tobytes()
    (directory / "images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (directory / "labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


# nncore demo


def test_demo_reaches_0_965_on_the_digits_in_the_package(run: Run) -> None:
    status, out, err = run("demo")
    assert (status, err) == (0, "")
    assert accuracy(out) >= 0.965
    assert len(re.findall(r"^epoch .*$", out, re.MULTILINE)) == 30


@needs_mnist
def test_demo_reaches_0_93_on_mnist(run: Run) -> None:
    status, out, err = run("demo", "--data", os.environ["NNCORE_MNIST"])
    assert (status, err) == (0, "")
    assert "784-30-10" in out
    assert "8000 training examples, 2000 test examples" in out
    assert accuracy(out) >= 0.93


def test_demo_prints_each_epoch_then_accuracy_speed_and_pictures(run: Run) -> None:
    status, out, err = run("demo", "--epochs", "3")
    assert (status, err) == (0, "")
    assert out.startswith("64-30-10 network")
    assert "1437 training examples, 360 test examples" in out
    order = ["epoch 1/3", "epoch 2/3", "epoch 3/3", "\ntest accuracy ", " examples per second"]
    places = [out.index(part) for part in [*order, "The first test digits", "The first mistakes"]]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--hidden", "20"], "64-20-10 network"),
        (["--hidden", "20", "15"], "64-20-15-10 network"),
        (["--batch-size", "7"], "batches of 7"),
        (["--batch-size", "5000"], "batches of 5000"),
        (["--learning-rate", "0.5"], "learning rate 0.5"),
        (["--dtype", "float64"], "float64"),
        (["--seed", "12"], "test accuracy"),
    ],
)
def test_demo_takes_options(run: Run, options: list[str], expected: str) -> None:
    status, out, err = run("demo", "--epochs", "1", *options)
    assert (status, err) == (0, "")
    assert expected in out


def test_demo_prints_the_same_for_the_same_seed_only(run: Run) -> None:
    def output(seed: str) -> str:
        _, out, _ = run("demo", "--epochs", "2", "--seed", seed)
        return re.sub(r".* examples per second", "", out)

    assert output("3") == output("3")
    assert output("3") != output("4")


def test_demo_trains_on_idx_files_in_a_directory(run: Run, tmp_path: Path) -> None:
    write_digits(tmp_path)
    status, out, err = run("demo", "--epochs", "1", "--data", str(tmp_path))
    assert (status, err) == (0, "")
    assert "784-30-10" in out
    assert "16 training examples, 4 test examples" in out


@pytest.mark.parametrize("columns", [10, 36, 80, 200])
@pytest.mark.parametrize("side", [2, 8, 28])
def test_pictures_fit_the_terminal(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, columns: int
) -> None:
    write_digits(tmp_path, n=100, side=side)
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = run("demo", "--epochs", "1", "--data", str(tmp_path))
    pictures = out[out.index("The first test digits") :].splitlines()[2:10]
    assert len(pictures) == 8
    assert max(map(len, pictures)) <= max(columns, 16)


def test_picture_shows_ink_where_the_image_has_it() -> None:
    image = np.zeros((1, 16, 16), dtype=np.float32)
    image[0, 4:12, 4:8] = 1
    assert program._pictures(image) == [["████████        "] * 8]


def test_pictures_of_blank_images_are_blank() -> None:
    assert program._pictures(np.zeros((1, 28, 28), dtype=np.float32)) == [[" " * 16] * 8]


@pytest.mark.parametrize(
    "argv",
    [
        ["demo", "--epochs", "0"],
        ["demo", "--epochs", "-3"],
        ["demo", "--epochs", "many"],
        ["demo", "--epochs", "1.5"],
        ["demo", "--hidden", "0"],
        ["demo", "--hidden"],
        ["demo", "--hidden", "30", "x"],
        ["demo", "--hidden", "99999999999999"],
        ["demo", "--batch-size", "0"],
        ["demo", "--batch-size", "99999999999999"],
        ["demo", "--learning-rate", "0"],
        ["demo", "--learning-rate", "-1"],
        ["demo", "--learning-rate", "nan"],
        ["demo", "--learning-rate", "inf"],
        ["demo", "--learning-rate", "fast"],
        ["demo", "--learning-rate", "1e300"],
        ["demo", "--seed", "-1"],
        ["demo", "--dtype", "float16"],
        ["demo", "--data"],
        ["demo", "--unknown"],
        ["demo", "surplus"],
        ["unknown"],
    ],
    ids=" ".join,
)
def test_invalid_options_give_one_line_and_status_2(run: Run, argv: list[str]) -> None:
    status, _, err = run(*argv)
    assert status == 2
    assert re.fullmatch(r"nncore( demo)?: error: .+\n", err)


def damage_nothing_there(directory: Path) -> str:
    (directory / "images-idx3-ubyte.gz").unlink()
    (directory / "labels-idx1-ubyte.gz").unlink()
    return "got neither"


def damage_missing_labels(directory: Path) -> str:
    (directory / "labels-idx1-ubyte.gz").unlink()
    return "got no labels-idx1-ubyte"


def damage_truncated_gzip(directory: Path) -> str:
    path = directory / "images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    return "truncated gzip"


def damage_truncated_items(directory: Path) -> str:
    path = directory / "images-idx3-ubyte.gz"
    path.write_bytes(gzip.decompress(path.read_bytes())[:-1])
    return "got 15679 bytes of IDX items, expected 15680"


def damage_magic_number(directory: Path) -> str:
    (directory / "images-idx3-ubyte.gz").write_bytes(b"<html>404 not found</html>")
    return "magic number"


def damage_counts(directory: Path) -> str:
    path = directory / "labels-idx1-ubyte.gz"
    path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3]))
    return "got 3 labels, expected 20"


def damage_label(directory: Path) -> str:
    path = directory / "labels-idx1-ubyte.gz"
    path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 20, *range(20)]))
    return "got label 10 for example 10, expected 0 to 9"


def damage_file_is_directory(directory: Path) -> str:
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    directory.touch()
    return "expected a directory"


@pytest.mark.parametrize(
    "damage",
    [
        damage_nothing_there,
        damage_missing_labels,
        damage_truncated_gzip,
        damage_truncated_items,
        damage_magic_number,
        damage_counts,
        damage_label,
        damage_file_is_directory,
    ],
)
def test_damaged_data_gives_one_line_and_status_2(
    run: Run, tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    directory = tmp_path / "digits"
    directory.mkdir()
    write_digits(directory)
    expected = damage(directory)
    status, out, err = run("demo", "--data", str(directory))
    assert (status, out) == (2, "")
    assert err.startswith(f"nncore demo: error: {directory}")
    assert err.count("\n") == 1
    assert expected in err


def test_unreadable_file_gives_one_line_and_status_2(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    write_digits(tmp_path)
    monkeypatch.setattr(Path, "open", refuse)
    status, out, err = run("demo", "--data", str(tmp_path))
    assert (status, out) == (2, "")
    assert re.fullmatch(r"nncore demo: error: .*Permission denied.*images-idx3.*\n", err)


def test_ctrl_c_gives_status_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nncore.Network, "fit", interrupt)
    status, _, err = run("demo")
    assert (status, err) == (130, "nncore: interrupted\n")


# The process


@needs_posix
def test_ctrl_c_ends_the_process_without_a_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", START, "demo", "--epochs", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        while not process.stdout.readline().startswith("epoch"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "nncore: interrupted\n"


@needs_posix
@pytest.mark.parametrize("command", ["demo", "info", "--help"])
def test_closed_pipe_ends_the_process_without_output(command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "nncore", command],
        stdout=writer,
        stderr=subprocess.PIPE,
        # With a buffer, since argparse ignores errors when it prints help.
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        check=False,
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (141, b"")


@needs_posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
@pytest.mark.parametrize("output", [">/dev/full", ">&-"])
def test_output_that_cannot_be_written_gives_one_line_and_status_2(output: str) -> None:
    command = f'"{sys.executable}" -m nncore info {output}'
    process = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr.startswith("nncore: error: ")
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space"), BrokenPipeError()])
def test_output_without_a_descriptor_that_cannot_be_written(
    error: OSError, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    with redirect_stdout(Full()):
        status = main(["info"])
    line = "nncore: error: the output cannot be written: [Errno 28] No space\n"
    expected = (141, "") if isinstance(error, BrokenPipeError) else (2, line)
    assert (status, capsys.readouterr().err) == expected


def test_other_errors_of_the_system_are_not_those_of_the_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise OSError(errno.EACCES, "denied")

    monkeypatch.setattr(program, "_cpu", fail)
    with redirect_stdout(io.StringIO()), pytest.raises(PermissionError, match="denied"):
        main(["info"])


@needs_posix
def test_pipe_closed_while_training_ends_the_process_without_output() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "nncore", "demo", "--epochs", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_module_runs_with_any_encoding_of_the_output(encoding: str) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "nncore", "demo", "--epochs", "1"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, b"")
    out = process.stdout.decode(encoding)
    assert "The first test digits" in out
    assert ("█" in out) == (encoding == "utf-8")


def test_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="nncore")
    assert command.load() is main


@pytest.mark.parametrize(
    "argv", [["--help"], ["demo", "--help"], ["info", "--help"], ["selftest", "--help"]]
)
def test_help_is_printed(run: Run, argv: list[str]) -> None:
    status, out, err = run(*argv)
    assert (status, err) == (0, "")
    assert out.startswith("usage: nncore")


def test_help_is_printed_without_a_command(run: Run) -> None:
    status, out, err = run()
    assert (status, out) == (2, "")
    assert err.startswith("usage: nncore")


def test_version_is_that_of_the_installed_package(run: Run) -> None:
    assert run("--version") == (0, f"nncore {version('nncore')}\n", "")


# nncore info

OPENBLAS = {"user_api": "blas", "internal_api": "openblas", "num_threads": 2, "version": "0.3.30"}
SSE = ["sse", "sse2", "sse4_1"]
AVX = [*SSE, "avx"]
AVX2 = [*AVX, "fma", "avx2"]
AVX512 = [*AVX2, "avx512f", "avx512vl"]


def test_info_names_versions_blas_threads_and_cpu(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    status, out, err = run("info")
    assert (status, err) == (0, "")
    facts = dict(re.findall(r"^(\S+(?: \S+)*)  +(.*)$", out, re.MULTILINE))
    for package in ("nncore", "NumPy", "SciPy", "threadpoolctl"):
        assert facts[package] == version(package.lower())
    assert facts["Python"].startswith(sys.version.split()[0])
    assert {"BLAS", "CPU", "CPU features", "caches"} <= facts.keys()
    assert facts["build"].startswith(_kernels.COMPILER)
    assert facts["CPU threads"].startswith(str(os.cpu_count()))
    assert facts["kernels"].startswith(_kernels.KERNELS)
    assert "OPENBLAS_NUM_THREADS=1" in facts["environment"]


def test_info_shows_the_blas_of_scipy_not_that_of_numpy(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def library(module: Any, version: str) -> dict[str, Any]:
        site = Path(module.__file__).parents[1]
        name = f"{module.__name__}.libs"
        return {**OPENBLAS, "version": version, "filepath": str(site / name / "libopenblas.so")}

    openmp = {"user_api": "openmp", "internal_api": "openmp", "filepath": "/usr/lib/libgomp.so"}
    numpys, scipys = library(np, "1.numpy"), library(scipy, "2.scipy")
    systems = {**OPENBLAS, "version": "3.system", "filepath": "/usr/lib/libopenblas.so"}
    cases: list[tuple[list[dict[str, Any]], dict[str, Any] | None]] = [
        ([openmp, numpys, scipys], scipys),
        ([scipys, systems, numpys], scipys),
        ([numpys, systems], systems),
        ([openmp, numpys], None),
        ([openmp], None),
    ]
    for found, expected in cases:
        monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda found=found: found)
        assert program._scipy_blas() == expected
        _, out, _ = run("info")
        assert (expected["version"] if expected else "not recognised by threadpoolctl") in out


def test_info_says_why_the_kernels_were_chosen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNCORE_KERNELS", _kernels.KERNELS)
    assert "set by NNCORE_KERNELS" in run("info")[1]
    monkeypatch.delenv("NNCORE_KERNELS")
    assert "the widest vectors of this CPU" in run("info")[1]


def test_info_works_without_proc_cpuinfo(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(path: Path, **kwargs: Any) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.setattr(program, "version", lambda package: "1")
    status, out, err = run("info")
    assert (status, err) == (0, "")
    assert "\nCPU features" in out


@pytest.mark.parametrize(
    ("coretype", "chosen", "features"),
    [
        ("Haswell", "Haswell", AVX512),
        ("Zen", "Zen", AVX512),
        ("Prescott", "Prescott", AVX2),
        ("Prescott", "Katmai", AVX),
        ("nehalem", "Nehalem", AVX2),
        ("Sandybridge", "Sandybridge", AVX2),
    ],
)
def test_kernels_older_than_the_cpu_give_a_warning(
    coretype: str, chosen: str, features: list[str]
) -> None:
    blas = {**OPENBLAS, "architecture": chosen}
    warning = program._coretype_warning(coretype, blas, features)
    assert warning
    assert warning.startswith(f"OPENBLAS_CORETYPE={coretype} makes BLAS use its {chosen} kernels")


@pytest.mark.parametrize(
    ("coretype", "chosen", "features"),
    [
        (None, "Haswell", AVX512),
        ("", "Haswell", AVX512),
        ("SkylakeX", "SkylakeX", AVX512),
        ("Cooperlake", "Cooperlake", AVX512),
        ("Haswell", "Haswell", AVX2),
        ("Zen", "Zen", AVX2),
        ("Haswell", "Haswell", [*AVX2, "avx512f"]),
        ("Sandybridge", "Sandybridge", AVX),
        ("Nehalem", "Nehalem", SSE),
        ("nonsense", "Haswell", AVX2),
        ("NEOVERSEN1", "neoversen1", ["asimd", "fphp"]),
        ("Haswell", "a kernel of the future", AVX512),
        ("Haswell", None, AVX512),
        ("Haswell", "Haswell", []),
    ],
)
def test_matching_kernels_give_no_warning(
    coretype: str | None, chosen: str | None, features: list[str]
) -> None:
    blas = {**OPENBLAS, "architecture": chosen}
    assert program._coretype_warning(coretype, blas, features) is None
    assert program._coretype_warning(coretype, None, features) is None
    mkl = {**blas, "internal_api": "mkl"}
    assert program._coretype_warning(coretype, mkl, features) is None


def test_info_prints_the_warning(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    blas = {**OPENBLAS, "architecture": "Haswell", "filepath": "libopenblas.so"}
    monkeypatch.setattr(program, "_scipy_blas", lambda: blas)
    monkeypatch.setattr(program, "_cpu", lambda: ("some CPU", AVX512))
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    assert "warning" not in run("info")[1]
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert "\nwarning: OPENBLAS_CORETYPE=Haswell makes" in run("info")[1]
