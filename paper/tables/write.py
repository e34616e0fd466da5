"""Write a results table for every reader.

    python -m paper.tables.write --csv results/paper/quick.csv --statistics results/paper/quick/statistics \\
        --out-stem results/paper/quick

gives quick.md, quick.tex and quick.html from tidy rows and their tests.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas

from paper.rows.summary import read_rows
from paper.tables import html, latex, markdown
from paper.tables.layout import page
from paper.tables.significance import short_paired_table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", required=True, type=Path)
    parser.add_argument("--statistics", required=True, type=Path)
    parser.add_argument("--out-stem", required=True, type=Path)
    options = parser.parse_args(arguments)
    content = page(options.csv.stem, read_rows(options.csv))
    paired = pandas.read_csv(options.statistics / "paired.csv")
    for dataset, part in paired.groupby("dataset", sort=False):
        content.tables.append(short_paired_table(part, f"Paired tests over seeds: {dataset}"))
    options.out_stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix, renderer in {".md": markdown, ".tex": latex, ".html": html}.items():
        target = options.out_stem.with_name(options.out_stem.name + suffix)
        target.write_text(renderer.render(content), encoding="utf-8")
    for warning in content.warnings:
        print(f"table '{content.name}': {warning}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
