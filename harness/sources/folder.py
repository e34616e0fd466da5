"""Folders of image files, one subfolder for each class: ImageNet and the user's own."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from harness.data.images import EXTENSIONS
from harness.data.prepared import SPLITS, DataError
from harness.sources import Part, Source, some

IMAGENET_CLASSES = 1000
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""How people name the folder of a split, in any letter case and before a word such as in `test_set`."""


@dataclass(frozen=True)
class Tree:
    """What lies below a folder of classes.

    Attributes:
        images: Image files of each class folder at any depth, relative to the tree, sorted.
        others: How many files of each ending are no images that can be read, or lie outside the class folders.
    """

    images: dict[str, list[str]] = field(default_factory=dict)
    others: dict[str, Counter[str]] = field(default_factory=dict)


def read_imagefolder(folder: Path, *, num_classes: int | None = None) -> Source:
    """Read `folder`/<split>/<class>/**/<image>; without a validation set that is split off by its seed.

    A folder without splits holds the classes themselves and is split in three.

    Args:
        folder: Where the images are.
        num_classes: How many classes there must be; None = as many as there are.

    Raises:
        DataError: the folder is missing, its splits are not complete, or do not have the same classes, or not as many
            as they must.
    """
    if not folder.is_dir():
        raise DataError(f"the folder {folder} is missing: put the images there or correct the dataset's 'path'")
    splits = _splits(folder)
    if not splits:
        return _read({"all": folder}, folder, num_classes)
    if "train" not in splits:
        raise DataError(f"{folder} has {' and '.join(splits.values())} but no folder 'train': add it")
    if "test" not in splits:
        rename = f", rename '{splits['val']}' if that is it" if "val" in splits else ""
        raise DataError(
            f"{folder} has no folder 'test': add it{rename}, or end the dataset's 'path' with '{splits['train']}' to "
            "have that split in three"
        )
    return _read({name: folder / splits[name] for name in SPLITS if name in splits}, folder, num_classes)


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


def _splits(folder: Path) -> dict[str, str]:
    """Split -> its folder, as the user named it; empty if the folders of `folder` are classes.

    A single such name among others, with images straight in it, is a class: trains among cars.
    """
    names = [entry.name for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    found: dict[str, str] = {}
    for name in names:
        if word := re.fullmatch(r"([a-z]+)([ _-]?(set|split|data|images))?", name.lower()):
            split = SPLIT_NAMES.get(word[1])
            if split in found:
                raise DataError(f"{folder} has '{found[split]}' and '{name}', both of them '{split}': join them")
            if split:
                found[split] = name
    if len(found) == 1 and len(names) > 1:
        (only,) = found.values()
        if not any(entry.is_dir() for entry in (folder / only).iterdir()):
            return {}
    return found


def _read(folders: Mapping[str, Path], root: Path, num_classes: int | None) -> Source:
    trees = {name: _list(folder) for name, folder in folders.items()}
    first = next(iter(trees))
    classes = sorted(trees[first].images)
    for name, tree in trees.items():
        if odd := sorted(set(tree.images) ^ set(classes)):
            raise DataError(
                f"{folders[name]} and {folders[first]} differ in the class folder '{odd[0]}': add or remove it"
            )
    if num_classes is not None and len(classes) != num_classes:
        raise DataError(
            f"{folders[first]} has {len(classes)} classes and must have {num_classes} (num_classes): complete it"
        )
    if len(classes) < 2:
        inside = f" (if they lie in '{classes[0]}', end the dataset's 'path' with it)" if classes else ""
        raise DataError(f"{folders[first]} has fewer than two class folders with images: add the others{inside}")
    parts = {}
    for name, tree in trees.items():
        files = [f"{folders[name].relative_to(root) / file}" for label in classes for file in tree.images[label]]
        labels = torch.repeat_interleave(torch.tensor([len(tree.images[label]) for label in classes]))
        parts[name] = Part(labels=labels, files=files)
    beside = [] if "all" in folders else [path.name for path in root.iterdir() if path not in folders.values()]
    notes = [*_left_out(trees, folders, root), *(f"'{name}' beside the splits" for name in sorted(beside))]
    return Source(parts=parts, class_names=classes, root=root, left_out=notes)


def _list(folder: Path) -> Tree:
    """The images of each class folder below `folder`; hidden entries do not count.

    Raises:
        DataError: a class folder cannot be read, holds files and no image, or holds splits of its own.
    """
    tree, classes = Tree(), []
    for place, folders, files in _walk(folder):
        label = place.split(os.sep)[0]
        if not place:
            classes = folders
        elif place == label and len({SPLIT_NAMES.get(name.lower()) for name in folders} - {None}) > 1:
            raise DataError(f"{folder / label} has splits inside a class: put the classes into the splits instead")
        for name in files:
            ending = os.path.splitext(name)[1].lower()
            if label and ending in EXTENSIONS:
                tree.images.setdefault(label, []).append(os.path.join(place, name))
            else:
                tree.others.setdefault(label, Counter())[ending or "without an ending"] += 1
    for label in (name for name in classes if name not in tree.images):
        if label in tree.others:
            held = " and ".join(f"{count} {ending}" for ending, count in tree.others[label].items())
            raise DataError(f"{folder / label} holds {held} and no image that can be read: convert them or remove it")
        tree.others[label] = Counter(["empty"])
    for paths in tree.images.values():
        paths.sort()
    return tree


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each folder below `folder` ('' is itself), its folders and files without the hidden ones; links are followed."""

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read ({error.strerror}): make it readable") from error

    seen = set()
    for path, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        place = os.path.relpath(path, folder).removeprefix(".")
        key = (place.split(os.sep)[0], os.path.realpath(path))
        folders[:] = [] if key in seen else sorted(name for name in folders if not name.startswith("."))
        if key not in seen:  # A link to a folder above would lead in circles.
            seen.add(key)
            yield place, folders, [name for name in files if not name.startswith(".")]


def _left_out(trees: Mapping[str, Tree], folders: Mapping[str, Path], root: Path) -> Iterator[str]:
    """What of the trees is not used, with counts: '60 .heic (train/cat, train/dog)'."""
    total: Counter[str] = Counter()
    places: dict[str, list[str]] = {}
    for name, tree in trees.items():
        for label, endings in sorted(tree.others.items()):
            for ending, count in endings.items():
                total[ending] += count
                places.setdefault(ending, []).append(str((folders[name] / label).relative_to(root)))
    for ending, count in sorted(total.items(), key=lambda item: (-item[1], item[0])):
        yield f"{count} {ending} ({some(places[ending])})"
