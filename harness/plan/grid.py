"""From the configuration to cells: what is run, with which settings, under which hash. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.plan.code import digest
from harness.plan.configuration import Config, require, rule_of

PROTOCOL = 1
"""Version of the rules of measurement: raise it when the harness changes what a number means."""

Cell = dict[str, Any]


def cells(config: Config, table: str) -> list[Cell]:
    """All cells of a table, each as `cell()` gives it."""
    section = config["tables"][table]
    return [
        cell(config, dataset=dataset, model=model, method=method, seed=seed)
        for dataset in section["datasets"]
        for model in section["models"]
        for method in section["methods"]
        for seed in section["seeds"]
    ]


def cell(config: Config, *, dataset: str, model: str, method: str, seed: int | str) -> Cell:
    """Everything that determines one number, and its hash.

    The hash covers data, recipe, hyper-parameters and protocol, but neither paths nor hardware.

    Raises:
        ConfigError: `config` does not define the dataset or the method.
    """
    asker = folder({"dataset": dataset, "model": model, "method": method, "seed": seed})
    require(dataset, config["datasets"], asker, "dataset")
    require(method, config["methods"], asker, "method")
    data = dict(config["datasets"][dataset])
    recipe, given = dict(config["recipes"][data.pop("recipe")]), dict(config["methods"][method] or {})
    factor = given.pop("lr_factor", 1)
    if factor != 1:
        recipe["optimizer"] = {**recipe["optimizer"], "lr": factor * recipe["optimizer"]["lr"]}
    sizes = data.pop("image_size_by_model", {})
    if model in sizes:
        data["image_size"] = sizes[model]
    content = {
        "dataset": dataset,
        "model": model,
        "method": method,
        "seed": int(seed),
        "protocol": PROTOCOL,
        "config": {"data": data, "recipe": recipe, "hyperparameters": given},
    }
    return {**content, "config_hash": digest(content)}


def data_section(config: Config, dataset: str) -> Config:
    """What determines a prepared dataset.

    Raises:
        ConfigError: `config` does not define it.
    """
    require(dataset, config["datasets"], f"results/data/{dataset}", "dataset")
    return {key: value for key, value in config["datasets"][dataset].items() if key != "recipe"}


def prepared(config: Config, dataset: str) -> str:
    """Where the prepared dataset lies, relative to the working folder: another section has another file.

    Raises:
        ConfigError: `config` does not define it.
    """
    return f"results/data/{dataset}-{digest(data_section(config, dataset))[:8]}.safetensors"


def folder(cell: Mapping[str, Any]) -> str:
    """Where a cell leaves its results, relative to the working folder."""
    return f"results/{cell['dataset']}/{cell['model']}/{cell['method']}/seed{cell['seed']}"


def outputs(cell: Mapping[str, Any]) -> list[str]:
    """The files that a cell declares to Snakemake: the dense network also leaves the weights that others start from."""
    names = ["metrics.json", "start.safetensors"] if rule_of(cell["method"]) == "dense" else ["metrics.json"]
    return [f"{folder(cell)}/{name}" for name in names]
