"""How config.yaml is described: a dataclass for each section, a field for each key, and what the key may be.

The sections are plain dataclasses, so that a machine that trains needs no library to read them. harness.plan gives them
to pydantic, which reads the limits from a field's metadata, checks a configuration, and makes its JSON schema.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from typing import Annotated, Any

DISTINCT = {"json_schema_extra": {"uniqueItems": True}}
"""Limit of a list: no entry stands twice. JSON schema says it; `require_distinct` checks it."""
NAMED = {"json_schema_extra": {"additionalProperties": False}}
"""Limit of a mapping, for its JSON schema: no names but those that the type of its keys allows."""
CLOSED = {"extra": "forbid"}
"""`__pydantic_config__` of every section: a key that no field has is an error."""


def key(meaning: str, *, default: Any = MISSING, default_factory: Any = MISSING, **limits: Any) -> Any:
    """A field of a section.

    Args:
        meaning: What config/README.md says of the key.
        default: Its value where it is left out; without one the key is required.
        default_factory: Makes a default that is a section or a list of its own.
        limits: What pydantic's `Field` takes: `ge`, `gt`, `le`, `lt`, `min_length`, `discriminator` ...
    """
    return field(default=default, default_factory=default_factory, metadata={"description": meaning, **limits})


@dataclass(frozen=True)
class Limits:
    """The same for values inside lists and mappings: `Annotated[int, Limits(ge=0)]`."""

    ge: float | None = None
    lt: float | None = None
    pattern: str | None = None
    min_length: int | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import Field

        limits = {name: value for name, value in vars(self).items() if value is not None}
        return handler.generate_schema(Annotated[source, Field(**limits)])


# Names become folders, file names and wildcards: nothing that a shell or a path could read otherwise.
Name = Annotated[str, Limits(pattern=r"^[a-z][a-z0-9_]*$")]
Variant = Annotated[str, Limits(pattern=r"^[a-z][a-z0-9_]*(-[a-z0-9_.]+)*$")]
Architecture = Annotated[str, Limits(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)?$")]
Decay = Annotated[float, Limits(ge=0, lt=1)]


def require_distinct(**lists: list[Any]) -> None:
    """Raise ValueError that names the first of the lists in which an entry stands twice."""
    for name, entries in lists.items():
        twice = [entry for position, entry in enumerate(entries) if entry in entries[:position]]
        if twice:
            raise ValueError(f"'{name}' names {twice[0]!r} twice: keep one")
