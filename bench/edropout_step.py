"""Prints what a step of EDropout costs in plain training steps: interleaved medians, no timed assertion.

Each network has a process of its own, in which all kinds of steps take turns.
The memory allocator is set as in the suite's trainers (harness/run.py), for all kinds of steps alike.

python -m bench.edropout_step                        the four networks at the batch sizes of SETTINGS
python -m bench.edropout_step --models resnet18 --batch 32 --population 4 --rounds 15
python -m bench.edropout_step --models resnet18 --precision bfloat16     under autocast, the plain step too
python -m bench.edropout_step --models resnet18 --multiple-of 8          states whose layers keep multiples
python -m bench.edropout_step --models resnet18 --run 0.1     a whole run by energies with curvature, in plain runs
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from edropout import EDropout, Target, Units
from edropout.method import uniform_macs
from harness.runs.supervisor import KEEP_MEMORY

# name -> (side of the input in pixels, batch)
SETTINGS = {"resnet18": (32, 128), "resnet50": (32, 64), "alexnet": (224, 64), "squeezenet1_1": (224, 32)}

STAGES = 20

# Turns until the memory that the allocator keeps has grown to what all kinds of steps need.
WARM_UP = 4


def small_image_stem(model: nn.Module) -> nn.Module:
    """ResNet for 32 px: a 3x3 stem of stride 1 and no max-pool, as in the paper."""
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def network(name: str) -> nn.Module:
    """A network of ten classes in train mode."""
    model = torchvision.models.get_model(name, weights=None, num_classes=10)
    return (small_image_stem(model) if name.startswith("resnet") else model).train()


def optimizer_of(model: nn.Module, name: str) -> torch.optim.Optimizer:
    """The paper's Adadelta, or SGD with momentum, which costs less."""
    if name == "adadelta":
        return torch.optim.Adadelta(model.parameters(), lr=1e-3, weight_decay=1e-5)
    return torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-5)


def autocast(x: torch.Tensor, precision: str) -> torch.autocast:
    """What a mixed-precision training loop puts around the forward pass; nothing in float32."""
    return torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16")


def plain_step(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, optimizer: str, precision: str = "float32"
) -> Callable[[], None]:
    """An ordinary training step."""
    update = optimizer_of(model, optimizer)

    def step() -> None:
        with autocast(x, precision):
            loss = F.cross_entropy(model(x), y)
        update.zero_grad()
        loss.backward()
        update.step()

    return step


def edropout_step(
    search: EDropout, x: torch.Tensor, y: torch.Tensor, optimizer: str, precision: str = "float32"
) -> Callable[[], None]:
    """A step of the search on its own network."""
    update = optimizer_of(search.model, optimizer)

    def step() -> None:
        with autocast(x, precision):
            loss = search.loss(x, y)
        update.zero_grad()
        loss.backward()
        search.step(update)

    return step


def medians(steps: dict[str, Callable[[], None]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of each step: the steps take turns, so that a change of the machine's load meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARM_UP + rounds):
        for name, step in steps.items():
            start = clock()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= WARM_UP:
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(
    name: str,
    batch: int,
    population: int,
    rounds: int,
    optimizer: str,
    device: str,
    cpu_time: bool,
    precision: str,
    multiple_of: int,
) -> None:
    """Prints one line of ratios for one network, and the floor of both kinds of steps: their convolutions alone."""
    if cpu_time:
        torch.set_num_threads(1)
    clock = time.process_time if cpu_time else time.perf_counter
    side = SETTINGS.get(name, (32, 128))[0]
    torch.manual_seed(0)
    model = network(name).to(device)
    x, y = torch.randn(batch, 3, side, side, device=device), torch.randint(10, (batch,), device=device)
    last, rows = copy.deepcopy(model).to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    search, frozen = (
        EDropout(own, population_size=population, units=Units(own, multiple_of=multiple_of))
        for own in (copy.deepcopy(model), copy.deepcopy(model))
    )
    frozen.freeze()
    frozen.loss(x[:2], y[:2])
    smaller = frozen.prune().train().to(memory_format=torch.channels_last)
    steps = {
        "plain": plain_step(model, x, y, optimizer, precision),
        "channels-last": plain_step(last, rows, y, optimizer, precision),
        "edropout": edropout_step(search, x, y, optimizer, precision),
        "frozen": edropout_step(frozen, x, y, optimizer, precision),
        "pruned": plain_step(smaller, rows, y, optimizer, precision),
    }
    found = medians(steps, rounds, clock)
    best = min(found["plain"], found["channels-last"])
    ratios = {kind: found[kind] / best for kind in ("edropout", "frozen", "pruned")}
    floors = [ratios[kind] * share_of_convolutions(steps[kind]) for kind in ("edropout", "frozen")]
    print(
        f"{name:14} {batch:5} {population:3} {precision:9}"
        + "".join(f"{1e3 * seconds:9.0f}" for seconds in found.values())
        + "".join(f"{ratio:9.2f}" for ratio in (*ratios.values(), *floors, frozen.kept_ratio().physical)),
        flush=True,
    )


def share_of_convolutions(step: Callable[[], None]) -> float:
    """Share of a step's time that its convolutions take, in both directions, from a profile of one step."""
    with torch.profiler.profile() as profile:
        step()
    seconds = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    return sum(taken for name, taken in seconds.items() if "convolution" in name) / sum(seconds.values())


def measure_run(name: str, batch: int, kept: float, rounds: int, optimizer: str, cpu_time: bool) -> None:
    """Prints what whole runs by energies with curvature cost, in plain runs: by parameters, and by both budgets.

    A run is dense for a tenth of its steps, falls in twenty stages until .35 and is compact afterwards. The step of
    each of these states is measured beside a plain one. Changing the state happens twenty times in a run, whose length
    is not known here: the seconds of all changes stand beside the ratio.
    """
    if cpu_time:
        torch.set_num_threads(1)
    clock = time.process_time if cpu_time else time.perf_counter
    side = SETTINGS.get(name, (32, 128))[0]
    for budget in ("parameters", "both"):
        torch.manual_seed(0)
        model = network(name)
        x, y = torch.randn(batch, 3, side, side), torch.randint(10, (batch,))
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        macs = uniform_macs(model, 0, x[:2], kept) if budget == "both" else None
        each = rounds + 1  # the first step of a stage changes the state
        target = Target(kept, warm_up=max(2, each), steps=STAGES * each, stages=STAGES, kept_macs=macs, by="curvature")
        search = EDropout(model, target=target)
        plain = plain_step(last, x.contiguous(memory_format=torch.channels_last), y, optimizer)
        step = edropout_step(search, x, y, optimizer)
        ratios, changes, all_plain = [], [], []
        for _ in range(WARM_UP):
            plain()
        for _ in range(STAGES + 1):
            seconds: dict[str, list[float]] = {"plain": [], "step": []}
            for _ in range(each):
                for kind, act in (("plain", plain), ("step", step)):
                    start = clock()
                    act()
                    seconds[kind].append(clock() - start)
            first, *others = seconds["step"]
            ratios.append(statistics.median(others) / statistics.median(seconds["plain"]))
            changes.append(first - statistics.median(others))
            all_plain += seconds["plain"]
        dense, *descent, frozen = ratios
        # The last stage is the frozen state.
        whole = 0.10 * dense + 0.25 * statistics.mean([*descent, frozen]) + 0.65 * frozen
        left = search.kept_ratio()
        print(
            f"{name:14} {batch:5} {budget:10} {left.physical:7.3f} {left.macs:6.3f} "
            f"{1e3 * statistics.median(all_plain):9.0f} {dense:7.2f} {statistics.mean([*descent, frozen]):7.2f} "
            f"{frozen:7.2f} {whole:7.2f} {sum(changes[1:]):9.1f}",
            flush=True,
        )


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a fresh process, whose memory no earlier network has cut to pieces."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak_memory(kind: str, name: str, batch: int, population: int, optimizer: str) -> float:
    """MiB that three steps of a kind add at their peak to the memory of this process."""
    side = SETTINGS.get(name, (32, 128))[0]
    model, x, y = network(name), torch.randn(batch, 3, side, side), torch.randint(10, (batch,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if kind == "plain":
        model, x = (value.to(memory_format=torch.channels_last) for value in (model, x))
        step = plain_step(model, x, y, optimizer)
    else:
        step = edropout_step(EDropout(model, population_size=population), x, y, optimizer)
    for _ in range(3):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def measure_memory(name: str, batch: int, population: int, optimizer: str) -> None:
    """Prints the peak memory of both kinds of steps, each measured in a fresh process."""
    found = {}
    for kind in ("plain", "edropout"):
        found[kind] = alone(peak_memory, kind, name, batch, population, optimizer)
    ratio = found["edropout"] / found["plain"]
    print(f"{name:14} {batch:5} {population:3} {found['plain']:9.0f} {found['edropout']:9.0f} {ratio:8.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(SETTINGS), help="torchvision names")
    parser.add_argument("--batch", nargs="+", type=int, help="batch sizes; default by network")
    parser.add_argument("--population", nargs="+", type=int, default=[8], help="numbers of states")
    parser.add_argument("--rounds", type=int, default=7, help=f"measured turns, after {WARM_UP} to warm up")
    parser.add_argument("--optimizer", choices=["sgd", "adadelta"], default="sgd")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    parser.add_argument("--multiple-of", type=int, default=1, help="units that states keep of a layer")
    parser.add_argument("--cpu-time", action="store_true", help="processor time on one thread, for a busy machine")
    parser.add_argument("--run", type=float, metavar="KEPT", help="cost of whole runs down to this share instead")
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead of time")
    options = parser.parse_args()
    if options.memory:
        print("network        batch   S plain/MiB  edropout    ratio")
    elif options.run:
        print("network        batch budget        kept   macs  plain/ms   dense descent  frozen     run changes/s")
    else:
        print(
            "network        batch   S precision plain/ms   c-l/ms edropout   frozen   pruned"
            "    ratio   frozen   pruned    floor   frozen     kept   (ratios to the faster plain step)"
        )
    for name in options.models:
        for batch in options.batch or [SETTINGS.get(name, (32, 128))[1]]:
            if options.run:
                alone(measure_run, name, batch, options.run, options.rounds, options.optimizer, options.cpu_time)
                continue
            for population in options.population:
                if options.memory:
                    measure_memory(name, batch, population, options.optimizer)
                else:
                    how = options.rounds, options.optimizer, options.device, options.cpu_time
                    for precision in options.precision:
                        alone(measure, name, batch, population, *how, precision, options.multiple_of)


if __name__ == "__main__":
    if not KEEP_MEMORY.keys() <= os.environ.keys():  # glibc reads its settings at the start
        os.execve(sys.executable, sys.orig_argv, {**KEEP_MEMORY, **os.environ})
    main()
