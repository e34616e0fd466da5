"""Names of architectures, without importing torch: which file of architectures/ builds one, or else which library."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import re
from pathlib import Path

from harness.machine.files import ROOT

FOLDER = ROOT / "architectures"
TIMM = "timm."
"""Prefix that asks for timm's network where there is another one of the same name."""
REGISTERED = re.compile(r"^@register_model\(.*\)\n(?:@.*\n)*def (\w+)", flags=re.MULTILINE)
"""How torchvision marks a function as an architecture."""


class ModelError(ValueError):
    """A network that cannot be named, built or loaded; the message is one sentence."""


def ours() -> list[tuple[str, Path]]:
    """Which file builds what: the regular expressions in the NAMES of each file that has a `build`, or its own name.

    Raises:
        ModelError: a file is no valid Python, or its NAMES are no list of strings.
    """
    return [(name, path) for path in sorted(FOLDER.glob("*.py")) for name in _names(path)]


def _names(path: Path) -> tuple[str, ...]:
    place = path.relative_to(path.parents[1])
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ModelError(f"{place}, line {error.lineno}, is no valid Python: {error.msg}") from error
    if not any(isinstance(node, ast.FunctionDef) and node.name == "build" for node in tree.body):
        return ()  # What several architectures share.
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", None) == "NAMES" for target in node.targets):
            try:
                return tuple(re.compile(name).pattern for name in _list(ast.literal_eval(node.value)))
            except (TypeError, ValueError, re.error) as error:
                raise ModelError(f"NAMES in {place} must be a list of names or regular expressions") from error
    return (path.stem,)


def _list(value: object) -> list[str] | tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError
    return value


def file_of(name: str) -> Path | None:
    """The file of architectures/ that builds a network, or None where none does.

    Raises:
        ModelError: two files do.
    """
    files = list(dict.fromkeys(path for pattern, path in ours() if re.fullmatch(pattern, name)))
    if len(files) > 1:
        raise ModelError(f"the architecture '{name}' is built by {files[0].name} and by {files[1].name}: rename one")
    return files[0] if files else None


@functools.cache
def torchvisions() -> frozenset[str]:
    """torchvision's classification networks, read from its source: to import it takes seconds."""
    spec = importlib.util.find_spec("torchvision")
    folders = [Path(place) / "models" for place in (spec and spec.submodule_search_locations) or ()]
    sources = [path.read_text(encoding="utf-8") for folder in folders for path in sorted(folder.glob("*.py"))]
    return frozenset(name for source in sources for name in REGISTERED.findall(source))


def library_of(name: str) -> str:
    """The library that builds a network which is none of ours."""
    return "torchvision" if name in torchvisions() else "timm"


def is_known(name: str) -> bool:
    """Whether a name needs no look-up in timm."""
    return file_of(name) is not None or name in torchvisions()


def unknown(name: str, timms: list[str]) -> ModelError:
    """What to say about a name that neither we nor torchvision nor timm have: those that are spelled alike."""
    near = difflib.get_close_matches(name, {*(pattern for pattern, _ in ours()), *torchvisions(), *timms}, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "names are those of architectures/, torchvision and timm"
    return ModelError(f"no architecture is called '{name}': {hint}")
