"""Made-up results, collected and rendered, for the tests of this folder."""

import json
from pathlib import Path

import pytest
from fake_results import plan, write, write_pages

from paper.figures import draw
from paper.rows import collect

METHODS = ["dense", "edropout", "l1-30", "l1-50", "random"]


@pytest.fixture
def make_table(tmp_path):
    """A function that writes made-up results and collects them; `change(cells)` may edit or delete files before."""

    def make(name="quick", *, datasets=("digits",), models=("resnet8",), methods=METHODS, seeds=(1, 2, 3), change=None):
        cells = plan(tmp_path / "results", datasets, models, methods, seeds)
        write(cells, epochs=4)
        if change:
            change(cells)
        csv = tmp_path / "paper" / f"{name}.csv"
        assert collect.main(["--table", name, "--cells", json.dumps(cells), "--out", str(csv)]) == 0
        return csv

    return make


@pytest.fixture
def render():
    """A function that makes tables, statistics and figures of a collected CSV and returns the folder of the table."""

    def make(csv: Path) -> Path:
        folder = csv.with_suffix("")
        write_pages(csv, folder)
        options = ["--statistics", str(folder / "statistics"), "--out", str(folder / "figures")]
        assert draw.main(["--csv", str(csv), *options]) == 0
        return folder

    return make
