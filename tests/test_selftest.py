"""``nncore selftest``: it passes here, and notices when something is wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nncore import Network, _kernels, reference, selftest
from nncore.__main__ import main

Check = Callable[[], None]


@pytest.mark.parametrize("check", selftest.CHECKS, ids=lambda check: check.__name__)
def test_check_passes(check: Check) -> None:
    check()


def test_passed_checks_are_listed_and_give_status_0(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "CHECKS", {selftest.files: "files"})
    assert main(["selftest"]) == 0
    out = capsys.readouterr().out
    assert "\nok      files\n" in out
    assert "all checks passed" in out


def test_a_failed_check_says_what_was_wrong_and_gives_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong() -> None:
        np.testing.assert_allclose(1.0, 1.5, err_msg="gradient of tanh")

    monkeypatch.setattr(selftest, "CHECKS", {wrong: "gradients", selftest.files: "files"})
    assert main(["selftest"]) == 1
    out = capsys.readouterr().out
    assert "\nFAILED  gradients\n" in out
    assert "gradient of tanh" in out
    assert "\nok      files\n" in out
    assert "nncore info" in out


def off_by_a_millionth(kernel: Callable[..., Any]) -> Callable[..., Any]:
    def changed(out: Any, *inputs: Any) -> None:
        kernel(out, *inputs)
        out *= 1 + 1e-6

    return changed


def test_a_kernel_that_is_off_by_a_millionth_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kernels, "exp", off_by_a_millionth(reference.exp))
    with pytest.raises(AssertionError, match="exp in float64"):
        selftest.kernels()


def test_wrong_steps_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "step", lambda *args, **options: 0.0)
    with pytest.raises(AssertionError, match="loss of a step"):
        selftest.steps()


def test_results_that_depend_on_the_threads_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(net: Any, *args: Any, n_threads: int, **options: Any) -> None:
        net.parameters[0] = n_threads

    monkeypatch.setattr(Network, "fit", fit)
    with pytest.raises(AssertionError, match="SGD"):
        selftest.thread_counts()
