"""Readers of datasets, one file for each format on disk; what they share is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from harness.data.prepared import DataError


@dataclass(frozen=True)
class Part:
    """Examples as they come from the disk: images in memory, or files to be read later.

    Attributes:
        labels: (examples,) int64.
        images: (examples, channels, height, width) uint8, or None.
        files: Paths below the source's root, or None.
    """

    labels: Tensor
    images: Tensor | None = None
    files: list[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, chosen: Tensor) -> Part:
        """The examples for which `chosen` (examples,) bool is True, in their order."""
        index = chosen.nonzero().squeeze(1)
        return Part(
            labels=self.labels[index],
            images=None if self.images is None else self.images[index],
            files=None if self.files is None else [self.files[number] for number in index.tolist()],
        )


@dataclass(frozen=True)
class Source:
    """A dataset as published.

    Attributes:
        parts: `train` and `test`, also `val` if the publisher made one; or `all` if there is no published split.
        class_names: One name per class, in the order of the labels.
        checksums: Of each file that was read, by its name.
        root: The folder that the parts' files are below.
        holdout: With the part `all`: examples of each class for validation and as many for test; None = fractions.
        left_out: What lies in `root` and is not used, each a phrase with its count.
    """

    parts: Mapping[str, Part]
    class_names: list[str]
    checksums: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None
    holdout: int | None = None
    left_out: Sequence[str] = ()

    def with_parts(self, **parts: Part) -> Source:
        """The same dataset with other parts."""
        return replace(self, parts=parts)


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names and how many more there are: 'a, b, c and 4 more'."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def check_labels(source: Source, *, name: str) -> None:
    """Raise DataError unless every label has a name and every part has two or more classes."""
    for part_name, part in source.parts.items():
        if len(part) == 0:
            raise DataError(f"dataset '{name}' has no examples in its part '{part_name}': check its files")
        low, high = int(part.labels.min()), int(part.labels.max())
        if low < 0 or high >= len(source.class_names):
            raise DataError(
                f"dataset '{name}' has the label {low if low < 0 else high} in its part '{part_name}' "
                f"and {len(source.class_names)} classes: its label file is damaged"
            )
        if low == high:
            raise DataError(
                f"dataset '{name}' has one class only in its part '{part_name}': classification needs two or more, "
                "add examples of the others"
            )


def check_classes(source: Source, *, name: str, num_classes: int | None) -> None:
    """Raise DataError unless the examples to learn from have all classes of the dataset, `num_classes` if given."""
    part = source.parts["train" if "train" in source.parts else "all"]
    found, classes = int(part.labels.unique().numel()), len(source.class_names)
    if num_classes not in (None, classes):
        raise DataError(f"dataset '{name}' has {classes} classes, config key 'datasets.{name}.num_classes' says "
                        f"{num_classes}: correct it")  # fmt: skip
    if found != classes:
        raise DataError(f"dataset '{name}' has examples of {found} classes and should have {classes}: "
                        "complete its files")  # fmt: skip
