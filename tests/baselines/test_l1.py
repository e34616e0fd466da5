"""l1 pruning selects what the paper selects, and what Torch-Pruning's documented equivalent selects."""

import copy

import pytest
import torch
import torch_pruning
import torchvision
from small_networks import plain, randomize_norms
from torch import nn

from baselines.l1 import filter_norms, select
from harness.measure.metrics import macs, parameters
from harness.networks.build import build
from harness.pruning.layers import inner_layers
from harness.pruning.structured import kept_counts, prune_units

IMAGE = torch.zeros(1, 1, 8, 8)


def selected(network, image, ratio=0.5, **options):
    layers = inner_layers(network, image)
    return select(network, layers, kept_counts(layers, ratio), **options)


def test_the_norm_sums_absolute_weights():
    weight = torch.tensor([[[[1.0, -2.0]], [[0.5, 0.0]]], [[[0.0, 3.0]], [[0.0, 0.0]]]])
    assert filter_norms(weight).tolist() == [3.5, 3.0]


def test_the_smallest_filter_goes_first_even_if_its_norm_makes_up_for_it():
    torch.manual_seed(0)
    network = randomize_norms(plain()).eval()
    x = torch.randn(4, 1, 8, 8)
    before = network(x)
    with torch.no_grad():
        network[3].weight[5] *= 1e-3
        network[4].running_mean[5] *= 1e-3
        network[4].weight[5] *= 1e3
    assert torch.allclose(network(x), before, atol=1e-5)  # the function is the same, the score is not
    kept = selected(network, IMAGE, [0.125, 0.0])
    assert kept["3"].tolist() == [True] * 5 + [False] + [True] * 2


def test_permuted_filters_give_the_permuted_selection():
    torch.manual_seed(0)
    network = plain()
    permuted, order = copy.deepcopy(network), torch.randperm(8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        permuted[3].weight.copy_(network[3].weight[order])
    assert torch.equal(selected(permuted, IMAGE)["3"], selected(network, IMAGE)["3"][order])


def test_greedy_scores_leave_out_removed_channels():
    network = plain()
    with torch.no_grad():
        network[0].weight.copy_(torch.arange(8.0)[:, None, None, None].expand(8, 1, 3, 3))
        network[3].weight.fill_(0.1)
        network[3].weight[:4, 0] = 10.0  # large only where they read a filter that goes
        network[3].weight[4:, 7] = 1.0
    assert selected(network, IMAGE)["3"].tolist() == [True] * 4 + [False] * 4
    assert selected(network, IMAGE, greedy=True)["3"].tolist() == [False] * 4 + [True] * 4


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn"])
def test_selection_and_network_equal_torch_prunings(name):
    torch.manual_seed(0)
    shape = (1, 3, 64, 64) if name == "vgg11_bn" else (1, 3, 32, 32)
    network = getattr(torchvision.models, name)(num_classes=10).eval()
    if name == "vgg11_bn":
        network.classifier = nn.Linear(512 * 49, 10)  # 100 million weights less to copy
    randomize_norms(network)
    example = torch.randn(shape)
    kept = selected(network, example)
    theirs = copy.deepcopy(network)
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=1, normalizer=None, group_reduction="first")
    graph = torch_pruning.DependencyGraph().build_dependency(theirs, example_inputs=example)
    modules = dict(theirs.named_modules())
    dropped = {}
    for layer, units in kept.items():
        every = list(range(len(units)))
        scores = importance(graph.get_pruning_group(modules[layer], torch_pruning.prune_conv_out_channels, idxs=every))
        dropped[layer] = scores.argsort()[: len(units) - int(units.sum())].sort().values
        assert torch.equal(dropped[layer], (~units).nonzero().squeeze(1)), layer
    for layer, indices in dropped.items():
        group = graph.get_pruning_group(modules[layer], torch_pruning.prune_conv_out_channels, idxs=indices.tolist())
        group.prune()
    smaller = prune_units(network, kept, example)
    assert parameters(smaller) == parameters(theirs)
    with torch.no_grad():
        assert torch.allclose(smaller(example), theirs(example), atol=1e-4)


def vgg16():
    network = torchvision.models.vgg16_bn(num_classes=10)
    network.avgpool, network.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 10)
    return network


@pytest.mark.parametrize(
    ("build", "ratio", "skip", "saved"),
    [
        (vgg16, [0.5, 0, 0, 0.5], [2], 0.34),
        (lambda: build("resnet110", num_classes=10, input_shape=(3, 32, 32)), [0.5, 0.4, 0.3], [36, 38, 74], 0.38),
    ],
    ids=["vgg16", "resnet110"],
)
def test_the_published_configurations_save_the_published_share_of_operations(build, ratio, skip, saved):
    network, image = build(), torch.zeros(1, 3, 32, 32)
    layers = inner_layers(network, image)
    smaller = prune_units(network, select(network, layers, kept_counts(layers, ratio, skip)), image)
    share = 1 - macs(smaller, (3, 32, 32)) / macs(network, (3, 32, 32))
    assert share == pytest.approx(saved, abs=0.01)  # abstract of arXiv:1608.08710: "up to 34 %" and "38 %"


def test_vgg16_gets_the_published_widths():
    network = vgg16()
    layers = inner_layers(network, torch.zeros(1, 3, 32, 32))
    counts = kept_counts(layers, [0.5, 0, 0, 0.5], [2])
    widths = [counts.get(layer.name, layer.width) for layer in layers]
    assert widths == [32, 64, 128, 128, 256, 256, 256, 256, 256, 256, 256, 256, 256]
