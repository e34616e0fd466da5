"""Dropout acts where hidden units are read, follows its schedule, and leaves nothing behind."""

import copy

import pytest
import torch
from small_networks import plain, residual
from tasks import make_task
from torch import nn

import dropouts
from baselines.dropout import fit


class Watched:
    """A task that shows the network as it is trained, and the rates of each step."""

    def __init__(self, task):
        self.task, self.rates = task, []

    def __getattr__(self, name):
        return getattr(self.task, name)

    def train(self, model, *, loss, **options):
        def watched(x, y):
            value = loss(x, y)
            self.rates.append({module.rate for module in model.modules() if isinstance(module, dropouts.Bernoulli)})
            return value

        self.places = [
            name.removesuffix(".dropout") for name, module in model.named_modules()
            if isinstance(module, dropouts.Scheduled)
        ]  # fmt: skip
        return self.task.train(model, loss=watched, **options)


@pytest.mark.parametrize(("spatial", "places"), [(False, ["12", "14"]), (True, ["3", "7"])])
def test_dropout_acts_before_the_linear_layers_or_the_later_convolutions(tmp_path, spatial, places):
    task = Watched(make_task(tmp_path))
    fit(plain(), task, spatial=spatial)
    assert task.places == places


def test_the_input_of_a_perceptron_is_not_dropped(tmp_path):
    task = Watched(make_task(tmp_path))
    fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3)), task)
    assert task.places == ["3"]


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.3, 0.3, 0.3, 0.3, 0.3, 0.3]),
        ("early", [0.3, 0.2, 0.1, 0.0, 0.0, 0.0]),
        ("late", [0.0, 0.0, 0.0, 0.3, 0.3, 0.3]),
    ],
)
def test_the_rate_follows_the_training(tmp_path, schedule, rates):
    task = Watched(make_task(tmp_path))
    fit(plain(), task, rate=0.3, schedule=schedule, cutoff=0.5)
    assert [rate for (rate,) in task.rates] == pytest.approx(rates)  # of six steps


@pytest.mark.parametrize("options", [{}, {"spatial": True}, {"schedule": "late", "cutoff": 0.5}])
def test_the_result_is_the_plain_architecture(tmp_path, options):
    network = fit(residual(), make_task(tmp_path), **options)
    assert list(network.state_dict()) == list(residual().state_dict())
    copy.deepcopy(network)


def test_only_the_given_rate_acts_while_training(tmp_path):
    network = fit(nn.Sequential(nn.Dropout(0.9), *plain()), make_task(tmp_path))
    assert network[0].p == 0.0


def test_rate_0_trains_the_dense_network_bit_for_bit(tmp_path):
    (tmp_path / "a").mkdir()
    torch.manual_seed(0)
    dense = plain()
    network = copy.deepcopy(dense)
    make_task(tmp_path).train(dense)
    fit(network, make_task(tmp_path / "a"), rate=0.0)
    assert all(torch.equal(a, b) for a, b in zip(dense.parameters(), network.parameters(), strict=True))


@pytest.mark.parametrize(
    ("build", "options", "sentence"),
    [
        (plain, {"rate": 1.0}, "rate must be at least 0 and less than 1, not 1.0"),
        (plain, {"schedule": "cosine"}, "schedule must be one of constant, early, late, not 'cosine'"),
        (plain, {"cutoff": 0.0}, "cutoff must be more than 0"),
        (lambda: nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), {}, "has no Linear or RNNBase that reads"),
        (lambda: nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), {"spatial": True}, "has no Conv2d that reads"),
    ],
)
def test_bad_input_is_refused_before_training(tmp_path, build, options, sentence):
    task = make_task(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        fit(build(), task, **options)
    assert task.run.phase == 0
