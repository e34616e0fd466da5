"""Prints how many images a second the suite's loader gives beside DataLoader + torchvision v2, on one CPU thread.

python -m bench.loader                     CIFAR's shape and recipes, batch 128
python -m bench.loader --size 28 --channels 1 --batch 64
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from harness.data import dataset
from harness.data.prepared import SPLITS, Description, write

MEAN, STD = 0.47, 0.25
RECIPES: dict[str, dict[str, Any]] = {
    "none": {},
    "crop + flip": {"crop": 4, "flip": True},
    "crop + flip + cutout": {"crop": 4, "flip": True, "cutout": 16},
    "crop + flip + rotation": {"crop": 4, "flip": True, "rotation": 180},
}


class Images(Dataset):
    """uint8 images in memory, transformed one at a time as torchvision's documentation shows it."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Tensor], Tensor]) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[number]), self.labels[number]


def transforms(recipe: dict[str, Any], channels: int, size: int) -> v2.Compose:
    """torchvision's equivalent of a recipe."""
    steps: list[Any] = []
    if "flip" in recipe:
        steps += [v2.RandomCrop(size, padding=recipe["crop"]), v2.RandomHorizontalFlip()]
    if "rotation" in recipe:
        steps.append(v2.RandomRotation((0, recipe["rotation"])))
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize([MEAN] * channels, [STD] * channels)]
    if "cutout" in recipe:
        share = (recipe["cutout"] / size) ** 2
        steps.append(v2.RandomErasing(p=1.0, scale=(share, share), ratio=(1.0, 1.0)))
    return v2.Compose(steps)


def prepare(path: Path, images: Tensor, labels: Tensor) -> None:
    """The images as a prepared dataset."""
    channels = images.shape[1]
    description = Description(
        name="bench",
        class_names=[str(number) for number in range(10)],
        shape=tuple(images.shape[1:]),
        mean=[MEAN] * channels,
        std=[STD] * channels,
        section={},
        split_seed=0,
        sources={},
    )
    counts = {"train": len(images), "val": 10, "test": 10}
    write(
        path,
        description,
        {f"{split}_x": images[: counts[split]].clone() for split in SPLITS}
        | {f"{split}_y": labels[: counts[split]].clone() for split in SPLITS},
    )


def rate(batches: Callable[[], Any]) -> float:
    """Images a second over all of `batches()`."""
    started = time.perf_counter()
    images = sum(len(y) for _, y in batches())
    return images / (time.perf_counter() - started)


def compare(images: Tensor, labels: Tensor, options: argparse.Namespace) -> None:
    """Print a line for each recipe: medians of rounds in which both take turns."""
    channels, size = images.shape[1:3]
    print(f"{'recipe':24} {'suite':>12} {'DataLoader':>12} {'ratio':>7}   (images a second, one thread)")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bench.safetensors"
        prepare(path, images, labels)
        for name, augment in RECIPES.items():
            recipe = SimpleNamespace(batch_size=options.batch, eval_batch_size=500, augment=augment, threads=1)
            ours = dataset.load(path, recipe=recipe, device="cpu", seed=0).train
            few = Images(images[: options.examples // 10], labels, transforms(augment, channels, size))
            few.labels = labels[: len(few.images)]
            loader = DataLoader(few, options.batch, shuffle=True, num_workers=0)
            rounds = [
                (rate(lambda ours=ours, number=number: ours.epoch(number)), rate(lambda loader=loader: loader))
                for number in range(options.rounds)
            ]
            suite, theirs = (statistics.median(values) for values in zip(*rounds, strict=True))
            print(f"{name:24} {suite:12,.0f} {theirs:12,.0f} {suite / theirs:7.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    shape = (options.examples, options.channels, options.size, options.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    compare(images, torch.randint(0, 10, (options.examples,), generator=generator), options)


if __name__ == "__main__":
    main()
