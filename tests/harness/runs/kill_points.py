"""Trains a cell, killed by SIGKILL just before its n-th change of a file, and once more to its end, for many n.

    python kill_points.py FOLDER STRIDE FIT --cell ... --data ...

Leaves FOLDER/undisturbed and FOLDER/<n>, one result each, and prints the numbers n.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import torch

from harness.runs import cell
from harness.training import checkpoint

CHANGES = [
    *((os, name) for name in ("replace", "fsync")),
    *((shutil, name) for name in ("copyfile",)),
    *((checkpoint, name) for name in ("save_file",)),
    *((Path, name) for name in ("unlink", "write_text")),
]


def kill_before(number):
    """Let this process die just before its change of that number; a checkpoint is half written then."""
    left = [number]

    def counted(original):
        def change(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                if original is save_file:
                    original(*arguments, **options)
                    os.truncate(arguments[1], os.path.getsize(arguments[1]) // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return change

    save_file = checkpoint.save_file
    for owner, name in CHANGES:
        setattr(owner, name, counted(getattr(owner, name)))


def train(folder, arguments, *, number=0):
    """Train in a child process; returns its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        folder.mkdir(exist_ok=True)
        with open(folder / "log.txt", "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        sys.argv[1:] = [*arguments, "--out", str(folder / "metrics.json")]
        if Path(arguments[0]).stem == "dense":
            sys.argv += ["--start", str(folder / "start.safetensors")]
        kill_before(number)
        os._exit(cell.main())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main():
    folder, stride, arguments = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    torch.set_num_threads(1)
    assert train(folder / "undisturbed", arguments) == 0
    number = 1
    while train(folder / str(number), arguments, number=number) != 0:
        assert train(folder / str(number), arguments) == 0
        print(number, flush=True)
        number += stride


if __name__ == "__main__":
    main()
