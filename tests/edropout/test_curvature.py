"""Energies with curvature: what they estimate, and that they do not depend on how a loop makes its gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from searched_networks import batch, network
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from edropout import EDropout, Target
from edropout.curvature import Moments
from edropout.energy import squared_error

CURVATURE = Target(0.5, warm_up=1000, steps=1, by="curvature")


def test_the_energy_is_the_mean_and_half_of_what_one_example_varies() -> None:
    moments = Moments.none(2, torch.device("cpu"))
    for gradients in ([1.0, 0.5], [-1.0, 0.5]):  # of batches of four
        moments = moments.after(torch.tensor(gradients), 4, memory=1.0)
    assert moments.energies().tolist() == [0 + 4 / 2 * (1 - 0**2), 0.5 + 4 / 2 * (0.25 - 0.5**2)]


def test_a_smaller_batch_counts_by_its_examples() -> None:
    """Gradients 1 of three examples and 5 of one: their mean is 2, and B (s - 2)^2 is 3 and 9."""
    moments = Moments.none(1, torch.device("cpu"))
    moments = moments.after(torch.tensor([1.0]), 3, memory=1.0).after(torch.tensor([5.0]), 1, memory=1.0)
    assert moments.energies().item() == pytest.approx(2 + (3 + 9) / 2 / 2)


def linear_units(weights: list[float]) -> nn.Sequential:
    """The sum of weight * x over units that can be dropped, for one number x."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, len(weights), 1, bias=False), nn.Flatten(),
                          nn.Linear(len(weights), 1))  # fmt: skip
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[1].weight.copy_(torch.tensor(weights).view(-1, 1, 1, 1))
        model[3].weight.fill_(1.0)
        model[3].bias.zero_()
    return model


def test_at_the_optimum_the_energy_is_how_much_the_loss_rises() -> None:
    """Half the squared error of y = sum of w x + noise rises by w^2 E[x^2] / 2 without the unit of weight w."""
    weights, generator = [0.5, 1.0, 2.0], torch.Generator().manual_seed(0)
    model = linear_units(weights)
    search = EDropout(model, energy=squared_error, target=CURVATURE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    search.target = Target(0.5, warm_up=1000, steps=1, by="curvature", memory=0.999)
    for _ in range(600):
        x, noise = torch.randn(2, 8, 1, generator=generator)
        loss = search.loss(x.view(8, 1, 1, 1), sum(weights) * x + noise, criterion=half_squared_error)
        optimizer.zero_grad()
        loss.backward()
        search.step(optimizer)
    of_filters, of_inputs = search.moments.energies()[:6].split(3)
    assert of_filters.tolist() == pytest.approx([weight**2 / 2 for weight in weights], rel=0.2)
    assert of_inputs.tolist() == pytest.approx(of_filters.tolist())  # the column of a filter has the same gate


def half_squared_error(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs - y).square().mean() / 2


def whole(search: EDropout, x: Tensor, y: Tensor) -> None:
    search.loss(x, y).backward()


def summed(search: EDropout, x: Tensor, y: Tensor) -> None:
    search.loss(x, y, criterion=nn.CrossEntropyLoss(reduction="sum")).backward()


def of_each(search: EDropout, x: Tensor, y: Tensor) -> None:
    search.loss(x, y, criterion=nn.CrossEntropyLoss(reduction="none")).mean().backward()


def accumulated(search: EDropout, x: Tensor, y: Tensor) -> None:
    for part in torch.arange(len(x)).split(8):
        (search.loss(x[part], y[part]) / 2).backward()


def added_up(search: EDropout, x: Tensor, y: Tensor) -> None:
    for part in torch.arange(len(x)).split(8):
        search.loss(x[part], y[part]).backward()


def uneven(search: EDropout, x: Tensor, y: Tensor) -> None:
    for part in torch.arange(len(x)).split([12, 4]):
        (search.loss(x[part], y[part]) * len(part) / 16).backward()


def with_a_penalty_on_inputs(search: EDropout, x: Tensor, y: Tensor) -> None:
    """Differentiates the loss once for the penalty, which is then left out, and once for good."""
    sample = x.clone().requires_grad_()
    loss = search.loss(sample, y)
    torch.autograd.grad(loss, sample, create_graph=True)
    loss.backward()


def after_a_batch_that_was_thrown_away(search: EDropout, x: Tensor, y: Tensor) -> None:
    search.loss(x[:5], y[:5]).backward()
    search.model.zero_grad(set_to_none=False)
    search.loss(x, y).backward()


@pytest.mark.parametrize(
    "differentiate",
    [summed, of_each, accumulated, added_up, uneven, with_a_penalty_on_inputs, after_a_batch_that_was_thrown_away],
)
def test_energies_do_not_depend_on_how_a_loop_makes_its_gradients(differentiate: Callable) -> None:
    expected, found = (moments(each) for each in (whole, differentiate))
    assert torch.allclose(found.seen, expected.seen, rtol=1e-12)
    assert torch.allclose(found.sums, expected.sums, rtol=1e-9, atol=1e-15)
    assert expected.seen.tolist() == [1.5, 24.0] and expected.energies().abs().max() > 0


def moments(differentiate: Callable) -> Moments:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 6, 3), nn.SiLU(), nn.Flatten(), nn.Linear(96, 5))
    target = Target(0.5, warm_up=1000, steps=1, by="curvature", memory=0.5, summed=differentiate is summed)
    search = EDropout(model.double(), target=target)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for seed in range(2):
        optimizer.zero_grad()
        differentiate(search, *batch(16, seed=seed, dtype=torch.float64))
        search.step(optimizer)
    return search.moments


def test_a_gradient_scaler_does_not_move_energies() -> None:
    found = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        model = network()
        search, optimizer = EDropout(model, target=CURVATURE), torch.optim.SGD(model.parameters(), lr=0.1)
        loss = search.loss(*batch())
        (loss if scaler is None else scaler.scale(loss)).backward()
        search.step(optimizer, scaler=scaler)
        found.append(search.moments)
    assert torch.equal(found[0].seen, found[1].seen)
    assert torch.allclose(found[0].sums, found[1].sums, rtol=1e-5)


def test_two_optimisers_that_share_a_step_teach_what_one_does() -> None:
    found = []
    for groups in (1, 2):
        model = network()
        search, parameters = EDropout(model, target=CURVATURE), list(model.parameters())
        optimizers = [torch.optim.SGD(parameters[number::groups], lr=0.1) for number in range(groups)]
        for seed in range(2):
            model.zero_grad()
            search.loss(*batch(seed=seed)).backward()
            for optimizer in optimizers:
                search.step(optimizer)
        found.append(search.moments)
    assert torch.equal(found[0].seen, found[1].seen) and torch.allclose(found[0].sums, found[1].sums, rtol=1e-5)


def test_what_is_differentiated_without_the_loss_teaches_nothing() -> None:
    model = network()
    search, optimizer = EDropout(model, target=CURVATURE), torch.optim.SGD(model.parameters(), lr=0.1)
    search.loss(*batch())
    cross_entropy(model(batch()[0]), batch()[1]).backward()
    search.step(optimizer)
    assert not search.moments.seen.any()
