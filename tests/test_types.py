"""Types: mypy finds nothing in the libraries and in what methods touch, and would find what is wrong."""

import subprocess
import sys

from examples import ROOT

WRONG = """
from torch import nn

from edropout import EDropout
from harness.training.task import Task


def fit(model: nn.Module, task: Task) -> nn.Module:
    for x, y in task.train_loader.epoch("first"):
        EDropout(model, population_size="8").loss(x, y)
    model.width.anything
    task.recipe.epoch
    return task.train(model, epochs=task.epochs_left / 2)
"""


def mypy(*arguments):
    command = [sys.executable, "-m", "mypy", "--no-error-summary", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()


def test_the_type_checker_finds_nothing():
    assert mypy() == []


def test_the_type_checker_finds_what_a_method_gets_wrong(tmp_path):
    path = tmp_path / "fit.py"
    path.write_text(WRONG)
    # By its name: what mypy remembers of the same text names the folder of an earlier run.
    found = [line for line in mypy("--config-file", "pyproject.toml", str(path)) if path.name in line]
    wrong = {number for number, line in enumerate(WRONG.splitlines(), 1) if "task." in line or "EDropout(" in line}
    assert {int(line.split(":")[1]) for line in found} == wrong
