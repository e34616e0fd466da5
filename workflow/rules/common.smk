"""Path patterns and input functions; everything that is Python and not a rule."""

import contextlib
import fcntl
import functools
import json
import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import psutil
from snakemake.exceptions import WorkflowError
from snakemake.io import is_flagged
from snakemake.shell import shell

sys.path.insert(0, str(ROOT))

from harness import kinds
from harness.machine import devices
from harness.plan import code, configuration, current, grid, reading, rendered
from harness.runs import supervisor

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


def stop_jobs_of(process):
    """Tell what a process has started to stop; a trainer's supervisor sees to the trainer itself."""
    for child in process.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "harness.run" not in child.cmdline():
                stop_jobs_of(child)
            child.terminate()


def pass_signals_on():
    """Let Snakemake stop its jobs when it alone is told to stop: it would wait for them to end, for hours."""
    for number in (signal.SIGINT, signal.SIGTERM):
        then = signal.getsignal(number)
        if not callable(then):  # Ignored, as a shell has it for what runs in its background.
            continue

        def stop(number, frame, then=then):
            stop_jobs_of(psutil.Process())
            then(number, frame)

        signal.signal(number, stop)


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
    config.update(configuration.expanded(config))
    configuration.check_models({model for table in config["tables"].values() for model in table["models"]})


REPORTED = [*config["build"], *(["--theory"] if WITH_THEORY else [])]


wildcard_constraints:
    dataset="[a-z0-9_.-]+",
    section="[0-9a-f]{8}",
    model="[a-z0-9_.]+",
    method="[a-z0-9_.-]+",
    seed="[0-9]+",
    table="|".join(config["tables"]),


def planned_cell(wildcards):
    """The cell of a rule's wildcards."""
    names = {key: wildcards[key] for key in ("dataset", "model", "method", "seed")}
    with one_sentence():
        return grid.cell(config, **names)


def cell_json(wildcards):
    """The cell's configuration, for the command line."""
    return json.dumps(planned_cell(wildcards), sort_keys=True)


def prepared(wildcards):
    """The file of the cell's dataset, as its section of config.yaml asks for it."""
    with one_sentence():
        return grid.prepared(config, wildcards.dataset)


DATA = prepared


def data_json(wildcards, output):
    """What a dataset is prepared from."""
    with one_sentence():
        section, path = grid.data_section(config, wildcards.dataset), grid.prepared(config, wildcards.dataset)
    if path != output[0]:
        raise WorkflowError(f"the section 'datasets.{wildcards.dataset}' of config.yaml makes {path}: ask for it")
    return json.dumps(section)


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


RESULTS = current.Current(config)
"""What is there already, as this Snakemake sees it when it starts."""


def make_again(*paths):
    """Have the jobs that make these files run if they are asked for, whatever Snakemake knows of them.

    The set is that of its option --forcerun, which would ask for them too.
    """
    if workflow.is_main_process:
        workflow.dag.forcefiles.update(paths)


def if_stale(item):
    """An input of a cell, as it is asked for where the cell's result is missing or not what is asked for now.

    A cell that is current asks for nothing: then neither times of files nor what else has to run can concern it.
    """
    unpacked, written = is_flagged(item, "unpack"), getattr(item, "_file", item)
    function = getattr(written, "callable", written if callable(written) else None)

    def look(wildcards):
        cell = planned_cell(wildcards)
        if not RESULTS.objection(cell):
            return {} if unpacked else []
        make_again(*grid.outputs(cell))
        return function(wildcards) if function else item

    return unpack(look) if unpacked else look


def table_cells(table):
    """The cells of a table, each a dictionary with its result file under `path`."""
    tuned = config["tables"][table]["tuned"]
    return [
        {
            **{key: cell[key] for key in ("dataset", "model", "method", "seed", "config_hash")},
            "kind": kinds.of_data(cell["config"]["data"]),
            "path": f"{grid.folder(cell)}/metrics.json",
            **({"tuned": tuned[cell["method"]]} if cell["method"] in tuned else {}),
        }
        for cell in grid.cells(config, table)
    ]


def table_results(wildcards):
    """The results of a table; none if it was rendered from all of them as they are now."""
    table, cells = PAPER.format(**wildcards), grid.cells(config, wildcards.table)
    if not any(map(RESULTS.objection, cells)) and rendered.of(table) == rendered.wanted(map(RESULTS.result, cells)):
        return []
    make_again(f"{table}.csv", f"{table}/cells.json")
    return [f"{grid.folder(cell)}/metrics.json" for cell in cells]


def unless_noted(made_of, note, *outputs):
    """An input function without input: has the outputs made again unless their note, written last, says `made_of()`."""

    def look(wildcards):
        if rendered.note(note) != made_of():
            make_again(*outputs)
        return []

    return look


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
