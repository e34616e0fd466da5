"""Run one cell: `python -m harness.run baselines/l1.py --cell '{...}' --data FILE --out FOLDER/metrics.json`.

This process only supervises. It holds the lock of the run folder, starts the trainer (harness.runs.cell) with its
output in log.txt, and writes a result with status `failed` if the trainer dies without one. So a cell that fails is a
result like any other, which a table can name; only a stopped or killed job is without one, and is resumed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from harness.plan import made_of
from harness.runs import foreign, result

PATIENCE_SECONDS = 10.0
"""How long to wait for the lock: a trainer whose Snakemake was killed needs a moment to notice and stop."""
STOPPED = 128 + signal.SIGTERM
"""Exit code of a trainer that was told to stop and wrote its checkpoint."""

KEEP_MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
"""Let glibc keep freed memory for the next activation of that size: to map it anew costs up to a fifth of a step."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, shared with harness.runs.cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("fit", type=Path, help="the method's file, with one function `fit`; or a program (harness.runs.foreign)")
    add("--cell", required=True, type=json.loads, help="the cell's configuration as JSON (harness.plan.configuration)")
    add("--data", required=True, type=Path, help="the prepared dataset")
    add("--out", required=True, type=Path, help="metrics.json to write")
    add(
        "--input",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a further input; init = weights to start from",
    )
    add("--start", type=Path, help="also write the weights at recipe.prune_epoch to this file")
    add("--log", type=Path, help="also write what this process says to this file; the trainer's output is in log.txt")
    add("--tables", default="", help="comma-separated tables that the cell belongs to (for Weights & Biases)")
    add("--device", help="auto, cpu or cuda; what EDROPOUT_DEVICE says unless given")
    return parser.parse_args(arguments)


def main() -> int:
    arguments = parse()
    try:
        return run(arguments)
    except OSError as error:
        print(f"{arguments.out.parent} cannot be written: {error.strerror} ({error.filename})", file=sys.stderr)
        return 1


def say(arguments: argparse.Namespace, text: str) -> None:
    """One line for whoever started us, and for the job's log."""
    print(text, file=sys.stderr)
    if arguments.log:
        with open(arguments.log, "a", encoding="utf-8") as log:
            print(text, file=log)


def run(arguments: argparse.Namespace) -> int:
    """Run the cell under its folder's lock; the exit code says whether there is a result, of whatever status."""
    folder = arguments.out.parent
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as lock:
        if not acquire(lock):
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            say(arguments, f"{folder} is in use by another trainer (process {owner}): wait for it or stop it")
            return 1
        for path in folder.glob(".*.tmp"):
            path.unlink()  # Of a trainer that was killed while it wrote.
        code, disturbed = end_of(arguments, lock)
        # A trainer that was past its last epoch when it was told to stop ends with a result and exit code 0.
        if code == STOPPED or (code != 0 and disturbed):
            say(arguments, f"{folder}: stopped; the next start resumes it")
            return STOPPED
        if code != 0:
            result.write(arguments.out, result.failure(arguments.cell, _death(code, folder)))
        metrics = result.read(arguments.out)
        if metrics["status"] == "failed":
            for name in ("model.safetensors", "model.json"):
                (folder / name).unlink(missing_ok=True)  # Of an earlier run: a failed cell has no network.
            say(arguments, f"{folder} failed: {metrics['error']}")
            if arguments.start and not arguments.start.exists():
                arguments.start.touch()  # Empty: what starts here then fails with a sentence.
        elif not disturbed:
            # A Snakemake that is gone may take the result away again: nothing is trained twice.
            forget_checkpoints(folder)
        return 0


def end_of(arguments: argparse.Namespace, lock: IO[str]) -> tuple[int, bool]:
    """Start what trains the cell, and wait: as `supervise`.

    Of several processes torchrun is started, which starts them and ends all when one ends.
    """
    folder = arguments.out.parent
    if not foreign.is_foreign(arguments.fit):
        processes = arguments.cell["config"]["recipe"].get("processes", 1)
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *(torchrun if processes > 1 else []), "-m", "harness.runs.cell", *sys.argv[1:]]
        return supervise(folder, lock, command)
    inputs = [Path(entry.partition("=")[2]) for entry in arguments.input]
    recorded = made_of.record(arguments.cell, fit=arguments.fit, data=arguments.data, inputs=inputs)
    try:
        code, disturbed = supervise(folder, lock, foreign.command(arguments))
    except result.ResultError as error:
        result.write(arguments.out, result.failure(arguments.cell, str(error)))
        return 0, False
    if code == 0:
        foreign.accept(arguments, recorded)
    return code, disturbed


def acquire(lock: IO[str]) -> bool:
    """Take the run folder's lock; False if somebody keeps it, on this machine or on another one.

    Raises:
        OSError: the file system has no locks, or is full.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        except OSError as error:
            reason = "the file system has no locks, mount NFS as version 4 and Lustre with -o flock"
            raise OSError(error.errno, reason, lock.name) from error
        else:
            write_owner(lock, os.getpid())
            return True


def write_owner(lock: IO[str], process: int) -> None:
    """Say in the lock file who keeps it: the trainer, which may outlive its supervisor."""
    lock.truncate(0)
    lock.write(f"{process} on {platform.node()}")
    lock.flush()


def supervise(folder: Path, lock: IO[str], command: list[str]) -> tuple[int, bool]:
    """Run the trainer to its end; it inherits the lock, which so outlives a killed supervisor.

    Returns:
        The trainer's exit code, negative for a signal, and whether it was to stop early: because we were told to, or
        because the process that started us is gone.
    """
    parent, told = os.getppid(), []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.append(True))
    error_file(folder).unlink(missing_ok=True)
    with open(folder / "log.txt", "ab") as log:
        trainer = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**KEEP_MEMORY, **os.environ},
            pass_fds=[lock.fileno()],
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
    write_owner(lock, trainer.pid)
    signalled = False
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return trainer.wait(timeout=0.2), bool(told) or os.getppid() != parent
        if not signalled and (told or os.getppid() != parent):
            trainer.terminate()
            signalled = True


def forget_checkpoints(folder: Path) -> None:
    """Remove what only an unfinished run needs."""
    for pattern in ("checkpoint.safetensors*", "phase*.safetensors*", "progress.json", "start.pending"):
        for path in folder.glob(pattern):
            path.unlink()


def end_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send us this signal when the process that started us is gone (Linux only)."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, number)


def error_file(folder: Path) -> Path:
    """Where the first of several processes that fails leaves its sentence."""
    return folder / "error.txt"


def _death(code: int, folder: Path) -> str:
    if error_file(folder).exists():
        return error_file(folder).read_text(encoding="utf-8")
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"the trainer was killed by {name}{hint}: see {folder / 'log.txt'}"
    return f"the trainer ended with exit code {code}: see {folder / 'log.txt'}"
