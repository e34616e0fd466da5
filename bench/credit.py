"""Prints how well cheap credits of units agree with what dropping each unit alone does to the training loss.

python -m bench.credit --steps 200

The network is trained densely on scikit-learn's digits; from the last half of the steps the credits are learned, as a
descent learns them. The measured rise is that of the mean loss of all training examples, in train mode, without the
unit. Both columns are rank correlations: of a credit with that rise, and of what odd and even batches teach.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, nn

from edropout import EDropout, Target
from edropout.curvature import Moments
from edropout.target import unit_scores
from harness.networks.build import build

BATCH, TRAINED_ON = 64, 1400


def measured_rises(search: EDropout, x: Tensor, y: Tensor) -> Tensor:
    """Mean loss without each unit minus that of the whole network: (num_units,)."""
    engine, whole = search._seen_engine(), torch.ones(search.units.num_units, dtype=torch.bool)
    single = ~torch.eye(len(whole), dtype=torch.bool)
    engine.candidates.energy = F.cross_entropy
    losses = engine.energies(torch.cat([whole[None], single]), x, y, known=None)
    return losses[1:] - losses[0]


def norms(search: EDropout) -> Tensor:
    """l1 norm of each filter, or of the column of an input of the last layer."""
    modules, found = dict(search.model.named_modules()), []
    for layer in search.units.sizes:
        weight = modules[layer].weight.detach()
        found.append((weight.T if isinstance(modules[layer], nn.Linear) else weight).flatten(1).abs().sum(1))
    return torch.cat(found)


def learned(model: nn.Module, x: Tensor, y: Tensor, steps: int, seed: int) -> tuple[EDropout, list[Moments]]:
    """A search whose network was trained densely, and moments of the odd, the even and all batches of its last half."""
    search = EDropout(model, target=Target(0.5, warm_up=steps + 1, steps=1, by="curvature"), seed=seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    generator, found = torch.Generator().manual_seed(seed), [Moments.none(search.units.num_units, x.device)] * 3
    for step in range(steps):
        batch = torch.randint(len(x), (BATCH,), generator=generator)
        optimizer.zero_grad()
        search.loss(x[batch], y[batch]).backward()
        if step >= steps // 2:
            engine = search._seen_engine()
            gates = unit_scores(search.units, engine.modules, engine.structure.partners, set(model.parameters()))
            for place in (step % 2, 2):
                found[place] = found[place].after(gates, BATCH, memory=1.0)
        search.step(optimizer)
    return search, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    digits = load_digits()
    x = torch.tensor(digits.images[:TRAINED_ON, None], dtype=torch.float32) / 16
    y = torch.tensor(digits.target[:TRAINED_ON])
    print("seed credit        agreement reliability")
    for seed in options.seeds:
        torch.manual_seed(seed)
        model = build(options.model, num_classes=10, input_shape=(1, 8, 8))
        search, moments = learned(model, x, y, options.steps, seed)
        rises = measured_rises(search, x, y)
        credits = {
            "l1 norm": [norms(search)] * 3,
            "first order": [each.sums[0] / each.seen[1] for each in moments],
            "curvature": [each.energies() for each in moments],
        }
        for name, (odd, even, both) in credits.items():
            agreement, reliability = spearmanr(both, rises).statistic, spearmanr(odd, even).statistic
            print(f"{seed:4} {name:13} {agreement:9.2f} {reliability:11.2f}", flush=True)


if __name__ == "__main__":
    main()
