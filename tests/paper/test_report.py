"""The PDF: same bytes, nothing from outside, every number traceable to its cells."""

import shutil
import subprocess

import pandas
import pytest
from fake_results import FAILURE, edit

from paper.report import typeset
from paper.rows.summary import read_rows


@pytest.fixture
def built(make_table, render, tmp_path):
    csv = make_table(change=lambda cells: edit(cells[4], lambda content: content.update(FAILURE)))
    render(csv)
    out = tmp_path / "quick.pdf"
    assert typeset.main(["--tables", "quick", "--folder", str(csv.parent), "--out", str(out)]) == 0
    return csv, out


def words(pdf):
    answer = subprocess.run(["pdftotext", "-layout", str(pdf), "-"], capture_output=True, text=True, check=True)
    return " ".join(answer.stdout.split())


def test_bytes_are_equal_when_built_again_elsewhere(built, tmp_path):
    csv, out = built
    elsewhere = tmp_path / "elsewhere" / "paper"
    shutil.copytree(csv.parent, elsewhere)
    typeset.build(["quick"], elsewhere, tmp_path / "again.pdf")
    assert (tmp_path / "again.pdf").read_bytes() == out.read_bytes()
    assert out.read_bytes().startswith(b"%PDF") and str(tmp_path).encode() not in out.read_bytes()


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="pdftotext (poppler-utils) is not installed")
def test_the_pdf_says_what_was_run_and_which_cells_are_behind_a_number(built):
    csv, out = built
    text = words(out)
    assert "Table quick has 15 cells, of which 14 are finished" in text
    assert "the methods dense, edropout, l1-30, l1-50 and random, and the seeds 1, 2 and 3;" in text
    for row in read_rows(csv).itertuples():
        assert row.config_hash in text
    assert "digits/resnet8/edropout/seed2 failed: the loss became nan" in text
    assert all(title in text for title in ("Setup", "Deviations from the paper", "Cells behind the numbers"))


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="pdftotext (poppler-utils) is not installed")
def test_several_tables_make_one_pdf(make_table, render, tmp_path):
    for name in ("first", "second"):
        csv = make_table(name, methods=("dense", "edropout"), seeds=(1,))
        render(csv)
    typeset.build(["first", "second"], csv.parent, tmp_path / "both.pdf")
    text = words(tmp_path / "both.pdf")
    assert "Tables: first and second" in text and "Figures: second" in text and "the seed 1;" in text


def test_the_origin_names_status_and_uncommitted_changes():
    common = {"dataset": "d", "model": "m", "method": "e", "evaluation": "pruned", "commit": "0123456789abcdef"}
    rows = pandas.DataFrame(
        [
            {**common, "seed": 1, "config_hash": "a" * 16, "status": "done", "dirty": False},
            {**common, "seed": 2, "config_hash": "b" * 16, "status": "done", "dirty": True},
            {**common, "seed": 3, "config_hash": "c" * 16, "status": "failed", "dirty": None, "commit": None},
        ]
    )
    cells, commits = (cell.text for cell in typeset.origin(rows).rows[0][3:])
    assert cells == f"1:{'a' * 16}  2:{'b' * 16}  3:{'c' * 16} (failed)"
    assert commits == "0123456789ab, 0123456789ab+"
