"""GPU slots: as many jobs on a GPU as are allowed, each slot given back by the end of its process, whatever it was."""

import os
import select
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from harness.machine import devices

ROOT = Path(__file__).resolve().parents[3]
VARIABLES = ("CUDA_VISIBLE_DEVICES", "EDROPOUT_DEVICE", "EDROPOUT_JOBS_PER_GPU", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
JOB = """
import sys, time
from harness.machine import devices
devices.POLL_SECONDS = 0.05
print("asking", flush=True)
print(devices.choose_gpu({gpus}), flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture
def job():
    """Starts jobs that take a slot among so many GPUs and keep it; ends them all."""
    started = []

    def start(gpus, **variables):
        command = [sys.executable, "-c", JOB.format(gpus=gpus)]
        environment = {**os.environ, **variables}
        # Unbuffered, so that `select` sees all that has not been read.
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, bufsize=0))
        assert started[-1].stdout.readline() == b"asking\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def gpu_of(process):
    return int(process.stdout.readline())


def is_waiting(process):
    """True if the job that asks is given no GPU for half a second."""
    return not select.select([process.stdout], [], [], 0.5)[0]


def test_jobs_spread_over_the_gpus_and_the_next_one_waits_for_a_killed_one(job):
    jobs = [job(2) for _ in range(2)]
    assert sorted(map(gpu_of, jobs)) == [0, 1]
    third = job(2)
    assert is_waiting(third)
    jobs[0].send_signal(signal.SIGKILL)
    assert gpu_of(third) in (0, 1)


def test_jobs_share_a_gpu_only_as_far_as_they_may(job):
    jobs = [job(2, EDROPOUT_JOBS_PER_GPU="2") for _ in range(4)]
    assert sorted(map(gpu_of, jobs)) == [0, 0, 1, 1]
    assert is_waiting(job(2, EDROPOUT_JOBS_PER_GPU="2"))


def test_gpus_that_are_the_jobs_own_need_no_slot(job):
    # As a scheduler gives them: each job sees one GPU, and calls it 0 whichever it is.
    assert [gpu_of(job(1, CUDA_VISIBLE_DEVICES="0")) for _ in range(2)] == [0, 0]
    ranks = [job(2, CUDA_VISIBLE_DEVICES="4,5", LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2") for rank in range(2)]
    assert [gpu_of(rank) for rank in ranks] == [0, 1]


def test_jobs_that_see_the_same_two_gpus_share_them_out(job):
    jobs = [job(2, CUDA_VISIBLE_DEVICES="2,3") for _ in range(2)]
    assert sorted(map(gpu_of, jobs)) == [0, 1]
    # Number 3 is taken, by whatever name it is asked for.
    assert is_waiting(job(2, CUDA_VISIBLE_DEVICES="3,2"))


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(devices.DeviceError, match="recipe key 'processes' is 4, and PyTorch sees 2 CUDA GPUs"):
        devices.choose_gpu(2)


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.choose_device("auto") == torch.device("cpu")
    with pytest.raises(devices.DeviceError, match="'cuda' was asked for, and PyTorch sees no CUDA GPU"):
        devices.choose_device("cuda")
    with pytest.raises(devices.DeviceError, match=r"'cuda:2' was asked for: .* CUDA_VISIBLE_DEVICES"):
        devices.choose_device("cuda:2")


LISTED = "GPU 0: NVIDIA A (UUID: GPU-1)\n  MIG 1g.5gb Device 0: (UUID: MIG-1)\nGPU 1: NVIDIA A (UUID: GPU-2)\n"


def listing(output, returncode=0):
    return lambda *_, **__: types.SimpleNamespace(stdout=output, returncode=returncode)


def test_slots_are_the_listed_gpus_times_the_jobs_on_each(monkeypatch):
    monkeypatch.setattr(subprocess, "run", listing(LISTED))
    assert devices.slots() == 2
    monkeypatch.setenv("EDROPOUT_JOBS_PER_GPU", "3")
    assert devices.slots() == 6
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert devices.slots() == 3
    monkeypatch.setenv("EDROPOUT_DEVICE", "cpu")
    assert devices.slots() == 0


def test_a_machine_without_a_gpu_has_no_slots(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert devices.slots() == 0
    monkeypatch.setattr(subprocess, "run", listing("No devices were found\n", returncode=6))
    assert devices.slots() == 0


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpus_do_not_count(monkeypatch, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert devices.slots() == 0


@pytest.mark.parametrize("given", ["0", "two", "-1", "1.5"])
def test_a_wrong_number_of_jobs_names_its_variable(monkeypatch, given):
    monkeypatch.setenv("EDROPOUT_JOBS_PER_GPU", given)
    with pytest.raises(devices.DeviceError, match=f"EDROPOUT_JOBS_PER_GPU is '{given}'"):
        devices.slots()
