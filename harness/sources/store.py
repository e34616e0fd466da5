"""What is stored of a dataset that has been read and split: its images or the list of its files, and its statistics."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data import images
from harness.data.prepared import SPLITS, DataError, Description, pack_paths
from harness.sources import Part, Source

DECODED_BYTES = 256 << 20
"""Image files that decode to more than this stay files and are read while training."""
STATISTICS_EXAMPLES = 5000
"""Number of image files that the mean and standard deviation of a streamed dataset are computed from."""
BLOCK = 4096
IMAGENET_CROP = 0.875  # 224 of 256 pixels, as everybody evaluates on ImageNet
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# The authors' code uses each dataset's own statistics for CIFAR and none for Kuzushiji and Fashion; their README
# says ImageNet's for all the others. The key `normalize` chooses either.
NORMALIZE = {
    **dict.fromkeys(("digits", "mnist", "kuzushiji", "fashion"), "none"),
    **dict.fromkeys(("cifar10", "cifar100", "imagefolder"), "dataset"),
    **dict.fromkeys(("flowers", "imagenet"), "imagenet"),
}


def contents(source: Source, name: str, section: Mapping[str, Any]) -> tuple[Description, dict[str, Tensor]]:
    """The description and the tensors to store.

    Raises:
        DataError: an image cannot be read, sizes differ and no `image_size` is given, or `normalize` does not fit.
    """
    parts = {part: source.parts[part] for part in SPLITS}
    tensors = {f"{part}_y": parts[part].labels for part in SPLITS}
    fraction = IMAGENET_CROP if section["source"] == "imagenet" else 1.0
    # Published numbers are of pixels as they are stored; a photographer's own are as every viewer shows them.
    upright = section["source"] == "imagefolder"
    stays_files = False
    if source.root is not None:
        size, stays_files = _size(source, name, section)
        decode = partial(images.decode, size=size, crop_fraction=fraction, upright=upright)
        for part in SPLITS:
            if stays_files:
                tensors[f"{part}_files"] = _pack(parts[part].files, source.root)
                tensors[f"{part}_crc"] = torch.tensor(list(_iterate(images.checksum, source.root, parts[part].files)))
            if _decoded_bytes(source, size) <= DECODED_BYTES:
                tensors[f"{part}_x"] = _decode(source.root, parts[part], decode, name)
    else:
        tensors |= {f"{part}_x": parts[part].images for part in SPLITS}
    sample = tensors["train_x"] if "train_x" in tensors else _sample(source, decode, name)
    mean, std = statistics(sample, section.get("normalize", NORMALIZE[section["source"]]), name)
    description = Description(
        name=name,
        class_names=list(source.class_names),
        shape=tuple(sample.shape[1:]),
        mean=mean,
        std=std,
        section=dict(section),
        split_seed=section.get("split_seed", 0),
        sources=dict(source.checksums),
        root=str(source.root.resolve()) if stays_files else None,
        crop_fraction=fraction,
        upright=upright,
    )
    return description, tensors


def statistics(pixels: Tensor, normalize: str, name: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of pixels in [0, 1], as `normalize` defines them.

    Args:
        pixels: (examples, channels, height, width) uint8 of the training set.
        normalize: "none", "dataset" or "imagenet".
        name: The dataset's name, for the error.

    Raises:
        DataError: ImageNet's statistics are asked for and the images are not coloured, or `normalize` is unknown.
    """
    channels = pixels.shape[1]
    if normalize == "none":
        return [0.0] * channels, [1.0] * channels
    if normalize == "imagenet" and channels == len(IMAGENET_MEAN):
        return IMAGENET_MEAN, IMAGENET_STD
    if normalize != "dataset":
        raise DataError(
            f"config key 'datasets.{name}.normalize' is '{normalize}', which images of {channels} channels "
            "do not have: choose none or dataset"
        )
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(pixels[:, channel].flatten(), minlength=256) for channel in range(channels)])
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = shares @ values
    std = (shares @ values.square() - mean.square()).clamp_min(0).sqrt()
    # A channel that never changes is only shifted.
    return mean.tolist(), torch.where(std > 1e-6, std, 1.0).tolist()


def _pack(files: list[str], root: Path) -> Tensor:
    try:
        return pack_paths(files)
    except UnicodeEncodeError as error:
        start = error.object[: error.end].split("\0")[-1]
        raise DataError(f"{root} has a file whose name is not UTF-8 and starts with {start!a}: rename it") from error


def _size(source: Source, name: str, section: Mapping[str, Any]) -> tuple[int | None, bool]:
    """Side of the images to store (None = as they are) and whether the files are read while training as well."""
    size = section.get("image_size")
    larger = max(section.get("image_size_by_model", {}).values(), default=0)
    too_many = _decoded_bytes(source, size) > DECODED_BYTES
    if size is None and (too_many or larger):
        raise DataError(f"config key 'datasets.{name}.image_size' is missing: give the side of the images in pixels")
    return size, too_many or larger > (size or 0)


def _decoded_bytes(source: Source, size: int | None) -> int:
    count = sum(len(part) for part in source.parts.values())
    if size is None:
        return count * images.decode(source.root / source.parts["train"].files[0], size=None).numel()
    return count * 3 * size**2


def _decode(root: Path, part: Part, decode: Callable[[Path], Tensor], name: str) -> Tensor:
    first = decode(root / part.files[0])
    result = torch.empty(len(part), *first.shape, dtype=torch.uint8)

    def one(path: Path) -> Tensor:
        image = decode(path)
        if image.shape != first.shape:
            raise DataError(
                f"{path} has {image.shape[2]} x {image.shape[1]} pixels and others {first.shape[2]} x "
                f"{first.shape[1]}: set config key 'datasets.{name}.image_size'"
            )
        return image

    for number, image in enumerate(_iterate(one, root, part.files)):
        result[number] = image
    return result


def _sample(source: Source, decode: Callable[[Path], Tensor], name: str) -> Tensor:
    train = source.parts["train"]
    chosen = torch.zeros(len(train), dtype=torch.bool)
    chosen[:: max(1, len(train) // STATISTICS_EXAMPLES)] = True
    return _decode(source.root, train.where(chosen), decode, name)


def _iterate(function: Callable[[Path], Any], root: Path, files: list[str]) -> Iterator[Any]:
    """Apply `function` to every file, in order, on all cores, a block of files at a time to bound the memory."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), BLOCK):
            yield from pool.map(function, [root / file for file in files[start : start + BLOCK]])
