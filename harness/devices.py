"""Which device a job uses: the CPU, or a slot on one of the GPUs, taken by a lock that ends with the process."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from pathlib import Path

import torch

_held: list[object] = []
"""Open lock files: closing one, at the end of the process, gives its slot back."""


class DeviceError(ValueError):
    """A device that was asked for and is not there."""


def choose_device(wanted: str) -> torch.device:
    """The device of this job.

    Args:
        wanted: `auto` (a GPU if there is one), `cpu`, `cuda`, or `cuda:N`.

    With several GPUs and no CUDA_VISIBLE_DEVICES, each job takes a free slot of a GPU; EDROPOUT_JOBS_PER_GPU
    (default 1) says how many jobs share one.
    """
    available = torch.cuda.is_available()
    if wanted == "cpu" or (wanted == "auto" and not available):
        return torch.device("cpu")
    if not available:
        raise DeviceError(f"device '{wanted}' was asked for, and PyTorch sees no CUDA GPU: use --device cpu or auto")
    # cuBLAS is deterministic only with a workspace of fixed size.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if wanted.startswith("cuda:"):
        return torch.device(wanted)
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return torch.device("cuda:0")
    return torch.device(
        f"cuda:{_take_slot(torch.cuda.device_count(), int(os.environ.get('EDROPOUT_JOBS_PER_GPU', 1)))}"
    )


def _take_slot(devices: int, jobs_per_device: int) -> int:
    folder = Path(tempfile.gettempdir()) / f"edropout-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    while True:
        for slot in range(jobs_per_device):
            for device in range(devices):
                handle = open(folder / f"gpu{device}-slot{slot}", "w")  # noqa: SIM115 (held until the process ends)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    handle.close()
                else:
                    _held.append(handle)
                    return device
        time.sleep(1.0)
