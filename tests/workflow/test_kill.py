"""SIGKILL at random moments, of trainers, of Snakemake or of both: the results are those of an undisturbed run."""

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from projects import CELL, Project, reduced

KILLS = int(os.environ.get("EDROPOUT_KILLS", "3"))
METHODS = ["dense", "edropout", "thinet", "ipruning"]
CELLS = [f"{CELL}/{method}/seed1/metrics.json" for method in METHODS]


def processes_in(folder):
    """Process numbers by kind: trainers, their supervisors, and Snakemake."""
    found = {"trainer": [], "supervisor": [], "snakemake": []}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command, place = (entry / "cmdline").read_bytes(), os.readlink(entry / "cwd")
        except OSError:
            continue
        if place == str(folder):
            kinds = {b"harness.runs.cell": "trainer", b"harness.run": "supervisor", b"snakemake": "snakemake"}
            kind = next((kinds[word] for word in kinds if word in command), None)
            if kind:
                found[kind].append(int(entry.name))
    return found


def kill(folder, victims):
    """How many processes really died."""
    died = 0
    for kind in victims:
        for number in processes_in(folder)[kind]:
            try:
                os.kill(number, signal.SIGKILL)
                died += 1
            except ProcessLookupError:
                continue
    return died


def lasting(folder):
    """What must not depend on interruptions: weights by hash, results without times."""
    outcome = {}
    for path in sorted(folder.glob("results/digits/**/metrics.json")):
        metrics = json.loads(path.read_text())
        for volatile in ("time", "latency", "provenance"):
            metrics.pop(volatile, None)
        weights = hashlib.sha256((path.parent / "model.safetensors").read_bytes()).hexdigest()
        with open(path.parent / "history.csv") as handle:
            history = list(csv.DictReader(handle))
        rows = [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in history]
        outcome[str(path.relative_to(folder))] = (metrics, weights, rows)
    return outcome


def copy(project, folder):
    shutil.copytree(project.folder, folder, symlinks=True, ignore=shutil.ignore_patterns("digits"))
    shutil.rmtree(folder / "results", ignore_errors=True)
    fresh = Project(folder)
    config = reduced(fresh.config, METHODS)
    config["recipes"]["quick"].update(epochs=20, prune_epoch=10)
    fresh.configure(config)
    return fresh


def test_killed_runs_on_two_cores_end_with_the_bits_of_an_undisturbed_run_on_one(project, tmp_path, monkeypatch):
    whole = copy(project, tmp_path / "whole")
    code, output = whole.snakemake("--cores", "1", *CELLS)
    assert code == 0, output

    monkeypatch.setenv("EDROPOUT_CHECKPOINT_SECONDS", "0.05")
    broken = copy(project, tmp_path / "broken")
    generator, kills, full_runs = random.Random(KILLS), 0, 1
    while kills < KILLS:
        process = broken.start(*CELLS, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while not processes_in(broken.folder)["trainer"] and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        killed = False
        if process.poll() is None:
            time.sleep(generator.uniform(0.5, 6))
            everything = ["snakemake", "supervisor", "trainer"]
            victims = generator.choice([["trainer"], ["supervisor"], ["snakemake"], everything])
            killed = kill(broken.folder, victims) > 0
        process.wait(timeout=600)
        kills += killed
        if process.returncode == 0 and not killed:
            # Nothing is left that could be killed: start over.
            assert lasting(broken.folder) == lasting(whole.folder)
            shutil.rmtree(broken.folder / "results")
            full_runs += 1
            assert full_runs <= KILLS, "the runs end before anything can be killed: give them more epochs"
    code, output = broken.snakemake(*CELLS)
    assert code == 0, output
    assert lasting(broken.folder) == lasting(whole.folder)
    assert len(lasting(whole.folder)) == len(METHODS)
    print(f"{kills} kills in {full_runs} full runs")
