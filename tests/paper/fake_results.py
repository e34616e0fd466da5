"""Result trees that are valid under the schema and made up: for tests of the paper folder and for its benchmark."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy
import pandas

from harness.plan import made_of
from harness.plan.code import digest
from paper.statistics import compute
from paper.tables import write as tables

LAYERS = ("conv1", "layer1.conv1", "layer1.conv2", "layer2.conv1", "layer2.conv2", "layer2.shortcut", "fc")
DENSE_PARAMETERS = {"resnet8": 78_042, "vgg8": 288_170, "resnet18": 11_173_962, "resnet34": 21_282_122}
EXAMPLES = 10_000
NOW = made_of.Present()
EPOCHS = 20


def kept_of(method: str) -> float:
    """How much a made-up method keeps; `l1-30` prunes 30 %."""
    base, _, variant = method.partition("-")
    if variant.isdigit():
        return 1 - int(variant) / 100
    return 1.0 if base in ("dense", "dropout") else 0.45


RECIPE = {"epochs": EPOCHS, "batch_size": 64, "optimizer": {"name": "adadelta", "lr": 1.0}}
CONFIG = {"data": {"source": "digits"}, "recipe": RECIPE, "hyperparameters": {}}
"""The configuration that every made-up cell says it was run with."""


def plan(
    root: Path, datasets: Iterable[str], models: Iterable[str], methods: Iterable[str], seeds: Iterable[int]
) -> list[dict[str, Any]]:
    """Cells as the workflow hands them to paper.rows.collect, with the configuration that their hash is taken of."""
    cells = []
    for names in itertools.product(datasets, models, methods, seeds):
        dataset, model, method, seed = names
        content = {"dataset": dataset, "model": model, "method": method, "seed": seed, "protocol": 1, "config": CONFIG}
        path = root / dataset / model / method / f"seed{seed}" / "metrics.json"
        cells.append({**content, "config_hash": digest(content), "path": str(path)})
    return cells


def metrics(cell: Mapping[str, Any], random: numpy.random.Generator) -> dict[str, Any]:
    """A finished result; accuracy falls with what is pruned."""
    method, dense = cell["method"], DENSE_PARAMETERS.get(cell["model"], 500_000)
    kept = kept_of(method)
    nonzero = round(dense * kept * random.uniform(0.97, 1.0)) if kept < 1 else dense
    evaluation = evaluate(0.95 - 0.05 * (1 - kept) ** 2 + random.normal(0, 0.004))
    macs = 41_000_000
    return {
        "schema": 1,
        **{key: value for key, value in cell.items() if key != "path"},
        "made_of": current_code(cell),
        "status": "done",
        "error": None,
        "test": evaluation,
        "val": evaluation,
        "full_test": evaluate(evaluation["top1"] + 0.002) if method.startswith("edropout") else None,
        "size": {
            **{"parameters": nonzero, "dense_parameters": dense, "nonzero": nonzero, "kept_ratio": nonzero / dense},
            **{
                "macs": round(macs * kept),
                "dense_macs": macs,
                "file_bytes": 4 * nonzero,
                "dense_file_bytes": 4 * dense,
            },
            "compressed_bytes": None,
        },
        "layers": {layer: min(1.0, kept * random.uniform(0.6, 1.4)) for layer in LAYERS},
        "budget": {"dense_epochs": 0, "own_epochs": EPOCHS, "total_epochs": EPOCHS},
        "extra": {"authors_kept_ratio": 0.5} if method.startswith("edropout") else {},
        "latency": {
            **{"batch_size": 32, "threads": 1, "device": "cpu"},
            "model": {"median_ms": 4 + 8 * kept * random.uniform(0.9, 1.1), "iqr_ms": 0.1},
            "dense": {"median_ms": 12.0, "iqr_ms": 0.1},
        },
        "time": {
            "seconds": 60.0,
            "train_seconds": 50.0,
            "train_cpu_seconds": 45.0,
            "step_ms": step_ms(method) * random.uniform(0.95, 1.05),
        },
        "provenance": {
            **{"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
            "hardware": {"processor": "Made-up CPU", "threads": 1, "gpu": None},
            "versions": {"torch": "2.11.0"},
        },
    }


def current_code(cell: Mapping[str, Any]) -> made_of.MadeOf:
    """What a cell that was trained just now says that it was made of, as far as it is asked for."""
    code, packages = made_of.asked(cell)
    versions = {name: NOW.package(name) for name in packages}
    return {"code": {name: NOW.code(name) for name in code}, "packages": versions, "data": {}, "inputs": {}}


def evaluate(top1: float) -> dict[str, Any]:
    """An evaluation whose fractions are numbers of right answers."""
    right = [round(EXAMPLES * (1 - (1 - top1) ** power)) for power in (1, 1.5, 2)]
    fractions = {f"top{k}": count / EXAMPLES for k, count in zip((1, 3, 5), right, strict=True)}
    return {"loss": 3 * (1 - top1), **fractions, "examples": EXAMPLES}


def step_ms(method: str) -> float:
    """Milliseconds of a made-up training step."""
    return 12.0 if method.startswith("edropout") else 8.0


def history(cell: Mapping[str, Any], random: numpy.random.Generator, epochs: int = EPOCHS) -> pandas.DataFrame:
    """A training history with falling losses; EDropout's columns where the method is EDropout."""
    epoch = numpy.arange(1, epochs + 1)
    loss = 2.0 * numpy.exp(-epoch / (epochs / 4)) + 0.1
    frame = pandas.DataFrame(
        {
            **{"phase": 1, "epoch": epoch, "lr": 0.1, "seconds": 1.0, "steps": 10},
            "train_loss": loss * random.uniform(0.9, 1.1, epochs),
            "val_loss": 1.2 * loss * random.uniform(0.9, 1.1, epochs),
            "val_top1": (0.96 - 0.4 * numpy.exp(-epoch / (epochs / 5))) * random.uniform(0.98, 1.0, epochs),
        }
    )
    if cell["method"].startswith("edropout"):
        frozen = epoch >= 0.7 * epochs
        spread = numpy.where(frozen, 0.0, 2.0 * numpy.exp(-epoch / (epochs / 3)))
        frame["best_energy"] = -5 * (1 - numpy.exp(-epoch / (epochs / 3))) + random.normal(0, 0.1, epochs)
        frame["mean_energy"] = frame["best_energy"] + spread
        frame["diversity"] = spread / 4
        frame["kept_ratio"] = 0.5 - 0.06 * (1 - numpy.exp(-epoch / 5)) + random.normal(0, 0.003, epochs)
        frame["frozen"] = frozen.astype(int)
    return frame


def write(cells: Iterable[Mapping[str, Any]], *, epochs: int = EPOCHS, seed: int = 0) -> None:
    """Write metrics.json and history.csv of every cell."""
    for number, cell in enumerate(cells):
        random = numpy.random.default_rng([seed, number])
        path = Path(cell["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        content = metrics(cell, random)
        path.write_text(json.dumps(content | {"checksum": made_of.checksum(content)}))
        history(cell, random, epochs).to_csv(path.with_name("history.csv"), index=False)


def edit(cell: Mapping[str, Any], change: Callable[[dict[str, Any]], Any]) -> None:
    """Apply `change` to the content of a cell's result file, whatever it then says."""
    path = Path(cell["path"])
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content | {"checksum": made_of.checksum(content)}))


FAILURE = {"status": "failed", "error": "the loss became nan", "test": None, "size": None, "full_test": None}


def write_pages(csv, stem):
    """Statistics of a collected CSV beside it, and its tables under `stem`."""
    found = str(csv.with_suffix("") / "statistics")
    assert compute.main(["--csv", str(csv), "--out", found]) == 0
    assert tables.main(["--csv", str(csv), "--statistics", found, "--out-stem", str(stem)]) == 0
