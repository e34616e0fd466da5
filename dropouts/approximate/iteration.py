"""One training iteration: what it keeps at each place, and the parts of parameters that its gradients go to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, overload

import torch
from torch import Tensor, nn

from dropouts.approximate.parts import Cut
from dropouts.approximate.patterns import Kept, Pattern, Tiles


@dataclass(frozen=True, eq=False)
class Place:
    """Where units are dropped: the name of the network's dropout module, the units there, their drop rate."""

    name: str
    width: int
    rate: float

    @property
    def scale(self) -> float:
        """What is kept is multiplied by this, so that the mean over all patterns is the value itself."""
        return 1 / (1 - self.rate)


@dataclass(frozen=True, eq=False)
class Leaf:
    """The part of a parameter that an iteration keeps, where autograd leaves the gradient."""

    value: Tensor
    cut: Cut


@dataclass
class Iteration:
    """Draws when it is asked first, and holds what was drawn until `renew`.

    Attributes:
        pattern: Kind of pattern.
        shared: All places with the same rate have the same choice.
        generator: Where choices come from, on the CPU; None is torch's own.
        accumulate: Several batches may add their gradients up before a step.
        whole: Parameters that several layers share; they keep a gradient of their full shape.
        leaves: What has been cut in this iteration.
        calls: How often each dropout module has been called.
    """

    pattern: Pattern
    shared: bool = False
    generator: torch.Generator | None = None
    accumulate: bool = False
    whole: set[Tensor] = field(default_factory=set)
    leaves: dict[Tensor, Leaf] = field(default_factory=dict)
    calls: Counter[nn.Module] = field(default_factory=Counter)
    _choices: dict[Any, Any] = field(default_factory=dict)
    _kept: dict[Place, Kept] = field(default_factory=dict)

    def renew(self) -> None:
        """Ends the iteration; gradients that no step has used are gone."""
        self.leaves, self.calls, self._choices, self._kept = {}, Counter(), {}, {}

    def choice(self, place: Place) -> Any:
        """What the pattern has drawn for a place."""
        key = place.rate if self.shared else place
        if key not in self._choices:
            self._choices[key] = self.pattern.draw(place.rate, self.generator)
        return self._choices[key]

    @overload
    def kept(self, place: Place) -> Kept: ...

    @overload
    def kept(self, place: None) -> None: ...

    def kept(self, place: Place | None) -> Kept | None:
        """The units that a pattern of units keeps at a place; None, which is all of them, where nothing is dropped."""
        if place is None:
            return None
        if place not in self._kept:
            assert not isinstance(self.pattern, Tiles)
            self._kept[place] = self.pattern.kept(self.choice(place), place.width)
        return self._kept[place]

    def part(self, parameter: Tensor, cut: Callable[[], Cut]) -> Tensor:
        """The part of a parameter that this iteration keeps, to be used in a layer's forward pass.

        Raises:
            RuntimeError: the part already has a gradient from another batch, and batches are not accumulated.
        """
        if parameter in self.whole:
            return cut().take(parameter)
        leaf = self.leaves.get(parameter)
        if leaf is None:
            found = cut()
            value = found.take(parameter.detach())
            if value.ndim > 1 and value.stride(-1) != 1:  # A product with such columns is slower than the whole one.
                value = value.contiguous()
            leaf = self.leaves[parameter] = Leaf(value.requires_grad_(parameter.requires_grad), found)
        elif leaf.value.grad is not None and not self.accumulate:
            raise RuntimeError(
                "a second batch, but the first one's gradients are unused: call ApproximateDropout.step(optimizer) in "
                "the place of optimizer.step(), or discard() them; accumulate=True adds up those of several batches"
            )
        return leaf.value
