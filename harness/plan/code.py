"""Hash what a method or an architecture is made of, so that editing it runs its cells again and nothing else."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import tokenize
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.machine.files import ROOT

HARNESS = ROOT / "harness"
TRAINER = HARNESS / "runs" / "cell.py"
"""What every cell runs."""
UNSAID = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING}


def digest(content: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of the canonical JSON of `content`."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def code_hash(path: str | Path) -> str:
    """Hash of a file of code and of the local modules that it imports, however indirectly.

    Of a method that is a package, `<method>/fit.py`, every file of the folder counts.

    Modules of the harness that every cell runs do not count, unless it is the file itself; they count through PROTOCOL.
    Nor do comments, formatting and docstrings of Python and of Snakemake. Other languages are hashed as they are.
    """
    path = Path(path).resolve()
    if path.suffix not in (".py", ".smk"):
        return digest(hashlib.sha256(path.read_bytes()).hexdigest())
    shared = {part for part in _closure(TRAINER) if HARNESS in part.parents}
    parts = _closure(path) | (_files(path.parent) if path.name == "fit.py" else set())
    return digest(sorted((_place(part), _content(part)) for part in (parts - shared) | {path}))


def folder_hash(folder: Path) -> str:
    """Hash of all files below a folder, as `code_hash` looks at each of them."""
    return digest(sorted((_place(part), _content(part)) for part in _files(folder)))


def _place(part: Path) -> str:
    return str(part.relative_to(ROOT) if part.is_relative_to(ROOT) else part)


def _files(folder: Path) -> set[Path]:
    return {part for part in folder.rglob("*") if part.is_file() and "__pycache__" not in part.parts}


def _content(path: Path) -> str:
    if path.suffix == ".smk":
        return _words(path)
    return _said(path, _modified(path)) if path.suffix == ".py" else hashlib.sha256(path.read_bytes()).hexdigest()


def _words(path: Path) -> str:
    """What a file of rules says besides comments, blank lines and the sentence that opens it."""
    with open(path, "rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type not in UNSAID]
    if tokens and tokens[0].type == tokenize.STRING:
        tokens = tokens[2:]
    return " ".join(token.string for token in tokens)


def _closure(path: Path) -> set[Path]:
    """A Python file and the local modules that it imports, however indirectly."""
    pending, seen = [path] if path.suffix == ".py" else [], set()
    while pending:
        part = pending.pop()
        if part not in seen and part.exists():
            seen.add(part)
            pending += (module for name in _named(part, _modified(part)) for module in _local_modules(name))
    return seen


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns


# Every method's closure goes through the same modules: each is read once, until it is written again.
# Which of those that it names are there is looked up each time.
@functools.cache
def _named(path: Path, modified: int) -> tuple[str, ...]:
    """The modules that a Python file imports itself, local or not."""
    return tuple(dict.fromkeys(_imports(ast.parse(path.read_text(encoding="utf-8")))))


@functools.cache
def _said(path: Path, modified: int) -> str:
    """What a Python file says besides comments and docstrings."""
    return ast.unparse(_without_docstrings(ast.parse(path.read_text(encoding="utf-8"))))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and body
            and ast.get_docstring(node) is not None
        ):
            node.body = body[1:] or [ast.Pass()]
    return tree


def _imports(tree: ast.Module) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _local_modules(name: str) -> Iterable[Path]:
    stem = ROOT.joinpath(*name.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.exists():
            yield path
