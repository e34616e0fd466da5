"""The examples of README and docs/methods.md are what they say: they run, and the methods pass every check."""

import examples
import pytest
import torch
from small_networks import residual
from torch import nn
from torch.nn.functional import cross_entropy

from harness.measure.metrics import nonzero, parameters
from harness.runs.checks import CHECKS, Subject

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
