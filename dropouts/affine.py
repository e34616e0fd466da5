"""What the dropouts that hold a linear layer or a convolution share: the layer's map with other weights, its units."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call

Affine = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def checked(layer: nn.Module) -> Affine:
    """`layer`, if it is one that these dropouts can hold.

    Raises:
        TypeError: neither a linear layer nor a convolution.
    """
    if not isinstance(layer, Affine):
        raise TypeError(f"this dropout acts on the weights of a linear layer or a convolution, not of {layer}")
    return layer


def through(layer: Affine, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What `layer` makes of `x` with `weight` in the place of its own, and with `bias`, none by default."""
    given = {"weight": weight}
    if layer.bias is not None:
        given["bias"] = torch.zeros_like(layer.bias) if bias is None else bias
    return functional_call(layer, given, (x,))


def noisy(mean: Tensor, variance: Tensor) -> Tensor:
    """A draw of N(mean, variance) that gradients pass through, also where the variance is zero."""
    return mean + (variance + 1e-8).sqrt() * torch.randn_like(mean)


def units_of(layer: Affine | nn.RNNBase) -> int:
    """How many units a layer reads: features of a linear or recurrent layer, channels of a convolution."""
    if isinstance(layer, nn.RNNBase):
        return layer.input_size
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def per_unit(values: Tensor, x: Tensor) -> Tensor:
    """One value per unit, shaped to act on `x`: channels of (batch, channels, height, width), else the last dimension.

    Raises:
        ValueError: `x` has another number of units than there are values; one value serves any number.
    """
    dim = 1 if x.dim() == 4 else -1
    if len(values) not in (1, x.shape[dim]):
        raise ValueError(f"this dropout was made for {len(values)} units and reads {x.shape[dim]}")
    return values.view(-1, 1, 1) if dim == 1 else values


def folded(reader: Affine, scale: Tensor) -> Affine:
    """A copy of the layer that reads scaled units, with the scale in its weights: exact zeros where it is zero.

    Args:
        reader: The layer behind the dropout; not changed.
        scale: (units,) what the dropout multiplies the units by in evaluation mode.

    Raises:
        ValueError: the layer reads another number of units.
    """
    if units_of(checked(reader)) != len(scale):
        raise ValueError(f"a dropout of {len(scale)} units cannot be folded into {reader}")
    plain = copy.deepcopy(reader)
    weight = plain.weight
    groups = getattr(reader, "groups", 1)
    with torch.no_grad():
        by_input = weight.view(groups, -1, *weight.shape[1:]).movedim(2, -1)  # a view: (groups, outputs, ..., inputs)
        by_input.mul_(scale.view(groups, *[1] * (by_input.dim() - 2), -1))
    return plain
