"""One Snakemake at a time in a folder; told to stop, it stops at once, and the next one goes on where it was."""

import re
import signal
import time

import slow_method
from slow_method import BATCHES, drawn

from harness.runs import result

EPOCHS = 60
METHODS = ("slow-a", "slow-b")


def wait_until(ready, run):
    deadline = time.monotonic() + 300
    while not ready():
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.1)


def test_a_run_is_alone_in_its_folder_and_stops_and_goes_on_where_it_was(fresh):
    """SIGINT reaches Snakemake's own process alone, as from `kill -INT`, and not its jobs, as from a terminal."""
    slow_method.add(fresh, EPOCHS, **{method: {"marks": method} for method in METHODS})
    folders = [fresh.folder / "results" / "digits" / "resnet8" / method / "seed1" for method in METHODS]
    cells = [str((folder / "metrics.json").relative_to(fresh.folder)) for folder in folders]
    first = fresh.start(*cells, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    wait_until(lambda: min(drawn(fresh, method) for method in METHODS) > BATCHES, first)

    code, output = fresh.snakemake(*cells)
    assert code != 0 and ("cannot be locked" in output or "another Snakemake" in output)
    assert fresh.snakemake("-n", *cells)[0] == 0
    assert first.poll() is None

    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=60)
    assert first.returncode != 0, output
    before = [drawn(fresh, method) for method in METHODS]
    assert all(BATCHES < count < EPOCHS * BATCHES for count in before)
    logs = [(folder / "log.txt").read_text() for folder in folders]
    assert all((folder / "checkpoint.safetensors").exists() for folder in folders)
    assert not any((fresh.folder / cell).exists() for cell in cells)

    (fresh.folder / "slowly").unlink()
    second = fresh.start(*cells, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    wait_until(lambda: drawn(fresh, METHODS[0]) > before[0], second)
    second.send_signal(signal.SIGINT)  # What a shell runs in its background does not hear it.
    output, _ = second.communicate(timeout=600)
    assert second.returncode == 0, output
    for method, folder, count, log in zip(METHODS, folders, before, logs, strict=True):
        assert drawn(fresh, method) == EPOCHS * BATCHES  # None is drawn twice.
        whole = (folder / "log.txt").read_text()
        assert whole.startswith(log)
        epoch, batch = map(int, re.search(r"resumed at epoch (\d+), batch (\d+)", whole[len(log) :]).groups())
        assert BATCHES * (epoch - 1) + batch - 1 == count
    assert {result.read(folder / "metrics.json")["status"] for folder in folders} == {"done"}
