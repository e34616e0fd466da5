"""Folders of image files, one subfolder for each class: ImageNet and the user's own."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from harness.data.images import EXTENSIONS
from harness.data.prepared import SPLITS, DataError
from harness.sources import Part, Source

IMAGENET_CLASSES = 1000


def read_imagefolder(folder: Path, *, num_classes: int | None = None) -> Source:
    """Read `folder`/{train,val,test}/<class>/<image>; without val or test that part is split off by its seed.

    A folder without train holds the classes themselves and is split in three.

    Args:
        folder: Where the images are.
        num_classes: How many classes there must be; None = as many as there are.

    Raises:
        DataError: the folder is missing, or its parts do not have the same classes, or not as many as they must.
    """
    if not folder.is_dir():
        raise DataError(f"the folder {folder} is missing: put the images there or correct the dataset's 'path'")
    names = [name for name in SPLITS if (folder / name).is_dir()]
    if "train" not in names:
        if names:
            raise DataError(f"{folder} has {' and '.join(names)} but no folder 'train': add it")
        return _read({"all": folder}, folder, num_classes)
    if "test" not in names:
        raise DataError(f"{folder} has no folder 'test': add it (or put the classes straight into {folder.name})")
    return _read({name: folder / name for name in names}, folder, num_classes)


def read_imagenet(root: Path, *, num_classes: int | None = None) -> Source:
    """Read ImageNet's unpacked tree `root`/imagenet/{train,val}/<WordNet id>/<image>; its val is the test set.

    Raises:
        DataError: the tree is missing, or its parts do not have the 1000 classes (or `num_classes`, for a subset).
    """
    folder = root / "imagenet"
    if not ((folder / "train").is_dir() and (folder / "val").is_dir()):
        raise DataError(
            f"{folder} must hold ImageNet (ILSVRC2012) unpacked as train/<WordNet id>/*.JPEG and "
            "val/<WordNet id>/*.JPEG: it cannot be downloaded without an account at image-net.org, put it there"
        )
    parts = {"train": folder / "train", "test": folder / "val"}
    return _read(parts, folder, num_classes or IMAGENET_CLASSES)


def _read(folders: dict[str, Path], root: Path, num_classes: int | None) -> Source:
    listed = {name: _list(folder) for name, folder in folders.items()}
    first = next(iter(listed))
    classes = sorted(listed[first])
    for name, found in listed.items():
        if odd := sorted(set(found) ^ set(classes)):
            raise DataError(
                f"{folders[name]} and {folders[first]} differ in the class folder '{odd[0]}': add or remove it"
            )
    if num_classes is not None and len(classes) != num_classes:
        raise DataError(
            f"{folders[first]} has {len(classes)} classes and must have {num_classes} (num_classes): complete it"
        )
    if len(classes) < 2:
        raise DataError(f"{folders[first]} has fewer than two class folders with images: add the others")
    parts = {}
    for name, found in listed.items():
        files = [f"{folders[name].relative_to(root) / label / file}" for label in classes for file in found[label]]
        labels = torch.repeat_interleave(torch.tensor([len(found[label]) for label in classes]))
        parts[name] = Part(labels=labels, files=files)
    return Source(parts=parts, class_names=classes, root=root)


def _list(folder: Path) -> dict[str, list[str]]:
    """Image files of each class folder below `folder`, sorted; hidden entries and empty folders do not count."""
    found = {}
    with os.scandir(folder) as entries:
        classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    for label in classes:
        names = sorted(name for name in os.listdir(folder / label) if not name.startswith("."))
        if images := [name for name in names if Path(name).suffix.lower() in EXTENSIONS]:
            found[label] = images
    return found
