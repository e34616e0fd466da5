"""Path patterns and input functions; everything that is Python and not a rule."""

import contextlib
import fcntl
import functools
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.shell import shell

sys.path.insert(0, str(ROOT))

from harness import kinds
from harness.machine import devices
from harness.plan import code, configuration, grid, reading
from harness.runs.supervisor import failures

# Rules say `python`: that of a conda environment if one is deployed, else the one that runs Snakemake, also when
# .venv/bin/snakemake is called without activation.
if not workflow.deployment_settings.deployment_method:
    shell.prefix(f"set -euo pipefail; export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ")

CELL = "results/{dataset}/{model}/{method}/seed{seed}"
DENSE = "results/{dataset}/{model}/dense/seed{seed}/start.safetensors"
EDROPOUT = "results/{dataset}/{model}/edropout/seed{seed}/metrics.json"
PAPER = "results/paper/{table}"
THEOREMS = configuration.THEOREMS
WITH_THEORY = config.get("theory", False)
BASELINES = sorted((ROOT / "workflow" / "baselines").glob("*.smk"))


def alone(guard):
    """Whether no other Snakemake works in this folder: takes the lock of the open file, or keeps it."""
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def one_sentence():
    """Ends Snakemake with the sentence that says what config.yaml cannot mean, and without lines of our code."""
    try:
        yield
    except configuration.ConfigError as error:
        sys.exit(str(error))


# Before the DAG is built; rules/requests.smk checks what needs the rules.
with one_sentence():
    for path in workflow.configfiles:
        reading.check_keys(Path(path))
    configuration.check(config, configuration.methods_with_rule())
    configuration.check_models({model for table in config["tables"].values() for model in table["models"]})


wildcard_constraints:
    dataset="[a-z0-9_.-]+",
    section="[0-9a-f]{8}",
    model="[a-z0-9_.]+",
    method="[a-z0-9_.-]+",
    seed="[0-9]+",
    table="|".join(config["tables"]),


def cell_json(wildcards):
    """The cell's configuration: a parameter of its rule, so that changing it runs the cell again."""
    with one_sentence():
        cell = grid.cell(
            config,
            dataset=wildcards.dataset,
            model=wildcards.model,
            method=wildcards.method,
            seed=wildcards.seed,
        )
    return json.dumps(cell, sort_keys=True)


def prepared(wildcards):
    """The file of the cell's dataset, as its section of config.yaml asks for it."""
    with one_sentence():
        return grid.prepared(config, wildcards.dataset)


DATA = ancient(prepared)  # What is in it is part of each cell's parameters: preparing it again reruns no cell.


def data_json(wildcards, output):
    """What a dataset is prepared from."""
    with one_sentence():
        section, path = grid.data_section(config, wildcards.dataset), grid.prepared(config, wildcards.dataset)
    if path != output[0]:
        raise WorkflowError(f"the section 'datasets.{wildcards.dataset}' of config.yaml makes {path}: ask for it")
    return json.dumps(section)


# Snakemake compares with the last run only what comes from functions that have no parameter named `input`: hence `given`.
def method_code(wildcards, **given):
    """Hash of the method's own code: a parameter of its rule, so that editing a method runs its cells again."""
    return code_hash(given["input"].fit)


@functools.cache
def code_hash(path):
    """The same for all jobs of a method while one Snakemake plans."""
    return code.code_hash(path)


def named_inputs(wildcards, input):
    """Command-line options for what a rule needs besides the code and the data, such as init=DENSE."""
    return " ".join(
        f"--input {shlex.quote(f'{name}={path}')}" for name, path in input.items() if name not in ("fit", "data")
    )


# Where data comes from moves no number, so rules have these as resources, not as parameters: a change reruns nothing.
DATA_ROOT = os.environ.get("EDROPOUT_DATA") or config["data"]["root"]
DOWNLOAD = "--download" if config["data"].get("download", True) else "--no-download"


def tables_of(wildcards):
    """Comma-separated tables that a cell belongs to."""
    return ",".join(
        name
        for name, table in config["tables"].items()
        if wildcards.dataset in table["datasets"]
        and wildcards.model in table["models"]
        and wildcards.method in table["methods"]
    )


def recipe_of(wildcards):
    return config["recipes"][config["datasets"][wildcards.dataset]["recipe"]]


def recipe_threads(wildcards):
    """CPU threads of a job: those of all its processes."""
    recipe = recipe_of(wildcards)
    return recipe.get("threads", 1) * recipe.get("processes", 1)


def recipe_gpus(wildcards):
    """GPUs of a job: one for each of its processes, or none if EDROPOUT_DEVICE says so."""
    return 0 if devices.wanted_device() == "cpu" else recipe_of(wildcards).get("processes", 1)


def table_cells(table):
    """The cells of a table, each a dictionary with its result file under `path`."""
    return [
        {
            **{key: cell[key] for key in ("dataset", "model", "method", "seed", "config_hash")},
            "kind": kinds.of_data(cell["config"]["data"]),
            "path": f"{grid.folder(cell)}/metrics.json",
        }
        for cell in grid.cells(config, table)
    ]


def table_results(wildcards):
    return [cell["path"] for cell in table_cells(wildcards.table)]


def edropout_unless_own_ratio(wildcards):
    """EDropout's cell, whose kept ratio a method without one of its own takes over."""
    own = config["methods"].get(wildcards.method) or {}
    return {} if own.keys() & {"prune_ratio", "target_kept"} else {"edropout": EDROPOUT.format(**wildcards)}


def scratch_source(wildcards):
    """The result of the cell whose architecture is trained anew: `scratch-l1-30` trains what `l1-30` left."""
    method = wildcards.method.removeprefix("scratch-")
    return f"{CELL}/metrics.json".format(**{**dict(wildcards.items()), "method": method})


def table_outputs(table):
    """All that the target of a table asks for: what is missing of it is made again."""
    files = [f"{PAPER}.{suffix}" for suffix in ("csv", "md", "tex", "html", "pdf", "txt")]
    patterns = [*files, f"{PAPER}/figures", f"{PAPER}/statistics", f"{PAPER}/artifacts.txt"]
    return [pattern.format(table=table) for pattern in patterns]


def paper_code(module):
    """Input function: hash of a module of paper/ and of what it imports there, so that editing it renders again."""
    return lambda wildcards: code_hash(ROOT / "paper" / f"{module}.py")
