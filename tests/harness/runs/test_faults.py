"""A full disk and a folder that cannot be written end a cell with a sentence and leave nothing half-written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_run import CELL

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system in memory; yields a function (size, options) -> its folder."""
    mounted = []

    def mount(options):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting a small file system needs root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def supervise(folder, trainer):
    code = (
        "import sys, subprocess; from harness.runs import supervisor as run; original = subprocess.Popen\n"
        f"run.subprocess.Popen = lambda command, **o: original([sys.executable, '-c', {trainer!r}], **o)\n"
        "sys.exit(run.main())"
    )
    arguments = ["fit.py", "--cell", json.dumps(CELL), "--data", "d", "--out", str(folder / "cell" / "metrics.json")]
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_read_only_results_folder_is_named_in_one_sentence(small_disk):
    answer = supervise(small_disk("size=1m,ro"), "pass")
    assert answer.returncode == 1 and "cannot be written: Read-only file system" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_full_disk_is_named_in_one_sentence_and_leaves_no_result(small_disk):
    disk = small_disk("size=64k")
    fill = (
        f"import sys\ntry:\n    open({str(disk / 'big')!r}, 'wb').write(bytes(10**6))\nexcept OSError:\n    sys.exit(1)"
    )
    answer = supervise(disk, fill)
    assert answer.returncode == 1 and "No space left on device" in answer.stderr
    assert not [path.name for path in (disk / "cell").iterdir() if "metrics" in path.name]


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_it_intact(small_disk):
    import torch

    from harness.training import checkpoint

    disk = small_disk("size=256k")
    checkpoint.save(disk / "c", {"epoch": 1, "w": torch.ones(1000)}, key="0" * 16)
    with pytest.raises(Exception, match=r"No space left|os error 28"):
        checkpoint.save(disk / "c", {"epoch": 2, "w": torch.ones(100_000)}, key="0" * 16)
    assert checkpoint.load_newest(disk / "c", key="0" * 16, warn=print)["epoch"] == 1
    assert [path.name for path in disk.iterdir()] == ["c"]


@pytest.mark.parametrize("moment", ["between the renames", "before the renames"])
def test_a_kill_while_a_checkpoint_is_written_leaves_a_usable_one(tmp_path, moment):
    import torch

    from harness.training import checkpoint

    calls = 1 if moment == "between the renames" else 0
    checkpoint.save(tmp_path / "c", {"epoch": 1, "w": torch.ones(10)}, key="0" * 16)
    code = (
        "import os, torch\nfrom harness.training import checkpoint\nreal, left = os.replace, [CALLS]\n"
        "def replace(*paths):\n    if not left[0]:\n        os.kill(os.getpid(), 9)\n"
        "    left[0] -= 1\n    real(*paths)\n"
        "os.replace = replace\n"
        "checkpoint.save(PATH, {'epoch': 2, 'w': torch.ones(10)}, key='0' * 16)"
    )
    code = code.replace("CALLS", str(calls)).replace("PATH", repr(str(tmp_path / "c")))
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == -9
    assert checkpoint.load_newest(tmp_path / "c", key="0" * 16, warn=print)["epoch"] == 1
