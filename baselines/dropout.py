"""Dropout of features or of whole feature maps while training; the network itself is not changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.training.task import Task


def fit(
    model: nn.Module,
    task: Task,
    *,
    rate: Annotated[float, "[0, 1)"] = 0.5,
    spatial: bool = False,
    schedule: Literal["constant", "early", "late"] = "constant",
    cutoff: Annotated[float, "(0, 1]"] = 1 / 6,
) -> nn.Module:
    """Train `model` with dropout on what its layers read (Srivastava et al., JMLR 15, 2014).

    Args:
        model: A freshly initialised network. Its own dropout modules are off meanwhile: `rate` is all there is.
        task: Data, recipe and loop.
        rate: Probability to drop a value; 0.5 is the paper's for hidden layers.
        spatial: Drop whole feature maps before the convolutions, except the one that reads the image (Tompson et al.,
            CVPR 2015, arXiv:1411.4280), instead of single features before the linear layers.
        schedule: "constant"; "early" lets the rate fall linearly to zero until `cutoff`; "late" starts there (Liu et
            al., ICML 2023, arXiv:2303.01500).
        cutoff: Where an early schedule ends and a late one starts, as a fraction of the training; the authors' command
            lines say 50 of 300 epochs.

    Returns:
        The trained network, of the plain architecture.

    Raises:
        ValueError: a rate outside [0, 1), an unknown schedule, a cutoff outside (0, 1], no layer to apply it to.
    """
    dropout = ScheduledDropout(spatial, rate_of(schedule, rate, cutoff), task.epochs_left * len(task.train_loader))
    layers = layers_behind_dropout(model, spatial=spatial)

    def step(optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()
        dropout.steps += 1

    with attached(dropout, layers), own_dropout_off(model):
        return task.train(model, step=step, state={"dropout": dropout})


class ScheduledDropout:
    """Inverted dropout whose rate follows the training; off in evaluation mode.

    Args:
        spatial: Drop whole channels of (batch, channels, height, width).
        rate_at: Rate at a position in [0, 1) of the training.
        total: Number of training steps.
    """

    def __init__(self, spatial: bool, rate_at: Callable[[float], float], total: int) -> None:
        self.spatial, self.rate_at, self.total, self.steps = spatial, rate_at, total, 0

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        """A forward pre-hook of the layers that read dropped values."""
        drop = functional.dropout2d if self.spatial else functional.dropout
        return (drop(inputs[0], self.rate_at(self.steps / self.total), training=layer.training),)

    def state_dict(self) -> dict[str, int]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]


def rate_of(schedule: str, rate: float, cutoff: float) -> Callable[[float], float]:
    """The dropout rate as a function of the position in [0, 1) of the training.

    Raises:
        ValueError: see `fit`.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be at least 0 and less than 1, not {rate}")
    if not 0 < cutoff <= 1:
        raise ValueError(f"cutoff must be more than 0 and at most 1, not {cutoff}")
    rates = {
        "constant": lambda position: rate,
        "early": lambda position: rate * max(0.0, 1 - position / cutoff),
        "late": lambda position: rate if position >= cutoff else 0.0,
    }
    if schedule not in rates:
        raise ValueError(f"schedule must be one of {', '.join(rates)}, not '{schedule}'")
    return rates[schedule]


def layers_behind_dropout(model: nn.Module, *, spatial: bool) -> list[nn.Module]:
    """The linear layers, or the convolutions except the first, which reads the image.

    Raises:
        ValueError: there is none.
    """
    kind, first = (nn.Conv2d, 1) if spatial else (nn.Linear, 0)
    layers = [module for module in model.modules() if isinstance(module, kind)][first:]
    if not layers:
        wanted = "a second convolution" if spatial else "a linear layer"
        raise ValueError(f"dropout finds no place in {type(model).__name__}: it needs {wanted} to act before")
    return layers


@contextmanager
def attached(hook: Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]], layers: list[nn.Module]) -> Iterator[None]:
    """Have the layers' inputs pass through `hook`; nothing of it is left behind."""
    handles = [layer.register_forward_pre_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def own_dropout_off(model: nn.Module) -> Iterator[None]:
    """Set the rates of the architecture's own dropout modules to zero for a while."""
    own = [(module, module.p) for module in model.modules() if isinstance(module, nn.Dropout | nn.Dropout2d)]
    for module, _ in own:
        module.p = 0.0
    try:
        yield
    finally:
        for module, rate in own:
            module.p = rate
