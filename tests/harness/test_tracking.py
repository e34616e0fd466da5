"""W&B runs continue under one id, and a broken W&B stops nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tracking import Tracker

ROOT = Path(__file__).resolve().parents[2]
CELL = {
    "dataset": "digits",
    "model": "resnet8",
    "method": "l1",
    "seed": 1,
    "config_hash": "0123456789abcdef",
    "config": {"recipe": {"epochs": 2}},
}
ROW = {"epoch": 1, "train_loss": 0.5}
RESULT = {"status": "done", "test": {"top1": 0.9}, "full_test": None, "size": {"kept_ratio": 0.5}, "extra": {}}


def track(folder):
    said = []
    tracker = Tracker(folder, CELL, tables=["quick"], say=said.append)
    tracker.row(ROW)
    tracker.finish(RESULT)
    return said


def test_an_offline_run_is_written_under_the_hash_and_again_under_the_same_after_a_resume(tmp_path):
    assert track(tmp_path) == []
    assert track(tmp_path) == []
    runs = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert runs and {run.name for run in runs} == {"run-0123456789abcdef.wandb"}
    listing = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--dry-run", *{str(run.parent) for run in runs}],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "0123456789abcdef" in listing.stdout + listing.stderr


def test_a_service_of_the_caller_has_no_say_in_where_the_run_is_written(tmp_path):
    """A caller that uses W&B itself leaves WANDB_SERVICE to its children; that service runs elsewhere."""
    child = "import pathlib, test_tracking; print(test_tracking.track(pathlib.Path()))"
    caller = (
        "import os, subprocess, sys, wandb\n"
        "wandb.setup()\n"
        "assert 'WANDB_SERVICE' in os.environ\n"
        f"subprocess.run([sys.executable, '-c', {child!r}], cwd='child', check=True)"
    )
    (tmp_path / "child").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    environment |= {"WANDB_MODE": "offline", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'harness'}"}
    done = subprocess.run(
        [sys.executable, "-c", caller], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.glob("child/wandb/offline-run-*/run-*.wandb"))


def test_an_unwritable_folder_is_said_once_and_stops_nothing(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    said = track(blocked)
    assert len(said) <= 1


@pytest.mark.parametrize("variables", [{"WANDB_API_KEY": "x" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}, {}])
def test_online_without_network_or_key_goes_on_without_tracking(tmp_path, variables):
    code = (
        "import sys; sys.path.insert(0, 'tests/harness'); import test_tracking, pathlib\n"
        f"print(*test_tracking.track(pathlib.Path({str(tmp_path)!r})), sep='\\n')"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "WANDB_MODE": "online",
        "WANDB_INIT_TIMEOUT": "2",
        **variables,
    }
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert "going on without it" in answer.stdout
    assert "x" * 40 not in answer.stdout + answer.stderr
