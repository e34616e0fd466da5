"""The path from the full network down to a budget: moves are ordered once for each stage, and taken until it is met."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from edropout.budget import Budget
from edropout.curvature import Moments
from edropout.moves import Moves, any_of
from edropout.subnetworks.engine import Engine
from edropout.subnetworks.units import Units
from edropout.target import Target, gates_that_are_trained


class Descent:
    """The path of one state of one analysed network.

    Args:
        engine: The network.
        units: The meaning of a state.
        target: Where the path ends, and how.
    """

    def __init__(self, engine: Engine, units: Units, target: Target) -> None:
        self.engine, self.target = engine, target
        self.moves, self.budget = Moves(engine.structure, units), Budget(engine, target.shares)

    def check_reach(self) -> None:
        """Raises ValueError if the smallest network is too large for the target."""
        units = self.moves.units
        smallest = units.repair_(torch.zeros(units.num_units, dtype=torch.bool))
        for name, share in self.budget.left(smallest).items():
            if share > self.target.shares[name]:
                raise ValueError(f"the target's share of {self.target.shares[name]} of the {name} cannot be reached: "
                                 f"with one unit in each layer {share:.4f} of them are left")  # fmt: skip

    def state_at(self, stage: int, state: Tensor, worth: Moments | Tensor) -> Tensor:
        """What is left of a state at a stage: (num_units,) bool.

        Args:
            stage: Of the target.
            state: (num_units,) bool, of the stage before.
            worth: What energies are made of, or (num_units,) scores of the units, of which the lowest go first.

        Raises:
            ValueError: No energies have been learned yet, or the units that may go do not suffice.
        """
        share, found = self.target.share(stage), state.cpu()
        if self.budget.used(found) > share:
            order = self._by_price(worth, found) if isinstance(worth, Moments) else worth.argsort(stable=True)
            found = descend(found, order.tolist(), self.moves, self.budget, share)
        return alive(found, self.budget, self.moves).to(state.device)

    def _by_price(self, moments: Moments, state: Tensor) -> Tensor:
        if not bool(moments.seen.any()):
            raise ValueError("no energies have been learned yet: train on some batches before the descent")
        trained = gates_that_are_trained(self.moves.units, self.engine.modules, self.engine.structure.partners)
        return by_price(moments.energies(), trained, state, self.moves, self.budget, self.target.power)


def by_price(energies: Tensor, droppable: Tensor, state: Tensor, moves: Moves, budget: Budget, power: float) -> Tensor:
    """Moves in ascending order of energy / price^power, where the price is what a move frees of the budget now.

    Args:
        energies: (moves,) estimated rise of the loss.
        droppable: (num_units,) bool, units whose energies are known.
        state: (num_units,) bool.
        moves: All moves of the network.
        budget: What is to be freed.
        power: 0 looks at energies alone; at 1 a move is worth what it saves per unit of loss.

    Returns:
        Numbers of the moves that free anything, on the CPU.
    """
    kinds, kind = moves.classes(state).unique(return_inverse=True)
    first = torch.full((len(kinds),), moves.count).scatter_reduce_(0, kind, torch.arange(moves.count), "amin").tolist()
    drops = {number: any_of(moves.members(first[number]), len(state)) for number in range(len(kinds))
             if kinds[number] >= 0 and moves.leave_layers(first[number], state)}  # fmt: skip
    of_kind = torch.zeros(len(kinds), dtype=torch.float64)
    of_kind[list(drops)] = torch.tensor(budget.freed(state, drops.values()), dtype=torch.float64)
    prices = of_kind[kind]
    barred = moves.gradients((state & ~droppable).double()) > 0  # one of its units must stay
    possible = ((prices > 0) & ~barred).nonzero().squeeze(1)
    worth = energies.cpu().double()[possible] / prices[possible] ** power
    return possible[worth.argsort(stable=True)]


def descend(state: Tensor, order: Iterable[int], moves: Moves, budget: Budget, share: float) -> Tensor:
    """Drops units in order until the budget's share is met, and takes back those that still fit, the last ones first.

    Args:
        state: (num_units,) bool, on the CPU.
        order: Moves; one that would drop the last unit of a layer is left out.
        moves: All moves of the network.
        budget: Measures states.
        share: What `budget.used` may say of the result.

    Returns:
        The new state, without units that nothing reads any more.

    Raises:
        ValueError: The moves do not suffice.
    """
    dropped_at, taken = _taken(state, order, moves)
    low, high, units = 0, len(taken), moves.units

    def before(number: int) -> Tensor:
        """What is left before a move; of layers that keep a multiple, those go and stay that the order says."""
        left = state & (dropped_at >= number)
        return left if units.multiple_of == 1 else units.repair_(left, dropped_at.where(state, -1))

    if budget.used(before(high)) > share:
        raise ValueError(f"the descent cannot reach a share of {share:.4f}: what is left cannot be dropped, as the "
                         "last unit of each layer and layers that are not trained")  # fmt: skip
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if budget.used(before(middle)) <= share else (middle + 1, high)
    found = before(low)
    full: set[tuple[int, ...]] = set()  # layers of which no unit fits any more
    for members, layers in reversed(taken[:low]) if units.multiple_of == 1 else ():
        if layers not in full:
            more = found | any_of(members, len(state))
            found, fits = (more, True) if budget.used(more) <= share else (found, False)
            full |= set() if fits else {layers}
    return alive(found, budget, moves)


def alive(state: Tensor, budget: Budget, moves: Moves) -> Tensor:
    """A state without the units whose channel is gone or that nothing reads: the smaller network is the same.

    Layers that keep a multiple keep it.
    """
    if moves.units.multiple_of > 1:
        return state
    there = budget.engine.plan(state).kept
    units = moves.units
    return state & units.join({layer: mask for layer, mask in there.items() if layer in units.sizes})


def _taken(
    state: Tensor, order: Iterable[int], moves: Moves
) -> tuple[Tensor, list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """When each unit would go, and the units of each move that drops any with the numbers of their layers."""
    layer_of = torch.repeat_interleave(torch.tensor(list(moves.units.sizes.values()))).tolist()
    kept, left = state.tolist(), [int(mask.sum()) for mask in moves.units.split(state).values()]
    taken: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    dropped_at = torch.full(state.shape, torch.iinfo(torch.int64).max)
    for move in order:
        units = tuple(unit for unit in moves.members(move) if kept[unit])
        layers = tuple(layer_of[unit] for unit in units)
        if not units or any(left[layer] == 1 for layer in layers):
            continue
        for unit, layer in zip(units, layers, strict=True):
            kept[unit] = False
            left[layer] -= 1
            dropped_at[unit] = len(taken)
        taken.append((units, layers))
    return dropped_at, taken
