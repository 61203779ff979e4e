"""Several processes train one network, under a real mpiexec."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nncore

pytest.importorskip("mpi4py")
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
if MPIEXEC is None:
    pytest.skip("MPI has no mpiexec here", allow_module_level=True)

PROGRAM = Path(__file__).with_name("rank_program.py")


def start(n: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert MPIEXEC is not None
    return subprocess.run(
        [MPIEXEC, "-n", str(n), sys.executable, str(PROGRAM), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


@cache
def run(n: int, *arguments: str) -> list[Any]:
    """Return what each of n ranks returned."""
    process = start(n, *arguments)
    assert process.returncode == 0, process.stderr
    results: list[Any] = json.loads(process.stdout)
    assert len(results) == n
    return results


@pytest.mark.parametrize("n", [2, 3, 4])
def test_fits_have_the_same_bits_on_any_number_of_ranks_and_threads(n: int) -> None:
    (expected,) = run(1, "fits")
    assert run(n, "fits") == [expected] * n


def test_ranks_learn_what_a_fit_without_them_learns() -> None:
    (alone,), (together,) = run(1, "fits_without_comm"), run(1, "fits")
    assert alone.keys() == together.keys()
    for name, (_, losses, *_) in alone.items():
        np.testing.assert_allclose(together[name][1], losses, rtol=1e-3, err_msg=name)


def test_ranks_share_the_order_if_there_is_no_seed() -> None:
    assert len({result["without seed"] for result in run(3, "special")}) == 1


def test_fast_reduction_differs_by_rounding_only() -> None:
    results = run(3, "special")
    assert len({result["fast"] for result in results}) == 1
    assert results[0]["error"] < 1e-9


def test_each_rank_reads_the_rows_of_its_parts_only() -> None:
    read = [result["rows"] for result in run(3, "special")]
    assert sorted(row for rows in read for row in rows) == sorted([*range(203)] * 2)
    assert max(map(len, read)) < 1.3 * 2 * 203 / 3


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_shards_make_the_batches_that_their_rows_together_make(
    weighted: bool, streamed: bool
) -> None:
    name = f"shards, weighted={weighted}, streamed={streamed}"
    assert max(result[name] for result in run(3, "special")) < 1e-9


def test_metrics_of_shards_are_those_of_all_of_their_rows() -> None:
    assert max(result["metrics of shards"] for result in run(3, "special")) < 1e-6


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("shards of different length", "ValueError: rows must be the same on all ranks, got "),
        ("weights of one shard", "ValueError: sample_weight must be given on all ranks or on none"),
        ("batches of shards", "ValueError: batch_size must be a multiple of the 3 ranks, got 31"),
    ],
)
def test_shards_that_do_not_fit_are_refused_before_anything_changes(what: str, text: str) -> None:
    (error,) = {result[what] for result in run(3, "errors")}
    assert error.startswith(text)
    assert error.endswith("(unchanged)")


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("shorter stream", "got a batch of 50 examples, checksum .* of 43 .* on rank 2"),
        ("other stream", "got a batch of 32 examples, checksum .* of 32 .* on rank 2"),
        ("shorter stream of shards", "got a batch of 50 .* there is the end of an epoch on rank 2"),
    ],
)
def test_streams_that_differ_end_the_fit_on_all_ranks(what: str, text: str) -> None:
    (error,) = {result[what] for result in run(3, "errors")}
    assert re.search(text, error)


def test_estimators_refuse_shards() -> None:
    (error,) = {result["estimator on shards"] for result in run(3, "errors")}
    assert error == "estimators need the same rows on all ranks, got sharded=True"


def test_divergence_is_the_same_error_on_all_ranks() -> None:
    (text,) = {result["divergence"] for result in run(3, "special")}
    assert "became NaN or infinite in epoch 1" in text


def test_a_run_killed_on_three_ranks_resumes_on_two_with_the_same_bits(tmp_path: Path) -> None:
    expected = run(1, "resumed", str(tmp_path / "never"), "0")
    path = str(tmp_path / "run")
    assert start(3, "resumed", path, "30").returncode != 0
    assert isinstance(nncore.load(path), nncore.Network)  # a whole file
    assert run(2, "resumed", path, "0") == expected * 2


@pytest.mark.parametrize(("what", "rank"), [("callback", 0), ("metric", 0), ("loss", 2)])
def test_an_exception_on_one_rank_ends_the_fit_on_all_of_them(what: str, rank: int) -> None:
    results = [result[what].removesuffix(" (unchanged)") for result in run(3, "errors")]
    assert results.pop(rank) == "OverflowError: too much"
    assert results == [f"RankError: rank {rank} raised OverflowError: too much"] * 2


def test_an_invalid_argument_of_one_rank_is_refused_on_all_of_them() -> None:
    *others, last = [result["argument"] for result in run(3, "errors")]
    assert last == "ValueError: epochs must be at least 1, got -1 (unchanged)"
    assert others == [f"RankError: rank 2 raised {last}"] * 2


@pytest.mark.parametrize(
    "what",
    ["batch_size", "seed", "X", "network.parameters", "optimizer.learning_rate", "reduction"],
)
def test_ranks_that_differ_are_refused_before_anything_changes(what: str) -> None:
    (text,) = {result[what] for result in run(3, "errors")}
    assert text.startswith(f"ValueError: {what} must be the same on all ranks, got ")
    assert text.endswith("on rank 2 (unchanged)")


@pytest.mark.parametrize("comm", [3, "world"])
def test_other_objects_are_no_communicators(comm: object) -> None:
    code = (
        "import nncore\n"
        f"nncore.Network([1, 1]).fit([[0.0]], [0.0], comm={comm!r})"
    )  # fmt: skip
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"TypeError: comm must be a communicator of mpi4py such as MPI.COMM_WORLD, got {comm!r}"\
        in process.stderr  # fmt: skip
