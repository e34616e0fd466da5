"""Every kind of task: its numbers by hand, what it carries, and that a new one is one file."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from harness import kinds
from harness.data.texts import Text
from harness.kinds.language import RecurrentState
from harness.kinds.regression import Regression
from harness.measure.metrics import evaluate, macs
from harness.networks.build import build
from harness.runs import result

ROOT = Path(__file__).resolve().parents[3]
LANGUAGE = kinds.named("language")


def batch(kind):
    generator = torch.Generator().manual_seed(0)
    if kind.name == "language":
        return torch.randn(4, 5, 7, generator=generator), torch.randint(7, (4, 5), generator=generator)
    if kind.name == "regression":
        return torch.randn(6, 1, generator=generator), torch.randn(6, 1, generator=generator)
    return torch.randn(6, 7, generator=generator), torch.randint(7, (6,), generator=generator)


@pytest.mark.parametrize("name", kinds.names())
def test_the_evaluated_loss_is_the_trained_one_and_nothing_contradicts_itself(name):
    kind = kinds.named(name)
    outputs, y = batch(kind)
    evaluation = evaluate(nn.Identity(), [(outputs[:2], y[:2]), (outputs[2:], y[2:])], kind)
    assert evaluation["loss"] == pytest.approx(kind.loss(outputs, y).item(), rel=1e-6)
    assert evaluation["examples"] == y.numel() and kind.main.name in evaluation
    assert not [*kinds.bounds(kind, evaluation), *kind.objections(evaluation)]
    assert kind.name == name and kind.main in kind.metrics


@pytest.mark.parametrize("name", kinds.names())
def test_a_blank_input_fits_a_network_of_the_kind(name):
    kind = kinds.named(name)
    model, shape = {"language": ("lstm_4x1", (3,))}.get(name, ("mlp_4", (6,)))
    network = build(model, num_classes=5, input_shape=shape, kind=kind)
    assert network(kind.example(shape, 2)).shape == (2, *kind.output_shape(shape, 5))


def test_perplexity_of_knowing_nothing_is_the_number_of_words():
    y = torch.randint(7, (2, 9))
    evaluation = evaluate(nn.Identity(), [(torch.zeros(2, 9, 7), y)], LANGUAGE)
    assert evaluation["perplexity"] == pytest.approx(7, rel=1e-6) and evaluation["examples"] == 18
    assert LANGUAGE.summary({"loss": 1e9})["perplexity"] < math.inf
    # Counts 3 and 1, one more each: 4/6 and 2/6.
    chance = LANGUAGE.chance(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1]))
    assert chance == pytest.approx(math.exp(-(math.log(4 / 6) + math.log(2 / 6)) / 2))


def test_regression_speaks_in_the_targets_unit_and_takes_its_noise_from_validation():
    kind = Regression().at_scale(2.0)
    val = kind.summary({"loss": 1.0})
    assert val["rmse"] == 2.0 and val["noise_std"] == 2.0
    assert val["log_likelihood"] == pytest.approx(-0.5 * math.log(2 * math.pi * 4) - 0.5)
    test = kind.summary({"loss": 4.0}, val)
    assert test["rmse"] == 4.0 and test["noise_std"] == 2.0
    assert test["log_likelihood"] == pytest.approx(-0.5 * math.log(2 * math.pi * 4) - 0.5 * 4)
    # Of one row, as scipy has it, at the standardised error 2.
    distribution = torch.distributions.Normal(0.0, 2.0)
    assert test["log_likelihood"] == pytest.approx(distribution.log_prob(torch.tensor(4.0)).item(), rel=1e-6)
    assert kind.chance(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 3.0])) == pytest.approx(2 * math.sqrt(2))


def test_chance_of_a_classifier_is_the_commonest_class_of_training():
    kind = kinds.named("classification")
    assert kind.chance(torch.tensor([1, 1, 0]), torch.tensor([1, 0, 0, 0])) == 0.25


class Recurrent(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_text_read_in_pieces_is_the_text_read_at_once(make):
    torch.manual_seed(0)
    network, x = Recurrent(make(3, 4, 2, batch_first=True)), torch.randn(2, 7, 3)
    carry = RecurrentState(network)
    with torch.no_grad(), carry.attached():
        whole = network(x)
        carry.reset()
        pieces = []
        for piece in x.split(3, 1):
            network(torch.zeros_like(piece[:, :1]))  # Another pass of the batch before the one that counts.
            pieces.append(network(piece))
            carry.advance()
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-6)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert torch.equal(network(x), network(x))  # Without it nothing is remembered.


def test_an_evaluation_reads_a_text_as_one_however_it_is_cut():
    torch.manual_seed(0)
    network, tokens = build("lstm_6x2", num_classes=9, input_shape=(5,), kind=LANGUAGE), torch.randint(9, (40,))
    whole, pieces = (evaluate(network, Text(tokens, 0, 1, unroll), LANGUAGE)["loss"] for unroll in (40, 7))
    assert pieces == pytest.approx(whole, rel=1e-6)


def test_a_layer_that_is_given_a_state_keeps_it():
    torch.manual_seed(0)
    network, x = nn.GRU(3, 4, batch_first=True), torch.randn(2, 3, 3)
    carry, own = RecurrentState(network), torch.ones(1, 2, 4)
    with torch.no_grad(), carry.attached():
        network(x)
        carry.advance()
        assert torch.equal(network(x, hx=own)[0], network(x, own)[0])


def test_the_gradient_ends_where_the_batch_begins():
    torch.manual_seed(0)
    network = Recurrent(nn.LSTM(3, 4, batch_first=True))
    carry, first = RecurrentState(network), torch.randn(2, 3, 3, requires_grad=True)
    with carry.attached():
        network(first)
        carry.advance()
        network(torch.randn(2, 3, 3)).sum().backward()
    assert first.grad is None


def test_macs_of_a_language_model_are_those_of_one_word():
    network = build("lstm_8x2", num_classes=11, input_shape=(5,), kind=LANGUAGE)
    assert macs(network, (5,), LANGUAGE) == 2 * 4 * 8 * (8 + 8) + 8 * 11


FOURTH = """
from harness.kinds import Kind, Metric

class Counts(Kind):
    name = "counts"
    main = Metric("deviance", "deviance", low=0)
    metrics = (Metric("loss", "loss"), main)
    noun = "rows"
    sources = ("visits",)

    def loss(self, outputs, y):
        return (outputs.exp() - y * outputs).mean()

    def sums(self, outputs, y):
        return {"loss": (outputs.exp() - y * outputs).sum().item(), "deviance": 1.0}

    def summary(self, means, val=None):
        return dict(means)

    def chance(self, train, test):
        return 1.0

KIND = Counts()
"""


def test_a_fourth_kind_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "counts.py").write_text(FOURTH)
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(tmp_path)])
    assert kinds.names() == ["classification", "counts", "language", "regression"]
    assert [kinds.of_data({"source": source}) for source in ("visits", "uci", "mnist")] == [
        *("counts", "regression", "classification"),
    ]
    evaluation = evaluate(nn.Identity(), [(torch.zeros(3, 1), torch.ones(3, 1))], kinds.named("counts"))
    cell = {
        "dataset": "d",
        "model": "m",
        "method": "a",
        "seed": 1,
        "protocol": 1,
        "config_hash": "0" * 16,
        "config": {},
    }
    size = {"parameters": 1, "dense_parameters": 1, "nonzero": 1, "kept_ratio": 1.0}
    metrics = {**result.header(cell), "kind": "counts", "test": evaluation, "size": size}
    result.check(metrics, source="here")
    with pytest.raises(result.ResultError, match=r"here: test.deviance: -1 is less than the minimum of 0"):
        result.check({**metrics, "test": {**evaluation, "deviance": -1}}, source="here")
    with pytest.raises(result.ResultError, match=r"here: kind: there is no kind of task 'count': the kinds are"):
        result.check({**metrics, "kind": "count"}, source="here")


def test_kinds_are_read_without_torch():
    modules = ", ".join(f"harness.kinds.{name}" for name in kinds.names())
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
