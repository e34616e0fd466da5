"""The data of a cell: the three splits of a prepared dataset, on its device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from harness.config.recipe import Recipe
from harness.data import prepared
from harness.data.batches import Evaluation, Images, Training
from harness.data.pixels import Normalizer, Pixels
from harness.data.prepared import DataError, Prepared

__all__ = ["Data", "DataError", "Evaluation", "Training", "load"]

RESIZED_AT_ONCE = 64
"""Largest side to which stored images are resized when they are loaded; to a larger one every batch is."""


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
    path: str | Path, *, recipe: Recipe, device: torch.device | str, seed: int, image_size: int | None = None
) -> Data:
    """Load a prepared dataset and verify its checksum.

    Args:
        path: What `harness.sources.prepare` wrote.
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
    augmentation = recipe.augment
    if augmentation.crop >= min(height, width):
        raise DataError(
            f"recipe key 'augment.crop' is {augmentation.crop} for images of {height} x {width} pixels: lower it"
        )
    if augmentation.area < 1 and isinstance(images["train"], Pixels):
        raise DataError(
            f"recipe key 'augment.area' is for images that are read from their files, and {path} holds them decoded: "
            "use 'augment.crop'"
        )
    train = Training(
        images=images["train"],
        labels=labels["train"],
        normalizer=normalizers["train"],
        augmentation=augmentation,
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
        return Pixels(pixels, device=device, size=image_size if size <= RESIZED_AT_ONCE else None)
    from harness.data.stream import Files

    return Files(
        Path(description.root),
        prepared.unpack_paths(tensors[f"{split}_files"]),
        tensors[f"{split}_crc"],
        size=size,
        crop_fraction=description.crop_fraction,
        upright=description.upright,
        workers=workers,
        device=device,
    )
