"""Sparse variational dropout: weights that are noise only are pruned."""

from __future__ import annotations

from torch import Tensor, nn

from dropouts import SparseVariational, kept_share, penalty, plain, replace, switch_off
from harness.training.position import Position
from harness.training.task import Task


def fit(
    model: nn.Module,
    task: Task,
    *,
    log_variance: float = -10.0,
    threshold: float = 3.0,
    pruned_in_training: bool = True,
    warm_up: tuple[float, float] = (0.025, 0.1),
) -> nn.Module:
    """Train `model` with a noise variance for each weight; what is noise only is pruned (arXiv:1701.05369).

    Args:
        model: A freshly initialised network. Its own dropout modules are switched off.
        task: Data, recipe and loop.
        log_variance: Where the log noise variances start.
        threshold: Weights of log alpha from here on are pruned.
        pruned_in_training: Leave them out of the mean while training too, as the authors' LeNet scripts do.
        warm_up: The penalty is off before the first fraction of the training, whole from the second on, linear between:
            epochs 5 and 20 of 200 in the authors' scripts.

    Returns:
        The trained network, of the plain architecture, with exact zeros.

    Raises:
        ValueError: no linear layer and no convolution.
    """
    model = replace(
        switch_off(model),
        lambda layer: SparseVariational(
            layer, log_variance=log_variance, threshold=threshold, pruned_in_training=pruned_in_training
        ),
        (nn.Linear, nn.Conv2d),
    )
    position, (start, end) = Position(task), warm_up

    def loss(x: Tensor, y: Tensor) -> Tensor:
        weight = min(1.0, max(0.0, (float(position) - start) / (end - start)))
        return task.loss(model(x), y) + weight * penalty(model) / task.examples

    options = {"step": position.step, "state": {"position": position}}
    return plain(
        task.also_sampled(task.train(model, loss=loss, columns=lambda: {"kept_share": kept_share(model)}, **options))
    )
