"""The supervisor: every end of a trainer is recorded, and two trainers never share a folder."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.plan import grid
from harness.plan.code import digest
from harness.runs import result, supervisor

ROOT = Path(__file__).resolve().parents[3]
CELL = {
    "dataset": "digits",
    "model": "resnet8",
    "method": "l1",
    "seed": 1,
    "protocol": grid.PROTOCOL,
    "config": {"data": {"source": "digits"}, "recipe": {}, "hyperparameters": {}},
    "config_hash": digest("x"),
}


def start(folder, trainer):
    """A supervisor whose trainer is the given Python code instead of harness.runs.cell."""
    code = (
        "import sys; from harness.runs import supervisor; import subprocess; original = subprocess.Popen\n"
        f"supervisor.subprocess.Popen = lambda command, **o: original([sys.executable, '-c', {trainer!r}], **o)\n"
        "supervisor.PATIENCE_SECONDS = 0.5\nsys.exit(supervisor.main())"
    )
    arguments = ["fit.py", "--cell", json.dumps(CELL), "--data", "d", "--out", str(folder / "metrics.json")]
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def test_a_trainer_killed_from_outside_is_a_failed_cell(tmp_path):
    process = start(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    _, errors = process.communicate(timeout=30)
    metrics = result.read(tmp_path / "metrics.json")
    assert process.returncode == 0 and "SIGKILL (out of memory?)" in metrics["error"] and "SIGKILL" in errors


def test_a_trainer_that_cannot_start_is_a_failed_cell_without_an_earlier_network(tmp_path):
    for name in ("model.safetensors", "model.json"):
        (tmp_path / name).touch()
    start(tmp_path, "raise SystemExit(3)").communicate(timeout=30)
    assert not list(tmp_path.glob("model.*"))
    assert "exit code 3" in result.read(tmp_path / "metrics.json")["error"]


WAITS = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143));"
    "print('up', flush=True); time.sleep(60)"
)


def wait_for_trainer(folder):
    deadline = time.monotonic() + 20
    while not ((folder / "log.txt").exists() and "up" in (folder / "log.txt").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_stopped_trainer_leaves_no_result(tmp_path):
    process = start(tmp_path, WAITS)
    wait_for_trainer(tmp_path)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == supervisor.STOPPED and "the next start resumes it" in errors
    assert not (tmp_path / "metrics.json").exists()


def test_a_second_trainer_is_refused_while_the_first_one_lives(tmp_path):
    first = start(tmp_path, WAITS)
    wait_for_trainer(tmp_path)
    second = start(tmp_path, WAITS)
    _, errors = second.communicate(timeout=30)
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    assert second.returncode == 1 and f"process {children[0]}" in errors
    first.terminate()
    first.communicate(timeout=30)


def test_a_trainer_outlives_its_killed_supervisor_only_with_the_folders_lock(tmp_path):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    process = start(tmp_path, deaf)
    wait_for_trainer(tmp_path)
    process.kill()
    process.communicate(timeout=30)
    trainer = int((tmp_path / ".lock").read_text().split()[0])
    with open(tmp_path / ".lock", "a+") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.kill(trainer, signal.SIGKILL)


def orphan(folder, trainer):
    """A supervisor that has started its trainer and then lost its parent."""
    code = (
        "import sys, subprocess; sys.path.insert(0, 'tests/harness/runs'); import test_run, pathlib, time\n"
        f"test_run.start(pathlib.Path({str(folder)!r}), {trainer!r}); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    wait_for_trainer(folder)
    parent.kill()
    parent.wait()


def test_a_supervisor_whose_parent_dies_stops_its_trainer(tmp_path):
    orphan(tmp_path, WAITS)
    deadline = time.monotonic() + 20
    with open(tmp_path / ".lock", "a+") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
    assert not (tmp_path / "metrics.json").exists()


FINISHES = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); sys.path.insert(0, 'tests/harness/runs');"
    "import test_result; from pathlib import Path; folder = Path({!r});"
    "(folder / 'phase1.safetensors').write_text('trained'); print('up', flush=True); time.sleep({});"
    "test_result.result.write(folder / 'metrics.json', test_result.DONE)"
)


def test_checkpoints_outlive_a_result_that_nobody_waits_for(tmp_path):
    """Snakemake is killed while the trainer evaluates: the next one asks for the result again, and finds it trained."""
    start(tmp_path / "calm", FINISHES.format(str(tmp_path / "calm"), 0)).communicate(timeout=30)
    assert result.read(tmp_path / "calm" / "metrics.json") and not (tmp_path / "calm" / "phase1.safetensors").exists()
    folder = tmp_path / "alone"
    orphan(folder, FINISHES.format(str(folder), 2))
    deadline = time.monotonic() + 20
    while not (folder / "metrics.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    assert (folder / "phase1.safetensors").exists()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    arguments = ["fit.py", "--cell", json.dumps(CELL), "--data", "d", "--out", str(tmp_path / "metrics.json")]
    monkeypatch.setattr(sys, "argv", ["run", *arguments])
    assert supervisor.main() == 1
    assert "the file system has no locks, mount NFS as version 4" in capsys.readouterr().err
