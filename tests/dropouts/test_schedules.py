"""A rate that follows the training: early, late and ramped, resumable, for fixed and learned rates."""

import pytest
import torch
from torch import nn

import dropouts


def test_shapes_of_the_schedules():
    early, late, ramp = dropouts.early(0.5), dropouts.late(0.5), dropouts.ramp(0.5)
    assert [early(p) for p in (0, 0.25, 0.5, 1)] == [1, 0.5, 0, 0]
    assert [late(p) for p in (0, 0.49, 0.5, 1)] == [0, 0, 1, 1]
    assert [ramp(p) for p in (0, 0.25, 0.5, 1)] == [0, 0.5, 1, 1]


@pytest.mark.parametrize("make", [dropouts.early, dropouts.late, dropouts.ramp])
@pytest.mark.parametrize("cutoff", [0.0, 1.1, -1.0])
def test_a_cutoff_outside_the_training_is_refused(make, cutoff):
    with pytest.raises(ValueError, match="cutoff must be more than 0 and at most 1"):
        make(cutoff)


@pytest.mark.parametrize(
    "layer",
    [
        dropouts.Bernoulli(0.4),
        dropouts.Gaussian(0.4),
        dropouts.Uout(0.4),
        dropouts.DropBlock(0.4),
        dropouts.DropConnect(nn.Linear(2, 2), rate=0.4),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_fixed_rate_is_scaled(layer):
    scheduled = dropouts.Scheduled(layer, dropouts.early(0.5))
    assert layer.rate == 0.4
    scheduled.set_position(0.25)
    assert layer.rate == pytest.approx(0.2)
    scheduled.set_position(0.75)
    assert layer.rate == 0


def test_a_learned_rate_is_switched_with_its_penalty():
    layer = dropouts.Variational(3)
    scheduled = dropouts.Scheduled(layer, dropouts.late(0.5))
    x = torch.ones(2, 3)
    assert torch.equal(scheduled(x), x) and dropouts.penalty(scheduled).item() == 0
    scheduled.set_position(0.5)
    assert not torch.equal(scheduled(x), x)
    assert torch.equal(dropouts.penalty(scheduled), layer.penalty())
    assert torch.equal(scheduled.eval()(x), x)
    scheduled.set_position(0.6)
    assert torch.equal(scheduled(x), x)  # a move in evaluation mode switches nothing on
    assert not torch.equal(scheduled.train()(x), x)


def test_the_position_is_part_of_the_state():
    first = dropouts.Scheduled(dropouts.Gaussian(0.4), dropouts.early(0.5))
    first.set_position(0.25)
    second = dropouts.Scheduled(dropouts.Gaussian(0.4), dropouts.early(0.5))
    second.load_state_dict(first.state_dict())
    assert second.dropout.rate == first.dropout.rate == pytest.approx(0.2)


def test_every_scheduled_layer_of_a_network_is_told():
    network = nn.Sequential(*[dropouts.Scheduled(dropouts.Gaussian(0.4), dropouts.ramp()) for _ in range(2)])
    dropouts.set_position(network, 0.5)
    assert [layer.dropout.rate for layer in network] == [0.2, 0.2]
