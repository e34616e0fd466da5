"""Writes config.yaml's JSON schema and the tables of config/README.md from harness/config: `python docs/keys.py`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from harness.plan import validation  # noqa: E402

SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.json"
PAGE = ROOT / "config" / "README.md"
TABLE = re.compile(r"<!-- keys of (\w+) -->\n.*?<!-- end -->", flags=re.DOTALL)
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def schema() -> str:
    """The text of the JSON schema."""
    return json.dumps({"title": "config/config.yaml", **validation.schema()}, indent=1, ensure_ascii=False) + "\n"


def page(text: str) -> str:
    """The page with every table drawn anew."""
    return TABLE.sub(lambda match: f"<!-- keys of {match[1]} -->\n{table(match[1])}<!-- end -->", text)


def table(section: str) -> str:
    """Markdown: a row for each key of a section of harness/config."""
    return "".join(rows(validation.schema()["$defs"].get(section) or validation.schema()))


def rows(section: Mapping[str, Any]) -> Iterator[str]:
    yield "| key | value | default | meaning |\n|---|---|---|---|\n"
    for name, entry in section["properties"].items():
        required = "required" if name in section.get("required", ()) else shown(entry.get("default"))
        yield f"| `{name}` | {kind(entry)} | {required} | {entry.get('description', '')} |\n"


def shown(default: Any) -> str:
    return "" if default is None or isinstance(default, dict) else f"`{json.dumps(default)}`".replace('"', "")


def kind(entry: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    for several in ("anyOf", "oneOf"):
        if several in entry:
            return " or ".join(kind(each) for each in entry[several] if each.get("type") != "null")
    if "$ref" in entry:
        return f"[{(name := entry['$ref'].rsplit('/', 1)[1])}](#{name.lower()})"
    if "const" in entry or "enum" in entry:
        return ", ".join(f"`{value}`" for value in entry.get("enum", [entry.get("const")]))
    if entry["type"] == "array":
        return f"list of {kind(entry['items'])}" if "items" in entry else f"{entry['minItems']} numbers"
    if entry["type"] == "object":
        inner = next(iter(entry.get("patternProperties", {}).values()), None)
        return f"name: {kind(inner)}" if inner else "key: value"
    limits = [f"{sign} {entry[name]}" for name, sign in LIMITS.items() if name in entry]
    return " ".join([{"string": "text"}.get(entry["type"], entry["type"]), ", ".join(limits)]).strip()


def main() -> None:
    SCHEMA.write_text(schema(), encoding="utf-8")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
