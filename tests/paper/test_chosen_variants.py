"""Of what was tried of a method, the validation set says what is shown; the test set has no say."""

import json

import pandas
import pytest
from fake_results import edit, evaluate, plan, write

from paper.rows import collect, summary, tuning
from paper.tables import layout

TRIED = {"dropout": 0.5, "dropout-rate_0.2": 0.2, "dropout-rate_0.7": 0.7}
VAL = {"dropout": 0.90, "dropout-rate_0.2": 0.93, "dropout-rate_0.7": 0.91}
TEST = {"dropout": 0.99, "dropout-rate_0.2": 0.92, "dropout-rate_0.7": 0.90}


@pytest.fixture
def cells(tmp_path):
    cells = plan(tmp_path / "results", ["digits"], ["resnet8"], ["dense", *TRIED], [1, 2])
    write(cells, epochs=2)
    for cell in cells:
        if method := cell["method"] if cell["method"] in TRIED else None:
            cell["tuned"] = {"method": "dropout", "tried": {"rate": TRIED[method]}}
            edit(cell, lambda content, name=method: content.update(val=evaluate(VAL[name]), test=evaluate(TEST[name])))
    return cells


def test_the_row_is_the_variant_that_is_best_on_validation_under_the_name_of_its_method(cells):
    rows = collect.collect(cells).rows
    assert [row["method"] for row in rows] == ["dense"] * 2 + ["dropout"] * 2
    assert [row["top1"] for row in rows[2:]] == [TEST["dropout-rate_0.2"]] * 2
    assert [row["tried"] for row in rows] == ["", "", "rate 0.2", "rate 0.2"]


def test_what_is_shown_follows_the_direction_of_the_metric(cells):
    for cell in cells:
        cell["kind"] = "regression"
    values = {name: {"rmse": 1 - value} for name, value in VAL.items()}
    found = [(cell, {"val": values[cell["method"]]} if "tuned" in cell else None) for cell in cells]
    attempts = tuning.attempts(found)
    assert attempts.loc[attempts["shown"], "variant"].tolist() == ["dropout-rate_0.2"]


def test_a_variant_that_failed_for_a_seed_is_not_shown_and_not_forgotten(cells, tmp_path, capsys):
    failed = next(cell for cell in cells if cell["method"] == "dropout-rate_0.2")
    edit(failed, lambda content: content.update(status="failed", error="diverged", test=None, val=None))
    out = tmp_path / "paper" / "quick.csv"
    assert collect.main(["--table", "quick", "--cells", json.dumps(cells), "--out", str(out)]) == 0
    attempts = pandas.read_csv(out.with_suffix("") / "tuning.csv")
    assert attempts["variant"].tolist() == list(TRIED)
    assert attempts["n"].tolist() == [2, 1, 2] and attempts["planned"].tolist() == [2, 2, 2]
    assert attempts.loc[attempts["shown"], "variant"].tolist() == ["dropout-rate_0.7"]
    assert "diverged" in capsys.readouterr().err


def test_the_table_is_made_of_what_it_does_not_show_too(cells, tmp_path):
    def stamp():
        out = tmp_path / "paper" / "quick.csv"
        assert collect.main(["--table", "quick", "--cells", json.dumps(cells), "--out", str(out)]) == 0
        return (out.with_suffix("") / "made_of.txt").read_text()

    before = stamp()
    hidden = next(cell for cell in cells if cell["method"] == "dropout-rate_0.7")
    edit(hidden, lambda content: content.update(val=evaluate(0.905)))
    assert stamp() != before


def test_the_page_says_what_was_chosen(cells, tmp_path):
    out = tmp_path / "paper" / "quick.csv"
    collect.main(["--table", "quick", "--cells", json.dumps(cells), "--out", str(out)])
    page = layout.page("quick", summary.read_rows(out))
    assert any("resnet8 dropout: rate 0.2" in note for note in page.tables[0].notes)
