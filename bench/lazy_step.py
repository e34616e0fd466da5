"""Measures what a lazy step of the optimiser does to momentum, decay and accuracy, beside the ordinary step.

Approximate dropout (blocks, permuted each epoch) of an MLP 64 - 256 - 256 - 10 on scikit-learn's 1,797 digits, of which
360 are the test set; both sides see the same batches and patterns. Mean and 95 % interval over seeds; the norm is that
of the middle weight at the end.

python -m bench.lazy_step --seeds 5
python -m bench.lazy_step --rates .5 --pattern fixed        blocks whose units stay in their places
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator

import torch
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from dropouts.approximate import ApproximateDropout, Blocks, Rows, SomeBlocks
from dropouts.approximate.patterns import Pattern

OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05),
    "SGD, momentum 0.9": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "SGD, momentum 0.9, decay 1e-2": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-2),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "AdamW, decay 1": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=1.0),
}

PATTERNS: dict[str, Pattern] = {
    "blocks": Blocks(),
    "fixed": Blocks(permuted=False),
    "rows": Rows(),
    "some": SomeBlocks(16),
}


def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    order = torch.randperm(len(data.data), generator=torch.Generator().manual_seed(0))
    return torch.tensor(data.data, dtype=torch.float32)[order] / 16, torch.tensor(data.target)[order]


def trained(
    seed: int, rate: float, make: Callable, epochs: int, pattern: Pattern, *, lazy: bool
) -> tuple[float, float]:
    """Test error in percent and the norm of the middle weight."""
    torch.manual_seed(seed)
    layers = [nn.Linear(64, 256), nn.ReLU(), nn.Dropout(rate), nn.Linear(256, 256), nn.ReLU(), nn.Dropout(rate)]
    network = nn.Sequential(*layers, nn.Linear(256, 10))
    x, y = digits()
    approximate = ApproximateDropout(network, pattern=pattern)
    optimizer = make(network.parameters())
    for _ in range(epochs):
        for batch in torch.randperm(len(x) - 360).split(64):
            functional.cross_entropy(network(x[batch]), y[batch]).backward()
            approximate.step(optimizer, lazy=lazy)
            optimizer.zero_grad()
        approximate.end_epoch(optimizer)
    network.eval()
    with torch.no_grad():
        wrong = (network(x[-360:]).argmax(1) != y[-360:]).float().mean()
    return 100 * float(wrong), float(network[3].weight.detach().norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5, 0.75])
    parser.add_argument("--pattern", choices=PATTERNS, default="blocks")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| rate | optimiser | test error, lazy | not lazy | norm, lazy | not lazy |\n|--:|:--|--:|--:|--:|--:|")
    for rate in options.rates:
        for name, make in OPTIMIZERS.items():
            columns = []
            for lazy in (True, False):
                runs = [
                    trained(seed, rate, make, options.epochs, PATTERNS[options.pattern], lazy=lazy)
                    for seed in range(options.seeds)
                ]
                errors, norms = zip(*runs, strict=True)
                half = stats.t.ppf(0.975, len(errors) - 1) * statistics.stdev(errors) / len(errors) ** 0.5
                columns.append((f"{statistics.mean(errors):.2f} ± {half:.2f}", f"{statistics.mean(norms):.1f}"))
            print(
                f"| {rate} | {name} | {columns[0][0]} | {columns[1][0]} | {columns[0][1]} | {columns[1][1]} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
