"""One cell by `python -m harness.run` on a machine that has torch, but neither Snakemake nor W&B nor jsonschema."""

import json
import os
import subprocess
import sys

from projects import ROOT

from harness.plan import grid
from harness.runs import result

MISSING = ("snakemake", "wandb", "jsonschema", "yaml", "pandas")


def test_a_cell_needs_torch_and_safetensors_alone(tmp_path):
    for name in MISSING:
        (tmp_path / "missing").mkdir(exist_ok=True)
        (tmp_path / "missing" / f"{name}.py").write_text(f"raise ModuleNotFoundError({name!r})")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "missing"), str(ROOT)])}

    def run(*arguments):
        command = [sys.executable, "-m", *map(str, arguments)]
        answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
        return answer.stderr

    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
    recipe = {"epochs": 2, "prune_epoch": 1, "batch_size": 64, "optimizer": optimizer, "schedule": {}}
    config = {
        "datasets": {"digits": {"source": "digits", "recipe": "r", "train_examples": 200}},
        "recipes": {"r": recipe},
        "methods": {"dense": {}},
    }
    cell = grid.cell(config, dataset="digits", model="resnet8", method="dense", seed=1)
    data, out = tmp_path / "digits.safetensors", tmp_path / "run" / "metrics.json"
    section = json.dumps({"source": "digits", "train_examples": 200})
    run("harness.sources.prepare", "--name", "digits", "--data", section, "--root", tmp_path, "--out", data)
    fit = ROOT / "baselines" / "dense.py"
    said = run(
        "harness.run", fit, "--cell", json.dumps(cell), "--data", data, "--out", out, "--start", out.parent / "start"
    )
    assert "jsonschema is not installed" in said
    assert result.read(out)["status"] == "done"
    assert "going on without it" in (out.parent / "log.txt").read_text()
