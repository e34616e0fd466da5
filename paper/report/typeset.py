"""The PDF of one or more results tables, set by typst: offline, and the same bytes when nothing changed.

    python -m paper.report.typeset --tables quick --theory --folder results/paper --out results/paper/report.pdf

reads <folder>/<table>.csv and the statistics and figures beside it, and for the page of the theorems theory.csv.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas
import typst

from paper.rows.summary import GROUP, read_rows
from paper.tables.layout import page
from paper.tables.page import NONE, Table, text
from paper.tables.significance import paired_table
from paper.theory import verdicts as theory_verdicts

TEMPLATE = Path(__file__).with_name("paper.typ")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="*", default=[])
    parser.add_argument("--theory", action="store_true", help="add the page of the theorems")
    parser.add_argument("--folder", type=Path, default=Path("results/paper"))
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args(arguments)
    build(options.tables, options.folder, options.out, theory=options.theory)
    return 0


def build(tables: list[str], folder: Path, out: Path, *, theory: bool = False) -> None:
    """Set the PDF of `tables`, and of the theorems if asked for, from what lies in `folder`."""
    content = {"tables": [section(name, folder) for name in tables], "theory": theorems(folder) if theory else None}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        # Typst sees one folder and nothing else: no path of this machine gets into the PDF.
        root = Path(name)
        shutil.copy(TEMPLATE, root / "paper.typ")
        for table in [*tables, *(["theory"] if theory else [])]:
            shutil.copytree(folder / table / "figures", root / table, ignore=shutil.ignore_patterns("*.png", "*.csv"))
        (root / "content.json").write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
        typst.compile(root / "paper.typ", output=out, root=root, ignore_system_fonts=True, timestamp=0)


def section(name: str, folder: Path) -> dict[str, Any]:
    """All that the template shows of one results table."""
    rows = read_rows(folder / f"{name}.csv")
    statistics = folder / name / "statistics"
    return {
        **dataclasses.asdict(page(name, rows), dict_factory=_without_numbers),
        "run": run(rows),
        "notes": (statistics / "notes.txt").read_text(encoding="utf-8").splitlines(),
        "figures": pictures(name, folder),
        "setup": setup(json.loads((folder / name / "setup.json").read_text(encoding="utf-8"))),
        "tests": _plain_table(paired_table(pandas.read_csv(statistics / "paired.csv"))),
        "origin": _plain_table(origin(rows)),
    }


def theorems(folder: Path) -> dict[str, Any]:
    """All that the template shows of the theorems."""
    verdicts = pandas.read_csv(folder / "theory.csv")
    return {
        "tables": [_plain_table(table) for table in theory_verdicts.tables(verdicts)],
        "figures": pictures("theory", folder),
    }


def pictures(name: str, folder: Path) -> list[dict[str, str]]:
    """Where the template finds the figures of a table or of the theorems, and their captions."""
    figures = json.loads((folder / name / "figures" / "index.json").read_text(encoding="utf-8"))
    return [{"path": f"{name}/{entry['name']}.pdf", "caption": entry["caption"]} for entry in figures]


def _without_numbers(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The template needs no sort keys."""
    return {key: value for key, value in pairs if key != "value"}


def _plain_table(table: Table) -> dict[str, Any]:
    return dataclasses.asdict(table, dict_factory=_without_numbers)


def run(rows: pandas.DataFrame) -> dict[str, Any]:
    """What was run, for the abstract: names and counts."""
    cells = rows[rows["evaluation"].eq("pruned")]
    done = cells[cells["status"].eq("done")]
    names = {key: list(cells[key].unique()) for key in GROUP}
    return {
        **names,
        "seeds": [str(int(seed)) for seed in sorted(cells["seed"].unique())],
        "planned": len(cells),
        "done": len(done),
        "hours": f"{done['seconds'].sum() / 3600:.2f}",
        "hardware": sorted(done["hardware"].dropna().unique()),
        "torch": sorted(done["torch"].dropna().unique()),
    }


def setup(recorded: dict[str, Any]) -> list[dict[str, str]]:
    """Data, recipes and hyper-parameters as lines of text."""
    lines = []
    for dataset, parts in recorded["datasets"].items():
        lines += [{"name": f"{dataset}, {part}", "value": _flat(values)} for part, values in sorted(parts.items())]
    lines += [{"name": method, "value": _flat(values)} for method, values in recorded["methods"].items()]
    return lines


def _flat(values: dict[str, Any]) -> str:
    parts = []
    for key, value in values.items():
        parts.append(f"{key}: ({_flat(value)})" if isinstance(value, dict) else f"{key}: {json.dumps(value)}")
    return ", ".join(parts).replace('"', "") or "defaults"


def origin(rows: pandas.DataFrame) -> Table:
    """Which cells are behind each line of the tables: configuration hash by seed, and commits."""
    cells = rows[rows["evaluation"].eq("pruned")]
    lines = []
    for (dataset, model, method), group in cells.groupby(GROUP, sort=False):
        hashes = "  ".join(_cell_words(row) for row in group.itertuples())
        commits = ", ".join(dict.fromkeys(_commit_words(row) for row in group.itertuples() if row.status == "done"))
        lines.append([text(dataset), text(model), text(method), text(hashes), text(commits or NONE)])
    caption = (
        "Every mean is taken over the finished cells of its line: seed and configuration hash, as they stand in "
        "metrics.json, and the commits that made them (a plus sign: with uncommitted changes). A row named (full) has "
        "the cells of its method."
    )
    return Table("Cells behind the numbers", caption, ["Dataset", "Model", "Method", "Cells", "Commit"], lines, left=5)


def _cell_words(row: Any) -> str:
    return f"{int(row.seed)}:{row.config_hash}" + ("" if row.status == "done" else f" ({row.status})")


def _commit_words(row: Any) -> str:
    if pandas.isna(row.commit):
        return "unknown"
    return row.commit[:12] + ("+" if str(row.dirty) == "True" else "")


if __name__ == "__main__":
    sys.exit(main())
