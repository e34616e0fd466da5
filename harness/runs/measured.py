"""What a result says of the network that a method returned: sizes, times, latencies, how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from harness import kinds
from harness.data import dataset
from harness.kinds.classification import KIND as CLASSIFICATION
from harness.measure import metrics, uncertainty
from harness.training.task import Task

LATENCY_BATCH = 32


def uncertain(
    network: nn.Module, sampled: nn.Module | None, data: dataset.Data, samples: int, test: dict[str, Any]
) -> dict[str, Any]:
    """The sections of a result that say how sure the predictions are.

    Args:
        network: What the method returned.
        sampled: What it left to be sampled, if anything.
        data: The splits of the dataset.
        samples: Passes whose predictions are averaged.
        test: The evaluation of `network`, which its calibration is added to.
    """
    found = {"test": uncertainty.measure(network, data)} if data.kind.calibration else {}
    if sampled is not None:
        found["sampled_test"] = uncertainty.measure(sampled, data, samples=samples)
    sections = {name: measured["evaluation"] for name, measured in found.items()}
    if "test" in sections:
        sections["test"] = {**sections["test"], **test}  # what both measure, as it is measured everywhere
    bins = {name: measured["reliability"] for name, measured in found.items() if measured["reliability"]}
    return {**sections, **({"reliability": bins} if bins else {})}


def sizes(network: nn.Module, dense: nn.Module, folder: Path, task: Task) -> dict[str, Any]:
    """Parameters, multiply-accumulates and bytes before and after, counted on the networks themselves."""
    total, left = metrics.parameters(dense), metrics.nonzero(network)
    compressed = task.run.logged.pop("compressed_bytes", None)
    return {
        "parameters": metrics.parameters(network),
        "dense_parameters": total,
        "nonzero": left,
        "kept_ratio": left / total,
        "macs": metrics.macs(network, task.input_shape, task.kind),
        "dense_macs": metrics.macs(dense, task.input_shape, task.kind),
        "file_bytes": (folder / "model.safetensors").stat().st_size,
        "dense_file_bytes": len(save({name: value.contiguous().clone() for name, value in dense.state_dict().items()})),
        "compressed_bytes": None if compressed is None else int(compressed),
    }


def latency(
    networks: dict[str, nn.Module], input_shape: tuple[int, ...], kind: kinds.Kind = CLASSIFICATION
) -> dict[str, Any]:
    """Forward times at `LATENCY_BATCH`, or at the largest half of it that fits into the GPU's memory."""
    batch_size = LATENCY_BATCH
    while True:
        try:
            return metrics.latency(networks, input_shape, kind, batch_size=batch_size)
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            batch_size //= 2


def training_time(history: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds spent in training steps, on the wall and of processors, and the mean of a step: a search that ends
    half-way counts with its share."""
    seconds, cpu_seconds, steps = (sum(row[key] for row in history) for key in ("seconds", "cpu_seconds", "steps"))
    times = {"train_seconds": round(seconds, 3), "train_cpu_seconds": round(cpu_seconds, 3)}
    return times | {"step_ms": round(1e3 * seconds / steps, 4) if steps else None}
