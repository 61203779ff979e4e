"""`nncore.torch`: data, losses, schedulers, dropout, callbacks and deployment."""

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_loops import assert_equal_modules, data, fit, make, run_in_torch  # noqa: E402

import nncore.torch  # noqa: E402

nn, optim = torch.nn, torch.optim
schedulers = torch.optim.lr_scheduler


@pytest.mark.parametrize(
    ("p", "n_out"), [([2.5], 1), ([0.0], 1), ([0.5, 2.0, 1.0], 3)], ids=["one", "zero", "three"]
)
def test_weights_of_positives(p: list[float], n_out: int) -> None:
    mine = nn.Sequential(nn.Linear(5, n_out)).double()
    theirs, X = copy.deepcopy(mine), data()[0]
    y = (torch.rand(41, n_out) > 0.4).double()
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(p).double())
    mean_loss = loss(mine(X), y).item()
    history = fit(mine, X, y, loss=loss, epochs=1, batch_size=41)
    assert history.loss == [pytest.approx(mean_loss, rel=1e-12)]
    optimizer = optim.SGD(theirs.parameters(), lr=0.1)
    run_in_torch(theirs, X, y, loss, optimizer, 1, 41)
    assert_equal_modules(mine, theirs, 1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_batch_of_ignored_targets_has_no_gradient(smoothing: float) -> None:
    mine, (X, y) = make(), data()
    theirs, y = copy.deepcopy(mine), torch.where(torch.arange(41) < 3, y, -100)
    loss = nn.CrossEntropyLoss(label_smoothing=smoothing)
    ours = optim.SGD(mine.parameters(), lr=0.1, momentum=0.9)
    history = fit(mine, X, y, loss=loss, optimizer=ours, validation_data=(X[3:], y[3:]))
    reference = optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(2)
    run_in_torch(theirs, X, y, loss, reference, 2, 8, generator=generator)
    assert_equal_modules(mine, theirs, 1e-12)
    assert np.isfinite(history.loss).all()
    assert np.isnan(history.validation_loss).all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_history_has_the_losses_of_pytorch(reduction: str) -> None:
    module, (X, y) = make(), data()
    loss = nn.CrossEntropyLoss(weight=torch.rand(3).double(), reduction=reduction)
    expected = loss(module(X), y).item()
    held_out = (X[:9], y[:9])
    history = fit(module, X, y, loss=loss, epochs=1, batch_size=41, validation_data=held_out)
    assert history.loss == [pytest.approx(expected, rel=1e-12)]
    after = loss(module(X[:9]), y[:9]).item()
    assert history.validation_loss == [pytest.approx(after, rel=1e-12)]


SCHEDULERS: dict[str, Any] = {
    "step": (lambda o: schedulers.StepLR(o, 2, gamma=0.5), "epoch"),
    "cosine": (lambda o: schedulers.CosineAnnealingLR(o, 7), "batch"),
    "one cycle": (lambda o: schedulers.OneCycleLR(o, 0.3, total_steps=60), "batch"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("create", [
    lambda p: optim.SGD(p, lr=0.1, momentum=0.8), lambda p: optim.Adam(p, lr=0.01),
], ids=["sgd", "adam"])  # fmt: skip
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_are_stepped_as_in_pytorch(name: str, create: Any) -> None:
    scheduler_of, step = SCHEDULERS[name]
    mine, (X, y) = make(), data()
    theirs = copy.deepcopy(mine)
    ours, reference = create(mine.parameters()), create(theirs.parameters())
    my_scheduler, scheduler = scheduler_of(ours), scheduler_of(reference)
    for _ in range(2):
        fit(mine, X, y, optimizer=ours, epochs=4, scheduler=my_scheduler, scheduler_step=step)
    loss, loaders = nn.CrossEntropyLoss(), []
    for _ in range(2):
        generator = torch.Generator().manual_seed(2)
        dataset = torch.utils.data.TensorDataset(X, y)
        loaders += [torch.utils.data.DataLoader(dataset, 8, shuffle=True, generator=generator)] * 4
    for loader in loaders:
        for inputs, targets in loader:
            reference.zero_grad()
            loss(theirs(inputs), targets).backward()
            reference.step()
            if step == "batch":
                scheduler.step()
        if step == "epoch":
            scheduler.step()
    assert_equal_modules(mine, theirs, 1e-10)
    assert my_scheduler.state_dict() == scheduler.state_dict()
    assert ours.param_groups[0]["lr"] == reference.param_groups[0]["lr"]


def test_a_plateau_gets_the_validation_loss() -> None:
    module, (X, y) = make(), data()
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    plateau = schedulers.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)
    expected = copy.deepcopy(plateau)
    held_out = (X[:9], y[:9])
    history = fit(
        module, X, y, optimizer=optimizer, scheduler=plateau, epochs=4, validation_data=held_out
    )
    for loss in history.validation_loss:
        expected.step(loss)
    assert plateau.best == expected.best
    assert 0.1 > optimizer.param_groups[0]["lr"] == expected.optimizer.param_groups[0]["lr"]


def test_a_scheduler_of_batches_stands_at_the_last_whole_step_after_an_interrupt() -> None:
    module, (X, y) = make(), data()
    optimizer = optim.Adam(module.parameters(), lr=0.01)
    scheduler = schedulers.ExponentialLR(optimizer, 0.9)

    def interrupt(end: nncore.EpochEnd) -> None:
        raise KeyboardInterrupt

    options = {"scheduler": scheduler, "scheduler_step": "batch", "optimizer": optimizer}
    with pytest.raises(KeyboardInterrupt):
        fit(module, X, y, callbacks=[interrupt], **options)
    assert scheduler.last_epoch == optimizer.state[module[0].weight]["step"].item() == 6
    optimizer.param_groups[0]["lr"] = 1e308
    before = copy.deepcopy([scheduler.state_dict(), optimizer.state_dict()])
    with pytest.raises(nncore.DivergenceError):
        fit(module, X, y, **options)
    assert str([scheduler.state_dict(), optimizer.state_dict()]) == str(before)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("seeded", [False, True], ids=["global", "generator"])
@pytest.mark.parametrize("drop_last", [False, True])
def test_batches_are_those_of_a_data_loader(shuffle: bool, seeded: bool, drop_last: bool) -> None:
    mine, (X, y) = make(), data()
    theirs = copy.deepcopy(mine)
    generators = [torch.Generator().manual_seed(4) if seeded else None for _ in range(2)]
    torch.manual_seed(5)
    fit(mine, X, y, generator=generators[0], shuffle=shuffle, drop_last=drop_last, epochs=3)
    states = [torch.get_rng_state()]
    torch.manual_seed(5)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(X, y), 8, shuffle=shuffle, drop_last=drop_last,
        generator=generators[1],
    )  # fmt: skip
    optimizer = optim.SGD(theirs.parameters(), lr=0.1)
    for _ in range(3):
        for inputs, targets in loader:
            optimizer.zero_grad()
            nn.CrossEntropyLoss()(theirs(inputs), targets).backward()
            optimizer.step()
    states.append(torch.get_rng_state())
    assert_equal_modules(mine, theirs, 1e-12)
    assert torch.equal(*states)


class Images(torch.utils.data.Dataset):  # type: ignore[name-defined,misc]
    def __len__(self) -> int:
        return 41

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        X, y = data()
        return X[i].reshape(1, 5), y[i]


@pytest.mark.parametrize("kind", ["arrays", "lists", "tensor dataset", "dataset"])
def test_examples_come_in_many_forms(kind: str) -> None:
    X, y = data()
    expected, module = make(), make()
    fit(expected, X, y)
    forms: dict[str, tuple[Any, Any]] = {
        "arrays": (X.numpy(), y.numpy().astype(np.uint8)),
        "lists": (X.tolist(), y.tolist()),
        "tensor dataset": (torch.utils.data.TensorDataset(X, y), None),
        "dataset": (Images(), None),
    }
    fit(
        nn.Sequential(nn.Flatten(), module),
        *forms[kind],
        optimizer=optim.SGD(module.parameters(), lr=0.1),
    )
    assert_equal_modules(module, expected, 1e-12)


def test_parameters_and_state_stay_the_same_tensors() -> None:
    module, (X, y) = make(), data()
    optimizer = optim.Adam(module.parameters(), lr=0.1)
    fit(module, X, y, optimizer=optimizer)
    tensors = [*module.parameters(), *optimizer.state[module[0].weight].values()]
    places, values = [t.data_ptr() for t in tensors], [t.clone() for t in tensors]
    fit(module, X, y, optimizer=optimizer)
    assert places == [t.data_ptr() for t in tensors]
    assert not any(torch.equal(*pair) for pair in zip(tensors, values, strict=True))


def test_a_state_without_entries_is_a_new_one() -> None:
    mine, expected, (X, y) = make(), make(), data()
    optimizer = optim.Adam(mine.parameters())
    assert optimizer.state[mine[0].weight] == {}
    fit(mine, X, y, optimizer=optimizer)
    fit(expected, X, y, optimizer=optim.Adam(expected.parameters()))
    assert_equal_modules(mine, expected, 0.0)


def test_fits_of_a_changing_module_do_not_disturb_each_other() -> None:
    module, (X, y) = make(), data()
    changes: list[Any] = [
        lambda: nn.init.ones_(module[2].bias),
        lambda: module.__setitem__(0, nn.Linear(5, 8).double()),
        lambda: module.__setitem__(1, nn.ReLU()),
        lambda: module.__setitem__(2, nn.Linear(8, 3, bias=False).double()),
    ]
    optimizers = [optim.SGD, optim.Adam, optim.RMSprop]
    for change in changes:
        change()
        for create in optimizers:
            fresh = copy.deepcopy(module)
            for each in (module, fresh):
                fit(each, X, y, optimizer=create(each.parameters(), lr=0.01))
            assert_equal_modules(module, fresh, 0.0)


def test_an_output_column_can_be_flattened() -> None:
    mine = nn.Sequential(nn.Linear(5, 1), nn.Flatten(0)).double()
    theirs, X = copy.deepcopy(mine), data()[0]
    fit(mine, X, X[:, 0], loss=nn.MSELoss(), epochs=1, batch_size=41)
    run_in_torch(theirs, X, X[:, 0], nn.MSELoss(), optim.SGD(theirs.parameters(), lr=0.1), 1, 41)
    assert_equal_modules(mine, theirs, 1e-12)


def test_dropout_is_active_unless_the_module_is_in_evaluation_mode() -> None:
    X, y = data()
    modules = [
        nn.Sequential(nn.Linear(5, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 3)).double()
        for _ in range(3)
    ]
    for module in modules[1:]:
        module.load_state_dict(modules[0].state_dict())
    modules[1].eval()
    modules[2][2].p = 0.0
    for module in modules:
        fit(module, X, y)
    assert_equal_modules(modules[1], modules[2], 0.0)
    assert not torch.equal(modules[0][0].weight, modules[1][0].weight)


def test_a_callback_can_change_the_module() -> None:
    module, (X, y) = make(), data()

    def clamp(end: nncore.EpochEnd) -> None:
        module[0].weight.data.clamp_(-0.1, 0.1)

    before = []
    fit(module, X, y, callbacks=[lambda _: before.append(module[0].weight.abs().max()), clamp])
    assert module[0].weight.abs().max() <= 0.1 < before[0]
    # A step from clamped weights is short.
    assert before[1] < before[0]


def test_a_callback_can_fit_the_same_module() -> None:
    mine, expected, (X, y) = make(), make(), data()
    fit(mine, X, y, epochs=1, callbacks=[lambda _: fit(mine, X, y, epochs=3) and None])
    for epochs in (1, 3):
        fit(expected, X, y, epochs=epochs)
    assert_equal_modules(mine, expected, 0.0)


def test_the_network_of_a_callback_is_not_trained_by_later_fits() -> None:
    module, (X, y) = make(), data()
    networks = []
    fit(module, X, y, callbacks=[lambda end: networks.append(end.network)])
    parameters = networks[0].copy_parameters()
    fit(module, X, y)
    np.testing.assert_array_equal(networks[0].parameters, parameters)


def test_callbacks_see_the_module_up_to_date_and_can_stop() -> None:
    module, (X, y) = make(), data()
    seen = []

    def stop(end: nncore.EpochEnd) -> bool:
        seen.append(nn.CrossEntropyLoss()(module(X), y).item())
        return end.epoch == 2

    history = fit(module, X, y, callbacks=[stop], epochs=9, validation_data=(X, y))
    assert seen == pytest.approx(history.validation_loss)
    assert len(history) == 2


@pytest.mark.parametrize(
    ("parts", "loss", "last"),
    [
        ([], nn.CrossEntropyLoss(), nn.Softmax(dim=1)),
        ([nn.LogSoftmax(dim=1)], nn.NLLLoss(), nn.Softmax(dim=1)),
        ([], nn.BCEWithLogitsLoss(pos_weight=torch.ones(3)), nn.Sigmoid()),
        ([], nn.MSELoss(), nn.Identity()),
        ([nn.Softmax(dim=1)], None, nn.Identity()),
        ([nn.GELU("tanh")], None, nn.Identity()),
    ],
)
def test_networks_for_deployment_predict_what_the_outputs_mean(
    parts: list[Any], loss: Any, last: Any
) -> None:
    module, X = make(*parts), data()[0]
    # Softmax of a logarithm of probabilities is the probabilities.
    expected = last(module(X)).detach().numpy()
    actual = nncore.torch.network(module, loss).predict(X.numpy())
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("output", ["softmax", "sigmoid", "identity", ("elu", 0.5), "gelu"])
def test_networks_become_modules(output: Any, logits: bool) -> None:
    loss: Any = {"softmax": "cross_entropy", "sigmoid": "binary_cross_entropy"}
    net = nncore.Network(
        [5, 8, 6, 3], activation=[("leaky_relu", 0.3), "silu", output], seed=0, dtype="float64",
        loss=loss.get(str(output), "squared_error"),
    )  # fmt: skip
    X = data()[0]
    module = net.to_torch(logits=logits)
    outputs = module(X)
    if logits and output in ("softmax", "sigmoid"):
        outputs = outputs.softmax(dim=1) if output == "softmax" else outputs.sigmoid()
    np.testing.assert_allclose(outputs.detach().numpy(), net.predict(X.numpy()), rtol=1e-10)
    assert not any(
        np.shares_memory(p.detach().numpy(), net.parameters) for p in module.parameters()
    )


def test_an_exponential_output_has_no_module_but_logits() -> None:
    net = nncore.Network([5, 3], loss="poisson", seed=0)
    with pytest.raises(ValueError, match="'exponential' of layer 1"):
        net.to_torch()
    assert len(net.to_torch(logits=True)) == 1
