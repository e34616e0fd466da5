"""Trained networks of two theorems: the regulariser by enumeration, one step by hand, errors of known networks."""

import itertools

import pytest
import torch
from torch import nn

from dropouts.bernoulli import Bernoulli
from theory import hidden_layer, relu_networks
from theory.hidden_layer import Images


def test_expected_loss_of_a_hidden_layer_is_the_mean_over_all_masks():
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Identity(), nn.Linear(4, 2)).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, generator=generator)
    x, y = (torch.randn(5, size, generator=generator, dtype=torch.float64) for size in (3, 2))
    images, keep_rate = Images(x, y), 0.8
    bare, added = hidden_layer.loss(network, images), hidden_layer.regulariser(network, x)
    mean = 0.0
    for mask in itertools.product([0.0, 1.0], repeat=4):
        kept = torch.tensor(mask, dtype=torch.float64)
        masked = nn.Sequential(network[0], network[1], _Times(kept / keep_rate), network[3])
        weight = keep_rate ** kept.sum() * (1 - keep_rate) ** (4 - kept.sum())
        mean += weight * hidden_layer.loss(masked, images)
    torch.testing.assert_close(bare + (1 - keep_rate) / keep_rate * added, mean, rtol=1e-12, atol=0)


class _Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def test_dropout_shrinks_the_regulariser_of_a_small_network(monkeypatch):
    monkeypatch.setattr(hidden_layer, "HIDDEN", 32)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 10, generator=generator)
    images = Images(x, nn.functional.one_hot((x[:, 0] > 0).long(), 2).float())
    found = {
        rate: hidden_layer.describe(hidden_layer.train(images, rate, 1), rate, images, images) for rate in (0.3, 1)
    }
    assert found[0.3]["regulariser"] < found[1]["regulariser"]
    for values in found.values():
        assert values["monte_carlo"] == pytest.approx(values["closed_form"], rel=0.05)


def test_points_keep_their_distance_from_the_plane_of_their_teacher():
    generator = torch.Generator().manual_seed(0)
    teachers = nn.functional.normalize(torch.randn(3, 20, generator=generator), dim=1)
    x, y = relu_networks.examples(teachers, 500, 0.1, generator)
    assert x.shape == (3, 500, 20) and y.shape == (3, 500)
    torch.testing.assert_close(x.norm(dim=2), torch.ones(3, 500))
    distance = (x * teachers[:, None]).sum(2)
    assert (distance * y >= 0.1 - 1e-6).all() and {-1.0, 1.0} == set(y.flatten().tolist())


def test_one_step_is_what_it_is_by_hand():
    """Two units of output weights 1 and -1, the second one asleep: f = 2, so the step is 1 / (1 + e^2) times x."""
    w = torch.tensor([[[2.0, 0.0], [-1.0, 0.0]]])
    signs, x, y = torch.tensor([[1.0, -1.0]]), torch.tensor([[[1.0, 0.0]]]), torch.tensor([[1.0]])
    [after] = relu_networks.train(x, y, signs, w, Bernoulli(0.0))
    step = 1 / (1 + torch.e**2)
    torch.testing.assert_close(after, torch.tensor([[[2.0 + step, 0.0], [-1.0, 0.0]]]))
    assert w[0, 0, 0] == 2, "the weights at the start are not changed"


def test_a_network_that_is_the_teacher_makes_no_error_and_its_negative_nothing_else():
    generator = torch.Generator().manual_seed(0)
    teachers = nn.functional.normalize(torch.randn(2, 20, generator=generator), dim=1)
    x, y = relu_networks.examples(teachers, 300, 0.03, generator)
    w = torch.stack([teachers, -teachers], dim=1)
    signs = torch.tensor([1.0, -1.0]).expand(2, 2)
    dropout = Bernoulli(0.5, generator=generator)
    assert relu_networks.errors(w, signs, x, y, dropout)["full"] == 0
    assert relu_networks.errors(w, -signs, x, y, dropout)["full"] == 1
    assert 0 < relu_networks.errors(w, signs, x, y, dropout)["sub"] < 1
