"""Dropout on a hidden layer: its regulariser, and the gap that follows it (Arora, Bartlett, Mianjy & Srebro, 2021).

ICML, arXiv:2003.03397, the part on deep networks. Images are mapped to one-hot classes by U relu(W x + b) under the
squared loss, with dropout on the hidden units a; it keeps with rate t, and lam = (1 - t) / t.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pandas
import scipy.stats
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from dropouts.bernoulli import Bernoulli
from harness.sources import idx
from theory.experiment import Data, Experiment, Verdict, largest_step, tidy, values

KEEP_RATES = (0.3, 0.5, 0.7, 0.9, 1.0)
SEEDS = (1, 2)
HIDDEN, EPOCHS, BATCH, RATE = 256, 40, 50, 0.05
TRAIN_EXAMPLES = 2000
"""Few enough for a gap."""
PASSES = 100


@dataclass(frozen=True)
class Images:
    """x (examples, pixels), and y (examples, classes) one-hot."""

    x: Tensor
    y: Tensor


def loss(network: nn.Module, images: Images) -> Tensor:
    """Squared distance from the one-hot classes, mean over examples."""
    return (network(images.x) - images.y).square().sum(1).mean()


def regulariser(network: nn.Sequential, x: Tensor) -> Tensor:
    """sum_i ||u_i||^2 E a_i^2 over hidden units: output weights u_i, and activations a_i on x (examples, pixels)."""
    layer, activation, _, output = network
    return output.weight.square().sum(0) @ activation(layer(x)).square().mean(0)


# Statements


def loss_is_explicit(rows: pandas.DataFrame) -> Verdict:
    """The expected loss under dropout is the loss without it plus lam sum_i ||u_i||^2 E a_i^2.

    Source: the abstract's explicit form for the squared loss; masks are independent.
    Observed: at every rate, a mean over masks agrees with the closed form within 1 %.
    Refuted by: a difference that more masks do not shrink.
    """
    apart = values(rows, "monte_carlo", "keep_rate") / values(rows, "closed_form", "keep_rate") - 1
    return Verdict("largest |Monte Carlo / closed form - 1|", apart.abs().max(), high=0.01)


def regulariser_falls(rows: pandas.DataFrame) -> Verdict:
    """The more is dropped, the smaller is the regulariser of the trained network.

    Source: the abstract, by which dropout penalises it.
    Observed: sum_i ||u_i||^2 E a_i^2, a mean over seeds, falls from each drop rate to the next higher one.
    Refuted by: a regulariser that grows.
    """
    step = largest_step(values(rows, "regulariser", "keep_rate")[::-1])
    return Verdict("largest regulariser / that at the drop rate before", step, low=0, high=1)


def gap_shrinks(rows: pandas.DataFrame) -> Verdict:
    """The more is dropped, the smaller is the gap between test and training loss.

    Source: the abstract, by which the regulariser controls the Rademacher complexity.
    Observed: the gap, a mean over seeds, falls from each drop rate to the next higher one.
    Refuted by: a gap that grows.
    """
    step = largest_step(values(rows, "gap", "keep_rate")[::-1])
    return Verdict("largest gap / gap at the drop rate before", step, low=0, high=1)


def gap_follows_regulariser(rows: pandas.DataFrame) -> Verdict:
    """The gap follows the regulariser.

    Source: as above.
    Observed: over all networks, Spearman's correlation of both is above 0.8.
    Refuted by: a correlation below.
    """
    gap, penalty = (values(rows, name, ["keep_rate", "seed"]) for name in ("gap", "regulariser"))
    return Verdict("Spearman's correlation", scipy.stats.spearmanr(gap, penalty).statistic, low=0.8)


# Measurements


def read(source: str, data: Data, seed: int) -> tuple[Images, Images]:
    """Some training images, chosen by the seed, and all test images; the mean image of the former is taken off both.

    Raises:
        DataError: the files are not there, or are not those that were published.
    """
    published = idx.read(source, data.root, download=data.download)
    train, test = published.parts["train"], published.parts["test"]
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:TRAIN_EXAMPLES]
    x, test_x = (images.flatten(1).float() / 255 for images in (train.images[chosen], test.images))
    y, test_y = (one_hot(labels, len(published.class_names)).float() for labels in (train.labels[chosen], test.labels))
    mean = x.mean(0)
    return Images(x - mean, y), Images(test_x - mean, test_y)


def train(images: Images, keep_rate: float, seed: int) -> nn.Sequential:
    """A network after SGD, whose learning rate stays for half of the epochs and then falls to zero."""
    generator = torch.Generator().manual_seed(seed)
    layers = [nn.Linear(images.x.shape[1], HIDDEN), nn.Linear(HIDDEN, images.y.shape[1])]
    for layer, gain in zip(layers, (2, 1), strict=True):
        nn.init.normal_(layer.weight, std=(gain / layer.in_features) ** 0.5, generator=generator)
        nn.init.zeros_(layer.bias)
    network = nn.Sequential(layers[0], nn.ReLU(), Bernoulli(1 - keep_rate, generator=generator), layers[1])
    optimizer = torch.optim.SGD(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: min(1, 2 - 2 * epoch / EPOCHS))
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images.x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            loss(network, Images(images.x[batch], images.y[batch])).backward()
            optimizer.step()
        schedule.step()
    return network


@torch.no_grad()
def describe(network: nn.Sequential, keep_rate: float, images: Images, test: Images) -> dict[str, float]:
    """What a trained network is like; its expected loss is a mean over `PASSES` of the training images."""
    drawn = sum(loss(network.train(), images).item() for _ in range(PASSES)) / PASSES
    train_loss, test_loss = (loss(network.eval(), part).item() for part in (images, test))
    added = regulariser(network, images.x).item()
    wrong = network(test.x).argmax(1) != test.y.argmax(1)
    return {
        "monte_carlo": drawn,
        "closed_form": train_loss + (1 - keep_rate) / keep_rate * added,
        "regulariser": added,
        "train_loss": train_loss,
        "test_loss": test_loss,
        "gap": test_loss - train_loss,
        "test_error": wrong.float().mean().item(),
    }


def measure(data: Data, *, source: str) -> pandas.DataFrame:
    """What training with dropout ends at, for each rate and seed."""
    rows = []
    for seed in SEEDS:
        images, test = read(source, data, seed)
        for keep_rate in KEEP_RATES:
            network = train(images, keep_rate, seed)
            rows.append({"keep_rate": keep_rate, "seed": seed, **describe(network, keep_rate, images, test)})
    return tidy(rows, "keep_rate", "seed")


EXPERIMENTS = tuple(
    Experiment(
        source,
        partial(measure, source=source),
        (loss_is_explicit, regulariser_falls, gap_shrinks, gap_follows_regulariser),
    )
    for source in ("mnist", "fashion")
)
