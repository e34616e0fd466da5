"""The Slurm profile on a real Slurm of one node: time limits, failures, cancelled jobs, two runs at once, accounts."""

import json
import subprocess
import sys
import time

import pytest
import slow_method
import slurm_cluster
from projects import copy_of_the_repository, environment, reduced
from slow_method import BATCHES, drawn

from harness.runs import result

EPOCHS = 60
ENDED = ("CANCELLED", "TIMEOUT")


def cell(method):
    return f"results/digits/resnet8/{method}/seed1/metrics.json"


def make_project(folder):
    project = copy_of_the_repository(folder)
    project.configure(reduced(project.config, ["slow", "slow-fails"]))
    slow_method.add(project, EPOCHS, **{"slow": {}, "slow-fails": {"fails": True}})
    return project


def start(project, variables, *arguments):
    """A Snakemake that submits to the cluster."""
    quickly = ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10"]
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", *arguments, "--profile", "profiles/slurm", *quickly],
        cwd=project.folder,
        env={**environment(), **variables, "EDROPOUT_CHECKPOINT_SECONDS": "1", "EDROPOUT_DEVICE": "auto"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ask(variables, *command):
    return subprocess.run(
        command, env={**environment(), **variables}, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def jobs(project, variables):
    """(id, state, memory, what) of all jobs that were submitted in the project's folder, in order."""
    lines = [line.split("|") for line in ask(variables, "squeue", "-h", "--states=all", "-o", "%Z|%i|%T|%m|%k")]
    return sorted((int(number), *words) for place, number, *words in lines if place == str(project.folder))


def of_slow(project, variables):
    """The jobs of the cell that trains to its end."""
    return [job for job in jobs(project, variables) if "slow" in job[3] and "fails" not in job[3]]


def wait_until(ready, run):
    deadline = time.monotonic() + 600
    while not ready():
        assert run.poll() is None, run.stdout.read()
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.5)


def finish(run):
    output, _ = run.communicate(timeout=900)
    assert run.returncode == 0, output


@pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing())
def test_jobs_that_are_stopped_go_on_and_those_that_fail_end_while_two_tables_run(tmp_path):
    with slurm_cluster.cluster(tmp_path / "slurm") as variables:
        limited, cancelled = (make_project(tmp_path / name) for name in ("limited", "cancelled"))
        first = start(limited, variables, cell("slow"), cell("slow-fails"))
        second = start(cancelled, variables, cell("slow"))
        for project, run in ((cancelled, second), (limited, first)):
            wait_until(lambda project=project: drawn(project) > 20, run)
            ((number, *_),) = [job for job in of_slow(project, variables) if job[1] == "RUNNING"]
            if project is cancelled:
                ask(variables, "scancel", str(number))
            else:
                ask(variables, "scontrol", "update", f"JobId={number}", "EndTime=now+5")
            wait_until(lambda project=project: of_slow(project, variables)[0][1] in ENDED, run)
            (project.folder / "slowly").unlink()
        finish(first)
        finish(second)
        for project, ended in zip((cancelled, limited), ENDED, strict=True):
            # 4 GB, four times the data's few kilobytes, and 4 GB more at each attempt
            assert [job[1:3] for job in of_slow(project, variables)] == [(ended, "8000M"), ("COMPLETED", "12000M")]
            epochs = (project.folder / cell("slow")).with_name("history.csv").read_text().splitlines()[1:]
            assert [int(line.split(",")[1]) for line in epochs] == list(range(1, EPOCHS + 1))
            assert EPOCHS * BATCHES <= drawn(project) < EPOCHS * BATCHES + 8  # At most what a second draws, again.
        bits = [result.read(project.folder / cell("slow")) for project in (limited, cancelled)]
        assert bits[0]["status"] == "done" and bits[0]["checksum"] == bits[1]["checksum"]
        failed = json.loads((limited.folder / cell("slow-fails")).read_text())
        assert failed["status"] == "failed" and "it fails by design" in failed["error"]
        assert [state for _, state, _, what in jobs(limited, variables) if "fails" in what] == ["COMPLETED"]


@pytest.mark.skipif(bool(slurm_cluster.missing(accounting=True)), reason=slurm_cluster.missing(accounting=True))
def test_a_cluster_with_accounting_is_asked_either_way(tmp_path):
    with slurm_cluster.cluster(tmp_path / "slurm", accounting=True) as variables:
        projects = {name: make_project(tmp_path / name) for name in ("squeue", "sacct")}
        runs = [
            start(project, variables, cell("slow-fails"), "--slurm-status-command", name)
            for name, project in projects.items()
        ]
        for run in runs:
            finish(run)
        for project in projects.values():
            assert json.loads((project.folder / cell("slow-fails")).read_text())["status"] == "failed"
        assert ask(variables, "sacct", "-X", "-n", "-o", "State%20") == [f"{'COMPLETED':>20} "] * 4
