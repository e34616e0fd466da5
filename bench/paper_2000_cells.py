"""How long all tables, statistics, figures and PDFs take to render from 2,000 finished cells, and how much memory.

    python bench/paper_2000_cells.py

writes made-up results into a temporary folder (not timed), then runs each command as the workflow does, one after the
other, and prints its seconds and its peak memory.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "paper")]

from fake_results import plan, write  # noqa: E402

METHODS = ["dense", "dropout", "edropout", *(f"edropout-{kept}" for kept in (20, 40, 60, 80))]
METHODS += [f"{rule}-{ratio}" for rule in ("l1", "random", "thinet") for ratio in (10, 30, 50, 70, 90)]
METHODS += ["deep_compression", "channelnet", "ipruning"]
TABLES = {"first": ("kuzushiji", "fashion"), "second": ("cifar10", "cifar100")}
MODELS = ("resnet18", "resnet34", "alexnet", "squeezenet1_1")
SEEDS = range(1, 6)
EPOCHS = 100


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = folder / "paper"
        cells = 0
        for table, datasets in TABLES.items():
            planned = plan(folder / "results", datasets, MODELS, METHODS, SEEDS)
            write(planned, epochs=EPOCHS)
            (folder / f"{table}.json").write_text(json.dumps(planned))
            cells += len(planned)
        print(f"{cells} cells, {EPOCHS} epochs each, {os.getloadavg()[0]:.1f} other jobs on {os.cpu_count()} cores")
        total, work, peak = 0.0, 0.0, 0.0
        for table in TABLES:
            for words in commands(table, folder / f"{table}.json", out):
                seconds, processor, mebibytes = run(words)
                total, work, peak = total + seconds, work + processor, max(peak, mebibytes)
                print(
                    f"{table:8} {words[0]:18} {seconds:6.1f} s, {processor:6.1f} s of processor, {mebibytes:5.0f} MiB"
                )
        print(f"together {'':18} {total:6.1f} s, {work:6.1f} s of processor, {peak:5.0f} MiB at most")


def commands(table: str, cells: Path, out: Path) -> list[list[str]]:
    """The commands of workflow/rules/paper.smk for one table."""
    rows, folder = f"{out / table}.csv", out / table
    return [
        ["paper.rows.collect", "--table", table, "--cells", str(cells), "--out", rows],
        ["paper.statistics.compute", "--csv", rows, "--out", str(folder / "statistics")],
        ["paper.tables.write", "--csv", rows, "--statistics", f"{folder}/statistics", "--out-stem", str(folder)],
        [
            *("paper.figures.draw", "--csv", rows, "--statistics", f"{folder}/statistics"),
            *("--out", f"{folder}/figures", "--jobs", "2"),
        ],
        ["paper.report.typeset", "--tables", table, "--folder", str(out), "--out", f"{folder}.pdf"],
    ]


def run(words: list[str]) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak memory in MiB of one command, its interpreter's start included.

    Memory is that of the largest process: `paper.figures.draw --jobs 2` has three.
    """
    started = time.perf_counter()
    process = os.posix_spawn(
        sys.executable,
        [sys.executable, "-W", "ignore", "-m", *words],
        {**os.environ, "PYTHONPATH": str(ROOT)},
        file_actions=[(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, usage = os.wait4(process, 0)
    if status != 0:
        raise SystemExit(f"{words[0]} failed with status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
