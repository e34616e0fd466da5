"""The one training loop of every method: same recipe, same data order, resumable at any batch with the same bits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from harness.config.recipe import Recipe
from harness.kinds import Carry, Kind
from harness.machine import distributed
from harness.measure.metrics import evaluate, laid_out

READ_EVERY_ON_GPU = 20
"""Batches between two looks at the loss: each look makes the host wait for the GPU."""


class TrainingError(ValueError):
    """Training that cannot go on; the message says at which epoch and batch."""


class Stateful(Protocol):
    """What a method may hand to the loop so that its own state is part of the checkpoint."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


class TrainingBatches(Protocol):
    """Training data: (x, y) of every example once an epoch, in an order and with an augmentation of its own."""

    @property
    def num_examples(self) -> int: ...

    def __len__(self) -> int:
        """Batches of an epoch."""

    def epoch(self, index: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch `index` from the batch `start` on."""


class Batches(Protocol):
    """Validation data: (x, y) of every example, always the same."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


@dataclass
class Progress:
    """Where the loop is: enough, with model and optimiser, to go on with the same bits."""

    epoch: int
    batch: int = 0
    loss_sum: float = 0.0
    examples: int = 0
    epoch_seconds: float = 0.0
    epoch_cpu_seconds: float = 0.0


class Stopwatch:
    """Adds what passes until `stop` to the seconds of the epoch: on the wall, and of all processors by this process.

    On a machine with other work the second says what training costs; on a GPU it says nothing.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress, self.wall, self.cpu = progress, time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.progress.epoch_seconds += time.perf_counter() - self.wall
        self.progress.epoch_cpu_seconds += time.process_time() - self.cpu


def run_epochs(
    model: nn.Module,
    train_loader: TrainingBatches,
    val_loader: Batches,
    recipe: Recipe,
    kind: Kind,
    *,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    carry: Carry,
    last_epoch: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    step: Callable[[torch.optim.Optimizer], Any],
    evaluated: Callable[[], nn.Module],
    on_batch: Callable[[Progress], None],
    on_epoch: Callable[[Progress, dict[str, float]], None],
) -> None:
    """Train from `progress` up to `last_epoch` (exclusive).

    Args:
        model: The network whose training mode is switched; `loss` decides what is run.
        train_loader: Yields (x, y) of an epoch from any batch on: `epoch(index, start=batch)`.
        val_loader: Validation batches; evaluated after each epoch.
        recipe: Learning rates, clipping and precision.
        kind: What validation measures.
        optimizer: Steps over the parameters; its learning rate is set here.
        progress: Where to start; kept up to date in place.
        carry: What the network carries from batch to batch of an epoch.
        last_epoch: The epoch before which to stop.
        loss: Mean loss of a batch.
        step: Applies the gradient.
        evaluated: The network that validation measures.
        on_batch: Called whenever `progress` is up to date within an epoch (on a CPU after each batch), for checkpoints.
        on_epoch: Called after each epoch with its history row.

    Raises:
        TrainingError: the loss is NaN or infinite.
    """
    train_loader, val_loader = distributed.share(train_loader), distributed.share(val_loader)
    device = next(model.parameters()).device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")
    read_every = 1 if device.type == "cpu" else READ_EVERY_ON_GPU
    while progress.epoch < last_epoch:
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate(progress.epoch)
        unread: list[tuple[Tensor, int | Tensor]] = []
        watch = Stopwatch(progress)
        if progress.batch == 0:
            carry.reset()
        with carry.attached():
            for batch, (x, y) in enumerate(train_loader.epoch(progress.epoch, start=progress.batch), progress.batch):
                distributed.reseed(train_loader, progress.epoch, batch)
                optimizer.zero_grad(set_to_none=True)
                with autocast:
                    value = loss(laid_out(x), y)
                value.backward()
                examples = distributed.average_(_left_by(value, model, optimizer), examples=y.numel())
                if recipe.clip is not None:
                    nn.utils.clip_grad_norm_(_parameters(optimizer), recipe.clip)
                step(optimizer)
                carry.advance()
                unread.append((value.detach(), examples))
                if len(unread) == read_every:
                    _read(unread, progress)
                    watch.stop()
                    on_batch(progress)
                    watch = Stopwatch(progress)
        _read(unread, progress)
        watch.stop()
        distributed.reseed(train_loader, progress.epoch)
        distributed.check_alike(model)
        val = evaluate(evaluated(), val_loader, kind, combine=distributed.mean_of)
        row = _row(progress, recipe, val, kind)
        if not math.isfinite(row["val_loss"]):
            raise TrainingError(f"the validation loss became {row['val_loss']} after epoch {progress.epoch + 1}")
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.loss_sum, progress.examples = 0.0, 0
        progress.epoch_seconds = progress.epoch_cpu_seconds = 0.0
        on_epoch(progress, row)


def _left_by(loss: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """What a batch leaves behind: its loss, gradients and running statistics."""
    yield loss
    yield from (parameter.grad for parameter in _parameters(optimizer) if parameter.grad is not None)
    yield from (buffer for buffer in model.buffers() if buffer.is_floating_point())


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _read(unread: list[tuple[Tensor, int | Tensor]], progress: Progress) -> None:
    """Fetch the losses of the last batches from the device, check them, and count the batches as done."""
    if not unread:
        return
    values = torch.stack([value for value, _ in unread]).tolist()
    for value, (_, examples) in zip(values, unread, strict=True):
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} at epoch {progress.epoch + 1}, batch {progress.batch + 1}: "
                "lower the learning rate in the recipe or the method's hyper-parameters"
            )
        progress.loss_sum += value * int(examples)
        progress.examples += int(examples)
        progress.batch += 1
    unread.clear()


def _row(progress: Progress, recipe: Recipe, val: Mapping[str, float], kind: Kind) -> dict[str, float]:
    return {
        "epoch": progress.epoch + 1,
        "lr": recipe.learning_rate(progress.epoch),
        "seconds": round(progress.epoch_seconds, 6),
        "cpu_seconds": round(progress.epoch_cpu_seconds, 6),
        "steps": progress.batch,
        "train_loss": progress.loss_sum / progress.examples,
        "val_loss": val["loss"],
        f"val_{kind.main.name}": val[kind.main.name],
    }
