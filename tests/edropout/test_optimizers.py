"""A step of the search is a step of the pruned network, whatever the optimiser looks at, or it is refused."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import timm.optim
import torch
from searched_networks import batch, disturb, fingerprint
from torch import nn
from torch.optim import Optimizer

from edropout import EDropout, Units, prune

CLASSES = {
    f"{package.__name__}.{name}": kind
    for package in (torch.optim, timm.optim)
    for name, kind in vars(package).items()
    if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer
}
# Those that look at no dense gradient alone, and those whose states belong to no rows or columns.
REFUSED = {"torch.optim.SparseAdam", "timm.optim.Adahessian"}
REFUSED_WHILE_SEARCHING = REFUSED | {"torch.optim.LBFGS"}


def small() -> nn.Module:
    """A grouped and an ordinary convolution, with and without batch norm, and linear layers behind a flattening."""
    torch.manual_seed(0)
    return disturb(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(8, 12, 3, padding=1, bias=False),
            nn.BatchNorm2d(12),
            nn.SiLU(),
            nn.Conv2d(12, 12, 3, padding=1, groups=3),
            nn.SiLU(),
            nn.AvgPool2d(4),
            nn.Flatten(),
            nn.Linear(48, 5),
        )
    ).double()


def make(kind: type[Optimizer], model: nn.Module) -> Optimizer:
    """An optimiser with two groups, and momentum and weight decay where it has them."""
    if kind is timm.optim.Lookahead:
        return kind(make(torch.optim.SGD, model), k=2)
    named = inspect.signature(kind).parameters
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.01, "warmup": 0, "max_iter": 4}
    options = {name: value for name, value in options.items() if name in named}
    parameters = list(model.parameters())
    if kind is torch.optim.LBFGS:
        return kind(parameters, **options)
    if kind is torch.optim.Muon:
        return kind([parameter for parameter in parameters if parameter.ndim == 2], **options)
    few = {"weight_decay": 0.0} if "weight_decay" in named else {}
    groups = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim < 2], **few},
    ]
    return kind(groups, **options)


def scatter(search: EDropout, seed: int) -> None:
    """Gives the search another best state, as evolution does."""
    generator = torch.Generator().manual_seed(seed)
    search.population = search.units.repair_(torch.rand(search.population.shape, generator=generator) < 0.6)


def difference(one: Any, other: Any) -> float:
    if isinstance(one, torch.Tensor):
        assert one.shape == other.shape
        return float((one - other).detach().abs().max()) if one.numel() else 0.0
    if isinstance(one, list | tuple):
        return max([0.0, *(difference(a, b) for a, b in zip(one, other, strict=True))])
    assert one == other
    return 0.0


def closure_of(optimizer: Optimizer, compute: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = compute()
        loss.backward()
        return loss

    return closure


QUICK = {"torch.optim.SGD", "torch.optim.Adadelta", "torch.optim.LBFGS", "timm.optim.Muon", "timm.optim.Lookahead"}


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "searching"])
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(CLASSES)]
)
def test_a_step_is_the_pruned_networks_or_is_refused(name: str, frozen: bool) -> None:
    model, kind = small(), CLASSES[name]
    search, optimizer = EDropout(model), make(CLASSES[name], model)
    kept = set()
    for step in range(4):
        x, y = batch(seed=step, dtype=torch.float64)
        if step == 0 or not frozen:
            scatter(search, step)
        search.loss(x, y, evolve=False)
        if step == 0 and frozen:
            search.freeze()
        kept.add(str(search.best_state.tolist()))
        twin = search.prune().train()
        other = make(kind, twin)
        ours = closure_of(optimizer, lambda x=x, y=y: search.loss(x, y, evolve=False))
        theirs = closure_of(other, lambda x=x, y=y, twin=twin: nn.functional.cross_entropy(twin(x), y))
        if step > 0:
            search.carry_(optimizer, twin, other)
            for group, source in zip(other.param_groups, optimizer.param_groups, strict=True):
                group.update({key: copy.deepcopy(value) for key, value in source.items() if key != "params"})
        needs_closure = kind is torch.optim.LBFGS
        ours()
        before, state = fingerprint(model), copy.deepcopy(optimizer.state_dict())
        try:
            search.step(optimizer, closure=ours if needs_closure else None)
        except ValueError as error:
            assert step == 0 and re.search("cannot step on", str(error))
            assert name in (REFUSED if frozen else REFUSED_WHILE_SEARCHING), error
            assert fingerprint(model) == before and str(optimizer.state_dict()) == str(state)
            return
        torch.manual_seed(0)
        theirs()
        other.step(*[theirs] * needs_closure)
        found = dict(search.prune().named_parameters())
        assert all(difference(value, found[key]) < 1e-12 for key, value in twin.named_parameters()), step
    assert (len(kept) == 1) == frozen and name not in (REFUSED if frozen else REFUSED_WHILE_SEARCHING)


@pytest.mark.parametrize(
    ("kind", "options", "key", "start"),
    [
        (timm.optim.MADGRAD, {"momentum": 0.9}, "x0", None),
        (timm.optim.RMSpropTF, {"alpha": 0.9}, "square_avg", 0.9),
        (torch.optim.Rprop, {"lr": 0.02}, "step_size", 0.02),
        (torch.optim.Adagrad, {"initial_accumulator_value": 0.5}, "sum", 0.5),
        (torch.optim.ASGD, {}, "ax", None),
        (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}, "momentum_buffer", 0.0),
    ],
)
def test_a_weight_that_was_never_stepped_has_the_state_it_starts_with(
    kind: type[Optimizer], options: dict, key: str, start: float | None
) -> None:
    """`start` by hand; None for the weight itself. RMSpropTF starts at 1 and decays once, as without a gradient."""
    model = small()
    search, optimizer = EDropout(model), kind(model.parameters(), **options)
    search.loss(*batch(dtype=torch.float64)).backward()
    dropped = ~search.units.kept(search.best_state)["2"]
    assert dropped.any()
    search.step(optimizer)
    found, weight = optimizer.state[model[2].weight][key][dropped], model[2].weight.detach()[dropped]
    assert torch.allclose(found, weight if start is None else torch.full_like(weight, start), rtol=1e-12)


class RowsOrColumns(Optimizer):
    """Keeps one value for each row or column of a matrix, or a matrix of rows by rows."""

    def __init__(self, parameters: Any, follows: str, late: int = 0) -> None:
        super().__init__(parameters, {"lr": 0.1})
        self.follows, self.late, self.calls = follows, late, 0

    @torch.no_grad()
    def step(self) -> None:
        self.calls += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[:, None]
                if self.calls > self.late:
                    new = {
                        "rows": gradient.square().mean(1),
                        "columns": parameter.grad.square().mean(0, keepdim=True),
                        "rows by rows": gradient @ gradient.T,
                    }[self.follows]
                    old = self.state[parameter].get("kept")
                    self.state[parameter]["kept"] = new if old is None else 0.9 * old + new
                    parameter.mul_(1 - 1e-3 * self.state[parameter]["kept"].mean())
                parameter.sub_(parameter.grad, alpha=group["lr"])


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 6), nn.SiLU(), nn.Linear(6, 6), nn.SiLU(), nn.Linear(6, 5)
    ).double()


@pytest.mark.parametrize("late", [0, 7])
@pytest.mark.parametrize("follows", ["rows", "columns", "rows by rows"])
def test_states_of_rows_and_columns_follow_and_square_matrices_are_refused(follows: str, late: int) -> None:
    """Also where a weight has as many rows as columns, and where the state is made at a later step."""
    model = linear()
    search = EDropout(model, units=Units(model, hidden_linear=True))
    optimizer = RowsOrColumns(model.parameters(), follows, late)
    for step in range(late + 3):
        scatter(search, step)
        x, y = batch(seed=step, dtype=torch.float64)
        search.loss(x, y, evolve=False)
        twin = search.prune()
        other = RowsOrColumns(twin.parameters(), follows, late)
        search.loss(x, y, evolve=False).backward()
        before = fingerprint(model)
        if follows == "rows by rows":
            with pytest.raises(ValueError, match="what its state 'kept' belongs to is unknown"):
                search.step(optimizer)
            assert fingerprint(model) == before and not optimizer.state and optimizer.calls == 0
            return
        if step:
            search.carry_(optimizer, twin, other)
            other.calls = optimizer.calls
        nn.functional.cross_entropy(twin(x), y).backward()
        search.step(optimizer)
        other.step()
        optimizer.zero_grad()
        found = dict(search.prune().named_parameters())
        assert all(difference(value, found[key]) < 1e-12 for key, value in twin.named_parameters()), step


def test_states_of_any_shape_are_kept_while_the_state_of_the_search_is_final_and_refused_after_a_change() -> None:
    model = linear()
    search = EDropout(model, units=Units(model, hidden_linear=True))
    optimizer = RowsOrColumns(model.parameters(), "rows by rows")
    search.loss(*batch(dtype=torch.float64))
    search.freeze()
    for step in range(2):
        optimizer.zero_grad()
        search.loss(*batch(seed=step, dtype=torch.float64)).backward()
        search.step(optimizer)
    scatter(search, 5)
    search.frozen_state = search.population[0]
    optimizer.zero_grad()
    search.loss(*batch(dtype=torch.float64)).backward()
    before = fingerprint(model)
    with pytest.raises(ValueError, match="states of another sub-network"):
        search.step(optimizer)
    assert fingerprint(model) == before


def test_a_network_whose_widths_are_filled_up_takes_the_states_over_and_goes_on_alike() -> None:
    """Filters that are zero start without momentum, so the first step is that of the network without them."""
    found = []
    for multiple_of in (1, 4):
        model = small()
        search, optimizer = EDropout(model), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        x, y = batch(dtype=torch.float64)
        for step in range(3):
            optimizer.zero_grad()
            scatter(search, step)
            search.loss(x, y, evolve=False).backward()
            search.step(optimizer)
        smaller = search.prune(multiple_of=multiple_of).train()
        other = torch.optim.SGD(smaller.parameters(), lr=0.1, momentum=0.9)
        search.carry_(optimizer, smaller, other)
        nn.functional.cross_entropy(smaller(x), y).backward()
        other.step()
        real = search.units.kept(search.best_state)["2"][smaller.kept["2"]]
        assert real.all() == (multiple_of == 1) and len(real) % multiple_of == 0
        found.append(smaller.get_submodule("2").weight[real])
    assert difference(*found) < 1e-12


def test_a_filled_network_that_was_pruned_twice_takes_no_states_over() -> None:
    x, y = batch(dtype=torch.float64)
    model = prune(small(), {}, x)
    search, optimizer = EDropout(model, example=x), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    search.loss(x, y).backward()
    search.step(optimizer)
    with pytest.raises(ValueError, match="multiple_of must be"):
        search.prune(multiple_of=0)
    smaller = search.prune(multiple_of=4)
    with pytest.raises(ValueError, match="pruned again and its widths filled up"):
        search.carry_(optimizer, smaller, torch.optim.SGD(smaller.parameters(), lr=0.1, momentum=0.9))


def test_rows_that_only_fill_a_group_up_are_not_written() -> None:
    model = small()
    search, optimizer = EDropout(model), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    search.loss(*batch(dtype=torch.float64))
    search.freeze()
    kept = torch.tensor([True] * 4 + [True, False, False, True] + [True, False, False, False])
    search.frozen_state = search.units.join({"5": kept})
    before = model[5].weight.detach().clone()
    search.loss(*batch(dtype=torch.float64)).backward()
    search.step(optimizer)
    assert torch.equal((model[5].weight != before).flatten(1).any(1), kept)


def test_what_a_step_does_to_gradients_stays() -> None:
    class Clears(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            super().step(closure)
            self.zero_grad(set_to_none=False)

    model = small()
    search, optimizer = EDropout(model), Clears(model.parameters(), lr=0.1)
    search.loss(*batch(dtype=torch.float64)).backward()
    search.step(optimizer)
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())
