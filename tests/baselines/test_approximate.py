"""Approximate dropout as a method: where it drops, which learning rate it has, when units change places."""

from dataclasses import replace

import pytest
import torch
from small_networks import plain
from tasks import make_task
from torch import nn

from baselines.approximate import Steps, fit
from dropouts.approximate import ApproximateDropout


def mlp():
    torch.manual_seed(0)
    layers = [nn.Linear(64, 24), nn.ReLU(), nn.Dropout(0.0), nn.Linear(24, 24), nn.ReLU(), nn.Dropout(0.0)]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(24, 3))


@pytest.mark.parametrize("build", [mlp, plain])
@pytest.mark.parametrize("pattern", ["rows", "blocks", "some_blocks"])
def test_the_result_is_the_plain_architecture(tmp_path, build, pattern):
    network = fit(build(), make_task(tmp_path), pattern=pattern)
    assert [type(module) for module in network.modules()] == [type(module) for module in build().modules()]
    assert list(network.state_dict()) == list(build().state_dict())


def test_units_change_places_once_an_epoch():
    network = mlp()
    approximate = ApproximateDropout(network, 0.5)
    steps = Steps(approximate, 3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    moved = []
    for _ in range(7):
        network(torch.randn(4, 64)).sum().backward()
        before = network[1].weight.clone()
        steps(optimizer)
        moved.append(not torch.equal(before, network[1].weight))
    assert moved == [False, False, True, False, False, True, False]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pattern": "columns"}, "pattern must be one of rows, blocks, some_blocks, tiles, not 'columns'"),
        ({"distribution": "uniform"}, "distribution must be one of least_variance, maximum_entropy, searched, not"),
        ({"rate": 1.0}, "rate must be at least 0 and less than 1, not 1.0"),
        ({"pattern": "tiles", "distribution": "searched"}, "has 1 tiles in a row, fewer than the 16 pieces"),
    ],
)
def test_bad_options_are_refused_before_training(tmp_path, options, sentence):
    task = make_task(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        fit(mlp(), task, **options)
    assert task.run.phase == 0


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_the_gradient_of_what_is_kept_is_clipped_as_the_recipe_says(clip):
    network = mlp()
    approximate = ApproximateDropout(network, 0.5)
    steps = Steps(approximate, 100, clip=clip)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    network(torch.randn(4, 64)).sum().backward()
    steps(torch.optim.SGD(network.parameters(), lr=1.0))
    moved = torch.cat([(p.detach() - old).flatten() for p, old in zip(network.parameters(), before, strict=True)])
    assert (moved.norm().item() == pytest.approx(1e-3, rel=1e-3)) == (clip is not None)


def test_several_processes_are_refused(tmp_path):
    task = make_task(tmp_path)
    with pytest.raises(ValueError, match="set recipe key 'processes' to 1"):
        fit(mlp(), replace(task, recipe=replace(task.recipe, processes=2)))
