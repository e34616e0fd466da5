"""The training-loop API: train the sub-network of the best state while states evolve, hand out a smaller network.

One long file: it is what a user reads, half of it documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from edropout import evolution
from edropout.budget import Budget
from edropout.checks import (
    check_batch,
    check_counts,
    check_labels,
    check_network,
    check_owner,
    check_probabilities,
    check_reduction,
    unwrapped,
)
from edropout.energy import Energy, margin
from edropout.states import Mutation, States
from edropout.subnetworks import distributed
from edropout.subnetworks.evaluation import authors_counts, full_copy, parameter_counts, recalibrate_
from edropout.subnetworks.kept_step import KeptStep
from edropout.subnetworks.layout import Plan
from edropout.subnetworks.part import Part, parts
from edropout.subnetworks.removal import cut_out, prune
from edropout.subnetworks.smaller import SmallerNetwork
from edropout.subnetworks.units import Units
from edropout.target import Target


@dataclass(frozen=True)
class KeptRatio:
    """Shares in [0, 1] of what is kept: physically, in the authors' accounting, in units; by layer; of the MACs."""

    physical: float
    authors: float
    units: float
    layers: dict[str, float]
    macs: float


class EDropout(States):
    """Energy-based dropout and pruning around an ordinary training loop (Salehinejad & Valaee, arXiv:2006.04270).

        search = EDropout(model)
        for x, y in loader:
            loss = search.loss(x, y)      # evolve the states on this batch, then cross-entropy under the best one
            optimizer.zero_grad(); loss.backward(); search.step(optimizer)    # only kept weights move
        search.end_epoch()                # after each epoch
        smaller = search.prune()

    The defaults are the paper's: eight states, initialised at 0.5, mutation factor and crossover rate 0.9, states
    frozen when the population has converged and at the latest after 100 epochs.

    Args:
        model: Any network that torch.fx can follow; its code and class stay as they are. Wrappers of torch.compile,
            DataParallel and DistributedDataParallel are looked through: the search runs the network in its own way, and
            averages gradients and energies over the ranks itself.
        population_size: Number of states S, at least 4.
        mutation_factor: F, probability that a unit on which two states differ is flipped in a third.
        crossover_rate: C, probability that a candidate takes a unit from its mutant.
        initial_kept: Probability that a unit is kept at the start.
        freeze_epoch: Epoch after which the best state is final; None to leave that to convergence.
        reevaluate_every: Measure the energies of the surviving states anew on every n-th batch; 0 for never, which is
            what the authors' code does: a survivor then keeps the energy of the batch on which it was born.
        mutation: Makes mutants; `evolution.mutate_as_released` is the authors' code, for ablation.
        energy: Of (outputs, targets) of a batch, one number for each example, (batch,), low for a good sub-network; the
            paper's margin for class numbers. `edropout.energy` has one for each kind of target.
        units: What can be dropped; None for `Units(model)`.
        candidates_per_step: States that get a candidate on each batch, taking turns; None for all of them as in the
            paper. Half of them halve the cost of the search, each candidate is still measured exactly.
        target: Size or cost to reach by a gradual descent from the full network; None for the paper's search, whose
            pruning rate is not controlled. With a target the states start full and `initial_kept` is not used; one that
            goes "by" something else than the population has one state and no candidates, and freezes by itself.
        seed: Of all randomness of the search; the same on all ranks.
        example: (batch, ...) one input, on the model's device; with it `prune` and `kept_ratio` work before the first
            batch, as after `load_state_dict`, and a network that asks for sizes is read with those of the example.
        workers: Threads for the candidates on a CPU; None for torch.get_num_threads(). No bit depends on it.
        energy_examples: Measure energies on the first so many examples of each batch, an approximation that costs
            less; None for the whole batch as in the paper.
        energy_dtype: Measure energies in this precision, by autocast, an approximation; None for the training step's.

    Raises:
        ValueError: An argument is out of its range or nothing in `model` can be pruned.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        population_size: int = 8,
        mutation_factor: float = 0.9,
        crossover_rate: float = 0.9,
        initial_kept: float = 0.5,
        freeze_epoch: int | None = 100,
        reevaluate_every: int = 0,
        mutation: Mutation = evolution.mutate,
        energy: Energy = margin,
        units: Units | None = None,
        candidates_per_step: int | None = None,
        target: Target | None = None,
        seed: int = 0,
        example: Tensor | None = None,
        workers: int | None = None,
        energy_examples: int | None = None,
        energy_dtype: torch.dtype | None = None,
    ) -> None:
        model = unwrapped(model)
        check_network(model)
        check_probabilities(mutation_factor=mutation_factor, crossover_rate=crossover_rate, initial_kept=initial_kept)
        check_counts(
            population_size=(population_size, 4),  # a state and three others
            reevaluate_every=(reevaluate_every, 0),
            freeze_epoch=(freeze_epoch, 1),
            workers=(workers, 1),
            candidates_per_step=(candidates_per_step, 1),
            energy_examples=(energy_examples, 2),  # batch norm needs a batch
        )
        if candidates_per_step is not None and candidates_per_step > population_size:
            raise ValueError(f"candidates_per_step must be at most {population_size}, not {candidates_per_step}")
        if energy_dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"energy_dtype must be torch.float32, bfloat16, float16 or None, not {energy_dtype}")
        if not isinstance(target, Target | None):
            raise ValueError(f"target must be a Target, as Target(kept=0.2, warm_up=100, steps=1000), not {target!r}")
        super().__init__(
            model,
            Units(model, example=example) if units is None else units,
            target,
            torch.Generator(next(model.parameters()).device).manual_seed(seed),
            size=population_size,
            initial_kept=initial_kept,
        )
        self.mutation_factor, self.crossover_rate, self.mutation = mutation_factor, crossover_rate, mutation
        self.freeze_epoch, self.reevaluate_every, self.workers = freeze_epoch, reevaluate_every, workers
        self.candidates_per_step = population_size if candidates_per_step is None else candidates_per_step
        self.energy, self.energy_examples, self.energy_dtype = energy, energy_examples, energy_dtype
        self._plan, self._parts = Plan(), dict[nn.Parameter, Part]()
        self._kept_step, self._averaged = KeptStep(), False
        if example is not None:
            self._engine_for(example)

    def loss(
        self,
        x: Tensor,
        y: Any,
        *,
        criterion: Callable[[Any, Any], Tensor] = F.cross_entropy,
        evolve: bool | None = None,
    ) -> Tensor:
        """Evolves the population on the batch unless it is frozen; returns `criterion` under the best state.

        The population evolves once between two steps, on the first batch, so that all gradients that a step adds up
        belong to one state, and their energies are those of this batch.

        Args:
            x: (batch, ...) float, the network's input.
            y: The targets: (batch,) int64 class numbers unless the energy takes others, as tensors, or tuples or
                dictionaries of tensors, with an entry for each example.
            criterion: Training loss of (outputs, y).
            evolve: False where the states must stay, as for a second forward pass before a loop's very first step;
                True to evolve in any case.

        Raises:
            ValueError: A label is no class, the outputs are not numbers, or a batch norm would see a single value for
                each channel. Nothing has changed then.
        """
        if not isinstance(x, Tensor):
            raise ValueError(f"the input must be a tensor, not {type(x).__name__}")
        engine = self._engine_for(x)
        check_batch(engine.structure.graph, engine.modules, x)
        if self.target is not None:
            check_reduction(criterion, self.target)
        if self.energy is margin:
            check_labels(engine.structure.graph, x, y)
        with self._undone_on_error():
            if not self.frozen and (not self._evolved if evolve is None else evolve):
                self._evolve(engine, x, y)
                self._evolved = True
            plan = engine.trained(self.best_state)
            if plan is not self._plan:
                self._plan, self._parts = plan, parts(engine.modules, plan)
            outputs = engine.train(self.best_state, x, self._kept_step.own(self._parts) if self.frozen else {})
        self._averaged, self._credit = False, None
        found = criterion(outputs, y)
        if self._learns and self.target is not None and self.target.by == "curvature":
            self._weights.watch(found, len(x), [*self.model.parameters()], summed=self.target.summed)
        return found

    def step(
        self,
        optimizer: Optimizer,
        *,
        scaler: torch.amp.GradScaler | None = None,
        closure: Callable[[], Any] | None = None,
    ) -> Any:
        """Lets the optimiser move what the last `loss` kept; everything else keeps its bits, optimiser state too.

        The optimiser sees parameters, gradients and states of the pruned network's shapes, so its step is the pruned
        network's; hooks of its steps see whole parameters. A unit that comes back goes on with the states that it had.

        Args:
            optimizer: Any. While states still change, what it keeps must follow the weights or their rows or columns.
            scaler: Takes the step in its way: unscales the gradients and skips the step if one is not finite.
            closure: Computes gradients anew, as LBFGS and sharpness-aware optimisers ask for.

        Returns:
            What the optimiser's step returns.

        Raises:
            ValueError: The step would not be exact, or the optimiser has no parameter of this network. Nothing has
                changed then.
        """
        check_owner(optimizer, self._parts, self.model)
        rules = self._kept_step.prepare(optimizer, self._parts, final=self.frozen, closure=closure)
        learned = False

        def learn() -> None:
            nonlocal learned
            self.average_gradients()
            if self.target is not None and self._learns and not learned:
                if scaler is not None:
                    _unscale_(scaler, optimizer)
                self._learn(optimizer, self.target, 1.0 if scaler is None else scaler.get_scale())
                learned = True

        again = None
        if closure is None:
            learn()
        else:

            def again() -> Any:
                found = closure()
                learn()
                return found

        found = self._kept_step(optimizer, lambda: self._parts, rules, final=self.frozen, scaler=scaler, closure=again)
        self._evolved = False
        return found

    def average_gradients(self) -> None:
        """Averages the gradients over the ranks of torch.distributed, once after a `loss`.

        `step` does it; call it yourself before what looks at the gradients, such as clipping.
        """
        if not self._averaged:
            distributed.average_gradients(self.model.parameters())
        self._averaged = True

    def prune(self, batches: Iterable[Tensor] | None = None, *, multiple_of: int = 1) -> SmallerNetwork:
        """The physically smaller network of the best state, with weights of its own.

        Args:
            batches: Inputs, or (inputs, ...) as a DataLoader gives them, on which its batch-norm statistics are
                measured anew; None to keep the running ones.
            multiple_of: Fill widths up to multiples of it with units that are zero; see `edropout.prune`.

        Raises:
            ValueError: No batch has been seen yet, so shapes are unknown.
        """
        engine, kept = self._seen_engine(), self.units.kept(self.best_state.cpu())
        if isinstance(self.model, SmallerNetwork):
            smaller = prune(self.model, kept, engine.example, multiple_of=multiple_of)
        else:
            smaller = cut_out(
                engine.structure, engine.modules, self.model, kept, engine.example, multiple_of=multiple_of
            )
        if batches is not None:
            recalibrate_(smaller, batches)
        return smaller

    def carry_(self, optimizer: Optimizer, smaller: SmallerNetwork, other: Optimizer) -> None:
        """Gives an optimiser of the pruned network the states of yours, so that fine-tuning goes on with its momentum.

        Args:
            optimizer: The one that has stepped in this search.
            smaller: What `prune` has just returned.
            other: An optimiser of the same class for the parameters of `smaller`; its own states are lost.

        Raises:
            ValueError: No batch has been seen yet, or the states do not fit.
        """
        engine, multiple_of = self._seen_engine(), smaller.plan.multiple_of
        if isinstance(self.model, SmallerNetwork) and multiple_of > 1:
            raise ValueError("the states do not fit: a pruned network was pruned again and its widths filled up")
        kept = self.units.kept(self.best_state.cpu())
        left = parts(engine.modules, engine.structure.plan(kept, multiple_of=multiple_of))
        twins = dict(smaller.named_parameters(remove_duplicate=False))
        named = self.model.named_parameters(remove_duplicate=False)
        pairs = {parameter: twins[name] for name, parameter in named if name in twins}
        self._kept_step.carry_(optimizer, other, pairs, left)

    def full(self, batches: Iterable[Tensor] | None = None) -> nn.Module:
        """A copy of the network with all units, in eval mode: the paper's (F); `prune` gives its (P)."""
        return full_copy(self.model, batches)

    def kept_ratio(self) -> KeptRatio:
        """What the best state keeps.

        Raises:
            ValueError: No batch has been seen yet, so shapes are unknown.
        """
        engine = self._seen_engine()
        kept = self.units.kept(self.best_state.cpu())
        physical = parameter_counts(engine.structure.graph, engine.modules, engine.structure.plan(kept))
        authors = authors_counts(engine.modules, kept)
        return KeptRatio(
            physical=engine.share(self.best_state),
            authors=sum(left for left, _ in authors.values()) / sum(full for _, full in authors.values()),
            units=float(self.best_state.float().mean()),
            layers={layer: left / full for layer, (left, full) in physical.items()},
            macs=Budget(engine, {"macs": 1.0}).left(self.best_state)["macs"],
        )

    def __reduce__(self) -> Any:
        raise TypeError("a search can be neither copied nor pickled: save its state_dict, and load it in a new one")


def _unscale_(scaler: torch.amp.GradScaler, optimizer: Optimizer) -> None:
    """Unscales the gradients of an optimiser unless the loop has done so."""
    try:
        scaler.unscale_(optimizer)
    except RuntimeError as error:
        if "already been called" not in str(error):
            raise
