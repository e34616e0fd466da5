"""What is done, running or failed: `python -m harness.status [TABLE ...] [--watch]`, also while jobs run.

Reads result files and the progress that running trainers write; imports no torch and changes nothing.
"""

from __future__ import annotations

import argparse
import fcntl
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import kinds
from harness.machine.files import read_json
from harness.plan import configuration, grid
from harness.plan.current import Current

STATES = ("done", "running", "failed", "stopped", "stale", "waiting")
"""Stale: there is a result, and it is not the one that is asked for now."""
PROGRESS = ("epoch", "epochs", "loss", "seconds_left")
"""What must be known of a running cell for its progress to be shown."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help="tables of config.yaml (default: those under build)")
    parser.add_argument("--configfile", type=Path, default=Path("config/config.yaml"))
    parser.add_argument("--watch", action="store_true", help="show again every two seconds until nothing is left")
    parser.add_argument("--all", action="store_true", help="list the finished and the waiting cells too")
    arguments = parser.parse_args()
    try:
        config = configuration.read(arguments.configfile, arguments.tables)
    except configuration.ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    tables = arguments.tables or config["build"]
    while True:
        states = [state for table in tables for state in table_states(config, table)]
        if arguments.watch and sys.stdout.isatty():
            print("\033[2J\033[H", end="")
        print(render(states, everything=arguments.all), flush=True)
        if not arguments.watch or all(state["state"] in ("done", "failed") for state in states):
            return 0
        time.sleep(2)


def table_states(config: configuration.Config, table: str) -> Iterator[dict[str, Any]]:
    """One dictionary per cell of a table: its name, its state, and what is known of its progress."""
    current = Current(config)
    for cell in grid.cells(config, table):
        name = str(Path(grid.folder(cell)).relative_to("results"))
        yield {"table": table, "cell": name, **cell_state(cell, current)}


def cell_state(cell: grid.Cell, current: Current) -> dict[str, Any]:
    """`done`, `failed` or `stale` with the reason, `running` or `stopped` with epoch, loss, time left, or `waiting`."""
    folder, metrics, objection = Path(grid.folder(cell)), current.result(cell), current.objection(cell)
    if objection is None:
        return {"state": "done", "test": _main(metrics)}
    progress = read_json(folder / "progress.json")
    if not all(isinstance(progress.get(key), int | float) for key in PROGRESS):
        progress = {}
    if _locked(folder / ".lock"):
        return {"state": "running", **progress}
    if metrics.get("status") == "failed" and metrics.get("config_hash") == cell["config_hash"]:
        return {"state": "failed", "reason": metrics.get("error")}
    if progress:
        return {"state": "stopped", **progress}
    return {"state": "stale" if metrics else "waiting", "reason": objection}


def _main(metrics: dict[str, Any]) -> str | None:
    """The main metric of a result in words, if it has one."""
    name = metrics.get("kind", kinds.DEFAULT)
    main = kinds.named(name).main.name if name in kinds.names() else None
    test = metrics.get("test")
    value = test.get(main) if isinstance(test, dict) else None
    return f"{main} {value:.4f}" if isinstance(value, int | float) else None


def _locked(path: Path) -> bool:
    """Whether a trainer holds the run folder."""
    try:
        with open(path) as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def render(states: list[dict[str, Any]], *, everything: bool) -> str:
    """The counts, then a line for each cell that is running, stopped, failed or stale (or for all)."""
    counts = Counter(state["state"] for state in states)
    lines = [", ".join(f"{counts[name]} {name}" for name in STATES if counts[name]) + f" of {len(states)} cells"]
    for state in states:
        if everything or state["state"] in ("running", "stopped", "failed", "stale"):
            lines.append(f"{state['state']:8} {state['cell']:50} {_detail(state)}".rstrip())
    return "\n".join(lines)


def _detail(state: dict[str, Any]) -> str:
    if state["state"] in ("failed", "stale"):
        return str(state["reason"])
    if state.get("test"):
        return f"test {state['test']}"
    if "epoch" in state:
        left = (
            f"{state['seconds_left'] / 60:.1f} min left" if state["state"] == "running" else "resumes at the next start"
        )
        return f"epoch {state['epoch']}/{state['epochs']}  loss {state['loss']:.4f}  {left}"
    return ""
