"""A small copy of the repository in which the real workflow runs."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
SECRET = "0123456789abcdef0123456789abcdef01234567"
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
