"""The code blocks of README and docs/methods.md, for tests that run them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/methods.md"))


def blocks(language):
    """All blocks of a language, in the order of the pages."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def block(language, part):
    """The one block that has `part` in it."""
    (found,) = (block for block in blocks(language) if part in block)
    return found


def file(path):
    """The block that follows a file's name."""
    (found,) = re.findall(rf"`{path}`:\n\n```\w+\n(.*?)```", TEXT, flags=re.DOTALL)
    return found


def after(diff):
    """What a diff's file holds when it has been applied."""
    return "\n".join(line[2:] for line in diff.splitlines() if not line.startswith("-"))
