"""What the search refuses: always with a sentence, and before anything changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from searched_networks import batch, fingerprint, network, small_network
from torch import nn

from edropout import EDropout, Target, Units


def assert_nothing_changes(search: EDropout, sentence: str, *arguments: Any) -> None:
    before, state = fingerprint(search.model), copy.deepcopy(search.state_dict())
    with pytest.raises(ValueError, match=sentence):
        search.loss(*arguments)
    assert fingerprint(search.model) == before
    assert str(search.state_dict()) == str(state) and torch.equal(search.population, state["population"])
    assert torch.equal(search.state_dict()["generator"], state["generator"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"population_size": 3}, "population_size must be a whole number of at least 4, not 3"),
        ({"population_size": "8"}, "population_size must be a whole number of at least 4, not '8'"),
        ({"crossover_rate": 1.5}, r"crossover_rate must be in \[0, 1\]"),
        ({"initial_kept": float("nan")}, r"initial_kept must be in \[0, 1\]"),
        ({"workers": -1}, "workers must be"),
        ({"freeze_epoch": -1}, "freeze_epoch must be"),
        ({"reevaluate_every": 1.5}, "reevaluate_every must be"),
        ({"energy_examples": 1}, "energy_examples must be"),
        ({"energy_dtype": torch.int8}, "energy_dtype must be"),
        ({"candidates_per_step": 0}, "candidates_per_step must be"),
        ({"candidates_per_step": 9}, "candidates_per_step must be at most 8"),
        ({"target": 0.5}, "target must be a Target"),
        ({"units": Units(small_network(7))}, "the units are those of another network"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        EDropout(network(), **options)


def test_bad_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="no unit that can be pruned"):
        EDropout(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()))
    with pytest.raises(ValueError, match="not NoneType"):
        EDropout(None)
    with pytest.raises(ValueError, match="lazy layers"):
        EDropout(nn.Sequential(nn.LazyConv2d(4, 1), nn.LazyLinear(3)))
    with pytest.raises(ValueError, match="memory in"):
        Target(kept=0.5, warm_up=1, steps=1, memory=2.0)
    one_class = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.Flatten(), nn.Linear(320, 1))
    with pytest.raises(ValueError, match="at least two classes"):
        EDropout(one_class).loss(torch.randn(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("fault", ["label", "list", "type", "nan", "infinity", "batch norm", "array"])
def test_a_bad_batch_is_refused_before_anything_changes(fault: str) -> None:
    model, (x, y) = network(), batch()
    if fault == "label":
        y[0] = 5
    elif fault == "list":
        y = y.tolist()
    elif fault == "type":
        y = y.float()
    elif fault == "nan":
        x[0, 0, 0, 0] = torch.nan
    elif fault == "infinity":
        model[11].bias.data[0] = torch.inf
    elif fault == "array":
        x = x.numpy()
    else:
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.BatchNorm1d(9), nn.Linear(9, 5))
        x, y = x[:1], y[:1]
    sentence = {
        "label": r"in 0\.\.4",
        "list": "not list",
        "type": "int64",
        "nan": "NaN",
        "infinity": "infinity",
        "batch norm": "more than one value",
        "array": "must be a tensor, not ndarray",
    }[fault]
    assert_nothing_changes(EDropout(model), sentence, x, y)


@pytest.mark.parametrize("kind", ["frozen", "warm-up", "part of the batch"])
def test_logits_that_are_not_numbers_are_refused_where_no_energy_sees_them(kind: str) -> None:
    options = {
        "frozen": {},
        "warm-up": {"target": Target(kept=0.5, warm_up=5, steps=5)},
        "part of the batch": {"energy_examples": 2},
    }[kind]
    search, (x, y) = EDropout(network(), **options), batch()
    search.loss(x, y)
    if kind == "frozen":
        search.freeze()
    x[-1] = torch.nan
    assert_nothing_changes(search, "NaN", x, y)


def test_running_statistics_follow_the_batches_that_are_accepted() -> None:
    x, y = batch(dtype=torch.float64)
    model = network().double()
    search = EDropout(model, initial_kept=1.0)
    search.freeze()
    ordinary = copy.deepcopy(model)
    for _ in range(3):
        search.loss(x, y)
        ordinary(x)
    for name, value in ordinary.state_dict().items():
        assert torch.allclose(value, model.state_dict()[name], rtol=1e-12), name


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda state: state.clear(), "the saved state lacks energies"),
        (lambda state: state.pop("scores"), "the saved state lacks scores"),
        (lambda state: state.update(energies=torch.zeros(3)), r"the saved energies is \(3,\)"),
        (
            lambda state: state.update(population=state["population"].float()),
            "population is .* torch.float32",
        ),
        (lambda state: state.update(generator=None), "the saved generator is NoneType"),
        (lambda state: state.update(frozen_state=torch.ones(5, dtype=torch.bool)), "must have 34 units"),
        (lambda state: state["population"].zero_(), "drops all units of a layer"),
    ],
)
def test_a_damaged_state_is_refused_before_anything_changes(damage: Any, sentence: str) -> None:
    search = EDropout(network())
    search.loss(*batch())
    state = copy.deepcopy(search.state_dict())
    damage(state)
    before = str(search.state_dict())
    with pytest.raises(ValueError, match=sentence):
        search.load_state_dict(state)
    assert str(search.state_dict()) == before
    with pytest.raises(ValueError, match="no dictionary"):
        search.load_state_dict(None)


def test_an_optimiser_of_another_network_is_refused() -> None:
    search = EDropout(network())
    search.loss(*batch()).backward()
    with pytest.raises(ValueError, match="no parameter of the network that is searched"):
        search.step(torch.optim.SGD(copy.deepcopy(search.model).parameters(), lr=0.1))


def test_a_target_cannot_freeze_before_shapes_are_known() -> None:
    with pytest.raises(ValueError, match="shapes are unknown"):
        EDropout(network(), target=Target(kept=0.5, warm_up=1, steps=1)).freeze()
