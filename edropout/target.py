"""Control of the pruning rate: a gradual descent from the full network to a target share of its size or cost."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edropout.subnetworks.units import Units


@dataclass(frozen=True)
class Target:
    """Where the search has to end and how it gets there; the paper has no such control.

    The full network is trained for `warm_up` batches. Over the next `steps` batches what is left falls from 1 to `kept`
    along a cubic curve (Zhu & Gupta, arXiv:1710.01878), fast at first, in `stages` equal times. `by` says what is
    dropped at each of them:

    - "population": all states hold the number of units of their stage. Of what evolution proposes, the units of highest
      priority stay, where priority adds up how the unit's score ranks in the network, whether evolution proposed it,
      and noise.
    - "curvature": there are one state and no candidates. Its units go in the order of their energies with curvature
      (`edropout.curvature`), for what dropping them frees; the last stage freezes the state.
    - "lot": the same path with units drawn by lot, the same share of each layer: the control.

    Attributes:
        kept: Physical share of parameters to keep at the end, in (0, 1]; None to budget `kept_macs` alone.
        warm_up: Batches before the first unit is dropped.
        steps: Batches of the descent.
        stages: Number of times at which the share falls.
        kept_macs: Share of the multiply-accumulates to keep at the end, in (0, 1]; with `kept` both are held.
        by: What chooses: "population", "curvature" or "lot".
        power: With "curvature": moves go in ascending order of energy / freed^power, where `freed` is the share of what
            is budgeted that goes with the move now.
        summed: With "curvature": the training loss is the sum over the examples of a batch, not their mean.
        memory: Weight of the past in the moving averages, of scores and of what energies are made of.
        informed: With "population": score units by the gradient of the training loss with respect to their state (a
            first-order estimate of what dropping them costs); False scores all units alike.
        proposed: With "population": priority that evolution's proposal adds; the ranks run from 0 to 1.
        noise: With "population": standard deviation of the noise in the priority.
    """

    kept: float | None
    warm_up: int
    steps: int
    stages: int = 20
    informed: bool = True
    memory: float = 0.98
    proposed: float = 0.1
    noise: float = 0.03
    kept_macs: float | None = None
    by: Literal["population", "curvature", "lot"] = "population"
    power: float = 0.5
    summed: bool = False

    def __post_init__(self) -> None:
        for name, share in (("kept", self.kept), ("kept_macs", self.kept_macs)):
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"the target's {name} share must be in (0, 1], not {share}")
        if self.kept is None and self.kept_macs is None:
            raise ValueError("the target needs a share: of the parameters, kept=0.2, or kept_macs, or both")
        if self.warm_up < 0 or self.steps < 1 or self.stages < 1:
            raise ValueError("the target needs warm_up >= 0, steps >= 1 and stages >= 1")
        if not 0 <= self.memory < 1 or self.noise < 0 or self.power < 0:
            raise ValueError("the target needs a memory in [0, 1), noise >= 0 and power >= 0")
        if self.by not in ("population", "curvature", "lot"):
            raise ValueError(f"the target's by must be 'population', 'curvature' or 'lot', not {self.by!r}")
        if self.by == "curvature" and self.warm_up < 2:
            raise ValueError("energies with curvature are learned from batches: the target needs warm_up >= 2")

    @property
    def shares(self) -> dict[str, float]:
        """What is budgeted and the shares to reach; one of 1 beside another asks for nothing."""
        given = {"parameters": self.kept, "macs": self.kept_macs}
        some = {name: share for name, share in given.items() if share is not None}
        return {name: share for name, share in some.items() if share < 1} or dict([next(iter(some.items()))])

    @property
    def alone(self) -> bool:
        """True if there is one state, which no candidates rival."""
        return self.by != "population"

    def stage(self, step: int) -> int:
        """Stage of a batch: 0 in the warm-up, `stages` once the descent is over."""
        if step < self.warm_up:
            return 0
        return min(1 + (step - self.warm_up) * self.stages // self.steps, self.stages)

    def share(self, stage: int) -> float:
        """Share that is left at a stage, of what is budgeted first."""
        kept = next(iter(self.shares.values()))
        return kept + (1 - kept) * (1 - stage / self.stages) ** 3


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


def gates_that_are_trained(units: Units, modules: dict[str, nn.Module], partners: dict[str, list[str]]) -> Tensor:
    """True for units all of whose gate's parameters get gradients, so that their scores mean something.

    Returns:
        (num_units,) bool.
    """
    found = []
    for layer, size in units.sizes.items():
        module = modules[layer]
        owners = [modules[name] for name in partners.get(layer, [])] or [module]
        gates = [module.weight] if isinstance(module, nn.Linear) else _parameters(owners)
        found.append(torch.full((size,), all(parameter.requires_grad for parameter in gates)))
    return torch.cat(found)


def drawn_by_lot(units: Units, generator: torch.Generator) -> Tensor:
    """Scores whose k lowest are the same share of every layer, drawn without replacement: (num_units,) float."""
    device = generator.device
    return torch.cat([
        (torch.randperm(size, generator=generator, device=device) + 0.5) / size for size in units.sizes.values()
    ])  # fmt: skip


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
