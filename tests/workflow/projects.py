"""A small copy of the repository in which the real workflow runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas
import yaml

ROOT = Path(__file__).resolve().parents[2]
SECRET = "0123456789abcdef0123456789abcdef01234567"
CELL = "results/digits/resnet8"
QUICK_RECIPE = {"epochs": 4, "prune_epoch": 2}


@dataclass(frozen=True)
class Project:
    """A checkout of its own, run as a user runs it."""

    folder: Path

    @property
    def config(self):
        return yaml.safe_load((self.folder / "config" / "config.yaml").read_text())

    def configure(self, config):
        (self.folder / "config" / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def write(self, path, text):
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def add_method(self, name, hyperparameters=None):
        """Name a method in the configuration, and in table `quick`."""
        config = self.config
        config["methods"][name] = hyperparameters or {}
        config["tables"]["quick"]["methods"].append(name)
        self.configure(config)

    def metrics(self, method, seed=1):
        return json.loads((self.folder / CELL / method / f"seed{seed}" / "metrics.json").read_text())

    def table(self, name="quick"):
        return pandas.read_csv(self.folder / "results" / "paper" / f"{name}.csv")

    def start(self, *arguments, **options):
        """A running Snakemake."""
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options}
        return subprocess.Popen(command, cwd=self.folder, env=environment(), **options)

    def snakemake(self, *arguments):
        """Exit code and output of a Snakemake that runs to its end."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=900)
        return process.returncode, output


def environment():
    keep = "EDROPOUT_CHECKPOINT_SECONDS"
    variables = {name: value for name, value in os.environ.items() if not name.startswith("EDROPOUT_") or name == keep}
    return {**variables, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_API_KEY": SECRET}


def copy_of_the_repository(folder):
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return Project(folder)


def reduced(config, methods, models=("resnet8",), seeds=(1,)):
    """The shipped configuration with one small table, `quick`, of few epochs."""
    config["recipes"]["quick"].update(QUICK_RECIPE)
    config["datasets"]["digits"].update(train_examples=200, val_examples=60, test_examples=100)
    table = {"datasets": ["digits"], "models": list(models), "methods": list(methods), "seeds": list(seeds)}
    return {**config, "tables": {"quick": table}, "build": ["quick"]}


def planned(output):
    """Jobs by rule in a dry run."""
    lines = output.split("Job stats:", 1)[-1].splitlines()
    return {words[0]: int(words[1]) for words in map(str.split, lines) if len(words) == 2 and words[1].isdigit()}


def cells_to_train(project, rules):
    """As a dry run and the status see it; they must agree."""
    jobs = planned(project.snakemake("-n")[1])
    command = [sys.executable, "-m", "harness.status"]
    answer = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=True)
    done, cells = re.match(r"(?:(\d+) done)?.* of (\d+) cells", answer.stdout).groups(default="0")
    assert sum(jobs.get(rule, 0) for rule in rules) == int(cells) - int(done), answer.stdout
    return {rule: jobs[rule] for rule in rules if rule in jobs}
