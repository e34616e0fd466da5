"""Energies of many states on one batch: compact, each on one thread, the common beginning computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from edropout.compact import CompactRunner
from edropout.energy import energy
from edropout.graph import Step, mode, set_switches
from edropout.layout import Structure
from edropout.units import Units


class Candidates:
    """Evaluates states of one network; the result does not depend on the number of workers.

    Batch norm uses the statistics of the batch under each state and leaves the running ones alone, dropout is off.

    Args:
        model: The network.
        modules: Modules that its graph calls.
        structure: Its analysed graph.
        units: The meaning of a state.
        workers: Threads on a CPU, each computing one candidate at a time; None for torch.get_num_threads().
    """

    def __init__(
        self,
        model: nn.Module,
        modules: Mapping[str, nn.Module],
        structure: Structure,
        units: Units,
        *,
        workers: int | None = None,
    ) -> None:
        self.model, self.modules, self.structure, self.units = model, modules, structure, units
        self.workers = workers
        self.shared, self.own = _shared_steps(structure, units)
        self.dense = frozenset(step.name for step in self.shared)
        self.pool: ThreadPoolExecutor | None = None

    def energies(self, states: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Computes the energy of each state, (count, num_units) bool, on the batch: (count,) float."""
        norms = frozenset(name for name, module in self.modules.items() if module.training)
        runner = CompactRunner(self.model, self.modules, self.structure, candidate=True, trained_norms=norms)
        x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        kept = [self.units.kept(state) for state in states.cpu()]
        set_switches(self.modules, training=False)
        with mode(self.model, training=False):
            values = self._map(lambda _: self._begin(runner, x), [None])[0]
            found = self._map(lambda mask: self._energy(runner, mask, values, y), kept)
        return torch.stack(found)

    def _begin(self, runner: CompactRunner, x: Tensor) -> dict[str, Any]:
        """Values of the steps that no unit reaches, computed once for all states."""
        values: dict[str, Any] = {self.shared[0].name: x}
        plan = self.structure.plan({}, dense=self.dense)
        runner.run(self.shared, values, plan, own=frozenset())
        asked = {name for step in self.own for name in step.reads}
        return {name: value for name, value in values.items() if name in asked}

    def _energy(self, runner: CompactRunner, kept: dict[str, Tensor], values: dict[str, Any], y: Tensor) -> Tensor:
        plan = self.structure.plan(kept, dense=self.dense)
        return energy(runner.run(self.own, dict(values), plan), y)

    def _map(self, work: Any, items: Sequence) -> list:
        """Applies `work` to the items without gradients, on one-threaded workers on a CPU."""
        device = next(self.model.parameters()).device.type
        cast = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

        def quietly(item: Any) -> Any:
            with torch.no_grad(), torch.autocast(device, enabled=cast[0], dtype=cast[1]):
                return work(item)

        if device != "cpu" or (torch.get_num_threads() == 1 and self.workers in (None, 1)):
            return [quietly(item) for item in items]
        if self.pool is None:
            self.pool = _one_threaded_pool(self.workers or torch.get_num_threads())
        return list(self.pool.map(quietly, items))

    def __deepcopy__(self, memo: dict) -> Candidates:
        raise TypeError("a search cannot be copied: make a new one and load its state_dict")


def _one_threaded_pool(workers: int) -> ThreadPoolExecutor:
    """Threads that compute without splitting an operation further; the caller keeps its own thread count."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    # Each worker starts with the first tasks that find no idle one; the count is global for threads born later.
    list(pool.map(lambda _: torch.get_num_threads(), range(4 * workers)))
    torch.set_num_threads(before)
    return pool


def _shared_steps(structure: Structure, units: Units) -> tuple[list[Step], list[Step]]:
    """Splits the graph into the steps that no unit influences and the others."""
    reached: set[str] = set()
    shared, own = [], []
    for step in structure.graph.steps:
        switched = step.kind == "module" and step.target in units.sizes
        if switched or step.kind == "output" or any(name in reached for name in step.reads):
            reached.add(step.name)
            own.append(step)
        else:
            shared.append(step)
    return shared, own
