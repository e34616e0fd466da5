"""The controls: random choices at another cell's widths, and another cell's network trained from scratch."""

import json

import pytest
import torch
from small_networks import plain, residual
from tasks import make_task
from torch import nn

from baselines import random, scratch


def other_cell(folder, kept, ratio=0.5):
    """Result files of a cell whose network kept the given units."""
    metrics = {"status": "done", "error": None, "size": {"kept_ratio": ratio}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "model.json").write_text(json.dumps({"kept": kept}))
    return folder / "metrics.json"


def test_every_layer_keeps_its_share_of_random_filters(tmp_path):
    network = random.fit(residual(), make_task(tmp_path, epochs=1), prune_ratio=0.5)
    sizes = {name: int(units.sum()) for name, units in network.kept.items() if not units.all()}
    assert sizes["3.conv1"] == 4 and sizes["5.conv1"] == 8 and network.kept["0"].all()
    other = make_task(tmp_path, epochs=1)
    object.__setattr__(other, "seed", 4)
    (tmp_path / "other").mkdir()
    other.run.folder = tmp_path / "other"
    another = random.fit(residual(), other, prune_ratio=0.5)
    assert not torch.equal(network.kept["5.conv1"], another.kept["5.conv1"])


def test_each_layer_keeps_as_many_units_as_edropouts_and_others_of_them(tmp_path):
    source = other_cell(tmp_path, {"3": [0, 1, 2], "7": None, "12": list(range(0, 64, 2))})
    network = random.fit(plain(), make_task(tmp_path, epochs=1, inputs={"edropout": source}))
    assert [int(network.kept[name].sum()) for name in ("0", "3", "12")] == [8, 3, 32]
    assert network.kept["3"].tolist() != [True] * 3 + [False] * 5


def test_random_weights_keep_the_same_share_of_every_layer(tmp_path):
    network = random.fit(plain(), make_task(tmp_path, epochs=1), prune_ratio=0.75, weights=True)
    for module in network:
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert int(module.weight.count_nonzero()) == module.weight.numel() // 4


def test_without_a_ratio_as_many_weights_are_left_as_edropout_has_parameters(tmp_path):
    source = other_cell(tmp_path, None, ratio=0.6)
    network = random.fit(plain(), make_task(tmp_path, epochs=1, inputs={"edropout": source}), weights=True)
    total = sum(p.numel() for p in network.parameters())
    left = sum(int(p.count_nonzero()) if p.dim() > 1 else p.numel() for p in network.parameters())
    assert left == pytest.approx(0.6 * total, abs=5)  # rounding in each of five layers


@pytest.mark.parametrize("share", [0.7, 0.3])
def test_a_share_of_the_parameters_is_met_by_one_ratio_for_all_layers(tmp_path, share):
    dense = residual()
    network = random.fit(residual(), make_task(tmp_path, epochs=1), target_kept=share)
    left = sum(p.numel() for p in network.parameters()) / sum(p.numel() for p in dense.parameters())
    assert left == pytest.approx(share, abs=0.04)  # widths of 8 and 16: one filter more is a step of a few percent
    assert network.kept["3.conv1"].float().mean() == pytest.approx(
        float(network.kept["5.conv1"].float().mean()), abs=0.13
    )


@pytest.mark.parametrize("options", [{"target_kept": 0.0}, {"target_kept": 0.3, "prune_ratio": 0.5}])
def test_a_share_that_cannot_be_is_refused(tmp_path, options):
    with pytest.raises(ValueError, match="target_kept"):
        random.fit(residual(), make_task(tmp_path, epochs=1), **options)


def test_scratch_trains_the_widths_of_the_other_cell_from_fresh_weights(tmp_path):
    source = other_cell(tmp_path, {"3.conv1": [1, 5], "5.conv1": None})
    fresh = residual()
    task = make_task(tmp_path, epochs=2, inputs={"source": source})
    network = scratch.fit(fresh, task)
    assert network.get_submodule("3.conv1").out_channels == 2 and network.get_submodule("5.conv1").out_channels == 16
    assert network.kept["3.conv1"].nonzero().squeeze(1).tolist() == [1, 5]
    assert task.run.epoch == 2


@pytest.mark.parametrize("ratio", [1.0, 1.5])
def test_random_refuses_ratios_before_training(tmp_path, ratio):
    with pytest.raises(ValueError, match="prune_ratio must be at least 0"):
        random.fit(plain(), make_task(tmp_path), prune_ratio=ratio)


@pytest.mark.parametrize(
    ("method", "inputs", "sentence"),
    [
        (random, {}, "random pruning needs a prune_ratio, or edropout=EDROPOUT"),
        (scratch, {}, "scratch needs the metrics.json of another cell"),
    ],
)
def test_a_missing_cell_is_named(tmp_path, method, inputs, sentence):
    with pytest.raises(ValueError, match=sentence):
        method.fit(plain(), make_task(tmp_path, inputs=inputs))


def test_a_network_that_lost_nothing_is_no_architecture_of_its_own(tmp_path):
    source = other_cell(tmp_path, None)
    with pytest.raises(ValueError, match="has all its units"):
        scratch.fit(plain(), make_task(tmp_path, inputs={"source": source}))


def test_a_cell_of_another_architecture_is_refused(tmp_path):
    source = other_cell(tmp_path, {"layer1.0.conv1": [0]})
    with pytest.raises(ValueError, match=r"its layer 'layer1\.0\.conv1' does not fit"):
        scratch.fit(plain(), make_task(tmp_path, inputs={"source": source}))


def test_a_layer_that_would_lose_all_its_filters_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"layer '3\.conv1' would lose all its filters"):
        random.fit(residual(), make_task(tmp_path), prune_ratio=0.95)


def test_inputs_of_a_linear_layer_are_drawn_among_those_that_the_drawn_filters_provide():
    layers = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    model = nn.Sequential(*layers)
    counts = {"1": (8, 4), "4": (8, 4)}
    kept = random.draw(model, counts, torch.zeros(1, 1, 8, 8), torch.Generator().manual_seed(0))
    assert kept["1"].sum() == 4 and torch.equal(kept["4"], kept["1"])
