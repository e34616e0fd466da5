"""What a table was rendered from: the results, and the code of paper/. Written last, and compared before anything."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.machine.files import ROOT
from harness.plan.code import digest, folder_hash

LABEL = "Made of"


def wanted(results: Iterable[Mapping[str, Any]]) -> str:
    """What a table of these results is made of now; their order counts, since rows have it."""
    return digest([[metrics.get("checksum") for metrics in results], code()])


def line(made_of: str) -> str:
    """The last line of a table's announcement, which is the last file that is written."""
    return f"{LABEL} {made_of}\n"


def of(table: str | Path) -> str | None:
    """What a table (`results/paper/<name>`) was made of; None if it has not been rendered to its end."""
    last = _text(f"{table}.txt").rpartition(f"\n{LABEL} ")
    return last[2].strip() if last[1] else None


def note(path: str | Path) -> str:
    """What was noted when something else was made; empty if nothing was."""
    return _text(path).strip()


@functools.cache
def code() -> str:
    """Hash of all that renders."""
    return folder_hash(ROOT / "paper")


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
