"""Read a YAML file, and refuse a key that stands twice in a mapping, of which YAML would keep the last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from harness.plan.validation import ConfigError


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or gives a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            for sentence in _repeated(root, (), set()):
                raise ConfigError(f"{path}, {sentence}")
            return loader.construct_document(root) if root is not None else None
        finally:
            loader.dispose()
    except (OSError, UnicodeError, ValueError, yaml.YAMLError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def check_keys(path: Path) -> None:
    """Raise ConfigError if a YAML file that somebody else reads gives a key twice; JSON is none."""
    if path.suffix != ".json":
        read_yaml(path)


def _repeated(node: yaml.Node | None, path: tuple[str, ...], seen: set[int]) -> Iterator[str]:
    """A sentence for each key of a mapping, however deep, that has been given before."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            yield from _repeated(entry, (*path, str(index)), seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            here, line = (*path, str(key.value)), key.start_mark.line + 1
            name = (key.tag, str(key.value))
            if name in lines:
                place = f"line {line}: config key '{'.'.join(here)}'"
                yield f"{place} stands in line {lines[name]} already: keep one of them"
            lines[name] = line
            yield from _repeated(value, here, seen)
