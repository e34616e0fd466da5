"""Which device a job uses: the CPU, or a slot on one of the GPUs, taken by a lock that ends with the process."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")
POLL_SECONDS = 1.0

_held: list[object] = []
"""Open lock files: closing one, at the end of the process, gives its slot back."""


class DeviceError(ValueError):
    """A device that was asked for and is not there, or a variable that is no number."""


def wanted_device() -> str:
    """What EDROPOUT_DEVICE asks for: `auto`, `cpu` or `cuda`.

    Raises:
        DeviceError: it says something else.
    """
    return _known(os.environ.get("EDROPOUT_DEVICE") or "auto")


def _known(wanted: str) -> str:
    if wanted not in DEVICES:
        known = ", ".join(DEVICES)
        raise DeviceError(f"device '{wanted}' was asked for: use {known}, and CUDA_VISIBLE_DEVICES to choose GPUs")
    return wanted


def choose_device(wanted: str) -> torch.device:
    """The device of this job.

    Args:
        wanted: `auto` (a GPU if there is one), `cpu` or `cuda`.

    Each process of a job takes a free slot of a GPU, of which there are `jobs_per_gpu()` on each. CUDA_VISIBLE_DEVICES
    says which GPUs there are; if it names no more than the job has processes, as on a cluster, they are the job's own.

    Raises:
        DeviceError: there is no such device, or not as many GPUs as the job has processes.
    """
    import torch

    _known(wanted)
    available = torch.cuda.is_available()
    if wanted == "cpu" or (wanted == "auto" and not available):
        return torch.device("cpu")
    if not available:
        raise DeviceError(
            f"device '{wanted}' was asked for, and PyTorch sees no CUDA GPU: set EDROPOUT_DEVICE to cpu or auto"
        )
    # cuBLAS is deterministic only with a workspace of fixed size.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = torch.device("cuda", choose_gpu(torch.cuda.device_count()))
    torch.cuda.set_device(device)
    return device


def make_deterministic(device: torch.device) -> None:
    """What torch.use_deterministic_algorithms does, without its import of the compiler, which costs a second a job."""
    import torch

    torch.set_deterministic_debug_mode("warn" if device.type == "cuda" else "error")


def choose_gpu(gpus: int) -> int:
    """Which of `gpus` visible GPUs this process uses."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if processes > gpus:
        raise DeviceError(f"recipe key 'processes' is {processes}, and PyTorch sees {gpus} CUDA GPUs: lower it")
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None and gpus == processes:
        return int(os.environ.get("LOCAL_RANK", 0))
    names = [str(number) for number in range(gpus)] if named is None else named.replace(" ", "").split(",")[:gpus]
    return take_slot(names, jobs_per_gpu())


def jobs_per_gpu() -> int:
    """How many jobs share a GPU: EDROPOUT_JOBS_PER_GPU, or 1."""
    given = os.environ.get("EDROPOUT_JOBS_PER_GPU", "1")
    if not given.isdecimal() or int(given) < 1:
        raise DeviceError(f"EDROPOUT_JOBS_PER_GPU is '{given}': set it to the number of jobs that share a GPU")
    return int(given)


def take_slot(gpus: Sequence[str], jobs: int) -> int:
    """Wait for a free slot among `jobs` on each of the named GPUs and keep it until this process ends.

    Returns:
        The GPU's place in `gpus`; an empty one comes before a shared one.
    """
    folder = Path(tempfile.gettempdir()) / f"edropout-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    while True:
        for slot in range(jobs):
            for place, name in enumerate(gpus):
                handle = open(folder / f"gpu{name}-slot{slot}", "w")  # noqa: SIM115 (held until the process ends)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    handle.close()
                else:
                    _held.append(handle)
                    return place
        time.sleep(POLL_SECONDS)


def count_gpus() -> int:
    """GPUs that a job of this machine may use, without torch: what CUDA_VISIBLE_DEVICES names, else what is there."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return len([name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip() not in ("", "-1")])
    try:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in answer.stdout.splitlines()) if answer.returncode == 0 else 0


def slots() -> int:
    """Jobs that may use the GPUs of this machine at the same time; 0 if there is none or EDROPOUT_DEVICE is `cpu`."""
    return 0 if wanted_device() == "cpu" else count_gpus() * jobs_per_gpu()
