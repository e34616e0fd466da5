"""The status view tells finished, failed, running, stopped and waiting cells apart."""

import fcntl
import json

from harness.status import cell_state, render

HASH = "0" * 16
PROGRESS = {"epoch": 3, "epochs": 20, "loss": 0.25, "val_top1": 0.9, "seconds_left": 90, "pid": 1}


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content))


def test_each_state_is_told(tmp_path):
    assert cell_state(tmp_path, HASH) == {"state": "waiting"}
    write(tmp_path, "progress.json", PROGRESS)
    assert cell_state(tmp_path, HASH)["state"] == "stopped"
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cell_state(tmp_path, HASH)["state"] == "running"
    write(tmp_path, "metrics.json", {"config_hash": HASH, "status": "failed", "error": "why", "test": None})
    assert cell_state(tmp_path, HASH) == {"state": "failed", "error": "why", "top1": None}
    write(tmp_path, "metrics.json", {"config_hash": HASH, "status": "done", "error": None, "test": {"top1": 0.9}})
    assert cell_state(tmp_path, HASH)["top1"] == 0.9


def test_a_result_of_another_configuration_does_not_count(tmp_path):
    write(tmp_path, "metrics.json", {"config_hash": "f" * 16, "status": "done", "test": {"top1": 0.9}})
    assert cell_state(tmp_path, HASH)["state"] == "waiting"


def test_the_view_counts_all_and_lists_what_needs_a_look():
    states = [
        {"state": "done", "cell": "a", "top1": 0.5},
        {"state": "running", "cell": "b", **PROGRESS},
        {"state": "failed", "cell": "c", "error": "the reason"},
    ]
    text = render(states, everything=False)
    assert text.startswith("1 done, 1 running, 1 failed of 3 cells")
    assert "epoch 3/20  loss 0.2500  1.5 min left" in text and "the reason" in text
    assert " a " not in text and "test top1 0.5000" in render(states, everything=True)
