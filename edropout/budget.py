"""What a descent may spend: parameters, multiply-accumulates, or both, as shares of the full network's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from torch import Tensor

from edropout.subnetworks.engine import Engine
from edropout.subnetworks.macs import mac_count


class Budget:
    """Measures states of one network in the shares that are to be reached.

    Args:
        engine: The analysed network.
        shares: "parameters", "macs" or both -> the share to reach, in (0, 1].
    """

    def __init__(self, engine: Engine, shares: Mapping[str, float]) -> None:
        self.engine, self.shares = engine, shares
        full = engine.structure.plan({})
        self.macs = mac_count(engine.structure.graph, engine.modules, full)

    def left(self, state: Tensor) -> dict[str, float]:
        """Share that the smaller network of a state has, of each thing that is budgeted."""
        plan = self.engine.plan(state)
        found = {}
        if "parameters" in self.shares:
            found["parameters"] = self.engine.share_under(plan)
        if "macs" in self.shares:
            found["macs"] = mac_count(self.engine.structure.graph, self.engine.modules, plan) / self.macs
        return found

    def used(self, state: Tensor) -> float:
        """Where on the way from 1 to the first of the shares a state is; of two budgets the one that is further behind.

        The way to a share b is measured as (share left)^(log a / log b), which is 1 for the full network and a, the
        first share, where b is reached; so two budgets that fall together are used up together.
        """
        return max(self._ways(self.left(state)).values())

    def freed(self, state: Tensor, drops: Iterable[Tensor]) -> list[float]:
        """Share that goes of the budget further behind, when `state` loses each of `drops`, (num_units,) bool."""
        before = self.left(state)
        ways = self._ways(before)
        behind = max(ways, key=ways.__getitem__)
        return [before[behind] - self.left(state & ~dropped)[behind] for dropped in drops]

    def _ways(self, left: Mapping[str, float]) -> dict[str, float]:
        first = next(iter(self.shares.values()))
        return {name: share ** _pace(first, self.shares[name]) for name, share in left.items()}


def _pace(first: float, share: float) -> float:
    return 1.0 if share == first else math.log(first) / math.log(share)
