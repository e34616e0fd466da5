"""A page of results as LaTeX tables (booktabs): compiles by itself, and may be \\input into a document."""

from __future__ import annotations

from collections.abc import Iterator

from paper.tables.page import Page, Table

# \documentclass sets \@classoptionslist, so the file can tell whether a document surrounds it.
HEAD = r"""% Needs \usepackage{booktabs,graphicx} where it is \input; compiles by itself as well.
\makeatletter
\ifx\@classoptionslist\relax
  \def\paperend{\end{document}}
  \documentclass[a4paper]{article}
  \usepackage[margin=12mm,landscape]{geometry}
  \usepackage{booktabs,graphicx}
  \begin{document}
\else
  \let\paperend\relax
\fi
\makeatother"""

SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}"},
    **{"±": r"$\pm$", "—": "---", "\u00d7": r"$\times$", "†": r"$\dagger$", "…": r"\dots{}", "≤": r"$\leq$"},
}


def render(page: Page) -> str:
    """The whole page; equal pages give equal text."""
    return "\n".join(_lines(page)) + "\n"


def _lines(page: Page) -> Iterator[str]:
    yield HEAD
    for warning in page.warnings:
        yield f"\\par\\noindent\\textbf{{Warning.}} {escape(warning)}\\par"
    for number, table in enumerate(page.tables, 1):
        yield from _table(table, label=f"tab:{page.name}-{number}")
    if page.problems:
        yield r"\par\noindent\textbf{Cells without numbers.}\begin{itemize}\footnotesize\raggedright"
        yield from (f"  \\item {escape(line)}" for line in page.problems)
        yield r"\end{itemize}"
    yield r"\paperend"


def _table(table: Table, label: str) -> Iterator[str]:
    alignment = "".join("l" if table.is_text(index) else "r" for index in range(len(table.columns)))
    yield r"\begin{table}[p]\centering\footnotesize"
    yield f"\\caption{{{escape(table.title)}. {escape(table.caption)}}}\\label{{{label}}}"
    yield r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    yield f"\\begin{{tabular}}{{{alignment}}}"
    yield r"\toprule"
    yield " & ".join(map(escape, table.columns)) + r" \\"
    previous = None
    for row in table.rows:
        first = row[0].text
        yield r"\midrule" if first != previous else ""
        shown = ["" if first == previous else first, *(cell.text for cell in row[1:])]
        yield " & ".join(map(escape, shown)) + r" \\"
        previous = first
    yield r"\bottomrule"
    yield r"\end{tabular}}"
    if table.notes:
        yield r"\par\smallskip\raggedright " + r"\par ".join(map(escape, table.notes))
    yield r"\end{table}"


def escape(value: str) -> str:
    """Text that LaTeX prints as it is; other characters outside Latin-1 become a question mark."""
    replaced = "".join(SPECIAL.get(character, character) for character in value)
    return "".join(character if ord(character) < 256 else "?" for character in replaced)
