"""The plan before the bill: `python -m harness.estimate [TABLE ...]` prints cells, hours and disk of each table.

A few training steps of each architecture and image size are timed on this machine with random images: on a GPU with
the recipe's batch or as much of it as fits, on a CPU with as many pixels as 8 images of ImageNet have. Their time is
scaled to the batch, and datasets that differ in colours and classes alone share it. Where images stay JPEG files,
reading one is timed too: on a GPU an epoch lasts as long as the slower of the two, on a CPU as long as both. What was
timed is kept in results/calibration.json, by machine; delete that file to time anew. A method costs what its finished
cells cost relative to dense ones in the recipe's precision; a method without any counts as in the other precision, or
else like dense training, and is marked.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import kinds
from harness.kinds import Kind
from harness.machine.devices import DeviceError, make_deterministic, wanted_device
from harness.machine.files import read_json, write_text
from harness.plan import configuration, grid
from harness.plan.current import Current

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.config.recipe import Recipe

TRAINING_EXAMPLES = {
    **dict.fromkeys(("mnist", "kuzushiji", "fashion"), (54_000, (1, 28, 28), 10)),
    "digits": (1_258, (1, 8, 8), 10),
    "cifar10": (45_000, (3, 32, 32), 10),
    "cifar100": (45_000, (3, 32, 32), 100),
    "flowers": (6_149, (3, 224, 224), 102),
    "imagenet": (1_231_167, (3, 224, 224), 1000),
    "imagefolder": (50_000, (3, 32, 32), 10),
    "ptb": (929_589, (), 10_000),
    "wikitext2": (2_088_628, (), 33_278),
    "text": (1_000_000, (), 10_000),
    "grammar": (33_855, (), 65),
    "diabetes": (310, (10,), 1),
    "uci": (7_373, (8,), 1),
    "polarity": (7_464, (59,), 2),
}
"""Training examples after the validation split, shape of an image, a row or a sentence, outputs; of a text its tokens
and words. For `imagefolder` and `text` a guess; `uci` is kin8nm."""
PHOTO = (500, 375)
"""Width and height of the JPEG file whose reading is timed, those of an average image of ImageNet."""
PHOTOS = {"flowers": 8_189, "imagenet": 1_331_167, "imagefolder": 62_500}
"""All images of the datasets that come as files: they stay files if they would take too much memory decoded."""
MANY_OUTPUTS = 1000
"""Up to so many, datasets that differ in their number alone share what was timed."""
CALIBRATION = Path("results/calibration.json")
CPU_PIXELS = 8 * 224 * 224
"""Pixels of a timed step on a CPU, where a whole batch of large images takes minutes and tens of gigabytes."""
BYTES_BESIDES_WEIGHTS = 400_000
"""metrics.json, history, log and the offline W&B run of one cell."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help="tables of config.yaml (default: all)")
    parser.add_argument("--configfile", type=Path, default=Path("config/config.yaml"))
    parser.add_argument("--steps", type=int, default=3, help="training steps to time after one of warm-up")
    arguments = parser.parse_args()
    try:
        config = configuration.read(arguments.configfile, arguments.tables)
        unit, machine = describe_machine()
    except (configuration.ConfigError, DeviceError) as error:
        print(error, file=sys.stderr)
        return 1
    current, kept = Current(config), read_json(CALIBRATION)
    costs = relative_costs(config, current)
    if not isinstance(kept.get(machine), dict):
        kept[machine] = {}
    timed = kept[machine]
    print(f"{unit} on {machine}; disk is that of the results, without the datasets")
    print(f"{'table':20} {'cells':>6} {'done':>6} {'hours left':>11} {'disk':>9}  methods without a measured cost")
    for table in arguments.tables or config["tables"]:
        print(line(config, table, current, costs, timed, arguments.steps), flush=True)
        write_text(CALIBRATION, json.dumps(kept, indent=1, sort_keys=True))
    return 0


def device_of_jobs() -> torch.device:
    """Where the trainers of this machine run; takes no slot."""
    import torch

    return torch.device("cuda" if wanted_device() != "cpu" and torch.cuda.is_available() else "cpu")


def describe_machine() -> tuple[str, str]:
    """What one hour of the plan is an hour of, and the names of the device and of the library that are timed."""
    import torch

    from harness.machine.provenance import processor

    gpu = device_of_jobs().type == "cuda"
    name = torch.cuda.get_device_name() if gpu else processor()
    unit = "GPU-hours" if gpu else "hours of jobs with the threads of their recipes"
    return unit, f"{name}, {os.cpu_count()} cores, PyTorch {torch.__version__}"


def line(
    config: configuration.Config,
    table: str,
    current: Current,
    costs: Mapping[tuple[str, str], float],
    timed: dict[str, float],
    steps: int,
) -> str:
    """The row of one table; what was timed is remembered in `timed`."""
    cells = grid.cells(config, table)
    done, hours, disk = 0, 0.0, 0
    dense: dict[str, tuple[float, int]] = {}
    for cell in cells:
        key = json.dumps([cell["model"], cell["config"]["data"], cell["config"]["recipe"]], sort_keys=True)
        if key not in dense:
            dense[key] = cost_of_dense(cell, timed, steps)
        seconds, weight_bytes = dense[key]
        # A dense cell leaves its weights twice: at the end, and where the pruning methods start.
        copies = 2 if configuration.rule_of(cell["method"]) == "dense" else 1
        disk += copies * weight_bytes + BYTES_BESIDES_WEIGHTS
        if current.objection(cell) is None:
            done += 1
        else:
            rule, precision = _rule_and_precision(cell)
            other = next((costs[rule, p] for p in ("float32", "bfloat16") if (rule, p) in costs), 1.0)
            hours += seconds * costs.get((rule, precision), other) / 3600
    unmeasured = sorted({rule for rule, _ in set(map(_rule_and_precision, cells)) - set(costs)})
    return f"{table:20} {len(cells):6} {done:6} {hours:11.2f} {disk / 1e9:6.2f} GB  {', '.join(unmeasured) or '-'}"


def _rule_and_precision(cell: grid.Cell) -> tuple[str, str]:
    return configuration.rule_of(cell["method"]), cell["config"]["recipe"].get("precision", "float32")


def relative_costs(config: configuration.Config, current: Current) -> dict[tuple[str, str], float]:
    """Training time of finished cells over that of the dense cell beside them: medians by rule and precision."""
    seconds: dict[tuple[Any, ...], dict[str, float]] = defaultdict(dict)
    for table in config["tables"]:
        for cell in grid.cells(config, table):
            measured = None if current.objection(cell) else current.result(cell).get("time")
            taken = measured.get("train_seconds") if isinstance(measured, dict) else None
            if isinstance(taken, int | float) and taken > 0:
                rule, precision = _rule_and_precision(cell)
                seconds[cell["dataset"], cell["model"], cell["seed"], precision][rule] = taken
    ratios = defaultdict(list)
    for (*_, precision), beside in seconds.items():
        for rule, value in beside.items():
            if "dense" in beside:
                ratios[rule, precision].append(value / beside["dense"])
    return {key: statistics.median(values) for key, values in ratios.items()}


def cost_of_dense(cell: grid.Cell, timed: dict[str, float], steps: int) -> tuple[float, int]:
    """Seconds of dense training over the whole budget on this machine, and bytes of the weights.

    `timed` holds the seconds of a step by what they depend on, and is extended.
    """
    import torch

    from harness.config.recipe import Recipe
    from harness.networks import build
    from harness.sources.store import DECODED_BYTES

    data, recipe = cell["config"]["data"], Recipe.of(**cell["config"]["recipe"])
    examples, shape, outputs = TRAINING_EXAMPLES[data["source"]]
    kind = kinds.named(kinds.of_data(data))
    if "image_size" in data:
        shape = (shape[0], data["image_size"], data["image_size"])
    elif not shape:
        shape = (recipe.unroll,)
    device = device_of_jobs()
    torch.set_num_threads(recipe.threads)
    make_deterministic(device)
    model = build.build(cell["model"], num_classes=outputs, input_shape=shape, kind=kind)
    settings = (recipe.batch_size, asdict(recipe.optimizer), recipe.precision, recipe.threads, steps)
    key = json.dumps([cell["model"], shape[-2:], outputs > MANY_OUTPUTS and outputs, *settings], sort_keys=True)
    if key not in timed:
        model = model.to(device, memory_format=torch.channels_last)
        timed[key] = time_batch(model, recipe, shape, kind, steps)
    examples = data.get("train_examples", examples)
    epoch = timed[key] * -(-examples // (recipe.batch_size * kind.examples_in(shape)))
    if PHOTOS.get(data["source"], 0) * math.prod(shape) > DECODED_BYTES:
        if (photo := f"photo {shape[-1]}") not in timed:
            timed[photo] = time_photo(shape[-1])
        reading = timed[photo] * examples / recipe.threads
        epoch = max(epoch, reading) if device.type == "cuda" else epoch + reading
    weight_bytes = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    return epoch * recipe.epochs, weight_bytes


def time_photo(size: int, rounds: int = 20) -> float:
    """Median seconds of one process for reading a JPEG file of usual size and making it `size` pixels square."""
    import numpy
    from PIL import Image

    from harness.data import images

    rough = numpy.random.default_rng(0).integers(0, 256, (PHOTO[1] // 8, PHOTO[0] // 8, 3), dtype=numpy.uint8)
    file = io.BytesIO()
    Image.fromarray(rough).resize(PHOTO, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    times = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        path.write_bytes(file.getvalue())
        for _ in range(rounds):
            started = time.perf_counter()
            images.decode(path, size=size)
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def time_batch(model: nn.Module, recipe: Recipe, shape: tuple[int, ...], kind: Kind, steps: int) -> float:
    """Seconds of a training step on a whole batch of inputs of `shape`."""
    import torch

    device = next(model.parameters()).device
    few = max(1, CPU_PIXELS // math.prod(shape[1:])) if len(shape) > 1 else recipe.batch_size
    images = recipe.batch_size if device.type == "cuda" else min(recipe.batch_size, few)
    while True:
        try:
            return time_step(model, recipe, kind.example(shape, images, device), steps) * recipe.batch_size / images
        except torch.OutOfMemoryError:
            if images == 1:
                raise
            images //= 2


def time_step(model: nn.Module, recipe: Recipe, blank: torch.Tensor, steps: int) -> float:
    """Median seconds of a training step on a batch like `blank`; images and rows are random."""
    import torch
    from torch import nn

    from harness.measure.metrics import laid_out

    device = next(model.parameters()).device
    optimizer = recipe.make_optimizer(model.parameters())
    if any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in model.modules()):
        blank = blank.long()  # words, of a sentence that is classified
    x = laid_out(torch.randn_like(blank) if blank.is_floating_point() else blank)
    times = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            loss = model(x).logsumexp(-1).mean()  # As dear as any kind's loss.
        loss.backward()
        optimizer.step()
        loss.item()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
