"""One tidy row per planned cell; what cannot be believed has no numbers, what lies elsewhere stops the collection."""

import json
from pathlib import Path

import numpy
import pandas
import pytest
from fake_results import FAILURE, edit, metrics, plan, write

from harness.plan import grid, rendered
from paper.rows import collect
from paper.rows.plausible import objections
from paper.rows.row import columns

OTHER_NETWORK = {
    "made_of": {"code": {"architectures/cifar_resnet.py": "f" * 16, "workflow/rules/dense.smk": ""}, "packages": {}}
    | {"data": {}, "inputs": {}}
}


@pytest.fixture
def cells(tmp_path):
    cells = plan(tmp_path / "results", ["digits"], ["resnet8"], ["dense", "edropout"], [1, 2])
    write(cells, epochs=3)
    return cells


def run(cells, tmp_path):
    out = tmp_path / "paper" / "quick.csv"
    code = collect.main(["--table", "quick", "--cells", json.dumps(cells), "--out", str(out)])
    return code, pandas.read_csv(out) if out.exists() else None


def test_every_cell_is_a_row_and_the_full_evaluation_a_second_one(cells, tmp_path):
    code, rows = run(cells, tmp_path)
    assert code == 0 and list(rows.columns) == columns(["classification"])
    assert rows["method"].tolist() == ["dense"] * 2 + ["edropout (full)", "edropout"] * 2
    full = rows[rows["method"] == "edropout (full)"]
    assert (full["kept_ratio"] == 1).all() and (full["macs"] == full["dense_macs"]).all()
    assert (full["top1"].to_numpy() > rows[rows["method"] == "edropout"]["top1"].to_numpy()).all()


def test_history_and_layers_of_finished_cells_lie_beside_the_rows(cells, tmp_path):
    run(cells, tmp_path)
    history = pandas.read_csv(tmp_path / "paper" / "quick" / "history.csv")
    assert history.groupby(["method", "seed"]).size().tolist() == [3] * 4
    assert history.loc[history["method"] == "dense", "best_energy"].isna().all()
    layers = pandas.read_csv(tmp_path / "paper" / "quick" / "layers.csv")
    assert layers.groupby(["method", "seed"])["layer"].first().eq("conv1").all()


def test_a_list_of_cells_may_be_a_file_and_equal_input_gives_equal_bytes(cells, tmp_path):
    run(cells, tmp_path)
    first = (tmp_path / "paper" / "quick.csv").read_bytes()
    (tmp_path / "cells.json").write_text(json.dumps(cells))
    out = tmp_path / "again" / "quick.csv"
    assert collect.main(["--table", "quick", "--cells", str(tmp_path / "cells.json"), "--out", str(out)]) == 0
    assert out.read_bytes() == first


def test_failed_and_missing_cells_are_rows_without_numbers_in_both_evaluations(cells, tmp_path, capsys):
    edit(cells[2], lambda content: content.update(FAILURE))
    Path(cells[1]["path"]).unlink()
    code, rows = run(cells, tmp_path)
    assert code == 0
    assert rows.loc[rows["status"] == "failed", "method"].tolist() == ["edropout (full)", "edropout"]
    assert rows.loc[rows["status"] == "missing", "error"].tolist() == ["no result file"]
    assert rows.loc[rows["status"] != "done", ["top1", "kept_ratio", "loss"]].isna().all(axis=None)
    assert "the loss became nan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda content: content["test"].update(top1=1.2), "test.top1: 1.2 is greater than the maximum of 1"),
        (lambda content: content["test"].update(top1=0.9512345), "not a number of right answers out of 10000"),
        (lambda content: content["test"].update(top3=0.5), "test.top1 = .* is above top3 = 0.5"),
        (lambda content: content["test"].update(loss=float("nan")), "NaN is not a number"),
        (lambda content: content["size"].update(kept_ratio=0.1), "kept_ratio = 0.1 is not nonzero"),
        (lambda content: content["size"].update(parameters=3), "nonzero = .* is above size.parameters = 3"),
        (lambda content: content["budget"].update(total_epochs=500), "total_epochs is not"),
        (lambda content: content["config"]["recipe"].update(epochs=99), "config_hash is not the hash"),
        (lambda content: content.pop("test"), "test"),
    ],
)
def test_a_result_that_cannot_be_true_is_named_and_not_averaged(cells, tmp_path, capsys, change, sentence):
    edit(cells[0], change)
    code, rows = run(cells, tmp_path)
    assert code == 0
    bad = rows[rows["status"] == "invalid"]
    assert len(bad) == 1 and bad["top1"].isna().all()
    assert bad["error"].str.contains(sentence).all() and bad["error"].str.contains(cells[0]["path"]).all()
    assert cells[0]["path"] in capsys.readouterr().err


@pytest.mark.parametrize(
    "rival", ["seed1/metrics (copy).json", "seed1/old-metrics.json", "seed01/metrics.json", "seed1 (copy)/metrics.json"]
)
def test_two_result_files_for_one_cell_leave_it_without_numbers(cells, tmp_path, rival):
    path = Path(cells[0]["path"])
    other = path.parent.parent / rival
    other.parent.mkdir(exist_ok=True)
    other.write_text(path.read_text())
    _, rows = run(cells, tmp_path)
    bad = rows[rows["status"] == "invalid"]
    assert len(bad) == 1 and bad["error"].str.contains(f"two result files.*{path.name}").all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 7}, r"holds the result of digits/resnet8/dense/seed7"),
        ({"config_hash": "0" * 16}, r"was made with configuration 0000.*run the cell again"),
        ({"protocol": 2}, r"results of two protocols are never mixed"),
        (
            {"made_of": {key: {} for key in ("code", "packages", "data", "inputs")}},
            r"dense/seed1/metrics.json does not say what it was made of.*run the cell again",
        ),
        (OTHER_NETWORK, r"was made with another architectures/cifar_resnet.py: run the cell again"),
    ],
)
def test_a_result_of_another_plan_stops_the_collection(cells, tmp_path, capsys, change, sentence):
    edit(cells[0], lambda content: (content.update(change), content.pop("config")))
    code, rows = run(cells, tmp_path)
    message = capsys.readouterr().err
    assert code == 1 and rows is None and len(message.splitlines()) == 1
    assert pandas.Series([message]).str.contains(sentence).all() and "seed" in message


def test_a_cell_planned_twice_or_at_a_wrong_path_stops_the_collection(cells, tmp_path, capsys):
    assert run([cells[0], cells[0]], tmp_path)[0] == 1
    assert "twice" in capsys.readouterr().err
    moved = tmp_path / "elsewhere" / "metrics.json"
    moved.parent.mkdir()
    moved.write_text(Path(cells[0]["path"]).read_text())
    assert run([{**cells[0], "path": str(moved)}], tmp_path)[0] == 1
    assert "must lie in digits/resnet8/dense/seed1" in capsys.readouterr().err


def test_the_hash_check_knows_the_plans_hash(tmp_path):
    config = {
        "datasets": {"digits": {"source": "digits", "recipe": "r"}},
        "recipes": {"r": {"epochs": 2}},
        "methods": {"dense": {}},
    }
    cell = grid.cell(config, dataset="digits", model="resnet8", method="dense", seed=1)
    result = metrics({**cell, "path": ""}, numpy.random.default_rng(0)) | {"config": cell["config"]}
    assert list(objections(result)) == []


@pytest.mark.parametrize("content", [b"", b"epoch,lr\n1,2\n3,4,5\n", b"\xff\xfe\x00"])
def test_a_damaged_history_leaves_its_cell_without_numbers_and_the_others_with_theirs(cells, tmp_path, content):
    Path(cells[0]["path"]).with_name("history.csv").write_bytes(content)
    _, rows = run(cells, tmp_path)
    bad = rows[rows["status"] == "invalid"]
    assert len(bad) == 1 and bad["error"].str.contains("history.csv is damaged").all()
    assert (rows["status"] == "done").sum() == len(rows) - 1


def test_rows_that_are_written_anew_end_the_announcement_of_the_old_ones_and_say_what_they_are_made_of(cells, tmp_path):
    announcement, stamp = tmp_path / "paper" / "quick.txt", tmp_path / "paper" / "quick" / "made_of.txt"
    run(cells, tmp_path)
    first = stamp.read_text()
    announcement.write_text(f"Results\n{rendered.line(first)}")
    run(cells, tmp_path)
    assert not announcement.exists() and rendered.of(announcement.with_suffix("")) is None
    assert stamp.read_text() == first
