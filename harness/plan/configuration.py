"""config.yaml: read, and checked before anything runs. Never imports torch."""

from __future__ import annotations

import ast
import difflib
import functools
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.machine.files import ROOT
from harness.networks import names

SCHEMA_PATH = ROOT / "workflow" / "schemas" / "config.schema.yaml"
THEOREMS = ("matrix_completion", "hidden_layer", "linear_networks", "relu_networks")
"""Files of theory/ that are checked, each by a rule of its name."""
RESERVED_TARGETS = {
    *("all", "default", "status", "plan", "prepare", "data", "cell", "listing", "collect", "tables"),
    *("statistics", "figures", "table_report", "report", "announce", "artifacts"),
    *("theory", "theory_page", "theory_report", *THEOREMS),
}
"""Rules besides the methods' own: a table of the same name could not be a target."""

DEPTH = 10
"""Levels of a configuration: more than any key needs, and an end for an alias that holds itself."""
NAMED = 10
"""Entries of a section that are named at most where one is missing."""

Config = Mapping[str, Any]


class ConfigError(ValueError):
    """A configuration that cannot be run; the message is one sentence that names the key."""


def methods_with_rule() -> set[str]:
    """Names of the methods that a rule makes: the two that are always there, and one for each file of baselines."""
    return {"dense", "edropout", *(path.stem for path in (ROOT / "workflow" / "baselines").glob("*.smk"))}


def read(path: Path, tables: Iterable[str] = ()) -> Config:
    """Read and check a configuration file.

    Args:
        path: config.yaml.
        tables: Tables that it must have.

    Raises:
        ConfigError: it cannot be read or run, or lacks a table.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    check(config, methods_with_rule())
    for table in tables:
        require(table, config["tables"], "config key 'tables'", "table")
    return config


def check(config: Config, rules_of_methods: Iterable[str]) -> None:
    """Raise ConfigError unless every key, value and cross-reference of `config` holds.

    Args:
        config: The parsed config.yaml.
        rules_of_methods: Names of the methods that a rule makes (the part before the first `-`).
    """
    _check_values(config)
    _check_schema(config)
    rules = set(rules_of_methods)
    for name, section in config["datasets"].items():
        require(section["recipe"], config["recipes"], f"config key 'datasets.{name}.recipe'", "recipe")
    for name, recipe in config["recipes"].items():
        if not 0 < recipe["prune_epoch"] < recipe["epochs"]:
            raise ConfigError(f"config key 'recipes.{name}.prune_epoch' must lie between 0 and epochs")
    for name, table in config["tables"].items():
        if name in RESERVED_TARGETS | rules:
            raise ConfigError(f"config key 'tables.{name}': '{name}' is a rule of the workflow, rename the table")
        for dataset in table["datasets"]:
            require(dataset, config["datasets"], f"config key 'tables.{name}.datasets'", "dataset")
        for method in table["methods"]:
            require(method, config["methods"], f"config key 'tables.{name}.methods'", "method")
            if rule_of(method) not in rules:
                raise ConfigError(
                    f"table '{name}' names method '{method}': add workflow/baselines/{rule_of(method)}.smk"
                )
            source = method
            while rule_of(source) == "scratch":
                source = source.partition("-")[2]
                if source not in config["methods"] or rule_of(source) not in rules:
                    raise ConfigError(
                        f"table '{name}' names method '{method}', but its source '{source}' (what follows 'scratch-')"
                        " is no method under methods that has a rule"
                    )
    for table in config["build"]:
        require(table, config["tables"], "config key 'build'", "table")


@functools.cache
def _schema() -> Any:
    import jsonschema

    return jsonschema.Draft202012Validator(yaml.safe_load(SCHEMA_PATH.read_text(encoding="utf-8")))


def _check_schema(config: Config) -> None:
    from jsonschema.exceptions import best_match

    error = best_match(_schema().iter_errors(config))
    if error is not None:
        key = ".".join(map(str, error.absolute_path)) or "(top level)"
        raise ConfigError(f"config key '{key}': {error.message}")


def _check_values(value: Any, path: tuple[str, ...] = ()) -> None:
    """Refuse what YAML can say and JSON cannot: a schema lets .nan pass and fails at keys that are no strings."""
    name = f"config key {'.'.join(path) or '(top level)'!r}"
    if len(path) > DEPTH:
        raise ConfigError(f"{name} lies deeper than {DEPTH} levels")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} is {value}: it must be a finite number")
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise ConfigError(f"{name} has the key {key!r}, which is no string: put it in quotes")
            _check_values(entry, (*path, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            _check_values(entry, (*path, str(index)))
    elif not isinstance(value, str | int | float | None):
        raise ConfigError(f"{name} is a {type(value).__name__}: it must be a string, number, boolean, list or mapping")


def require(name: str, section: Config, asker: str, noun: str) -> None:
    if name not in section:
        near = difflib.get_close_matches(name, section, n=1)
        known = ", ".join([*section][:NAMED]) + (", ..." if len(section) > NAMED else "")
        hint = f"did you mean '{near[0]}'?" if near else f"the config has {known}"
        raise ConfigError(f"{asker} names {noun} '{name}', which is not defined: {hint}")


def check_hyperparameters(method: str, given: Iterable[str], fit: str | Path) -> None:
    """Raise ConfigError if config.yaml gives a hyper-parameter that the method's fit() does not have.

    Reads the signature from the source, without importing it; a fit file in another language is not checked.
    """
    path = Path(fit)
    if path.suffix != ".py":
        return
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise ConfigError(f"{fit}, line {error.lineno}, is no valid Python: {error.msg}") from error
    signature = next(
        (node.args for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "fit"), None
    )
    if signature is None:
        raise ConfigError(f"{fit} has no function fit(model, task, *, ...)")
    known = [argument.arg for argument in signature.kwonlyargs]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(known) or 'none'}"
            raise ConfigError(f"config key 'methods.{method}.{name}' is no hyper-parameter of fit() in {fit}: {hint}")


def check_models(models: Iterable[str]) -> None:
    """Raise ConfigError if an architecture is known neither here nor to torchvision or timm.

    Only timm must be imported to be asked, which takes seconds.
    """
    try:
        foreign = sorted(model for model in set(models) if not names.is_known(model))
    except names.ModelError as error:
        raise ConfigError(str(error)) from error
    if foreign:
        command = [sys.executable, "-m", "harness.networks.build", *foreign]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            raise ConfigError(answer.stderr.strip().splitlines()[-1])


def rule_of(method: str) -> str:
    """The rule that makes a method: `l1-30` is a variant made by the rule `l1`."""
    return method.split("-")[0]
