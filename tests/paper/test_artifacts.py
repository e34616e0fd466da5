"""The rendered files reach W&B as one artifact; a broken W&B leaves them complete."""

import subprocess
import sys
from pathlib import Path

import pytest
import wandb_stand_in

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def rendered(tmp_path):
    for name in ("quick.csv", "quick.pdf", "quick/figures/accuracy.png", "quick/statistics/ranks.csv", "other.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def run(folder):
    out = folder / "quick" / "artifacts.txt"
    arguments = ["--table", "quick", "--folder", str(folder), "--out", str(out)]
    # A process of its own: W&B reads its mode once in a process.
    subprocess.run([sys.executable, "-m", "paper.report.artifacts", *arguments], cwd=ROOT, check=True, timeout=120)
    return out.read_text().splitlines()


def test_the_files_of_the_table_and_no_others_are_logged(rendered):
    lines = run(rendered)
    assert lines[0].startswith("4 files logged")
    assert not [line for line in lines if "other.csv" in line]
    assert len(list(rendered.glob("quick/wandb/offline-run-*/run-*.wandb"))) == 1


def test_what_is_synced_later_reaches_the_server_whole(rendered):
    (rendered / "quick" / "figures" / ".snakemake_timestamp").touch()
    run(rendered)
    (offline,) = rendered.glob("quick/wandb/offline-run-*")
    with wandb_stand_in.serving() as server:
        server.sync(offline)
        (started,) = [run for name, run in server.runs.items() if name in offline.name]
        assert (started.attributes["groupName"], started.attributes["jobType"]) == ("quick", "paper")
        assert sorted(server.artifacts["paper-quick"]) == [
            *("quick.csv", "quick.pdf", "quick/figures/accuracy.png", "quick/statistics/ranks.csv"),
        ]
        assert server.runs["paper-quick"].uploads >= set(server.artifacts["paper-quick"])
        assert server.unknown == []


def test_a_broken_wandb_is_said_and_stops_nothing(rendered, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    lines = run(rendered)
    assert lines[0].startswith("Weights & Biases failed") and len(lines) == 5
