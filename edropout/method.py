"""EDropout as a method of the benchmark suite: the search inside the shared training loop."""

from __future__ import annotations

import functools
from itertools import islice
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from edropout.energy import Energy, margin, squared_error, token_loss
from edropout.evolution import mutate, mutate_as_released
from edropout.search import EDropout
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
    informed: bool = True,
    candidates_per_step: Annotated[int, "[1, inf)"] | None = None,
    energy_examples: Annotated[int, "[2, inf)"] | None = None,
    energy_dtype: Literal["bfloat16", "float16", "float32"] | None = None,
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
        target_kept: Share of the parameters to reach: the full network is trained for a third of the time until
            `freeze_epoch`, then units are dropped gradually. None is the paper's search, whose rate is not controlled.
        informed: With a target, propose units by the gradient of the loss with respect to their state.
        candidates_per_step: States that get a candidate on each batch, taking turns; all by default.
        energy_examples: Examples of each batch on which energies are measured; all by default.
        energy_dtype: "bfloat16" or "float16" to measure energies in less precision.

    Returns:
        The physically smaller network of the best state (the paper's P); the full one (F) is evaluated as well.
    """
    freeze_epoch = task.recipe.prune_epoch if freeze_epoch is None else freeze_epoch
    steps = freeze_epoch * len(task.train_loader)
    warm_up = steps // 3
    descent = functools.partial(Target, warm_up=warm_up, steps=max(1, steps - warm_up), informed=informed)
    search = EDropout(
        model,
        population_size=population_size,
        mutation_factor=mutation_factor,
        crossover_rate=crossover_rate,
        initial_kept=initial_kept,
        freeze_epoch=freeze_epoch,
        reevaluate_every=reevaluate_every,
        mutation=mutate_as_released if released_operator else mutate,
        target=None if target_kept is None else descent(target_kept),
        candidates_per_step=candidates_per_step,
        energy_examples=energy_examples,
        energy=ENERGIES.get(task.kind.name, margin),
        energy_dtype=None if energy_dtype is None else vars(torch).get(energy_dtype, energy_dtype),
        seed=task.seed,
        example=next(iter(task.val_loader))[0][:2],
    )

    def batches() -> list[Tensor]:
        return [x for x, _ in islice(task.train_loader.epoch(0), RECALIBRATION_BATCHES)]

    def columns() -> dict[str, float]:
        kept = search.kept_ratio().physical
        return {**search.end_epoch(), "kept_ratio": kept, "frozen": float(search.frozen)}

    task.train(
        model,
        loss=lambda x, y: search.loss(x, y, criterion=task.loss),
        step=search.step,
        state={"search": search},
        evaluated=lambda: search.prune(batches()),
        columns=columns,
    )
    kept = search.kept_ratio()
    task.log(authors_kept_ratio=kept.authors, kept_units=kept.units)
    task.also_full(search.full(batches()))
    return search.prune(batches())
