"""Regression: one number for each row of a table, squared error, RMSE and Gaussian log-likelihood."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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
    validation set itself, takes its own.

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
    details = ("noise_std",)
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

    def chance(self, train: Tensor, test: Tensor) -> float:
        """RMSE of the training targets' mean."""
        return self.scale * (test.double() - train.double().mean()).square().mean().sqrt().item()

    def objections(self, evaluation: Mapping[str, float]) -> Iterator[str]:
        if not {"log_likelihood", "noise_std"} <= evaluation.keys() or evaluation["noise_std"] <= 0:
            return
        expected = log_likelihood(evaluation["rmse"], evaluation["noise_std"])
        if abs(evaluation["log_likelihood"] - expected) > 1e-6 * (1 + abs(expected)):
            yield (
                f"log_likelihood = {evaluation['log_likelihood']} is not that of rmse = {evaluation['rmse']} under "
                f"noise_std = {evaluation['noise_std']}"
            )


def log_likelihood(rmse: float, noise: float) -> float:
    """Mean of log N(y; output, noise^2) over rows whose root mean squared error is `rmse`."""
    return -0.5 * math.log(2 * math.pi * noise**2) - 0.5 * (rmse / noise) ** 2


KIND = Regression()
