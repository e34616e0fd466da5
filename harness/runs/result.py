"""metrics.json, the one result file of a cell: checked against its schema, written last and atomically."""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import kinds
from harness.machine.files import ROOT, write_text
from harness.plan.made_of import checksum

SCHEMA_VERSION = 1
EVALUATIONS = ("test", "val", "full_test", "sampled_test")
"""Sections that hold the metrics of the cell's kind of task."""

SCHEMA_PATH = ROOT / "workflow" / "schemas" / "metrics.schema.json"


class ResultError(ValueError):
    """A result file that is unreadable or does not say what its place promises."""


@functools.cache
def _validator() -> Any:
    """The schema's validator, or None, said once, on a machine that only trains and lacks jsonschema."""
    try:
        import jsonschema
    except ModuleNotFoundError:
        print("jsonschema is not installed: result files are checked where the tables are made", file=sys.stderr)
        return None
    return jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_text(encoding="utf-8")))


def check(metrics: Any, *, source: str) -> None:
    """Raise ResultError with one sentence that names `source` and the key if `metrics` breaks the schema."""
    validator = _validator()
    error = next(iter(validator.iter_errors(metrics)), None) if validator else None
    if error is not None:
        key = ".".join(map(str, error.absolute_path)) or "the file"
        raise ResultError(f"{source}: {key}: {error.message}")
    try:
        kind = kind_of(metrics)
    except kinds.KindError as error:
        raise ResultError(f"{source}: kind: {error}") from error
    for section in EVALUATIONS:
        clause = next(kinds.bounds(kind, metrics[section]), None) if metrics.get(section) else None
        if clause is not None:
            raise ResultError(f"{source}: {section}.{clause}")


def kind_of(metrics: Mapping[str, Any]) -> kinds.Kind:
    """The kind of task of a result; one that does not say it is a classification.

    Raises:
        KindError: a kind that nobody has written.
    """
    return kinds.named(metrics.get("kind", kinds.DEFAULT))


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refuse_constant(digits)


def read(path: str | Path) -> dict[str, Any]:
    """Read and validate one result file.

    Raises:
        ResultError: unreadable, not JSON, NaN or infinity inside, not valid under the schema, or changed since it was
            written (where it has a checksum; a method in another language may leave that out).
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        metrics = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (OSError, ValueError) as error:
        raise ResultError(f"{path} cannot be read as a result file: {error}") from error
    check(metrics, source=str(path))
    if "checksum" in metrics and metrics["checksum"] != checksum(metrics):
        raise ResultError(f"{path} was changed after it had been written: run the cell again")
    return metrics


def write(path: str | Path, metrics: Mapping[str, Any]) -> None:
    """Validate and write one result file atomically, with its checksum; identical metrics give identical bytes."""
    metrics = {**metrics, "checksum": checksum(metrics)}
    check(metrics, source=str(path))
    write_text(path, json.dumps(metrics, indent=1, allow_nan=False) + "\n")


def header(cell: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a result that says which cell it is of."""
    named = {key: cell[key] for key in ("dataset", "model", "method", "seed", "protocol", "config_hash", "config")}
    return {"schema": SCHEMA_VERSION, **named, "status": "done", "error": None}


def failure(cell: Mapping[str, Any], sentence: str) -> dict[str, Any]:
    """The result of a cell that could not be finished; `sentence` says why."""
    return {**header(cell), "status": "failed", "error": sentence, "test": None, "size": None}
