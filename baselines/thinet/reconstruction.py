"""How much each channel of a layer adds to what the next layer computes: samples of it, and its rescaling."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.pruning.layers import Layer, Reader


@torch.no_grad()
def gram_matrix(
    model: nn.Module, layer: Layer, batches: Iterable[Tensor], locations: int, generator: torch.Generator
) -> Tensor:
    """X^T X of the contributions of the layer's channels to sampled outputs of the layers that read it.

    Args:
        model: The network, run in evaluation mode.
        layer: The layer to prune.
        batches: (batch, channels, height, width) images.
        locations: Outputs sampled per image and reader.
        generator: Draws them.

    Returns:
        (width, width) float64.
    """
    gram = torch.zeros(layer.width, layer.width, dtype=torch.float64, device=next(model.parameters()).device)

    def add(reader: Reader, module: nn.Module, read: Tensor) -> None:
        rows = contributions(module, reader, layer.width, read, locations, generator).double()
        gram.addmm_(rows.T, rows)

    handles = [
        model.get_submodule(reader.name).register_forward_pre_hook(
            lambda module, inputs, reader=reader: add(reader, module, inputs[0])
        )
        for reader in layer.readers
    ]
    model.eval()
    for x in batches:
        model(x.contiguous(memory_format=torch.channels_last))
    for handle in handles:
        handle.remove()
    return gram


def contributions(
    module: nn.Module, reader: Reader, width: int, read: Tensor, locations: int, generator: torch.Generator
) -> Tensor:
    """What each channel adds to sampled outputs of a layer: x_c = sum over the window of W[f, c] * input[c].

    Args:
        module: The reading convolution or linear layer.
        reader: Which of its inputs hold the channels.
        width: Number of channels.
        read: The layer's input: (batch, inputs, height, width) or (batch, inputs).
        locations: Outputs per image: a random filter at a random place.
        generator: Draws them.

    Returns:
        (batch * locations, width). Summed over all inputs it is the output without its bias.
    """

    def draw(bound: int) -> Tensor:
        return torch.randint(bound, (len(read) * locations,), generator=generator).to(read.device)

    own = slice(reader.start, reader.start + width * reader.area)
    image = torch.arange(len(read), device=read.device).repeat_interleave(locations)
    weight = module.weight[draw(len(module.weight))][:, own]
    if isinstance(module, nn.Linear):
        return (read[image, own] * weight).reshape(len(image), width, reader.area).sum(2)
    padded = functional.pad(read[:, own], module._reversed_padding_repeated_twice)
    places = []
    for axis, size in enumerate(module.kernel_size):
        reach = (size - 1) * module.dilation[axis]
        steps = (padded.shape[2 + axis] - reach - 1) // module.stride[axis] + 1
        taps = torch.arange(size, device=read.device) * module.dilation[axis]
        places.append(draw(steps)[:, None] * module.stride[axis] + taps)
    rows, columns = places
    windows = padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return torch.einsum("phwc,pchw->pc", windows, weight)


@torch.no_grad()
def rescaled(model: nn.Module, layer: Layer, kept: Tensor, weights: Tensor) -> nn.Module:
    """Multiply what the layer's readers make of its kept channels by `weights`, in place."""
    scale = torch.ones(layer.width, dtype=torch.float64, device=kept.device)
    scale[kept] = weights
    for reader in layer.readers:
        weight = model.get_submodule(reader.name).weight
        own = slice(reader.start, reader.start + layer.width * reader.area)
        factors = scale.repeat_interleave(reader.area).to(weight.dtype)
        weight[:, own] *= factors.reshape(1, -1, *[1] * (weight.dim() - 2))
    return model
