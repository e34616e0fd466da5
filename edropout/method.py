"""EDropout as a method of the benchmark suite: the search inside the shared training loop."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from edropout.energy import Energy, margin, squared_error, token_loss
from edropout.evolution import mutate, mutate_as_released
from edropout.search import EDropout
from edropout.subnetworks.units import Units
from edropout.target import Target

RECALIBRATION_BATCHES = 20
"""Training batches on which batch-norm statistics are measured anew before an evaluation."""
ENERGIES: dict[str, Energy] = {"regression": squared_error, "language": token_loss}
"""Of the kinds of tasks that have no classes to tell apart by a margin; the paper knows classification alone."""


def fit(
    model: nn.Module,
    task: Any,
    *,
    population_size: Annotated[int, "[4, inf)"] = 8,
    mutation_factor: Annotated[float, "[0, 1]"] = 0.9,
    crossover_rate: Annotated[float, "[0, 1]"] = 0.9,
    initial_kept: Annotated[float, "[0, 1]"] = 0.5,
    freeze_epoch: Annotated[int, "[1, inf)"] | None = None,
    reevaluate_every: Annotated[int, "[0, inf)"] = 0,
    released_operator: bool = False,
    target_kept: Annotated[float, "(0, 1]"] | None = None,
    target_macs: Annotated[float, "(0, 1]"] | Literal["uniform"] | None = None,
    by: Literal["population", "curvature"] = "population",
    power: Annotated[float, "[0, inf)"] = 0.5,
    memory: Annotated[float, "[0, 1)"] = 0.98,
    warm_up: Annotated[float, "(0, 1)"] = 0.1,
    until: Annotated[float, "(0, 1]"] = 0.35,
    informed: bool = True,
    candidates_per_step: Annotated[int, "[1, inf)"] | None = None,
    energy_examples: Annotated[int, "[2, inf)"] | None = None,
    energy_dtype: Literal["bfloat16", "float16", "float32"] | None = None,
    multiple_of: Annotated[int, "[1, inf)"] = 1,
) -> nn.Module:
    """Evolve pruning states while `model` is trained from scratch (Salehinejad & Valaee, arXiv:2006.04270).

    Args:
        model: A freshly initialised network.
        task: Data, recipe and loop (`harness.training.task.Task`; the library does not import it).
        population_size: Number of pruning states; 8 in the authors' README.
        mutation_factor: Probability that a unit on which two states differ is flipped in a third; 0.9 in their code.
        crossover_rate: Probability that a candidate takes a unit from its mutant; 0.9 in their code.
        initial_kept: Probability that a unit is kept at the start; 0.5 in their README.
        freeze_epoch: Epoch at which the best state becomes final if the population has not converged before; the
            recipe's `prune_epoch` by default, half of the budget as in the paper (100 of 200).
        reevaluate_every: Measure surviving states anew on every n-th batch; 0, never, is what their code does.
        released_operator: Mutate as their code does, which is not what the paper describes.
        target_kept: Share of the parameters to reach, of the full network, which is trained first and then loses units
            gradually. None, without target_macs, is the paper's search, whose rate is not controlled.
        target_macs: The same of the multiply-accumulates; "uniform" for those that are left where all layers lose the
            same share of their filters by lot until target_kept of the parameters are left.
        by: With a target, what chooses the units: the population, over two thirds of the time until `freeze_epoch`, or
            energies with curvature and no candidates, from `warm_up` to `until`, after which the state is final.
        power: By curvature, of the price of what is budgeted.
        memory: Weight of the past in the moving averages of scores and energies.
        warm_up: By curvature, share of all steps that the full network is trained.
        until: By curvature, share of all steps at the end of the descent.
        informed: By the population, propose units by the gradient of the loss with respect to their state.
        candidates_per_step: States that get a candidate on each batch, taking turns; all by default.
        energy_examples: Examples of each batch on which energies are measured; all by default.
        energy_dtype: "bfloat16" or "float16" to measure energies in less precision.
        multiple_of: Keep multiples of so many filters of each layer; the last linear layer then follows its filters.

    Returns:
        The physically smaller network of the best state (the paper's P); the full one (F) is evaluated as well.
    """
    freeze_epoch = task.recipe.prune_epoch if freeze_epoch is None else freeze_epoch
    example, target = next(iter(task.val_loader))[0][:2], None
    if target_macs == "uniform":
        target_macs = uniform_macs(model, task.seed, example, target_kept)
    if target_kept is None and target_macs is None and by == "curvature":
        raise ValueError("energies with curvature need to know how much is to be left: give target_kept or target_macs")
    if target_kept is not None or target_macs is not None:
        steps = freeze_epoch * len(task.train_loader)
        start, length = path(task, warm_up, until) if by == "curvature" else (steps // 3, max(1, steps - steps // 3))
        target = Target(
            target_kept,
            warm_up=start,
            steps=length,
            kept_macs=target_macs,
            by=by,
            power=power,
            memory=memory,
            informed=informed,
        )
    search = EDropout(
        model,
        population_size=population_size,
        mutation_factor=mutation_factor,
        crossover_rate=crossover_rate,
        initial_kept=initial_kept,
        freeze_epoch=freeze_epoch,
        reevaluate_every=reevaluate_every,
        mutation=mutate_as_released if released_operator else mutate,
        units=Units(model, multiple_of=multiple_of, example=example),
        target=target,
        candidates_per_step=candidates_per_step,
        energy_examples=energy_examples,
        energy=ENERGIES.get(task.kind.name, margin),
        energy_dtype=None if energy_dtype is None else vars(torch).get(energy_dtype, energy_dtype),
        seed=task.seed,
        example=example,
    )
    if by == "curvature":
        return descend(search, task)

    def batches() -> list[Tensor]:
        return [x for x, _ in islice(task.train_loader.epoch(0), RECALIBRATION_BATCHES)]

    train(search, task, lambda: search.prune(batches()))
    kept = search.kept_ratio()
    task.log(authors_kept_ratio=kept.authors, kept_units=kept.units)
    task.also_full(search.full(batches()))
    return search.prune(batches())


def descend(search: EDropout, task: Any) -> nn.Module:
    """Train along a path that one state takes, whose running statistics are those of the state: the smaller network."""
    train(search, task, search.prune)
    kept = search.kept_ratio()
    task.log(authors_kept_ratio=kept.authors, kept_units=kept.units)
    return search.prune()


def train(search: EDropout, task: Any, evaluated: Callable[[], nn.Module]) -> None:
    """Use the whole budget for a search; `evaluated` gives the network that validation measures."""

    def columns() -> dict[str, float]:
        kept = search.kept_ratio().physical
        return {**search.end_epoch(), "kept_ratio": kept, "frozen": float(search.frozen)}

    task.train(
        search.model,
        loss=lambda x, y: search.loss(x, y, criterion=task.loss),
        step=search.step,
        state={"search": search},
        evaluated=evaluated,
        columns=columns,
    )


def path(task: Any, warm_up: float, until: float) -> tuple[int, int]:
    """Steps of the dense start and of the descent, from their ends as shares of all steps.

    Raises:
        ValueError: the descent ends before it begins.
    """
    if not warm_up < until:
        raise ValueError(f"the descent must end after the warm-up: until is {until}, warm_up {warm_up}")
    total = task.epochs_left * len(task.train_loader)
    start = max(2, round(warm_up * total))
    return start, max(1, round(until * total) - start)


def uniform_macs(model: nn.Module, seed: int, example: Tensor, kept: float | None) -> float:
    """Share of the multiply-accumulates that is left where every layer loses the same share of its filters by lot."""
    if kept is None:
        raise ValueError("target_macs: uniform needs target_kept, the share of the parameters at which it is measured")
    by_lot = search_by_lot(model, seed, example, Target(kept, warm_up=0, steps=1, stages=1, by="lot"))
    by_lot.freeze()
    return by_lot.kept_ratio().macs


def search_by_lot(model: nn.Module, seed: int, example: Tensor, target: Target) -> EDropout:
    """The control: filters of all convolutions but stem and output layer go by lot; the last linear layer follows."""
    return EDropout(model, units=Units(model, final_linear=False), target=target, seed=seed, example=example)
