"""EDropout inside loops of other kinds: wrapping optimisers, hooks, several optimisers, accumulated gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm.optim
import torch
from searched_networks import batch, fingerprint, network
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from edropout import EDropout, Target

OPTIONS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


def scatter(search: EDropout, seed: int = 0) -> None:
    """Replaces the population, as if it had evolved for long, so that the next batch finds another best state."""
    generator = torch.Generator().manual_seed(seed)
    search.population = search.units.repair_(torch.rand(search.population.shape, generator=generator) < 0.6)
    search.energies.fill_(torch.inf)


def searching(**options: Any) -> tuple[nn.Module, EDropout]:
    model = network().double()
    return model, EDropout(model, **options)


class SharpnessAware(Optimizer):
    """Steps from where it is by the gradient at the worst point near by (Foret et al., arXiv:2010.01412)."""

    def __init__(self, base: Optimizer, radius: float = 0.1) -> None:
        super().__init__(base.param_groups, {"radius": radius})
        self.base, self.param_groups = base, base.param_groups

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        moved = [parameter for group in self.param_groups for parameter in group["params"]]
        length = torch.stack([parameter.grad.norm() for parameter in moved]).norm()
        for parameter in moved:
            self.state[parameter]["start"] = parameter.clone()
            parameter.add_(parameter.grad / (length + 1e-12), alpha=0.1)
            parameter.grad = None
        with torch.enable_grad():
            loss = closure()
        for parameter in moved:
            parameter.copy_(self.state[parameter]["start"])
        self.base.step()
        return loss


class PassesOn(Optimizer):
    """Counts calls and hands them to another optimiser, as the wrappers of training frameworks do."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer, self.calls = optimizer, []

    state = property(lambda self: self.optimizer.state)
    param_groups = property(lambda self: self.optimizer.param_groups)
    defaults = property(lambda self: self.optimizer.defaults)

    def step(self, closure: Callable[[], Tensor] | None = None) -> None:
        self.calls.append(len(self.calls))
        self.optimizer.step(closure)


def test_wrapped_momentum_goes_on_and_no_state_is_left_behind() -> None:
    """Lookahead that never looks is SGD: five steps of it equal those of the pruned network."""
    model, search = searching()
    optimizer = timm.optim.Lookahead(SGD(model.parameters(), **OPTIONS), k=1000)
    x, y = batch(dtype=torch.float64)
    search.loss(x, y)
    search.freeze()
    twin = search.prune().train()
    other = SGD(twin.parameters(), **OPTIONS)
    for _ in range(5):
        for loss, update, step in (
            (search.loss(x, y), optimizer, search.step),
            (nn.functional.cross_entropy(twin(x), y), other, Optimizer.step),
        ):
            update.zero_grad()
            loss.backward()
            other.step() if update is other else step(update)
    found = dict(search.prune().named_parameters())
    assert all(torch.allclose(found[name], value, rtol=0, atol=1e-12) for name, value in twin.named_parameters())
    assert len(optimizer.state_dict()["state"]) == len(list(model.parameters()))


@pytest.mark.parametrize("frozen", [True, False])
def test_a_sharpness_aware_step_is_the_pruned_networks(frozen: bool) -> None:
    model, search = searching()
    optimizer = SharpnessAware(SGD(model.parameters(), **OPTIONS))
    for step in range(4):
        x, y = batch(seed=step, dtype=torch.float64)
        if not frozen:
            scatter(search, step)
        search.loss(x, y).backward()
        if frozen and step == 0:
            search.freeze()
        twin = search.prune().train()
        other = SharpnessAware(SGD(twin.parameters(), **OPTIONS))
        if step:
            search.carry_(optimizer, twin, other)

        def again(compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
            def closure() -> Tensor:
                loss = compute()
                loss.backward()
                return loss

            return closure

        nn.functional.cross_entropy(twin(x), y).backward()
        found = search.step(optimizer, closure=again(lambda x=x, y=y: search.loss(x, y)))
        expected = other.step(again(lambda x=x, y=y, twin=twin: nn.functional.cross_entropy(twin(x), y)))
        assert abs(found.item() - expected.item()) < 1e-12
        pruned = dict(search.prune().named_parameters())
        assert all(torch.allclose(pruned[n], value, rtol=0, atol=1e-12) for n, value in twin.named_parameters())
        optimizer.zero_grad()


def test_a_wrapper_that_passes_calls_on_is_called_once_for_each_step() -> None:
    model, search = searching()
    wrapper = PassesOn(SGD(model.parameters(), **OPTIONS))
    plain, same = searching()
    optimizer = SGD(plain.parameters(), **OPTIONS)
    for step in range(3):
        search.loss(*batch(seed=step, dtype=torch.float64)).backward()
        search.step(wrapper)
        same.loss(*batch(seed=step, dtype=torch.float64)).backward()
        same.step(optimizer)
    assert wrapper.calls == [0, 1, 2] and fingerprint(model) == fingerprint(plain)


@pytest.fixture
def seen_globally() -> Iterator[list]:
    seen: list = []
    handle = register_optimizer_step_pre_hook(lambda optimizer, args, kwargs: seen.append(shapes(optimizer)))
    yield seen
    handle.remove()


def shapes(optimizer: Optimizer) -> list[torch.Size]:
    return [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]


def test_hooks_of_the_step_see_whole_parameters_and_what_they_change_stays(seen_globally: list) -> None:
    model, search = searching()
    optimizer = SGD(model.parameters(), **OPTIONS)
    whole, before, after = shapes(optimizer), [], []
    average = [parameter.detach().clone() for parameter in model.parameters()]

    @torch.no_grad()
    def follow(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        after.append(shapes(optimizer))
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.clamp_(-0.1, 0.1)
        for mean, parameter in zip(average, model.parameters(), strict=True):
            mean.lerp_(parameter, 0.5)

    optimizer.register_step_pre_hook(lambda optimizer, args, kwargs: before.append(shapes(optimizer)))
    optimizer.register_step_post_hook(follow)
    expected = [value.clone() for value in average]
    for step in range(3):
        search.loss(*batch(seed=step, dtype=torch.float64)).backward()
        search.step(optimizer)
        for mean, parameter in zip(expected, model.parameters(), strict=True):
            mean.lerp_(parameter.detach(), 0.5)
    assert before == after == seen_globally == [whole] * 3
    assert max(parameter.abs().max() for parameter in model.parameters()) <= 0.1
    assert all(map(torch.equal, average, expected))


def test_hooks_are_not_called_for_a_step_that_a_scaler_leaves_out() -> None:
    model, search = searching()
    optimizer, calls = SGD(model.parameters(), **OPTIONS), []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for factor in (float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(search.loss(*batch(dtype=torch.float64)) * factor).backward()
        search.step(optimizer, scaler=scaler)
        scaler.update()
    assert calls == [1]


@pytest.mark.parametrize("scaled", [False, True])
def test_several_optimisers_share_one_step_of_the_search(scaled: bool) -> None:
    found = []
    for count in (1, 2):
        model, search = searching(target=Target(kept=0.5, warm_up=2, steps=6))
        own = list(model.parameters())
        optimizers = [SGD(own, **OPTIONS)] if count == 1 else [SGD(own[1::2], **OPTIONS), SGD(own[::2], **OPTIONS)]
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if scaled and count == 2 else None
        for step in range(6):
            loss = search.loss(*batch(seed=step, dtype=torch.float64))
            for optimizer in optimizers:
                optimizer.zero_grad()
            (loss if scaler is None else scaler.scale(loss)).backward()
            for optimizer in optimizers:
                search.step(optimizer, scaler=scaler)
            if scaler is not None:
                scaler.update()
        found.append((search.scores, *model.parameters()))
        assert search.steps == 6
    assert all(torch.allclose(one, other, rtol=1e-10, atol=1e-14) for one, other in zip(*found, strict=True))


def test_a_left_out_step_leaves_the_scores_finite() -> None:
    model, search = searching(target=Target(kept=0.5, warm_up=2, steps=6))
    optimizer, scaler = SGD(model.parameters(), **OPTIONS), torch.amp.GradScaler("cpu")
    scaler.scale(search.loss(*batch(dtype=torch.float64)) * torch.inf).backward()
    search.step(optimizer, scaler=scaler)
    assert bool(search.scores.isfinite().all())


@pytest.mark.parametrize("options", [{}, {"reevaluate_every": 1}], ids=str)
def test_gradients_of_one_step_belong_to_one_state(options: dict) -> None:
    model, search = searching(**options)
    optimizer = SGD(model.parameters(), **OPTIONS)
    for step in range(4):
        scatter(search, step)
        optimizer.zero_grad()
        states = []
        for micro in range(3):
            x, y = batch(seed=10 * step + micro, dtype=torch.float64)
            (search.loss(x, y) / 3).backward()
            states.append(search.best_state.tolist())
        assert states == states[:1] * 3 and search.steps == step + 1
        search.step(optimizer)
    before = search.population.clone()
    scatter(search, 9)
    search.loss(x, y, evolve=False)
    assert search.steps == 4 and not torch.equal(before, search.population)
    for more in (1, 2):
        search.loss(x, y, evolve=True)
        assert search.steps == 4 + more


def test_resuming_between_two_micro_batches_does_not_evolve_again() -> None:
    model, search = searching()
    search.loss(*batch(dtype=torch.float64))
    again = EDropout(copy.deepcopy(model))
    again.load_state_dict(search.state_dict())
    again.loss(*batch(seed=1, dtype=torch.float64))
    assert again.steps == 1 and torch.equal(again.population, search.population)
