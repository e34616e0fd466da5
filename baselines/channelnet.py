"""ChannelNet: a compact architecture that mixes channels by short convolutions along the channel axis."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.training.task import Task

SMALL = 64
"""Largest image side for which two of the five strides are left out."""


def fit(
    model: nn.Module,
    task: Task,
    *,
    version: Literal[1, 2, 3] = 1,
    width: Annotated[float, "[0.03125, inf)"] = 1.0,
    groups: Annotated[int, "[1, inf)"] = 2,
) -> nn.Module:
    """Train ChannelNet from scratch (Gao et al., NeurIPS 2018, arXiv:1809.01330).

    It is an architecture and not a pruned one: its kept ratio is relative to the network that the cell names.

    Args:
        model: Not used, beyond telling the harness what the result is compared with.
        task: Data, recipe and loop.
        version: 1; 2 replaces the last 1x1 convolution by a channel-wise one; 3 also the classifier.
        width: Multiplies all widths; the paper also tries 0.75 and 0.5.
        groups: Of the group modules.

    Returns:
        The trained network.

    Raises:
        ValueError: an unknown version, a width without channels, widths that the groups do not divide, or more
            classes than version 3 has feature maps.
    """
    seed = task.generator("initialisation").initial_seed()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        options = {"version": version, "width": width, "groups": groups}
        network = build(num_classes=task.num_classes, input_shape=task.input_shape, **options)
    return task.train(network.to(task.device))


def build(**arguments: Any) -> nn.Module:
    """A ChannelNet that remembers its arguments, so that harness.networks.build can store and rebuild it."""
    network = ChannelNet(**arguments)
    network.built_by = {"method": "channelnet", "arguments": arguments}
    return network


class ChannelNet(nn.Sequential):
    """Versions 1 to 3 for images of 224 px; smaller ones (up to 64 px) keep stride 1 in the stem and in layer 3.

    Args:
        num_classes: Outputs.
        input_shape: (channels, height, width).
        version: See `fit`.
        width: See `fit`.
        groups: See `fit`.
    """

    def __init__(
        self, num_classes: int, input_shape: tuple[int, int, int], *, version: int, width: float, groups: int
    ) -> None:
        if version not in (1, 2, 3):
            raise ValueError(f"version must be 1, 2 or 3, not {version}")
        widths = [int(width * channels) for channels in (32, 64, 128, 256, 512, 1024)]
        if widths[0] < 1:
            raise ValueError(f"width {width} leaves no channel in the stem: it must be at least 1/32")
        if groups < 1 or widths[4] % groups:
            raise ValueError(f"groups must divide the {widths[4]} channels of the middle layers, not be {groups}")
        first, second, third, fourth, middle, last = widths
        stride = 1 if max(input_shape[1:]) <= SMALL else 2
        layers = [
            nn.Conv2d(input_shape[0], first, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(first),
            separable(first, second),
            separable(second, third, stride=stride),
            separable(third, third),
            separable(third, fourth, stride=2),
            separable(fourth, fourth),
            separable(fourth, middle, stride=2),
            Residual(separable(middle, middle, groups=groups), separable(middle, middle, groups=groups)),
            *(
                Residual(
                    GroupChannelwise(groups),
                    separable(middle, middle, groups=groups),
                    separable(middle, middle, groups=groups),
                )
                for _ in range(2)
            ),
            separable(middle, last, stride=2),
            separable(last, last) if version == 1 else separable_channelwise(last),
        ]
        with torch.no_grad():
            side = nn.Sequential(*layers).eval()(torch.zeros(1, *input_shape)).shape[2:]
        if version == 3:
            layers.append(ChannelwiseClassifier(last, num_classes, tuple(side)))
        else:
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, num_classes)]
        super().__init__(*layers)


class Residual(nn.Sequential):
    """Layers whose output is added to their input."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def separable(channels: int, width: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A depthwise 3x3 and a (grouped) 1x1 convolution; as in the authors' first code, one norm and one ReLU6."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, width, 1, groups=groups, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU6(inplace=True),
    )


def separable_channelwise(channels: int, size: int = 64) -> nn.Sequential:
    """A depthwise 3x3 convolution and, in place of the 1x1, one channel-wise convolution of `size` weights."""
    depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    return nn.Sequential(depthwise, Channelwise(size), nn.BatchNorm2d(channels), nn.ReLU6(inplace=True))


class Channelwise(nn.Module):
    """A one-dimensional convolution along the channel axis with the same weights at every pixel.

    The authors' repository slides over the channels with kernels that span all pixels (64 * 49 * 49 weights where
    the paper has 64); this is the paper's operation.

    Args:
        size: Weights of a kernel, d_c in the paper.
        stride: Along the channels.
        kernels: Their outputs follow each other.
    """

    def __init__(self, size: int, *, stride: int = 1, kernels: int = 1) -> None:
        super().__init__()
        # As many output channels per kernel as channels / stride, which is TensorFlow's padding "SAME".
        self.padding = ((size - stride) // 2, size - stride - (size - stride) // 2)
        self.convolution = nn.Conv1d(1, kernels, size, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, kernels * channels / stride, height, width)."""
        batch, channels, height, width = x.shape
        pixels = functional.pad(x.permute(0, 2, 3, 1).reshape(-1, 1, channels), self.padding)
        return self.convolution(pixels).reshape(batch, height, width, -1).permute(0, 3, 1, 2)


class GroupChannelwise(Channelwise):
    """One kernel of 4 * groups weights per group, each sliding over all channels with stride `groups`."""

    def __init__(self, groups: int) -> None:
        super().__init__(4 * groups, stride=groups, kernels=groups)


class ChannelwiseClassifier(nn.Module):
    """Class n is one window of channels under a kernel that spans the feature maps: pooling and classifier in one."""

    def __init__(self, channels: int, num_classes: int, side: tuple[int, int]) -> None:
        if num_classes > channels:
            raise ValueError(f"{num_classes} classes are more than the {channels} feature maps: raise width")
        super().__init__()
        self.convolution = nn.Conv1d(side[0] * side[1], 1, channels - num_classes + 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, *side) -> (batch, classes)."""
        return self.convolution(x.flatten(2).transpose(1, 2)).flatten(1)
