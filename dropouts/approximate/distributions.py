"""How often each period dp of a pattern is drawn, so that the mean drop rate is the wanted one.

A pattern of period dp keeps one unit (or tile) in dp, chosen by a uniform offset b in 0..dp-1, and so drops (dp-1)/dp.
Every function returns probabilities: (largest period,) float64, entry i for dp = i + 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dropouts.checks import check_rate


def dropped(largest: int) -> Tensor:
    """Share of the units that each period drops: (dp - 1) / dp for dp = 1..largest."""
    return 1 - 1 / torch.arange(1, largest + 1, dtype=torch.float64)


def least_variance(rate: float) -> Tensor:
    """The one period that drops `rate`, or the two neighbours around it, which is exact.

    Of all distributions with this mean it has the least variance of the number of units that are kept, and the least
    E[1/dp^2], the cost of a product with both sides sliced.
    """
    check_rate(rate)
    period = int(1 / (1 - rate) + 1e-9)
    low, high = dropped(period + 1)[-2:].tolist()
    share = max(0.0, (rate - low) / (high - low))
    probabilities = torch.zeros(period + (share > 1e-9), dtype=torch.float64)
    probabilities[period - 1] = 1 - share
    if len(probabilities) > period:
        probabilities[period] = share
    return probabilities


def maximum_entropy(rate: float, largest: int = 16) -> Tensor:
    """The distribution of largest entropy over dp = 1..largest with this mean drop rate, exact.

    It has the form exp(t (dp-1)/dp); t is found by bisection.

    Raises:
        ValueError: `largest` is too small for the rate.
    """
    rates = _rates(rate, largest)
    if rate == 0:
        return torch.eye(largest, dtype=torch.float64)[0]
    low, high = -1e4, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        mean = float(torch.softmax(middle * rates, 0) @ rates)
        low, high = (middle, high) if mean < rate else (low, middle)
    return torch.softmax((low + high) / 2 * rates, 0)


def searched(rate: float, largest: int = 16, *, accuracy: float = 0.95, steps: int = 1000, lr: float = 5.0) -> Tensor:
    """The published search: gradient descent on the logits of the distribution (Song et al., arXiv:1805.08939).

    It minimises accuracy * (d.r - rate)^2 + (1 - accuracy) * mean(d log d), where r are the drop rates of the periods.
    The second term pulls the mean drop rate away from the target. The weights, the number of periods and the descent's
    steps are not published; these are the suite's.

    Raises:
        ValueError: `largest` is too small for the rate.
    """
    rates = _rates(rate, largest)
    logits = torch.zeros(largest, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=lr)
    with torch.enable_grad():
        for _ in range(steps):
            log = torch.log_softmax(logits, 0)
            loss = accuracy * (log.exp() @ rates - rate) ** 2 + (1 - accuracy) * (log.exp() * log).mean()
            (logits.grad,) = torch.autograd.grad(loss, logits)
            optimizer.step()
    return torch.softmax(logits.detach(), 0)


def _rates(rate: float, largest: int) -> Tensor:
    check_rate(rate)
    if rate >= (highest := 1 - 1 / largest):
        raise ValueError(f"periods up to {largest} drop less than {highest:.4g}: rate {rate} needs a larger `largest`")
    return dropped(largest)
