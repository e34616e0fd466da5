"""Trains an MLP on MNIST for the same time with and without approximate dropout, and draws the error against the time.

Every method has the same seconds of CPU time, on one thread; its learning rate is the best of a grid by the validation
at the end (one seed), and falls to a fifth at .6 and to a twenty-fifth at .85 of the time. What is drawn are the other
seeds. Evaluation does not count. Writes <out>.csv (every run) and <out>.png.

python -m bench.error_against_time --root data --out docs/error_against_time
python -m bench.error_against_time --methods none "blocks .5" --seeds 1 --seconds 5 --out /tmp/try
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional
from torchvision.datasets import MNIST

from bench.approximate_dropout import mlp
from dropouts.approximate import ApproximateDropout, Blocks, Rows, searched

PATTERNS: dict[str, tuple[float, Callable | None]] = {
    "none": (0.0, None),
    "nn.Dropout .5": (0.5, None),
    "rows .5, as published": (0.5, lambda: Rows(searched)),
    "blocks .5": (0.5, Blocks),
    "blocks .75": (0.75, Blocks),
}
RATES = (0.02, 0.05, 0.1)
POINTS = 10


def images(root: str, *, train: bool) -> tuple[Tensor, Tensor]:
    data = MNIST(root, train=train, download=not Path(root, "MNIST").exists())
    return data.data.flatten(1).float() / 255, data.targets


def run(name: str, width: int, lr: float, seed: int, seconds: float, data: dict[str, tuple]) -> Iterator[dict]:
    """Trains for so many seconds; yields errors in percent at equal distances."""
    rate, pattern = PATTERNS[name]
    torch.manual_seed(seed)
    network = mlp(width, rate)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, fused=True)
    approximate = ApproximateDropout(network, pattern=pattern()) if pattern else None
    (x, y), batches, spent, point, epochs = data["train"], iter(()), 0.0, 1, 0
    while point <= POINTS:
        started = time.process_time()
        if (batch := next(batches, None)) is None:
            if approximate and epochs:
                approximate.end_epoch(optimizer)
            batches, epochs = iter(torch.randperm(len(x)).split(128)), epochs + 1
            batch = next(batches)
        share = spent / seconds
        optimizer.param_groups[0]["lr"] = lr * (1 if share < 0.6 else 0.2 if share < 0.85 else 0.04)
        optimizer.zero_grad()
        functional.cross_entropy(network(x[batch]), y[batch]).backward()
        approximate.step(optimizer) if approximate else optimizer.step()
        spent += time.process_time() - started
        if spent >= point * seconds / POINTS:
            found = {part: error(network, *data[part]) for part in ("val", "test")}
            yield {
                "method": name,
                "lr": lr,
                "seed": seed,
                "seconds": point * seconds / POINTS,
                "epochs": epochs,
                **found,
            }
            point += 1


@torch.no_grad()
def error(network: nn.Module, x: Tensor, y: Tensor) -> float:
    network.eval()
    wrong = sum(int((network(a).argmax(1) != b).sum()) for a, b in zip(x.split(1000), y.split(1000), strict=True))
    network.train()
    return 100 * wrong / len(x)


def draw(rows: pandas.DataFrame, title: str) -> Figure:
    """Geometric mean of the test errors of the seeds, with its 95 % interval."""
    figure = Figure(figsize=(5.2, 3.4), dpi=150, layout="constrained")
    ax = figure.subplots()
    for name, part in rows.groupby("method", sort=False):
        by_time = part.assign(log=np.log(part["test"])).groupby("seconds")["log"]
        mean, count = by_time.mean(), by_time.count()
        half = stats.t.ppf(0.975, (count - 1).clip(lower=1)) * by_time.std().fillna(0) / count**0.5
        (line,) = ax.plot(mean.index, np.exp(mean), label=name)
        ax.fill_between(mean.index, np.exp(mean - half), np.exp(mean + half), color=line.get_color(), alpha=0.15, lw=0)
    ax.set(xlabel="seconds of CPU time", ylabel="test error (%)", title=title, yscale="log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter("{x:g}")
    ax.legend(frameon=False, fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder with MNIST/raw, as torchvision keeps it")
    parser.add_argument("--methods", nargs="+", choices=PATTERNS, default=list(PATTERNS))
    parser.add_argument("--examples", type=int, default=10_000, help="training images; 5,000 others are for validation")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seeds", type=int, default=3, help="besides the one that chooses the learning rate")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    x, y = images(options.root, train=True)
    data = {"train": (x[: options.examples], y[: options.examples]), "val": (x[-5000:], y[-5000:]),
            "test": images(options.root, train=False)}  # fmt: skip
    every: list[dict] = []
    for name in options.methods:
        tried = {lr: list(run(name, options.width, lr, 0, options.seconds, data)) for lr in RATES}
        chosen = min(tried, key=lambda lr: tried[lr][-1]["val"])
        runs = [list(run(name, options.width, chosen, s, options.seconds, data)) for s in range(1, options.seeds + 1)]
        every += [row for rows in [*tried.values(), *runs] for row in rows]
        last = [rows[-1] for rows in runs]
        errors = ", ".join(f"{row['test']:.2f}" for row in last)
        print(f"{name}: lr {chosen}, {last[0]['epochs']} epochs, test error {errors}", flush=True)
        table = pandas.DataFrame(every)
        table.to_csv(options.out.with_suffix(".csv"), index=False, float_format="%.6g")
    title = f"MNIST, {options.examples:,} images, 784-{options.width}-{options.width}-10"
    FigureCanvasAgg(draw(table[table["seed"] > 0], title)).print_png(options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
