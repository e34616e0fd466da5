"""How much the training loss rises if units are dropped: an energy with curvature, learned from the steps themselves.

Give a set of units a common gate t, which multiplies what they put out; t = 1 is the network as it is, t = 0 is without
them. With s = -dL/dt at t = 1, Taylor's series gives the rise of the loss from 1 to 0:

    L(0) - L(1) = s + 1/2 d2L/dt2 + ...

s is the criterion of Molchanov et al. (arXiv:1906.10771, there squared): minus the sum of parameter times gradient over
what the gate multiplies, of a filter the weight and bias of its batch norm. Its mean goes to zero as training
converges, and only noise is left. The second term is what LeCun et al. keep (Optimal brain damage, NeurIPS 1989). For
a loss that is a log-likelihood the expected second derivative is the Fisher information, and the spread over examples
of their gradients s_i estimates that: the empirical Fisher information, by which Theis et al. prune (arXiv:1801.05787).
A step sees the mean over its examples alone, s = 1/B sum of s_i; but Var s = Var s_i / B for independent examples, so
that B times the variance over *batches* estimates it at no cost:

    dE = m1 + B/2 (m2 - m1^2),    m1, m2 running means of s and s^2.

The variance of s_i takes the place of the mean of its square, which differs by m1^2, a part of the first-order term
that would count twice.

B is the number of examples behind one gradient and s must be that of their mean loss, whatever a loop makes of it:
`ExampleWeights` sees how much each example weighs in what was differentiated. With c = the sum of these weights and q =
that of their squares, s / c belongs to the mean loss and its variance is that of one example times q / c^2; hence
B = c^2 / q. For gradients of k batches of B0 that are added up, B = k B0, with the sum or the mean of their losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edropout.subnetworks import distributed


class ExampleWeights:
    """How much the examples weigh in the gradients that have been added up since these were last cleared."""

    def __init__(self) -> None:
        self._sum = self._squares = 0.0

    def watch(self, loss: Any, examples: int, parameters: Sequence[nn.Parameter], *, summed: bool) -> None:
        """Has the backward of a loss counted.

        Args:
            loss: A scalar, or a tensor with an entry for each example.
            examples: Their number.
            parameters: Those of the network; while none has a gradient, nothing has been added up.
            summed: True if a scalar is the sum over the examples, not their mean.
        """
        if not (isinstance(loss, Tensor) and loss.requires_grad):
            return

        def count(gradient: Tensor) -> None:
            gradients = (parameter.grad for parameter in parameters if parameter.grad is not None)
            if not any(bool(value.any()) for value in gradients):
                self._sum = self._squares = 0.0
            if gradient.ndim == 0:
                each = float(gradient.detach()) * (1.0 if summed else 1 / examples)
                self._sum, self._squares = self._sum + examples * each, self._squares + examples * each**2
            else:
                weights = gradient.detach().double().reshape(len(gradient), -1).sum(1)
                self._sum += float(weights.sum())
                self._squares += float(weights.square().sum())

        loss.register_hook(count)

    def found(self, scale: float) -> tuple[float, float]:
        """The weight c of all examples and their effective number B, of all ranks together; (0, 0) if none was seen.

        Args:
            scale: Of the gradient scaler, which has multiplied the loss and is out of the gradients again.
        """
        mine = torch.tensor([self._sum / scale, self._squares / scale**2], dtype=torch.float64)
        total, squares = distributed.average(mine).tolist()
        return (total, total**2 * distributed.ranks() / squares) if total and squares else (0.0, 0.0)


@dataclass(frozen=True)
class Moments:
    """Sums over the batches, the older ones fading, from which the running means come.

    A batch counts by its number of examples, so that a smaller last batch of an epoch is weighed as it should be.

    Attributes:
        seen: (2,) float64, batches and examples.
        sums: (2, moves) float64, of examples * s and of examples * s^2.
    """

    seen: Tensor
    sums: Tensor

    @classmethod
    def none(cls, moves: int, device: torch.device) -> Moments:
        """Before the first batch."""
        return cls(torch.zeros(2, dtype=torch.float64, device=device),
                   torch.zeros(2, moves, dtype=torch.float64, device=device))  # fmt: skip

    def after(self, gradients: Tensor, examples: float, memory: float) -> Moments:
        """With one more batch.

        Args:
            gradients: (moves,) s of each move, of the mean loss.
            examples: B.
            memory: Weight of what was before.
        """
        seen = self.seen.new_tensor([1.0, examples])
        weighed = examples * gradients.double()
        return Moments(memory * self.seen + seen, memory * self.sums + torch.stack([weighed, weighed * gradients]))

    def energies(self) -> Tensor:
        """dE of each move, the estimated rise of the mean training loss: (moves,) float64."""
        batches, examples = self.seen
        first, second = self.sums
        mean = first / examples
        of_one_example = (second - mean * first) / batches  # the mean of B (s - m1)^2
        return mean + of_one_example.clamp(min=0) / 2
