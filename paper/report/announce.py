"""Say where the results of a table are, and fail if a cell failed: the last step of every target.

    python -m paper.report.announce --table quick --folder results/paper --out results/paper/quick.txt

prints the paths of table, figures and PDF and writes them to --out. If a planned cell has no numbers it lists those
cells, leaves --out unwritten and exits with 1, so that a run with failures is not taken for a complete one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.plan import rendered
from paper.rows.summary import problems, read_rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True)
    parser.add_argument("--folder", type=Path, default=Path("results/paper"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    message = places(options.table, options.folder)
    print(message)
    holes = problems(read_rows(options.folder / f"{options.table}.csv"))
    if holes:
        print("", *(f"  {hole}" for hole in holes), sep="\n", file=sys.stderr)
        cells = "1 cell has" if len(holes) == 1 else f"{len(holes)} cells have"
        print(f"table '{options.table}': {cells} no numbers, start the same command again to retry", file=sys.stderr)
        return 1
    if options.out:
        made_of = (options.folder / options.table / "made_of.txt").read_text(encoding="utf-8")
        options.out.write_text(f"{message}\n{rendered.line(made_of)}", encoding="utf-8")
    return 0


def places(table: str, folder: Path) -> str:
    """Where a reader finds what was made of a table."""
    lines = {
        "table": ", ".join(str(folder / f"{table}.{suffix}") for suffix in ("md", "html", "tex", "csv")),
        "figures": f"{folder / table / 'figures'}/",
        "statistics": f"{folder / table / 'statistics'}/",
        "PDF": str(folder / f"{table}.pdf"),
    }
    return "\n".join([f"Results of '{table}':", *(f"  {name:<11}{place}" for name, place in lines.items())])


if __name__ == "__main__":
    sys.exit(main())
