"""What every method must satisfy, ours or a third party's: run the functions of CHECKS on a Subject, in seconds."""

from __future__ import annotations

import copy
import inspect
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from harness.config.recipe import Recipe
from harness.measure.metrics import evaluate
from harness.pruning.structured import remove
from harness.training.memory import Interrupted, Run
from harness.training.task import Task

SHAPE = (1, 8, 8)
CLASSES = 3
RECIPE = Recipe.of(
    epochs=6,
    prune_epoch=3,
    batch_size=16,
    optimizer={"name": "adadelta", "lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 1e-5},
    schedule={"step_epochs": 3, "gamma": 0.1},
)
TOLERANCE = 1e-4


class EasyData:
    """Noisy images, told apart by which third of their rows is bright; the order depends on the epoch alone."""

    def __init__(self, examples: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.y = torch.arange(examples) % CLASSES
        rows = torch.arange(SHAPE[1]) * CLASSES // SHAPE[1]
        bright = (rows == self.y[:, None]).float()[:, None, :, None]
        self.x = bright + 0.3 * torch.randn(examples, *SHAPE, generator=generator)

    @property
    def num_examples(self) -> int:
        return len(self.y)

    def __len__(self) -> int:
        return -(-self.num_examples // RECIPE.batch_size)

    def epoch(self, index: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(index))
        for batch in order.split(RECIPE.batch_size)[start:]:
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
class Outcome:
    """A finished fit: the network, its task, and the files that were opened meanwhile."""

    network: nn.Module
    task: Task
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

    def task(self, folder: str, stop_after: int | None = None) -> Task:
        """A task on easy data; with `stop_after` its run is told to stop after so many batches."""
        (self.folder / folder).mkdir(exist_ok=True)
        run = Run(folder=self.folder / folder, key="0" * 16, say=lambda text: None)
        options = {"examples": 8 * RECIPE.batch_size, "seed": 1}
        return Task(
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


def check_signature(subject: Subject) -> None:
    parameters = list(inspect.signature(subject.fit).parameters.values())
    first = [parameter.name for parameter in parameters[:2]]
    assert first == ["model", "task"], f"fit must be fit(model, task, *, ...), not fit({', '.join(first)}, ...)"
    for parameter in parameters[2:]:
        assert parameter.kind is parameter.KEYWORD_ONLY, f"hyper-parameter {parameter.name} must be keyword-only"
        assert parameter.default is not parameter.empty, f"hyper-parameter {parameter.name} must have a default"


def check_returns_a_network_from_images_to_logits(subject: Subject) -> None:
    network = subject.outcome.network
    assert isinstance(network, nn.Module), f"fit must return a torch.nn.Module, not {type(network).__name__}"
    output = logits(network)
    assert tuple(output.shape) == (48, CLASSES), f"48 images of {CLASSES} classes gave logits of {tuple(output.shape)}"
    assert bool(output.isfinite().all()), "the network's logits are not finite"


def check_uses_exactly_its_budget(subject: Subject) -> None:
    used = subject.outcome.task.run.epoch
    assert used == RECIPE.epochs, f"the method used {used} of {RECIPE.epochs} epochs: equal terms means all of them"


def check_learns(subject: Subject) -> None:
    top1 = evaluate(subject.outcome.network, subject.outcome.task.val_loader)["top1"]
    assert top1 > 0.6, f"top1 on easy data of {CLASSES} classes is only {top1:.2f}"


def check_the_same_seed_gives_the_same_bits(subject: Subject) -> None:
    assert same_bits(subject.outcome.network, subject.run("again").network), (
        "two runs with the same seed differ: draw random numbers from task.generator only"
    )


def check_an_interrupted_run_ends_with_the_same_bits(subject: Subject) -> None:
    own = RECIPE.epochs - (RECIPE.prune_epoch if subject.from_dense else 0)
    batches = own * len(subject.outcome.task.train_loader)
    for stop in (2, batches // 2, batches - 1):
        interrupted = False
        try:
            subject.run(f"stop{stop}", stop_after=stop)
        except Interrupted:
            interrupted = True
        assert interrupted, f"the run was told to stop at batch {stop} of {batches} and went on: train with task.train"
        assert same_bits(subject.outcome.network, subject.run(f"stop{stop}").network), (
            f"a run that stopped at batch {stop} of {batches} and was resumed ends with other bits: what happens "
            "between two calls of task.train must follow from the network's weights and task.generator alone"
        )


def check_a_run_killed_after_its_last_epoch_is_restored(subject: Subject) -> None:
    before = subject.outcome.network
    assert same_bits(before, subject.run("whole").network), (
        "a run that was killed after its last epoch ends with other bits: whatever fit does after task.train must "
        "follow from the network's weights and from the state that was handed to task.train"
    )


def check_evaluation_is_deterministic_and_sees_each_image_alone(subject: Subject) -> None:
    network = subject.outcome.network
    together = logits(network)
    assert torch.equal(together, logits(network)), "two evaluations of the same images differ"
    alone = logits(network, examples=1)
    error = float((together[:1] - alone).abs().max())
    assert error < TOLERANCE, f"an image's logits change by {error:.1e} with the other images of its batch"


def check_never_sees_the_test_set(subject: Subject) -> None:
    task = subject.outcome.task
    held = [name for name in vars(task) if "test" in name]
    assert not held, f"the task holds {held[0]}: methods must not see the test set"
    allowed = [subject.folder, *(Path(path).parent for path in subject.inputs.values())]
    for path in sorted(subject.outcome.opened):
        inside = any(Path(path).resolve().is_relative_to(folder.resolve()) for folder in allowed)
        assert inside, f"the method opened {path}, which is none of its inputs: it could read the test set there"


def check_removal_does_not_change_the_logits(subject: Subject) -> None:
    network = subject.outcome.network.eval()
    try:
        smaller = remove(network, torch.zeros(2, *SHAPE))
    except ValueError as refusal:
        raise AssertionError(f"the units that are zero cannot be removed: {refusal}") from refusal
    error = float((logits(network) - logits(smaller)).abs().max())
    assert error < TOLERANCE, f"removing the units that are zero changes the logits by {error:.1e}"


def check_can_be_copied_saved_and_loaded(subject: Subject) -> None:
    network, path = subject.outcome.network, subject.folder / "saved.safetensors"
    twin = copy.deepcopy(network)
    save_model(network, str(path))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    load_model(twin, str(path))
    assert torch.equal(logits(network), logits(twin)), "saving the weights and loading them changes the logits"


CHECKS = tuple(function for name, function in list(globals().items()) if name.startswith("check_"))


@torch.no_grad()
def logits(network: nn.Module, examples: int = 48) -> Tensor:
    """Logits of the first images of a fixed set, in evaluation mode."""
    return network.eval()(EasyData(examples=48, seed=3).x[:examples])


def same_bits(left: nn.Module, right: nn.Module) -> bool:
    """True if both networks have the same parameters and buffers, bit for bit."""
    one, other = left.state_dict(), right.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


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
