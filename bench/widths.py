"""Prints what filling the widths of a pruned network up to multiples costs in parameters and saves in milliseconds.

The state keeps a random half of the units, as the paper's search does at its start. Steps and forward passes of all
widths take turns in one process.

python -m bench.widths --models resnet18 --precision float32 bfloat16
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

import torch

from bench.edropout_step import SETTINGS, autocast, medians, network, plain_step
from edropout import EDropout
from edropout.subnetworks.macs import mac_count
from harness.runs.supervisor import KEEP_MEMORY


def forward(model: torch.nn.Module, x: torch.Tensor, precision: str) -> Callable[[], None]:
    """A forward pass in train mode without gradients; batch norm by the batch, as in a candidate."""

    def run() -> None:
        with torch.no_grad(), autocast(x, precision):
            model(x)

    return run


def measure(name: str, batch: int, multiples: list[int], rounds: int, precision: str) -> None:
    """Prints one line for each multiple; the ratios are to the dense network."""
    torch.set_num_threads(1)
    side = SETTINGS.get(name, (32, 128))[0]
    torch.manual_seed(0)
    model = network(name)
    x, y = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last), torch.randint(10, (batch,))
    search = EDropout(model, example=x)
    search.freeze()
    engine, kept = search._seen_engine(), search.units.kept(search.best_state)
    networks = {"dense": model, **{str(m): search.prune(multiple_of=m).train() for m in multiples}}
    plans = {"dense": engine.structure.plan({})}
    plans |= {str(m): engine.structure.plan(kept, multiple_of=m) for m in multiples}
    steps = {}
    for key, each in networks.items():
        each.to(memory_format=torch.channels_last)
        steps[f"{key} step"] = plain_step(each, x, y, "sgd", precision)
        steps[f"{key} forward"] = forward(each, x, precision)
    found = medians(steps, rounds, time.process_time)
    macs = {key: mac_count(engine.structure.graph, engine.modules, plan) for key, plan in plans.items()}
    sizes = {key: sum(parameter.numel() for parameter in each.parameters()) for key, each in networks.items()}
    for key in networks:
        step, run = found[f"{key} step"], found[f"{key} forward"]
        print(
            f"{name:14} {batch:5} {precision:9} {key:>6} {sizes[key] / sizes['dense']:10.3f} "
            f"{macs[key] / macs['dense']:6.3f} {1e3 * step:8.1f} {step / found['dense step']:6.3f} {1e3 * run:8.1f} "
            f"{run / found['dense forward']:6.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet18"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--multiples", nargs="+", type=int, default=[1, 8, 16, 32])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    options = parser.parse_args()
    print("network        batch precision  width parameters   MACs  step/ms  ratio  forw/ms  ratio")
    for name in options.models:
        for precision in options.precision:
            measure(name, options.batch, options.multiples, options.rounds, precision)


if __name__ == "__main__":
    if not KEEP_MEMORY.keys() <= os.environ.keys():  # glibc reads its settings at the start
        os.execve(sys.executable, sys.orig_argv, {**KEEP_MEMORY, **os.environ})
    main()
