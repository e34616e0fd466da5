"""Which layers may be pruned, how many units stay, and removal that changes nothing."""

import pytest
import torch
import torchvision
from small_networks import plain, randomize_norms, residual
from tasks import make_task
from torch import nn

from harness.measure.metrics import parameters
from harness.pruning.layers import NothingToPrune, convolutions, inner_layers
from harness.pruning.structured import (
    check_ratio,
    counts_of,
    kept_count,
    kept_counts,
    largest,
    nearest_ratio,
    prune_units,
    random_kept,
    remove,
)

IMAGE = torch.zeros(1, 1, 8, 8)


def test_of_a_residual_block_only_the_first_convolution_is_inner():
    layers = convolutions(residual(), IMAGE)
    assert [layer.name for layer in layers if layer.inner] == ["3.conv1", "5.conv1"]
    assert [layer.name for layer in layers if layer.stem] == ["0"]
    assert {layer.name: layer.number for layer in layers} == {
        "0": 1, "3.conv1": 2, "3.conv2": 3, "3.shortcut.0": 0, "5.conv1": 4, "5.conv2": 5, "5.shortcut.0": 0,
    }  # fmt: skip


def test_the_readers_of_a_flattened_map_are_blocks_of_its_pixels():
    layers = {layer.name: layer for layer in convolutions(plain(), IMAGE)}
    assert [(r.name, r.start, r.area) for r in layers["7"].readers] == [("12", 0, 4)]
    assert layers["3"].norms == ("4",)


def test_bottlenecks_lose_both_inner_convolutions_and_no_stem():
    layers = inner_layers(torchvision.models.resnet50(), torch.zeros(1, 3, 32, 32))
    assert len(layers) == 32 and {layer.name.split(".")[-1] for layer in layers} == {"conv1", "conv2"}


def test_concatenated_filters_start_behind_those_of_the_other_branch():
    network = torchvision.models.squeezenet1_1()
    layers = {layer.name: layer for layer in inner_layers(network, torch.zeros(1, 3, 64, 64))}
    assert [(r.name, r.start) for r in layers["features.3.expand1x1"].readers] == [("features.4.squeeze", 0)]
    assert [(r.name, r.start) for r in layers["features.3.expand3x3"].readers] == [("features.4.squeeze", 64)]
    assert "classifier.1" not in layers


def test_networks_whose_branches_split_and_join_again_and_again_are_read_once():
    layers = convolutions(torchvision.models.shufflenet_v2_x1_0(), torch.zeros(1, 3, 32, 32))
    assert len(layers) == 56 and [layer.name for layer in layers if layer.stem] == ["conv1.0"]
    assert not any(layer.output for layer in layers)


def test_a_network_without_inner_convolutions_is_refused():
    with pytest.raises(NothingToPrune, match="nothing can be pruned in Sequential"):
        inner_layers(nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), IMAGE)


def test_a_network_that_cannot_be_traced_is_refused_with_its_name():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match="nothing in Branching can be pruned"):
        inner_layers(Branching(), IMAGE)


@pytest.mark.parametrize(("width", "ratio", "count"), [(64, 0.3, 44), (10, 0.9, 1), (7, 0.5, 3), (16, 0.0, 16)])
def test_kept_count_rounds_down_but_not_by_binary_error(width, ratio, count):
    assert kept_count(width, ratio) == count


@pytest.mark.parametrize("ratio", [1.0, -0.1, float("nan"), "0.5", True])
def test_ratios_outside_0_to_1_are_refused(ratio):
    with pytest.raises(ValueError, match="prune_ratio must be at least 0 and less than 1"):
        check_ratio(ratio)


def test_counts_per_stage_and_skipped_layers():
    layers = inner_layers(plain(), IMAGE)
    assert kept_counts(layers, 0.5) == {"0": 4, "3": 4, "7": 8}
    assert kept_counts(layers, [0.25, 0.75], skip=[2]) == {"0": 6, "7": 4}
    assert kept_counts(layers, [0.0, 0.5]) == {"7": 8}


@pytest.mark.parametrize(
    ("ratio", "skip", "sentence"),
    [
        ([0.5, 0.5, 0.5], (), r"3 entries and the network has 2 stages \(of widths 8, 16\)"),
        (0.9, (), "layer '0' would lose all its filters"),
        (0.5, (9,), "skip names convolution 9, .* candidates are 1, 2, 3"),
        ([0.5, 1.5], (), "less than 1, not 1.5"),
    ],
)
def test_bad_counts_are_refused_with_a_sentence(ratio, skip, sentence):
    with pytest.raises(ValueError, match=sentence):
        kept_counts(inner_layers(plain(), IMAGE), ratio, skip)


def test_largest_keeps_the_first_of_equal_scores():
    assert largest(torch.tensor([1.0, 3.0, 1.0, 2.0]), 3).tolist() == [True, True, False, True]


def test_random_choice_is_uniform_without_replacement():
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([random_kept(10, 4, generator) for _ in range(2000)])
    assert draws.sum(1).eq(4).all()
    # Each unit is kept with probability 0.4; two of them together with 4/10 * 3/9, as without replacement.
    assert torch.allclose(draws.float().mean(0), torch.tensor(0.4), atol=4 * (0.24 / 2000) ** 0.5)
    both = (draws[:, 0] & draws[:, 1]).float().mean()
    assert abs(float(both) - 4 / 30) < 4 * (4 / 30 * 26 / 30 / 2000) ** 0.5


@pytest.mark.parametrize("build", [residual, plain])
def test_removing_what_is_zero_keeps_the_function(build):
    torch.manual_seed(0)
    network = randomize_norms(build()).eval()
    kept = {
        layer.name: random_kept(layer.width, layer.width // 2, torch.Generator().manual_seed(1))
        for layer in inner_layers(network, IMAGE)
    }
    with torch.no_grad():
        for layer in inner_layers(network, IMAGE):
            for owner in (layer.name, *layer.norms):
                for parameter in network.get_submodule(owner).parameters():
                    parameter[~kept[layer.name]] = 0
    x = torch.randn(5, 1, 8, 8)
    smaller = remove(network, x)
    assert all(torch.equal(smaller.kept[name], units) for name, units in kept.items())
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in network.parameters())
    assert torch.allclose(network(x), smaller(x), atol=1e-5)
    assert torch.allclose(prune_units(network, kept, x)(x), smaller(x), atol=1e-6)


def test_removal_leaves_a_network_without_zero_units_alone():
    network = residual()
    with torch.no_grad():
        network[3].conv1.weight[0] = 0  # its norm still shifts what follows
    assert remove(network, IMAGE) is network


def test_a_layer_of_zeros_keeps_one_unit():
    network = plain().eval()
    with torch.no_grad():
        for number in (3, 4):
            for parameter in network[number].parameters():
                parameter.zero_()
    smaller = remove(network, IMAGE)
    assert smaller.kept["3"].sum() == 1
    x = torch.randn(3, 1, 8, 8)
    assert torch.allclose(network(x), smaller(x), atol=1e-6)


def test_a_network_that_cannot_be_traced_stays_masked_with_a_warning():
    class Branching(nn.Sequential):
        def forward(self, x):
            return super().forward(x if x.sum() > 0 else -x)

    network = Branching(nn.Linear(2, 2))
    with torch.no_grad():
        network[0].weight[:, 0] = 0
    with pytest.warns(UserWarning, match="keeps its zero units"):
        assert remove(network, torch.ones(1, 2)) is network


@pytest.mark.parametrize("target", [0.8, 0.5, 0.2])
def test_a_share_of_the_parameters_is_met_as_near_as_whole_filters_allow(tmp_path, target):
    network, task = plain(), make_task(tmp_path)
    layers = inner_layers(network, IMAGE)
    counts = counts_of(network, task, layers, prune_ratio=None, target_kept=target)

    def share(counts):
        kept = {layer.name: torch.arange(layer.width) < counts[layer.name] for layer in layers}
        return parameters(prune_units(network, kept, IMAGE)) / parameters(network)

    best = min(abs(share(kept_counts(layers, step / 64)) - target) for step in range(1, 56))
    assert abs(share(counts) - target) == pytest.approx(best, abs=1e-9)


def test_the_share_is_the_edropout_cells_unless_one_is_given(tmp_path):
    network, layers = plain(), inner_layers(plain(), IMAGE)
    (tmp_path / "metrics.json").write_text('{"status": "done", "error": null, "size": {"kept_ratio": 0.4}}')
    task = make_task(tmp_path, inputs={"edropout": tmp_path / "metrics.json"})
    own = counts_of(network, task, layers, prune_ratio=None, target_kept=0.4)
    assert counts_of(network, task, layers, prune_ratio=None, target_kept=None) == own
    with pytest.raises(ValueError, match="give one of them"):
        counts_of(network, task, layers, prune_ratio=0.5, target_kept=0.4)
    with pytest.raises(ValueError, match="give a prune_ratio or target_kept"):
        counts_of(network, make_task(tmp_path), layers, prune_ratio=None, target_kept=None)


def test_the_nearest_ratio_is_sought_on_both_sides():
    assert nearest_ratio(lambda ratio: 1 - ratio, 0.75) == 0.25
    assert nearest_ratio(lambda ratio: 1.0 if ratio <= 0.5 else 0.3, 0.4) == 129 / 256
    assert nearest_ratio(lambda ratio: 1.0 if ratio <= 0.5 else 0.3, 0.9) == 0.5
    assert nearest_ratio(lambda ratio: 1 - ratio, 0.0, highest=0.5) == 0.5
