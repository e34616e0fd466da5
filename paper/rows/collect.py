"""Read the result files of a table into one tidy CSV.

    python -m paper.rows.collect --table quick --cells cells.json --out results/paper/quick.csv

A file in the wrong place, of another configuration or of another protocol stops the collection: the plan and the
results do not belong together. A cell that failed, is missing or cannot be true becomes a row that says so, without
numbers, so that tables can name it and nothing averages it. Of a method that the table tunes one variant has rows;
tuning.csv beside them has all that was tried.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas

from harness import kinds
from harness.plan import made_of, rendered
from harness.plan.made_of import Present
from harness.runs.result import ResultError, read
from paper.rows import plausible, tuning
from paper.rows.row import COUNTS, calibrated, columns, finished, full, kind_of, sampled, unfinished

Cell = Mapping[str, Any]
KEYS = ("dataset", "model", "method", "seed")


class Done(NamedTuple):
    """A finished cell: its plan, its result, and its training history if it has one."""

    cell: Cell
    metrics: Mapping[str, Any]
    history: pandas.DataFrame | None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True)
    parser.add_argument("--cells", required=True, help="the plan's cells: a JSON list, or a file holding it")
    parser.add_argument("--out", required=True, type=Path, help="tidy CSV; history and layers go beside it")
    options = parser.parse_args(arguments)
    try:
        cells = parse_cells(options.cells)
        collected = collect(cells)
    except ResultError as error:
        print(f"table '{options.table}': {error}", file=sys.stderr)
        return 1
    folder = options.out.with_suffix("")
    options.out.with_suffix(".txt").unlink(missing_ok=True)  # From here on the table is not whole.
    rows, results = collected.rows, collected.shown
    names = columns((row["kind"] for row in rows), calibrated=calibrated(rows))
    write_csv(options.out, pandas.DataFrame(rows, columns=names).astype(dict.fromkeys(COUNTS, "Int64")))
    write_csv(folder / "history.csv", history(results))
    write_csv(folder / "layers.csv", layers(results))
    write_csv(folder / "tuning.csv", collected.attempts)
    write_csv(folder / "reliability.csv", reliability(results))
    (folder / "setup.json").write_text(json.dumps(setup(results), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    made_of_all = rendered.wanted(metrics for _, metrics, _ in collected.results)
    (folder / "made_of.txt").write_text(made_of_all, encoding="utf-8")
    for row in (*rows, *collected.hidden):
        if row["status"] != "done" and row["evaluation"] == "pruned":
            print(f"{row['path']}: {row['status']}: {row['error']}", file=sys.stderr)
    return 0


def parse_cells(text: str) -> list[Cell]:
    """The plan's cells from JSON or from a file of JSON.

    Raises:
        ResultError: not JSON, or a cell twice.
    """
    source = text if text.lstrip().startswith("[") else Path(text).read_text(encoding="utf-8")
    cells = json.loads(source)
    seen: set[tuple[Any, ...]] = set()
    for cell in cells:
        key = tuple(cell[name] for name in KEYS)
        if key in seen:
            raise ResultError(f"{cell['path']}: the plan names the cell {'/'.join(map(str, key))} twice")
        seen.add(key)
    return cells


class Collected(NamedTuple):
    """What a table is made of.

    Attributes:
        rows: In the plan's order, without the variants of a tuned method that are not shown.
        shown: The results behind them that are done.
        hidden: Rows of the variants that are not shown.
        results: All results that are done, as they name themselves.
        attempts: What was tried of the tuned methods (`tuning.attempts`).
    """

    rows: list[dict[str, Any]]
    shown: list[Done]
    hidden: list[dict[str, Any]]
    results: list[Done]
    attempts: pandas.DataFrame


def collect(cells: Iterable[Cell]) -> Collected:
    """Read the plan's cells; of a tuned method, the variant that validation prefers stands under the method's name.

    Raises:
        ResultError: a file belongs to another cell, another configuration or another protocol.
    """
    cells, now = list(cells), Present()
    outcomes = [(cell, *outcome(cell, now)) for cell in cells]
    results = [Done(cell, *found) for cell, _, found in outcomes if found is not None]
    refuse_mixed_protocols(results)
    attempts = tuning.attempts((cell, found and found[0]) for cell, _, found in outcomes)
    with_full = {cell["method"] for cell, metrics, _ in results if metrics.get("full_test")}
    with_sampled = {cell["method"] for cell, metrics, _ in results if metrics.get("sampled_test")}
    rows, shown, hidden = [], [], []
    for (planned, row, found), cell in zip(outcomes, tuning.shown(cells, attempts), strict=True):
        if cell is None:
            hidden.append(row)
            continue
        row |= {"method": cell["method"], "tried": cell.get("tried", "")}
        if planned["method"] in with_full:
            rows.append(full(row, found and found[0]))
        rows.append(row)
        if planned["method"] in with_sampled:
            rows.append(sampled(row, found and found[0]))
        if found is not None:
            shown.append(Done(cell, *found))
    return Collected(rows, shown, hidden, results, attempts)


def outcome(
    cell: Cell, now: Present
) -> tuple[dict[str, Any], tuple[Mapping[str, Any], pandas.DataFrame | None] | None]:
    """The row of one cell and, if it is done, its result and its training history.

    Raises:
        ResultError: the file's content contradicts its path or the plan.
    """
    path = Path(cell["path"])
    if not path.exists():
        return unfinished(cell, "missing", "no result file"), None
    rivals = rival_files(path)
    if rivals:
        return unfinished(cell, "invalid", f"two result files for one cell: {path} and {rivals[0]}"), None
    try:
        metrics = read(path)
    except ResultError as error:
        return unfinished(cell, "invalid", str(error)), None
    refuse_foreign(cell, metrics, now)
    objection = next(plausible.objections(metrics), None)
    if objection:
        return unfinished(cell, "invalid", f"{path}: {objection}"), None
    if metrics["status"] == "failed":
        return unfinished(cell, "failed", metrics["error"]), None
    try:
        epochs = history_of(cell)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        return unfinished(cell, "invalid", f"{path.with_name('history.csv')} is damaged: {error}"), None
    return finished(cell, metrics), (metrics, epochs)


def rival_files(path: Path) -> list[Path]:
    """Other result files of the same cell: a second JSON beside it, or a second folder for its seed (`seed01`)."""
    seed = path.parent.name.removeprefix("seed")
    folders = [
        folder for folder in path.parent.parent.glob("seed*") if re.fullmatch(rf"seed0*{seed}(\D.*)?", folder.name)
    ]
    return sorted(other for folder in folders for other in folder.glob("*metrics*.json") if other != path)


def refuse_foreign(cell: Cell, metrics: Mapping[str, Any], now: Present) -> None:
    """Raise ResultError unless path, content and plan name the same cell, made of what is there now."""
    path, named = cell["path"], tuple(metrics[key] for key in KEYS)
    dataset, model, method, seed = named
    if named != tuple(cell[key] for key in KEYS):
        raise ResultError(f"{path} holds the result of {dataset}/{model}/{method}/seed{seed}: move it or delete it")
    if Path(path).parts[-5:-1] != (dataset, model, method, f"seed{seed}"):
        raise ResultError(f"{path} must lie in {dataset}/{model}/{method}/seed{seed}: move it or delete it")
    if metrics.get("kind", kinds.DEFAULT) != kind_of(cell).name:
        raise ResultError(f"{path} is a result of {metrics['kind']}, but the plan says {kind_of(cell).name}: run the "
                          "cell again")  # fmt: skip
    stale = made_of.objection(cell, metrics, now)
    if stale and (metrics["status"] == "done" or metrics["config_hash"] != cell["config_hash"]):
        raise ResultError(f"{path} {stale}: run the cell again")


def refuse_mixed_protocols(done: list[Done]) -> None:
    """Raise ResultError if the results were measured by different rules."""
    newest = max((metrics["protocol"] for _, metrics, _ in done), default=0)
    for cell, metrics, _ in done:
        if metrics["protocol"] != newest:
            raise ResultError(
                f"{cell['path']} was measured by protocol {metrics['protocol']} and others by protocol {newest}: "
                "results of two protocols are never mixed, run the cell again"
            )


def history_of(cell: Cell) -> pandas.DataFrame | None:
    """The training history of one cell, if it has one."""
    path = Path(cell["path"]).with_name("history.csv")
    return pandas.read_csv(path) if path.exists() else None


def history(results: Iterable[Done]) -> pandas.DataFrame:
    """The training histories of all finished cells, one row per cell and epoch; a cell may have none."""
    frames = []
    for cell, _, frame in results:
        if frame is not None:
            for position, key in enumerate(KEYS):
                frame.insert(position, key, cell[key])
            frames.append(frame)
    return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame(columns=[*KEYS, "epoch"])


def layers(results: Iterable[Done]) -> pandas.DataFrame:
    """Kept ratio of each layer of all finished cells, layers in the network's order."""
    rows = [
        (*(cell[key] for key in KEYS), layer, ratio)
        for cell, metrics, _ in results
        for layer, ratio in metrics.get("layers", {}).items()
    ]
    return pandas.DataFrame(rows, columns=[*KEYS, "layer", "kept_ratio"])


def reliability(results: Iterable[Done]) -> pandas.DataFrame:
    """The bins of the reliability diagrams of all finished cells that have them."""
    rows = [
        (*(cell[key] for key in KEYS), evaluation, *one)
        for cell, metrics, _ in results
        for evaluation, bins in metrics.get("reliability", {}).items()
        for one in bins
    ]
    return pandas.DataFrame(rows, columns=[*KEYS, "evaluation", "share", "confidence", "right"])


def setup(results: Iterable[Done]) -> dict[str, Any]:
    """Data and recipe of each dataset and hyper-parameters of each method, as the finished cells recorded them."""
    found: dict[str, Any] = {"datasets": {}, "methods": {}}
    for cell, metrics, _ in results:
        config = metrics.get("config")
        if config:
            found["datasets"].setdefault(cell["dataset"], {"data": config["data"], "recipe": config["recipe"]})
            rate = _learning_rate(config)
            own = {} if rate == _learning_rate(found["datasets"][cell["dataset"]]) else {"learning rate": rate}
            found["methods"].setdefault(cell["method"], {**config["hyperparameters"], **own})
    return found


def _learning_rate(config: Mapping[str, Any]) -> Any:
    return config["recipe"].get("optimizer", {}).get("lr")


def write_csv(path: Path, frame: pandas.DataFrame) -> None:
    """Write a table without its index; equal tables give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False, lineterminator="\n")


if __name__ == "__main__":
    sys.exit(main())
