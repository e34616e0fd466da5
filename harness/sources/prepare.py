"""Prepare a dataset: `python -m harness.sources.prepare --name digits --data '{...}' --root data --out FILE`.

Reads or downloads the published files, makes the seeded splits, decodes small images, and stores all of it as one file
with its checksum. Large images stay files: then their paths and checksums are stored.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from harness.config.dataset import Dataset
from harness.data.prepared import SPLITS, DataError, write
from harness.sources import Source, check_classes, check_labels, some, table, text
from harness.sources.splits import per_class, stratified
from harness.sources.store import contents
from harness.sources.table import TableSource
from harness.sources.text import TextSource

KEYS = {field.name for field in fields(Dataset)}
TEST_FRACTION = 0.2
"""Share of the test set where none is published."""


def prepare(name: str, section: Mapping[str, Any], *, root: Path, out: Path, download: bool = False) -> str:
    """Prepare the dataset `name` and store it in `out`.

    Args:
        name: Its name in config.yaml.
        section: Its section of config.yaml.
        root: Where raw data lies or is downloaded to.
        out: The file to write.
        download: Fetch what is missing.

    Returns:
        The checksum of what was stored.

    Raises:
        DataError: a key is unknown, a file is missing or damaged, or the examples do not suffice for the splits.
    """
    if unknown := sorted(set(section) - KEYS):
        raise DataError(f"config key 'datasets.{name}.{unknown[0]}' is unknown: the keys are {', '.join(sorted(KEYS))}")
    source = read_source(name, section, root=root, download=section.get("download", download))
    if isinstance(source, TextSource | TableSource):
        return write(out, *source.contents(name, section))
    check_labels(source, name=name)
    check_classes(source, name=name, num_classes=section.get("num_classes"))
    source = split(source, name, section)
    check_labels(source, name=name)
    description, tensors = contents(source, name, section)
    if "outliers" in section:
        tensors["outliers_x"] = outliers(name, section, description.shape, root=root, download=download)
    checksum = write(out, description, tensors)
    print(*summary(source, name), sep="\n", file=sys.stderr)
    return checksum


def read_source(
    name: str, section: Mapping[str, Any], *, root: Path, download: bool
) -> Source | TextSource | TableSource:
    """The dataset as published. Each reader is imported only when it is needed."""
    match section["source"]:
        case "digits":
            from harness.sources import digits

            return digits.read()
        case "mnist" | "kuzushiji" | "fashion" as relative:
            from harness.sources import idx

            return idx.read(relative, root, download=download)
        case "cifar10" | "cifar100" as relative:
            from harness.sources import cifar

            return cifar.read(relative, root, download=download)
        case "flowers":
            from harness.sources import flowers

            return flowers.read(root, split=section.get("split", "authors"), download=download)
        case "imagenet":
            from harness.sources import folder

            return folder.read_imagenet(root, num_classes=section.get("num_classes"))
        case "imagefolder":
            from harness.sources import folder

            path = root / _required("path", name, section)
            return folder.read_imagefolder(path, num_classes=section.get("num_classes"))
        case "ptb":
            return text.read_penn(root, download=download)
        case "wikitext2":
            return text.read_wikitext(root, download=download)
        case "text":
            return text.read_text(root / _required("path", name, section))
        case "grammar":
            return text.read_grammar(section.get("split_seed", 0))
        case "diabetes":
            return table.read_diabetes()
        case "uci":
            return table.read_uci(_required("set", name, section), root, download=download)
        case "polarity":
            from harness.sources import sentences

            return sentences.read_polarity(root, words=section.get("vocabulary"), download=download)
        case other:
            raise DataError(f"config key 'datasets.{name}.source' is '{other}', which no reader knows: correct it")


def outliers(
    name: str, section: Mapping[str, Any], shape: tuple[int, ...], *, root: Path, download: bool
) -> torch.Tensor:
    """(examples, channels, height, width) uint8: the test images of the dataset that `outliers` names.

    Raises:
        DataError: its images have another shape, or its files are missing.
    """
    key = f"config key 'datasets.{name}.outliers'"
    other = read_source(name, {"source": section["outliers"]}, root=root, download=section.get("download", download))
    images = other.parts["test"].images
    if tuple(images.shape[1:]) != shape:
        raise DataError(
            f"{key} names images of {' x '.join(map(str, images.shape[1:]))} and those of the dataset are stored with "
            f"{' x '.join(map(str, shape))}: name another"
        )
    return images


def _required(key: str, name: str, section: Mapping[str, Any]) -> str:
    if key not in section:
        what = "the folder below the data root" if key == "path" else "one of the UCI sets"
        raise DataError(f"config key 'datasets.{name}.{key}' is missing: name {what}")
    return section[key]


def split(source: Source, name: str, section: Mapping[str, Any]) -> Source:
    """Make train, val and test out of the published parts, then take the subsets that the section asks for."""
    seed, key = section.get("split_seed", 0), f"config key 'datasets.{name}"
    parts = dict(source.parts)
    fraction = section.get("val_fraction", 0.1)
    if "all" in parts:
        everything = parts.pop("all")
        if source.holdout is None:
            count = round(TEST_FRACTION * len(everything))
            chosen = stratified(everything.labels, count, seed=seed, key=f"{key}'", leave=1)
        else:
            chosen = per_class(everything.labels, [source.holdout] * len(source.class_names), seed=seed)
        parts["train"], parts["test"] = everything.where(~chosen), everything.where(chosen)
        fraction = fraction * len(everything) / len(parts["train"])
    if "val" not in parts:
        train = parts["train"]
        if source.holdout is None:
            count, option = max(1, round(fraction * len(train))), f"{key}.val_fraction'"
            chosen = stratified(train.labels, count, seed=seed + 1, key=option, leave=1)
        else:
            chosen = per_class(train.labels, [source.holdout] * len(source.class_names), seed=seed + 1)
        parts["train"], parts["val"] = train.where(~chosen), train.where(chosen)
    for number, part in enumerate(SPLITS):
        if (count := section.get(f"{part}_examples")) is not None:
            option = f"{key}.{part}_examples'"
            parts[part] = parts[part].where(stratified(parts[part].labels, count, seed=seed + 2 + number, key=option))
    return source.with_parts(**parts)


def summary(source: Source, name: str) -> Iterator[str]:
    """What was made of the files: the sizes of the splits, the classes that one of them lacks, what was left out."""
    sizes = ", ".join(f"{len(source.parts[part])} {part}" for part in SPLITS)
    yield f"dataset '{name}': {sizes} examples of {len(source.class_names)} classes"
    for part in SPLITS:
        counts = torch.bincount(source.parts[part].labels, minlength=len(source.class_names))
        if absent := [source.class_names[number] for number in (counts == 0).nonzero().flatten().tolist()]:
            yield f"dataset '{name}' has no {part} example of {len(absent)} classes, having too few: {some(absent)}"
    if source.left_out:
        yield f"dataset '{name}' leaves out, of {source.root}: {'; '.join(source.left_out)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="the dataset's name in config.yaml")
    parser.add_argument("--data", required=True, type=json.loads, help="its section of config.yaml as JSON")
    parser.add_argument("--root", required=True, type=Path, help="where raw data lies or is downloaded to")
    parser.add_argument("--out", required=True, type=Path, help="the file to write")
    parser.add_argument(
        "--download", action=argparse.BooleanOptionalAction, default=False, help="fetch what is missing"
    )
    given = parser.parse_args()
    # An exit that runs the clauses that remove half-written files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        checksum = prepare(given.name, given.data, root=given.root, out=given.out, download=given.download)
    except KeyboardInterrupt:
        print(f"dataset '{given.name}' was stopped; the next start begins anew", file=sys.stderr)
        return 128 + signal.SIGINT
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, UnicodeError) as error:
        print(f"dataset '{given.name}' cannot be prepared ({error}): put this right and start again", file=sys.stderr)
        return 1
    print(f"{given.out}: sha256 {checksum}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
