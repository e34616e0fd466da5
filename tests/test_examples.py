"""The examples of README and docs/methods.md are what they say: they run, and the methods pass every check."""

import json
import subprocess

import examples
import pytest
import torch
from small_networks import residual
from torch import nn
from torch.nn.functional import cross_entropy

from harness.data import prepared
from harness.measure.metrics import nonzero, parameters
from harness.plan import grid
from harness.runs import result
from harness.runs.checks import CHECKS, Subject
from harness.sources.prepare import prepare
from paper.rows import plausible

METHODS = [text for text in examples.blocks("python") if "def fit(" in text]
NAMES = [text.split('"""')[1].split(":")[0] for text in METHODS]


def namespace_of(text):
    names = {"__name__": "example"}
    exec(compile(text, "example", "exec"), names)
    return names


@pytest.fixture(scope="module")
def subjects():
    torch.set_num_threads(1)
    return {
        name: Subject(namespace_of(text)["fit"], residual, from_dense="Soft" not in name)
        for name, text in zip(NAMES, METHODS, strict=True)
    }


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", NAMES)
def test_a_method_of_the_documentation_passes_every_check(subjects, name, check):
    check(subjects[name])


@pytest.mark.parametrize(
    ("name", "least", "most"), [("Filter pruning by l2 norm", 0.4, 0.8), ("Magnitude pruning", 0.1, 0.2)]
)
def test_a_method_of_the_documentation_leaves_what_it_says(subjects, name, least, most):
    assert least < nonzero(subjects[name].outcome.network) / parameters(residual()) < most


def batches():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(8, 1, 8, 8, generator=generator), torch.arange(8) % 3) for _ in range(3)]


def test_the_diff_for_ones_own_loop_trains_and_prunes():
    torch.manual_seed(0)
    model = residual()
    before = [weight.clone() for weight in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names = {"model": model, "loader": batches(), "optimizer": optimizer, "cross_entropy": cross_entropy}
    exec(examples.after(examples.block("diff", "EDropout(model")), names)
    assert any((weight != old).any() for weight, old in zip(model.parameters(), before, strict=True))
    assert parameters(names["smaller"]) < parameters(model)


def test_the_diff_for_approximate_dropout_trains():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 3))
    before = [weight.clone() for weight in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names = {"model": model, "loader": batches(), "optimizer": optimizer, "cross_entropy": cross_entropy}
    exec(examples.after(examples.block("diff", "ApproximateDropout(model")), names)
    assert all((weight != old).any() for weight, old in zip(model.parameters(), before, strict=True))


def test_the_architecture_of_the_documentation_builds_what_its_name_says():
    model = namespace_of(examples.block("python", "NAMES ="))["build"]("mine_30", num_classes=4, input_shape=(1, 8, 8))
    assert parameters(model) == 64 * 30 + 30 + 30 * 4 + 4
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 4)


def test_the_program_in_another_language_counts_what_the_data_says(tmp_path):
    prepare("digits", {"source": "digits"}, root=tmp_path, out=tmp_path / "digits")
    config = {
        "datasets": {"digits": {"source": "digits", "recipe": "r"}},
        "recipes": {"r": {}},
        "methods": {"guess": {}},
    }
    cell = grid.cell(config, dataset="digits", model="resnet8", method="guess", seed=1)
    (tmp_path / "guess.sh").write_text(examples.file("baselines/guess.sh"))
    (tmp_path / "dense.json").write_text(json.dumps({"size": {"dense_parameters": 77_850}}, indent=1))
    command = ["sh", "guess.sh", json.dumps(cell, sort_keys=True), "digits", "out.json", "dense=dense.json"]
    subprocess.run(command, cwd=tmp_path, check=True)
    metrics = result.read(tmp_path / "out.json")
    assert not list(plausible.objections(metrics))
    assert all(metrics[key] == cell[key] for key in ("dataset", "model", "method", "seed", "protocol", "config_hash"))
    tensors = prepared.read(tmp_path / "digits").tensors
    counts = tensors["train_y"].bincount()
    order, test = counts.argsort(descending=True, stable=True), tensors["test_y"]
    for top in (1, 3, 5):
        right = (test[:, None] == order[None, :top]).any(1).double().mean().item()
        assert metrics["test"][f"top{top}"] == pytest.approx(right, abs=1e-9)
    assert metrics["test"]["loss"] == pytest.approx(-(counts / counts.sum())[test].log().mean().item(), abs=1e-6)
    assert metrics["size"]["kept_ratio"] == pytest.approx(10 / 77_850)
