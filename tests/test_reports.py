"""What a fit shows and logs."""

import csv
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import make, problem

import nncore
from nncore.callbacks import Log, Progress
from nncore.history import Callback
from nncore.reports import Lines, NetworksReport, verbose_callback


def epoch_end(epoch: int, epochs: int = 10, **values: Any) -> nncore.EpochEnd:
    defaults: dict[str, Any] = {"loss": 1 / epoch, "seconds": 0.002, "n_examples": 100}
    return nncore.EpochEnd(
        epoch=epoch, epochs=epochs, network=nncore.Network([1, 1]), **{**defaults, **values}
    )


# verbose


class Clock:
    """A clock that shows what it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_shows_losses_metrics_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    Lines()(
        epoch_end(
            7,
            epochs=200,
            loss=0.123456,
            validation_loss=1234.56,
            metrics={"validation_accuracy": 0.97},
        )
    )
    assert capsys.readouterr().out == (
        "epoch   7/200  loss 0.1235     validation_loss 1235       validation_accuracy 0.9700     "
        "2.00 ms\n"
    )


def test_at_most_ten_lines_a_second_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = Lines(clock)
    for epoch in range(1, 301):
        lines(epoch_end(epoch, epochs=1000))
        clock.now += 0.01
    assert 29 <= len(capsys.readouterr().out.splitlines()) <= 31


@pytest.mark.parametrize("last", [5, 9])
def test_the_last_epoch_is_always_printed_and_only_once(
    last: int, capsys: pytest.CaptureFixture[str]
) -> None:
    net, X, Y = problem()
    callbacks: list[Callback] = [Lines(Clock()), lambda end: end.epoch == last]
    net.fit(X, Y, epochs=9, callbacks=callbacks)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["1/9", f"{last}/9"]
    net.fit(X, Y, callbacks=callbacks)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_verbose_prints_lines_where_the_output_is_no_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    net, X, Y = problem()
    net.fit(X, Y, epochs=2, validation_data=(X, Y))
    assert capfd.readouterr() == ("", "")
    net.fit(X, Y, epochs=2, verbose=True)
    out, err = capfd.readouterr()
    assert out.startswith("epoch 1/2  loss ")
    assert "validation" not in out
    assert err == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_verbose_shows_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    net, X, Y = problem()
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    net.fit(X, Y, epochs=3, validation_split=0.2, verbose=True)
    shown = terminal.getvalue()
    assert "3/3" in shown
    assert "validation_loss" in shown
    assert "examples/s" in shown
    assert shown.endswith("\n")


def test_verbose_prints_lines_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert isinstance(verbose_callback(), Lines)


@pytest.mark.parametrize("output", [None, io.StringIO()])
def test_verbose_needs_no_terminal(output: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", output)
    net, X, Y = problem()
    net.fit(X, Y, epochs=2, verbose=True)


def test_a_notebook_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})
    monkeypatch.setattr(sys, "stdout", stream())
    assert isinstance(verbose_callback(), Progress)


# fit_many


def fit_many(n: int, **options: Any) -> None:
    X, Y = problem()[1:]
    networks = [make([5, 6, 3], "identity", output="identity", seed=i) for i in range(n)]
    nncore.fit_many(networks, X, Y, verbose=True, n_threads=2, **options)


def test_fit_many_prints_the_networks_it_has_trained(capsys: pytest.CaptureFixture[str]) -> None:
    fit_many(12)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("network  1/12  loss ")
    assert lines[-1].startswith("network 12/12  loss ")


def test_fit_many_prints_at_most_ten_lines_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    report = NetworksReport(10, Clock())
    for _ in range(10):
        report.add(nncore.History(loss=[0.5]))
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["1/10", "10/10"]


def test_fit_many_prints_that_a_network_diverged(capsys: pytest.CaptureFixture[str]) -> None:
    fit_many(1, epochs=4, optimizer=nncore.SGD(1e200))
    assert capsys.readouterr().out == "network 1/1  diverged\n"


def test_fit_many_shows_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    fit_many(3)
    assert "3/3" in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")


# Progress


def shown_by_a_bar(*ends: nncore.EpochEnd) -> str:
    """Return what a bar of its own shows at last."""
    output = io.StringIO()
    bar = Progress(file=output, mininterval=0, ncols=150)
    for end in ends:
        bar(end)
    shown = output.getvalue().split("\r")[-1]
    ends[-1].finish()
    return shown


def test_progress_shows_losses_rate_and_the_time_left() -> None:
    shown = shown_by_a_bar(*(epoch_end(epoch, epochs=4, seconds=10.0) for epoch in (1, 2)))
    assert shown.startswith("2/4 |")
    assert shown.endswith(" left, loss 0.5000, 10.0 examples/s")


def test_the_time_of_the_first_epoch_counts() -> None:
    assert "3:00:0" in shown_by_a_bar(epoch_end(1, epochs=4, seconds=3600.0))


def test_a_bar_of_a_resumed_run_begins_where_it_was_interrupted() -> None:
    assert shown_by_a_bar(epoch_end(8, epochs=10)).startswith("8/10 |")


def test_epochs_without_a_time_have_no_rate() -> None:
    assert shown_by_a_bar(epoch_end(1, seconds=0.0)).endswith("left, loss 1.000")


def test_each_fit_gets_a_bar_of_its_own() -> None:
    net, X, Y = problem()
    bar = Progress(file=(output := io.StringIO()), ncols=150)
    for _ in range(2):
        net.fit(X, Y, epochs=2, callbacks=[bar])
    assert output.getvalue().count("2/2") == 2
    assert output.getvalue().count("\n") == 2


def test_progress_without_tqdm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"pip install nncore\[progress\]"):
        Progress()


# Log


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a log."""
    text = path.read_text()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return [
        {name: json.loads(value) for name, value in row.items()}
        for row in csv.DictReader(text.splitlines())
    ]


every_suffix = pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])


@every_suffix
def test_a_log_holds_the_history(name: str, tmp_path: Path) -> None:
    net, X, Y = problem()
    path = tmp_path / name
    history = net.fit(
        X, Y, epochs=3, validation_split=0.3, metrics=["accuracy"], callbacks=[Log(path)]
    )
    columns = history.to_dict()
    assert read(path) == [
        dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
    ]


@every_suffix
def test_a_row_is_in_the_file_as_soon_as_its_epoch_ends(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    log = Log(path)
    for epoch in (1, 2, 3):
        log(epoch_end(epoch))
        assert [row["epoch"] for row in read(path)] == list(range(1, epoch + 1))


@every_suffix
def test_the_next_fit_replaces_the_log(name: str, tmp_path: Path) -> None:
    net, X, Y = problem()
    path = tmp_path / name
    used = Log(path)
    for log in (Log(path), used, used):
        history = net.fit(X, Y, epochs=2, callbacks=[log])
        assert [row["loss"] for row in read(path)] == history.loss


@every_suffix
@pytest.mark.parametrize("rest", ["", "5", '{"epoch": 5, "lo', "\0\0\0"])
def test_a_resumed_run_replaces_the_rows_from_its_first_epoch_on(
    name: str, rest: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    log = Log(path)
    for epoch in range(1, 5):
        log(epoch_end(epoch))
    with path.open("a") as file:
        file.write(rest)
    log = Log(path)
    for epoch in range(3, 6):
        log(epoch_end(epoch, loss=0.5))
    rows = read(path)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["loss"] for row in rows] == [1, 0.5, 0.5, 0.5, 0.5]


@every_suffix
def test_a_resumed_run_without_its_log_begins_a_new_one(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    Log(path)(epoch_end(4))
    assert [row["epoch"] for row in read(path)] == [4]


def test_a_resumed_run_with_other_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    Log(path)(epoch_end(1))
    before = path.read_text()
    with pytest.raises(ValueError, match="epoch,loss,validation_loss,seconds to go on with"):
        Log(path)(epoch_end(2, validation_loss=1.0))
    assert path.read_text() == before


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    Log(path)(epoch_end(1, validation_loss=math.nan))
    assert read(path)[0]["validation_loss"] is None


@pytest.mark.parametrize("name", ["log", "log.txt", "csv"])
def test_another_suffix_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"path must end in '.csv' or '.jsonl'"):
        Log(name)


@every_suffix
def test_a_file_that_is_no_log_is_not_overwritten(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match="path must lead to no file or to a log"):
        Log(path)
    assert path.read_text() == "x,y\n1,2\n"


def test_a_log_whose_write_failed_goes_on_with_whole_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.csv"
    log = Log(path)
    log(epoch_end(1))

    def full(*arguments: Any, **options: Any) -> Any:
        with path.open("a") as file:
            file.write("2,0.1")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("nncore.reports.open", full, raising=False)
        with pytest.raises(OSError, match="disk full"):
            log(epoch_end(2))
    log(epoch_end(2))
    assert [row["epoch"] for row in read(path)] == [1, 2]
