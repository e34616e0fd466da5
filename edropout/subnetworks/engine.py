"""Everything the search asks of a network of one input size: energies of states, and training under one state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edropout.subnetworks import distributed
from edropout.subnetworks.candidates import Candidates
from edropout.subnetworks.channels import channels_last
from edropout.subnetworks.compact import CompactRunner
from edropout.subnetworks.evaluation import parameter_counts
from edropout.subnetworks.graph import tensors
from edropout.subnetworks.layout import Plan, Structure
from edropout.subnetworks.modes import set_switches
from edropout.subnetworks.observe import first_samples, follow
from edropout.subnetworks.own import Own
from edropout.subnetworks.removal import check_exact
from edropout.subnetworks.units import Units


class Engine:
    """The analysed network and its two ways of running.

    Args:
        model: The network.
        units: The meaning of a state.
        energy: Of outputs and targets, a scalar.
        x: (batch, ...) an input of the size to prepare for.
        workers: Threads for the candidates on a CPU.
        energy_dtype: Precision of the energies under autocast; None for the caller's.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Units,
        energy: Callable[[Any, Any], Tensor],
        x: Tensor,
        *,
        workers: int | None,
        energy_dtype: torch.dtype | None,
    ) -> None:
        graph, self.modules = follow(model, x)
        self.structure = Structure(graph, self.modules)
        self.model, self.units = model, units
        units.keep_whole(units.sizes.keys() - units.shortcut_norms.keys() - self.structure.sizes.keys())
        self.example = first_samples(x)
        self.candidates = Candidates(
            model, self.modules, self.structure, units, energy, workers=workers, dtype=energy_dtype
        )
        self.trainer = CompactRunner(model, self.modules, self.structure, candidate=False)
        self._last: tuple[Tensor, Plan, Plan] | None = None
        by_name = dict(model.named_parameters(remove_duplicate=False))
        used = {parameter for module in self.modules.values() for parameter in module.parameters()}
        used |= {by_name[step.target] for step in graph.steps if step.kind == "attribute" and step.target in by_name}
        self._used = sum(parameter.numel() for parameter in used)
        self._all = sum(parameter.numel() for parameter in model.parameters())
        self._parts = list(model.modules())
        self._check()

    def _check(self) -> None:
        """Compares both ways of running, under a random state, with the network itself."""
        state = torch.rand(self.units.num_units, generator=torch.Generator().manual_seed(0)) < 0.5
        kept = self.units.kept(self.units.repair_(state))
        plan = self.structure.plan(kept, filled=True)
        for runner in (self.trainer, CompactRunner(self.model, self.modules, self.structure, candidate=True)):

            def compute(x: Tensor, runner: CompactRunner = runner) -> Any:
                set_switches(self.modules, self.model)
                steps = self.structure.graph.running(self.model)
                return runner.run(steps, {steps[0].name: channels_last(x)}, plan)

            check_exact(self.model, self.modules, kept, self.example, self.structure.partners, compute)

    def energies(self, states: Tensor, x: Tensor, y: Any, *, known: tuple[Tensor, Tensor] | None) -> Tensor:
        """Energies of states on a batch, averaged over the ranks; each distinct state is computed once.

        Args:
            states: (count, num_units) bool.
            x: (batch, ...) inputs.
            y: Targets.
            known: States whose energies need no new measurement, (m, num_units), with these energies, (m,).

        Raises:
            ValueError: An energy is not a number.
        """
        packed = [state.tobytes() for state in states.cpu().numpy()]
        old = {} if known is None else {s.tobytes(): e for s, e in zip(known[0].cpu().numpy(), known[1], strict=True)}
        first = {key: place for place, key in reversed(list(enumerate(packed))) if key not in old}
        places = sorted(first.values())
        found = dict(old)
        if places:
            measured = distributed.average(self.candidates.energies(states[places], x, y))
            if bool((measured.isnan() | (measured == -torch.inf)).any()):
                raise ValueError("the energies are not numbers: the outputs contain NaN or infinity")
            found |= {packed[place]: value for place, value in zip(places, measured, strict=True)}
        return torch.stack([found[key] for key in packed])

    def plan(self, state: Tensor) -> Plan:
        """What is left of the network under a state."""
        return self.structure.plan(self.units.kept(state.cpu()))

    def share(self, state: Tensor) -> float:
        """Share of the network's parameters that the smaller network of `state` has; what never runs is gone too."""
        return self.share_under(self.plan(state))

    def share_under(self, plan: Plan) -> float:
        """The same of what `plan` leaves."""
        counts = parameter_counts(self.structure.graph, self.modules, plan).values()
        return (self._used - sum(full - left for left, full in counts)) / self._all

    def trained(self, state: Tensor) -> Plan:
        """What is left of each layer under the state that is trained."""
        if self._last is None or not torch.equal(self._last[0], state):
            kept = self.units.kept(state.cpu())
            self._last = state.clone(), self.structure.plan(kept), self.structure.plan(kept, filled=True)
        return self._last[1]

    def train(self, state: Tensor, x: Tensor, own: Mapping[nn.Parameter, Own]) -> Any:
        """Outputs of the sub-network of `state`, ready for backward.

        Args:
            state: (num_units,) bool.
            x: (batch, ...) inputs.
            own: Parameters that are there as they are left, without being gathered.

        Raises:
            ValueError: An output is not a finite number; running statistics have not changed then.
        """
        self.trained(state)
        _, _, filled = self._last
        self.trainer.own = own
        set_switches(self.modules, self.model)
        steps = self.structure.graph.running(self.model)
        self.trainer.forget_statistics()
        outputs = self.trainer.run(steps, {steps[0].name: channels_last(x)}, filled)
        # All ranks together, as one that ended alone would leave the others waiting.
        finite = torch.stack([value.isfinite().all() for value in tensors(outputs)]).all()
        if bool(distributed.average(finite.float()) < 1):
            raise ValueError("the outputs contain NaN or infinity")
        self.trainer.update_statistics()
        return outputs

    def fits(self, x: Tensor) -> bool:
        """True if this analysis holds for such inputs and for the modules that the network has now."""
        example = self.example
        alike = (example.shape[1:], example.dtype, example.device) == (x.shape[1:], x.dtype, x.device)
        return alike and list(self.model.modules()) == self._parts


def first_examples(targets: Any, count: int | None) -> Any:
    """The first examples of targets, tensors or tuples, lists and dictionaries of them; None for all."""
    if isinstance(targets, dict):
        return {key: first_examples(value, count) for key, value in targets.items()}
    if isinstance(targets, list | tuple):
        return type(targets)(first_examples(value, count) for value in targets)
    return targets[:count] if isinstance(targets, Tensor) and targets.ndim else targets
