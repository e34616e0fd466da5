"""Augment a batch of uint8 images, each in its own way, with one gather."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.config.recipe import Augmentation


def draw_rectangles(augmentation: Augmentation, examples: int, *, generator: torch.Generator) -> Tensor:
    """Which part of each image file is shown in one epoch.

    Returns:
        (examples, 4) float32 in columns: share of the area, width over height (uniform in its logarithm between 3/4
        and 4/3), and the place, from 0 = top and left to 1 = bottom and right.
    """
    area, ratio, top, left = torch.rand(examples, 4, generator=generator).unbind(1)
    area = augmentation.area + (1 - augmentation.area) * area
    return torch.stack([area, ((2 * ratio - 1) * math.log(4 / 3)).exp(), top, left], dim=1)


def draw(augmentation: Augmentation, examples: int, height: int, width: int, *, generator: torch.Generator) -> Tensor:
    """The random numbers of one epoch, all examples at once: what an example gets does not depend on its batch.

    Returns:
        (examples, 7) float32 in columns: top and left of the crop relative to the image, 1 = mirror, cosine and sine
        of the angle, row and column of the cutout's centre.
    """

    def integers(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (examples,), generator=generator).float()

    pad = augmentation.crop
    top, left = integers(-pad, pad + 1), integers(-pad, pad + 1)
    mirror = integers(0, 2) * augmentation.flip
    angle = torch.rand(examples, generator=generator) * math.radians(augmentation.rotation)
    return torch.stack([top, left, mirror, angle.cos(), angle.sin(), integers(0, height), integers(0, width)], dim=1)


def gather(pixels: Tensor, examples: Tensor, draws: Tensor, *, shape: tuple[int, int, int], rotate: bool) -> Tensor:
    """Cut, mirror and turn a batch of images.

    Args:
        pixels: (images * height * width + 1, channels) uint8; the last row is black.
        examples: (batch,) int64: which images.
        draws: (batch, 7): their rows of `draw`.
        shape: (channels, height, width).
        rotate: Whether the angles count; without them the rows and columns of an image are shifted as a whole.

    Returns:
        (batch, height * width * channels) uint8.
    """
    _, height, width = shape
    y = torch.arange(height, device=pixels.device)[None, :, None]
    x = torch.arange(width, device=pixels.device)[None, None, :]
    inside = None
    if rotate:
        y, x = _turned(y, x, draws[:, 3, None, None], draws[:, 4, None, None], height, width)
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    top, left, mirror = draws[:, :3, None, None].long().unbind(1)
    y = y + top
    x = torch.where(mirror == 1, width - 1 - x, x) + left
    # Rows and columns are checked apart before they meet: without rotation that is the cheaper order.
    valid = ((y >= 0) & (y < height)) & ((x >= 0) & (x < width))
    index = (examples[:, None, None] * height + y) * width + x
    index = torch.where(valid if inside is None else valid & inside, index, len(pixels) - 1)
    return pixels.index_select(0, index.flatten()).view(len(examples), -1)


def _turned(y: Tensor, x: Tensor, cosine: Tensor, sine: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Row and column that a pixel of the turned image shows, each (batch, height, width)."""
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    down, right = y - middle_y, x - middle_x
    return (
        (right * sine + down * cosine + middle_y).round().long(),
        (right * cosine - down * sine + middle_x).round().long(),
    )


def cut_out_(x: Tensor, draws: Tensor, side: int) -> Tensor:
    """Zero a square in every image, in place.

    Args:
        x: (batch, channels, height, width).
        draws: (batch, 7): rows of `draw`.
        side: Of the square.

    Returns:
        `x`.
    """
    height, width = x.shape[2:]
    row = torch.arange(height, device=x.device)[None, :, None] - draws[:, 5, None, None] + side // 2
    column = torch.arange(width, device=x.device)[None, None, :] - draws[:, 6, None, None] + side // 2
    hidden = ((row >= 0) & (row < side)) & ((column >= 0) & (column < side))
    return x.masked_fill_(hidden[:, None], 0)
