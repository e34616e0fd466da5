"""Beta-Bernoulli dropout: units that are hardly ever kept are pruned."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from dropouts import (
    Before,
    BetaBernoulli,
    DependentBetaBernoulli,
    kept_share,
    penalty,
    plain,
    put_before,
    switch_off,
    units_of,
)
from harness.training.task import Task


def fit(
    model: nn.Module,
    task: Task,
    *,
    alpha: Annotated[float, "(0, inf)"] = 1e-4,
    speed: Annotated[float, "(0, inf)"] = 10.0,
    dependent: bool = False,
) -> nn.Module:
    """Train `model` further with a keep rate for each unit; prune what is hardly ever kept (arXiv:1805.10896).

    Units are what linear layers and convolutions read, the values of the input too where a linear layer reads them, as
    in the authors' code.

    Args:
        model: The trained dense network. Its own dropout modules are switched off.
        task: Data, recipe and loop.
        alpha: First parameter of the beta prior.
        speed: How many times as fast as the weights the keep rates are learned, by Adam.
        dependent: Use half of what is left of the budget to learn what each input needs of the units that are kept.

    Returns:
        The trained network with exact zeros in what reads a pruned unit, of the plain architecture unless `dependent`.

    Raises:
        ValueError: no layer to act before.
    """

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return task.loss(model(x), y) + penalty(model) / task.examples

    def columns() -> dict[str, float]:
        return {"kept_share": kept_share(model)}

    put_before(
        switch_off(model),
        lambda reader: BetaBernoulli(units_of(reader), alpha=alpha, speed=speed),
        (nn.Linear, nn.Conv2d),
        inputs=True,
    )
    if dependent:
        task.train(model, epochs=task.epochs_left // 2, loss=loss, columns=columns)
        for place in [module for module in model.modules() if isinstance(module, Before)]:
            place.dropout = DependentBetaBernoulli(place.dropout)
        model.changed_by = {"method": "beta_bernoulli", "arguments": {"alpha": alpha, "speed": speed}}
    return plain(task.also_sampled(task.train(model, loss=loss, columns=columns)))


def change(model: nn.Module, *, alpha: float, speed: float) -> nn.Module:
    """`model` with the dependent version, for harness.networks to rebuild what it stored."""
    return put_before(
        model,
        lambda reader: DependentBetaBernoulli(BetaBernoulli(units_of(reader), alpha=alpha, speed=speed)),
        (nn.Linear, nn.Conv2d),
        inputs=True,
    )
