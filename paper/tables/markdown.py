"""A page of results as Markdown that GitHub renders."""

from __future__ import annotations

from collections.abc import Iterator

from paper.tables.page import Page, Table


def render(page: Page) -> str:
    """The whole page; equal pages give equal text."""
    return "\n".join(_lines(page)) + "\n"


def _lines(page: Page) -> Iterator[str]:
    yield f"# Results: {page.name}"
    for warning in page.warnings:
        yield from ("", f"> **Warning.** {_escape(warning)}")
    for table in page.tables:
        yield from ("", f"## {_escape(table.title)}", "", *grid(table), "", _escape(table.caption))
        for note in table.notes:
            yield from ("", _escape(note))
    if page.problems:
        yield from ("", "## Cells without numbers", "", *(f"- {_escape(line)}" for line in page.problems))


def grid(table: Table) -> Iterator[str]:
    """The table alone."""
    yield "| " + " | ".join(map(_escape, table.columns)) + " |"
    yield "|" + "|".join(" :-- " if table.is_text(index) else " --: " for index in range(len(table.columns))) + "|"
    for row in table.rows:
        yield "| " + " | ".join(_escape(cell.text) for cell in row) + " |"


def _escape(value: str) -> str:
    for character in "\\|*_<>[]":
        value = value.replace(character, f"\\{character}")
    return value
