"""A page of results as one self-contained HTML file whose tables sort by a click on a heading."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from paper.tables.page import Cell, Page, Table

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; padding: 0 1.5rem; max-width: 100rem; color: #1a1a1a; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.86rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.28rem 0.42rem; text-align: right; white-space: nowrap; }
th.text, td.text { text-align: left; }
thead th { border-top: 2px solid; border-bottom: 1px solid; position: sticky; top: 0; background: #fff; }
thead th button { all: unset; cursor: pointer; font-weight: 600; }
thead th button:focus-visible { outline: 2px solid #0072b2; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
tbody tr:nth-child(even) { background: #f4f6f8; }
tbody tr:last-child td { border-bottom: 2px solid; }
.caption, .note { font-size: 0.84rem; max-width: 62rem; color: #444; margin: 0.5rem 0; }
.warning { border-left: 4px solid #d55e00; padding: 0.5rem 1rem; background: #fdf1e7; max-width: 62rem; }
"""

# Empty values sort last in both directions; a second click turns the order round.
SCRIPT = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement, row = heading.parentElement, body = heading.closest("table").tBodies[0];
    const column = [...row.children].indexOf(heading), words = heading.classList.contains("text");
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of row.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (line) => line.children[column].dataset.value;
    const order = (a, b) => {
      const x = value(a), y = value(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      return (words ? x.localeCompare(y, "en", { numeric: true }) : x - y) * (down ? -1 : 1);
    };
    body.append(...[...body.rows].sort(order));
  });
}
"""


def render(page: Page) -> str:
    """The whole page; equal pages give equal text, and nothing is loaded from elsewhere."""
    return "\n".join(_lines(page)) + "\n"


def _lines(page: Page) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f"<title>Results: {escape(page.name)}</title>\n<style>{STYLE}</style>\n</head>\n<body>"
    yield f"<h1>Results: {escape(page.name)}</h1>"
    for warning in page.warnings:
        yield f'<p class="warning"><strong>Warning.</strong> {escape(warning)}</p>'
    for table in page.tables:
        yield from _table(table)
    if page.problems:
        yield "<h2>Cells without numbers</h2>\n<ul>"
        yield from (f"<li>{escape(line)}</li>" for line in page.problems)
        yield "</ul>"
    yield f"<script>{SCRIPT}</script>\n</body>\n</html>"


def _table(table: Table) -> Iterator[str]:
    kinds = [' class="text"' if table.is_text(index) else "" for index in range(len(table.columns))]
    yield f'<h2>{escape(table.title)}</h2>\n<div class="scroll">\n<table>\n<thead><tr>'
    for heading, kind in zip(table.columns, kinds, strict=True):
        yield f'<th scope="col"{kind}><button type="button">{escape(heading)}</button></th>'
    yield "</tr></thead>\n<tbody>"
    for row in table.rows:
        yield "<tr>" + "".join(_entry(cell, kind) for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
    yield f'</tbody>\n</table>\n</div>\n<p class="caption">{escape(table.caption)}</p>'
    yield from (f'<p class="note">{escape(note)}</p>' for note in table.notes)


def _entry(cell: Cell, kind: str) -> str:
    number = "" if cell.value is None or math.isnan(cell.value) else f"{cell.value:.10g}"
    value = cell.text if kind else number
    return f'<td{kind} data-value="{escape(value)}">{escape(cell.text)}</td>'
