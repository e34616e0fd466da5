"""Fixed noise: its moments are those of its equations, and DropBlock is torchvision's."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

import dropouts

ONES = torch.ones(400_000)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("layer", "variance"),
    [
        (dropouts.Gaussian(0.2), 0.25),
        (dropouts.Gaussian(0.5), 1.0),
        (dropouts.Uout(0.3), 0.03),
        (dropouts.Continuous(), 1 / 3),
        (dropouts.Continuous(sigma=0.2, clipped=False), 0.16),
        (dropouts.Variational(1, alpha=0.3), 0.3),
    ],
    ids=repr,
)
def test_mean_and_variance(layer, variance):
    with torch.no_grad():
        y = layer(3 * ONES.unsqueeze(1))
    assert float(y.mean()) == pytest.approx(3, abs=4 * 3 * (variance / len(y)) ** 0.5)
    assert float(y.var()) == pytest.approx(9 * variance, rel=0.02)


def test_uniform_noise_stays_inside_its_interval():
    assert dropouts.Uout(0.3)(ONES).sub(1).abs().max() <= 0.3
    for layer in (dropouts.Continuous(), dropouts.Continuous(sigma=1.0)):
        y = layer(ONES)
        assert y.min() >= 0 and y.max() <= 2


def test_a_wide_clipped_mask_is_nearly_a_coin():
    y = dropouts.Continuous(sigma=100.0)(ONES)
    assert float(((y == 0) | (y == 2)).float().mean()) > 0.99


@pytest.mark.parametrize("make", [dropouts.Gaussian, dropouts.Uout, dropouts.DropBlock])
def test_without_a_rate_training_is_the_identity(make):
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(make(0.0)(x), x)


@pytest.mark.parametrize("block", [1, 3, 5, 7])
def test_dropblock_is_torchvisions(block):
    x = torch.rand(4, 3, 14, 11)
    outputs = []
    for drop in (dropouts.DropBlock(0.2, block), lambda x: torchvision.ops.drop_block2d(x, 0.2, block)):
        torch.manual_seed(5)
        outputs.append(drop(x))
    torch.testing.assert_close(*outputs)


@pytest.mark.parametrize("block", [2, 3, 4, 7])
def test_what_dropblock_drops_is_a_union_of_blocks(block):
    dropped = (dropouts.DropBlock(0.15, block)(torch.ones(50, 2, 15, 15)) == 0).float()
    whole = -functional.max_pool2d(-dropped, block, stride=1)  # one where a whole block is dropped
    spread = functional.max_pool2d(functional.pad(whole, [block - 1] * 4), block, stride=1)
    assert dropped.any() and torch.equal(spread, dropped)


def test_dropblock_drops_about_its_rate_and_keeps_the_sum_of_ones():
    x = torch.ones(64, 8, 40, 40)
    y = dropouts.DropBlock(0.1, 3)(x)
    assert float((y == 0).float().mean()) == pytest.approx(0.1, rel=0.1)
    assert float(y.mean()) == pytest.approx(1, abs=1e-5)


def test_blocks_of_one_value_are_dropout():
    y = dropouts.DropBlock(0.3, 1)(torch.ones(64, 8, 20, 20))
    assert float((y == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(y.max()) == pytest.approx(1 / 0.7, rel=0.01)


def test_channels_of_a_block_are_drawn_on_their_own():
    dropped = dropouts.DropBlock(0.5, 3)(torch.ones(1, 2, 9, 9)) == 0
    assert not torch.equal(dropped[0, 0], dropped[0, 1])


def test_dropblock_needs_images():
    with pytest.raises(ValueError, match="DropBlock needs"):
        dropouts.DropBlock()(torch.ones(3, 4))


def test_dropconnect_matches_the_moments_of_its_masks():
    layer = nn.Linear(40, 5)
    x = torch.randn(1, 40)
    drop = dropouts.DropConnect(layer, rate=0.3, per_example=True, inference=lambda mean, deviation: (mean, deviation))
    with torch.no_grad():
        draws = drop(x.expand(30_000, -1))
        mean, deviation = drop.eval()(x)
    assert torch.allclose(draws.mean(0), mean[0], atol=0.02)
    assert torch.allclose(draws.std(0), deviation[0], rtol=0.03)


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Conv2d(2, 4, 3)], ids=["linear", "convolution"])
def test_rectified_mean_is_what_the_papers_samples_converge_to(layer):
    x = torch.randn((7, 6) if isinstance(layer, nn.Linear) else (3, 2, 5, 5))
    exact = dropouts.DropConnect(layer).eval()
    drawn = dropouts.DropConnect(layer, inference=dropouts.sampled_mean(torch.relu, samples=4000)).eval()
    with torch.no_grad():
        torch.testing.assert_close(exact(x), drawn(x), atol=0.06, rtol=0)
        assert torch.equal(exact(x).relu(), exact(x))


def test_rectified_mean_of_no_noise_is_the_rectifier():
    mean = torch.tensor([-2.0, 0.0, 3.0])
    assert dropouts.rectified_mean(mean, torch.zeros(3)).tolist() == [0, 0, 3]


def test_rectified_mean_is_never_negative():
    mean = torch.linspace(-12, 1, 10_000)
    assert dropouts.rectified_mean(mean, torch.ones(())).min() >= 0


def test_one_mask_serves_a_batch_unless_each_example_has_its_own():
    x = torch.ones(2, 30)
    for per_example in (False, True):
        y = dropouts.DropConnect(nn.Linear(30, 20), per_example=per_example)(x)
        assert torch.allclose(y[0], y[1], atol=1e-4) != per_example


def test_dropconnect_leaves_a_weight_or_drops_it():
    layer = nn.Linear(1, 20_000, bias=False)
    with torch.no_grad():
        ratio = dropouts.DropConnect(layer, rate=0.2)(torch.ones(1, 1)) / layer(torch.ones(1, 1))
    assert set(ratio.mul(100).round().unique().tolist()) == {0, 125}
    assert float((ratio == 0).float().mean()) == pytest.approx(0.2, abs=0.015)
