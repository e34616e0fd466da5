"""After the freeze what is left has tensors of its own: whoever looks at the whole ones sees them up to date."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from searched_networks import batch, disturb, network
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from edropout import EDropout
from edropout.subnetworks.own import Own
from edropout.subnetworks.part import Part
from edropout.subnetworks.watched import is_watched

OPTIONS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


def frozen(model: nn.Module | None = None) -> tuple[nn.Module, EDropout, Optimizer]:
    model = network() if model is None else model
    search = EDropout(model)
    search.loss(*batch())
    search.freeze()
    return model, search, SGD(model.parameters(), **OPTIONS)


def steps(search: EDropout, optimizer: Optimizer, count: int = 3, act: Any = None) -> None:
    """Steps of a frozen search; `act` says what else happens before and after backward and after the step."""
    act = act or {}
    for number in range(count):
        optimizer.zero_grad()
        loss = search.loss(*batch(seed=number))
        act.get("after loss", int)()
        loss.backward()
        act.get("after backward", int)()
        search.step(optimizer)
        act.get("after step", int)()


def written_back_at_each_step(**actions: Callable[[nn.Module, Optimizer], Any]) -> tuple[nn.Module, Optimizer]:
    """The same steps of a network whose memory others hold: the reference."""
    model, search, optimizer = frozen()
    held = [parameter.detach() for parameter in model.parameters()]

    def then_hold(act: Callable[[nn.Module, Optimizer], Any]) -> None:
        act(model, optimizer)
        held.extend(parameter.detach() for parameter in model.parameters())

    steps(search, optimizer, act={when: lambda act=act: then_hold(act) for when, act in actions.items()})
    assert not any(map(is_watched, model.parameters()))
    return model, optimizer


def contents(model: nn.Module, optimizer: Optimizer) -> list[Tensor]:
    """All parameters and momenta, copied."""
    states = optimizer.state_dict()["state"].values()
    return [*(p.clone() for p in model.parameters()), *(state["momentum_buffer"].clone() for state in states)]


def test_between_two_steps_nobody_gathers_or_writes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    _, search, optimizer = frozen()
    steps(search, optimizer, 2)  # the second finds the momenta that the first has made
    moved = []
    monkeypatch.setattr(Own, "_seen", lambda own: moved.append(own))
    monkeypatch.setattr(
        Part, "take", lambda part, value, *_, take=Part.take: moved.append(value) or take(part, value, *_)
    )
    steps(search, optimizer, 3)
    assert len(moved) == 3 * len(search._parts)  # gradients alone
    assert all(map(is_watched, search._parts))


LOOKS: dict[str, Callable[[nn.Module], Any]] = {
    "state_dict": lambda model: model.state_dict()["2.weight"],
    "deepcopy": lambda model: copy.deepcopy(model)[2].weight,
    "data": lambda model: model[2].weight.data,
    "numpy": lambda model: torch.from_numpy(model[2].weight.detach().numpy()),
    "arithmetic": lambda model: 1 * model[2].weight,
    "list": lambda model: torch.stack([model[2].weight, model[2].weight])[0],
    "iteration": lambda model: torch.stack(list(model[2].weight)),
    "vector": lambda model: nn.utils.parameters_to_vector(model[2].parameters()).view_as(model[2].weight),
    "copy into": lambda model: torch.empty(model[2].weight.shape).copy_(model[2].weight.detach()),
}


def saved(model: nn.Module) -> Tensor:
    file = io.BytesIO()
    torch.save([*model.parameters()], file)
    file.seek(0)
    found = torch.load(file)
    assert {type(value) for value in found} == {nn.Parameter}
    return found[1 + 1]


@pytest.mark.parametrize("look", [*LOOKS.values(), saved], ids=[*LOOKS, "torch.save"])
def test_whoever_looks_sees_what_the_last_step_has_made(look: Callable[[nn.Module], Any]) -> None:
    found: list[list[Tensor]] = [[], []]
    reference, optimizer = written_back_at_each_step(
        **{"after step": lambda m, o: found[0].append(m[2].weight.clone())}
    )
    model, search, other = frozen()
    steps(search, other, act={"after step": lambda: found[1].append(look(model).detach().clone())})
    assert len(found[0]) == 3 and all(map(torch.equal, *found)) and not torch.equal(*found[0][:2])
    assert all(map(torch.equal, contents(model, other), contents(reference, optimizer)))


def test_a_network_nobody_has_looked_at_has_the_same_bits() -> None:
    model, search, optimizer = frozen()
    steps(search, optimizer)
    assert all(map(torch.equal, contents(model, optimizer), contents(*written_back_at_each_step())))


@torch.no_grad()
def shrink(model: nn.Module, optimizer: Optimizer) -> None:
    for parameter in model[2:].parameters():  # torch itself refuses it for the stem, which has not been cut
        parameter.mul_(0.9)


def shrink_data(model: nn.Module, optimizer: Optimizer) -> None:
    for parameter in model.parameters():
        parameter.data *= 0.9


def replace_data(model: nn.Module, optimizer: Optimizer) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data * 0.9


def load(model: nn.Module, optimizer: Optimizer) -> None:
    model[2:].load_state_dict({name: 0.9 * value for name, value in model[2:].state_dict().items()})


def forget_momentum(model: nn.Module, optimizer: Optimizer) -> None:
    optimizer.state.clear()


def shrink_momentum(model: nn.Module, optimizer: Optimizer) -> None:
    for state in optimizer.state.values():
        state["momentum_buffer"] *= 0.5


def load_optimizer(model: nn.Module, optimizer: Optimizer) -> None:
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    shrink_momentum(model, optimizer)


def clip(model: nn.Module, optimizer: Optimizer) -> None:
    if model[0].weight.grad is not None:
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)


@pytest.mark.parametrize("when", ["after loss", "after backward", "after step"])
@pytest.mark.parametrize(
    "change",
    [shrink, shrink_data, replace_data, load, forget_momentum, shrink_momentum, load_optimizer, clip],
    ids=lambda change: change.__name__,
)
def test_what_others_change_counts(change: Callable[[nn.Module, Optimizer], None], when: str) -> None:
    reference, expected = written_back_at_each_step(**{when: change})
    model, search, optimizer = frozen()
    steps(search, optimizer, act={when: lambda: change(model, optimizer)})
    assert all(map(torch.equal, contents(model, optimizer), contents(reference, expected)))
    untouched, search, optimizer = frozen()
    steps(search, optimizer)
    different = not torch.equal(untouched[2].weight, model[2].weight)
    assert different or (change is clip and when != "after backward")


def test_memory_that_processes_share_is_written_back_at_each_step() -> None:
    model, search, optimizer = frozen(network().share_memory())
    steps(search, optimizer)
    other, again, another = frozen()
    steps(again, another)
    for parameter, expected in zip(model.parameters(), other.parameters(), strict=True):
        assert not is_watched(parameter) and torch.equal(parameter, expected)


def test_who_holds_the_memory_sees_each_step_and_may_change_it() -> None:
    @torch.no_grad()
    def halve(views: list[Tensor]) -> None:
        for view in views:
            view *= 0.5

    found = []
    for views_of in (lambda model: [p.data for p in model.parameters()], lambda model: [*model.parameters()]):
        model, search, optimizer = frozen()
        views = views_of(model)
        steps(search, optimizer, act={"after backward": lambda views=views: halve(views)})
        found.append([view.detach().clone() for view in views])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_networks_own_forward_sees_the_last_step(mode: Any) -> None:
    reference, _ = written_back_at_each_step()
    model, search, optimizer = frozen()
    steps(search, optimizer)
    x, _ = batch()
    with mode():
        assert torch.equal(model.eval()(x), reference.eval()(x))
    steps(search, optimizer, 1)  # what was written in inference mode is an ordinary tensor


def test_transformed_and_compiled_forwards_see_the_last_step() -> None:
    reference, _ = written_back_at_each_step()
    x, _ = batch()
    for call in (torch.func.vmap, torch.func.jacrev, lambda f: torch.compile(f, backend="eager")):
        model, search, optimizer = frozen()
        steps(search, optimizer)
        one, other = (call(m.eval())(x[:, None] if call is torch.func.vmap else x[:1]) for m in (model, reference))
        assert torch.equal(one, other)


def test_a_network_is_analysed_again_for_another_size_with_the_weights_of_the_last_step() -> None:
    def start() -> tuple[nn.Module, EDropout, Optimizer]:
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 9, 3), nn.BatchNorm2d(9), nn.AdaptiveAvgPool2d(1)
        return frozen(disturb(nn.Sequential(*layers, nn.Flatten(), nn.Linear(9, 5))))

    found = []
    for look in (False, True):
        model, search, optimizer = start()
        for side in (8, 12, 8, 10):
            x = torch.randn(8, 3, side, side, generator=torch.Generator().manual_seed(side))
            optimizer.zero_grad()
            search.loss(x, torch.arange(8) % 5).backward()
            search.step(optimizer)
            if look:
                shrunk = [1 * parameter for parameter in model.parameters()]
                assert shrunk
        found.append(contents(model, optimizer))
    assert all(map(torch.equal, *found))


def test_gradients_with_respect_to_whole_weights_are_whole() -> None:
    model, search, optimizer = frozen()
    steps(search, optimizer)
    optimizer.zero_grad()
    parameters = [*model.parameters()]
    gradients = torch.autograd.grad(search.loss(*batch()), parameters)
    search.loss(*batch()).backward()
    assert all(torch.equal(g, p.grad) and g.shape == p.shape for g, p in zip(gradients, parameters, strict=True))


def test_weights_can_be_part_of_the_loss() -> None:
    found = []
    for hold in (False, True):
        model, search, optimizer = frozen()
        held = [parameter.detach() for parameter in model.parameters()] if hold else []
        for number in range(3):
            optimizer.zero_grad()
            penalty = sum(parameter.abs().sum() for parameter in model.parameters())
            (search.loss(*batch(seed=number)) + 0.01 * penalty).backward()
            search.step(optimizer)
        found.append(contents(model, optimizer))
        assert len(held) in (0, len(found[0]) // 2)
    assert all(map(torch.equal, *found))


def test_a_search_that_goes_on_from_a_checkpoint_has_the_same_bits() -> None:
    model, search, optimizer = frozen()
    steps(search, optimizer)
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict(), search.state_dict()), file)
    steps(search, optimizer)
    file.seek(0)
    kept = torch.load(file)
    again, other, update = frozen()
    for owner, state in zip((again, update, other), kept, strict=True):
        owner.load_state_dict(state)
    steps(other, update)
    assert all(map(torch.equal, contents(model, optimizer), contents(again, update)))


def test_another_final_state_starts_from_the_weights_of_the_last_one() -> None:
    found = []
    for hold in (False, True):
        model, search, optimizer = frozen()
        held = [parameter.detach() for parameter in model.parameters()] if hold else []
        steps(search, optimizer)
        search.frozen_state = search.units.repair_(~search.frozen_state)
        steps(search, optimizer)
        found.append(contents(model, optimizer))
        del held
    assert all(map(torch.equal, *found))


def test_two_searches_of_one_network_share_its_weights() -> None:
    found = []
    for hold in (False, True):
        model, search, optimizer = frozen()
        held = [parameter.detach() for parameter in model.parameters()] if hold else []
        other = EDropout(model, seed=1)
        other.loss(*batch(), evolve=False)
        other.freeze()
        for each in (search, other, search):
            steps(each, optimizer)
        found.append(contents(model, optimizer))
        del held
    assert all(map(torch.equal, *found))
