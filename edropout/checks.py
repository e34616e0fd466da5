"""Refuses bad input with a sentence, before anything has changed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edropout.graph import Graph


def check_hyper_parameters(
    model: nn.Module,
    population_size: int,
    mutation_factor: float,
    crossover_rate: float,
    initial_kept: float,
    reevaluate_every: int,
) -> None:
    """Raises ValueError if an argument of the search is out of its range."""
    if population_size < 4:
        raise ValueError(f"population_size must be at least 4 (a state and three others), not {population_size}")
    probabilities = {
        "mutation_factor": mutation_factor,
        "crossover_rate": crossover_rate,
        "initial_kept": initial_kept,
    }
    for name, value in probabilities.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], not {value}")
    if reevaluate_every < 0:
        raise ValueError(f"reevaluate_every must be 0 (never) or a number of batches, not {reevaluate_every}")
    if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise ValueError("SyncBatchNorm is not supported: its statistics would differ from the candidates'")


def check_approximations(
    population_size: int, candidates_per_step: int | None, energy_examples: int | None, energy_dtype: torch.dtype | None
) -> None:
    """Raises ValueError if an option that saves time is out of its range."""
    if candidates_per_step is not None and not 1 <= candidates_per_step <= population_size:
        raise ValueError(f"candidates_per_step must be in 1..{population_size}, not {candidates_per_step}")
    if energy_examples is not None and energy_examples < 2:
        raise ValueError(f"energy_examples must be at least 2 (batch norm needs a batch), not {energy_examples}")
    if energy_dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"energy_dtype must be torch.float32, bfloat16, float16 or None, not {energy_dtype}")


def check_batch(graph: Graph, modules: Mapping[str, nn.Module], x: Tensor, y: Tensor) -> None:
    """Raises ValueError if labels and logits do not fit or a batch norm would see one value for each channel."""
    shape = graph.shapes.get(graph.steps[-1].name)
    if shape is None or len(shape) != 2:
        raise ValueError("the network must return one tensor of logits, (batch, classes)")
    if y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise ValueError(f"labels must be {len(x)} int64 class numbers, not {tuple(y.shape)} {y.dtype}")
    if len(y) == 0:
        raise ValueError("the batch is empty")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= shape[1]:
        raise ValueError(f"labels must be in 0..{shape[1] - 1}, but the batch has {low}..{high}")
    if len(x) > 1:
        return
    for step in graph.steps:
        if step.kind == "module" and isinstance(modules[step.target], _BatchNorm):
            module = modules[step.target]
            if module.training and graph.shapes[step.name][2:].numel() == 1:
                raise ValueError(f"batch norm '{step.target}' needs more than one value per channel")
