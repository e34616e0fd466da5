"""config.yaml: read, and checked before anything runs. Never imports torch."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness import kinds
from harness.machine.files import ROOT
from harness.networks import names
from harness.plan.reading import read_yaml
from harness.plan.tuning import expanded
from harness.plan.validation import ConfigError, check_configuration, suggestion

__all__ = [
    "THEOREMS",
    "Config",
    "ConfigError",
    "check",
    "check_models",
    "expanded",
    "methods_with_rule",
    "read",
    "require",
    "rule_of",
]

Config = Mapping[str, Any]

THEOREMS = ("matrix_completion", "hidden_layer", "linear_networks", "relu_networks")
"""Files of theory/ that are checked, each by a rule of its name."""


def methods_with_rule() -> set[str]:
    """Names of the methods that a rule makes: the two that are always there, and one for each file of baselines."""
    return {"dense", "edropout", *(path.stem for path in (ROOT / "workflow" / "baselines").glob("*.smk"))}


@functools.cache
def rules_of_the_workflow() -> frozenset[str]:
    """Names of all rules: a table of the same name could not be a target."""
    files = [ROOT / "Snakefile", ROOT / "workflow" / "Snakefile", *(ROOT / "workflow").glob("*/*.smk")]
    named = re.compile(r"^(?:use )?rule (?:cell as )?(\w+)\b.*:", flags=re.MULTILINE)
    return frozenset(THEOREMS).union(*(named.findall(path.read_text(encoding="utf-8")) for path in files))


def read(path: Path, tables: Iterable[str] = ()) -> Config:
    """Read and check a configuration file.

    Args:
        path: config.yaml.
        tables: Tables that it must have.

    Raises:
        ConfigError: it cannot be read or run, or lacks a table.
    """
    config = read_yaml(path)
    check(config, methods_with_rule())
    for table in tables:
        require(table, config["tables"], "config key 'tables'", "table")
    return expanded(config)


def check(config: Config, rules_of_methods: Iterable[str]) -> None:
    """Raise ConfigError unless every key, value and cross-reference of `config` holds.

    Args:
        config: The parsed config.yaml.
        rules_of_methods: Names of the methods that a rule makes (the part before the first `-`).
    """
    check_configuration(config)
    rules = set(rules_of_methods)
    for name, section in config["datasets"].items():
        require(section["recipe"], config["recipes"], f"config key 'datasets.{name}.recipe'", "recipe")
        kind = kinds.of_data(section)
        if config["recipes"][section["recipe"]].get("samples") and not kinds.named(kind).sampled:
            key = f"config key 'recipes.{section['recipe']}.samples'"
            raise ConfigError(f"{key} must be left out for dataset '{name}': a {kind} task cannot be sampled")
    for name, recipe in config["recipes"].items():
        if recipe["prune_epoch"] >= recipe["epochs"]:
            key = f"config key 'recipes.{name}.prune_epoch'"
            raise ConfigError(f"{key} is {recipe['prune_epoch']}: it must be less than epochs, {recipe['epochs']}")
    for name, table in config["tables"].items():
        if name in rules_of_the_workflow():
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


def require(name: str, section: Config, asker: str, noun: str) -> None:
    """Raise ConfigError unless `section` defines `name`; `asker` says who names it."""
    if name not in section:
        hint = suggestion(name, section, "the config has")
        raise ConfigError(f"{asker} names {noun} '{name}', which is not defined: {hint}")


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
