"""SIGKILL before any change of a file, half-written checkpoints included: the next start ends with the same bits."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.plan import grid
from harness.plan.code import digest
from harness.sources.prepare import prepare

ROOT = Path(__file__).resolve().parents[3]
# All points in the full run, as with the kills at random moments (tests/workflow/test_kill.py).
STRIDE = 1 if int(os.environ.get("EDROPOUT_KILLS", "3")) >= 20 else 17
RECIPE = {
    "epochs": 2,
    "prune_epoch": 1,
    "batch_size": 64,
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "schedule": {"name": "cosine"},
    "augment": {"crop": 1},
}
FILES = {"dense": "baselines/dense.py", "edropout": "edropout/method.py"}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits") / "digits.safetensors"
    section = {"source": "digits", "train_examples": 150, "val_examples": 50, "test_examples": 50}
    prepare("digits", section, root=out.parent, out=out)
    return out


def lasting(folder):
    """What must not depend on interruptions."""
    metrics = json.loads((folder / "metrics.json").read_text())
    for volatile in ("time", "latency", "provenance"):
        del metrics[volatile]
    weights = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("[ms]*.safetensors"))]
    with open(folder / "history.csv") as handle:
        history = [
            {key: value for key, value in row.items() if not key.endswith("seconds")} for row in csv.DictReader(handle)
        ]
    return metrics, weights, history


@pytest.mark.parametrize("method", FILES)
def test_a_kill_before_any_change_of_a_file_costs_no_bit(digits, tmp_path, method):
    content = {"dataset": "digits", "model": "resnet8", "method": method, "seed": 1, "protocol": grid.PROTOCOL}
    content["config"] = {"data": {"source": "digits"}, "recipe": RECIPE, "hyperparameters": {}}
    cell = json.dumps({**content, "config_hash": digest(content)})
    environment = {**os.environ, "WANDB_MODE": "disabled", "EDROPOUT_CHECKPOINT_SECONDS": "0"}
    driver = [sys.executable, str(Path(__file__).with_name("kill_points.py")), str(tmp_path), str(STRIDE)]
    done = subprocess.run(
        [*driver, FILES[method], "--cell", cell, "--data", str(digits), "--device", "cpu"],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    numbers = done.stdout.split()
    assert len(numbers) > 40 / STRIDE
    expected = lasting(tmp_path / "undisturbed")
    assert expected[0]["status"] == "done"
    for number in numbers:
        assert lasting(tmp_path / number) == expected, f"killed before change {number}"
