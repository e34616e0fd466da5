"""Which tables a page shows: comparison, reproduction beside the published numbers, and claims, for each dataset."""

from __future__ import annotations

import math
from typing import Any

import pandas

from harness import kinds
from paper.rows.summary import problems, seed_warning, summarise
from paper.statistics.equal_time import equal_time
from paper.tables import published, published_rows
from paper.tables.calibration import calibration
from paper.tables.claims import claims
from paper.tables.page import NONE, Cell, Page, Table, mean, plain, quantity, text
from paper.tables.significance import equal_time_table

COMPARISON_CAPTION = (
    "Mean ± 95 % interval (Student's t) over n seeds, on the test set. Kept: non-zero parameters after physical "
    "removal, over those of the dense network that the row names as its model, also where a method, such as "
    "ChannelNet, has an architecture of its own; a row named (full) evaluates the same training with all weights, one "
    "named (sampled) averages the predictions of passes that draw. "
    "MACs: multiply-accumulates of one forward pass of one example. Latency ratio: median forward time over that of "
    "the dense network measured beside it. Epochs: training behind the row, the dense start included. Cost: its time, "
    "over that of the dense network with the same seed; of processors where training was on one, otherwise on the wall."
)
REPRODUCTION_CAPTION = (
    "Ours (mean ± 95 % interval over seeds) beside the published number (pub.), which is never averaged with ours and "
    "fills no hole. Kept is counted as the authors do where the method reports it. "
)


def page(name: str, rows: pandas.DataFrame) -> Page:
    """Everything that is shown of one results table.

    Args:
        name: Name of the table in the configuration.
        rows: Tidy rows (`summary.read_rows`).
    """
    summary = summarise(rows)
    holes = problems(rows)
    warnings = [warning for warning in (seed_warning(summary), _hole_warning(holes)) if warning]
    tables: list[Table] = []
    for dataset in summary["dataset"].unique():
        part = summary[summary["dataset"] == dataset]
        found = [published.find(row.dataset, row.model, row.method) for row in part.itertuples()]
        tables.append(comparison(dataset, part, found))
        if calibrated := calibration(dataset, part):
            tables.append(calibrated)
        if any(found):
            tables.append(reproduction(dataset, part, found))
        if reproduced := published_rows.reproduction(dataset, part):
            tables.append(reproduced)
        claim_table = claims(rows, dataset)
        if claim_table:
            tables.append(claim_table)
    at_equal_time = equal_time(rows)
    if len(at_equal_time):
        tables.append(equal_time_table(at_equal_time))
    return Page(name, warnings, holes, tables)


def comparison(dataset: str, part: pandas.DataFrame, found: list[published.Published | None]) -> Table:
    """All methods on one dataset; published top-1 and verdict only where a paper has such rows."""
    kind = kinds.named(part["kind"].iloc[0])
    columns = ["Model", "Method", "n", *(metric.heading for metric in kind.metrics), "Kept %", "Parameters", "MACs"]
    columns += ["Latency ratio", "Epochs", "Cost"]
    rows = [_ours(row, kind) for row in part.itertuples()]
    caption = f"{COMPARISON_CAPTION} {kind.caption}".rstrip()
    if any(found):
        columns += ["Pub. top-1 %", "Verdict"]
        caption += f" Pub.: the published number. {published.RULE}"
        for cells, row, theirs in zip(rows, part.itertuples(), found, strict=True):
            cells += [_printed(theirs, "top1"), text(published.verdict(row, theirs) if theirs else NONE)]
    elif dataset not in published_rows.DATASETS:
        caption += " There is no published number for this dataset."
    notes = [*_notes(part), *_chance(part, kind), *_tuned(part)]
    return Table(f"Comparison: {dataset}", caption, columns, rows, notes=notes, last_text=any(found))


def _ours(row: Any, kind: kinds.Kind) -> list[Cell]:
    count = f"{row.n}" if row.n == row.planned else f"{row.n} of {row.planned} †"
    return [
        *(text(row.model), text(row.method), Cell(count, row.n)),
        *(_metric(row, metric) for metric in kind.metrics),
        _percent(row, "kept_ratio"),
        *(quantity(row.nonzero), quantity(row.macs)),
        mean(row.latency_ratio, row.latency_ratio_half, digits=2),
        plain(row.total_epochs),
        mean(row.cost_ratio, row.cost_ratio_half, digits=2),
    ]


def _metric(row: Any, metric: kinds.Metric) -> Cell:
    value, half = getattr(row, metric.name), getattr(row, f"{metric.name}_half")
    return mean(value, half, digits=metric.digits, scale=metric.scale)


def _chance(part: pandas.DataFrame, kind: kinds.Kind) -> list[str]:
    """What no number of the table should be worse than."""
    if "chance" not in part or part["chance"].isna().all():
        return []
    value = kind.main.scale * part["chance"].mean()
    return [f"The best answer that does not look at x: {kind.main.axis} {value:.{kind.main.digits}f}."]


def _tuned(part: pandas.DataFrame) -> list[str]:
    """What the validation set chose."""
    chosen = [f"{row.model} {row.method}: {row.tried}" for row in part.itertuples() if row.tried]
    return [f"Chosen on the validation set, all tries are in tuning.csv: {'; '.join(chosen)}."] if chosen else []


def _percent(row: Any, name: str) -> Cell:
    half = getattr(row, f"{name}_half")
    # What is fixed by the plan has no spread to show.
    return mean(
        getattr(row, name), math.nan if half == 0 and name.endswith("kept_ratio") else half, digits=2, scale=100
    )


def reproduction(dataset: str, part: pandas.DataFrame, found: list[published.Published | None]) -> Table:
    """The layout of the published tables: ours and theirs side by side, for the rows that a paper has."""
    columns = ["Model", "Method", "Loss", "pub.", "Top-1 %", "pub.", "Top-3 %", "pub.", "Top-5 %", "pub."]
    columns += ["Kept %", "pub.", "Parameters", "pub.", "Verdict"]
    rows, notes, sources = [], [], {}
    for row, theirs in zip(part.itertuples(), found, strict=True):
        if theirs is None:
            continue
        name = row.method
        if theirs.note:
            notes.append(f"{row.model}, {row.method}: {theirs.note}")
            name += f" [{len(notes)}]"
        sources.setdefault(theirs.source, None)
        rows.append([text(row.model), text(name), *_side_by_side(row, theirs), text(published.verdict(row, theirs))])
    notes = [f"[{number}] {note}" for number, note in enumerate(notes, 1)]
    notes += [*_notes(part), f"Published numbers from {', '.join(sources)}."]
    caption = REPRODUCTION_CAPTION + published.RULE
    return Table(f"Reproduction: {dataset}", caption, columns, rows, notes=notes, last_text=True)


def _side_by_side(row: Any, theirs: published.Published) -> list[Cell]:
    kept = "kept_ratio" if math.isnan(row.authors_kept_ratio) else "authors_kept_ratio"
    cells = [mean(row.loss, row.loss_half, digits=4), _printed(theirs, "loss")]
    for name in ("top1", "top3", "top5"):
        cells += [_percent(row, name), _printed(theirs, name)]
    cells += [_percent(row, kept), _printed(theirs, "kept_percent")]
    cells += [quantity(row.nonzero), Cell(f"{theirs.params_millions} M", float(theirs.params_millions) * 1e6)]
    return cells


def _printed(theirs: published.Published | None, field: str) -> Cell:
    printed = "" if theirs is None else getattr(theirs, field)
    return Cell(printed, float(printed)) if printed else Cell(NONE)


def _notes(part: pandas.DataFrame) -> list[str]:
    notes = []
    if (part["n"] < part["planned"]).any():
        notes.append("† some seeds are missing, failed or invalid; they are listed below the tables.")
    return notes


def _hole_warning(holes: list[str]) -> str | None:
    if not holes:
        return None
    cells = "1 planned cell has" if len(holes) == 1 else f"{len(holes)} planned cells have"
    return f"{cells} no numbers; listed below the tables and left out of every mean."
