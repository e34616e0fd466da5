"""Tests, ranks and Pareto fronts of a results table as CSV files.

    python -m paper.statistics.compute --csv results/paper/quick.csv --out results/paper/quick/statistics

writes paired.csv, equal_time.csv, pareto.csv, notes.txt and, where they can be made, ranks.csv and nemenyi.csv. Several
tables are taken together, for ranks over all their data.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas

from paper.rows.summary import main_metrics, read_rows, seed_warning, summarise
from paper.statistics.equal_time import equal_time
from paper.statistics.paired import paired_tests
from paper.statistics.pareto import pareto
from paper.statistics.ranks import ranking


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", required=True, type=Path, nargs="+")
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument("--reference", help="the method that the others are compared with")
    options = parser.parse_args(arguments)
    rows = pandas.concat(map(read_rows, options.csv), ignore_index=True)
    notes = write(rows, options.out, options.reference)
    for note in notes:
        print(note, file=sys.stderr)
    return 0


def write(rows: pandas.DataFrame, folder: Path, reference: str | None = None) -> list[str]:
    """Write all files into `folder` and return the notes; `reference` as for `paired_tests`."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(rows)
    notes = [note for note in [seed_warning(summary)] if note]
    tests = paired_tests(rows, reference)
    save(tests, folder / "paired.csv")
    save(equal_time(rows), folder / "equal_time.csv")
    save(pareto(summary), folder / "pareto.csv")
    result = ranking(summary)
    if isinstance(result, str):
        notes.append(result)
    else:
        details = {"friedman_p": result.friedman_p, "critical_difference": result.critical_difference}
        details["metric"] = main_metrics(summary["kind"].unique())
        ranks = result.ranks.rename_axis("method").reset_index().assign(**details, blocks=result.blocks)
        save(ranks, folder / "ranks.csv")
        save(result.nemenyi.rename_axis("method").reset_index(), folder / "nemenyi.csv")
        notes += result.notes
    (folder / "notes.txt").write_text("".join(f"{note}\n" for note in notes), encoding="utf-8")
    return notes


def save(frame: pandas.DataFrame, path: Path) -> None:
    """Write a CSV with six significant digits, so that equal data gives equal bytes on any machine."""
    frame.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    sys.exit(main())
