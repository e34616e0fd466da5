"""Draws the rooms of the house and what they import into docs/architecture.md: `python docs/rooms.py`.

An arrow that follows from others is left out: who reads `plan -> training -> machine` knows that plan may use machine.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("edropout", "dropouts", "harness", "architectures", "baselines", "theory", "paper")
FENCE = re.compile(r"```mermaid\n.*?```\n", flags=re.DOTALL)


def room(name: str) -> str:
    """The room of a module, `harness.plan` of `harness.plan.grid`, or its package where it lies in none."""
    parts = name.split(".")
    inside = len(parts) > 1 and (ROOT / parts[0] / parts[1]).is_dir() and parts[0] != "baselines"
    return ".".join(parts[:2]) if inside else parts[0]


def imports(path: Path) -> set[str]:
    """The rooms that a file imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {room(f"{node.module}.{alias.name}") for alias in node.names}
    return {name for name in found if name.split(".")[0] in PACKAGES}


def arrows() -> dict[str, set[str]]:
    """room -> the rooms that it imports from, itself left out."""
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            own = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
            found.setdefault(own, set()).update(imports(path) - {own})
    return found


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Without the arrows that a longer way replaces."""

    def reached(start: str) -> set[str]:
        return {start}.union(*(reached(name) for name in graph.get(start, ())))

    return {
        name: {one for one in others if not any(one in reached(other) for other in others - {one})}
        for name, others in graph.items()
    }


def drawing() -> str:
    """The Mermaid graph."""
    graph = arrows()
    lines = ["```mermaid", "flowchart TD"]
    for package in PACKAGES:
        rooms = [name for name in graph if name.startswith(f"{package}.")]
        if package in graph and not rooms:
            lines.append(f"  {package}")
        elif package in graph:
            lines += [f"  subgraph {package}_rooms [{package}]", f"    {package}[front door]"]
            lines += [f"    {name.replace('.', '_')}[{name.split('.')[1]}]" for name in rooms] + ["  end"]
    pairs = [(name, other) for name, others in reduced(graph).items() for other in sorted(others)]
    lines += [f"  {name} --> {other}".replace(".", "_") for name, other in pairs]
    return "\n".join([*lines, "```"]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(FENCE.sub(drawing(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
