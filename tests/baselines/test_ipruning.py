"""IPruning's energy is that of its dense interaction matrix; its population behaves like differential evolution."""

import copy

import pytest
import torch
from small_networks import plain, randomize_norms, residual
from tasks import make_task
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence

from baselines.ipruning.fit import Population, fit
from baselines.ipruning.ising import RIDGE, Ising, feature_maps, interactions, kernel_divergence, map_entropy
from baselines.ipruning.masked import MaskedNetwork
from harness.pruning.layers import convolutions
from harness.pruning.structured import prune_units

IMAGE = torch.zeros(1, 1, 8, 8)


def dense_matrix(ising):
    """J as the authors' code forms it: blocks for layers and for consecutive layers, minus one."""
    widths = [len(entropy) for entropy in ising.entropies] + [ising.outputs]
    j, start = torch.zeros(sum(widths), sum(widths), dtype=torch.float64), 0
    for width, following, block, entropy in zip(widths, widths[1:], ising.divergences, ising.entropies, strict=False):
        end = start + width
        if block is not None:
            j[start:end, start:end] = block
        j[start:end, end : end + following] = entropy[:, None]
        start = end
    return j - 1


def test_the_energy_is_that_of_the_dense_interaction_matrix():
    torch.manual_seed(0)
    network = plain()
    layers = convolutions(network, IMAGE)
    ising = interactions(network, layers, ["14"], feature_maps(network, layers, torch.randn(4, 1, 8, 8)), 3)
    states = torch.rand(6, 8 + 8 + 16 + 24) < 0.5
    spins = torch.cat([states, torch.ones(6, 3, dtype=torch.bool)], 1).double()
    j = dense_matrix(ising)
    expected = -((spins @ j) * spins).sum(1) + spins.sum(1) * j.sum() / len(j)
    assert torch.allclose(ising.energy(states), expected)


def test_a_state_that_keeps_too_little_pays():
    ising = Ising([None, None], [torch.zeros(4).double(), torch.zeros(2).double()], [90, 10], 1)
    states = torch.tensor([[1, 0, 0, 0, 1, 1], [1, 1, 0, 0, 1, 1]], dtype=torch.bool)
    # Kept shares: 90/4 + 10 = 32.5 % and 55 %; a minimum of 50 % costs 7 units * 1e5 * 0.175.
    extra = ising.energy(states, minimum_kept=0.5) - ising.energy(states)
    assert extra.tolist() == pytest.approx([7e5 * 0.175, 0.0])


def test_divergences_are_those_of_the_fitted_gaussians():
    weight = torch.randn(4, 30, 2, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight *= torch.tensor([1.0, 2.0, 0.5, 1.0])[:, None, None, None]
    samples = weight.flatten(2)
    ridge = RIDGE * samples.var(unbiased=False) * torch.eye(2)
    fitted = [MultivariateNormal(kernels.mean(0), torch.cov(kernels.T) + ridge) for kernels in samples]
    upper = torch.zeros(4, 4, dtype=torch.float64)
    for i in range(4):
        for j in range(i + 1, 4):
            upper[i, j] = kl_divergence(fitted[i], fitted[j])
    assert torch.allclose(kernel_divergence(weight), (upper + upper.T) / (2 * upper.max()))


@pytest.mark.parametrize("shape", [(3, 1, 3, 3), (1, 4, 3, 3), (5, 2, 1, 1)])
def test_layers_with_few_kernels_have_finite_divergences(shape):
    divergence = kernel_divergence(torch.randn(shape))
    assert divergence.isfinite().all() and divergence.ge(0).all() and divergence.le(0.5).all()


def test_a_constant_map_has_no_entropy_and_the_richest_one():
    maps = torch.stack([torch.zeros(4, 4), torch.arange(16.0).reshape(4, 4), torch.eye(4) * 15])
    entropy = map_entropy(maps)
    # Shares of the fullest bin (16): sixteen bins of 1/16 give 4 bits, 12/16 and 4/16 give 0.811.
    assert entropy.tolist() == pytest.approx([0.0, 1.0, 0.8112781 / 4])


def test_looking_at_feature_maps_changes_nothing():
    network = randomize_norms(residual()).train()
    before = copy.deepcopy(network.state_dict())
    maps = feature_maps(network, convolutions(network, IMAGE), torch.randn(4, 1, 8, 8))
    assert [tuple(one.shape) for one in maps][:2] == [(8, 8, 8), (8, 8, 8)]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(not module._forward_hooks for module in network.modules())
    assert all(module.track_running_stats for module in network.modules() if isinstance(module, nn.BatchNorm2d))


def population(count=8, sizes=(5, 7), initial=0.5):
    return Population(list(sizes), count, initial, 0.9, 0.9, torch.Generator().manual_seed(0), torch.device("cpu"))


def ones(states):
    return states.sum(1).double()


def test_selection_never_raises_an_energy_and_finds_the_minimum():
    states = population()
    best = [float(ones(states.best[None]))]
    for _ in range(200):
        before = ones(states.states)
        states.evolve(ones)
        assert (ones(states.states) <= before).all()
        best.append(float(ones(states.best[None])))
    # Two layers must keep a unit each; a population that has lost its variety may stop one or two short of that.
    assert 2 <= best[-1] <= 4 and best[-1] < best[0]


def test_equal_states_stay_equal():
    states = population()
    states.states[:] = states.states[0]
    start = states.states.clone()
    assert states.converged
    states.evolve(ones)
    assert torch.equal(states.states, start)


def test_no_layer_is_ever_without_units():
    states = population(initial=0.0)
    for _ in range(20):
        states.evolve(ones)
        for layer in states.states.split([5, 7], dim=1):
            assert layer.any(1).all()


def test_a_restored_population_goes_on_with_the_same_bits():
    states = population()
    states.evolve(ones)
    saved = {name: value.clone() for name, value in states.state_dict().items()}
    states.evolve(ones)
    other = population(initial=0.9)
    other.load_state_dict(saved)
    other.evolve(ones)
    assert torch.equal(other.states, states.states) and torch.equal(other.best, states.best)


def test_the_masked_network_equals_the_smaller_one_and_moves_kept_weights_only():
    torch.manual_seed(0)
    network = randomize_norms(residual())
    layers = convolutions(network, IMAGE)
    masked = MaskedNetwork(network, layers, ["8"])
    kept = {layer.name: torch.arange(layer.width) % 2 == 0 for layer in layers} | {"8": torch.arange(64) % 3 > 0}
    masked.keep(kept)
    x = torch.randn(6, 1, 8, 8)
    masked.eval()
    assert torch.allclose(masked(x), prune_units(network, kept, x).eval()(x), atol=1e-5)
    masked.train()
    start = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        masked(x).square().sum().backward()
        masked.step(optimizer)
    assert len(masked.masks) == 7 * 3 + 1  # weight, scale and shift of each convolution; the linear weight
    for name, mask in masked.masks.items():
        moved = network.get_parameter(name) != start[name]
        assert not (moved & ~mask).any(), name
    assert not torch.equal(network[0].weight[0], start["0.weight"][0])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"population_size": 3}, "population_size must be at least 4"),
        ({"minimum_kept": 1.0}, "minimum_kept must be at least 0 and less than 1"),
        ({"freeze_epoch": 9}, "freeze_epoch must be from 1 to 2, not 9"),
    ],
)
def test_bad_hyperparameters_are_refused_before_training(tmp_path, options, sentence):
    task = make_task(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        fit(plain(), task, **options)
    assert task.run.phase == 0
