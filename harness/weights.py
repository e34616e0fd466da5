"""What unstructured methods share: masks over single weights, and training with the pruned ones frozen at zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.layers import NothingToPrune
from harness.task import Task


def masks_of(model: nn.Module, kept: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
    """A mask for each prunable weight: of convolutions and linear layers, without biases and norms.

    Args:
        model: The network.
        kept: Gives the mask, True = kept, for a weight's name and value.
    """
    return {name: kept(name, weight.detach()) for name, weight in prunable_weights(model).items()}


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
