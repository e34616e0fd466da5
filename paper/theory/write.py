"""The page of the theorems: `python -m paper.theory.write --theorems FOLDER ... --out-stem results/paper/theory`.

Reads rows.csv and verdicts.csv of each folder; writes theory.csv with all verdicts, theory.md, and in theory/figures
one figure for each theorem, with index.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pandas

from paper.figures.canvas import save
from paper.tables import markdown
from paper.tables.page import Page
from paper.theory.plots import plot
from paper.theory.verdicts import tables


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--theorems", required=True, nargs="+", type=Path, help="folders named by their theorem")
    parser.add_argument("--out-stem", required=True, type=Path)
    options = parser.parse_args(arguments)
    figures = options.out_stem / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    verdicts = pandas.concat([pandas.read_csv(folder / "verdicts.csv") for folder in options.theorems])
    verdicts.to_csv(options.out_stem.with_suffix(".csv"), index=False, lineterminator="\n")
    page = Page(options.out_stem.name, [], [], tables(verdicts))
    options.out_stem.with_suffix(".md").write_text(markdown.render(page), encoding="utf-8")
    plots = [plot(folder.name, pandas.read_csv(folder / "rows.csv")) for folder in options.theorems]
    drawn = [found for found in plots if found]
    for found in drawn:
        save(found, figures)
    index = [{"name": found.name, "caption": found.caption} for found in drawn]
    (figures / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
