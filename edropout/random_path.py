"""Random widths on the path: a dense start, filters that go by lot, fine-tuning; the control of a gradual descent."""

from __future__ import annotations

from typing import Annotated, Any

from torch import nn

from edropout import method
from edropout.target import Target


def fit(
    model: nn.Module,
    task: Any,
    *,
    target_kept: Annotated[float, "(0, 1]"] | None = None,
    stages: Annotated[int, "[1, inf)"] = 20,
    warm_up: Annotated[float, "(0, 1)"] = 0.1,
    until: Annotated[float, "(0, 1]"] = 0.35,
) -> nn.Module:
    """Train `model` from scratch, drop the same share of every layer on the way, and go on with what is left.

    All is as in EDropout with energies with curvature, but for the order in which filters go, which is drawn.

    Args:
        model: A freshly initialised network.
        task: Data, recipe and loop.
        target_kept: Share of the parameters to keep.
        stages: Removals between `warm_up` and `until`; the share that is left falls with the cube of the time left.
        warm_up: Share of all steps that the dense network is trained.
        until: Share of all steps at the end of the descent.

    Returns:
        The physically smaller network.

    Raises:
        ValueError: no share, or one outside its range; nothing to prune.
    """
    if target_kept is None:
        raise ValueError("random_path needs target_kept, the share of the parameters to keep")
    start, length = method.path(task, warm_up, until)
    target = Target(target_kept, warm_up=start, steps=length, stages=stages, by="lot")
    example = next(iter(task.val_loader))[0][:2]
    return method.descend(method.search_by_lot(model, task.seed, example, target), task)
