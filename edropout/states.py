"""The pruning states of a search: how they evolve on a batch, descend to a target, become final, and are saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from edropout import evolution
from edropout.checks import check_state
from edropout.curvature import ExampleWeights, Moments
from edropout.descent import Descent
from edropout.energy import Energy, batch_energy
from edropout.subnetworks.engine import Engine, first_examples
from edropout.subnetworks.units import Units
from edropout.target import Target, count_for_share, drawn_by_lot, hold, unit_scores

# Sizes of inputs whose analysis is kept: enough for multi-scale training, and bounded.
SIZES_KEPT = 8

Mutation = Callable[[Tensor, float, torch.Generator], Tensor]


class States:
    """What `EDropout` knows of its population; a loop talks to `EDropout`, which says what the settings mean.

    Attributes:
        population: (population_size, num_units) bool.
        energies: (population_size,) float, infinite before the first batch.
        scores: (num_units,) float, of the units' worth, learned with a target or drawn by lot.
        moments: What energies with curvature are made of; None unless the target goes by them.
        frozen_state: (num_units,) bool once it is final, else None.
        epoch, steps: Epochs that were closed and batches on which the population has evolved.
        history: Values of each epoch.
    """

    mutation_factor: float
    crossover_rate: float
    mutation: Mutation
    energy: Energy
    freeze_epoch: int | None
    reevaluate_every: int
    candidates_per_step: int
    energy_examples: int | None
    energy_dtype: torch.dtype | None
    workers: int | None

    def __init__(
        self,
        model: nn.Module,
        units: Units,
        target: Target | None,
        generator: torch.Generator,
        *,
        size: int,
        initial_kept: float,
    ) -> None:
        units.check(model)
        self.model, self.units, self.target, self.generator = model, units, target, generator
        kept = initial_kept if target is None else 1.0
        size = 1 if target is not None and target.alone else size
        self.population = units.repair_(evolution.initial_population(size, units.num_units, kept, generator))
        self.energies = torch.full((size,), torch.inf, device=generator.device)
        self.scores = torch.zeros(units.num_units, device=generator.device)
        self.moments: Moments | None = None
        if target is not None and target.by == "lot":
            self.scores = drawn_by_lot(units, generator)
        elif target is not None and target.by == "curvature":
            self.moments = Moments.none(2 * units.num_units, generator.device)
        self.frozen_state: Tensor | None = None
        self.epoch = self.steps = 0
        self.history: list[dict[str, float]] = []
        self._stage, self._count = 0, units.num_units
        self._sums = {"best_energy": 0.0, "mean_energy": 0.0}
        self._steps_of_epoch = 0
        self._evolved = False  # since the last step
        # Scores or moments before this step, and what it has added to them.
        self._credit: tuple[Any, Tensor] | None = None
        self._weights = ExampleWeights()
        self._path: Descent | None = None
        self._engines: list[Engine] = []  # of the input sizes that were met last, the latest at the end

    @property
    def frozen(self) -> bool:
        """True once the best state is final."""
        return self.frozen_state is not None

    @property
    def best_state(self) -> Tensor:
        """(num_units,) bool, the state of lowest energy; the first one of equals."""
        return self.population[int(self.energies.argmin())] if self.frozen_state is None else self.frozen_state

    def end_epoch(self) -> dict[str, float]:
        """Closes an epoch: adds its values to `history`, returns them, and freezes if the time has come."""
        steps = self._steps_of_epoch
        # Energies are known only where the population evolved: an epoch after the freeze has none.
        values = {name: total / steps for name, total in self._sums.items() if steps}
        values["diversity"] = 0.0 if self.frozen or self._alone else evolution.diversity(self.population)
        values["kept_units"] = float(self.best_state.float().mean())
        self.history.append(values)
        self._sums = dict.fromkeys(self._sums, 0.0)
        self._steps_of_epoch = 0
        self.epoch += 1
        if not (self.frozen or self._alone) and self.freeze_epoch is not None and self.epoch >= self.freeze_epoch:
            self.freeze()
        return values

    def freeze(self) -> None:
        """Makes the best state final: from now on its sub-network is trained, without evolution.

        Raises:
            ValueError: There is a target, and no batch has been seen yet, so shapes or energies are unknown.
        """
        if self.target is None:
            self.frozen_state = self.best_state.clone()
        elif self.target.alone:
            self._descend(self._seen_engine(), self.target, self.target.stages)
        else:
            self.frozen_state = self._exactly(self.target.share(self.target.stages), self.best_state, self.target)

    def state_dict(self) -> dict[str, Any]:
        """Everything that later decisions depend on, to be saved with torch.save."""
        return {
            "population": self.population.clone(),
            "energies": self.energies.clone(),
            "scores": self.scores.clone(),
            "moments": None if self.moments is None else (self.moments.seen.clone(), self.moments.sums.clone()),
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
        if self.moments is not None:
            self.moments = Moments(*(values.to(device, copy=True) for values in state["moments"]))
        self._stage, self._count = state["stage"]
        frozen = state["frozen_state"]
        self.frozen_state = None if frozen is None else frozen.to(device, copy=True)
        self.generator.set_state(state["generator"].cpu())
        self.epoch, self.steps, self._steps_of_epoch = state["epoch"], state["steps"], state["steps_of_epoch"]
        self.history = [dict(values) for values in state["history"]]
        self._sums, self._evolved = dict(state["sums"]), state["evolved"]

    def _evolve(self, engine: Engine, x: Tensor, y: Any) -> None:
        """Mutation, crossover, selection on one batch; with a target the next stage of its descent."""
        if self.target is not None and self.steps == 0:
            self._descent(engine, self.target).check_reach()
        if self.target is not None and (self.target.alone or self.target.stage(self.steps) == 0):
            stage = self.target.stage(self.steps)
            if stage != self._stage:
                self._descend(engine, self.target, stage)
            self.steps += 1
            return
        stage, count, population = self._held(self.population)
        mutants = self.mutation(population, self.mutation_factor, self.generator)
        candidates = evolution.cross(population, mutants, self.crossover_rate, self.generator)
        if self.target is not None:
            candidates = hold(candidates, count, self.scores, self.target, self.generator)
        self.units.repair_(candidates, None if self.target is None else self.scores)
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
        target = self.target
        stage = 0 if target is None else target.stage(self.steps)
        if target is None or stage == self._stage:
            return stage, self._count, population
        count = int(self._exactly(target.share(stage), self.best_state, target).sum())
        held = hold(population, count, self.scores, target, self.generator)
        return stage, count, self.units.repair_(held, self.scores)

    def _exactly(self, share: float, state: Tensor, target: Target) -> Tensor:
        """The state nearest to `state` whose network has `share` of the parameters."""
        quiet, engine = replace(target, noise=0.0), self._seen_engine()

        def of(count: int) -> Tensor:
            return self.units.repair_(hold(state[None], count, self.scores, quiet, self.generator), self.scores)[0]

        used = self._descent(engine, target).budget.used
        return of(count_for_share(share, self.units.num_units, lambda count: used(of(count))))

    def _descend(self, engine: Engine, target: Target, stage: int) -> None:
        """Brings the one state down to its stage, without candidates; the last stage makes it final."""
        worth = self.scores if self.moments is None else self.moments
        self.population = self._descent(engine, target).state_at(stage, self.best_state, worth)[None]
        self._stage = stage
        if stage == target.stages:
            self.frozen_state = self.population[0].clone()

    def _descent(self, engine: Engine, target: Target) -> Descent:
        if self._path is None or self._path.engine is not engine:
            self._path = Descent(engine, self.units, target)
        return self._path

    def _learn(self, optimizer: Optimizer, target: Target, scale: float) -> None:
        """Updates the moving averages of the units that were kept in the last backward.

        Several optimisers that share a step add up their parameters' parts, each before it moves them.
        """
        engine, device = self._seen_engine(), self.population.device
        own = {parameter for group in optimizer.param_groups for parameter in group["params"]}
        before, found = self._credit or (self.moments or self.scores, torch.zeros(self.units.num_units, device=device))
        found = found + unit_scores(self.units, engine.modules, engine.structure.partners, own)
        if not bool(found.isfinite().all()):  # a step that a scaler leaves out
            return
        self._credit = before, found
        if isinstance(before, Moments):
            weight, examples = self._weights.found(scale)
            if examples:  # otherwise what was differentiated is no loss of this search
                gradients = torch.where(self.best_state, found.double() / weight, 0.0)
                of_moves = self._descent(engine, target).moves.gradients(gradients)
                self.moments = before.after(of_moves, examples, target.memory)
        else:
            memory = target.memory if bool(before.any()) else 0.0
            self.scores = torch.where(self.best_state, memory * before + (1 - memory) * found, before)

    @property
    def _alone(self) -> bool:
        return self.target is not None and self.target.alone

    @property
    def _learns(self) -> bool:
        """True while steps teach something about the units."""
        target = self.target
        return target is not None and not self.frozen and (target.informed if not target.alone else target.by != "lot")

    def _engine_for(self, x: Tensor) -> Engine:
        """The analysis of the network for inputs of this size; those of the last few sizes are kept."""
        found = next((engine for engine in reversed(self._engines) if engine.fits(x)), None)
        if found is None:
            energy, workers, dtype = batch_energy(self.energy), self.workers, self.energy_dtype
            found = Engine(self.model, self.units, energy, x, workers=workers, energy_dtype=dtype)
            self.units.repair_(self.population)  # some layers may have turned out to be cut by nobody
        self._engines = [*[engine for engine in self._engines if engine is not found][1 - SIZES_KEPT :], found]
        return found

    def _seen_engine(self) -> Engine:
        if not self._engines:
            raise ValueError("shapes are unknown until the search has seen a batch: call loss(x, y) first")
        return self._engine_for(self._engines[-1].example)
