"""Two-layer ReLU networks trained with dropout reach test error eps in O(1 / eps) steps (Mianjy & Arora, NeurIPS 2020).

arXiv:2010.12711. SGD sees every example once; the loss is logistic, output weights stay, hidden units are dropped.
The abstract has the statements; the constants of the bound could not be read, and a bound cannot be shown to be tight.
It assumes a margin of the limiting kernel: a linear teacher with margin gamma gives it at least gamma / 2, since the
teacher may be the weight of every unit and half of the units are awake for any x.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy
import pandas
import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from dropouts.bernoulli import Bernoulli
from theory.experiment import Data, Experiment, Verdict, largest_step, tidy, values

DIMENSIONS = 20
STEPS = [2**power for power in range(6, 16)]
"""Where the test error is measured."""
COMPARED_UNTIL = 8192
"""The last of them where the margin or the width is another one."""
TAIL = 512
"""The first step at which a rate is judged."""
COMPARED = 1024
"""The step at which margins and widths are compared: later ones have no errors left for the largest margin."""
MARGIN, MARGINS = 0.03, (0.01, 0.03, 0.1)
WIDTH, WIDTHS = 512, (8, 32, 128, 512, 2048)
"""Hidden units; MARGIN and WIDTH stand where the other one is varied."""
PROBLEMS = 8
"""Teachers, networks and streams of examples, each by a seed of its own."""
KEEP_RATE = 0.5
RATE = 1.0
"""Learning rate."""
SUB_NETWORKS = 8
TEST_EXAMPLES = 10_000


def examples(teachers: Tensor, count: int, margin: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points of the unit sphere at least `margin` from the plane of their teacher, and the side that they lie on.

    Args:
        teachers: (problems, dimensions) unit vectors.
        count: Points for each.
        margin: Small enough that a third of the sphere is left.
        generator: Source of the points.

    Returns:
        x (problems, count, dimensions) and y (problems, count), 1 or -1.
    """
    points = []
    for teacher in teachers:
        x = normalize(torch.randn(4 * count + 100, len(teacher), generator=generator), dim=1)
        points.append(x[(x @ teacher).abs() >= margin][:count])
    x = torch.stack(points)
    return x, (x @ teachers[:, :, None]).squeeze(2).sign()


def train(x: Tensor, y: Tensor, signs: Tensor, w: Tensor, dropout: Bernoulli) -> Iterator[Tensor]:
    """Hidden weights after each step of SGD with one example; many problems side by side.

    Args:
        x: (problems, steps, dimensions).
        y: (problems, steps), 1 or -1.
        signs: (problems, width): the output weights, which stay.
        w: (problems, width, dimensions): the hidden weights at the start.
        dropout: Acts on the hidden units.
    """
    w = w.clone().requires_grad_()
    for point, side in zip(x.unbind(1), y.unbind(1), strict=True):
        hidden = dropout(torch.einsum("pwd,pd->pw", w, point).relu())
        [gradient] = torch.autograd.grad(softplus(-side * (signs * hidden).sum(1)).sum(), w)
        with torch.no_grad():
            w.sub_(gradient, alpha=RATE)
        yield w.detach()


def errors(w: Tensor, signs: Tensor, x: Tensor, y: Tensor, dropout: Bernoulli) -> dict[str, float]:
    """Test error of the full network and, a mean over some, of the sub-networks that masks leave."""
    hidden = torch.einsum("pwd,pnd->pnw", w, x).relu_()
    masks = [torch.ones_like(signs), *(dropout(torch.ones_like(signs)) for _ in range(SUB_NETWORKS))]
    full, *parts = (((hidden @ (signs * mask)[:, :, None]).squeeze(2) * y <= 0).float().mean().item() for mask in masks)
    return {"full": full, "sub": sum(parts) / len(parts)}


# Statements


def error_times_steps_is_bounded(rows: pandas.DataFrame) -> Verdict:
    """Steps times the test error stays bounded.

    Source: the abstract, O(1 / eps) iterations for test error eps.
    Observed: at the last step the product is below its largest value before.
    Refuted by: a product that still grows at the end.
    """
    return _bounded(_curve(rows, "full"))


def error_falls_like_one_over_steps(rows: pandas.DataFrame) -> Verdict:
    """The test error falls at least like one over the steps.

    Source: as above.
    Observed: over the tail, the slope of log error against log steps is at most -1.
    Refuted by: a slope above -1 that more steps do not mend.
    """
    return _slope(_curve(rows, "full"))


def sub_networks_are_bounded(rows: pandas.DataFrame) -> Verdict:
    """Steps times the test error stays bounded for random sub-networks too.

    Source: the paper's result for the networks that dropout samples.
    Observed and refuted: as for the full network.
    """
    return _bounded(_curve(rows, "sub"))


def sub_networks_fall_like_one_over_steps(rows: pandas.DataFrame) -> Verdict:
    """The test error of random sub-networks falls at least like one over the steps.

    Source: the paper's result for the networks that dropout samples.
    Observed and refuted: as for the full network.
    """
    return _slope(_curve(rows, "sub"))


def margin_helps(rows: pandas.DataFrame) -> Verdict:
    """The larger the margin, the smaller is the test error after the same number of steps.

    Source: the abstract, where a margin of the limiting kernel is what is assumed.
    Observed: the error falls from each margin to the next larger one.
    Refuted by: an error that grows with the margin.
    """
    return Verdict("largest error / error at the margin before", largest_step(_compared(rows, "margin")), low=0, high=1)


def width_helps(rows: pandas.DataFrame) -> Verdict:
    """The wider the network, the smaller is the test error after the same number of steps.

    Source: the abstract, where mild over-parametrisation is assumed.
    Observed: the error falls from each width to the next larger one.
    Refuted by: an error that width does not move, or that grows with it.
    """
    return Verdict("largest error / error at the width before", largest_step(_compared(rows, "width")), low=0, high=1)


def _curve(rows: pandas.DataFrame, network: str) -> pandas.Series:
    chosen = rows["margin"].eq(MARGIN) & rows["width"].eq(WIDTH) & rows["network"].eq(network)
    return values(rows[chosen], "test_error", "step")


def _compared(rows: pandas.DataFrame, varied: str) -> pandas.Series:
    fixed = rows["width"].eq(WIDTH) if varied == "margin" else rows["margin"].eq(MARGIN)
    return values(rows[fixed & rows["step"].eq(COMPARED) & rows["network"].eq("full")], "test_error", varied)


def _bounded(curve: pandas.Series) -> Verdict:
    product = curve * curve.index
    ratio = product.iloc[-1] / product.iloc[:-1].max()
    return Verdict("steps x error at the end / largest before", ratio, low=0, high=1)


def _slope(curve: pandas.Series) -> Verdict:
    tail = curve[(curve.index >= TAIL) & (curve > 0)]
    slope, _ = numpy.polyfit(numpy.log(tail.index), numpy.log(tail), 1)
    return Verdict(f"slope of log error from step {TAIL}", float(slope), high=-1)


# Measurements


def measure(data: Data) -> pandas.DataFrame:
    """Test errors during training, for one width and every margin and for one margin and every width."""
    rows, settings = [], [*((margin, WIDTH) for margin in MARGINS), *((MARGIN, width) for width in WIDTHS)]
    for margin, width in dict.fromkeys(settings):
        generator = torch.Generator().manual_seed(0)
        teachers = normalize(torch.randn(PROBLEMS, DIMENSIONS, generator=generator), dim=1)
        steps = STEPS[-1] if (margin, width) == (MARGIN, WIDTH) else COMPARED_UNTIL
        x, y = examples(teachers, steps, margin, generator)
        test = examples(teachers, TEST_EXAMPLES, margin, generator)
        signs = torch.empty(PROBLEMS, width).bernoulli_(0.5, generator=generator).mul_(2).sub_(1) / width**0.5
        w = torch.randn(PROBLEMS, width, DIMENSIONS, generator=generator)
        dropout = Bernoulli(1 - KEEP_RATE, generator=generator)
        for step, trained in enumerate(train(x, y, signs, w, dropout), 1):
            if step in STEPS:
                setting = {"margin": margin, "width": width, "step": step}
                found = errors(trained, signs, *test, dropout)
                rows += [setting | {"network": network, "test_error": error} for network, error in found.items()]
    return tidy(rows, "margin", "width", "step", "network")


EXPERIMENTS = (
    Experiment(
        "synthetic",
        measure,
        (
            error_times_steps_is_bounded,
            error_falls_like_one_over_steps,
            sub_networks_are_bounded,
            sub_networks_fall_like_one_over_steps,
            margin_helps,
            width_helps,
        ),
    ),
)
