"""Draws how often a candidate that beats its parent does so on the whole training set, while a network is trained.

python -m bench.signs --out docs/signs.png

The paper's population (ResNet-8, scikit-learn's digits, batches of 64, no freeze). At every twentieth step each state
and its candidate are measured three times: as the search does it, the candidate on this batch against the energy of the
batch on which its parent was born; both on this batch; and, the truth, both on all training examples. Pairs of equal
states do not count. Printed are, for a quarter of the training each, the share of pairs of equal sign, of both kinds,
the share of candidates that each kind accepts, and the share of the truly better among these.
"""

from __future__ import annotations

import argparse

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor

from bench.credit import BATCH, TRAINED_ON
from edropout import EDropout
from harness.networks.build import build

EVERY, QUARTERS = 20, 4


def differences(seed: int, steps: int, x: Tensor, y: Tensor) -> Tensor:
    """Candidate's energy minus its parent's: (looks, 3, population_size), stored, fresh, true."""
    torch.manual_seed(seed)
    search = EDropout(
        build("resnet8", num_classes=10, input_shape=(1, 8, 8)), freeze_epoch=None, seed=seed, example=x[:2]
    )
    optimizer = torch.optim.SGD(search.model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    generator, found = torch.Generator().manual_seed(seed), []
    for step in range(steps):
        batch = torch.randint(len(x), (BATCH,), generator=generator)
        engine = search._engine_for(x[batch])
        parents, stored, measure, seen = search.population.clone(), search.energies.clone(), engine.energies, []

        def watched(states: Tensor, *data: Tensor, known: tuple | None, measure=measure, seen=seen) -> Tensor:
            energies = measure(states, *data, known=known)
            seen.append((states[-search.candidates_per_step :], energies[-search.candidates_per_step :]))
            return energies

        engine.energies = watched
        loss = search.loss(x[batch], y[batch])
        engine.energies = measure
        if search.frozen:
            raise SystemExit(f"the population of seed {seed} has converged at step {step}: give fewer --steps")
        if step and step % EVERY == 0:
            candidates, energies = seen[0]
            both = torch.cat([parents, candidates])
            rows = [energies - stored]
            for examples in (batch, slice(None)):
                before, after = measure(both, x[examples], y[examples], known=None).chunk(2)
                rows.append(after - before)
            found.append(torch.stack([row.double() for row in rows]).detach())
        optimizer.zero_grad()
        loss.backward()
        search.step(optimizer)
    return torch.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=401)
    parser.add_argument("--out", default="signs.png")
    options = parser.parse_args()
    digits = load_digits()
    x = torch.tensor(digits.images[:TRAINED_ON, None], dtype=torch.float32) / 16
    y = torch.tensor(digits.target[:TRAINED_ON])
    looks = torch.stack([differences(seed, options.steps, x, y) for seed in options.seeds], 1)
    agreed: dict[str, list[float]] = {"stored": [], "fresh": []}
    print("until step kind    agreement accepted  truly better among them")
    for quarter, part in enumerate(looks.chunk(QUARTERS), 1):
        apart = part.movedim(2, 0).flatten(1)  # looks, seeds, kinds, states
        stored, fresh, true = apart[:, apart[2] != 0] < 0
        for name, says in (("stored", stored), ("fresh", fresh)):
            agreed[name].append(100 * float((says == true).double().mean()))
            right = float(true[says].double().mean())
            until = (options.steps - 1) * quarter // QUARTERS
            print(f"{until:10} {name:7} {agreed[name][-1]:8.0f}% {float(says.double().mean()):8.2f} {right:10.2f}")
    figure = Figure(figsize=(4, 2.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    for (name, percent), color, marker in zip(agreed.items(), ("#c4622d", "#1f5a99"), "so", strict=True):
        until = [(options.steps - 1) * quarter // QUARTERS for quarter in range(1, QUARTERS + 1)]
        ax.plot(until, percent, marker=marker, color=color, label=f"parent's energy {name}")
    ax.axhline(50, color="0.7", linewidth=0.6, zorder=0)
    ax.set_ylim(40, 100)
    ax.set_xlabel("steps, until")
    ax.set_ylabel("signs that agree (%)")
    ax.legend(frameon=False, fontsize=8)
    figure.savefig(options.out)


if __name__ == "__main__":
    main()
