"""Every method of baselines/, and EDropout, passes every check of harness/runs/checks.py."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from small_networks import residual

from harness.runs.checks import CHECKS, Subject

ROOT = Path(__file__).resolve().parent.parent
METHODS = {path.stem: path for path in sorted((ROOT / "baselines").glob("*.py"))}
METHODS |= {path.parent.name: path for path in sorted((ROOT / "baselines").glob("*/fit.py"))}
METHODS |= {"edropout": ROOT / "edropout" / "method.py", "random_path": ROOT / "edropout" / "random_path.py"}
VARIANTS = {
    "channelnet-v3": {"version": 3, "width": 0.125},
    "l1-share": {"target_kept": 0.4},
    "l1-greedy": {"greedy": True, "skip": [2], "prune_ratio": 0.25},
    "thinet-journal": {"journal": True, "epochs_per_layer": 2},
    "deep_compression-layerwise": {"prune_ratio": 0.5, "layerwise": True, "linear": False},
    "deep_compression-shared": {"share_weights": True, "conv_bits": 3},
    "dropout-spatial": {"rate": 0.1, "spatial": True},
    "dropout-early": {"schedule": "early"},
    "approximate-rows": {"pattern": "rows", "distribution": "searched", "lazy": False},
    "approximate-tiles": {"pattern": "tiles"},
    "approximate-some_blocks": {"pattern": "some_blocks", "shared": True},
    "beta_bernoulli-dependent": {"dependent": True},
    "variational-weights": {"on_weights": True, "per_unit": True},
    "variational_bayesian-units": {"on_units": True},
    "edropout-curvature": {"by": "curvature", "target_kept": 0.4},
    "edropout-curvature_both": {"by": "curvature", "target_kept": 0.4, "target_macs": "uniform"},
    "depgraph-slimming": {"importance": "norm_scale", "regularise": "norm_scale", "stages": 1},
    "depgraph-growing": {"regularise": "growing", "by": "macs", "target_kept": 0.4},
    "depgraph-obd": {"importance": "obd", "regularise": "none", "stages": 3},
    "depgraph-random": {"importance": "random", "regularise": "none", "global_pruning": False},
    "random-50": {"prune_ratio": 0.5},
    "random-weights": {"weights": True, "prune_ratio": 0.5},
}
"""Other hyper-parameters that take other paths through a method."""

QUICK = {"channelnet": {"width": 0.125}, "depgraph": {"stages": 4}, "random_path": {"target_kept": 0.4}}
"""Hyper-parameters without which a method takes long on this machine, or does not know how much to keep."""

CASES = [(name, QUICK.get(name, {})) for name in METHODS] + list(VARIANTS.items())


def load(path):
    spec = importlib.util.spec_from_file_location(f"method_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fit


def rule_text(name):
    folder = ROOT / "workflow"
    path = folder / "baselines" / f"{name}.smk"
    return path.read_text() if path.exists() else (folder / "rules" / "edropout.smk").read_text()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Another cell's result, whose network kept every second filter of the first block."""
    folder = tmp_path_factory.mktemp("cell")
    metrics = {"status": "done", "error": None, "size": {"kept_ratio": 0.5}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "model.json").write_text(json.dumps({"kept": {"3.conv1": [0, 2, 4, 6], "5.conv1": None}}))
    return {"edropout": folder / "metrics.json", "source": folder / "metrics.json"}


@pytest.fixture(scope="module")
def subjects(inputs):
    torch.set_num_threads(1)
    made = {}

    def subject(name, hyperparameters):
        if name not in made:
            method = name.split("-")[0]
            from_dense = "init=DENSE" in rule_text(method).split("wildcard_constraints")[0]
            made[name] = Subject(load(METHODS[method]), residual, from_dense, inputs, hyperparameters)
        return made[name]

    return subject


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize(("name", "hyperparameters"), CASES, ids=[name for name, _ in CASES])
def test_method(subjects, name, hyperparameters, check):
    check(subjects(name, hyperparameters))
