"""Check a theorem: `python -m theory.run theory/relu_networks.py --root data --out results/theory/relu_networks`.

Writes rows.csv, every number that was measured, and verdicts.csv: one line for each statement, observed, not observed,
or not run where its data is not there.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas
import torch

from harness.data.prepared import DataError
from harness.machine.files import write_text
from theory.experiment import Data, Experiment, sentence

COLUMNS = ["theorem", "statement", "data", "measure", "value", "low", "high", "verdict", "reason"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("theorem", type=Path, help="its file, which defines EXPERIMENTS")
    parser.add_argument("--root", required=True, type=Path, help="where published data lies or is downloaded to")
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument(
        "--download", action=argparse.BooleanOptionalAction, default=False, help="fetch what is missing"
    )
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)  # As many jobs as cores do better, and the number of threads may move the last bits.
    theorem = importlib.import_module(f"theory.{given.theorem.stem}")
    rows, verdicts = check(theorem.EXPERIMENTS, Data(given.root, given.download))
    verdicts.insert(0, "theorem", sentence(theorem))
    for name, table in (("rows", rows), ("verdicts", verdicts)):
        csv = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_text(given.out / f"{name}.csv", csv)
    for row in verdicts.itertuples():
        print(f"{row.verdict}: {row.statement} ({row.data}: {row.reason or f'{row.measure} {row.value:.4g}'})")
    return 0


def check(experiments: Iterable[Experiment], data: Data) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Run every experiment and decide its statements.

    Returns:
        The tidy rows of all, and a line for each statement, with `COLUMNS` but for the first.
    """
    tables, lines = [pandas.DataFrame(columns=["data", "quantity", "value"])], []
    for experiment in experiments:
        try:
            rows = experiment.measure(data).assign(data=experiment.data)
        except DataError as error:
            # The rest goes on; the reader is told what to put where.
            rows, reason = None, str(error)
        for statement in experiment.statements:
            line = {"statement": sentence(statement), "data": experiment.data}
            if rows is None:
                lines.append(line | {"verdict": "not run", "reason": reason})
            else:
                verdict = statement(rows)
                word = "observed" if verdict.observed else "not observed"
                lines.append(line | dataclasses.asdict(verdict) | {"verdict": word, "reason": ""})
        tables += [] if rows is None else [rows]
    return pandas.concat(tables, ignore_index=True), pandas.DataFrame(lines, columns=COLUMNS[1:])


if __name__ == "__main__":
    sys.exit(main())
