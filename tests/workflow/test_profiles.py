"""Clusters: what each profile asks for, and a cell trained through Slurm's executor with stand-ins for its commands."""

import json
import os
import re
import subprocess
import sys

import pytest
from projects import copy_of_the_repository, environment, reduced

from harness.plan import grid

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


@pytest.mark.parametrize("profile", ["slurm", "kubernetes"])
def test_a_profile_asks_for_gpus_threads_memory_and_time(small, profile):
    with_recipe(small, processes=4, threads=8)
    small.write(grid.prepared(small.config, "digits"), "0" * 1_000_000)
    output = snakemake(small, "-n", "--quiet", "progress", "--profile", f"profiles/{profile}", "--cores", "64", CELL)
    asked = resources(output, "dense")
    assert asked["gpu"] == "4" and asked["threads"] == "32"
    assert asked["mem_mb"] == "8004"  # 4 GB, four times the data, and 4 GB more at each attempt


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


SBATCH = """#!/bin/sh
# Runs the job at once, as a machine of the cluster would, and remembers how it ended.
for argument; do last=$argument; done
echo "$*" >> "$SLURM_STAND_IN/submitted"
number=$(grep -c . "$SLURM_STAND_IN/submitted")
if SLURM_JOB_ID=$number sh -c "${last#--wrap=}" > "$SLURM_STAND_IN/job$number" 2>&1
then state=COMPLETED; else state=FAILED; fi
echo "$number|$state" >> "$SLURM_STAND_IN/states"
echo "$number"
"""
SRUN = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
exec "$@"
"""
SACCT = '#!/bin/sh\ncat "$SLURM_STAND_IN/states"\n'


def test_slurm_jobs_train_a_cell(small, tmp_path):
    stand_ins = {
        "sbatch": SBATCH,
        "srun": SRUN,
        "sacct": SACCT,
        "sinfo": "#!/bin/sh\n",
        "sacctmgr": "#!/bin/sh\necho my_account\n",
    }
    variables = {"PATH": commands(tmp_path / "bin", **stand_ins), "SLURM_STAND_IN": str(tmp_path)}
    profile = small.folder / "profiles" / "slurm" / "config.yaml"
    profile.write_text(profile.read_text().replace("# slurm_account", "slurm_account"))
    quickly = ["--slurm-init-seconds-before-status-checks", "1", "--retries", "0"]
    snakemake(small, CELL, "--profile", "profiles/slurm", *quickly, **variables)
    assert json.loads((small.folder / CELL).read_text())["status"] == "done"
    submitted = (tmp_path / "submitted").read_text()
    asked = ("--gpus=1", "--nodes=1", "--cpus-per-task=1", "--mem 800", "-t 1440", "-A my_account")
    assert all(option in submitted.splitlines()[-1] for option in asked), submitted


KUBERNETES = """
import os, subprocess, types
import kubernetes.client, kubernetes.config

ended = {}

def create_namespaced_job(self, namespace, body):
    # Runs the pod's container at once, in an empty folder and without our environment.
    container = body.spec.template.spec.containers[0]
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ["POD"], "WANDB_MODE": "offline"}
    command = [*container.command, *container.args]
    ended[body.metadata.name] = subprocess.run(command, cwd=os.environ["POD"], env=environment).returncode == 0
    with open(os.environ["POD"] + "/asked", "a") as asked:
        print(container.resources.limits, file=asked)

def read_namespaced_job_status(self, name, namespace):
    counts = types.SimpleNamespace(succeeded=int(ended[name]), failed=int(not ended[name]))
    return types.SimpleNamespace(status=counts)

def nothing(*arguments, **options):
    return types.SimpleNamespace(items=[])

kubernetes.config.load_kube_config = nothing
for name in ("create_namespaced_secret", "delete_namespaced_secret", "list_namespaced_pod"):
    setattr(kubernetes.client.CoreV1Api, name, nothing)
kubernetes.client.BatchV1Api.create_namespaced_job = create_namespaced_job
kubernetes.client.BatchV1Api.read_namespaced_job_status = read_namespaced_job_status
kubernetes.client.BatchV1Api.delete_namespaced_job = nothing
"""


def test_pods_train_a_cell_on_the_volume_that_they_share(small, tmp_path):
    pod, stand_in = tmp_path / "pod", tmp_path / "stand_in"
    pod.mkdir()
    stand_in.mkdir()
    (stand_in / "sitecustomize.py").write_text(KUBERNETES)
    arguments = ["--precommand", f"cd {small.folder}", "--kubernetes-persistent-volumes", f"claim:{small.folder}"]
    variables = {"PYTHONPATH": str(stand_in), "POD": str(pod)}
    snakemake(small, CELL, "--profile", "profiles/kubernetes", *arguments, **variables)
    folder = (small.folder / CELL).parent
    assert json.loads((folder / "metrics.json").read_text())["status"] == "done"
    assert {"history.csv", "model.safetensors", "log.txt"} <= {path.name for path in folder.iterdir()}
    assert "'nvidia.com/gpu': '1'" in (pod / "asked").read_text()
