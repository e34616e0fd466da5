"""Bernoulli dropout is nn.Dropout, with a generator of its own where one is given."""

import pytest
import torch
from torch import nn

from dropouts import Bernoulli


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_is_torchs_dropout_bit_for_bit():
    x = torch.randn(50, 20)
    torch.manual_seed(3)
    expected = nn.Dropout(0.3)(x)
    torch.manual_seed(3)
    assert torch.equal(Bernoulli(0.3)(x), expected)


@pytest.mark.parametrize("source", [None, 5])
def test_mean_and_variance(source):
    torch.manual_seed(0)
    layer = Bernoulli(0.4, generator=source and generator(source))
    y = layer(torch.full((200_000,), 3.0))
    assert y.unique().tolist() == pytest.approx([0.0, 5.0])
    assert float(y.mean()) == pytest.approx(3.0, abs=0.025)  # four standard errors
    assert float(y.var()) == pytest.approx(9 * 0.4 / 0.6, rel=0.02)


@pytest.mark.parametrize("source", [None, 5])
def test_spatial_dropout_drops_or_scales_whole_maps(source):
    torch.manual_seed(0)
    x = torch.randn(10, 40, 3, 3)
    y = Bernoulli(0.25, spatial=True, generator=source and generator(source))(x)
    gone = (y == 0).flatten(2).all(2)
    assert 0.15 < float(gone.float().mean()) < 0.35
    assert torch.allclose(y, x / 0.75 * ~gone[:, :, None, None])


def test_the_gradient_passes_where_the_value_did():
    x = torch.ones(1000, requires_grad=True)
    y = Bernoulli()(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_a_generator_of_its_own_leaves_torchs_alone():
    x = torch.ones(100)
    before = torch.get_rng_state()
    y = Bernoulli(generator=generator(1))(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(y, Bernoulli(generator=generator(1))(x))


@pytest.mark.parametrize("source", [None, 5])
def test_evaluation_is_the_identity(source):
    x = torch.randn(10)
    assert torch.equal(Bernoulli(0.5, generator=source and generator(source)).eval()(x), x)


@pytest.mark.parametrize("rate", [1.0, -0.1, float("nan")])
def test_a_rate_outside_the_interval_is_refused(rate):
    with pytest.raises(ValueError, match="rate must be at least 0 and less than 1"):
        Bernoulli(rate)
