"""Energies of many states on one batch: compact, each on one thread, the common beginning computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from edropout.subnetworks.channels import channels_last
from edropout.subnetworks.compact import CompactRunner
from edropout.subnetworks.graph import Step
from edropout.subnetworks.layout import Structure
from edropout.subnetworks.modes import set_switches
from edropout.subnetworks.units import Units
from edropout.subnetworks.untouched import mode

# The number of states from which computing all filters of a first layer pays.
WORTH_SHARING = 4


class Candidates:
    """Evaluates states of one network; the result does not depend on the number of workers.

    Batch norm uses the statistics of the batch under each state and leaves the running ones alone, dropout is off.

    Args:
        model: The network.
        modules: Modules that its graph calls.
        structure: Its analysed graph.
        units: The meaning of a state.
        energy: Of outputs and targets, a scalar.
        workers: Threads on a CPU, each computing one candidate at a time; None for torch.get_num_threads().
        dtype: Precision under autocast; None for the caller's.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: Mapping[str, nn.Module],
        structure: Structure,
        units: Units,
        energy: Callable[[Any, Any], Tensor],
        *,
        workers: int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.model, self.modules, self.structure, self.units = model, modules, structure, units
        self.energy, self.workers, self.dtype = energy, workers, dtype
        with mode(model, training=False):
            self.shared, self.own = _shared_steps(structure.graph.running(model), units)
        self.first = _first_chains(structure, self.shared, self.own)
        inside = {step.name for chain in self.first for step in chain[:-1]}
        self.later = [step for step in self.own if step.name not in inside]
        self.dense = frozenset(step.name for step in self.shared)
        self.pool: ThreadPoolExecutor | None = None

    def energies(self, states: Tensor, x: Tensor, y: Any) -> Tensor:
        """Computes the energy of each state, (count, num_units) bool, on the batch: (count,) float."""
        norms = frozenset(name for name, module in self.modules.items() if module.training)
        runner = CompactRunner(self.model, self.modules, self.structure, candidate=True, trained_norms=norms)
        x = channels_last(x)
        kept = [self.units.kept(state) for state in states.cpu()]
        with mode(self.model, training=False):
            set_switches(self.modules, self.model)
            runner.cast = self._cast()
            with torch.no_grad(), torch.autocast(**self._autocast()):
                values, steps = self._begin(runner, x), self.own
                if len(states) >= WORTH_SHARING:
                    runner.ready, steps = self._first_layers(runner, values), self.later
            found = self._map(lambda mask: self._energy(runner, steps, mask, values, y), kept)
        return torch.stack(found)

    def _begin(self, runner: CompactRunner, x: Tensor) -> dict[str, Any]:
        """Values of the steps that no unit reaches, computed once for all states."""
        values: dict[str, Any] = {self.shared[0].name: x}
        plan = self.structure.plan({}, dense=self.dense)
        asked = {name for step in self.own for name in step.reads}
        runner.run(self.shared, values, plan, own=self.dense - asked)
        return {name: value for name, value in values.items() if name in asked}

    def _first_layers(self, runner: CompactRunner, values: dict[str, Any]) -> dict[str, Tensor]:
        """Outputs of the first switched layers with all their filters: each state then only picks its channels.

        These layers read what all states share, and neither a convolution nor a batch norm mixes its output channels.
        """
        plan = self.structure.plan({}, dense=self.dense)
        return {chain[-1].name: runner.run(chain, dict(values), plan) for chain in self.first}

    def _energy(
        self, runner: CompactRunner, steps: list[Step], kept: dict[str, Tensor], values: dict[str, Any], y: Any
    ) -> Tensor:
        plan = self.structure.plan(kept, dense=self.dense, filled=True)
        return self.energy(runner.run(steps, dict(values), plan), y)

    def _map(self, work: Callable[[Any], Tensor], items: Sequence) -> list[Tensor]:
        """Applies `work` to the items without gradients, on one-threaded workers on a CPU."""
        cast = self._autocast()

        def quietly(item: Any) -> Tensor:
            with torch.no_grad(), torch.autocast(**cast):
                return work(item)

        # A module that could not be followed may keep values of its own from one line to the next.
        alone = cast["device_type"] != "cpu" or self.structure.graph.whole
        if alone or (torch.get_num_threads() == 1 and self.workers in (None, 1)):
            return [quietly(item) for item in items]
        if self.pool is None:
            self.pool = _one_threaded_pool(self.workers or torch.get_num_threads())
        return list(self.pool.map(quietly, items))

    @torch.no_grad()
    def _cast(self) -> dict[nn.Parameter, Tensor]:
        """The weights of the switched layers in the precision that autocast would bring each candidate's cut to."""
        how, layers = self._autocast(), {step.target for step in self.own if step.kind == "module"}
        if not how["enabled"]:
            return {}
        found = [p for layer in layers & self.structure.sizes.keys() for p in self.modules[layer].parameters()]
        return {p: p.detach().to(how["dtype"]) for p in found if p.dtype == torch.float32}

    def _autocast(self) -> dict[str, Any]:
        """Arguments of torch.autocast for any thread: those in force in this one, or those of `dtype`."""
        device = next(self.model.parameters()).device.type
        enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        if self.dtype is not None:
            enabled, dtype = self.dtype != torch.float32, self.dtype
        return {"device_type": device, "enabled": enabled, "dtype": dtype}


def _one_threaded_pool(workers: int) -> ThreadPoolExecutor:
    """Threads that compute without splitting an operation further; the caller keeps its own thread count."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    # Each worker starts with the first tasks that find no idle one; the count is global for threads born later.
    list(pool.map(lambda _: torch.get_num_threads(), range(4 * workers)))
    torch.set_num_threads(before)
    return pool


def _shared_steps(steps: list[Step], units: Units) -> tuple[list[Step], list[Step]]:
    """Splits the steps into those that no unit influences and the others."""
    reached: set[str] = set()
    shared, own = [], []
    for step in steps:
        switched = step.kind == "module" and step.target in units.sizes
        if switched or step.kind == "output" or any(name in reached for name in step.reads):
            reached.add(step.name)
            own.append(step)
        else:
            shared.append(step)
    return shared, own


def _first_chains(structure: Structure, shared: list[Step], own: list[Step]) -> list[list[Step]]:
    """Convolutions that read what all states share, each with the norm and the pointwise steps that follow alone."""
    common = {step.name for step in shared}
    chains = []
    for step in own:
        if structure.roles[step.name] != "convolution" or step.reads[0] not in common:
            continue
        chain = [step]
        while len(users := structure.users[chain[-1].name]) == 1:
            alone = structure.roles[users[0].name] in ("norm", "pointwise") and len(users[0].reads) == 1
            if not alone or users[0].name in structure.graph.modes:
                break
            chain.append(users[0])
        chains.append(chain)
    return chains
