"""Tables, tests and figures follow the kind of task: its metrics, their direction and their units."""

import json
import math

import pandas
import pytest
from fake_results import edit, plan, write

from harness import kinds
from paper.rows import collect
from paper.rows.row import columns
from paper.rows.summary import read_rows, scored, summarise
from paper.statistics.paired import paired_tests
from paper.statistics.pareto import pareto
from paper.tables.layout import page

METHODS = ["dense", "dropout", "random"]
SEEDS = (1, 2, 3)
KINDS = {"digits": "classification", "words": "language", "rows": "regression"}
CHANCE = {"digits": 0.1, "words": 600.0, "rows": 3.0}


def evaluation(kind, rank, seed):
    """Better for a smaller rank, a little different for each seed."""
    loss = 0.5 + rank / 10 + seed / 100
    if kind == "language":
        return {"loss": 4 + loss, "perplexity": math.exp(4 + loss), "examples": 100}
    return {**kinds.named(kind).at_scale(2.0).summary({"loss": loss}), "examples": 100}


def change(cell):
    kind, rank = KINDS[cell["dataset"]], METHODS.index(cell["method"])

    def to_kind(content):
        content["chance"] = CHANCE[cell["dataset"]]
        if kind != "classification":
            content["kind"] = kind
            content["test"] = content["val"] = evaluation(kind, rank, cell["seed"])

    edit(cell, to_kind)
    path = collect.Path(cell["path"]).with_name("history.csv")
    history = pandas.read_csv(path)
    if kind != "classification":
        main = kinds.named(kind).main.name
        history.rename(columns={"val_top1": f"val_{main}"}).to_csv(path, index=False)


@pytest.fixture
def csv(tmp_path):
    cells = plan(tmp_path / "results", KINDS, ["net"], METHODS, SEEDS)
    write(cells, epochs=4)
    for cell in cells:
        cell["kind"] = KINDS[cell["dataset"]]
        change(cell)
    path = tmp_path / "paper" / "all.csv"
    assert collect.main(["--table", "all", "--cells", json.dumps(cells), "--out", str(path)]) == 0
    return path


def test_a_table_has_the_columns_of_its_kinds_and_no_others(csv):
    rows = pandas.read_csv(csv)
    assert list(rows.columns) == columns(KINDS.values())
    assert not {"perplexity", "rmse", "val_rmse"} & set(columns(["classification"]))
    counts = rows.groupby("dataset")[["top1", "perplexity", "rmse", "val_rmse"]].count()
    assert counts.loc["rows"].tolist() == [0, 0, 9, 9]


def test_the_comparison_names_the_metrics_and_what_chance_gives(csv):
    found = {table.title: table for table in page("all", read_rows(csv)).tables}
    words, rows = found["Comparison: words"], found["Comparison: rows"]
    assert words.columns[3:6] == ["Loss", "Perplexity", "Kept %"]
    assert rows.columns[3:7] == ["Loss", "RMSE", "Log-likelihood", "Kept %"]
    values = pandas.Series([math.exp(4.51), math.exp(4.52), math.exp(4.53)])
    half = 4.302653 / 3**0.5 * values.std()
    assert words.rows[0][4].text == f"{values.mean():.2f} ± {half:.2f}"
    assert words.notes == ["The best answer that does not look at x: perplexity 600.00."]
    assert found["Comparison: digits"].notes == ["The best answer that does not look at x: top-1 (%) 10.00."]
    assert "Gaussian noise" in rows.caption and "Gaussian" not in words.caption


def test_where_lower_is_better_a_lower_value_is_better(csv):
    rows = read_rows(csv)
    tests = paired_tests(rows).set_index(["dataset", "method"])
    assert tests.loc[("words", "random"), "difference"] > 0 and tests.loc[("words", "random"), "result"] == "worse"
    assert (
        tests.loc[("rows", "dropout"), "result"] == "worse" and tests.loc[("rows", "dropout"), "kind"] == "regression"
    )
    points = pareto(summarise(rows)).set_index(["dataset", "method", "cost"])
    # As small as dropout and with a lower perplexity.
    assert points.loc[("words", "dense", "kept_ratio"), "on_front"]
    assert not points.loc[("words", "dropout", "kept_ratio"), "on_front"]
    gains = scored(summarise(rows)).set_index(["dataset", "method"])["gain"]
    assert gains["words", "dense"] > gains["words", "dropout"] > gains["words", "random"]


def test_every_kind_has_its_figures(csv, render):
    folder = render(csv) / "figures"
    assert {"perplexity-words.png", "rmse-rows.png", "accuracy-digits.png", "training-words.png"} <= {
        path.name for path in folder.iterdir()
    }
    drawn = pandas.read_csv(folder / "training-words.csv")
    assert set(drawn["quantity"]) == {"train_loss", "val_perplexity"}


def test_a_result_of_another_kind_than_planned_stops_the_collection(tmp_path, capsys):
    cells = plan(tmp_path / "results", ["words"], ["net"], ["dense"], [1])
    write(cells, epochs=1)
    change(cells[0])
    assert collect.main(["--table", "t", "--cells", json.dumps(cells), "--out", str(tmp_path / "t.csv")]) == 1
    assert "is a result of language, but the plan says classification" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dataset", "wrong", "sentence"),
    [
        ("words", {"perplexity": 5.0}, "test.perplexity = 5.0 is not the exponential of loss"),
        ("words", {"perplexity": 0.5}, "test.perplexity: 0.5 is less than the minimum of 1"),
        ("words", {"top1": 0.5}, "test.top1: is no number of the kind 'language'"),
        ("rows", {"log_likelihood": 1.0}, "test.log_likelihood = 1.0 is not that of rmse"),
        ("rows", {"rmse": -1.0}, "test.rmse: -1.0 is less than the minimum of 0"),
    ],
)
def test_numbers_that_cannot_be_of_their_kind_are_invalid(tmp_path, capsys, dataset, wrong, sentence):
    cells = plan(tmp_path / "results", [dataset], ["net"], ["dense"], [1])
    write(cells, epochs=1)
    cells[0]["kind"] = KINDS[dataset]
    change(cells[0])
    edit(cells[0], lambda content: content["test"].update(wrong))
    assert collect.main(["--table", "t", "--cells", json.dumps(cells), "--out", str(tmp_path / "t.csv")]) == 0
    assert sentence in capsys.readouterr().err
