"""Dropouts that look at their input: standout, information dropout and Advanced Dropout."""

import math

import pytest
import torch
from torch import nn

import dropouts


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_standout_keeps_by_the_sigmoid_of_the_pre_activation():
    u = torch.tensor([-2.0, 0.5, 3.0])
    standout = dropouts.Standout(alpha=1.5, beta=-0.5)
    kept = (standout(u.expand(50_000, -1)) != 0).float().mean(0)
    expected = torch.sigmoid(1.5 * u - 0.5)
    torch.testing.assert_close(kept, expected, atol=0.01, rtol=0)
    torch.testing.assert_close(standout.eval()(u), u * expected)


def test_standout_behind_the_rectifier_is_the_one_before_it():
    u, standout = torch.randn(1000), dropouts.Standout()
    for training in (True, False):
        standout.train(training)
        torch.manual_seed(3)
        before = torch.relu(standout(u))
        torch.manual_seed(3)
        assert torch.equal(before, standout(torch.relu(u)))


def test_standout_with_alpha_zero_is_dropout_without_its_rescaling():
    x = torch.randn(3, 2)
    torch.testing.assert_close(dropouts.Standout(alpha=0.0).eval()(x), 0.5 * x)


def test_standout_sends_no_gradient_to_dropped_units():
    x = torch.randn(50, requires_grad=True)
    y = dropouts.Standout()(x)
    y.sum().backward()
    assert torch.equal(x.grad, (y != 0).float())


def test_information_dropouts_noise_is_log_normal_of_the_deviation_it_names():
    module = dropouts.Information(nn.Linear(3, 4))
    x = torch.randn(1, 3)
    with torch.no_grad():
        logs = (module(x.expand(50_000, -1)) / module.layer(x)).log()
        torch.testing.assert_close(logs.std(0), module.alpha(x)[0], rtol=0.02, atol=0)
        assert logs.mean(0).abs().max() < 0.02
        assert ((module.alpha(x) > 0.001) & (module.alpha(x) < 0.701)).all()


def test_information_dropout_before_the_rectifier_is_the_one_behind_it():
    module = dropouts.Information(nn.Linear(3, 4))
    x = torch.randn(20, 3)
    with torch.no_grad():
        torch.manual_seed(1)
        before = torch.relu(module(x))
        torch.manual_seed(1)
        noise = torch.exp(module.alpha(x) * torch.randn(20, 4))
        torch.testing.assert_close(before, torch.relu(module.layer(x)) * noise)


def test_information_costs_less_the_more_noise_there_is():
    prices = []
    for offset in (-3.0, 0.0, 3.0):
        module = dropouts.Information(nn.Linear(3, 4), beta=2.0)
        nn.init.zeros_(module.noise.weight)
        nn.init.constant_(module.noise.bias, offset)
        module(torch.randn(7, 3))
        alpha = 0.001 + 0.7 / (1 + math.exp(-offset))
        assert module.penalty().item() == pytest.approx(-2 * 4 * math.log(alpha / 0.701), rel=1e-5)
        prices.append(module.penalty().item())
    assert prices[0] > prices[1] > prices[2] > 0


def test_a_penalty_before_the_first_pass_is_zero():
    assert dropouts.Information(nn.Linear(2, 2)).penalty().item() == 0
    assert dropouts.Advanced(2, prior=1.0).penalty().item() == 0


def test_advanced_dropout_starts_with_the_codes_mask():
    module = dropouts.Advanced(64)
    mu, sigma = module.mask_parameters(torch.zeros(3, 64))
    assert mu.item() == pytest.approx(0, abs=1e-3)
    assert sigma.item() == pytest.approx(1.463, abs=2e-3)
    y = module(torch.ones(5000, 64) * 1e-6) * 1e6  # inputs near zero leave the start
    assert y.std().item() == pytest.approx(0.534, abs=0.01)


@pytest.mark.parametrize(("mu", "sigma"), [(-1.0, 0.5), (0.0, 1.463), (2.0, 3.0), (3.0, 0.1)])
def test_advanced_dropouts_mask_has_about_the_mean_that_it_is_divided_by(mu, sigma):
    module = dropouts.Advanced(16)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(module.bias_mu, mu)
    nn.init.constant_(module.bias_sigma, math.log(math.expm1(sigma)))
    with torch.no_grad():
        assert float(module(torch.ones(20_000, 16)).mean()) == pytest.approx(1, abs=0.02)


def test_advanced_dropout_without_noise_is_the_identity():
    module = dropouts.Advanced(4)
    nn.init.constant_(module.bias_sigma, -40.0)
    x = torch.rand(6, 4)
    torch.testing.assert_close(module(x), x)


def test_advanced_dropouts_prior_is_zero_where_its_mask_started_and_without_one():
    module = dropouts.Advanced(8, prior=2.0)
    for name, parameter in module.named_parameters():
        if name != "bias_sigma":
            nn.init.zeros_(parameter)
    module(torch.rand(3, 8))
    assert module.penalty().item() == pytest.approx(0, abs=1e-6)
    nn.init.constant_(module.bias_mu, 1.0)
    module(torch.rand(3, 8))
    start = math.log1p(math.exp(1.2))
    assert module.penalty().item() == pytest.approx(2 * 8 * 0.5 / start**2, rel=1e-5)
    released = dropouts.Advanced(8)
    released(torch.rand(3, 8))
    assert released.penalty().item() == 0


def test_few_features_are_enough_for_advanced_dropout():
    assert len(dropouts.Advanced(3).weight_h) == 1


def test_the_noise_of_information_dropout_has_weights_of_its_own():
    module = dropouts.Information(nn.Linear(3, 4))
    assert not torch.equal(module.noise.weight, module.layer.weight)
