"""What is measured, on numbers that can be checked by hand."""

import math

import pytest
import torch
from torch import nn

from harness.measure import metrics


class Table(nn.Module):
    """Gives back its input as logits."""

    def forward(self, x):
        return x.flatten(1)


def image(*rows):
    return torch.tensor(rows, dtype=torch.float32)[:, :, None, None]


def test_means_are_over_examples_and_not_over_batches():
    sure, wrong = [math.log(3.0), 0.0], [0.0, math.log(3.0)]
    batches = [(image(sure, sure, sure), torch.tensor([0, 0, 0])), (image(wrong), torch.tensor([0]))]
    outcome = metrics.evaluate(Table(), batches)
    assert outcome["top1"] == 0.75 and outcome["examples"] == 4
    assert outcome["loss"] == pytest.approx((3 * math.log(4 / 3) + math.log(4)) / 4)


def test_top_k_counts_the_k_largest_and_is_capped_by_the_classes():
    batches = [(image([5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]), torch.tensor([2, 2]))]
    outcome = metrics.evaluate(Table(), batches)
    assert (outcome["top1"], outcome["top3"], outcome["top5"]) == (0.0, 0.5, 1.0)
    assert metrics.evaluate(Table(), [(image([1, 0]), torch.tensor([1]))])["top5"] == 1.0


def test_evaluation_restores_the_mode_and_changes_no_statistics():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten()).train()
    before = model[1].running_mean.clone()
    metrics.evaluate(model, [(torch.randn(4, 1, 1, 1), torch.zeros(4, dtype=torch.long))])
    assert model.training and torch.equal(model[1].running_mean, before)


def small():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 10))


def test_counts_of_parameters_multiply_accumulates_and_zeros():
    model = small()
    assert metrics.parameters(model) == 4 * 9 + 4 + 8 + 1440 + 10
    assert metrics.macs(model, (1, 6, 6)) == 4 * 9 * 36 + 1440
    with torch.no_grad():
        model[0].weight[0] = 0
        model[0].bias[0] = 0
    # Nine zero weights are pruned; a zero bias is a value.
    assert metrics.nonzero(model) == metrics.parameters(model) - 9
    assert metrics.layer_ratios(model, small()) == {"0": 0.75, "3": 1.0}


def test_a_layer_inside_another_module_is_the_layer_of_before():
    class Around(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.noise, self.layer = nn.BatchNorm2d(1), layer

    model = small()
    model[0] = Around(model[0])
    with torch.no_grad():
        model[0].layer.weight[0] = 0
    assert metrics.layer_ratios(model, small()) == {"0": 0.75, "3": 1.0}


def test_an_architecture_of_its_own_has_no_layer_ratios():
    assert metrics.layer_ratios(nn.Sequential(nn.Flatten(), nn.Linear(36, 10)), small()) == {}


def test_latency_names_batch_and_threads_and_measures_every_network():
    outcome = metrics.latency({"model": small(), "dense": small()}, (1, 6, 6), batch_size=2, runs=5)
    assert outcome["batch_size"] == 2 and outcome["threads"] == torch.get_num_threads()
    assert outcome["model"]["median_ms"] > 0 and outcome["dense"]["iqr_ms"] >= 0
