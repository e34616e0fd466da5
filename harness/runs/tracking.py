"""Weights & Biases: one run per cell. Offline unless WANDB_MODE says otherwise; a broken W&B never stops a run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.machine.files import write_text
from harness.runs.result import EVALUATIONS

# The longest names that W&B takes.
LONGEST = {"group": 128, "name": 128, "job_type": 64, "tag": 64}


def short(text: str, kind: str) -> str:
    """A name that W&B takes: a long one is cut, and stays unlike others by a hash of it all."""
    limit = LONGEST[kind]
    if len(text) <= limit:
        return text
    return f"{text[: limit - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class Tracker:
    """One W&B run; after the first failure it says so once and does nothing more.

    Args:
        folder: The cell's results folder; W&B writes to `<folder>/wandb`.
        cell: The cell's configuration; its hash is the run's id, so a resumed run continues and does not duplicate.
        tables: Names of the tables that the cell belongs to.
        say: Prints a line to the job's log.
    """

    def __init__(self, folder: Path, cell: Mapping[str, Any], *, tables: list[str], say: Callable[[str], None]) -> None:
        self._say = say
        self._run: Any = None
        self._logged = folder / "wandb" / f"epochs-{cell['config_hash']}.txt"
        self._epoch = 0
        if not os.environ.get("WANDB_MODE", "").strip():
            os.environ["WANDB_MODE"] = "offline"
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.pop("WANDB_SERVICE", None)  # A service of the caller's outlives a killed cell and keeps its run.
        self._attempt("start", lambda: self._start(folder, cell, tables))

    def _start(self, folder: Path, cell: Mapping[str, Any], tables: list[str]) -> None:
        import wandb

        if self._logged.exists():
            self._epoch = int(self._logged.read_text())
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "edropout"),
            id=cell["config_hash"],
            name=short(f"{cell['dataset']}/{cell['model']}/{cell['method']}/seed{cell['seed']}", "name"),
            group=short("+".join(tables) or cell["dataset"], "group"),
            job_type=short(cell["method"], "job_type"),
            tags=[short(name, "tag") for name in (cell["dataset"], cell["model"], *tables)],
            config={**cell, "tables": tables},
            dir=str(folder.resolve()),
            resume="allow",
            settings=wandb.Settings(
                console="off",
                x_disable_stats=True,
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", "30")),
                finish_timeout=60,
            ),
        )

    def row(self, row: Mapping[str, Any]) -> None:
        """Log one history row; its step is the epoch. A resumed run passes over those that were logged before."""
        self._attempt("log", lambda: self._log(row))

    def _log(self, row: Mapping[str, Any]) -> None:
        if row["epoch"] > self._epoch:
            self._run.log(dict(row), step=int(row["epoch"]))
            self._epoch = row["epoch"]
            if not self._run.disabled:  # a disabled run holds nothing that a later one could go on from
                write_text(self._logged, str(self._epoch))

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write the result into the run's summary and close the run."""

        def close() -> None:
            kept = ("status", "error", "kind", "chance", *EVALUATIONS, "size", "budget", "extra", "time")
            self._run.summary.update({key: metrics[key] for key in kept if metrics.get(key) is not None})
            self._run.finish(exit_code=0 if metrics["status"] == "done" else 1)

        self._attempt("finish", close)

    def _attempt(self, what: str, action: Callable[[], Any]) -> None:
        if what != "start" and self._run is None:
            return
        try:
            action()
        except Exception as error:  # Tracking raises whatever its service, network or disk does; training goes on.
            self._run = None
            reason = " ".join(str(error).split())
            self._say(f"Weights & Biases failed to {what} ({type(error).__name__}: {reason}); going on without it")
