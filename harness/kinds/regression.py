"""Regression: one number for each row of a table, squared error, RMSE and Gaussian log-likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.kinds import Kind, Metric

if TYPE_CHECKING:
    from torch import Tensor

LEAST_NOISE = 1e-6
"""Standard deviation of the noise, over that of the target, below which a fit counts as exact."""


@dataclass(frozen=True)
class Regression(Kind):
    """Outputs (batch, 1) against standardised targets y (batch, 1).

    The likelihood is Gaussian about the output with one variance for all rows: the mean squared error on the
    validation set, which maximises the likelihood there. An evaluation without a validation set beside it, that of the
    validation set itself, takes its own. Of several passes the output is their mean, and the likelihood that of the
    mixture of a Gaussian about each (Gal & Ghahramani, arXiv:1506.02142), whose variance is again what is best on the
    validation set.

    Attributes:
        scale: Standard deviation of the training targets, by which they were divided.
    """

    scale: float = 1.0

    name = "regression"
    main = Metric("rmse", "RMSE", low=0)
    metrics = (
        Metric("loss", "loss", low=0),
        main,
        Metric("log_likelihood", "log-likelihood", True, digits=3),
    )
    details = ("noise_std", "samples")
    sampled = True
    noun = "rows"
    sources = ("diabetes", "uci")
    caption = (
        "Loss: mean squared error of the standardised target; RMSE and log-likelihood: in the target's unit, of a row, "
        "under Gaussian noise whose variance is the mean squared error on the validation set."
    )

    def at_scale(self, scale: float) -> Regression:
        return Regression(scale)

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean squared error of standardised targets."""
        from torch.nn import functional

        return functional.mse_loss(outputs.view_as(y), y)

    def sums(self, outputs: Tensor, y: Tensor) -> dict[str, float]:
        return {"loss": (outputs.view_as(y) - y).double().square().sum().item()}

    def summary(self, means: Mapping[str, float], val: Mapping[str, float] | None = None) -> dict[str, float]:
        """`loss` as in training; in the target's unit `rmse`, `noise_std` and the mean `log_likelihood` of a row."""
        rmse = self.scale * math.sqrt(means["loss"])
        noise = max((val or {"rmse": rmse})["rmse"], LEAST_NOISE * self.scale)
        return {"loss": means["loss"], "rmse": rmse, "log_likelihood": log_likelihood(rmse, noise), "noise_std": noise}

    def pooled(self, outputs: Tensor) -> Tensor:
        """(batch, samples): all of them."""
        return outputs.squeeze(-1).T

    def predicted(
        self, pooled: Tensor, y: Tensor, val: Callable[[], tuple[Tensor, Tensor]] | None = None
    ) -> dict[str, float]:
        noise = best_noise(*(val() if val else (pooled, y)))
        loss = (pooled.double().mean(1, keepdim=True) - y).square().mean().item()
        likelihood = mixture_log_likelihood(pooled, y, noise) - math.log(self.scale)
        rmse = self.scale * math.sqrt(loss)
        return {
            "loss": loss,
            "rmse": rmse,
            "log_likelihood": likelihood,
            "noise_std": self.scale * noise,
        }

    def chance(self, train: Tensor, test: Tensor) -> float:
        """RMSE of the training targets' mean."""
        return self.scale * (test.double() - train.double().mean()).square().mean().sqrt().item()

    def objections(self, evaluation: Mapping[str, float]) -> Iterator[str]:
        known = {"log_likelihood", "noise_std"} <= evaluation.keys() and evaluation["noise_std"] > 0
        if not known or "samples" in evaluation:
            return  # Of a mixture the likelihood does not follow from the error of the mean.
        expected = log_likelihood(evaluation["rmse"], evaluation["noise_std"])
        if abs(evaluation["log_likelihood"] - expected) > 1e-6 * (1 + abs(expected)):
            yield (
                f"log_likelihood = {evaluation['log_likelihood']} is not that of rmse = {evaluation['rmse']} under "
                f"noise_std = {evaluation['noise_std']}"
            )


def log_likelihood(rmse: float, noise: float) -> float:
    """Mean of log N(y; output, noise^2) over rows whose root mean squared error is `rmse`."""
    return -0.5 * math.log(2 * math.pi * noise**2) - 0.5 * (rmse / noise) ** 2


def mixture_log_likelihood(outputs: Tensor, y: Tensor, noise: float) -> float:
    """Mean over rows of log (1/T) sum_t N(y; output_t, noise^2).

    Args:
        outputs: (rows, samples) of standardised targets.
        y: (rows, 1).
        noise: Standard deviation.
    """
    errors = (outputs.double() - y).square() / noise**2
    mixed = (-0.5 * errors).logsumexp(1).mean().item()
    return mixed - math.log(outputs.shape[1]) - 0.5 * math.log(2 * math.pi * noise**2)


def best_noise(outputs: Tensor, y: Tensor) -> float:
    """The standard deviation of the noise that makes the mixture likeliest; at least LEAST_NOISE.

    Where the likelihood is highest, the variance is a weighted mean of the squared errors of a row's passes, which
    weighs small ones more: it lies between the mean over rows of the least and that of all. The best point of a grid
    in between is refined, since the likelihood of a mixture may have several maxima.
    """
    import numpy
    from scipy.optimize import minimize_scalar

    def cost(exponent: float) -> float:
        return -mixture_log_likelihood(outputs, y, math.exp(exponent))

    errors = (outputs.double() - y).square()
    low = max(math.sqrt(errors.min(1).values.mean().item()), LEAST_NOISE)
    high = max(math.sqrt(errors.mean().item()), low)
    grid = numpy.linspace(math.log(low), math.log(high) + 1e-3, 20)
    best = int(numpy.argmin([cost(exponent) for exponent in grid]))
    around = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    return math.exp(float(minimize_scalar(cost, bounds=around, method="bounded").x))


KIND = Regression()
