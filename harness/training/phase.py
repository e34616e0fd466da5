"""The phases of a run, one for each call of `Task.train`: what is saved, restored and reported on the way."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn

from harness.config.recipe import Recipe
from harness.kinds import Kind
from harness.machine import distributed
from harness.machine.files import write_text
from harness.training import checkpoint
from harness.training.loop import Batches, Progress, Stateful, TrainingBatches, run_epochs
from harness.training.memory import Interrupted, Run


class Phase:
    """One call of `Task.train`: restores, trains, and saves what is needed to restore again."""

    def __init__(
        self,
        memory: Run,
        *,
        train_loader: TrainingBatches,
        val_loader: Batches,
        recipe: Recipe,
        kind: Kind,
        device: torch.device,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: Mapping[str, Stateful],
        last_epoch: int,
        columns: Callable[[], Mapping[str, float]] | None,
    ) -> None:
        self.memory, self.recipe, self.device = memory, recipe, device
        self.train_loader, self.val_loader = train_loader, val_loader
        self.kind, self.carry = kind, kind.carry(model)
        self.parts: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "carry": self.carry, **state}
        self.model, self.optimizer, self.last_epoch, self.columns = model, optimizer, last_epoch, columns
        self.progress = Progress(epoch=memory.epoch)

    def run(self, **functions: Any) -> None:
        memory = self.memory
        memory.phase += 1
        if not self._restore():
            run_epochs(
                self.model,
                self.train_loader,
                self.val_loader,
                self.recipe,
                self.kind,
                optimizer=self.optimizer,
                progress=self.progress,
                carry=self.carry,
                last_epoch=self.last_epoch,
                on_batch=self._on_batch,
                on_epoch=self._on_epoch,
                **functions,
            )
            self._write(memory.phase_path(memory.phase))
        memory.epoch = self.last_epoch

    def _restore(self) -> bool:
        """Load the finished phase or its newest checkpoint; True when there is nothing left to train."""
        memory = self.memory
        state = checkpoint.load_newest(memory.phase_path(memory.phase), key=memory.key, warn=memory.say)
        if state is None:
            state = checkpoint.load_newest(memory.checkpoint_path, key=memory.key, warn=memory.say)
            if state is None or state["phase"] != memory.phase:
                return False
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.progress = Progress(**state["progress"])
        memory.history[:] = state["history"]
        _restore_random_state(state["random"], self.device)
        memory.say(f"phase {memory.phase}: resumed at epoch {self.progress.epoch + 1}, batch {self.progress.batch + 1}")
        return self.progress.epoch >= self.last_epoch

    def _state(self) -> dict[str, Any]:
        return {
            "phase": self.memory.phase,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "progress": asdict(self.progress),
            "history": self.memory.history,
            "random": _random_state(self.device),
        }

    def _save(self) -> None:
        started = time.monotonic()
        self._write(self.memory.checkpoint_path)
        self.memory.saved_at = time.monotonic()
        self.memory.save_seconds = self.memory.saved_at - started

    def _write(self, path: Path) -> None:
        if distributed.leads():
            checkpoint.save(path, self._state(), key=self.memory.key)

    def _on_batch(self, progress: Progress) -> None:
        # The last batch of an epoch waits for the epoch's end, where validation has been done.
        if progress.batch < len(self.train_loader):
            self._save_if_due()

    def _save_if_due(self) -> None:
        memory = self.memory
        if distributed.any_of(memory.stopping):
            self._save()
            raise Interrupted
        # Large networks on slow disks: at most a twentieth of the time goes into checkpoints.
        if time.monotonic() - memory.saved_at >= max(memory.checkpoint_seconds, 20 * memory.save_seconds):
            self._save()

    def _on_epoch(self, progress: Progress, row: dict[str, Any]) -> None:
        memory = self.memory
        row = {"phase": memory.phase, **row, **(dict(self.columns()) if self.columns else {})}
        memory.history.append(row)
        if distributed.leads():
            memory.on_row(row)
            write_history(memory.folder / "history.csv", memory.history)
            self._report(row)
            if memory.save_start is not None and progress.epoch == self.recipe.prune_epoch:
                checkpoint.save_weights(memory.save_start, self.model.state_dict())
        if progress.epoch < self.last_epoch:
            self._save_if_due()

    def _report(self, row: Mapping[str, Any]) -> None:
        epochs, done, main = self.recipe.epochs, row["epoch"], self.kind.main.name
        left = statistics.median(entry["seconds"] for entry in self.memory.history) * (epochs - done)
        self.memory.say(
            f"epoch {done}/{epochs}  lr {row['lr']:.4g}  train loss {row['train_loss']:.4f}  "
            f"val loss {row['val_loss']:.4f}  val {main} {row[f'val_{main}']:.4f}  "
            f"{row['seconds']:.2f} s/epoch  {left:.0f} s left"
        )
        fields = {"epoch": done, "epochs": epochs, "loss": row["train_loss"], f"val_{main}": row[f"val_{main}"]}
        fields |= {"seconds_left": round(left, 1), "pid": os.getpid()}
        write_text(self.memory.folder / "progress.json", json.dumps(fields) + "\n")


def write_history(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows as CSV; the columns are the union of theirs, in order of appearance."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _random_state(device: torch.device) -> dict[str, Any]:
    # That of the run's own GPU alone: it may go on on another one, and the others belong to other jobs.
    name, keys, *rest = numpy.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, numpy.asarray(keys).tolist(), *rest),
        "cpu": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
    }


def _restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    random.setstate(state["python"])
    numpy.random.set_state(state["numpy"])
    torch.set_rng_state(state["cpu"])
    for generator in state["cuda"]:
        torch.cuda.set_rng_state(generator, device)
