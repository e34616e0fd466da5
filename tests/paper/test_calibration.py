"""Predictions by sampling and calibration in rows, tables and figures, beside what is published."""

import json

import pandas
import pytest
from fake_results import edit, write_pages

from harness import kinds
from paper.figures import reliability
from paper.rows.summary import read_rows
from paper.tables import published_rows
from paper.tables.published_rows import number, verdict

CALIBRATION = {"brier": 0.1, "ece": 0.02, "auroc": 0.9}
BINS = [[0.25, 0.45, 0.5], [0.75, 0.95, 0.9]]
RMSE, LIKELIHOOD = kinds.named("regression").metrics[1:]


def sure(result):
    """Give a result what a cell measures whose recipe has `samples`; dropout can sample."""
    result["test"] |= CALIBRATION
    result["reliability"] = {"test": BINS}
    if result["method"] == "dropout":
        result["sampled_test"] = {**result["test"], "loss": 0.05, "samples": 50}
        result["reliability"]["sampled_test"] = BINS


@pytest.fixture
def csv(make_table):
    return make_table(methods=["dense", "dropout"], change=lambda cells: [edit(cell, sure) for cell in cells])


def test_sampled_predictions_have_a_row_of_their_own_without_the_cost_of_one_pass(csv):
    rows = read_rows(csv)
    assert list(rows["method"].unique()) == ["dense", "dropout", "dropout (sampled)"]
    drawn = rows[rows["evaluation"].eq("sampled")]
    assert (drawn["loss"] == 0.05).all() and drawn["macs"].isna().all() and drawn["latency_ms"].isna().all()


def test_the_page_has_a_table_of_calibration_and_statistics_leave_sampled_rows_out(csv, tmp_path):
    write_pages(csv, tmp_path / "page")
    text = (tmp_path / "page.md").read_text()
    table = text.partition("## Calibration: digits")[2].partition("\n## ")[0]
    assert "| Brier score | ECE % | AUROC of outliers % |" in table and "dropout (sampled)" in table
    paired = pandas.read_csv(csv.with_suffix("") / "statistics" / "paired.csv")
    assert list(paired["method"]) == ["dropout"]


def test_without_calibration_there_is_no_such_column_or_table(make_table, tmp_path):
    csv = make_table(methods=["dense", "dropout"])
    write_pages(csv, tmp_path / "page")
    assert "ece" not in pandas.read_csv(csv) and "Calibration" not in (tmp_path / "page.md").read_text()


def test_a_seed_without_sampled_predictions_is_shown_as_a_hole(make_table):
    def change(cells):
        for cell in cells:
            edit(cell, sure)
        edit(cells[-1], lambda result: result.pop("sampled_test"))

    rows = read_rows(make_table(methods=["dense", "dropout"], change=change))
    assert list(rows[rows["evaluation"].eq("sampled")]["status"]) == ["done", "done", "missing"]


def test_bins_of_several_seeds_are_pooled_by_their_examples():
    part = pandas.DataFrame(
        [("m", 1, "test", 1.0, 0.95, 0.9), ("m", 2, "test", 0.5, 0.97, 0.6), ("m", 2, "test", 0.5, 0.5, 0.5)],
        columns=["method", "seed", "evaluation", "share", "confidence", "right"],
    )
    top = reliability.pooled(part).set_index("bin").loc[15]
    assert top["share"] == pytest.approx(0.75) and top["right"] == pytest.approx((1.0 * 0.9 + 0.5 * 0.6) / 1.5)


def test_reliability_diagrams_are_drawn(csv, render):
    folder = render(csv)
    names = [plot["name"] for plot in json.loads((folder / "figures" / "index.json").read_text())]
    assert "reliability-digits-resnet8" in names
    drawn = pandas.read_csv(folder / "figures" / "reliability-digits-resnet8.csv")
    assert set(drawn["method"]) == {"dense", "dropout"}


@pytest.mark.parametrize(
    ("metric", "ours", "half", "count", "printed", "expected"),
    [
        (RMSE, 2.95, 0.10, 20, "2.90 ± 0.18", "reproduced"),
        (RMSE, 3.60, 0.10, 20, "2.90 ± 0.18", "worse"),
        (RMSE, 2.20, 0.10, 20, "2.90 ± 0.18", "better"),
        (LIKELIHOOD, -2.20, 0.02, 20, "-2.40 ± 0.04", "better"),
        (LIKELIHOOD, -2.60, 0.02, 20, "-2.40 ± 0.04", "worse"),
        (LIKELIHOOD, -2.395, 0.0, 20, "-2.40 ± 0.00", "reproduced"),  # by what is rounded away
        (RMSE, 0.001, 0.001, 20, "0.00 ± 0.00", "not comparable (digits)"),
        (RMSE, 2.95, 0.10, 2, "2.90 ± 0.18", "not comparable (splits)"),
    ],
)
def test_the_verdict_on_a_regression_goes_by_both_intervals(metric, ours, half, count, printed, expected):
    assert verdict(metric, ours, half, count, printed) == expected


def test_every_published_regression_is_found_by_a_dataset_of_ours():
    rows = published_rows.published.rows()
    printed = rows[rows["rmse"].ne("")]
    assert set(printed["dataset"]) == set(published_rows.DATASETS.values())
    assert number("2.90 ± 0.18") == (2.90, 0.18, 0.005)
