"""What the rendered tables say, and that every form of them holds the same numbers."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from fake_results import FAILURE, edit, write_pages

from harness.plan import rendered
from paper.report import announce
from paper.rows.summary import read_rows
from paper.statistics.paired import paired_tests
from paper.tables import html, latex, markdown
from paper.tables.layout import page
from paper.tables.page import Cell, Page, Table, mean, quantity

PUBLISHED = {"datasets": ("kuzushiji",), "models": ("resnet18", "resnet34"), "methods": ("dense", "edropout", "l1")}


def titles(content):
    return [table.title for table in content.tables]


def cell(table, method, column):
    row = next(row for row in table.rows if row[1].text.split(" [")[0] == method)
    return row[table.columns.index(column)].text


def test_numbers_are_shown_with_their_interval_and_unit():
    assert mean(0.98231, 0.0012, digits=2, scale=100).text == "98.23 ± 0.12"
    assert mean(0.5, digits=1).text == "0.5" and mean(float("nan"), digits=1) == Cell("—")
    assert [quantity(value).text for value in (11_173_962, 78_042, 999, 1.5e9)] == ["11.2 M", "78.0 k", "999", "1.50 G"]


def test_a_dataset_without_published_numbers_has_no_column_for_them(make_table):
    content = page("quick", read_rows(make_table()))
    assert titles(content) == ["Comparison: digits", "Claims of the abstract: digits"]
    assert "Pub. top-1 %" not in content.tables[0].columns
    assert content.warnings == [] and content.problems == []


def test_published_numbers_stand_beside_ours_and_fill_no_hole(make_table):
    def lose_edropout(cells):
        for one in cells:
            if one["method"] == "edropout" and one["model"] == "resnet18":
                Path(one["path"]).unlink()

    content = page("k", read_rows(make_table("k", **PUBLISHED, change=lose_edropout)))
    assert titles(content)[:2] == ["Comparison: kuzushiji", "Reproduction: kuzushiji"]
    comparison, reproduction = content.tables[:2]
    assert cell(comparison, "edropout", "Top-1 %") == "—" and cell(comparison, "edropout", "Pub. top-1 %") == "97.78"
    assert cell(comparison, "edropout", "Verdict") == "not comparable (seeds)"
    assert cell(comparison, "edropout", "n") == "0 of 3 †" and cell(comparison, "l1", "Pub. top-1 %") == "—"
    assert next(row[1].text for row in reproduction.rows if row[0].text == "resnet34") == "dense [1]"
    assert any("99.52" in note for note in reproduction.notes)
    assert reproduction.notes[-1] == "Published numbers from sparsifai/epruning@d660cc4:png/k.png."
    assert all("within 1 point" in table.caption for table in (comparison, reproduction))


def test_failed_cells_are_listed_in_every_form(make_table, tmp_path):
    csv = make_table(change=lambda cells: edit(cells[4], lambda content: content.update(FAILURE)))
    write_pages(csv, tmp_path / "out" / "quick")
    for suffix, line in {
        ".md": "digits/resnet8/edropout/seed2 failed",
        ".html": "edropout/seed2 failed",
        ".tex": "seed2",
    }.items():
        text = (tmp_path / "out" / f"quick{suffix}").read_text()
        assert line in text and "the loss became nan" in text and "1 planned cell has no numbers" in text


def test_markdown_html_and_latex_hold_the_same_cells(make_table):
    content = page("k", read_rows(make_table("k", **PUBLISHED)))
    shown = [one.text for table in content.tables for row in table.rows for one in row]
    plain = re.sub(r"\\(.)", r"\1", markdown.render(content))
    for text in shown:
        assert text in plain and text.replace(">", "&gt;").replace("<", "&lt;") in html.render(content)
        assert latex.escape(text) in latex.render(content)


def test_special_characters_do_no_harm():
    row = [Cell("a_b|c"), Cell("<script>&%$#{}~^\\"), Cell("—")]
    content = Page("x", ["50 % & more"], ["a/b_c failed: <nan>"], [Table("T_1", "c | d", ["A", "B", "C"], [row])])
    assert "<script>&" not in html.render(content) and "&lt;script&gt;" in html.render(content)
    assert "a\\_b\\|c" in markdown.render(content)
    assert latex.escape("_%é漢") == "\\_\\%é?"


def test_html_loads_nothing(make_table):
    text = html.render(page("quick", read_rows(make_table())))
    assert not re.search(r"https?://|src=|@import|url\(", text)


@pytest.mark.skipif(
    not shutil.which("pdflatex"), reason="pdflatex (Debian: texlive-latex-recommended) is not installed"
)
@pytest.mark.parametrize("inside", [False, True])
def test_latex_compiles_by_itself_and_inside_a_document(make_table, tmp_path, inside):
    csv = make_table("k", **PUBLISHED, change=lambda cells: edit(cells[0], lambda content: content.update(FAILURE)))
    write_pages(csv, tmp_path / "k")
    document = "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\\input{k}after\\end{document}"
    (tmp_path / "whole.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "whole.tex" if inside else "k.tex"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout[-2000:]


def test_announcing_says_where_things_are_and_fails_with_the_failed_cells(make_table, tmp_path, capsys):
    whole = make_table("whole")
    options = ["--folder", str(whole.parent), "--out", str(tmp_path / "whole.txt")]
    assert announce.main(["--table", "whole", *options]) == 0
    message = capsys.readouterr().out
    assert "whole.pdf" in message and "whole/figures/" in message
    made_of = (whole.with_suffix("") / "made_of.txt").read_text()
    assert (tmp_path / "whole.txt").read_text() == message + rendered.line(made_of)
    assert rendered.of(tmp_path / "whole") == made_of
    make_table("holed", change=lambda cells: edit(cells[0], lambda content: content.update(FAILURE)))
    options = ["--folder", str(whole.parent), "--out", str(tmp_path / "holed.txt")]
    assert announce.main(["--table", "holed", *options]) == 1
    error = capsys.readouterr().err
    assert "digits/resnet8/dense/seed1 failed: the loss became nan" in error
    assert "table 'holed': 1 cell has no numbers" in error and not (tmp_path / "holed.txt").exists()


def test_paired_tests_stand_in_every_form_for_each_dataset(make_table, tmp_path):
    csv = make_table()
    write_pages(csv, tmp_path / "quick")
    text = (tmp_path / "quick.md").read_text()
    rows = text.split("## Paired tests over seeds: digits")[1].splitlines()
    assert any("Difference" in row and "Holm" in row for row in rows)
    results = paired_tests(read_rows(csv)).set_index("method")["result"]
    assert set(results) == {"better", "no difference shown"}, "the made-up results no longer show both"
    for method, result in results.items():
        assert any(row.startswith(f"| digits | resnet8 | {method} |") for row in rows) == (result == "better")
        sentences = [row for row in rows if row.startswith("No difference shown, 2 of 4 lines. resnet8: ")]
        assert (method in sentences[0]) == (result != "better")
    assert "Paired tests over seeds: digits" in (tmp_path / "quick.html").read_text()
    assert r"Paired tests over seeds: digits" in (tmp_path / "quick.tex").read_text()
