"""How far a method's training has come: what a schedule of its own follows, as part of the checkpoint."""

from __future__ import annotations

import torch

from harness.training.task import Task


class Position:
    """Counts the optimiser's steps: `task.train(model, step=position.step, state={"position": position})`.

    Args:
        task: What is left of its budget is the whole training.
        epochs: How many of these epochs are, if not all.
    """

    def __init__(self, task: Task, epochs: int | None = None) -> None:
        self.total = (task.epochs_left if epochs is None else epochs) * len(task.train_loader)
        self.steps = 0

    def __float__(self) -> float:
        """From 0 at the start to 1 at the end."""
        return self.steps / self.total

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()
        self.steps += 1

    def state_dict(self) -> dict[str, int]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]
