"""Tables that tune their methods: each method becomes variants of itself, of which the table shows one."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.plan.validation import ConfigError, suggestion

NAME = re.compile(r"[a-z0-9_.-]+")
EVERY = "all"
"""Under `tune`, what is tried for every method that is not named there."""


def expanded(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with every method that a table tunes replaced by its variants.

    The variants stand under `methods` and in the table's list; `tuned` of the table says for each of them which method
    it is a variant of, and what was tried: `{"dropout-rate_0.2": {"method": "dropout", "tried": {"rate": 0.2}}}`.

    Args:
        config: A checked configuration.

    Raises:
        ConfigError: `tune` names a method that the table does not have, or one whose networks come from another cell.
    """
    config = dict(copy.deepcopy(config))
    for name, table in config["tables"].items():
        tune = table.pop("tune", None) or {}
        place = f"config key 'tables.{name}.tune'"
        for method in tune:
            if method not in (*table["methods"], EVERY):
                hint = suggestion(method, table["methods"], "it has")
                raise ConfigError(f"{place} names method '{method}', which is not in the table: {hint}")
        table["tuned"] = {}
        for method in table["methods"]:
            grid = tune.get(method, {} if method.startswith("scratch-") else tune.get(EVERY)) or {}
            if method.startswith("scratch-") and grid:
                raise ConfigError(f"{place} names '{method}', which trains what another method left: tune that one")
            for variant, tried in variants(method, config["methods"][method] or {}, grid):
                if not NAME.fullmatch(variant):
                    raise ConfigError(f"{place} asks for '{variant}', which is no name: a value is a number or a word")
                if variant in table["tuned"]:
                    raise ConfigError(f"{place} asks for '{variant}' twice")
                config["methods"].setdefault(variant, {**(config["methods"][method] or {}), **tried})
                table["tuned"][variant] = {"method": method, "tried": tried}
        table["methods"] = list(table["tuned"])
        table["tuned"] = {variant: entry for variant, entry in table["tuned"].items() if entry["tried"]}
    return config


def variants(
    method: str, given: Mapping[str, Any], grid: Mapping[str, list[Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and tried values of every combination; one that the method has anyway keeps the method's own name."""
    for values in itertools.product(*grid.values()):
        tried = dict(zip(grid, values, strict=True))
        changed = {key: value for key, value in tried.items() if given.get(key, DEFAULTS.get(key)) != value}
        words = "_".join(f"{key}_{value}" for key, value in changed.items()).lower()
        yield (f"{method}{'_' if '-' in method else '-'}{words}" if changed else method), tried


DEFAULTS = {"lr_factor": 1.0}
"""What every method has, besides the hyper-parameters of its `fit`: a factor of the recipe's learning rate."""
