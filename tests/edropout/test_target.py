"""The descent to a target share of parameters."""

from __future__ import annotations

import pytest
import torch
from searched_networks import build, disturb, small_network
from torch import nn

from edropout import EDropout, Target, Units
from edropout.target import count_for_share, hold, unit_scores


def run(kept: float, informed: bool = True) -> EDropout:
    torch.manual_seed(0)
    model = disturb(small_network(40))
    search = EDropout(model, target=Target(kept, warm_up=2, steps=8, stages=4, informed=informed))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(12):
        loss = search.loss(torch.randn(8, 3, 8, 8), torch.arange(8) % 5)
        optimizer.zero_grad()
        loss.backward()
        search.step(optimizer)
    return search


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.2, 0.1])
@pytest.mark.parametrize("informed", [True, False])
def test_the_target_is_reached_within_two_points(kept: float, informed: bool) -> None:
    search = run(kept, informed)
    search.freeze()
    # A hidden linear layer that is no unit is a floor: 40 x 16 x 10 of its parameters follow the last convolution.
    assert abs(search.kept_ratio().physical - kept) < 0.02


def test_all_states_keep_the_units_of_their_stage() -> None:
    search = run(0.5)
    counts = search.population.sum(1)
    assert (counts == counts[0]).all() and counts[0] < search.units.num_units


def test_warm_up_trains_the_full_network() -> None:
    search = EDropout(small_network(), target=Target(0.5, warm_up=1, steps=2))
    search.loss(torch.randn(4, 3, 8, 8), torch.arange(4))
    assert search.best_state.all() and not search.frozen


def test_the_share_falls_from_one_to_the_target() -> None:
    target = Target(0.2, warm_up=10, steps=100, stages=4)
    assert [target.stage(step) for step in (0, 9, 10, 35, 109, 1000)] == [0, 0, 1, 2, 4, 4]
    assert [round(target.share(stage), 4) for stage in (0, 2, 4)] == [1.0, 0.3, 0.2]


def test_without_noise_the_highest_scores_stay() -> None:
    target = Target(0.5, warm_up=0, steps=1, proposed=0.0, noise=0.0)
    states = torch.ones(2, 5, dtype=torch.bool)
    held = hold(states, 2, torch.tensor([0.1, 0.5, 0.3, 0.9, 0.2]), target, torch.Generator())
    assert held.tolist() == [[False, True, False, True, False]] * 2


def test_the_number_of_units_is_the_nearest_one() -> None:
    assert count_for_share(0.52, 10, lambda count: count / 10) == 5
    assert count_for_share(0.58, 10, lambda count: count / 10) == 6


def test_a_score_is_minus_the_derivative_of_the_loss_with_respect_to_the_gate() -> None:
    model = disturb(small_network()).double()
    units = Units(model)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    gates = {"3": torch.ones(6, dtype=torch.float64), "6": torch.ones(6, dtype=torch.float64)}
    for name, gate in gates.items():
        gate.requires_grad_()
        model[int(name)].register_forward_hook(lambda _, __, y, gate=gate: y * gate[:, None, None])
    column_gate = torch.ones(10, dtype=torch.float64, requires_grad=True)
    model[11].register_forward_pre_hook(lambda _, args: (args[0] * column_gate,))
    model(x).square().mean().backward()
    scores = unit_scores(units, dict(model.named_modules()), {"2": ["3"]}, set(model.parameters()))
    expected = -torch.cat([gates["3"].grad, gates["6"].grad, column_gate.grad])
    assert torch.allclose(scores, expected, atol=1e-12)


@pytest.mark.parametrize("kept", [0.0, 1.5])
def test_a_target_out_of_range_is_refused(kept: float) -> None:
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        Target(kept, warm_up=0, steps=1)


def test_resnet_reaches_ten_percent() -> None:
    model: nn.Module = build("resnet18")
    search = EDropout(model, target=Target(0.1, warm_up=1, steps=1, stages=1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss = search.loss(torch.randn(4, 3, 32, 32), torch.arange(4))
    loss.backward()
    search.step(optimizer)
    search.freeze()
    assert abs(search.kept_ratio().physical - 0.1) < 0.02
