"""The training-loop API: evolve pruning states, train the sub-network of the best one, hand out a smaller network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from edropout import evolution
from edropout.checks import (
    check_batch,
    check_counts,
    check_labels,
    check_network,
    check_owner,
    check_probabilities,
    check_state,
    unwrapped,
)
from edropout.energy import Energy, batch_energy, margin
from edropout.subnetworks import distributed
from edropout.subnetworks.engine import Engine, first_examples
from edropout.subnetworks.evaluation import authors_counts, full_copy, parameter_counts, recalibrate_
from edropout.subnetworks.kept_step import KeptStep
from edropout.subnetworks.layout import Plan
from edropout.subnetworks.part import Part, parts
from edropout.subnetworks.removal import cut_out, prune
from edropout.subnetworks.smaller import SmallerNetwork
from edropout.subnetworks.units import Units
from edropout.target import Target, count_for_share, hold, unit_scores

Mutation = Callable[[Tensor, float, torch.Generator], Tensor]


@dataclass(frozen=True)
class KeptRatio:
    """Shares in [0, 1] of what is kept: physically, in the authors' accounting, in units; by layer physically."""

    physical: float
    authors: float
    units: float
    layers: dict[str, float]


class EDropout:
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
        target: Share of parameters to reach by a gradual descent from the full network; None for the paper's search,
            whose pruning rate is not controlled. With a target the states start full and `initial_kept` is not used.
        seed: Of all randomness of the search; the same on all ranks.
        example: (batch, ...) one input, on the model's device; with it `prune` and `kept_ratio` work before the first
            batch, as after `load_state_dict`.
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
        self.model = unwrapped(model)
        check_network(self.model)
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
        self.units = Units(self.model) if units is None else units
        self.units.check(self.model)
        self.energy = energy
        self.mutation_factor, self.crossover_rate, self.mutation = mutation_factor, crossover_rate, mutation
        self.freeze_epoch, self.reevaluate_every, self.workers = freeze_epoch, reevaluate_every, workers
        self.candidates_per_step = population_size if candidates_per_step is None else candidates_per_step
        self.energy_examples, self.energy_dtype = energy_examples, energy_dtype
        self.target = target
        device = next(self.model.parameters()).device
        self.generator = torch.Generator(device).manual_seed(seed)
        self.population = self.units.repair_(
            evolution.initial_population(
                population_size, self.units.num_units, initial_kept if target is None else 1.0, self.generator
            )
        )
        self.scores = torch.zeros(self.units.num_units, device=device)
        self._stage, self._count = 0, self.units.num_units
        self.energies = torch.full((population_size,), torch.inf, device=device)
        self.frozen_state: Tensor | None = None
        self.epoch = self.steps = 0
        self.history: list[dict[str, float]] = []
        self._sums = {"best_energy": 0.0, "mean_energy": 0.0}
        self._steps_of_epoch = 0
        self._engine: Engine | None = None
        self._evolved = False  # since the last step
        self._credit: tuple[Tensor, Tensor] | None = None  # scores before this step, and what it has added to them
        self._plan, self._parts = Plan(), dict[nn.Parameter, Part]()
        self._kept_step, self._averaged = KeptStep(), False
        if example is not None:
            self._engine_for(example)

    @property
    def frozen(self) -> bool:
        """True once the best state is final."""
        return self.frozen_state is not None

    @property
    def best_state(self) -> Tensor:
        """(num_units,) bool, the state of lowest energy; the first one of equals."""
        return self.population[int(self.energies.argmin())] if self.frozen_state is None else self.frozen_state

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
        if self.energy is margin:
            check_labels(engine.structure.graph, x, y)
        with self._undone_on_error():
            if not self.frozen and (not self._evolved if evolve is None else evolve):
                self._evolve(engine, x, y)
                self._evolved = True
            outputs, plan = engine.train(self.best_state, x)
        if plan is not self._plan:
            self._plan, self._parts = plan, parts(engine.modules, plan)
        self._averaged, self._credit = False, None
        return criterion(outputs, y)

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
        self.average_gradients()
        if self.target is not None and self.target.informed and not self.frozen:
            if scaler is not None:
                _unscale_(scaler, optimizer)
            self._learn_scores(optimizer)

        def computed() -> Any:
            found = closure()
            self.average_gradients()
            return found

        again = None if closure is None else computed
        how = {"final": self.frozen, "scaler": scaler, "closure": again}
        found = self._kept_step(optimizer, lambda: self._parts, rules, **how)
        self._evolved = False
        return found

    def average_gradients(self) -> None:
        """Averages the gradients over the ranks of torch.distributed, once after a `loss`.

        `step` does it; call it yourself before what looks at the gradients, such as clipping.
        """
        if not self._averaged:
            distributed.average_gradients(self.model.parameters())
        self._averaged = True

    def end_epoch(self) -> dict[str, float]:
        """Closes an epoch: adds its values to `history`, returns them, and freezes if the time has come."""
        steps = self._steps_of_epoch
        # Energies are known only where the population evolved: an epoch after the freeze has none.
        values = {name: total / steps for name, total in self._sums.items() if steps}
        values["diversity"] = 0.0 if self.frozen else evolution.diversity(self.population)
        values["kept_units"] = float(self.best_state.float().mean())
        self.history.append(values)
        self._sums = dict.fromkeys(self._sums, 0.0)
        self._steps_of_epoch = 0
        self.epoch += 1
        if not self.frozen and self.freeze_epoch is not None and self.epoch >= self.freeze_epoch:
            self.freeze()
        return values

    def freeze(self) -> None:
        """Makes the best state final: from now on its sub-network is trained, without evolution.

        Raises:
            ValueError: There is a target, and no batch has been seen yet, so shapes are unknown.
        """
        if self.target is None:
            self.frozen_state = self.best_state.clone()
        else:
            self.frozen_state = self._exactly(self.target.kept, self.best_state)

    def prune(self, batches: Iterable[Tensor] | None = None) -> SmallerNetwork:
        """The physically smaller network of the best state, with weights of its own.

        Args:
            batches: Inputs, or (inputs, ...) as a DataLoader gives them, on which its batch-norm statistics are
                measured anew; None to keep the running ones.

        Raises:
            ValueError: No batch has been seen yet, so shapes are unknown.
        """
        engine, kept = self._seen_engine(), self.units.kept(self.best_state.cpu())
        if isinstance(self.model, SmallerNetwork):
            smaller = prune(self.model, kept, engine.example)
        else:
            smaller = cut_out(engine.structure, engine.modules, self.model, kept, engine.example)
        return smaller if batches is None else recalibrate_(smaller, batches)

    def carry_(self, optimizer: Optimizer, smaller: SmallerNetwork, other: Optimizer) -> None:
        """Gives an optimiser of the pruned network the states of yours, so that fine-tuning goes on with its momentum.

        Args:
            optimizer: The one that has stepped in this search.
            smaller: What `prune` has just returned.
            other: An optimiser of the same class for the parameters of `smaller`; its own states are lost.

        Raises:
            ValueError: No batch has been seen yet, or the states do not fit.
        """
        engine = self._seen_engine()
        left = parts(engine.modules, engine.structure.plan(self.units.kept(self.best_state.cpu())))
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
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that later decisions depend on, to be saved with torch.save."""
        return {
            "population": self.population.clone(),
            "energies": self.energies.clone(),
            "scores": self.scores.clone(),
            "stage": (self._stage, self._count),
            "frozen_state": None if self.frozen_state is None else self.frozen_state.clone(),
            "generator": self.generator.get_state(),
            "epoch": self.epoch,
            "steps": self.steps,
            "history": [dict(values) for values in self.history],
            "sums": dict(self._sums),
            "steps_of_epoch": self._steps_of_epoch,
            "evolved": self._evolved,
        }

    def __reduce__(self) -> Any:
        raise TypeError("a search can be neither copied nor pickled: save its state_dict, and load it in a new one")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on exactly where `state_dict` was taken.

        Raises:
            ValueError: The state is not one, or belongs to another network or population size. Nothing has changed.
        """
        check_state(state, self.state_dict(), self.units)
        device = self.population.device
        self.population = state["population"].to(device, copy=True)
        self.energies = state["energies"].to(device, copy=True)
        self.scores = state["scores"].to(device, copy=True)
        self._stage, self._count = state["stage"]
        frozen = state["frozen_state"]
        self.frozen_state = None if frozen is None else frozen.to(device, copy=True)
        self.generator.set_state(state["generator"].cpu())
        self.epoch, self.steps, self._steps_of_epoch = state["epoch"], state["steps"], state["steps_of_epoch"]
        self.history = [dict(values) for values in state["history"]]
        self._sums, self._evolved = dict(state["sums"]), state["evolved"]

    def _evolve(self, engine: Engine, x: Tensor, y: Any) -> None:
        """Mutation, crossover, selection on one batch."""
        if self.target is not None and self.target.stage(self.steps) == 0:
            self.steps += 1
            return
        stage, count, population = self._held(self.population)
        mutants = self.mutation(population, self.mutation_factor, self.generator)
        candidates = evolution.cross(population, mutants, self.crossover_rate, self.generator)
        if self.target is not None:
            candidates = hold(candidates, count, self.scores, self.target, self.generator)
        self.units.repair_(candidates)
        anew = self.steps == 0 or (self.reevaluate_every > 0 and self.steps % self.reevaluate_every == 0)
        anew = anew or stage != self._stage
        size, first = len(population), self.steps * self.candidates_per_step
        turn = (torch.arange(self.candidates_per_step, device=population.device) + first) % size
        states = torch.cat([population, candidates[turn]]) if anew else candidates[turn]
        seen = x[: self.energy_examples], first_examples(y, self.energy_examples)
        found = engine.energies(states, *seen, known=None if anew else (population, self.energies))
        energies = found[:size] if anew else self.energies.to(found.dtype)
        rivals = torch.full_like(energies, torch.inf).index_copy_(0, turn, found[-len(turn) :])
        self._stage, self._count = stage, count
        self.population, self.energies = evolution.select(population, energies, candidates, rivals)
        self.steps += 1
        self._steps_of_epoch += 1
        self._sums["best_energy"] += float(self.energies.min())
        self._sums["mean_energy"] += float(self.energies.mean())
        if self.target is None and bool((self.population == self.population[0]).all()):
            self.freeze()

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """Takes back what a batch has changed if it ends in an error."""
        before, generator = {**vars(self), "_sums": dict(self._sums)}, self.generator.get_state()
        try:
            yield
        except Exception:
            vars(self).update(before)
            self.generator.set_state(generator)
            raise

    def _held(self, population: Tensor) -> tuple[int, int, Tensor]:
        """Stage of the descent, units that its states keep, and the population cut down to them if it is new."""
        stage = 0 if self.target is None else self.target.stage(self.steps)
        if stage == self._stage:
            return stage, self._count, population
        share = self.target.share(stage)
        count = int(self._exactly(share, self.best_state).sum())
        held = hold(population, count, self.scores, self.target, self.generator)
        return stage, count, self.units.repair_(held)

    def _exactly(self, share: float, state: Tensor) -> Tensor:
        """The state nearest to `state` whose network has `share` of the parameters."""
        quiet, engine = replace(self.target, noise=0.0), self._seen_engine()

        def of(count: int) -> Tensor:
            return self.units.repair_(hold(state[None], count, self.scores, quiet, self.generator))[0]

        return of(count_for_share(share, self.units.num_units, lambda count: engine.share(of(count))))

    def _learn_scores(self, optimizer: Optimizer) -> None:
        """Updates the moving averages of the units that were kept in the last backward.

        Several optimisers that share a step add up their parameters' parts, each before it moves them.
        """
        engine = self._seen_engine()
        if self._credit is None:
            self._credit = self.scores, torch.zeros_like(self.scores)
        own = {parameter for group in optimizer.param_groups for parameter in group["params"]}
        before, found = self._credit
        found = found + unit_scores(self.units, engine.modules, engine.structure.partners, own)
        if not bool(found.isfinite().all()):  # a step that a scaler leaves out
            return
        self._credit = before, found
        memory = self.target.memory if bool(before.any()) else 0.0
        self.scores = torch.where(self.best_state, memory * before + (1 - memory) * found, before)

    def _engine_for(self, x: Tensor) -> Engine:
        """The analysis of the network for inputs of this size, anew when it meets a new size or network."""
        if self._engine is None or not self._engine.fits(x):
            self._engine = Engine(
                self.model,
                self.units,
                batch_energy(self.energy),
                x,
                workers=self.workers,
                energy_dtype=self.energy_dtype,
            )
        return self._engine

    def _seen_engine(self) -> Engine:
        if self._engine is None:
            raise ValueError("shapes are unknown until the search has seen a batch: call loss(x, y) first")
        return self._engine_for(self._engine.example)


def _unscale_(scaler: torch.amp.GradScaler, optimizer: Optimizer) -> None:
    """Unscales the gradients of an optimiser unless the loop has done so."""
    try:
        scaler.unscale_(optimizer)
    except RuntimeError as error:
        if "already been called" not in str(error):
            raise
