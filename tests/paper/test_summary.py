"""Means and intervals that can be checked by hand."""

import math
from pathlib import Path

import pandas
import pytest

from paper.rows.summary import aggregate, problems, read_rows, seed_warning, summarise


def test_the_interval_is_students_t_of_the_sample():
    frame = pandas.DataFrame({"method": ["a", "a", "a", "b"], "top1": [0.90, 0.92, 0.94, 0.5]})
    a, b = aggregate(frame, ["method"], ["top1"]).itertuples()
    # t(0.975, 2) = 4.302653, standard deviation 0.02: 4.302653 * 0.02 / sqrt(3).
    assert a.top1 == pytest.approx(0.92) and a.top1_half == pytest.approx(0.0496828, abs=1e-6) and a.top1_n == 3
    assert b.top1 == 0.5 and math.isnan(b.top1_half) and b.top1_n == 1


def test_groups_keep_the_plans_order_and_holes_are_counted_not_hidden(make_table):
    def lose(cells):
        for cell in cells:
            if cell["method"] == "random" or (cell["method"] == "dense" and cell["seed"] == 1):
                Path(cell["path"]).unlink()

    rows = read_rows(make_table(change=lose))
    summary = summarise(rows).set_index("method")
    assert list(summary.index) == ["dense", "edropout (full)", "edropout", "l1-30", "l1-50", "random"]
    assert summary.loc["dense", ["n", "planned"]].tolist() == [2, 3]
    assert summary.loc["random", "n"] == 0 and math.isnan(summary.loc["random", "top1"])
    assert len(problems(rows)) == 4 and problems(rows)[0] == "digits/resnet8/dense/seed1 missing: no result file"


def test_few_seeds_are_warned_about(make_table):
    assert seed_warning(summarise(read_rows(make_table(seeds=(1, 2, 3))))) is None
    assert "Too few seeds: 6 of 6 rows" in seed_warning(summarise(read_rows(make_table("two", seeds=(1, 2)))))
