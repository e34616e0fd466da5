"""The closed forms of linear networks with DropBlock and DropConnect against enumeration and general minimisers."""

import itertools

import numpy
import pytest
import scipy.optimize
import torch

from theory import linear_networks

SIZES = torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5, 0.2], dtype=torch.float64)


def variational(sizes, k, weight=None):
    """Least sum sizes^2 / h over h or, with a weight, ||sizes - w||^2 + weight sum w^2 / h over w and h, by SLSQP."""
    n, sizes = len(sizes), sizes.numpy()

    def value(point):
        if weight is None:
            return (sizes**2 / point).sum()
        return ((sizes - point[n:]) ** 2).sum() + weight * (point[n:] ** 2 / point[:n]).sum()

    start = numpy.full(n, k / n) if weight is None else numpy.concatenate([numpy.full(n, k / n), sizes])
    bounds = [(1e-9, 1)] * n + ([] if weight is None else [(0, None)] * n)
    room = {"type": "ineq", "fun": lambda point: k - point[:n].sum()}
    options = {"maxiter": 1000, "ftol": 1e-14}
    return scipy.optimize.minimize(value, start, bounds=bounds, constraints=room, method="SLSQP", options=options)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_support_norm_is_its_variational_form(k):
    assert linear_networks.support_norm(SIZES, k).item() ** 2 == pytest.approx(variational(SIZES, k).fun, rel=1e-6)


def test_support_norm_is_the_sum_for_one_and_the_length_for_all():
    assert linear_networks.support_norm(SIZES, 1).item() == pytest.approx(SIZES.sum().item())
    assert linear_networks.support_norm(SIZES, 6).item() == pytest.approx(SIZES.norm().item())


@pytest.mark.parametrize(("block", "keep_rate"), [(1, 0.5), (2, 0.5), (3, 0.2), (6, 0.5)])
def test_minimum_is_that_of_the_convex_problem(block, keep_rate):
    beta = (1 - keep_rate) / keep_rate * block / 12
    found = variational(SIZES, block, weight=beta).x[6:]
    assert linear_networks.minimum(SIZES, block, keep_rate, 12).numpy() == pytest.approx(found, abs=2e-4)


@pytest.mark.parametrize(("block", "keep_rate"), [(1, 0.5), (3, 0.2)])
def test_no_minimiser_of_the_factors_ends_lower(block, keep_rate):
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(size, 6, generator=generator, dtype=torch.float64)).Q for size in (8, 6))
    targets, hidden = left * SIZES @ right.T, 12

    def value(flat):
        factors = torch.from_numpy(flat).requires_grad_()
        u, v = factors[: 8 * hidden].view(8, hidden), factors[8 * hidden :].view(6, hidden)
        added = (1 - keep_rate) / keep_rate * linear_networks.block_norms(u, v, block).square().sum()
        loss = (targets - u @ v.T).square().sum() + added
        return loss.item(), torch.autograd.grad(loss, factors)[0].numpy()

    start = torch.randn(14 * hidden, generator=generator, dtype=torch.float64).numpy()
    end = scipy.optimize.minimize(value, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "ftol": 1e-12})
    factors = torch.from_numpy(end.x)
    u, v = factors[: 8 * hidden].view(8, hidden), factors[8 * hidden :].view(6, hidden)
    expected = linear_networks.minimum(SIZES, block, keep_rate, hidden)
    assert torch.linalg.svdvals(u @ v.T).numpy() == pytest.approx(expected.numpy(), abs=2e-3)
    norms = linear_networks.block_norms(u, v, block)
    assert norms.max() / norms.min() < 1.005


@pytest.mark.parametrize(
    ("kind", "block", "shape"),
    [
        ("dropout", 1, (1, 4)),
        ("dropblock", 2, (1, 2)),
        ("dropconnect", 1, (1, 2, 4)),
        ("dropconnect-inputs", 1, (1, 2, 4)),
    ],
)
def test_expected_loss_is_the_mean_over_all_masks(kind, block, shape):
    """For each example alone, since their masks are independent; inputs are correlated, so that nothing cancels."""
    generator = torch.Generator().manual_seed(1)
    u, v, x, targets = (
        torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((2, 4), (2, 4), (2, 3), (2, 3))
    )
    total = 0.0
    for example in range(3):
        losses = []
        for mask in itertools.product([0.0, 1.0], repeat=int(numpy.prod(shape))):
            coins = torch.tensor(mask, dtype=torch.float64).view(shape) / 0.5
            outputs = linear_networks.output(u, v, x[:, [example]], kind, block, lambda z, c=coins: z * c)
            losses.append((targets[:, [example]] - outputs).square().sum())
        total += torch.stack(losses).mean()
    closed = (targets - u @ v.T @ x).square().sum() + linear_networks.penalty(u, v, x, kind, block)
    torch.testing.assert_close(closed, total, rtol=1e-12, atol=0)


def test_training_with_masks_comes_near_the_closed_form(monkeypatch):
    monkeypatch.setattr(linear_networks, "SETTINGS", [("dropblock", 6, 0.5, "white")])
    rows = linear_networks.measure_minima(None, steps=3000, rate=3e-3)
    assert linear_networks.minimum_is_reached(rows).value < 0.05
    assert linear_networks.minimum_is_low_rank(rows).observed
