"""What a method is given: training and validation data, the recipe, and the one training loop. Never the test set."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.config.recipe import Recipe
from harness.kinds import Kind
from harness.kinds.classification import KIND as CLASSIFICATION
from harness.training.loop import Batches, Stateful, TrainingBatches
from harness.training.memory import Run
from harness.training.phase import Phase


class BudgetError(ValueError):
    """A method asked for more epochs than the recipe gives to every method."""


@dataclass(frozen=True)
class Task:
    """Data, recipe and loop for one cell.

    Attributes:
        train_loader: `epoch(index, start=0)` yields (x, y) of the training set, augmented; `len()` counts batches,
            `num_examples` what they come from.
        val_loader: Iterable of (x, y) of the validation set, not augmented.
        num_classes: Number of classes, of words in the vocabulary, or of targets.
        input_shape: Of one x: (channels, height, width), (time,) or (features,).
        recipe: How every method of this dataset is trained.
        device: Where x, y and the network live.
        seed: The cell's seed.
        inputs: Files that the method's rule names among its inputs, such as `init`; empty for most.
        run: The run's memory; not for methods.
        kind: Classification, language or regression: what the outputs, the targets and the metrics are.
    """

    train_loader: TrainingBatches
    val_loader: Batches
    num_classes: int
    input_shape: tuple[int, ...]
    recipe: Recipe
    device: torch.device
    seed: int
    inputs: Mapping[str, Path]
    run: Run
    kind: Kind = CLASSIFICATION

    @property
    def epochs_left(self) -> int:
        """Epochs of the budget that this method has not used yet."""
        return self.recipe.epochs - self.run.epoch

    @property
    def examples(self) -> int:
        """Training examples: what a Bayesian penalty is divided by, beside the mean loss of an example."""
        return self.train_loader.num_examples

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean loss of what the network gave for a batch: what `train` lowers unless it is given another."""
        return self.kind.loss(outputs, y)

    def example(self, batch: int = 1) -> Tensor:
        """A blank input, to trace networks with: (batch, *input_shape)."""
        return self.kind.example(self.input_shape, batch, self.device)

    def generator(self, purpose: str) -> torch.Generator:
        """A seeded CPU generator of its own for each purpose; the same one after a resume."""
        digest = hashlib.sha256(f"{purpose}/{self.seed}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def log(self, **values: float) -> None:
        """Record numbers about the method itself; they end up under `extra` in metrics.json."""
        self.run.logged.update({name: float(value) for name, value in values.items()})

    def also_full(self, model: nn.Module) -> None:
        """Have the network with all its weights evaluated too (the paper's F beside the pruned P)."""
        self.run.full = model

    def also_sampled(self, model: nn.Module) -> nn.Module:
        """Have predictions that average `recipe.samples` passes of `model`, whose layers draw, evaluated too.

        Returns:
            `model`, which may be changed: it is evaluated as it is now.
        """
        if self.recipe.samples:
            self.run.sampled = copy.deepcopy(model)
        return model

    def train(
        self,
        model: nn.Module,
        *,
        epochs: int | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        step: Callable[[torch.optim.Optimizer], Any] | None = None,
        state: Mapping[str, Stateful] | None = None,
        evaluated: Callable[[], nn.Module] | None = None,
        columns: Callable[[], Mapping[str, float]] | None = None,
        parameters: list[nn.Parameter] | None = None,
    ) -> nn.Module:
        """Train `model` in place with the recipe, going on where an interrupted run stopped.

        Each call is one phase with a fresh optimiser; the learning rate follows the position in the whole budget.

        Args:
            model: The network.
            epochs: How many epochs of the budget to use; all that are left by default.
            loss: Mean loss of a batch (x, y); `self.loss(model(x), y)` by default, compiled if the recipe says so.
            step: Applies the gradients; `optimizer.step()` by default.
            state: Named objects with `state_dict` and `load_state_dict` whose state belongs to the checkpoint.
            evaluated: Gives the network that validation measures after each epoch; `model` by default.
            columns: Numbers for the history row of each epoch.
            parameters: What the optimiser updates; all parameters of `model` by default.

        Returns:
            `model`.

        Raises:
            BudgetError: more epochs than are left.
            TrainingError: the loss is not finite.
        """
        epochs = self.epochs_left if epochs is None else epochs
        if epochs > self.epochs_left:
            raise BudgetError(
                f"the method asks for {epochs} epochs and {self.epochs_left} of the budget are left: "
                "every method of a dataset is trained for recipe.epochs epochs"
            )
        # The compiled module shares its parameters with `model` and compiles at its first batch.
        runnable = torch.compile(model) if self.recipe.compile and loss is None else model
        optimizer = self.recipe.make_optimizer(list(model.parameters()) if parameters is None else parameters)
        phase = Phase(
            self.run,
            train_loader=self.train_loader,
            val_loader=self.val_loader,
            recipe=self.recipe,
            kind=self.kind,
            device=self.device,
            model=model,
            optimizer=optimizer,
            state=state or {},
            last_epoch=self.run.epoch + epochs,
            columns=columns,
        )
        phase.run(
            loss=loss or (lambda x, y: self.loss(runnable(x), y)),
            step=step or (lambda chosen: chosen.step()),
            evaluated=evaluated or (lambda: model),
        )
        return model
