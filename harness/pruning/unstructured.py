"""What unstructured methods share: masks over single weights, and training with the pruned ones frozen at zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.pruning.layers import NothingToPrune
from harness.training.task import Task


def prunable_weights(model: nn.Module, *, linear: bool = True) -> dict[str, nn.Parameter]:
    """The weights of convolutions and, with `linear`, of linear layers by name.

    Raises:
        ValueError: there are none.
    """
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *((nn.Linear,) if linear else ()))
    weights = {f"{name}.weight": module.weight for name, module in model.named_modules() if isinstance(module, kinds)}
    if not weights:
        layers = "convolution or linear layer" if linear else "convolution"
        raise NothingToPrune(f"nothing can be pruned in {type(model).__name__}: it has no {layers}")
    return weights


def number_to_keep(model: nn.Module, weights: Mapping[str, Tensor], kept_ratio: float) -> int:
    """How many of `weights` stay so that `kept_ratio` of all the model's parameters are left, the unprunable included.

    Raises:
        ValueError: there are more parameters outside `weights` than may be left.
    """
    everything = sum(parameter.numel() for parameter in model.parameters())
    outside = everything - sum(weight.numel() for weight in weights.values())
    count = round(kept_ratio * everything) - outside
    if count <= 0:
        raise ValueError(
            f"a kept ratio of {kept_ratio:.2%} is less than the biases and norms of {type(model).__name__} take alone: "
            "give a prune_ratio of the weights instead"
        )
    return count


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the weights outside their masks to exactly zero, in place."""
    for name, mask in masks.items():
        model.get_parameter(name).mul_(mask)


def train_masked(model: nn.Module, task: Task, masks: Mapping[str, Tensor], **options: Any) -> nn.Module:
    """Train with the pruned weights frozen at zero.

    Momentum, Adadelta's averages and weight decay would move them, so the masks are applied after every step.

    Args:
        model: The network, trained in place.
        task: Data, recipe and loop.
        masks: weight name -> bool, True = kept.
        options: Further arguments of `task.train`.
    """

    def step(optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()
        apply_masks(model, masks)

    apply_masks(model, masks)
    return task.train(model, step=step, **options)
