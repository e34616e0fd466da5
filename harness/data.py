"""The data of a cell: an order and an augmentation that its seed alone decides, resumable at any batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from harness import augment, prepared
from harness.augment import Augmentation
from harness.pixels import Normalizer, Pixels, resized
from harness.prepared import DataError, Prepared

__all__ = ["Data", "DataError", "Evaluation", "Training", "load"]

RESIZED_AT_ONCE = 64
"""Largest side to which stored images are resized when they are loaded; to a larger one every batch is."""


class Images(Protocol):
    """Where the images of a split come from: `pixels.Pixels` or `stream.Files`."""

    shape: tuple[int, int, int]

    def batches(self, batches: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]: ...


@dataclass(frozen=True)
class Training:
    """Batches of the training set, shuffled and augmented.

    Attributes:
        images: (examples, ...) uint8.
        labels: (examples,) int64 on the device.
        normalizer: Makes them float32.
        augmentation: What is done to them.
        batch_size: Examples per batch.
        seed: Decides the order and the augmentation, together with the epoch and the number of the example.
    """

    images: Images
    labels: Tensor
    normalizer: Normalizer
    augmentation: Augmentation
    batch_size: int
    seed: int

    @property
    def num_examples(self) -> int:
        """Examples of the training set."""
        return len(self.labels)

    def __len__(self) -> int:
        """Batches of an epoch; a last one of a single example is left out, since batch norm cannot use it."""
        full, rest = divmod(self.num_examples, self.batch_size)
        return full + (rest > 1)

    def epoch(self, index: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch `index` from batch `start` on: x (batch, channels, height, width) and y (batch,)."""
        seed = hashlib.sha256(f"{self.seed}/{index}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(seed[:7], "big"))
        order = torch.randperm(self.num_examples, generator=generator).to(self.labels.device)
        draws = None
        if self.augmentation != Augmentation():
            _, height, width = self.images.shape
            draws = augment.draw(self.augmentation, self.num_examples, height, width, generator=generator)
            draws = draws.to(order.device)
        batches = list(order.split(self.batch_size))[start : len(self)]
        for examples, (pixels, places) in zip(batches, self.images.batches(batches), strict=True):
            yield self._images(pixels, places, None if draws is None else draws[examples]), self.labels[examples]

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
        labels: (examples,) int64 on the device.
        normalizer: Makes them float32.
        batch_size: Examples per batch.
    """

    images: Images
    labels: Tensor
    normalizer: Normalizer
    batch_size: int

    @property
    def num_examples(self) -> int:
        """Examples of the set."""
        return len(self.labels)

    def __len__(self) -> int:
        return -(-self.num_examples // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.batches()

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples: x (batch, channels, height, width) and y (batch,)."""
        batches = list(torch.arange(self.num_examples, device=self.labels.device).split(self.batch_size))
        for examples, (pixels, places) in zip(batches, self.images.batches(batches), strict=True):
            yield _plain(pixels, places, self.normalizer), self.labels[examples]


@dataclass(frozen=True)
class Data:
    """A dataset, ready for one cell.

    Attributes:
        train: `epoch(index, start=0)`.
        val: For choices; iterable.
        test: For the result; iterable.
        num_classes: Number of classes.
        input_shape: (channels, height, width) of x.
        checksum: SHA-256 of the prepared dataset.
    """

    train: Training
    val: Evaluation
    test: Evaluation
    num_classes: int
    input_shape: tuple[int, int, int]
    checksum: str


def load(
    path: str | Path, *, recipe: Any, device: torch.device | str, seed: int, image_size: int | None = None
) -> Data:
    """Load a prepared dataset and verify its checksum.

    Args:
        path: What `harness.datasets` wrote.
        recipe: Read are `batch_size`, `eval_batch_size`, `augment` and `threads` (processes that read image files).
        device: Where x and y are.
        seed: The cell's seed.
        image_size: Side of x; None = as prepared.

    Raises:
        DataError: the file is missing, truncated or changed, or the recipe augments in a way that does not exist.
    """
    stored, device = prepared.read(path), torch.device(device)
    description = stored.description
    images, normalizers = {}, {}
    for split in prepared.SPLITS:
        images[split] = _images(stored, split, image_size, recipe.threads, device)
        normalizers[split] = Normalizer.of(
            description.mean, description.std, shape=images[split].shape, image_size=image_size, device=device
        )
    labels = {split: stored.tensors[f"{split}_y"].to(device) for split in prepared.SPLITS}
    channels, height, width = images["train"].shape
    train = Training(
        images=images["train"],
        labels=labels["train"],
        normalizer=normalizers["train"],
        augmentation=Augmentation.from_config(recipe.augment, size=min(height, width)),
        batch_size=recipe.batch_size,
        seed=seed,
    )
    val, test = (
        Evaluation(images[split], labels[split], normalizers[split], recipe.eval_batch_size)
        for split in ("val", "test")
    )
    return Data(
        train=train,
        val=val,
        test=test,
        num_classes=len(description.class_names),
        input_shape=(channels, image_size or height, image_size or width),
        checksum=stored.checksum,
    )


def _images(stored: Prepared, split: str, image_size: int | None, workers: int, device: torch.device) -> Images:
    """Images in memory if they are stored in a size that serves, else files."""
    description, tensors = stored.description, stored.tensors
    pixels = tensors.get(f"{split}_x")
    size = image_size or description.shape[1]
    if pixels is not None and (description.root is None or size == description.shape[1]):
        if size <= RESIZED_AT_ONCE and image_size and tuple(pixels.shape[2:]) != (size, size):
            pixels = resized(pixels, size)
        return Pixels(pixels, device=device)
    from harness.stream import Files

    return Files(
        Path(description.root),
        prepared.unpack_paths(tensors[f"{split}_files"]),
        tensors[f"{split}_crc"],
        size=size,
        crop_fraction=description.crop_fraction,
        workers=workers,
        device=device,
    )


def _plain(pixels: Tensor, places: Tensor, normalizer: Normalizer) -> Tensor:
    """The images at `places`, whole."""
    channels, height, width = normalizer.shape
    whole = pixels[:-1].view(-1, height * width * channels)
    return normalizer.resize(normalizer(whole.index_select(0, places)))
