"""Check values against their description in harness.config, and say in one sentence what is wrong. No torch."""

from __future__ import annotations

import difflib
import functools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from harness.config.whole import Configuration

DEPTH = 10
"""Levels of a configuration: more than any key needs, and an end for an alias that holds itself."""
NAMED = 10
"""Known names that a sentence lists at most."""
LENGTH = 60
"""Characters of a wrong value that a sentence repeats at most."""
UNKNOWN, MISSING = "unexpected_keyword_argument", "missing"
RANKS = {UNKNOWN: 0, MISSING: 1}
"""Of several errors an unknown key comes first: it is why another one is missing."""
WORDS = {
    "Input should be": "it must be",
    "String should": "it must",
    "List should": "it must",
    "Tuple should": "it must",
    " after validation": "",
    "a valid array": "a list",
    "an object": "a mapping",
    "a valid ": "a ",
    "a integer": "an integer",
}
"""Words of pydantic and ours."""


class ConfigError(ValueError):
    """A configuration that cannot be run; the message is one sentence that names the key."""


def suggestion(name: Any, known: Iterable[str], otherwise: str) -> str:
    """The known name that is spelled most like `name` as a question, or else what is known."""
    known = list(known)
    near = difflib.get_close_matches(str(name).lower(), known, n=1)
    listed = ", ".join(known[:NAMED]) + (", ..." if len(known) > NAMED else "")
    return f"did you mean '{near[0]}'?" if near else f"{otherwise} {listed or 'none'}"


@functools.cache
def _configuration() -> Any:
    import pydantic

    return pydantic.TypeAdapter(Configuration)


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON schema of config.yaml."""
    return _configuration().json_schema()


def check_configuration(config: Any) -> None:
    """Raise ConfigError for an unknown or missing key, or for a value of the wrong type or out of its range."""
    check_plain(config)
    error = _worst_error(_configuration(), config)
    if error is None:
        return
    kind, place = error["type"], list(error["loc"])
    if place[-1:] == ["[key]"]:
        shown, _ = _place(place[:-2])
        pattern = error["ctx"]["pattern"]
        raise ConfigError(f"config key '{shown}' has the name {error['input']!r}, which does not match {pattern}")
    if kind == UNKNOWN:
        section, known = _place(place[:-1])
        name = ".".join(filter(None, [section, str(place[-1])]))
        raise ConfigError(f"config key '{name}' is unknown: {suggestion(place[-1], known, 'the keys are')}")
    shown, _ = _place(place)
    raise ConfigError(_sentence(shown or "(top level)", [error]))


def check_value(name: str, value: Any, kind: Any) -> None:
    """Raise ConfigError that names the key unless `value` is of the type `kind`, whose limits count too."""
    import pydantic

    errors = _errors(pydantic.TypeAdapter(kind), value)
    # Of a union, the member whose type fits says what else is wrong.
    limits = [error for error in errors if not error["type"].endswith("_type")]
    if errors:
        place = [str(part) for part in (limits or errors)[0]["loc"] if isinstance(part, int)]
        raise ConfigError(_sentence(".".join([name, *place]), limits[:1] or errors))


def check_plain(value: Any, path: tuple[str, ...] = ()) -> None:
    """Raise ConfigError for what YAML can say and JSON cannot: .nan, dates, keys that are no strings ..."""
    name = f"config key {'.'.join(path) or '(top level)'!r}"
    if len(path) > DEPTH:
        raise ConfigError(f"{name} lies deeper than {DEPTH} levels")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} is {value}: it must be a finite number")
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{name} has the key {key!r}, which is no string: put it in quotes")
            _check_text(key, name)
            check_plain(entry, (*path, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            check_plain(entry, (*path, str(index)))
    elif isinstance(value, str):
        _check_text(value, name)
    elif not isinstance(value, int | float | None):
        raise ConfigError(f"{name} is a {type(value).__name__}: it must be a string, number, boolean, list or mapping")


def _check_text(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name} holds {text!a}, which is no text") from None


def _errors(kind: Any, value: Any) -> list[Any]:
    import pydantic

    try:
        # As JSON: strict, and yet a list is a tuple and a mapping a section.
        kind.validate_json(json.dumps(value), strict=True)
    except pydantic.ValidationError as error:
        return error.errors(include_url=False)
    return []


def _worst_error(kind: Any, value: Any) -> Any:
    return min(_errors(kind, value), key=lambda error: RANKS.get(error["type"], len(RANKS)), default=None)


def _place(place: list[str | int]) -> tuple[str, list[str]]:
    """The dotted name of a place, without the kinds that pydantic puts into it, and the keys that are known there."""
    node, names = schema(), []
    for part in place:
        node = _section(node)
        if "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][part]}
            continue
        names.append(str(part))
        inner = [*node.get("patternProperties", {}).values(), node.get("items"), node.get("additionalProperties")]
        node = node.get("properties", {}).get(part) or next((entry for entry in inner if entry), {})
    return ".".join(names), list(_section(node).get("properties", {}))


def _section(node: Any) -> Any:
    return schema()["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node


def _sentence(name: str, errors: list[Any]) -> str:
    kind, given, context = errors[0]["type"], errors[0]["input"], errors[0].get("ctx", {})
    if kind == MISSING:
        return f"config key '{name}' is missing"
    if kind == "union_tag_not_found":
        return f"config key '{name}.{context['discriminator'][1:-1]}' is missing"
    if kind == "value_error":
        return f"config key '{name}': {context['error']}"
    if kind == "union_tag_invalid":
        name, given = f"{name}.{context['discriminator'][1:-1]}", context["tag"]
        context = {"expected": context["expected_tags"]}
    if "expected" in context:
        known = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
        problem = suggestion(given, known, "it must be one of")
    else:
        problem = " or ".join(dict.fromkeys(_ours(error["msg"]) for error in errors))
        if kind == "float_type" and _is_number(given):
            number = repr(float(given))
            problem += f", and YAML reads this as text: write {number if '.' in number else number.replace('e', '.0e')}"
    shown = repr(given) if len(repr(given)) <= LENGTH else f"{repr(given)[:LENGTH]}..."
    return f"config key '{name}' is {shown}: {problem}"


def _ours(message: str) -> str:
    for theirs, ours in WORDS.items():
        message = message.replace(theirs, ours)
    return message


def _is_number(text: Any) -> bool:
    try:
        return isinstance(text, str) and math.isfinite(float(text))
    except ValueError:
        return False
