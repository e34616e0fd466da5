"""Measures in what regular patterns are random dropout and in what they are not: one unit, pairs, the number kept.

Of 64 units (or tiles), by drawing: the drop rate over all, the deviation of the unit that is farthest from it in
standard errors, the variance of the number kept over that of independent coins, the correlation of neighbours and next
neighbours, and the root mean square over all pairs (for coins it is the error of the drawing).

python -m bench.approximate_statistics --draws 20000
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dropouts.approximate import Blocks, Rows, SomeBlocks, Tiles, maximum_entropy, searched
from dropouts.approximate.patterns import UnitPattern

UNITS, EPOCH = 64, 100  # Draws between two permutations.
Sampler = Callable[[float, torch.Generator], Iterator[Tensor]]


def coins(rate: float, generator: torch.Generator) -> Iterator[Tensor]:
    """Bernoulli dropout."""
    while True:
        yield torch.rand(UNITS, generator=generator) >= rate


def units(pattern: UnitPattern, *, permuted: bool = False) -> Sampler:
    """What a pattern keeps, as (units,) bool."""

    def draw(rate: float, generator: torch.Generator) -> Iterator[Tensor]:
        order = torch.arange(UNITS)
        while True:
            for _ in range(EPOCH):
                kept = torch.zeros(UNITS, dtype=torch.bool)
                kept[order[pattern.kept(pattern.draw(rate, generator), UNITS).units]] = True
                yield kept
            order = torch.randperm(UNITS, generator=generator) if permuted else order

    return draw


def tiles(pattern: Tiles) -> Sampler:
    """Which of 8 x 8 tiles a pattern keeps, row by row."""

    def draw(rate: float, generator: torch.Generator) -> Iterator[Tensor]:
        side = int(UNITS**0.5)
        while True:
            kept = torch.zeros(side, side, dtype=torch.bool)
            for rows, columns in pattern.tiling(pattern.draw(rate, generator), side, side).groups:
                kept[rows[:, None], columns] = True
            yield kept.flatten()

    return draw


SAMPLERS: dict[str, Sampler] = {
    "Bernoulli": coins,
    "rows": units(Rows()),
    "rows, maximum entropy": units(Rows(maximum_entropy)),
    "rows, published search": units(Rows(searched)),
    "blocks": units(Blocks()),
    "blocks, permuted": units(Blocks(), permuted=True),
    "8 or so of 16 blocks": units(SomeBlocks(16)),
    "tiles": tiles(Tiles(size=1)),
    "tiles, not staggered": tiles(Tiles(size=1, staggered=False)),
}


def statistics(masks: Tensor) -> list[float]:
    """The six numbers of the table from (draws, units) masks."""
    masks = masks.double()
    rate = 1 - masks.mean()
    error = (rate * (1 - rate) / len(masks)).sqrt()
    farthest = ((1 - masks.mean(0)) - rate).abs().max() / error
    spread = masks.sum(1).var() / (UNITS * rate * (1 - rate))
    pairs = torch.corrcoef(masks.t())
    away = pairs[~torch.eye(UNITS, dtype=torch.bool)]
    return [
        float(v)
        for v in (rate, farthest, spread, pairs.diag(1).mean(), pairs.diag(2).mean(), away.square().mean().sqrt())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.3, 0.5, 0.7])
    options = parser.parse_args()
    print("| rate | pattern | dropped | farthest unit | variance of the number | next to | one between | all pairs |")
    print("|--:|:--|--:|--:|--:|--:|--:|--:|")
    for rate in options.rates:
        for name, sampler in SAMPLERS.items():
            draws = sampler(rate, torch.Generator().manual_seed(0))
            found = statistics(torch.stack([next(draws) for _ in range(options.draws)]))
            dropped, farthest, *others = found
            print(
                f"| {rate} | {name} | {dropped:.4f} | {farthest:.1f} | " + " | ".join(f"{v:.2f}" for v in others) + " |"
            )


if __name__ == "__main__":
    main()
