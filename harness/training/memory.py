"""The memory of one run: where its files go, how much of the budget is used, its history."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn


@dataclass
class Run:
    """The memory of one run: folder, position in the budget, history. Methods use `Task` instead.

    Attributes:
        folder: Where checkpoints, history.csv and progress.json go.
        key: Ties checkpoints to the configuration, code, data and inputs that they were made with.
        epoch: Epochs of the budget that are used up, the dense checkpoint's included.
        say: Prints a line to the job's log.
        on_row: Told of every history row (Weights & Biases).
        save_start: Keep the network's weights at `recipe.prune_epoch` in this file: where pruning methods start.
        checkpoint_seconds: Shortest time between two checkpoints.
    """

    folder: Path
    key: str
    epoch: int = 0
    say: Callable[[str], None] = print
    on_row: Callable[[dict[str, Any]], None] = lambda row: None
    save_start: Path | None = None
    checkpoint_seconds: float = 10.0
    phase: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    logged: dict[str, float] = field(default_factory=dict)
    full: nn.Module | None = None
    sampled: nn.Module | None = None
    stopping: bool = False
    saved_at: float = field(default_factory=time.monotonic)
    save_seconds: float = 0.0

    @property
    def checkpoint_path(self) -> Path:
        """The checkpoint of the phase that is being trained."""
        return self.folder / "checkpoint.safetensors"

    def phase_path(self, phase: int) -> Path:
        """The state at the end of a finished phase."""
        return self.folder / f"phase{phase}.safetensors"


class Interrupted(Exception):
    """The run was told to stop; its checkpoint is written."""
