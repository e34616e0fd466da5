"""Distributions over periods have the mean that is asked for, and the property that they are named after."""

import pytest
import torch

from dropouts.approximate import least_variance, maximum_entropy, searched
from dropouts.approximate.distributions import dropped


def mean(probabilities):
    return float(probabilities @ dropped(len(probabilities)))


def entropy(probabilities):
    return float(-torch.xlogy(probabilities, probabilities).sum())


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.5, 2 / 3, 0.7, 0.75, 0.9])
@pytest.mark.parametrize("distribution", [least_variance, maximum_entropy])
def test_the_exact_ones_drop_what_they_shall(distribution, rate):
    probabilities = distribution(rate)
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-12) and (probabilities >= 0).all()
    assert mean(probabilities) == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize(
    ("rate", "probabilities"),
    [(0.0, [1]), (0.5, [0, 1]), (0.75, [0, 0, 0, 1]), (0.3, [0.4, 0.6]), (0.7, [0, 0, 0.6, 0.4])],
)
def test_least_variance_takes_one_period_or_two_neighbours(rate, probabilities):
    assert least_variance(rate).tolist() == pytest.approx(probabilities)


@pytest.mark.parametrize(("rate", "nats"), [(0.3, 1.668), (0.5, 2.322), (0.7, 2.716)])
def test_no_other_distribution_of_this_mean_has_more_entropy(rate, nats):
    probabilities, rates = maximum_entropy(rate), dropped(16)
    assert entropy(probabilities) == pytest.approx(nats, abs=1e-3)
    ones, generator = torch.ones(16, dtype=torch.float64), torch.Generator().manual_seed(0)
    for _ in range(20):  # Move along directions that change neither the sum nor the mean.
        direction = torch.randn(16, dtype=torch.float64, generator=generator)
        basis = torch.linalg.qr(torch.stack([ones, rates], 1))[0]
        direction -= basis @ (basis.t() @ direction)
        for size in (-1e-3, 1e-3):
            assert entropy((probabilities + size * direction / direction.norm()).clamp(min=0)) < entropy(probabilities)


@pytest.mark.parametrize(("rate", "reached"), [(0.3, 0.3063), (0.5, 0.5043), (0.7, 0.7019)])
def test_the_published_search_is_biased_by_its_entropy_term(rate, reached):
    assert mean(searched(rate)) == pytest.approx(reached, abs=2e-4)
    assert mean(searched(rate, accuracy=1.0)) == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize("distribution", [maximum_entropy, searched])
def test_a_rate_beyond_the_largest_period_is_refused(distribution):
    with pytest.raises(ValueError, match=r"periods up to 4 drop less than 0\.75: rate 0\.8 needs a larger `largest`"):
        distribution(0.8, 4)


@pytest.mark.parametrize("distribution", [least_variance, maximum_entropy, searched])
@pytest.mark.parametrize("rate", [1.0, -0.1])
def test_a_rate_outside_the_interval_is_refused(distribution, rate):
    with pytest.raises(ValueError, match="rate must be at least 0 and less than 1"):
        distribution(rate)
