"""Batches of a split: an order and an augmentation that the cell's seed alone decides, resumable at any batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from harness.config.recipe import Augmentation
from harness.data import augment
from harness.data.pixels import Normalizer


class Images(Protocol):
    """Where the images of a split come from: `pixels.Pixels` or `stream.Files`."""

    shape: tuple[int, int, int]

    def batches(self, batches: list[Tensor], rectangles: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]: ...


def epoch_generator(seed: int, index: int) -> torch.Generator:
    """What decides an epoch's order: the cell's seed and the number of the epoch."""
    digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def number_of_batches(examples: int, batch_size: int) -> int:
    """Batches of a training epoch; a last one of a single example is left out, since batch norm cannot use it."""
    full, rest = divmod(examples, batch_size)
    return full + (rest > 1)


@dataclass(frozen=True)
class Training:
    """Batches of the training set, shuffled and augmented.

    Attributes:
        images: (examples, ...) uint8.
        targets: (examples,) int64 class numbers on the device.
        normalizer: Makes them float32.
        augmentation: What is done to them.
        batch_size: Examples per batch.
        seed: Decides the order and the augmentation, together with the epoch and the number of the example.
        share: Which of how many parts of each batch is given out.
    """

    images: Images
    targets: Tensor
    normalizer: Normalizer
    augmentation: Augmentation
    batch_size: int
    seed: int
    share: tuple[int, int] = (0, 1)

    @property
    def num_examples(self) -> int:
        """Examples of the training set."""
        return len(self.targets)

    def __len__(self) -> int:
        return number_of_batches(self.num_examples, self.batch_size)

    def epoch(self, index: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch `index` from batch `start` on: x (batch, channels, height, width) and y (batch,)."""
        generator = epoch_generator(self.seed, index)
        order = torch.randperm(self.num_examples, generator=generator).to(self.targets.device)
        draws = rectangles = None
        if replace(self.augmentation, area=1.0) != Augmentation():
            _, height, width = self.images.shape
            draws = augment.draw(self.augmentation, self.num_examples, height, width, generator=generator)
            draws = draws.to(order.device)
        if self.augmentation.area < 1:
            rectangles = augment.draw_rectangles(self.augmentation, self.num_examples, generator=generator)
        part, parts = self.share
        batches = [batch[part::parts] for batch in order.split(self.batch_size)[start : len(self)]]
        for examples, (pixels, places) in zip(batches, self.images.batches(batches, rectangles), strict=True):
            yield self._images(pixels, places, None if draws is None else draws[examples]), self.targets[examples]

    def _images(self, pixels: Tensor, places: Tensor, draws: Tensor | None) -> Tensor:
        if draws is None:
            return _plain(pixels, places, self.normalizer)
        rotate = self.augmentation.rotation > 0
        x = self.normalizer(augment.gather(pixels, places, draws, shape=self.images.shape, rotate=rotate))
        if self.augmentation.cutout:
            augment.cut_out_(x, draws, self.augmentation.cutout)
        return self.normalizer.resize(x)


@dataclass(frozen=True)
class Evaluation:
    """Batches of a set that is measured, in its order and as it is.

    Attributes:
        images: (examples, ...) uint8.
        targets: (examples,) int64 class numbers on the device.
        normalizer: Makes them float32.
        batch_size: Examples per batch.
        share: Which of how many parts of the set is given out.
    """

    images: Images
    targets: Tensor
    normalizer: Normalizer
    batch_size: int
    share: tuple[int, int] = (0, 1)

    @property
    def num_examples(self) -> int:
        """Examples of the set."""
        return len(self.targets)

    def __len__(self) -> int:
        return -(-self.num_examples // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.batches()

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The examples in their order: x (batch, channels, height, width) and y (batch,)."""
        part, parts = self.share
        batches = list(torch.arange(part, self.num_examples, parts, device=self.targets.device).split(self.batch_size))
        for examples, (pixels, places) in zip(batches, self.images.batches(batches), strict=True):
            yield _plain(pixels, places, self.normalizer), self.targets[examples]


def _plain(pixels: Tensor, places: Tensor, normalizer: Normalizer) -> Tensor:
    """The images at `places`, whole."""
    channels, height, width = normalizer.shape
    whole = pixels[:-1].view(-1, height * width * channels)
    return normalizer.resize(normalizer(whole.index_select(0, places)))
