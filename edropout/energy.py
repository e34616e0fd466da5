"""Energies of a sub-network, one number for each example, low for a good one; the paper's is the margin.

Each takes the outputs and the targets of a batch; the search averages over the batch. An energy of your own is any
function of both that returns a number for each example.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Energy = Callable[[Any, Any], Tensor]


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """max over c != y of z_c - z_y: largest rival logit minus target logit, for class numbers.

    The "most offending answer" loss of Salehinejad & Valaee, arXiv:2006.04270; their code scales it by ten, which no
    selection sees. Adding a constant to all logits of a sample changes nothing.

    Args:
        logits: (..., batch, classes) float, at least two classes; less than float32 is computed in float32.
        target: (batch,) int64 class numbers.

    Returns:
        (..., batch) float.
    """
    logits = _precise(logits)
    chosen = target.expand(logits.shape[:-1]).unsqueeze(-1)
    rivals = logits.scatter(-1, chosen, -torch.inf).amax(-1)
    return rivals - logits.gather(-1, chosen).squeeze(-1)


def energy(logits: Tensor, target: Tensor) -> Tensor:
    """The paper's energy of a batch: mean of `margin`, (...) float for logits of (..., batch, classes)."""
    return margin(logits, target).mean(-1)


def soft_margin(logits: Tensor, target: Tensor) -> Tensor:
    """sum over y of p_y (max over c != y of z_c - z_y): the margin expected under soft labels, as mixup's.

    Args:
        logits: (batch, classes) float, at least two classes.
        target: (batch, classes) float, a distribution over classes for each example; one-hot gives `margin`.

    Returns:
        (batch,) float.
    """
    logits = _precise(logits)
    highest = logits.topk(2, dim=-1).values
    # The largest rival of the winner is the runner-up, that of any other class the winner.
    rivals = torch.where(logits == highest[:, :1], highest[:, 1:], highest[:, :1])
    return (target * (rivals - logits)).sum(-1)


def zero_margin(logits: Tensor, target: Tensor) -> Tensor:
    """mean over k of (1 - 2 t_k) z_k: how far each logit is on the wrong side of zero, for yes-or-no outputs.

    Args:
        logits: (batch,) or (batch, ...) float, one logit for each answer.
        target: As many of 0 and 1, or probabilities: the margin expected under them.

    Returns:
        (batch,) float.
    """
    return _of_each((1 - 2 * target) * _aligned(logits, target))


def dense_margin(logits: Tensor, target: Tensor, *, ignore_index: int = -100) -> Tensor:
    """Mean of `margin` over the pixels of each example that are not to be ignored; 0 if all are.

    Args:
        logits: (batch, classes, ...) float, as for a segmentation.
        target: (batch, ...) int64 class numbers.
        ignore_index: Target of pixels that do not count, as in torch.nn.functional.cross_entropy.

    Returns:
        (batch,) float.
    """
    counts = target != ignore_index
    each = margin(logits.movedim(1, -1).flatten(0, -2), target.masked_fill(~counts, 0).flatten())
    return _mean_where(each.view(target.shape), counts)


def squared_error(outputs: Tensor, target: Tensor) -> Tensor:
    """Mean of (output - target)^2 over the numbers of each example, for regression: (batch, ...) to (batch,) float."""
    return _of_each((_aligned(outputs, target) - target).square())


def token_loss(logits: Tensor, target: Tensor, *, ignore_index: int = -100) -> Tensor:
    """Mean of -log softmax(z)_y over the tokens of each sequence that are not to be ignored, the loss itself.

    Args:
        logits: (batch, length, classes) float.
        target: (batch, length) int64.
        ignore_index: Target of tokens that do not count.

    Returns:
        (batch,) float.
    """
    each = F.cross_entropy(
        _precise(logits).flatten(0, -2), target.flatten(), ignore_index=ignore_index, reduction="none"
    )
    return _mean_where(each.view(target.shape), target != ignore_index)


def of_output(which: int | str, energy: Energy) -> Energy:
    """The energy of one of several outputs: outputs[which] of a tuple or dictionary, as with auxiliary heads."""
    return lambda outputs, targets: energy(outputs[which], targets)


def batch_energy(energy: Energy) -> Callable[[Any, Any], Tensor]:
    """The mean of an energy over a batch, a scalar.

    Raises:
        ValueError: When it is called and `energy` does not return a number for each example.
    """

    def mean(outputs: Any, targets: Any) -> Tensor:
        found = energy(outputs, targets)
        if not isinstance(found, Tensor) or found.ndim != 1 or len(found) == 0:
            what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"the energy must return one number for each example, (batch,), not {what}")
        return _precise(found).mean(-1)

    return mean


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _aligned(outputs: Tensor, target: Tensor) -> Tensor:
    """The outputs in the shape of the targets: (batch, 1) and (batch,) would meet as (batch, batch)."""
    if outputs.shape[:1] != target.shape[:1] or outputs.numel() != target.numel():
        raise ValueError(f"outputs of shape {tuple(outputs.shape)} do not fit targets of shape {tuple(target.shape)}")
    return _precise(outputs).reshape(target.shape)


def _of_each(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def _mean_where(values: Tensor, counts: Tensor) -> Tensor:
    values, counts = values.flatten(1), counts.flatten(1)
    return values.masked_fill(~counts, 0).sum(1) / counts.sum(1).clamp(min=1)
