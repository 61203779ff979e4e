"""`nncore.torch`: what is refused, by name and before anything has changed."""

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_loops import data, fit, make  # noqa: E402

import nncore  # noqa: E402

nn, optim = torch.nn, torch.optim
schedulers = torch.optim.lr_scheduler


def snapshot(module: Any, optimizer: Any) -> list[Any]:
    return copy.deepcopy([module.state_dict(), optimizer.state_dict()])


def refused_modules() -> dict[str, Any]:
    hooked, frozen, shared = make(), make(), nn.Linear(5, 5).double()
    hooked[1].register_forward_hook(lambda *_: None)
    frozen[0].weight.requires_grad = False
    with torch.inference_mode():
        in_inference_mode = make()
    return {
        "'1' (BatchNorm1d)": nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)),
        "'1' (Tanh) has forward_hooks": hooked,
        "'0.weight' is frozen": frozen,
        "'0.weight' was created in inference mode": in_inference_mode,
        "'1.weight' is shared": nn.Sequential(shared, shared, nn.Linear(5, 3).double()),
        "'2.weight' has the dtype": nn.Sequential(
            nn.Linear(5, 3).double(), nn.ReLU(), nn.Linear(3, 3)
        ),
        "'0.weight' is on the device meta": nn.Sequential(nn.Linear(5, 3, device="meta")),
        "'0' (Dropout) must follow": nn.Sequential(nn.Dropout(), nn.Linear(5, 3)),
        "'1' (Softmax)": nn.Sequential(nn.Linear(5, 3), nn.Softmax(dim=0)),
        "CrossEntropyLoss needs": nn.Sequential(nn.Linear(5, 3), nn.Softmax(dim=1)).double(),
        "'1' (Linear) must take the 3 outputs": nn.Sequential(nn.Linear(5, 3), nn.Linear(4, 3)),
    }


@pytest.mark.parametrize("message", refused_modules())
def test_modules_that_are_refused_are_named(message: str) -> None:
    module = refused_modules()[message]
    with pytest.raises(ValueError, match=r".*") as caught:
        fit(module, *data())
    assert message in str(caught.value)


def groups(module: Any) -> list[dict[str, Any]]:
    return [{"params": [p], "lr": 0.1 * i} for i, p in enumerate(module.parameters())]


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda m: optim.Adagrad(m.parameters()), "Adagrad; train this module with PyTorch"),
        (lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9, dampening=0.1), "dampening=0"),
        (lambda m: optim.SGD(m.parameters(), lr=0.1, maximize=True), "maximize=False"),
        (lambda m: optim.SGD(m[0].parameters(), lr=0.1), "the parameter '2.weight'"),
        (lambda m: optim.SGD(groups(m), lr=0.1), "the same lr for every weight"),
        (lambda m: optim.SGD([*m.parameters(), nn.Parameter(torch.ones(1))], lr=0.1), "1 others"),
        (lambda m: optim.Adam(m.parameters(), lr=torch.tensor(0.1)), "a number as lr"),
        (lambda m: optim.Adam(m.parameters(), eps=0.0), "epsilon must be a normal number"),
    ],
)
def test_optimizers_that_are_refused_are_explained(create: Any, message: str) -> None:
    module = make()
    optimizer = create(module)
    before = snapshot(module, optimizer)
    generator = torch.Generator().manual_seed(2)
    with pytest.raises((TypeError, ValueError)) as caught:
        fit(module, *data(), optimizer=optimizer, generator=generator)
    assert message in str(caught.value)
    assert str(snapshot(module, optimizer)) == str(before)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(2).get_state())


def test_a_momentum_that_a_scheduler_turns_off_is_refused_before_the_epoch() -> None:
    module, (X, y) = make(), data()
    optimizer = optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    scheduler = schedulers.CyclicLR(optimizer, 0.01, 0.1, step_size_up=3, base_momentum=0.0)
    before = snapshot(module, optimizer)
    with pytest.raises(ValueError, match="must keep its momentum"):
        fit(module, X, y, optimizer=optimizer, scheduler=scheduler, scheduler_step="batch")
    assert str(snapshot(module, optimizer)) == str(before)


def refused_arguments() -> dict[str, dict[str, Any]]:
    X, y = data()
    mse = {"loss": nn.MSELoss()}
    return {
        "X must not require gradients": {"X": X.clone().requires_grad_()},
        "X must have the dtype of module": {"X": X.float()},
        "X must be finite": {"X": X * np.nan},
        "X must have shape (n_samples, 5)": {"X": X[:, 1:]},
        "y must hold class indices from 0 to 2": {"y": y + 1},
        "y must have as many rows as X": {"y": y[1:]},
        "y must have shape (n_samples, n_outputs)": {"y": X[:, 0], **mse},
        "like the outputs of module, got (41,)": {"y": y, **mse},
        "y must be given": {"y": None},
        "loss must be one of": {"loss": nn.CosineEmbeddingLoss()},
        "loss must have reduction": {"loss": nn.CrossEntropyLoss(reduction="none")},
        "loss PoissonNLLLoss must have full=False": {"loss": nn.PoissonNLLLoss(full=True)},
        "generator must be": {"generator": 3},
        "epochs must be at least 1": {"epochs": 0},
        "batch_size must be at most 41": {"batch_size": 42, "drop_last": True},
        "scheduler must be a scheduler of optimizer": {
            "scheduler": schedulers.StepLR(optim.SGD(make().parameters()), 1)
        },
        "scheduler_step must be one of": {"scheduler_step": "step"},
        "validation y must hold class indices": {"validation_data": (X, y + 7)},
        "callbacks must not have a Checkpoint": {
            "callbacks": [nncore.callbacks.Checkpoint("c", every_epochs=1)]
        },
    }


@pytest.mark.parametrize("message", refused_arguments())
def test_other_arguments_that_are_refused_are_explained(message: str) -> None:
    X, y = data()
    module = make()
    optimizer = optim.Adam(module.parameters())
    before = snapshot(module, optimizer)
    with pytest.raises((TypeError, ValueError)) as caught:
        fit(module, **{"X": X, "y": y, "optimizer": optimizer, **refused_arguments()[message]})
    assert message in str(caught.value)
    assert str(snapshot(module, optimizer)) == str(before)
