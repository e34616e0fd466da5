"""Dropout of features or of whole feature maps while training; the network itself is not changed."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor, nn

from dropouts import READERS, Bernoulli, Scheduled, early, late, plain, put_before, set_position, switch_off
from harness.training.position import Position
from harness.training.task import Task


def fit(
    model: nn.Module,
    task: Task,
    *,
    rate: Annotated[float, "[0, 1)"] = 0.5,
    spatial: bool = False,
    inputs: bool = False,
    schedule: Literal["constant", "early", "late"] = "constant",
    cutoff: Annotated[float, "(0, 1]"] = 1 / 6,
) -> nn.Module:
    """Train `model` with dropout on the hidden units that its layers read (Srivastava et al., JMLR 15, 2014).

    Args:
        model: A freshly initialised network. Its own dropout modules are switched off: `rate` is all there is.
        task: Data, recipe and loop.
        rate: Probability to drop a value; 0.5 is the paper's for hidden layers.
        spatial: Drop whole feature maps before the convolutions, except the one that reads the image (Tompson et al.,
            CVPR 2015, arXiv:1411.4280), instead of single features before the linear layers.
        inputs: Drop inputs of the network too if its first layer is linear, as Gal & Ghahramani (arXiv:1506.02142) do.
        schedule: "constant"; "early" lets the rate fall linearly to zero until `cutoff`; "late" starts there (Liu et
            al., ICML 2023, arXiv:2303.01500).
        cutoff: Where an early schedule ends and a late one starts, as a fraction of the training; the authors' command
            lines say 50 of 300 epochs.

    Returns:
        The trained network, of the plain architecture.

    Raises:
        ValueError: a rate outside [0, 1), an unknown schedule, a cutoff outside (0, 1], no layer to apply it to.
    """
    factors = {"constant": lambda position: 1.0, "early": early(cutoff), "late": late(cutoff)}
    if schedule not in factors:
        raise ValueError(f"schedule must be one of {', '.join(factors)}, not '{schedule}'")

    def make(reader: nn.Module) -> nn.Module:
        return Scheduled(Bernoulli(rate, spatial=spatial), factors[schedule])

    put_before(switch_off(model), make, nn.Conv2d if spatial else READERS, inputs=inputs)
    position = Position(task)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        set_position(model, float(position))
        return task.loss(model(x), y)

    return plain(task.also_sampled(task.train(model, loss=loss, step=position.step, state={"position": position})))
