"""Calibration and likelihood of predictions that average passes, against hand-computed numbers and torchmetrics."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dropouts import Bernoulli
from harness.kinds.classification import BINS, KIND
from harness.kinds.regression import Regression, best_noise, log_likelihood, mixture_log_likelihood
from harness.measure import uncertainty
from harness.runs.measured import uncertain


def test_mean_probabilities_are_averaged_and_not_logits():
    outputs = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]], [[0.8, 0.2]]]).log()  # three passes, one example
    evaluation = KIND.predicted(KIND.pooled(outputs), torch.tensor([0]))
    assert evaluation["loss"] == pytest.approx(-math.log(0.6))
    assert evaluation["brier"] == pytest.approx(2 * 0.4**2)
    assert evaluation["ece"] == pytest.approx(0.4)


def test_calibration_error_is_that_of_torchmetrics():
    from torchmetrics.functional.classification import multiclass_calibration_error

    torch.manual_seed(0)
    logits, y = 2 * torch.randn(500, 10), torch.randint(10, (500,))
    theirs = multiclass_calibration_error(logits.softmax(1), y, num_classes=10, n_bins=BINS, norm="l1")
    assert KIND.predicted(KIND.pooled(logits[None]), y)["ece"] == pytest.approx(theirs.item(), abs=1e-6)
    assert sum(share for share, _, _ in KIND.reliability(logits.log_softmax(1), y)) == pytest.approx(1)


def test_auroc_counts_pairs_and_ties_half():
    assert uncertainty.auroc(torch.tensor([2.0, 3.0]), torch.tensor([1.0])) == 1
    assert uncertainty.auroc(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0])) == pytest.approx((0.5 + 0 + 1 + 1) / 4)


def test_a_mixture_of_equal_passes_is_a_gaussian():
    torch.manual_seed(0)
    outputs, y = torch.randn(50, 1).double(), torch.randn(50, 1).double()
    rmse = (outputs - y).square().mean().sqrt().item()
    assert mixture_log_likelihood(outputs.expand(50, 7), y, 0.3) == pytest.approx(log_likelihood(rmse, 0.3))
    assert best_noise(outputs.expand(50, 7), y) == pytest.approx(rmse, rel=1e-3)


def test_the_noise_that_is_chosen_is_likelier_than_its_neighbours():
    torch.manual_seed(0)
    outputs, y = torch.randn(40, 30).double(), 1.5 * torch.randn(40, 1).double()
    noise = best_noise(outputs, y)
    best = mixture_log_likelihood(outputs, y, noise)
    assert all(mixture_log_likelihood(outputs, y, factor * noise) < best for factor in (0.3, 0.9, 1.1, 3.0))


def test_an_exact_fit_has_a_finite_likelihood():
    y = torch.zeros(5, 1)
    assert math.isfinite(Regression().predicted(torch.zeros(5, 3), y)["log_likelihood"])


def test_rmse_and_likelihood_are_in_the_targets_unit():
    torch.manual_seed(0)
    outputs, y = torch.randn(40, 30), torch.randn(40, 1)
    one, ten = (Regression(scale).predicted(outputs, y) for scale in (1.0, 10.0))
    assert ten["rmse"] == pytest.approx(10 * one["rmse"])
    assert ten["noise_std"] == pytest.approx(10 * one["noise_std"])
    assert ten["log_likelihood"] == pytest.approx(one["log_likelihood"] - math.log(10))
    assert not list(Regression(10.0).objections({**ten, "samples": 30, "examples": 40}))


def test_measured_by_sampling_on_the_test_set_and_on_outliers():
    torch.manual_seed(0)
    model = nn.Sequential(Bernoulli(0.5), nn.Linear(3, 2))
    inside, outside = (torch.eye(3) * size for size in (100.0, 0.0))
    y = model.eval()(inside).argmax(1)
    data = SimpleNamespace(val=[], test=[(inside, y)], outliers=[(outside, y)], kind=KIND)
    found = uncertainty.measure(model, data)["evaluation"]
    assert found["top1"] == 1 and found["auroc"] == 1 and "samples" not in found
    drawn = uncertainty.measure(model, data, samples=20)["evaluation"]
    assert drawn["samples"] == 20 and drawn["loss"] > found["loss"]  # dropped inputs leave the bias alone


def test_a_result_keeps_what_is_measured_everywhere_and_gains_what_sampling_says():
    torch.manual_seed(0)
    drawing = nn.Sequential(Bernoulli(0.5), nn.Linear(3, 2)).eval()
    data = SimpleNamespace(val=[], test=[(torch.eye(3), torch.tensor([0, 1, 0]))], outliers=None, kind=KIND)
    test = {"loss": 1.25, "top1": 0.5, "examples": 3}
    alone = uncertain(drawing, None, data, 5, test)
    assert alone["test"].items() >= test.items() and "brier" in alone["test"] and "sampled_test" not in alone
    both = uncertain(drawing, drawing, data, 5, test)
    assert both["sampled_test"]["samples"] == 5 and set(both["reliability"]) == {"test", "sampled_test"}


def test_a_regression_without_sampling_gains_nothing():
    data = SimpleNamespace(kind=Regression(), outliers=None)
    assert uncertain(nn.Linear(1, 1), None, data, 5, {"loss": 1.0}) == {}


def test_the_noise_of_a_sampled_regression_is_chosen_on_validation():
    torch.manual_seed(0)
    drawing = nn.Sequential(Bernoulli(0.5), nn.Linear(3, 1)).eval()
    x, near, far = torch.randn(50, 3), torch.zeros(50, 1), 100 * torch.ones(50, 1)
    data = SimpleNamespace(val=[(x, near)], test=[(x, far)], outliers=None, kind=Regression())
    found = uncertainty.measure(drawing, data, samples=10)
    assert found["evaluation"]["noise_std"] < 5 and found["evaluation"]["rmse"] > 95 and found["reliability"] == []
