"""A method under test: it is run on easy data as a cell runs it, and watched (harness/runs/checks.py says for what)."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.config.recipe import Recipe
from harness.training.memory import Run
from harness.training.task import Task

SHAPE = (1, 8, 8)
CLASSES = 3
RECIPE = Recipe.of(
    epochs=6,
    prune_epoch=3,
    batch_size=16,
    optimizer={"name": "adadelta", "lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 1e-5},
    schedule={"step_epochs": 3, "gamma": 0.1},
    samples=2,
)


class EasyData:
    """Noisy images, told apart by which third of their rows is bright; the order depends on the epoch alone."""

    def __init__(self, examples: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.y = torch.arange(examples) % CLASSES
        rows = torch.arange(SHAPE[1]) * CLASSES // SHAPE[1]
        bright = (rows == self.y[:, None]).float()[:, None, :, None]
        self.x = bright + 0.3 * torch.randn(examples, *SHAPE, generator=generator)
        self.drawn = 0  # Batches that were handed out.

    @property
    def num_examples(self) -> int:
        return len(self.y)

    def __len__(self) -> int:
        return -(-self.num_examples // RECIPE.batch_size)

    def epoch(self, index: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(index))
        for batch in order.split(RECIPE.batch_size)[start:]:
            self.drawn += 1
            yield self.x[batch], self.y[batch]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield self.x, self.y


class StoppingData(EasyData):
    """Tells the run to stop, as a signal would, when it has handed out some batches."""

    def __init__(self, run: Run, batches: int, **options: int) -> None:
        super().__init__(**options)
        self.run, self.left = run, batches

    def epoch(self, index: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in super().epoch(index, start):
            self.left -= 1
            self.run.stopping |= self.left == 0
            yield batch


@dataclass(frozen=True)
class WatchedTask(Task):
    """Notices weights that are zero when training starts and are not when it ends.

    Attributes:
        grown_back: A clause for each layer that has some.
    """

    grown_back: list[str] = field(default_factory=list)

    def train(self, model: nn.Module, **options: Any) -> nn.Module:
        zero = {name: weight == 0 for name, weight in model.named_parameters() if weight.dim() > 1}
        trained = super().train(model, **options)
        for name, weight in model.named_parameters():
            # Who changes the shape removes; and a weight that is zero as a whole has not been pruned: it starts so.
            if name not in zero or zero[name].shape != weight.shape or zero[name].all():
                continue
            if (back := zero[name] & (weight != 0)).any():
                self.grown_back.append(f"{int(back.sum())} of {int(zero[name].sum())} weights of '{name}'")
        return trained


@dataclass(frozen=True)
class Outcome:
    """A finished fit: the network, its task, and the files that were opened meanwhile."""

    network: nn.Module
    task: WatchedTask
    opened: frozenset[str]


@dataclass
class Subject:
    """A method under test.

    Attributes:
        fit: The method.
        build: Gives a freshly initialised network from images of SHAPE to CLASSES logits.
        from_dense: The method's rule lists `init=DENSE`.
        inputs: The files that its rule lists further.
        hyperparameters: Of `fit`, where its defaults do not suit a small network.
    """

    fit: Callable[..., nn.Module]
    build: Callable[[], nn.Module]
    from_dense: bool = False
    inputs: Mapping[str, Path] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def folder(self) -> Path:
        self._temporary = tempfile.TemporaryDirectory()
        return Path(self._temporary.name)

    @cached_property
    def dense_weights(self) -> dict[str, Tensor]:
        """The dense network at recipe.prune_epoch."""
        torch.manual_seed(1)
        return self.task("dense").train(self.build(), epochs=RECIPE.prune_epoch).state_dict()

    @cached_property
    def outcome(self) -> Outcome:
        """One undisturbed run, shared by the checks."""
        return self.run("whole")

    def task(self, folder: str, stop_after: int | None = None) -> WatchedTask:
        """A task on easy data; with `stop_after` its run is told to stop after so many batches."""
        (self.folder / folder).mkdir(exist_ok=True)
        run = Run(folder=self.folder / folder, key="0" * 16, say=lambda text: None)
        options = {"examples": 8 * RECIPE.batch_size, "seed": 1}
        return WatchedTask(
            train_loader=EasyData(**options) if stop_after is None else StoppingData(run, stop_after, **options),
            val_loader=EasyData(examples=3 * RECIPE.batch_size, seed=2),
            num_classes=CLASSES,
            input_shape=SHAPE,
            recipe=RECIPE,
            device=torch.device("cpu"),
            seed=7,
            inputs=self.inputs,
            run=run,
        )

    def run(self, folder: str, stop_after: int | None = None) -> Outcome:
        """Fit as harness.runs.cell does, in a run folder of its own."""
        torch.manual_seed(1)
        model, task = self.build(), self.task(folder, stop_after)
        if self.from_dense:
            model.load_state_dict(self.dense_weights)
            task.run.epoch = RECIPE.prune_epoch
        torch.manual_seed(2)
        with opened_files() as opened:
            network = self.fit(model, task, **self.hyperparameters)
        return Outcome(network, task, frozenset(opened))


@contextmanager
def opened_files() -> Iterator[set[str]]:
    """Collects the data files that this process opens: none of Python's, of its packages' or of the kernel's."""
    opened: set[str] = set()
    watching = [True]
    code = (sys.prefix, sys.base_prefix, "/proc", "/sys", "/dev", "/etc", "/usr")

    def hook(event: str, arguments: tuple) -> None:
        if event == "open" and watching and isinstance(arguments[0], str | bytes):
            path = arguments[0] if isinstance(arguments[0], str) else arguments[0].decode()
            if not path.startswith(code) and not path.endswith((".py", ".pyc")):
                opened.add(path)

    sys.addaudithook(hook)  # It cannot be taken away again, only silenced.
    try:
        yield opened
    finally:
        watching.clear()
