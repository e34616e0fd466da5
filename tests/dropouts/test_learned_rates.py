"""Learned keep rates: concrete and beta-Bernoulli dropout find what is worth keeping."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import dropouts
from dropouts.beta_bernoulli import kumaraswamy_beta_kl, relaxed_bernoulli


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_a_cold_concrete_mask_is_a_bernoulli_mask():
    module = dropouts.Concrete(nn.Linear(1, 1, bias=False), rate=0.3, temperature=1e-3)
    nn.init.ones_(module.layer.weight)
    with torch.no_grad():
        y = module(torch.ones(100_000, 1))
    for value, share in ((0, 0.3), (1 / 0.7, 0.7)):
        assert float(((y - value).abs() < 0.01).float().mean()) == pytest.approx(share, abs=0.01)


def test_concrete_dropout_of_images_drops_channels():
    module = dropouts.Concrete(nn.Conv2d(3, 1, 1, bias=False), rate=0.5, temperature=1e-4)
    seen = []
    module.layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(torch.ones(8, 3, 4, 4))
    assert torch.equal(seen[0], seen[0][..., :1, :1].expand_as(seen[0]))


def test_the_penalty_of_concrete_dropout_by_hand():
    layer = nn.Linear(4, 2)
    nn.init.constant_(layer.weight, 0.5)
    nn.init.constant_(layer.bias, 1.0)
    module = dropouts.Concrete(layer, rate=0.2, length_scale=3.0)
    entropy = -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    assert module.penalty().item() == pytest.approx(9 * (8 * 0.25 + 2) / (2 * 0.8) - 4 * entropy, rel=1e-5)


def learned_rate(examples, signal):
    """The rate that concrete dropout learns for a feature of the given worth, on that many examples."""
    x = torch.randn(examples, 10)
    y = signal * x.sum(1, keepdim=True) + 0.5 * torch.randn(examples, 1)
    module = dropouts.Concrete(nn.Linear(10, 1), rate=0.2, length_scale=1e-2)
    optimizer = torch.optim.Adam(module.parameters(), 0.03)
    for _ in range(500):
        loss = functional.mse_loss(module(x), y) / (2 * 0.5**2) + module.penalty() / examples
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.learned_rate.item()


def test_concrete_dropout_goes_to_one_half_for_noise_and_to_zero_for_signal_with_many_examples():
    assert learned_rate(5, 0.0) > 0.4
    assert learned_rate(500, 1.0) < 0.01


@pytest.mark.parametrize(("a", "b", "alpha"), [(0.3, 1.0, 1e-4), (2.0, 3.0, 0.5), (0.7, 0.4, 1.0), (5.0, 1.5, 2.0)])
def test_the_kl_from_the_beta_prior_is_the_integral(a, b, alpha):
    """With log pi = log(1 - u^(1/b)) / a over a fine grid of u in logit space."""
    grid = torch.linspace(-60, 60, 1_000_001, dtype=torch.float64)
    weight = torch.sigmoid(grid) * torch.sigmoid(-grid) * (grid[1] - grid[0])
    log_u = functional.logsigmoid(grid) / b
    log_rest = torch.log(-torch.expm1(log_u))  # log (1 - u^(1/b))
    log_pi = log_rest / a
    log_posterior = math.log(a * b) + (a - 1) * log_pi + (b - 1) * log_u  # 1 - pi^a = u^(1/b)
    log_prior = math.log(alpha) + (alpha - 1) * log_pi
    integral = float((weight * (log_posterior - log_prior)).sum())
    exact = kumaraswamy_beta_kl(torch.tensor(a).double(), torch.tensor(b).double(), alpha)
    assert float(exact) == pytest.approx(integral, rel=1e-3)


def test_expected_keep_rates_are_the_mean_of_draws():
    module = dropouts.BetaBernoulli(40)
    with torch.no_grad():
        module.raw_a.uniform_(-2, 2)
        module.raw_b.uniform_(-2, 2)
        draws = torch.stack([module.logit_keep_rate().sigmoid() for _ in range(20_000)])
        torch.testing.assert_close(draws.mean(0), module.expected(), atol=0.02, rtol=0)


def test_a_relaxed_mask_is_one_as_often_as_its_probability():
    mask = relaxed_bernoulli(torch.full((100_000,), math.log(0.3 / 0.7)))
    assert float((mask > 0.5).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(((mask < 0.05) | (mask > 0.95)).float().mean()) > 0.85


def test_examples_share_a_keep_rate_and_not_a_mask():
    module = dropouts.BetaBernoulli(50)
    mask = module.mask(torch.ones(200, 50))
    assert mask.shape == (200, 50) and not torch.equal(mask[0], mask[1])
    assert float((mask > 0.5).float().mean(0).var()) > 0.05  # keep rates of units differ far more than 200 coins of one


def test_extreme_posteriors_stay_finite():
    for raw_a, raw_b in [(-30.0, -30.0), (-30.0, 60.0), (30.0, -30.0), (30.0, 60.0)]:
        module = dropouts.BetaBernoulli(5)
        nn.init.constant_(module.raw_a, raw_a)
        nn.init.constant_(module.raw_b, raw_b)
        loss = module(torch.ones(4, 5)).sum() + module.penalty()
        loss.backward()
        assert loss.isfinite() and all(parameter.grad.isfinite().all() for parameter in module.parameters())


def test_useless_units_are_dropped_for_good():
    x = torch.randn(1000, 8)
    y = x[:, :2].sum(1, keepdim=True)
    network = nn.Sequential(dropouts.BetaBernoulli(8, speed=10), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(600):
        loss = 1000 * functional.mse_loss(network(x), y) / 2 + dropouts.penalty(network)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert network[0].kept().tolist() == [True] * 2 + [False] * 6
    assert (network.eval()(x)[:, 0] - y[:, 0]).abs().mean() < 0.5


def test_speed_multiplies_what_adam_moves():
    moved = []
    for speed in (1.0, 10.0):
        module = dropouts.BetaBernoulli(3, speed=speed)
        before = module.speed * module.raw_a.detach().clone()
        optimizer = torch.optim.Adam(module.parameters(), 1e-3)
        module.penalty().backward()
        optimizer.step()
        moved.append((module.speed * module.raw_a - before).abs().mean().item())
    assert moved[1] == pytest.approx(10 * moved[0], rel=1e-3)


def test_the_dependent_dropout_starts_as_the_independent_one():
    independent = dropouts.BetaBernoulli(6).eval()
    dependent = dropouts.DependentBetaBernoulli(independent).eval()
    x = torch.randn(4, 6)
    torch.testing.assert_close(dependent(x), independent(x))
    assert not any(parameter.requires_grad for parameter in independent.parameters())


def test_the_dependent_dropout_keeps_what_an_example_needs():
    dependent = dropouts.DependentBetaBernoulli(dropouts.BetaBernoulli(2))
    nn.init.zeros_(dependent.norm.bias)
    y = dependent.eval()(torch.tensor([[3.0, -3.0]]))
    assert y[0, 0] != 0 and y[0, 1] == 0


def test_the_kl_of_the_dependent_offsets_is_that_of_gaussians():
    dependent = dropouts.DependentBetaBernoulli(dropouts.BetaBernoulli(2))
    nn.init.constant_(dependent.norm.bias, 1.5)
    posterior = torch.distributions.Normal(torch.full((2,), 1.5), dependent.sigma.detach())
    prior = torch.distributions.Normal(torch.zeros(2), torch.full((2,), 5**0.5))
    expected = torch.distributions.kl_divergence(posterior, prior).sum()
    torch.testing.assert_close(dependent.penalty().detach(), expected)
    assert dropouts.penalty(dependent).item() == pytest.approx(float(expected))  # the frozen one inside does not count


@pytest.mark.parametrize("coin", [0.0, 1 - 2**-24])
def test_the_ends_of_the_unit_interval_are_no_nan(monkeypatch, coin):
    monkeypatch.setattr(torch, "rand_like", lambda values: torch.full_like(values, coin))
    module = dropouts.BetaBernoulli(3)
    module(torch.ones(2, 3)).sum().backward()
    assert module.raw_a.grad.isfinite().all() and module.raw_b.grad.isfinite().all()


def test_factors_below_the_threshold_are_exact_zeros():
    independent = dropouts.BetaBernoulli(2).eval()
    nn.init.constant_(independent.raw_a, -7.0)  # a = 0.0009
    with torch.no_grad():
        independent.raw_a[1] = -1.0
    assert 0 < independent.expected()[0] < 1e-3
    assert (independent(torch.ones(1, 2)) == 0).tolist() == [[True, False]]
    dependent = dropouts.DependentBetaBernoulli(independent).eval()
    nn.init.constant_(dependent.norm.bias, 0.002)
    assert 0 < dependent.need(torch.zeros(1, 2))[0, 1] * independent.scale()[1] < 1e-3
    x = torch.tensor([[0.0, 1e-9]])  # an input at its mean: phi is the offset
    assert (dependent(x) == 0).all()


def test_what_an_input_needs_sends_no_gradient_to_it():
    dependent = dropouts.DependentBetaBernoulli(dropouts.BetaBernoulli(3)).eval()
    nn.init.constant_(dependent.norm.bias, 0.5)
    x = torch.full((1, 3), 0.1, requires_grad=True)
    dependent(x).sum().backward()
    torch.testing.assert_close(x.grad, (dependent(x) / x).detach())
