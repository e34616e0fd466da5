"""What is left of a tensor under a final state, as a tensor of its own: the whole one follows when somebody looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from edropout.subnetworks.channels import take_channels
from edropout.subnetworks.layout import LayerCut, source_positions
from edropout.subnetworks.part import Axes, Part
from edropout.subnetworks.watched import has_aliases, unwatch_, watch_


class Own:
    """A parameter, or an optimiser's state for it, in the shape that it has in the pruned network.

    It is gathered once and goes from step to step. The whole tensor lacks what these have done until the first look at
    it, which writes it back; whoever looks may change it, so the next use gathers anew. A tensor whose memory others
    hold, who could look unseen, is written back after each step and gathered before it.

    Args:
        whole: The tensor.
        part: What is left of its parameter.
        axes: What each of its axes follows.
    """

    def __init__(self, whole: Tensor, part: Part, axes: Axes) -> None:
        self.whole, self.part, self.axes = whole, part, axes
        self._value: Tensor | None = None  # None: the whole tensor may have changed
        self._late = False  # the whole tensor lacks what `put` was given
        self._moves: dict[int, tuple[LayerCut, bool, Tensor | None]] = {}

    def holds(self, whole: Tensor, part: Part) -> bool:
        """True if this is the entry for that tensor, of whose parameter that is left."""
        return self.whole is whole and (self.part is part or alike(self.part, part))

    def take(self) -> Tensor:
        """What is left, in memory that it keeps."""
        if self._value is not None:
            return self._value
        value = self.part.take(self.whole.detach(), self.axes)
        # Rows that only fill a group up must be zero again at each step, whatever the last one did to them.
        if self.part.filling is None and not has_aliases(self.whole):
            self._value = value
            watch_(self.whole, self._seen)
        return value

    def put(self, value: Tensor) -> None:
        """Takes what a step has made of it."""
        unwatch_(self.whole)
        self._value, self._late = value, True
        if self.part.filling is None and not has_aliases(self.whole):
            watch_(self.whole, self._seen)
        else:
            self._seen()

    def write_back(self) -> None:
        """Brings the whole tensor up to date, which is gathered again at the next use."""
        if self._value is not None:
            unwatch_(self.whole)
            self._seen()

    def _seen(self) -> None:
        value, self._value = self._value, None
        if self._late and value is not None:
            self._late = False
            with _anywhere():
                self.part.put_(self.whole.data, value, self.axes)

    def under(self, cut: LayerCut) -> Tensor | None:
        """What `cut` leaves of the parameter: differentiable with respect to it; None if it holds other rows.

        A cut may have columns for channels that are zero (`Structure.plan`, filled), whose weights do not matter.
        """
        if id(cut) not in self._moves:
            self._moves[id(cut)] = cut, *_moves(self.part, cut)
        _, fits, positions = self._moves[id(cut)]
        if not fits:
            return None
        value = self.take()
        if torch.is_grad_enabled() and self.whole.requires_grad:
            value = _Kept.apply(self.whole, value, self.part)
        return value if positions is None else take_channels(value, positions)


class _Kept(torch.autograd.Function):
    """What is left of a whole weight, given beside it; the gradient of the whole one is zero everywhere else."""

    @staticmethod
    def forward(ctx, whole: Tensor, value: Tensor, part: Part) -> Tensor:
        ctx.part = part
        return value.detach()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        whole = gradient.new_zeros(ctx.part.full)
        ctx.part.put_(whole, gradient, tuple(range(whole.ndim)))
        return whole, None, None


def _moves(part: Part, cut: LayerCut) -> tuple[bool, Tensor | None]:
    """Whether a cut has the rows of a part, and where its columns come from; None if nothing moves."""
    if part.filling is not None or not _equal(part.cut.rows, cut.rows):
        return False, None
    if len(part.full) == 1 or _equal(part.cut.columns, cut.columns):
        return True, None
    if any(columns is not None and columns.ndim > 1 for columns in (part.cut.columns, cut.columns)) or cut.block > 1:
        return False, None
    return True, source_positions(part.cut.columns, cut.columns, part.full[1])


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one, other))


# (parameter, name of an optimiser's state or "") -> the entry.
Owned = dict[tuple[nn.Parameter, Any], Own]


def own_of(owned: Owned, parameter: nn.Parameter, name: Any, whole: Tensor, part: Part, axes: Axes) -> Own:
    """The entry for a tensor, made anew if there is none for this very tensor and what is left of it."""
    found = owned.get((parameter, name))
    if found is None or not found.holds(whole, part):
        if found is not None:
            found.write_back()
        found = owned[parameter, name] = Own(whole, part, axes)
    return found


def alike(one: Part, other: Part) -> bool:
    """True if two parts of a parameter are the same entries."""
    return torch.equal(one.numbers, other.numbers) and one.shape == other.shape


@contextmanager
def _anywhere() -> Iterator[None]:
    """Writes for good wherever somebody looks: while sizes are worked out, gradients recorded or functions mapped."""
    with _disable_current_modes(), torch._C._DisableFuncTorch(), torch.inference_mode(False), torch.no_grad():
        yield
