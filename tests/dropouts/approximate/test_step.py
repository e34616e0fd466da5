"""A step moves what was kept exactly as a whole step under masks would, and nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from dense import LanguageModel, mlp, name_of, tokens
from torch import Tensor, nn

from dropouts.approximate import ApproximateDropout, Blocks, Rows, SomeBlocks, Tiles

PATTERNS = [Blocks(), Rows(), SomeBlocks(8), Tiles(size=8)]
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "plain sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "fused sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, fused=True),
    "foreach sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
}


def backward(approximate: ApproximateDropout) -> None:
    network = approximate.network
    for parameter in network.parameters():
        parameter.grad = None
    if isinstance(network, LanguageModel):
        (network(tokens())[0] ** 2).mean().backward()
    else:
        (network(torch.randn(5, 11, dtype=torch.float64)) ** 2).mean().backward()


def whole_step(optimizer: torch.optim.Optimizer, theirs: nn.Module, approximate: ApproximateDropout) -> None:
    """The optimiser's ordinary step on a copy, after which what was not kept is as before, its state too."""
    names = {parameter: name for name, parameter in approximate.network.named_parameters()}
    target = dict(theirs.named_parameters())
    undo: list[tuple[Tensor, Tensor, Tensor]] = []
    for parameter, name in names.items():
        leaf, copied = approximate.iteration.leaves.get(parameter), target[name]
        copied.grad = parameter.grad
        if leaf is not None:
            copied.grad, kept = torch.zeros_like(copied), torch.zeros_like(copied)
            leaf.cut.put_(copied.grad, leaf.value.grad)
            leaf.cut.put_(kept, torch.ones_like(leaf.value))
            follow = [v for v in optimizer.state.get(copied, {}).values() if v is not None and v.shape == copied.shape]
            undo += [(value, value.detach().clone(), kept == 0) for value in (copied, *follow)]
    fresh = {parameter for parameter in target.values() if parameter not in optimizer.state}
    optimizer.step()
    with torch.no_grad():
        for value, before, away in undo:
            value[away] = before[away]
        for parameter, name in names.items():
            if (leaf := approximate.iteration.leaves.get(parameter)) and (copied := target[name]) in fresh:
                kept = torch.zeros_like(copied)
                leaf.cut.put_(kept, torch.ones_like(leaf.value))
                for value in optimizer.state.get(copied, {}).values():
                    if isinstance(value, Tensor) and value.shape == copied.shape:
                        value[kept == 0] = 0


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=name_of)
def test_steps_are_those_of_the_masked_network_and_leave_the_rest(pattern, name):
    torch.manual_seed(0)
    network = mlp()
    theirs = copy.deepcopy(network)
    approximate = ApproximateDropout(network, pattern=pattern)
    optimizer, reference = OPTIMIZERS[name](network.parameters()), OPTIMIZERS[name](theirs.parameters())
    for _ in range(6):
        backward(approximate)
        whole_step(reference, theirs, approximate)
        approximate.step(optimizer)
        for ours, other in zip(network.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-12)
    states, expected = optimizer.state_dict()["state"], reference.state_dict()["state"]
    assert states.keys() == expected.keys()
    for number in states:
        torch.testing.assert_close(states[number], expected[number], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS[:3], ids=name_of)
def test_an_lstm_moves_only_what_it_kept(pattern, recurrent):
    torch.manual_seed(0)
    network = LanguageModel()
    theirs = copy.deepcopy(network)
    approximate = ApproximateDropout(network, pattern=pattern, recurrent=recurrent)
    optimizer, reference = (OPTIMIZERS["sgd"](n.parameters()) for n in (network, theirs))
    for _ in range(3):
        backward(approximate)
        whole_step(reference, theirs, approximate)
        approximate.step(optimizer)
    for (name, ours), other in zip(network.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


def test_a_step_that_is_not_lazy_is_the_optimisers_own():
    torch.manual_seed(0)
    network = mlp()
    theirs = copy.deepcopy(network)
    approximate = ApproximateDropout(network)
    optimizer, reference = (OPTIMIZERS["sgd"](n.parameters()) for n in (network, theirs))
    for _ in range(4):
        backward(approximate)
        for ours, other in zip(network.parameters(), theirs.parameters(), strict=True):
            other.grad = ours.grad
            if (leaf := approximate.iteration.leaves.get(ours)) is not None:
                other.grad = torch.zeros_like(other)
                leaf.cut.put_(other.grad, leaf.value.grad)
        reference.step()
        approximate.step(optimizer, lazy=False)
        assert all(p.grad is None for p in (network[0].weight, network[3].weight, network[6].weight))
    for ours, other in zip(network.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS, ids=name_of)
def test_gradients_from_elsewhere_count_too(pattern, lazy):
    """A penalty on all weights, and a weight that is used once more past its layer."""
    torch.manual_seed(0)
    network = mlp()
    theirs = copy.deepcopy(network)
    approximate = ApproximateDropout(network, pattern=pattern)
    backward(approximate)
    for ours, other in zip(network.parameters(), theirs.parameters(), strict=True):
        gradient = torch.zeros_like(other) if ours.grad is None else ours.grad.clone()
        if (leaf := approximate.iteration.leaves.get(ours)) is not None:
            leaf.cut.put_(gradient, leaf.value.grad)
        other.grad = gradient
    for net in (network, theirs):
        (sum((parameter**2).sum() for parameter in net.parameters()) + net[3].weight.sum()).backward()
    assert sum(1 for _ in approximate.parameters()) == 6 + len(approximate.iteration.leaves)
    optimizer, reference = (OPTIMIZERS["sgd"](n.parameters()) for n in (network, theirs))
    approximate.step(optimizer, lazy=lazy)
    reference.step()
    for ours, other in zip(network.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-12, atol=1e-14)


def test_clipping_what_parameters_yields_clips_the_step():
    torch.manual_seed(0)
    network = mlp()
    approximate, optimizer = ApproximateDropout(network), torch.optim.SGD(network.parameters(), lr=1.0)
    backward(approximate)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    nn.utils.clip_grad_norm_(approximate.parameters(), 1e-3)
    approximate.step(optimizer)
    moved = torch.cat([(p - old).flatten() for p, old in zip(network.parameters(), before, strict=True)])
    assert float(moved.detach().norm()) == pytest.approx(1e-3, rel=1e-3)


def test_two_batches_add_up_under_one_pattern_when_that_is_wanted():
    torch.manual_seed(0)
    one, two = mlp(), mlp()
    two.load_state_dict(one.state_dict())
    x = torch.randn(6, 11, dtype=torch.float64)
    for network, parts in ((one, [x]), (two, x.split(3))):
        torch.manual_seed(7)
        approximate = ApproximateDropout(network, accumulate=len(parts) > 1)
        for part in parts:
            (network(part) ** 2).sum().backward()
        approximate.step(torch.optim.SGD(network.parameters(), lr=0.1))
    for ours, other in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(ours, other)


def test_a_forgotten_step_is_noticed():
    network = mlp()
    approximate, optimizer = ApproximateDropout(network), torch.optim.SGD(network.parameters(), lr=0.1)
    backward(approximate)
    optimizer.step()  # Sees none of the gradients.
    with pytest.raises(RuntimeError, match=r"call ApproximateDropout.step\(optimizer\) in the place of optimizer"):
        backward(approximate)
    approximate.discard()
    backward(approximate)


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.Adafactor, torch.optim.Rprop])
def test_an_optimiser_that_cannot_step_on_parts_is_refused(kind):
    network = mlp()
    approximate = ApproximateDropout(network)
    backward(approximate)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match=f"{kind.__name__} cannot step on parts of matrices"):
        approximate.step(kind(network.parameters()))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_failing_step_leaves_the_optimiser_with_its_own_parameters():
    class Failing(torch.optim.SGD):
        def step(self, closure=None):
            raise RuntimeError("no")

    network = mlp()
    approximate, optimizer = ApproximateDropout(network), Failing(network.parameters(), lr=0.1, fused=True)
    backward(approximate)
    with pytest.raises(RuntimeError, match="no"):
        approximate.step(optimizer)
    group = optimizer.param_groups[0]
    assert all(a is b for a, b in zip(group["params"], network.parameters(), strict=True)) and group["fused"]
    assert not optimizer.state


def test_frozen_parameters_stay_frozen():
    network = mlp()
    network[3].weight.requires_grad_(False)
    before = network[3].weight.clone()
    approximate = ApproximateDropout(network)
    backward(approximate)
    approximate.step(OPTIMIZERS["sgd"](network.parameters()))
    assert torch.equal(network[3].weight, before)
