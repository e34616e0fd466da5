"""Prints what a training step costs with each dropout of the family, over one without: interleaved medians.

An MLP 784 - 800 - 800 - 10 on random images, batch 128, Adam: forward, penalty, backward, update. All take turns; in
each round a step is divided by the plain step of that round, and the ratio is the median over rounds. Processor time,
which other work on the machine moves less than the clock.

python -m bench.family_step
python -m bench.family_step --rounds 100 --threads 2
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

import dropouts
from dropouts import put_before, replace, units_of
from dropouts.approximate import ApproximateDropout

BATCH, UNITS = 128, 800
WARM_UP = 5

Change = Callable[[nn.Module], nn.Module]


def before(make: Callable[[nn.Module], nn.Module]) -> Change:
    """Layers in front of those that read hidden units."""
    return lambda network: put_before(network, make)


def instead(make: Callable[[nn.Module], nn.Module]) -> Change:
    """Layers in the place of all linear ones."""
    return lambda network: replace(network, make, nn.Linear)


CHANGES: dict[str, Change] = {
    "none": lambda network: network,
    "nn.Dropout": before(lambda layer: nn.Dropout(0.5)),
    "Bernoulli": before(lambda layer: dropouts.Bernoulli(0.5)),
    "Gaussian": before(lambda layer: dropouts.Gaussian(0.5)),
    "Uout": before(lambda layer: dropouts.Uout(0.1)),
    "Continuous": before(lambda layer: dropouts.Continuous()),
    "Advanced": before(lambda layer: dropouts.Advanced(units_of(layer))),
    "Standout": before(lambda layer: dropouts.Standout()),
    "Variational": before(lambda layer: dropouts.Variational(units_of(layer))),
    "VariationalWeights": instead(dropouts.VariationalWeights),
    "Concrete": instead(dropouts.Concrete),
    "DropConnect": instead(dropouts.DropConnect),
    "Information": before(lambda layer: dropouts.Information(nn.Identity(), nn.Linear(UNITS, UNITS))),
    "SparseVariational": instead(dropouts.SparseVariational),
    "VariationalBayesianWeights": instead(dropouts.VariationalBayesianWeights),
    "VariationalBayesian": before(lambda layer: dropouts.VariationalBayesian(units_of(layer))),
    "BetaBernoulli": before(lambda layer: dropouts.BetaBernoulli(units_of(layer))),
}


def network() -> nn.Sequential:
    layers = [nn.Linear(784, UNITS), nn.ReLU(), nn.Linear(UNITS, UNITS), nn.ReLU(), nn.Linear(UNITS, 10)]
    return nn.Sequential(*layers)


def step_of(change: Change, x: Tensor, y: Tensor) -> Callable[[], None]:
    """An ordinary step of a network that was changed."""
    torch.manual_seed(0)
    model = change(network()).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        (functional.cross_entropy(model(x), y) + dropouts.penalty(model) / 60_000).backward()
        optimizer.step()

    return step


def approximate_step(x: Tensor, y: Tensor) -> Callable[[], None]:
    """A step of approximate random dropout, which leaves out of the products what is dropped."""
    torch.manual_seed(0)
    layers = list(network())
    model = nn.Sequential(*layers[:2], nn.Dropout(0.5), *layers[2:4], nn.Dropout(0.5), *layers[4:])
    approximate, optimizer = ApproximateDropout(model), torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        approximate.step(optimizer)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    x, y = torch.rand(BATCH, 784), torch.randint(10, (BATCH,))
    steps = {name: step_of(change, x, y) for name, change in CHANGES.items()}
    steps["ApproximateDropout"] = approximate_step(x, y)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(options.rounds + WARM_UP):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if turn >= WARM_UP:
                times[name].append(time.process_time() - started)
    print("| layer | step over none | quartiles |\n| :-- | --: | --: |")
    for name, taken in times.items():
        ratios = [one / plain for one, plain in zip(taken, times["none"], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        print(f"| {name} | {median:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
