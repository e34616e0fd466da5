"""config.yaml as a whole: its sections, and the tables that they are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from harness.config.dataset import Dataset
from harness.config.key import CLOSED, DISTINCT, NAMED, Architecture, Limits, Name, Variant, key, require_distinct
from harness.config.recipe import Recipe


@dataclass(frozen=True)
class Data:
    """Where raw data lies; it moves no number."""

    __pydantic_config__ = CLOSED

    root: str = key("folder of the raw data; the environment variable `EDROPOUT_DATA` wins", min_length=1)
    download: bool = key("fetch what is missing there", default=True)


@dataclass(frozen=True)
class Table:
    """The product of its lists; its name is a target."""

    __pydantic_config__ = CLOSED

    datasets: list[Variant] = key("names under `datasets`", min_length=1, **DISTINCT)
    models: list[Architecture] = key("architectures by name: ours, torchvision's or timm's", min_length=1, **DISTINCT)
    methods: list[Variant] = key("names under `methods`", min_length=1, **DISTINCT)
    seeds: list[Annotated[int, Limits(ge=0)]] = key("one run each", min_length=1, **DISTINCT)
    tune: dict[Variant, dict[Name, Annotated[list[bool | int | float | str], Limits(min_length=1)]]] = key(
        "values to try for hyper-parameters of a method, or of `all`; shown is what is best on validation",
        default_factory=dict,
    )

    def __post_init__(self) -> None:
        require_distinct(datasets=self.datasets, models=self.models, methods=self.methods, seeds=self.seeds)


@dataclass(frozen=True)
class Configuration:
    """What is run."""

    __pydantic_config__ = CLOSED

    build: list[Variant] = key("tables that `snakemake --cores all` makes", **DISTINCT)
    data: Data = key("where raw data lies")
    tables: dict[Variant, Table] = key("what is compared", **NAMED)
    datasets: dict[Variant, Dataset] = key("sources, their preprocessing, and their recipes", **NAMED)
    recipes: dict[Name, Recipe] = key("how every method of a dataset is trained", **NAMED)
    methods: dict[Variant, dict[str, Any] | None] = key(
        "hyper-parameters of the methods' `fit()`, by keyword; every method has `lr_factor`, which multiplies the "
        "learning rate of the recipe",
        **NAMED,
    )
    theory: bool = key(
        "also check the theorems of [docs/theory.md](../docs/theory.md) in `snakemake --cores all`, and put their "
        "page into the PDF; `snakemake --cores all theory` does it alone",
        default=False,
    )

    def __post_init__(self) -> None:
        require_distinct(build=self.build)
