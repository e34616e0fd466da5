"""Draws what cheap credits of units say beside what dropping each unit does, and what each budget leaves of each layer.

python -m bench.allocation --out docs/allocation.png

Left: a dense ResNet-8 on scikit-learn's digits, as in bench.credit (200 steps, one seed); one point is one unit. Rank
correlations are in the titles; the vertical axis is linear near zero. Right: the share of each layer's units that a
descent by energies with curvature leaves at a tenth of the parameters, of the multiply-accumulates, and of both, after
100 dense steps and 200 of descent, as the mean of the seeds, which is printed too.
"""

from __future__ import annotations

import argparse

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor

from bench.credit import BATCH, TRAINED_ON, learned, measured_rises, norms
from edropout import EDropout, Target
from harness.networks.build import build

BUDGETS = {"parameters": (0.1, None), "MACs": (None, 0.1), "both": (0.1, 0.1)}
DENSE, DESCENT = 100, 200


def kept_of_layers(kept: float | None, kept_macs: float | None, seed: int, x: Tensor, y: Tensor) -> dict[str, float]:
    """Share of each layer's units that is left at the end of a descent, by layer, then those of parameters and MACs."""
    torch.manual_seed(seed)
    model, generator = build("resnet8", num_classes=10, input_shape=(1, 8, 8)), torch.Generator().manual_seed(seed)
    target = Target(kept, kept_macs=kept_macs, warm_up=DENSE, steps=DESCENT, by="curvature")
    search = EDropout(model, target=target, seed=seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    while not search.frozen:
        batch = torch.randint(len(x), (BATCH,), generator=generator)
        optimizer.zero_grad()
        search.loss(x[batch], y[batch]).backward()
        search.step(optimizer)
    layers = {layer: float(mask.double().mean()) for layer, mask in search.units.split(search.best_state).items()}
    whole = search.kept_ratio()
    return {**layers, "parameters": whole.physical, "MACs": whole.macs}


def scatter(ax: Axes, credit: Tensor, rises: Tensor, name: str) -> None:
    """One point for each unit."""
    ranks = credit.argsort().argsort() + 1
    ax.plot(ranks, rises, "o", markersize=2.5, alpha=0.5, markeredgewidth=0, color="#1f5a99")
    ax.axhline(0, color="0.7", linewidth=0.6, zorder=0)
    ax.set_yscale("symlog", linthresh=float(rises.abs().quantile(0.25)))
    ax.set_title(f"{name} ({spearmanr(credit, rises).statistic:.2f})", fontsize=8)
    ax.set_xlabel("rank of the credit", fontsize=8)
    ax.tick_params(labelsize=6)


def drawn(credits: dict[str, Tensor], rises: Tensor, shares: dict[str, dict[str, float]]) -> Figure:
    """The scatters side by side, and the layers."""
    figure = Figure(figsize=(10, 3), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(credits) + 1, width_ratios=[1] * len(credits) + [1.5])
    for ax, (name, credit) in zip(axes, credits.items(), strict=False):
        scatter(ax, credit, rises, name)
    axes[0].set_ylabel("measured rise of the loss", fontsize=8)
    last = axes[-1]
    for (name, found), color, marker in zip(shares.items(), ("#1f5a99", "#c4622d", "#4b8b3b"), "os^", strict=True):
        layers = [layer for layer in found if layer not in ("parameters", "MACs")]
        percent = [100 * found[layer] for layer in layers]
        last.plot(layers, percent, marker=marker, color=color, label=name, markersize=4, linewidth=1)
    last.set_ylim(bottom=0)
    last.set_ylabel("units that are left (%)", fontsize=8)
    last.tick_params(labelsize=6)
    last.tick_params(axis="x", rotation=60)
    last.legend(title="10 % of", fontsize=7, title_fontsize=7, frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", default="allocation.png")
    options = parser.parse_args()
    digits = load_digits()
    x = torch.tensor(digits.images[:TRAINED_ON, None], dtype=torch.float32) / 16
    y = torch.tensor(digits.target[:TRAINED_ON])
    shares = {}
    for name, (kept, kept_macs) in BUDGETS.items():
        each = [kept_of_layers(kept, kept_macs, seed, x, y) for seed in options.seeds]
        shares[name] = {layer: sum(found[layer] for found in each) / len(each) for layer in each[0]}
        print(f"{name:10}", *(f"{layer} {share:.2f}" for layer, share in shares[name].items()), flush=True)
    seed = options.seeds[0]
    torch.manual_seed(seed)
    search, moments = learned(build("resnet8", num_classes=10, input_shape=(1, 8, 8)), x, y, 200, seed)
    together = moments[2]
    credits = {
        "l1 norm": norms(search),
        "first order": together.sums[0] / together.seen[1],
        "curvature": together.energies(),
    }
    drawn(credits, measured_rises(search, x, y).detach(), shares).savefig(options.out)


if __name__ == "__main__":
    main()
