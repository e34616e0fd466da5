"""Energies: the most offending answer, and those of other targets, by hand and inside the search."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from searched_networks import batch, disturb, network
from torch import Tensor, nn

from edropout import EDropout, mask_
from edropout.energy import (
    Energy,
    dense_margin,
    energy,
    margin,
    of_output,
    soft_margin,
    squared_error,
    token_loss,
    zero_margin,
)
from edropout.subnetworks.engine import first_examples


def test_energy_is_the_mean_margin_of_the_strongest_rival() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 5.0]])
    # rival 2 over target 3 is -1; rival 5 over target 0 is 5; their mean is 2
    assert energy(logits, torch.tensor([1, 0])) == 2.0


def test_a_constant_added_to_the_logits_of_a_sample_changes_nothing() -> None:
    logits, target = torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 4
    shifted = logits + torch.randn(6, 1, dtype=torch.float64)
    assert torch.allclose(energy(logits, target), energy(shifted, target), atol=1e-12)


def test_leading_axes_are_separate_energies() -> None:
    logits, target = torch.randn(3, 6, 4), torch.arange(6) % 4
    assert torch.equal(energy(logits, target), torch.stack([energy(one, target) for one in logits]))


def test_soft_labels_give_the_expected_margin() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [2.0, 2.0, 0.0]])
    # margins by class: (2, -1, 1) and (0, 0, 2)
    target = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])
    assert torch.allclose(soft_margin(logits, target), torch.tensor([1.0, 1.4]))
    one_hot = torch.eye(3)[[1, 2]]
    assert torch.equal(soft_margin(logits, one_hot), margin(logits, torch.tensor([1, 2])))


def test_yes_or_no_outputs_are_measured_from_zero() -> None:
    logits, target = torch.tensor([[2.0, -1.0], [0.5, 3.0]]), torch.tensor([[1, 0], [0, 1]])
    assert zero_margin(logits, target).tolist() == [-1.5, -1.25]  # by hand: (-2 - 1) / 2, (.5 - 3) / 2
    assert zero_margin(logits[:, :1], target[:, 0]).tolist() == [-2.0, 0.5]  # one logit: no (batch, batch)
    with pytest.raises(ValueError, match="do not fit"):
        zero_margin(logits, target[:, 0])


def test_pixels_and_tokens_that_are_ignored_do_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64)
    target = torch.tensor([[[0, 1], [2, -100]], [[-100, -100], [-100, -100]]])
    pixels = [margin(logits[0, :, i, j], target[0, i, j]) for i, j in ((0, 0), (0, 1), (1, 0))]
    found = dense_margin(logits, target)
    assert torch.allclose(found[0], torch.stack(pixels).mean()) and found[1] == 0
    tokens = logits.flatten(2).movedim(1, 2)
    counted = torch.nn.functional.cross_entropy(tokens[0], target[0].flatten())
    assert torch.allclose(token_loss(tokens, target.flatten(1))[0], counted)
    assert token_loss(tokens, target.flatten(1))[1] == 0


def test_regression_is_measured_by_its_squared_error() -> None:
    assert squared_error(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 5.0])).tolist() == [1.0, 4.0]


class UNet(nn.Module):
    """Down, up, and a concatenation of both, with a mask for each pixel and an auxiliary answer for the image."""

    def __init__(self, auxiliary: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(6, 10, 3, padding=1), nn.BatchNorm2d(10), nn.ReLU())
        self.up = nn.ConvTranspose2d(10, 6, 2, stride=2)
        self.joined = nn.Sequential(nn.Conv2d(12, 8, 3, padding=1), nn.ReLU())
        self.mask, self.answer, self.auxiliary = nn.Conv2d(8, 4, 1), nn.Linear(10, 5), auxiliary

    def forward(self, x: Tensor) -> Any:
        first = self.first(x)
        below = self.down(first)
        masks = self.mask(self.joined(torch.cat([first, self.up(below)], 1)))
        return {"masks": masks, "answer": self.answer(below.mean((2, 3)))} if self.auxiliary else masks


def both(outputs: dict, targets: dict) -> Tensor:
    ours = F.cross_entropy(outputs["masks"], targets["masks"], ignore_index=-100)
    return ours + F.cross_entropy(outputs["answer"], targets["answer"])


@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("examples", [None, 3])
def test_a_segmentation_trains_prunes_and_is_exact(auxiliary: bool, examples: int | None) -> None:
    model = disturb(UNet(auxiliary)).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64)
    masks = torch.randint(4, (4, 8, 8), generator=generator).index_fill_(1, torch.tensor([0]), -100)
    targets = {"masks": masks, "answer": torch.arange(4)} if auxiliary else masks
    measured = of_output("masks", lambda out, y: dense_margin(out, y["masks"])) if auxiliary else dense_margin
    criterion = both if auxiliary else F.cross_entropy
    search = EDropout(model, energy=measured, energy_examples=examples)
    start = copy.deepcopy(model)
    loss = search.loss(x, targets, criterion=criterion)
    for state, found in zip(search.population, search.energies, strict=True):
        masked = copy.deepcopy(start)
        mask_(masked, search.units.kept(state))
        expected = measured(masked(x[:examples]), first_examples(targets, examples)).mean()
        assert abs(expected - found).item() < 1e-10
    smaller = search.prune().train()
    assert abs(criterion(smaller(x), targets) - loss).item() < 1e-10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(8):
        loss = search.loss(x, targets, criterion=criterion)
        optimizer.zero_grad()
        loss.backward()
        search.step(optimizer)
        losses.append(loss.item())
    assert losses[-1] < losses[0] and search.kept_ratio().physical < 1


@pytest.mark.parametrize(
    ("measured", "classes", "targets", "criterion"),
    [
        (soft_margin, 5, torch.rand(8, 5, dtype=torch.float64).softmax(1), F.cross_entropy),
        (zero_margin, 5, (torch.rand(8, 5) > 0.5).double(), F.binary_cross_entropy_with_logits),
        (squared_error, 1, torch.randn(8, 1, dtype=torch.float64), F.mse_loss),
    ],
)
def test_the_search_follows_the_energy_that_it_is_given(
    measured: Energy, classes: int, targets: Tensor, criterion: Any
) -> None:
    model = network().double()
    model[11] = nn.Linear(10, classes).double()
    search, x = EDropout(model, energy=measured), batch(dtype=torch.float64)[0]
    start, best = copy.deepcopy(model), []
    search.loss(x, targets, criterion=criterion).backward()
    masked = copy.deepcopy(start)
    mask_(masked, search.units.kept(search.best_state))
    assert abs(measured(masked(x), targets).mean() - search.energies.min()).item() < 1e-10
    for _ in range(5):
        search.loss(x, targets, criterion=criterion, evolve=True)
        best.append(search.energies.min().item())
    assert best == sorted(best, reverse=True)


def test_an_energy_that_is_no_number_for_each_example_is_refused() -> None:
    x, y = batch()
    for wrong, what in ((F.cross_entropy, r"shape \(\)"), (lambda *_: 1.0, "float"), (lambda z, y: z, r"\(8, 5\)")):
        search = EDropout(network(), energy=wrong)
        before = search.population.clone()
        with pytest.raises(ValueError, match=f"one number for each example, .*{what}"):
            search.loss(x, y)
        assert torch.equal(search.population, before)
    with pytest.raises(ValueError, match=r"energy=edropout\.energy\.soft_margin"):
        EDropout(network()).loss(x, torch.rand(8, 5))
