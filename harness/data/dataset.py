"""The data of a cell: the three splits of a prepared dataset, on its device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from harness import kinds
from harness.config.recipe import Recipe
from harness.data import prepared, tables
from harness.data.batches import Evaluation, Images, Training
from harness.data.pixels import Normalizer, Pixels
from harness.data.prepared import END, DataError, Prepared
from harness.data.tables import TableEvaluation, TableTraining
from harness.data.texts import Text
from harness.kinds import Kind

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
        outliers: Inputs that belong to no class, each with the class 0, where the dataset names some; iterable.
        kind: The kind of task.
        num_classes: Number of classes, of words in the vocabulary, or of targets.
        input_shape: Of one x: (channels, height, width), (time,) or (features,).
        checksum: SHA-256 of the prepared dataset.
    """

    train: Training | Text | TableTraining
    val: Evaluation | Text | TableEvaluation
    test: Evaluation | Text | TableEvaluation
    kind: Kind
    num_classes: int
    input_shape: tuple[int, ...]
    checksum: str
    outliers: Evaluation | None = None

    def chance(self) -> float:
        """The test set's main metric of the best answer that does not look at x."""
        return self.kind.chance(self.train.targets, self.test.targets)


def load(
    path: str | Path,
    *,
    recipe: Recipe,
    device: torch.device | str,
    seed: int,
    split: int = 0,
    image_size: int | None = None,
) -> Data:
    """Load a prepared dataset and verify its checksum.

    Args:
        path: What `harness.sources.prepare` wrote.
        recipe: Read are `batch_size`, `eval_batch_size`, `augment`, `unroll` and `threads` (threads that read image
            files).
        device: Where x and y are.
        seed: Decides the order of the training examples.
        split: Number of the split, for tables that were published with several.
        image_size: Side of x; None = as prepared.

    Raises:
        DataError: the file is missing, truncated or changed, or the recipe asks for what such data does not have.
    """
    stored, device = prepared.read(path), torch.device(device)
    if "parts" in stored.tensors:
        return _table(stored, recipe, device, seed, split)
    if "train_tokens" in stored.tensors:
        return _text(stored, path, recipe, device, seed)
    return _pictures(stored, path, recipe, device, seed, image_size)


def _table(stored: Prepared, recipe: Recipe, device: torch.device, seed: int, split: int) -> Data:
    parts, scale = tables.standardised(stored.tensors, split)
    on_device = {name: (x.to(device), y.to(device)) for name, (x, y) in parts.items()}
    description = stored.description
    return Data(
        train=TableTraining(*on_device["train"], recipe.batch_size, seed),
        val=TableEvaluation(*on_device["val"], recipe.eval_batch_size),
        test=TableEvaluation(*on_device["test"], recipe.eval_batch_size),
        kind=kinds.named(description.kind).at_scale(scale),
        num_classes=len(description.class_names) or 1,
        input_shape=description.shape,
        checksum=stored.checksum,
    )


def _text(stored: Prepared, path: str | Path, recipe: Recipe, device: torch.device, seed: int) -> Data:
    """The training text in `batch_size` columns, the validation text too, the test text as one."""
    if recipe.processes > 1:
        raise DataError("recipe key 'processes' must be 1 for a running text: its state belongs to one process")
    words, length = stored.description.class_names, recipe.eval_batch_size
    tokens = {split: stored.tensors[f"{split}_tokens"].long().to(device) for split in prepared.SPLITS}
    first = words.index(END)
    columns = recipe.batch_size
    for split in ("train", "val"):
        if len(tokens[split]) < columns:
            raise DataError(f"{path} has {len(tokens[split])} tokens in '{split}': lower recipe key 'batch_size'")
    return Data(
        train=Text(tokens["train"], first, columns, recipe.unroll, seed),
        val=Text(tokens["val"], first, columns, max(1, length // columns)),
        test=Text(tokens["test"], first, 1, length),
        kind=kinds.named(stored.description.kind),
        num_classes=len(words),
        input_shape=(recipe.unroll,),
        checksum=stored.checksum,
    )


def _pictures(
    stored: Prepared, path: str | Path, recipe: Recipe, device: torch.device, seed: int, image_size: int | None
) -> Data:
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
        targets=labels["train"],
        normalizer=normalizers["train"],
        augmentation=augmentation,
        batch_size=recipe.batch_size,
        seed=seed,
    )
    val, test = (
        Evaluation(images[split], labels[split], normalizers[split], recipe.eval_batch_size)
        for split in ("val", "test")
    )
    outliers = None
    if "outliers_x" in stored.tensors:
        pixels = _images(stored, "outliers", image_size, recipe.threads, device)
        nothing = torch.zeros(len(stored.tensors["outliers_x"]), dtype=torch.int64, device=device)
        outliers = Evaluation(pixels, nothing, normalizers["test"], recipe.eval_batch_size)
    return Data(
        train=train,
        val=val,
        test=test,
        kind=kinds.named(description.kind),
        num_classes=len(description.class_names),
        input_shape=(channels, image_size or height, image_size or width),
        checksum=stored.checksum,
        outliers=outliers,
    )


def _images(stored: Prepared, split: str, image_size: int | None, threads: int, device: torch.device) -> Images:
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
        threads=threads,
        device=device,
    )
