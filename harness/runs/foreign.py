"""Methods in other languages: how their program is started, and how what it writes becomes a result.

    PROGRAM CELL DATA OUT [NAME=PATH ...]

CELL is the cell's configuration as JSON, DATA the prepared dataset, OUT the result to write, in the form of
workflow/schemas/metrics.schema.json; NAME=PATH are the further inputs of the rule.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from pathlib import Path

from harness.plan.made_of import MadeOf
from harness.runs import result

NAMED = ("dataset", "model", "method", "seed", "protocol", "config_hash")


def is_foreign(fit: Path) -> bool:
    return fit.suffix != ".py"


def draft(arguments: Namespace) -> Path:
    """Where the program writes: it becomes the result once it has been checked."""
    return arguments.out.with_name("draft.json")


def command(arguments: Namespace) -> list[str]:
    """The command line of a method's program: by its first line, `#!...`, or as an executable.

    Raises:
        ResultError: it has neither.
    """
    fit = arguments.fit
    first = fit.read_bytes().splitlines()[:1]
    interpreter = first[0][2:].decode().split() if first and first[0].startswith(b"#!") else []
    if not interpreter and not os.access(fit, os.X_OK):
        raise result.ResultError(
            f"{fit} is no Python and no executable, and has no first line '#!' that says what runs it"
        )
    cell, out = json.dumps(arguments.cell, sort_keys=True), draft(arguments)
    return [*interpreter, str(fit.resolve()), cell, str(arguments.data), str(out), *arguments.input]


def accept(arguments: Namespace, recorded: MadeOf) -> None:
    """Check what the program wrote, add what it was made of, put it in its place; what is wrong is a failed cell."""
    written = draft(arguments)
    try:
        metrics = result.read(written)
        for key in NAMED:
            if metrics[key] != arguments.cell[key]:
                raise result.ResultError(
                    f"{arguments.fit} wrote {key} {metrics[key]!r} instead of {arguments.cell[key]!r}"
                )
    except result.ResultError as error:
        metrics = result.failure(arguments.cell, str(error))
    result.write(arguments.out, {**metrics, "made_of": recorded})
    written.unlink(missing_ok=True)
