"""What jobs ask for, of one machine's GPUs and cores and of a cluster."""

import os
import re
import subprocess
import sys

import pytest
from projects import copy_of_the_repository, environment, reduced

CELL = "results/digits/resnet8/dense/seed1/metrics.json"


@pytest.fixture
def small(tmp_path):
    """A copy of the repository with one small table, in which nothing has been made yet."""
    project = copy_of_the_repository(tmp_path / "project")
    project.configure(reduced(project.config, ["dense"]))
    return project


def snakemake(project, *arguments, **variables):
    command = [sys.executable, "-m", "snakemake", *arguments]
    answer = subprocess.run(
        command,
        cwd=project.folder,
        env={**environment(), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout
    return answer.stdout


def resources(output, rule):
    """What the jobs of a rule ask for, as a dry run prints it."""
    block = output.split(f"rule {rule}:", 1)[1].split("\n\n", 1)[0]
    line = re.search(r"resources: (.*)", block)[1]
    threads = re.search(r"threads: (\d+)", block)
    return {**dict(pair.split("=", 1) for pair in line.split(", ")), "threads": threads[1] if threads else "1"}


def with_recipe(project, **keys):
    config = project.config
    config["recipes"]["quick"].update(keys)
    project.configure(config)


def test_the_profile_asks_for_gpus_and_threads_and_leaves_time_to_the_partition(small):
    with_recipe(small, processes=4, threads=8)
    output = snakemake(small, "-n", "--quiet", "progress", "--profile", "profiles/slurm", "--cores", "64", CELL)
    asked = resources(output, "dense")
    assert asked["gpu"] == "4" and asked["threads"] == "32"
    assert "runtime" not in asked  # A job that asks for more than its partition's limit waits for ever.


def test_a_cluster_without_gpus_is_asked_for_none(small):
    arguments = ("-n", "--quiet", "progress", "--profile", "profiles/slurm", CELL)
    output = snakemake(small, *arguments, EDROPOUT_DEVICE="cpu")
    assert resources(output, "dense")["gpu"] == "0" and "gpu" not in resources(output, "data")


NVIDIA_SMI = "#!/bin/sh\nprintf 'GPU 0: A (UUID: a)\\nGPU 1: A (UUID: b)\\n'\n"
"""Lists two GPUs."""


def commands(folder, **scripts):
    """A PATH that begins with a folder of these commands."""
    folder.mkdir()
    for name, text in scripts.items():
        path = folder / name.replace("_", "-")
        path.write_text(text)
        path.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


GPU_JOB = """

rule gpu_job:
    output:
        "gpu_jobs/{number}",
    resources:
        gpu=1,
    shell:
        "python -c 'import time; print(time.time()); time.sleep(1); print(time.time())' > {output}"
"""


def most_at_once(spans):
    return max(sum(start <= other < end for start, end in spans) for other, _ in spans)


@pytest.mark.parametrize(("jobs_per_gpu", "slots"), [("1", 2), ("2", 4)])
def test_no_more_gpu_jobs_than_slots_run_at_once(small, tmp_path, jobs_per_gpu, slots):
    small.write("Snakefile", (small.folder / "Snakefile").read_text() + GPU_JOB)
    variables = {"PATH": commands(tmp_path / "bin", nvidia_smi=NVIDIA_SMI), "EDROPOUT_JOBS_PER_GPU": jobs_per_gpu}
    targets = [f"gpu_jobs/{number}" for number in range(5)]
    snakemake(small, "--cores", "8", *targets, **variables)
    spans = [tuple(map(float, (small.folder / target).read_text().split())) for target in targets]
    assert most_at_once(spans) == slots


def test_a_machine_without_gpus_runs_gpu_jobs(small, tmp_path):
    small.write("Snakefile", (small.folder / "Snakefile").read_text() + GPU_JOB)
    variables = {"CUDA_VISIBLE_DEVICES": ""}
    snakemake(small, "--cores", "2", "gpu_jobs/1", **variables)
    assert (small.folder / "gpu_jobs" / "1").exists()


def test_the_threads_of_a_recipe_add_up_to_the_cores(small):
    with_recipe(small, threads=2, processes=3)
    output = snakemake(small, "-n", "--quiet", "progress", "--cores", "16", CELL)
    assert resources(output, "dense")["threads"] == "6"
    output = snakemake(small, "-n", "--quiet", "progress", "--cores", "4", CELL)
    assert resources(output, "dense")["threads"] == "4"
