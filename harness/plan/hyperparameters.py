"""What a method says of its hyper-parameters, read from the source of its `fit` without importing it (no torch)."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from harness.plan.validation import ConfigError, check_value, suggestion

NUMBER = r"(-?(?:inf|\d+(?:\.\d*)?(?:e-?\d+)?))"
INTERVAL = re.compile(rf"([\[(]) *{NUMBER} *, *{NUMBER} *([\])])")
"""`[0, 1)` is at least 0 and less than 1; `inf` and `-inf` are no limit."""


class _Annotated:
    """`Annotated[float, "[0, 1)"]` as pydantic reads it."""

    def __class_getitem__(cls, parts: tuple[Any, ...]) -> Any:
        import pydantic

        kind, *notes = parts
        for note in notes:
            interval = INTERVAL.fullmatch(str(note))
            if interval is None:
                if str(note).startswith(("[", "(")):
                    raise ConfigError(f"'{note}' in the annotations of a fit() is no interval such as '[0, 1)'")
                continue
            opening, low, high, closing = interval.groups()
            names = ("ge" if opening == "[" else "gt", "le" if closing == "]" else "lt")
            limits = {name: float(end) for name, end in zip(names, (low, high), strict=True)}
            finite = {name: end for name, end in limits.items() if math.isfinite(end)}
            kind = Annotated[kind, pydantic.Field(**finite)]
        return kind


KINDS = {
    **{kind.__name__: kind for kind in (bool, int, float, str, list, tuple, dict)},
    **{"Sequence": Sequence, "Mapping": Mapping, "Literal": Literal, "Annotated": _Annotated, "Any": Any},
}
"""What an annotation may be made of; one that uses other names is not checked."""

OF_ALL = {"lr_factor": _Annotated[float, "(0, inf)"]}
"""What a method may be given besides: harness.plan.grid applies it to the recipe."""


def check_hyperparameters(method: str, given: Mapping[str, Any], fit: str | Path) -> None:
    """Raise ConfigError unless `fit` has the hyper-parameters that config.yaml gives, and their values fit their types.

    A method states a range in the annotation: `prune_ratio: Annotated[float, "[0, 1)"] = 0.5`. A fit file in another
    language is not checked.
    """
    path = Path(fit)
    if path.suffix != ".py":
        return
    known = {**OF_ALL, **_kinds(path)}
    for name, value in given.items():
        key = f"methods.{method}.{name}"
        if name not in known:
            hint = suggestion(name, known, "it has")
            raise ConfigError(f"config key '{key}' is no hyper-parameter of fit() in {fit}: {hint}")
        if known[name] is not None:
            check_value(key, value, known[name])


def _kinds(path: Path) -> dict[str, Any]:
    """Hyper-parameter -> its type, or None where that is not made of KINDS and the file's own names for them."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ConfigError(f"{path}, line {error.lineno}, is no valid Python: {error.msg}") from error
    names = dict(KINDS)
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(name)], value=value) if (kind := _kind(value, names)) is not None:
                names[name] = kind
            case ast.FunctionDef(name="fit", args=signature):
                return {argument.arg: _kind(argument.annotation, names) for argument in signature.kwonlyargs}
    raise ConfigError(f"{path} has no function fit(model, task, *, ...)")


def _kind(annotation: ast.expr | None, names: Mapping[str, Any]) -> Any:
    allowed = ast.Subscript | ast.Name | ast.Constant | ast.Tuple | ast.BinOp | ast.BitOr | ast.Load
    if annotation is None or not all(isinstance(node, allowed) for node in ast.walk(annotation)):
        return None
    try:
        return eval(compile(ast.Expression(annotation), "annotation", "eval"), {"__builtins__": {}}, dict(names))
    except (NameError, TypeError):
        return None
