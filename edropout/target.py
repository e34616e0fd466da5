"""Control of the pruning rate: a gradual descent from the full network to a target share of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edropout.subnetworks.units import Units


@dataclass(frozen=True)
class Target:
    """Where the search has to end and how it gets there; the paper has no such control.

    The full network is trained for `warm_up` batches. Over the next `steps` batches the share of parameters falls from
    1 to `kept` along a cubic curve (Zhu & Gupta, arXiv:1710.01878), fast at first, in `stages` equal times. All states
    hold the number of units of their stage: of what evolution proposes, the units of highest priority stay, where
    priority adds up how the unit's score ranks in the network, whether evolution proposed it, and noise.

    Attributes:
        kept: Physical share of parameters to keep at the end, in (0, 1].
        warm_up: Batches before the first unit is dropped.
        steps: Batches of the descent.
        stages: Number of times at which the share falls.
        informed: Score units by the gradient of the training loss with respect to their state (a first-order estimate
            of what dropping them costs); False scores all units alike.
        memory: Weight of the past in the moving average of the scores.
        proposed: Priority that evolution's proposal adds; the ranks run from 0 to 1.
        noise: Standard deviation of the noise in the priority.
    """

    kept: float
    warm_up: int
    steps: int
    stages: int = 20
    informed: bool = True
    memory: float = 0.98
    proposed: float = 0.1
    noise: float = 0.03

    def __post_init__(self) -> None:
        if not 0 < self.kept <= 1:
            raise ValueError(f"the target's kept share must be in (0, 1], not {self.kept}")
        if self.warm_up < 0 or self.steps < 1 or self.stages < 1:
            raise ValueError("the target needs warm_up >= 0, steps >= 1 and stages >= 1")
        if not 0 <= self.memory < 1 or self.noise < 0:
            raise ValueError("the target needs a memory in [0, 1) and noise >= 0")

    def stage(self, step: int) -> int:
        """Stage of a batch: 0 in the warm-up, `stages` once the descent is over."""
        if step < self.warm_up:
            return 0
        return min(1 + (step - self.warm_up) * self.stages // self.steps, self.stages)

    def share(self, stage: int) -> float:
        """Share of parameters at a stage."""
        return self.kept + (1 - self.kept) * (1 - stage / self.stages) ** 3


def unit_scores(
    units: Units, modules: dict[str, nn.Module], partners: dict[str, list[str]], counted: Container[nn.Parameter]
) -> Tensor:
    """First-order estimate of how much the loss rises if a unit is dropped: minus its gradient times its value.

    A filter's gate scales the weight and bias of its batch norm, or its own weight and bias where it has none; the
    gate of a linear layer's input scales its column. Gradients of the last backward are used, those of parameters
    that are `counted`; the scores of disjoint sets add up.

    Returns:
        (num_units,) float.
    """
    found = []
    for layer in units.sizes:
        module = modules[layer]
        score = module.weight.new_zeros(units.sizes[layer])
        owners = [modules[name] for name in partners.get(layer, [])] or [module]
        for parameter in [module.weight] if isinstance(module, nn.Linear) else _parameters(owners):
            if parameter.grad is not None and parameter in counted:  # None: it is not trained
                product = (parameter * parameter.grad).detach()
                rest = [axis for axis in range(product.ndim) if axis != int(isinstance(module, nn.Linear))]
                score -= product.sum(rest) if rest else product
        found.append(score)
    return torch.cat(found)


def _parameters(modules: list[nn.Module]) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters(recurse=False)]


def hold(states: Tensor, count: int, scores: Tensor, target: Target, generator: torch.Generator) -> Tensor:
    """Makes every state keep the `count` units of highest priority: (states, num_units) bool."""
    priority = _ranks(scores) + target.proposed * states
    if target.noise > 0:
        priority = priority + target.noise * torch.randn(states.shape, generator=generator, device=generator.device)
    best = priority.topk(count, dim=-1).indices
    return torch.zeros_like(states).scatter_(-1, best, True)


def count_for_share(share: float, num_units: int, measure: Callable[[int], float]) -> int:
    """Largest number of units whose network has at most `share` of the parameters, by bisection.

    Args:
        share: Share of parameters to reach.
        num_units: All units.
        measure: Share of parameters of the network that keeps a given number of units; never falls.
    """
    low, high = 1, num_units
    while low < high:
        middle = (low + high + 1) // 2
        if measure(middle) <= share:
            low = middle
        else:
            high = middle - 1
    # One unit more may lie closer to the target than the last one below it.
    if low < num_units and abs(measure(low + 1) - share) < abs(measure(low) - share):
        low += 1
    return low


def _ranks(scores: Tensor) -> Tensor:
    """Rank of each score among all, from 0 (lowest) to 1; equal scores have equal ranks."""
    ordered = scores.sort().values
    return torch.searchsorted(ordered, scores).float() / max(len(scores) - 1, 1)
