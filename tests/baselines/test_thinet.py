"""ThiNet's statistics are the next layer's, its selections near the best, its rescaling the least-squares one."""

import itertools

import pytest
import torch
from small_networks import plain, randomize_norms, residual
from tasks import make_task
from torch import nn

from baselines.thinet import fit as thinet
from baselines.thinet.reconstruction import contributions, gram_matrix, rescaled
from baselines.thinet.regression import drop_smallest_sum, keep_best_fit, relative_error, rescaling
from harness.pruning.layers import Reader, inner_layers
from harness.pruning.structured import prune_units

IMAGE = torch.zeros(1, 1, 8, 8)


def gram(samples=200, channels=10, seed=0):
    x = torch.rand(samples, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, x.T @ x


@pytest.mark.parametrize(
    "options", [{"padding": 1}, {"stride": 2, "padding": (2, 0)}, {"dilation": 2, "padding": "same"}]
)
def test_contributions_sum_to_the_output_without_its_bias(options):
    torch.manual_seed(0)
    layer, x = nn.Conv2d(6, 5, 3, **options), torch.randn(4, 6, 9, 7)
    y = layer(x) - layer.bias[:, None, None]
    found = contributions(layer, Reader("", 0, 1), 6, x, 3, torch.Generator().manual_seed(1))
    again = torch.Generator().manual_seed(1)
    filters, rows, columns = (torch.randint(size, (12,), generator=again) for size in (5, y.shape[2], y.shape[3]))
    expected = y[torch.arange(4).repeat_interleave(3), filters, rows, columns]
    assert found.shape == (12, 6) and torch.allclose(found.sum(1), expected, atol=1e-5)


def test_contributions_of_flattened_maps_sum_to_the_linear_output():
    torch.manual_seed(0)
    layer, x = nn.Linear(4 * 9, 5), torch.randn(4, 36)
    y = layer(x) - layer.bias
    found = contributions(layer, Reader("", 0, 9), 4, x, 2, torch.Generator().manual_seed(1))
    filters = torch.randint(5, (8,), generator=torch.Generator().manual_seed(1))
    assert torch.allclose(found.sum(1), y[torch.arange(4).repeat_interleave(2), filters], atol=1e-5)


def test_contributions_see_only_the_readers_own_channels():
    layer, x = nn.Conv2d(6, 1, 1), torch.randn(2, 6, 1, 1)
    found = contributions(layer, Reader("", 2, 1), 3, x, 1, torch.Generator())
    assert torch.allclose(found, x[:, 2:5, 0, 0] * layer.weight[0, 2:5, 0, 0])


@pytest.mark.parametrize("select", [drop_smallest_sum, keep_best_fit])
def test_nothing_dropped_leaves_all_weights_exactly_one(select):
    _, g = gram()
    kept = select(g, 10)
    assert kept.all() and torch.equal(rescaling(g, kept), torch.ones(10, dtype=torch.float64))


def test_the_normal_equations_give_the_least_squares_solution():
    x, g = gram()
    kept = torch.arange(10) % 3 != 0
    expected = torch.linalg.lstsq(x[:, kept], x.sum(1, keepdim=True)).solution.squeeze(1)
    weights = rescaling(g, kept)
    assert torch.allclose(weights, expected, atol=1e-8)
    error = ((x.sum(1) - x[:, kept] @ weights) ** 2).sum() / (x.sum(1) ** 2).sum()
    assert relative_error(g, kept, weights) == pytest.approx(float(error))


def test_a_duplicated_channel_can_go_without_loss():
    x, _ = gram()
    x[:, 7] = x[:, 2]
    kept = torch.arange(10) != 7
    weights = rescaling(x.T @ x, kept)
    assert relative_error(x.T @ x, kept, weights) < 1e-12
    assert weights[2] == pytest.approx(2) and keep_best_fit(x.T @ x, 9)[[2, 7]].sum() == 1


def test_a_channel_that_nobody_weighs_goes_first_and_singular_systems_are_solved():
    x, _ = gram()
    x[:, [3, 5]] = 0
    g = x.T @ x
    for select in (drop_smallest_sum, keep_best_fit):
        kept = select(g, 8)
        assert kept.tolist() == [number not in (3, 5) for number in range(10)]
    assert torch.equal(rescaling(g, torch.ones(10, dtype=torch.bool)), torch.ones(10, dtype=torch.float64))
    assert torch.isfinite(rescaling(g, torch.arange(10) > 2)).all()


@pytest.mark.parametrize("seed", range(5))
def test_greedy_selections_are_near_the_best_of_all(seed):
    x = torch.randn(100, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    g = x.T @ x

    def sum_of_dropped(kept):
        dropped = (~kept).double()
        return float(dropped @ g @ dropped)

    def residual_of(kept):
        return relative_error(g, kept, rescaling(g, kept))

    subsets = []
    for combination in itertools.combinations(range(10), 5):
        subsets.append(torch.zeros(10, dtype=torch.bool).index_fill_(0, torch.tensor(combination), True))
    for select, objective in ((drop_smallest_sum, sum_of_dropped), (keep_best_fit, residual_of)):
        values = sorted(map(objective, subsets))
        assert values[0] <= objective(select(g, 5)) + 1e-9
        assert objective(select(g, 5)) <= values[len(values) // 10]  # among the best tenth of 252 subsets


def test_the_gram_matrix_of_a_network_is_that_of_the_post_activation_input():
    torch.manual_seed(0)
    network = randomize_norms(plain()).eval()
    layer = inner_layers(network, IMAGE)[0]
    x = torch.randn(6, 1, 8, 8)
    read = network[:3](x)
    rows = contributions(network[3], layer.readers[0], 8, read, 5, torch.Generator().manual_seed(2)).double()
    found = gram_matrix(network, layer, [x], 5, torch.Generator().manual_seed(2))
    assert torch.allclose(found, rows.T @ rows) and not network[3]._forward_pre_hooks


@pytest.mark.parametrize(("build", "name"), [(plain, "3"), (plain, "7"), (residual, "5.conv1")])
def test_duplicated_filters_are_merged_without_changing_the_logits(build, name):
    torch.manual_seed(0)
    network = build().eval()
    layer = next(layer for layer in inner_layers(network, IMAGE) if layer.name == name)
    half = layer.width // 2
    with torch.no_grad():
        for owner in (layer.name, *layer.norms):
            for parameter in network.get_submodule(owner).parameters():
                parameter[half:] = parameter[:half]
        (reader,) = layer.readers
        weight = network.get_submodule(reader.name).weight
        weight[:, half * reader.area :] = weight[:, : half * reader.area]
    x = torch.randn(20, 1, 8, 8)
    before = network(x)
    g = gram_matrix(network, layer, [x], 20, torch.Generator().manual_seed(0))
    kept = keep_best_fit(g, half)
    weights = rescaling(g, kept)
    smaller = prune_units(rescaled(network, layer, kept, weights), {name: kept}, IMAGE).eval()
    assert torch.allclose(smaller(x), before, atol=1e-5)


def test_samples_are_class_balanced_as_far_as_there_are_images(tmp_path):
    task = make_task(tmp_path, examples=24)
    images = torch.cat(list(thinet.sample(task, 5)))
    assert len(images) == 15
    assert len(torch.cat(list(thinet.sample(task, 100)))) == 24
    assert torch.equal(images, torch.cat(list(thinet.sample(task, 5))))


@pytest.mark.parametrize(("epochs", "phases"), [(7, [1, 1, 1, 4]), (2, [1, 1])])
def test_half_of_the_budget_at_most_is_spent_between_the_layers(tmp_path, epochs, phases):
    task = make_task(tmp_path, epochs=epochs)
    network = thinet.fit(plain(), task, prune_ratio=0.5, images_per_class=2)
    counts = [sum(row["phase"] == phase for row in task.run.history) for phase in range(1, task.run.phase + 1)]
    assert counts == phases
    assert [network.get_submodule(name).out_channels for name in ("0", "3", "7")] == [4, 4, 8]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"images_per_class": 0}, "images_per_class must be at least 1"), ({"prune_ratio": 1.0}, "less than 1")],
)
def test_bad_hyperparameters_are_refused_before_training(tmp_path, options, sentence):
    task = make_task(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        thinet.fit(plain(), task, **options)
    assert task.run.phase == 0
