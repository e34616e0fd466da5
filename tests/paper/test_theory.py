"""The page of the theorems: a figure and a table of verdicts for each, also where some data was missing."""

import json
import math
import shutil
import subprocess

import pandas
import pytest

from harness.plan.configuration import THEOREMS
from paper.report import typeset
from paper.theory import plots, verdicts, write

RATES = (0.5, 1.0)


def by_rate(data, *quantities):
    return [
        {"data": data, "keep_rate": rate, "seed": seed, "quantity": quantity, "value": rate + seed / 10}
        for rate in RATES
        for seed in (1, 2)
        for quantity in quantities
    ]


def rows_of(theorem):
    """Made-up rows with every quantity that the figure of a theorem shows."""
    if theorem == "matrix_completion":
        ratios = ("weighted_ratio", "unweighted_ratio", "effective_rank", "train_loss", "test_loss")
        paths = [
            {"data": "synthetic", "keep_rate": 0.5, "training": training, "step": step, "quantity": "objective"}
            | {"value": 1 / step}
            for training in ("dropout", "explicit")
            for step in (1, 2, 3)
        ]
        return paths + by_rate("synthetic", *ratios) + by_rate("movielens-100k", *ratios)
    if theorem == "hidden_layer":
        return by_rate("mnist", "regulariser", "gap") + by_rate("fashion", "regulariser", "gap")
    if theorem == "linear_networks":
        setting = {"data": "synthetic", "block": 3, "keep_rate": 0.5, "inputs": "white"}
        return [
            setting | {"kind": kind, "index": index, "quantity": quantity, "value": 3 - index}
            for kind in ("dropout", "dropblock")
            for index in (1, 2, 3)
            for quantity in ("singular_value", "closed_form")
        ]
    return [
        {"data": "synthetic", "margin": margin, "width": width, "step": step, "network": network}
        | {"quantity": "test_error", "value": max(0, 0.5 - step / 500)}
        for margin, width in ((0.03, 8), (0.03, 512), (0.1, 512))
        for step in (64, 128, 256)
        for network in ("full", "sub")
    ]


LINES = [
    {"statement": "It holds.", "data": "mnist", "measure": "ratio", "value": 1.0123456, "low": -math.inf, "high": 1.05,
     "verdict": "observed"},
    {"statement": "It does not.", "data": "mnist", "measure": "ratio", "value": 3.0, "low": 0, "high": 1,
     "verdict": "not observed"},
    {"statement": "It holds.", "data": "fashion", "verdict": "not run", "reason": "put the files into data"},
]  # fmt: skip


@pytest.fixture(scope="module")
def stem(tmp_path_factory):
    """The page of all theorems; the data of one was missing, so that it has no rows."""
    root = tmp_path_factory.mktemp("theory")
    for theorem in THEOREMS:
        (root / theorem).mkdir()
        rows = pandas.DataFrame(rows_of(theorem))
        (rows.iloc[:0] if theorem == "hidden_layer" else rows).to_csv(root / theorem / "rows.csv", index=False)
        lines = pandas.DataFrame(LINES).assign(theorem=f"{theorem} (Somebody, 2020).")
        lines.to_csv(root / theorem / "verdicts.csv", index=False)
    stem = root / "paper" / "theory"
    assert write.main(["--theorems", *(str(root / name) for name in THEOREMS), "--out-stem", str(stem)]) == 0
    return stem


def test_every_theorem_that_measured_something_has_a_figure(stem):
    index = json.loads((stem / "figures" / "index.json").read_text())
    assert [entry["name"] for entry in index] == [name for name in THEOREMS if name != "hidden_layer"]
    for entry in index:
        assert all((stem / "figures" / f"{entry['name']}.{kind}").stat().st_size > 0 for kind in ("png", "pdf", "csv"))


def test_the_figure_of_hidden_layers_is_drawn():
    assert plots.plot("hidden_layer", pandas.DataFrame(rows_of("hidden_layer"))) is not None
    rows = pandas.DataFrame(rows_of("hidden_layer"))
    rows.loc[rows["data"].eq("fashion"), "value"] += 5
    lines = [axis.get_lines() for axis in plots.draw_hidden_layer(rows).axes]
    for gaps, dots in zip(lines[1], lines[2], strict=True):
        assert gaps.get_color() == dots.get_color()
        assert (gaps.get_ydata().min() > 5) == (dots.get_ydata().min() > 5)


def test_every_theorem_has_its_verdicts(stem):
    assert len(pandas.read_csv(stem.with_suffix(".csv"))) == len(THEOREMS) * len(LINES)
    text = stem.with_suffix(".md").read_text()
    assert "| It holds. | MNIST | ratio | 1.012 | ≤ 1.05 | observed |" in text
    assert "| It does not. | MNIST | ratio | 3 | 0 to 1 | not observed |" in text
    assert text.count("Fashion-MNIST: not run, put the files into data.") == len(THEOREMS)


def test_the_page_alone_makes_a_pdf(stem, tmp_path):
    typeset.build([], stem.parent, tmp_path / "theory.pdf", theory=True)
    assert (tmp_path / "theory.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(-math.inf, 0.05, "≤ 0.05"), (0.8, math.inf, "≥ 0.8"), (1 - 1e-9, 1.05, "1 to 1.05"), (-math.inf, -1, "≤ -1")],
)
def test_limits_are_said_in_words(low, high, words):
    assert verdicts.limits(low, high) == words


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="pdftotext (poppler-utils) is not installed")
def test_the_pdf_of_tables_has_the_page_if_asked_for(stem, make_table, render, tmp_path):
    csv = make_table(methods=("dense", "edropout"), seeds=(1,))
    render(csv)
    shutil.copytree(stem.parent, csv.parent, dirs_exist_ok=True)
    texts = []
    for theory in (False, True):
        typeset.build(["quick"], csv.parent, tmp_path / "report.pdf", theory=theory)
        answer = subprocess.run(["pdftotext", tmp_path / "report.pdf", "-"], capture_output=True, text=True, check=True)
        texts.append(answer.stdout)
    assert ["It does not." in text for text in texts] == [False, True]
    assert all("Setup" in text for text in texts)
