"""What cut layers compute is what the whole ones compute under masks: outputs, gradients, states."""

from __future__ import annotations

import copy

import pytest
import torch
from dense import (
    BATCH,
    PATTERNS,
    LanguageModel,
    language_outputs,
    mlp,
    mlp_outputs,
    name_of,
    state,
    tokens,
)
from torch import Tensor, nn

from dropouts.approximate import ApproximateDropout, Blocks, Rows, SomeBlocks, Tiles, maximum_entropy

ROUNDS = 6  # Patterns of other periods and offsets.


def gradients(approximate: ApproximateDropout) -> dict[str, Tensor]:
    """Gradients in the shape of the parameters, zero where nothing was kept."""
    found = {}
    for name, parameter in approximate.network.named_parameters():
        leaf = approximate.iteration.leaves.get(parameter)
        full = torch.zeros_like(parameter) if leaf is not None or parameter.grad is None else parameter.grad
        if leaf is not None:
            leaf.cut.put_(full, leaf.value.grad)
        found[name] = full.clone()
        parameter.grad = None
    return found


def copies(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone().requires_grad_() for name, parameter in network.named_parameters()}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, value in ours.items():
        expected = theirs[name].grad
        expected = torch.zeros_like(value) if expected is None else expected
        torch.testing.assert_close(
            value, expected, rtol=1e-10, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("pattern", [*PATTERNS, Rows(maximum_entropy), Blocks(maximum_entropy)], ids=name_of)
def test_an_mlp_is_the_masked_one(pattern, shared):
    torch.manual_seed(0)
    largest = pattern.largest(0.6)
    approximate = ApproximateDropout(mlp(), pattern=pattern, shared=shared)
    for _ in range(ROUNDS):
        x, weights = torch.randn(5, 11, dtype=torch.float64, requires_grad=True), copies(approximate.network)
        again = x.detach().clone().requires_grad_()
        y = approximate.network(x)
        expected = mlp_outputs(approximate, weights, again)
        torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
        (y**2).sum().backward()
        (expected**2).sum().backward()
        torch.testing.assert_close(x.grad, again.grad, rtol=1e-10, atol=1e-10)
        assert_same(gradients(approximate), weights)
        approximate.discard()
    assert largest > 1


@pytest.mark.parametrize(
    ("pattern", "recurrent"), [*((p, False) for p in PATTERNS), *((p, True) for p in PATTERNS[:3])], ids=name_of
)
@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model_is_the_masked_one(pattern, recurrent, tied):
    torch.manual_seed(0)
    approximate = ApproximateDropout(LanguageModel(tied=tied), pattern=pattern, recurrent=recurrent)
    for _ in range(ROUNDS):
        weights = copies(approximate.network)
        if tied:
            weights["words.weight"] = weights["embedding.weight"]
        ours, theirs = ([value.requires_grad_() for value in state()] for _ in range(2))
        y, last = approximate.network(tokens(), tuple(ours))
        expected, expected_last = language_outputs(approximate, weights, tokens(), tuple(theirs))
        for one, other in zip((y, *last), (expected, *expected_last), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
        for outputs, final in ((y, last), (expected, expected_last)):
            ((outputs**2).sum() + (final[0] ** 3).sum() + (final[1] ** 2).sum()).backward()
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-10)
        assert_same(gradients(approximate), weights)
        approximate.discard()


@pytest.mark.parametrize("recurrent", [False, True])
def test_batch_first_and_no_state_are_as_torchs(recurrent):
    torch.manual_seed(0)
    first = LanguageModel(batch_first=True)
    time_first = LanguageModel()
    time_first.load_state_dict(first.state_dict())
    outputs = []
    for network, x in ((first, tokens().t()), (time_first, tokens())):
        torch.manual_seed(5)
        y, last = ApproximateDropout(network, recurrent=recurrent).network(x)
        assert last[0].shape == (2, BATCH, 37)
        outputs.append(y.transpose(0, 1) if x.shape[0] == BATCH else y)
    torch.testing.assert_close(*outputs)


@pytest.mark.parametrize("pattern", [Blocks(), SomeBlocks(4), Tiles(size=4)], ids=name_of)
def test_rate_0_is_the_plain_network(pattern):
    network = mlp(0.0)
    x = torch.randn(5, 11, dtype=torch.float64)
    expected = network(x)
    torch.testing.assert_close(ApproximateDropout(network, pattern=pattern).network(x), expected)


@pytest.mark.parametrize("build", [mlp, LanguageModel])
@pytest.mark.parametrize("pattern", PATTERNS, ids=name_of)
def test_evaluation_is_the_plain_network_bit_for_bit(build, pattern):
    network = build()
    x = torch.randn(5, 11, dtype=torch.float64) if build is mlp else tokens()
    plain = copy.deepcopy(network).eval()(x)
    ours = ApproximateDropout(network, pattern=pattern).network.eval()(x)
    assert torch.equal(*(value[0] if isinstance(value, tuple) else value for value in (plain, ours)))


@pytest.mark.parametrize("pattern", PATTERNS, ids=name_of)
@pytest.mark.parametrize("build", [mlp, LanguageModel])
def test_under_autocast_it_is_the_same_up_to_rounding(build, pattern):
    torch.manual_seed(0)
    network = build().float()
    approximate = ApproximateDropout(network, pattern=pattern)
    x = torch.randn(5, 11) if build is mlp else tokens()
    outputs = []
    for precise in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            y = network(x)
        y = y[0] if isinstance(y, tuple) else y
        y.float().square().mean().backward()
        outputs.append((y.detach().float(), *gradients(approximate).values()))
        for leaf in approximate.iteration.leaves.values():
            leaf.value.grad = None
    for one, other in zip(*outputs, strict=True):
        assert float((one - other).norm()) <= 0.2 * float(one.norm())


class Branches(nn.Module):
    """Dropout whose units something else reads as well, before or behind; a dropout with no layer next to it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.drop, self.behind, self.alone = nn.Dropout(0.5), nn.Dropout(0.5), nn.Dropout(0.0)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.one(x).relu()
        y = self.two(self.drop(hidden)) + hidden  # The giver's units are read by the sum too: it stays whole.
        return self.alone(self.behind(self.three(y)) + y)  # No linear layer reads these: zeros in their places.


def test_units_that_others_use_too_stay_whole():
    torch.manual_seed(0)
    network = Branches()
    approximate = ApproximateDropout(network)
    x = torch.randn(4, 6, dtype=torch.float64)
    y = approximate.network(x)
    kept = []
    for place in approximate.places:
        kept.append(torch.zeros(6, dtype=torch.float64))
        kept[-1][approximate.iteration.kept(place).units] = 2.0
    hidden = nn.functional.linear(x, network.one.weight, network.one.bias).relu()
    middle = nn.functional.linear(hidden * kept[0], network.two.weight, network.two.bias) + hidden
    expected = nn.functional.linear(middle, network.three.weight, network.three.bias) * kept[1] + middle
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    y.sum().backward()
    assert {p.shape for p in approximate.iteration.leaves} == {(6, 6), (6,)} and network.one.weight.grad is not None


class Shortcut(nn.Module):
    """Dropped units that a linear layer reads, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.drop, self.two = nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        dropped = self.drop(self.one(x))
        return self.two(dropped) + dropped


def test_units_that_a_sum_reads_beside_a_layer_come_with_their_zeros():
    network = Shortcut()
    approximate = ApproximateDropout(network)
    x = torch.randn(4, 6)
    y = network(x)
    kept = torch.zeros(6)
    kept[approximate.iteration.kept(approximate.places[0]).units] = 2.0
    dropped = nn.functional.linear(x, network.one.weight, network.one.bias) * kept
    torch.testing.assert_close(y, nn.functional.linear(dropped, network.two.weight, network.two.bias) + dropped)
