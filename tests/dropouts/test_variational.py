"""Variational dropouts: KL terms against integration, moments against draws, and zeros found where they are."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import dropouts
from dropouts.sparse_variational import sparse_kl
from dropouts.variational import log_uniform_kl
from dropouts.variational_bayesian import hierarchical_kl


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def integrated_kl(alpha):
    """-0.5 log alpha + E log |1 + sqrt(alpha) z| - E log |z|: the KL from the log-uniform prior, 0 at infinity."""
    z = torch.linspace(-9, 9, 2_000_001, dtype=torch.float64)
    density = torch.exp(-0.5 * z**2)
    density /= density.sum()
    log_noise = ((1 + math.sqrt(alpha) * z).abs() + 1e-12).log()
    return float(-0.5 * math.log(alpha) + (density * log_noise).sum()) - 0.5 * (-0.5772156649 - math.log(2))


LOG_ALPHAS = [-7.0, -4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0, 7.0]


@pytest.mark.parametrize("log_alpha", LOG_ALPHAS)
def test_the_sparse_kl_is_the_integral(log_alpha):
    assert float(sparse_kl(torch.tensor(log_alpha))) == pytest.approx(integrated_kl(math.exp(log_alpha)), abs=0.01)


def test_the_kl_of_variational_dropout_is_the_integral_up_to_a_constant():
    differences = [
        float(log_uniform_kl(torch.tensor(math.exp(log_alpha)))) - integrated_kl(math.exp(log_alpha))
        for log_alpha in LOG_ALPHAS
        if log_alpha <= 0
    ]
    assert max(differences) - min(differences) < 0.045


@pytest.mark.parametrize("log_alpha", LOG_ALPHAS)
def test_the_hierarchical_kl_is_the_least_over_gaussian_priors(log_alpha):
    mean, variance = 0.7, math.exp(log_alpha) * 0.49
    posterior = torch.distributions.Normal(mean, variance**0.5)
    deviations = torch.linspace(-6, 6, 20_001, dtype=torch.float64).exp()
    priors = torch.distributions.Normal(torch.zeros_like(deviations), deviations)
    least = torch.distributions.kl_divergence(posterior, priors).min()
    assert float(hierarchical_kl(torch.tensor(log_alpha))) == pytest.approx(float(least), abs=1e-5)


@pytest.mark.parametrize("kl", [sparse_kl, hierarchical_kl, lambda log_alpha: log_uniform_kl(log_alpha.exp())])
def test_every_kl_falls_with_alpha(kl):
    values = kl(torch.linspace(-8, 0, 200))
    assert (values.diff() < 0).all()


def test_the_sparse_kls_go_to_zero():
    for kl in (sparse_kl, hierarchical_kl):
        values = kl(torch.linspace(0, 12, 200))
        assert (values.diff() < 1e-7).all() and 0 <= float(values[-1]) < 1e-4


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (make, layer)
        for make in (
            lambda layer: dropouts.VariationalWeights(layer, alpha=0.4, per_unit=True),
            lambda layer: dropouts.SparseVariational(layer, log_variance=-3.0, threshold=8.0),
            lambda layer: dropouts.VariationalBayesianWeights(layer, log_variance=-3.0, threshold=10.0),
        )
        for layer in (nn.Linear(8, 3), nn.Conv2d(2, 3, 2))
    ],
)
def test_the_variance_of_outputs_is_that_of_independent_weights(make, layer):
    module = make(layer)
    x = torch.randn((1, 8) if isinstance(layer, nn.Linear) else (1, 2, 2, 2))
    with torch.no_grad():
        alpha = module.log_alpha.exp() if hasattr(module, "log_alpha") else torch.full_like(layer.weight, 0.4)
        expected = (alpha * layer.weight**2).flatten(1) @ (x.flatten() ** 2)
        draws = module(x.expand(60_000, *x.shape[1:])).flatten(1)
        torch.testing.assert_close(draws.mean(0), layer(x).flatten(), atol=0.02, rtol=0.01)
        torch.testing.assert_close(draws.var(0), expected, rtol=0.03, atol=0)


def test_noise_of_type_a_is_shared_by_the_weights_that_read_a_unit_and_of_type_b_is_not():
    layer = nn.Linear(1, 2, bias=False)
    x = torch.ones(2000, 1)
    with torch.no_grad():
        shared = layer(dropouts.Variational(1)(x))
        independent = dropouts.VariationalWeights(layer)(x)
    assert abs(float(torch.corrcoef(shared.T)[0, 1])) > 0.999
    assert abs(float(torch.corrcoef(independent.T)[0, 1])) < 0.1


def test_penalties_count_what_they_sum_over():
    layer = nn.Linear(8, 3)
    one = float(log_uniform_kl(torch.tensor(0.5)))
    for per_unit in (False, True):
        assert dropouts.Variational(8, per_unit=per_unit).penalty().item() == pytest.approx(8 * one, rel=1e-5)
        weights = dropouts.VariationalWeights(layer, per_unit=per_unit)
        assert weights.penalty().item() == pytest.approx(24 * one, rel=1e-5)
    nn.init.constant_(layer.weight, 1.0)
    sparse = dropouts.SparseVariational(layer, log_variance=-2.0)
    assert sparse.penalty().item() == pytest.approx(24 * float(sparse_kl(torch.tensor(-2.0))), rel=1e-5)
    bayesian = dropouts.VariationalBayesianWeights(layer, log_variance=-2.0)
    assert bayesian.penalty().item() == pytest.approx(24 * 0.5 * math.log1p(math.exp(2)), rel=1e-5)
    units = dropouts.VariationalBayesian(5, log_variance=-2.0)
    nn.init.constant_(units.mean, 1.0)
    assert units.penalty().item() == pytest.approx(5 * 0.5 * math.log1p(math.exp(2)), rel=1e-5)


@pytest.mark.parametrize("make", [dropouts.SparseVariational, dropouts.VariationalBayesianWeights])
@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Conv2d(6, 4, 3, groups=2)], ids=["linear", "convolution"])
def test_pruned_weights_are_exact_zeros_of_a_plain_layer(make, layer):
    module = make(layer).eval()
    nn.init.uniform_(layer.weight, 0.5, 1.0)
    pruned = torch.rand_like(layer.weight) < 0.5
    with torch.no_grad():
        module.log_variance[pruned] = 5.0
    plain = module.plain()
    assert type(plain) is type(layer) and plain is not layer
    assert torch.equal(plain.weight == 0, pruned) and torch.equal(module.kept(), ~pruned)
    assert torch.equal(plain.weight[~pruned], layer.weight[~pruned])
    x = torch.randn((3, 6) if isinstance(layer, nn.Linear) else (3, 6, 5, 5))
    assert torch.equal(plain(x), module(x))


def test_pruning_in_training_leaves_the_noise():
    layer = nn.Linear(4, 1, bias=False)
    x = torch.ones(20_000, 4)
    for pruned_in_training, mean in ((True, 0.0), (False, 4.0)):
        module = dropouts.SparseVariational(layer, log_variance=4.0, pruned_in_training=pruned_in_training)
        nn.init.constant_(layer.weight, 1.0)
        with torch.no_grad():
            y = module(x)
        assert float(y.mean()) == pytest.approx(mean, abs=0.5)
        assert float(y.std()) == pytest.approx((4 * math.exp(4)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("make", [dropouts.SparseVariational, dropouts.VariationalBayesianWeights])
def test_zero_weights_cost_no_nan(make):
    layer = nn.Linear(4, 3)
    nn.init.zeros_(layer.weight)
    module = make(layer)
    (module(torch.randn(5, 4)).square().mean() + module.penalty()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize(
    "make",
    [
        dropouts.SparseVariational,
        lambda layer: dropouts.SparseVariational(layer, pruned_in_training=False),
        dropouts.VariationalBayesianWeights,
    ],
    ids=["sparse", "sparse-unpruned_in_training", "variational_bayesian"],
)
def test_zeros_of_a_sparse_map_are_found(make):
    """y = x W* with nine in ten of W* zero: what is pruned is what is zero (F1 above 0.95).

    There is no noise on y: with noise, a zero whose estimate is more than about one posterior deviation off is kept by
    the objective itself, whatever the deviation.
    """
    true = 2 * torch.randn(20, 10).sign() * (torch.rand(20, 10) < 0.1)
    x = torch.randn(100, 20)
    module, steps = make(nn.Linear(20, 10)), 1000
    optimizer = torch.optim.Adam(module.parameters(), 0.02)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
        nll = functional.mse_loss(module(x), x @ true, reduction="sum") / 2
        loss = nll + min(1.0, step / 300) * module.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pruned, zero = ~module.kept(), true.T == 0
    f1 = 2 * int((pruned & zero).sum()) / (int(pruned.sum()) + int(zero.sum()))
    assert f1 > 0.95


def test_units_of_variational_bayesian_dropout_are_pruned_where_noise_is_as_large_as_the_signal():
    module = dropouts.VariationalBayesian(4)
    with torch.no_grad():
        module.mean.copy_(torch.tensor([1.0, 1.0, 0.1, 0.1]))
        module.log_variance.copy_(torch.tensor([0.01, -0.01, -4.0, -5.0]))
    assert module.kept().tolist() == [False, True, False, True]
    x = torch.ones(3, 4)
    for training in (True, False):
        y = module.train(training)(x)
        assert (y[:, [0, 2]] == 0).all() and (y[:, [1, 3]] != 0).all()
    assert torch.equal(module.eval()(x)[:, 1], torch.ones(3))


def test_useless_units_of_variational_bayesian_dropout_are_pruned():
    x = torch.randn(500, 8)
    y = 3 * x[:, :2].sum(1, keepdim=True)
    network = nn.Sequential(dropouts.VariationalBayesian(8), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(600):
        loss = 500 * functional.mse_loss(network(x), y) / (2 * 3.0**2) + dropouts.penalty(network)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert network[0].kept().tolist() == [True] * 2 + [False] * 6
