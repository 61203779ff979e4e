"""The history of a fit, in text and as a table."""

import pandas
import pytest
from helpers import problem

import nncore
from nncore import History


def test_the_columns_are_what_the_fit_reported() -> None:
    net, X, Y = problem()
    history = net.fit(X, Y, epochs=3, validation_data=(X, Y), metrics=["r2"])
    columns = history.to_dict()
    assert list(columns) == ["epoch", "loss", "validation_loss", "validation_r2", "seconds"]
    assert columns["epoch"] == [1, 2, 3]
    assert columns["loss"] == history.loss
    assert columns["validation_r2"] == history.metrics["validation_r2"]
    assert list(net.fit(X, Y).to_dict()) == ["epoch", "loss", "seconds"]


def test_a_frame_has_a_row_for_each_epoch() -> None:
    net, X, Y = problem()
    history = net.fit(X, Y, epochs=3, validation_data=(X, Y))
    frame = history.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.index.tolist() == [1, 2, 3]
    assert frame.index.name == "epoch"
    assert frame["validation_loss"].tolist() == history.validation_loss


@pytest.mark.parametrize(
    ("loss", "validation_loss", "labels"),
    [
        ([3.0, 1.0, 2.0], [], ["first 1", "best 2", "last 3"]),
        ([3.0, 1.0, 2.0], [3.0, 2.0, 1.0], ["first 1", "best, last 3"]),
        ([1.0, 2.0], [], ["first, best 1", "last 2"]),
        ([1.0], [], ["first, best, last 1"]),
    ],
)
def test_the_text_shows_the_first_the_best_and_the_last_epoch(
    loss: list[float], validation_loss: list[float], labels: list[str]
) -> None:
    history = History(loss, validation_loss, {"r2": loss}, [0.5] * len(loss))
    head, columns, *rows = repr(history).splitlines()
    assert head.startswith(f"History of {len(loss)} epoch")
    assert columns.split() == ["epoch", "loss", *["validation_loss"] * bool(validation_loss), "r2"]
    assert len({len(row) for row in rows}) == 1
    for row, label in zip(rows, labels, strict=True):
        assert " ".join(row.split()).startswith(label)
        epoch = int(label.split()[-1])
        assert float(row.split()[-1]) == loss[epoch - 1]


def test_the_text_of_an_empty_history_is_a_line() -> None:
    assert repr(nncore.History()) == "History of 0 epochs in 0.00 µs"
