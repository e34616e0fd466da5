"""Draw every figure of a results table.

    python -m paper.figures.draw --csv results/paper/quick.csv --statistics results/paper/quick/statistics \\
        --out results/paper/quick/figures

writes <name>.csv, <name>.png and <name>.pdf for each figure, and index.json with the captions in reading order.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pandas

from paper.figures import curves, layers, ranking_plot, reliability, speed, time, tradeoffs
from paper.figures.canvas import Plot, save
from paper.figures.style import looks
from paper.rows.summary import read_rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", required=True, type=Path, help="tidy rows; history.csv and layers.csv lie beside")
    parser.add_argument("--statistics", required=True, type=Path, help="folder of paper.statistics.compute")
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument("--jobs", type=int, default=1, help="processes that draw")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    drawn = list(plots(options.csv, options.statistics))
    save_all(drawn, options.out, jobs=options.jobs)
    index = [{"name": plot.name, "caption": plot.caption} for plot in drawn]
    (options.out / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return 0


def save_all(drawn: list[Plot], folder: Path, *, jobs: int) -> None:
    """Save every plot, several at a time where `jobs` allows; the bytes do not depend on it."""
    if jobs == 1:
        for plot in drawn:
            save(plot, folder)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for _ in pool.map(partial(save, folder=folder), drawn):
            pass  # Fetching a result raises what its process raised.


def plots(csv: Path, statistics: Path) -> Iterator[Plot]:
    """All figures that the data allows, in reading order."""
    folder = csv.with_suffix("")
    history = pandas.read_csv(folder / "history.csv")
    rows = read_rows(csv)
    planned = rows[rows["evaluation"].eq("pruned")]
    # One look for the whole table, so that a hole in one figure does not recolour it.
    look = looks(planned["method"])
    yield from tradeoffs.plots(pandas.read_csv(statistics / "pareto.csv"), look)
    yield from time.plots(rows, look)
    yield from ranking_plot.plots(statistics, look)
    yield from curves.plots(history, look)
    yield from speed.plots(rows, look)
    yield from layers.plots(pandas.read_csv(folder / "layers.csv"), planned)
    yield from reliability.plots(pandas.read_csv(folder / "reliability.csv"))


if __name__ == "__main__":
    sys.exit(main())
