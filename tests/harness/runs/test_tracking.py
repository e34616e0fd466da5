"""W&B runs continue under one id, and a broken W&B stops nothing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb
import wandb_stand_in

from harness.runs.tracking import Tracker

ROOT = Path(__file__).resolve().parents[3]
PATHS = ":".join(map(str, (ROOT, ROOT / "tests", Path(__file__).parent)))
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


def test_an_offline_run_is_synced_whole(tmp_path):
    assert track(tmp_path) == []
    (offline,) = tmp_path.glob("wandb/offline-run-*")
    with wandb_stand_in.serving() as server:
        server.sync(offline)
    (run,) = server.runs.values()
    given = {key: run.attributes[key] for key in ("name", "displayName", "groupName", "jobType", "project")}
    assert given == {
        "name": CELL["config_hash"],
        "displayName": "digits/resnet8/l1/seed1",
        "groupName": "quick",
        "jobType": "l1",
        "project": "edropout",
    }
    assert {key: run.config[key] for key in CELL} == CELL
    assert [{key: row[key] for key in ROW} for row in run.history.values()] == [ROW]
    assert run.summary["test"] == RESULT["test"] and run.summary["size"] == RESULT["size"]
    assert server.unknown == []


def test_a_resumed_run_continues_and_does_not_duplicate(tmp_path):
    def part(rows, result=None):
        tracker = Tracker(tmp_path, CELL, tables=["quick"], say=print)
        for row in rows:
            tracker.row(row)
        tracker.finish(result or RESULT)
        (new,) = set(tmp_path.glob("wandb/offline-run-*")) - seen
        seen.add(new)
        time.sleep(1.1)  # W&B names its folders by the second.
        return new

    seen = set()
    rows = [{"epoch": epoch, "train_loss": 1 / epoch, "kept_ratio": 0.5, "best_energy": -1.0} for epoch in range(1, 5)]
    # Killed after epoch 3, whose checkpoint was that of epoch 2.
    parts = part(rows[:3]), part(rows[2:])
    with wandb_stand_in.serving() as server:
        server.sync(parts[0])
        server.sync(parts[1])
    (run,) = server.runs.values()
    assert [row["epoch"] for row in run.history.values()] == [1, 2, 3, 4]
    assert {(row["_step"], row["kept_ratio"]) for row in run.history.values()} == {(n, 0.5) for n in range(1, 5)}


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
    environment |= {"WANDB_MODE": "offline", "PYTHONPATH": PATHS}
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
    code = f"import test_tracking, pathlib\nprint(*test_tracking.track(pathlib.Path({str(tmp_path)!r})), sep='\\n')"
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": PATHS,
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


def test_what_a_disabled_run_was_told_is_logged_by_the_next(tmp_path, monkeypatch):
    wandb.teardown()  # of the tests before
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert track(tmp_path) == []
    wandb.teardown()  # as in a process of its own
    monkeypatch.setenv("WANDB_MODE", "")  # as empty as unset
    assert track(tmp_path) == []
    (offline,) = tmp_path.glob("wandb/offline-run-*")
    with wandb_stand_in.serving() as server:
        server.sync(offline)
    (run,) = server.runs.values()
    assert [row["epoch"] for row in run.history.values()] == [1]


def test_long_names_are_cut_and_stay_unlike_others(tmp_path):
    tables = ["t" * 70 + "one", "t" * 70 + "two"]
    said = []
    cell = {**CELL, "method": "m" * 70}
    tracker = Tracker(tmp_path, cell, tables=tables, say=said.append)
    settings = tracker._run.settings
    tags, group, kind = settings.run_tags, settings.run_group, settings.run_job_type
    assert dict(tracker._run.config)["tables"] == tables
    tracker.finish(RESULT)
    assert said == [] and len(set(tags)) == 4 and max(map(len, tags)) <= 64
    assert len(group) <= 128 and len(kind) <= 64 and kind != "m" * 64
