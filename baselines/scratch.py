"""The pruned architecture of another cell, trained from scratch: is it the inherited weights or only the widths?"""

from __future__ import annotations

from torch import nn

from harness.pruning.inherited import kept_units_of
from harness.pruning.layers import NothingToPrune
from harness.pruning.structured import example_of, prune_units
from harness.training.task import Task


def fit(model: nn.Module, task: Task) -> nn.Module:
    """Cut the freshly initialised `model` as another method cut its network, and train it on the whole budget.

    The control of Liu et al., ICLR 2019 (arXiv:1810.05270): with a budget equal to dense training plus fine-tuning
    their "Scratch-B" often matches the fine-tuned network.

    Args:
        model: A freshly initialised network.
        task: Data, recipe and loop; `task.inputs["source"]` is metrics.json of the other cell.

    Returns:
        The trained smaller network.

    Raises:
        ValueError: the rule names no other cell, that cell failed, or its network is not smaller.
    """
    if "source" not in task.inputs:
        raise ValueError("scratch needs the metrics.json of another cell as source=... among the inputs of its rule")
    kept = kept_units_of(task.inputs["source"], model)
    if all(units.all() for units in kept.values()):
        raise NothingToPrune(
            f"the network of {task.inputs['source']} has all its units, so its widths are the dense network's: "
            "name a cell of a structured method"
        )
    return task.train(prune_units(model, kept, example_of(task)))
