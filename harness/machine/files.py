"""Write a file so that a reader sees the old one or the whole new one, whatever happens in between."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success flush it to disk and rename it to `path`.

    What killed processes have left of writing `path` goes first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            # safetensors makes its files unreadable for others, whatever the umask says.
            os.fchmod(handle.fileno(), 0o666 & ~_umask())
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(path: Path, idle_seconds: float = 3600) -> None:
    """Remove what killed processes left of writing `path`: hidden neighbours that nobody changed for so long."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with contextlib.suppress(FileNotFoundError):  # Its own process may be about to rename it.
            if time.time() - left.stat().st_mtime > idle_seconds:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def advice(error: Exception) -> str:
    """What to do about an error of writing."""
    number = getattr(error, "errno", None)
    if found := re.search(r"os error (\d+)", str(error)):  # safetensors gives no number but this.
        number = int(found[1])
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some disk space or choose another folder"
    return "choose another folder or put this right"


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Replace the text file `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file; empty if the file is missing or damaged or holds something else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
