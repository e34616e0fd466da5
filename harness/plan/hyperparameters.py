"""What a method says of its hyper-parameters, read from the source of its `fit` without importing it (no torch)."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from harness.plan.validation import ConfigError, check_value, suggestion

INTERVAL = re.compile(r"([\[(]) *([-+.\w]+) *, *([-+.\w]+) *([\])])")
"""`[0, 1)` is at least 0 and less than 1; `inf` and `-inf` are no limit."""


class _Annotated:
    """`Annotated[float, "[0, 1)"]` as pydantic reads it."""

    def __class_getitem__(cls, parts: tuple[Any, ...]) -> Any:
        import pydantic

        kind, *notes = parts
        limits = [match for note in notes if isinstance(note, str) and (match := INTERVAL.fullmatch(note))]
        for opening, low, high, closing in (match.groups() for match in limits):
            names = ("ge" if opening == "[" else "gt", "le" if closing == "]" else "lt")
            kind = Annotated[kind, pydantic.Field(**dict(zip(names, (float(low), float(high)), strict=True)))]
        return kind


KINDS = {
    **{kind.__name__: kind for kind in (bool, int, float, str, list, tuple, dict)},
    **{"Sequence": Sequence, "Mapping": Mapping, "Literal": Literal, "Annotated": _Annotated, "Any": Any},
}
"""What an annotation may be made of; one that uses other names is not checked."""


def check_hyperparameters(method: str, given: Mapping[str, Any], fit: str | Path) -> None:
    """Raise ConfigError unless `fit` has the hyper-parameters that config.yaml gives, and their values fit their types.

    A method states a range in the annotation: `prune_ratio: Annotated[float, "[0, 1)"] = 0.5`. A fit file in another
    language is not checked.
    """
    path = Path(fit)
    if path.suffix != ".py":
        return
    known = _annotations(path)
    for name, value in given.items():
        key = f"methods.{method}.{name}"
        if name not in known:
            hint = suggestion(name, known, "it has")
            raise ConfigError(f"config key '{key}' is no hyper-parameter of fit() in {fit}: {hint}")
        kind = _kind(known[name])
        if kind is not None:
            check_value(key, value, kind)


def _annotations(path: Path) -> dict[str, ast.expr | None]:
    """Hyper-parameter -> its annotation."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ConfigError(f"{path}, line {error.lineno}, is no valid Python: {error.msg}") from error
    signature = next(
        (node.args for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "fit"), None
    )
    if signature is None:
        raise ConfigError(f"{path} has no function fit(model, task, *, ...)")
    return {argument.arg: argument.annotation for argument in signature.kwonlyargs}


def _kind(annotation: ast.expr | None) -> Any:
    """The type that an annotation means, or None if it is not made of KINDS alone."""
    if annotation is None or any(isinstance(node, ast.Call | ast.Attribute) for node in ast.walk(annotation)):
        return None
    try:
        return eval(compile(ast.Expression(annotation), "annotation", "eval"), {"__builtins__": {}}, KINDS)
    except (NameError, TypeError):
        return None
