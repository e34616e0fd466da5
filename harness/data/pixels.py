"""Images that live on the device as uint8, and how uint8 becomes what a network is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 1000
"""Images that are resized and laid out at a time: the whole set is in memory once as it came and once as it stays."""


class Pixels:
    """All images of a split in memory.

    Attributes:
        shape: (channels, height, width).
    """

    def __init__(self, images: Tensor, *, device: torch.device, size: int | None = None) -> None:
        """Keep `images` with one row per pixel, and a black pixel last.

        Args:
            images: (examples, channels, height, width) uint8.
            device: Where to keep them.
            size: Side of the square to which they are resized first; None = as they are.
        """
        examples, channels, height, width = images.shape
        if size is not None:
            height = width = size
        self.shape = (channels, height, width)
        self._rows = torch.zeros(examples * height * width + 1, channels, dtype=torch.uint8, device=device)
        places = self._rows[:-1].view(examples, height, width, channels).split(BLOCK)
        for block, place in zip(images.split(BLOCK), places, strict=True):
            place.copy_(_resized(block, (height, width)).permute(0, 2, 3, 1))

    def batches(self, batches: Iterable[Tensor], rectangles: None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """For each batch of example numbers: pixels as `augment.gather` takes them, and which images in them."""
        for examples in batches:
            yield self._rows, examples


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (examples, channels, height, width) uint8 at another size, as PIL does it (bilinear, antialiased)."""
    if images.shape[2:] == size:
        return images
    return functional.interpolate(images, size, mode="bilinear", antialias=True)


@dataclass(frozen=True)
class Normalizer:
    """From uint8 pixels to float32 images.

    Attributes:
        scale: (height * width * channels,) float32.
        shift: The same shape; a pixel p becomes p * scale + shift.
        shape: (channels, height, width) of the pixels.
        image_size: Side to which the result is resized for the network; None = not at all.
    """

    scale: Tensor
    shift: Tensor
    shape: tuple[int, int, int]
    image_size: int | None

    @classmethod
    def of(
        cls,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        shape: tuple[int, int, int],
        image_size: int | None,
        device: torch.device,
    ) -> Normalizer:
        """Subtract `mean` and divide by `std`, per channel of pixels in [0, 1]."""
        means, deviations = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        # A whole image and not a vector of channels: broadcasting over rows of 3 is ten times slower.
        area = shape[1] * shape[2]
        scale = (1 / (255 * deviations)).float().repeat(area).to(device)
        shift = (-means / deviations).float().repeat(area).to(device)
        return cls(scale=scale, shift=shift, shape=shape, image_size=image_size)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(batch, height * width * channels) uint8 to (batch, channels, height, width) float32, channels last."""
        channels, height, width = self.shape
        x = pixels.float().mul_(self.scale).add_(self.shift)
        return x.view(-1, height, width, channels).permute(0, 3, 1, 2)

    def resize(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) at the size of the network."""
        if self.image_size is None or x.shape[2:] == (self.image_size, self.image_size):
            return x
        side = (self.image_size, self.image_size)
        return functional.interpolate(x, side, mode="bilinear", antialias=self.image_size < min(x.shape[2:]))
