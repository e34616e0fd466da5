"""Approximate random dropout: patterns that a matrix product can leave out, so that a training step costs less."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from torch import nn

from dropouts import plain, put_before
from dropouts.approximate import (
    ApproximateDropout,
    Blocks,
    Rows,
    SomeBlocks,
    Tiles,
    least_variance,
    maximum_entropy,
    searched,
)
from harness.training.task import Task

PATTERNS = {"rows": Rows, "blocks": Blocks, "some_blocks": SomeBlocks, "tiles": Tiles}
DISTRIBUTIONS = {one.__name__: one for one in (least_variance, maximum_entropy, searched)}


def fit(
    model: nn.Module,
    task: Task,
    *,
    rate: Annotated[float, "[0, 1)"] = 0.5,
    pattern: Literal["rows", "tiles", "blocks", "some_blocks"] = "blocks",
    distribution: Literal["searched", "maximum_entropy", "least_variance"] = "least_variance",
    permuted: bool = True,
    shared: bool = False,
    recurrent: bool = False,
    lazy: bool = True,
) -> nn.Module:
    """Train `model` with regular patterns in the place of dropout (Song et al., DATE 2019, arXiv:1805.08939).

    Args:
        model: A freshly initialised network. What is dropped is what its own dropout modules drop or, where it has
            none, what its linear layers behind the first layer read.
        task: Data, recipe and loop.
        rate: Drop rate of every place.
        pattern: "rows" and "tiles" are published; "blocks" and "some_blocks" are the suite's.
        distribution: "searched" is published; "maximum_entropy" and "least_variance" drop exactly `rate` on average.
        permuted: Units change places after each epoch, with "blocks" alone.
        shared: One choice for all places of an iteration.
        recurrent: Drop units of an LSTM from its recurrence too.
        lazy: The optimiser leaves what was dropped alone; otherwise its momentum and decay act on it.

    Returns:
        The trained network, of the plain architecture.

    Raises:
        ValueError: an unknown pattern or distribution, a recipe with several processes, and what `ApproximateDropout`
            refuses.
    """
    for name, value, known in (("pattern", pattern, PATTERNS), ("distribution", distribution, DISTRIBUTIONS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, not '{value}'")
    if task.recipe.processes > 1:
        raise ValueError("gradients of parts are not averaged over processes: set recipe key 'processes' to 1")
    options: dict[str, Any] = {} if pattern == "some_blocks" else {"distribution": DISTRIBUTIONS[distribution]}
    if pattern == "blocks":
        options["permuted"] = permuted
    if not any(isinstance(module, nn.Dropout) for module in model.modules()):
        put_before(model, lambda reader: nn.Dropout(rate))
    approximate = ApproximateDropout(
        model,
        rate,
        pattern=PATTERNS[pattern](**options),
        shared=shared,
        recurrent=recurrent,
        generator=task.generator("patterns"),
    )
    steps = Steps(approximate, len(task.train_loader), lazy=lazy, clip=task.recipe.clip)
    task = replace(task, recipe=replace(task.recipe, clip=None))  # The loop sees no parts to clip.
    task.train(model, loss=lambda x, y: task.loss(model(x), y), step=steps, state={"approximate": steps})
    return plain(approximate.remove())


class Steps:
    """Steps on what an iteration keeps; at the end of an epoch, units change places where the pattern says so.

    Args:
        batches: Of an epoch.
        clip: Largest norm of the gradient of what is kept.
    """

    def __init__(
        self, approximate: ApproximateDropout, batches: int, *, lazy: bool = True, clip: float | None = None
    ) -> None:
        self.approximate, self.batches, self.lazy, self.clip, self.done = approximate, batches, lazy, clip, 0

    def __call__(self, optimizer: torch.optim.Optimizer) -> None:
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.approximate.parameters(), self.clip)
        self.approximate.step(optimizer, lazy=self.lazy)
        self.done += 1
        if self.done % self.batches == 0:
            self.approximate.end_epoch(optimizer)

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done, **self.approximate.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done = state["done"]
        self.approximate.load_state_dict(state)
