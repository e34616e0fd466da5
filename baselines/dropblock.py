"""DropBlock: squares of feature maps are dropped."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from dropouts import DropBlock, Scheduled, plain, put_before, ramp, set_position, switch_off
from harness.training.position import Position
from harness.training.task import Task


def fit(
    model: nn.Module,
    task: Task,
    *,
    rate: Annotated[float, "[0, 1)"] = 0.1,
    block_size: Annotated[int, "[1, inf)"] = 7,
) -> nn.Module:
    """Train `model` with DropBlock before its convolutions, except the one that reads the image (arXiv:1810.12890).

    The rate rises linearly during the training, as in the paper, which drops in the last groups of ResNet-50.

    Args:
        model: A freshly initialised network. Its own dropout modules are switched off.
        task: Data, recipe and loop.
        rate: Drop rate at the end.
        block_size: Side of a block.

    Returns:
        The trained network, of the plain architecture.

    Raises:
        ValueError: a rate outside [0, 1), no second convolution.
    """
    put_before(switch_off(model), lambda reader: Scheduled(DropBlock(rate, block_size), ramp()), nn.Conv2d)
    position = Position(task)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        set_position(model, float(position))
        return task.loss(model(x), y)

    return plain(task.train(model, loss=loss, step=position.step, state={"position": position}))
