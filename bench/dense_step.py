"""Prints images a second of a dense training epoch: the suite's loop beside that of timm's train script.

Same network, precision, batch size, optimiser and device; loading and augmentation are part of both. timm's side is
built from what its train.py calls (create_loader, SGD with Nesterov momentum, its step) with the script's defaults,
but without colour jitter, which the suite does not do either.

python -m bench.dense_step                                  ResNet-18, 32 px, batch 128, on the CPU
python -m bench.dense_step --model resnet8 --examples 4096
python -m bench.dense_step --device cuda --precision bfloat16 --examples 50000 --workers 4
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from timm.data import create_loader
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from bench.loader import MEAN, STD, prepare
from harness.data import dataset
from harness.machine.devices import make_deterministic
from harness.networks import build
from harness.training.loop import Progress, Recipe, run_epochs

SGD = {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}


class Pictures(Dataset):
    """Images as PIL objects, the way torchvision's CIFAR10 hands them to timm."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images.permute(0, 2, 3, 1).contiguous().numpy(), labels.tolist()
        self.transform: Any = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[number])), self.labels[number]


def timm_epoch(
    model: nn.Module, loader: Iterable, optimizer: torch.optim.Optimizer, options: argparse.Namespace
) -> None:
    """One epoch as in train_one_epoch of timm's train.py; it reads the loss only for its log lines."""
    device = torch.device(options.device)
    model.train()
    for number, (x, y) in enumerate(loader):
        x, y = x.to(device), y.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
            loss = functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if number % 50 == 0:
            loss.item()


def suite_epoch(model: nn.Module, loaded: dataset.Data, recipe: Recipe, optimizer: torch.optim.Optimizer) -> None:
    """One epoch of the loop that trains every cell, its validation (on ten images) included."""
    run_epochs(
        model,
        loaded.train,
        loaded.val,
        recipe,
        optimizer=optimizer,
        progress=Progress(epoch=0),
        last_epoch=1,
        loss=lambda x, y: functional.cross_entropy(model(x), y),
        step=lambda chosen: chosen.step(),
        evaluated=lambda: model,
        on_batch=lambda progress: None,
        on_epoch=lambda progress, row: None,
    )


def settings(device: torch.device, *, suite: bool) -> None:
    """Each side runs as its own program does: ours deterministic, timm's with the fastest kernels."""
    if suite:
        make_deterministic(device)
    else:
        torch.set_deterministic_debug_mode("default")
    torch.backends.cudnn.benchmark = torch.backends.cuda.matmul.allow_tf32 = not suite


def network(options: argparse.Namespace) -> nn.Module:
    """The same network for both, with the same weights."""
    torch.manual_seed(0)
    shape = (3, options.size, options.size)
    return build.build(options.model, num_classes=10, input_shape=shape).to(options.device)


def sides(images: Tensor, labels: Tensor, path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A function that trains one epoch, for each of the two."""
    prepare(path, images, labels)
    recipe = Recipe.of(
        epochs=2,
        prune_epoch=1,
        batch_size=options.batch,
        optimizer={"name": "sgd", **SGD},
        schedule={},
        augment={"crop": 4, "flip": True},
        precision=options.precision,
    )
    loaded = dataset.load(path, recipe=recipe, device=options.device, seed=0)
    ours = network(options).to(memory_format=torch.channels_last)
    our_forward = torch.compile(ours) if options.compile else ours
    our_optimizer = recipe.make_optimizer(ours.parameters())
    loader = create_loader(
        Pictures(images, labels),
        input_size=(3, options.size, options.size),
        batch_size=options.batch,
        is_training=True,
        color_jitter=0.0,
        mean=(MEAN,) * 3,
        std=(STD,) * 3,
        num_workers=options.workers,
        device=torch.device(options.device),
        use_prefetcher=options.device != "cpu",
        persistent_workers=options.workers > 0,
        pin_memory=options.device != "cpu",
    )
    theirs = network(options)
    their_forward = torch.compile(theirs) if options.compile else theirs
    their_optimizer = torch.optim.SGD(theirs.parameters(), **SGD)
    return {
        "suite": (lambda: suite_epoch(our_forward, loaded, recipe, our_optimizer), len(loaded.train)),
        "timm": (lambda: timm_epoch(their_forward, loader, their_optimizer, options), len(loader)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true", help="torch.compile on both sides")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="of timm's loader")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    shape = (options.examples, 3, options.size, options.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (options.examples,), generator=generator)
    with TemporaryDirectory() as folder:
        epochs = sides(images, labels, Path(folder) / "bench.safetensors", options)
        rates: dict[str, list[float]] = {name: [] for name in epochs}
        for number in range(options.rounds + 1):
            for name, (epoch, batches) in epochs.items():
                settings(torch.device(options.device), suite=name == "suite")
                started = time.perf_counter()
                epoch()
                if options.device != "cpu":
                    torch.cuda.synchronize()
                if number > 0:  # The first round warms up.
                    rates[name].append(batches * options.batch / (time.perf_counter() - started))
    suite, theirs = (statistics.median(rates[name]) for name in ("suite", "timm"))
    print(f"{options.model}, {options.size} px, batch {options.batch}, {options.precision}, {options.device}")
    print(f"suite {suite:,.1f} images/s, timm {theirs:,.1f} images/s, ratio {suite / theirs:.2f}")


if __name__ == "__main__":
    main()
