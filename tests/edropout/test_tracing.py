"""What makes a network hard to follow: changes in place, views, buffers, tensors made on the way, and the mode."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import assert_energies_of_masked_networks, disturb
from torch import Tensor, nn

from edropout import EDropout, Units, mask_, prune


class Network(nn.Module):
    """A stem that all states share, two layers with units, and a head; `middle` is what a test is about."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.identity, self.pool = nn.Conv2d(3, 6, 3, padding=1), nn.Identity(), nn.AvgPool2d(1)
        self.one, self.other, self.norm = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.classify = nn.Linear(6, 5)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.norm(self.other(self.middle(self.stem(x)))).mean((2, 3)))


class ChangesAView(Network):
    def middle(self, x: Tensor) -> Tensor:
        y = self.identity(x)
        return self.one(x * 1.0) + torch.relu_(y)


class ReadsBeforeTheChange(Network):
    def middle(self, x: Tensor) -> Tensor:
        gate = self.one(x.mean((2, 3), keepdim=True).sigmoid())
        x *= gate
        return x


class ChangesWhatIsReadAgain(Network):
    def middle(self, x: Tensor) -> Tensor:
        return self.one(x.relu_()) + x


class ChangesThroughAView(Network):
    def middle(self, x: Tensor) -> Tensor:
        before = self.identity(x)
        x += self.one(x.clone())
        return self.one.bias.view(1, -1, 1, 1) * before + x


class Counts(Network):
    def middle(self, x: Tensor) -> Tensor:
        return self.one(x * self.calls.add_(1).clamp(1, 1))


class ScalesByMode(Network):
    def middle(self, x: Tensor) -> Tensor:
        return self.one(x).relu().mul(2.0 if self.training else 3.0)


class MakesATensor(Network):
    def middle(self, x: Tensor) -> Tensor:
        return self.one(x + torch.arange(6).view(1, -1, 1, 1) * (self.calls + 1))


class AddsNoise(Network):
    def middle(self, x: Tensor) -> Tensor:
        return self.one(x + torch.rand(1))


class PoolsFeatures(Network):
    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Linear(3, 5)
        self.features = nn.MaxPool1d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(self.norm(self.one(self.stem(x))).mean((2, 3))))


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64), torch.arange(8) % 5


@pytest.mark.parametrize("make", [ChangesAView, ReadsBeforeTheChange, PoolsFeatures, ScalesByMode, MakesATensor])
def test_energies_and_pruned_network_are_exact(make: type[Network]) -> None:
    model, (x, y) = disturb(make()).double(), batch()
    search = EDropout(model)
    if make is ScalesByMode:
        model.eval()  # energies are computed in eval mode, but for the batch norms
        model.norm.train()
    assert_energies_of_masked_networks(search, x, y)
    kept = search.units.kept(search.best_state)
    for training in (False, True):
        masked = copy.deepcopy(model).train(training)
        smaller = prune(masked, kept, x)
        mask_(masked, kept)
        assert (smaller(x) - masked(x)).abs().max().item() < 1e-10


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (ChangesWhatIsReadAgain, "'relu_' changes a value in place that others read"),
        (ChangesThroughAView, "torch.fx follows it to another output"),
        (AddsNoise, "a tensor that changes from call to call"),
    ],
)
def test_what_cannot_be_followed_exactly_is_refused(make: type[Network], sentence: str) -> None:
    model, (x, y) = make().double(), batch()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=sentence):
        EDropout(model).loss(x, y)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_network_reads_the_buffer_of_today() -> None:
    model, (x, y) = disturb(MakesATensor()).double(), batch()
    search = EDropout(model, example=x)
    model.calls.fill_(2.0)
    assert_energies_of_masked_networks(search, x, y)


def test_energies_leave_buffers_alone() -> None:
    model, (x, y) = Counts().double(), batch()
    EDropout(model).loss(x, y)
    assert model.calls.item() == 1  # the training step's own


def test_a_layer_that_is_called_otherwise_in_eval_mode_is_refused() -> None:
    class Enlarges(Network):
        def __init__(self) -> None:
            super().__init__()
            self.larger = nn.ConvTranspose2d(6, 6, 2, stride=2)

        def middle(self, x: Tensor) -> Tensor:
            return self.larger(self.one(x), output_size=[8, 8] if self.training else [9, 9])

    with pytest.raises(ValueError, match="computes different layers in train and in eval mode"):
        Units(Enlarges())
