"""The file of a prepared dataset: written whole or not at all, and checked by its own checksum at every use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness import kinds
from harness.machine.files import advice, replacing

FORMAT = "2"
SPLITS = ("train", "val", "test")
END = "<eos>"
"""The token that ends a line of a text."""


class DataError(ValueError):
    """Data that cannot be used; the message is one sentence that names the file or key and what to do."""


@dataclass(frozen=True)
class Description:
    """What is known about a dataset besides its tensors.

    Attributes:
        name: The dataset's name in config.yaml.
        class_names: One name per class in the order of the labels, or each word of a vocabulary; empty for numbers.
        shape: (channels, height, width) of the images, (features,) of a table's rows, () for a text.
        mean: Per channel of images, of pixels in [0, 1]; subtracted from them.
        std: Per channel of images; what is left is divided by it.
        section: The dataset's section of config.yaml.
        split_seed: Seed of every choice of examples.
        sources: Checksum of each file that was read, by its name.
        root: The folder that listed image files are below; None if the images are stored here.
        crop_fraction: Share of the shorter side of a listed image file that its central square keeps.
        upright: Whether listed image files are turned as their EXIF orientation says.
        kind: The kind of task.
    """

    name: str
    class_names: list[str]
    shape: tuple[int, ...]
    mean: list[float]
    std: list[float]
    section: dict[str, Any]
    split_seed: int
    sources: dict[str, str]
    root: str | None = None
    crop_fraction: float = 1.0
    upright: bool = False
    kind: str = kinds.DEFAULT


@dataclass(frozen=True)
class Prepared:
    """A dataset as it is stored.

    Attributes:
        description: What is known about it.
        tensors: Images have for each split `*_y` (examples,) int64 and `*_x` (examples, channels, height, width) uint8,
            or, where they stay files, `*_files` (their paths, zero-separated, as uint8) and `*_crc` (examples,) int64;
            images of another dataset, if it names one, are `outliers_x`.
            A text has for each split `*_tokens` (tokens,) int32; a table has what `tables.standardised` takes.
        checksum: SHA-256 of all of it.
    """

    description: Description
    tensors: Mapping[str, Tensor]
    checksum: str


def write(path: str | Path, description: Description, tensors: Mapping[str, Tensor]) -> str:
    """Store a dataset atomically.

    Returns:
        Its checksum.

    Raises:
        DataError: the file cannot be written, for instance because the disk is full.
    """
    checksum = digest(description, tensors)
    metadata = {"format": FORMAT, "description": json.dumps(asdict(description)), "sha256": checksum}
    try:
        with replacing(path) as temporary:
            save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be written ({error}): {advice(error)}") from error
    return checksum


def read(path: str | Path) -> Prepared:
    """Load a prepared dataset and verify its checksum.

    Raises:
        DataError: the file is missing, truncated or changed, or was written by another version of the suite.
    """
    again = "delete it and start again, it will be prepared anew"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError as error:
        raise DataError(f"the prepared dataset {path} is missing: run Snakemake, it prepares it") from error
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} is truncated or damaged ({error}): {again}") from error
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path} is no prepared dataset of format {FORMAT}: {again}")
    try:
        fields = json.loads(metadata["description"])
        description = Description(**{**fields, "shape": tuple(fields["shape"])})
        checksum, expected = digest(description, tensors), metadata["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the header of {path} is damaged ({error!r}): {again}") from error
    if checksum != expected:
        raise DataError(f"{path} has changed since it was prepared (its checksum differs): {again}")
    return Prepared(description=description, tensors=tensors, checksum=checksum)


def digest(description: Description, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the description and over name, type, shape and bytes of every tensor."""
    total = hashlib.sha256(json.dumps(asdict(description), sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.contiguous().numpy())
    return total.hexdigest()


def pack_paths(paths: list[str]) -> Tensor:
    """Paths as one uint8 tensor."""
    return torch.frombuffer(bytearray("\0".join(paths).encode()), dtype=torch.uint8)


def unpack_paths(packed: Tensor) -> list[str]:
    """The inverse of `pack_paths`."""
    return packed.numpy().tobytes().decode().split("\0")
