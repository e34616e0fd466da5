"""Two processes that train one cell do what one does: same loss, same population, same bits after a kill."""

import csv
import io
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from harness.machine import distributed
from harness.plan import grid
from harness.plan.code import digest
from harness.runs import result
from harness.sources.prepare import prepare

ROOT = Path(__file__).resolve().parents[3]
CLASSES = ("n01440764", "n01443537", "n01484850")
RECIPE = {
    "epochs": 2,
    "prune_epoch": 1,
    "batch_size": 16,
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "schedule": {"name": "cosine"},
    "augment": {"area": 0.5, "flip": True},
}


def photograph(generator, colour):
    """A JPEG of noise around a colour."""
    pixels = torch.randint(0, 80, (40, 48, 3), generator=generator, dtype=torch.uint8)
    pixels[..., colour] += 120
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """ImageNet's tree with three classes, prepared as files to be read; 53 of its images are to train with."""
    root = tmp_path_factory.mktemp("imagenet")
    generator = torch.Generator().manual_seed(0)
    for part, images in (("train", 20), ("val", 5)):
        for colour, name in enumerate(CLASSES):
            folder = root / "imagenet" / part / name
            folder.mkdir(parents=True)
            for number in range(images):
                (folder / f"{name}_{number}.JPEG").write_bytes(photograph(generator, colour))
    section = {"source": "imagenet", "num_classes": 3, "image_size": 32, "val_fraction": 7 / 60}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.sources.store.DECODED_BYTES", 1000)
        prepare("imagenet", section, root=root, out=root / "imagenet.safetensors")
    return root / "imagenet.safetensors"


def start(folder, data, *, processes, fit="baselines/dense.py", model="test_convnext", hyperparameters=None, **recipe):
    """The supervisor of a cell, as a rule starts it."""
    content = {
        "dataset": "imagenet",
        "model": model,
        "method": Path(fit).stem,
        "seed": 1,
        "protocol": grid.PROTOCOL,
        "config": {
            "data": {"source": "digits"},
            "recipe": {**RECIPE, **recipe, **({"processes": processes} if processes > 1 else {})},
            "hyperparameters": hyperparameters or {},
        },
    }
    cell = json.dumps({**content, "config_hash": digest(content)})
    command = [sys.executable, "-m", "harness.run", str(fit), "--cell", cell, "--data", str(data)]
    environment = {**os.environ, "WANDB_MODE": "disabled", "EDROPOUT_CHECKPOINT_SECONDS": "0.05"}
    return subprocess.Popen(
        [*command, "--out", str(folder / "metrics.json"), "--device", "cpu"], cwd=ROOT, env=environment
    )


def train(folder, data, **options):
    """The result of a cell."""
    assert start(folder, data, **options).wait(timeout=300) == 0
    return result.read(folder / "metrics.json")


def losses(folder):
    """Training and validation loss of each epoch."""
    with open(folder / "history.csv") as history:
        return [float(row[name]) for row in csv.DictReader(history) for name in ("train_loss", "val_loss")]


def test_two_processes_have_the_loss_of_one(imagenet, tmp_path):
    one = train(tmp_path / "one", imagenet, processes=1)
    two = train(tmp_path / "two", imagenet, processes=2)
    alone = losses(tmp_path / "one")
    assert losses(tmp_path / "two") == pytest.approx(alone, abs=1e-5) and alone[0] > alone[2]
    assert two["test"]["loss"] == pytest.approx(one["test"]["loss"], abs=1e-5)


WATCHED = """
import os
import torch
from edropout import method

class Watched(method.EDropout):
    def end_epoch(self):
        state = {"population": self.population, "best": self.best_state, "generator": self.generator.get_state()}
        torch.save(state, f"FOLDER/{os.environ.get('RANK', 'alone')}-{self.epoch}.pt")
        return super().end_epoch()

method.EDropout = Watched
fit = method.fit
"""


def test_the_population_is_the_same_in_both_processes_and_in_one(imagenet, tmp_path):
    (tmp_path / "watched.py").write_text(WATCHED.replace("FOLDER", str(tmp_path)))
    # All batches can be halved, so that each process has half of the examples that an energy is the mean of.
    options = {"fit": tmp_path / "watched.py", "batch_size": 26, "epochs": 3, "prune_epoch": 2}
    train(tmp_path / "one", imagenet, processes=1, **options)
    train(tmp_path / "two", imagenet, processes=2, **options)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    for epoch in range(3):
        first, second, single = (torch.load(tmp_path / f"{name}-{epoch}.pt") for name in ("0", "1", "alone"))
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert all(torch.equal(first[name], single[name]) for name in first)


def trainers_in(folder):
    """Process numbers of the cell's supervisor, torchrun and trainers."""
    numbers = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:
            continue
        if b"harness." in command and str(folder).encode() in command:
            numbers.append(int(entry.parent.name))
    return numbers


def kill(numbers):
    for number in numbers:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_killed_processes_resume_with_the_bits_of_an_undisturbed_run(imagenet, tmp_path):
    options = {"processes": 2, "fit": "baselines/dropout.py", "model": "resnet8", "epochs": 8, "prune_epoch": 4}
    whole = train(tmp_path / "whole", imagenet, **options)
    supervisor = start(tmp_path / "broken", imagenet, **options)
    deadline = time.monotonic() + 120
    while not (tmp_path / "broken" / "checkpoint.safetensors").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kill(trainers_in(tmp_path / "broken"))
    supervisor.wait()
    assert not (tmp_path / "broken" / "metrics.json").exists()
    broken = train(tmp_path / "broken", imagenet, **options)
    assert "resumed at" in (tmp_path / "broken" / "log.txt").read_text()
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert broken["test"] == whole["test"] and losses(tmp_path / "broken") == losses(tmp_path / "whole")


FAULTY = """
import os

def fit(model, task):
    def loss(x, y):
        if os.environ["RANK"] == "1":
            raise ValueError("the second process has a bad day")
        return model(x).square().mean()
    return task.train(model, loss=loss)
"""


def test_what_stops_one_process_is_the_result_of_the_cell(imagenet, tmp_path):
    (tmp_path / "faulty.py").write_text(FAULTY)
    metrics = train(tmp_path / "cell", imagenet, processes=2, fit=tmp_path / "faulty.py")
    assert metrics["status"] == "failed" and metrics["error"] == "the second process has a bad day"
    assert not trainers_in(tmp_path / "cell")


def together(action, tmp_path, monkeypatch):
    """What `action` returns in each of two processes that torchrun might have started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    for name, value in {**address, "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}.items():
        monkeypatch.setenv(name, value)

    def run(rank):
        os.environ["RANK"] = str(rank)
        distributed.start(torch.device("cpu"))
        torch.save(action(rank), tmp_path / f"{rank}.pt")

    processes = [multiprocessing.get_context("fork").Process(target=run, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]


def test_means_are_weighted_by_examples(tmp_path, monkeypatch):
    def action(rank):
        tensors = [torch.tensor(4.0 * rank), torch.tensor([1.0, 2.0 + rank])]
        examples = distributed.average_(tensors, examples=(1, 3)[rank])
        measured = distributed.mean_of({"loss": float(rank), "top1": 0.5, "examples": (3, 1)[rank]})
        return tensors, examples, measured

    for (scalar, vector), examples, measured in together(action, tmp_path, monkeypatch):
        assert scalar == 3 and vector.tolist() == [1, 2.75] and examples == 4
        assert measured == {"loss": 0.25, "top1": 0.5, "examples": 4}


def test_one_process_that_is_told_to_stop_stops_all(tmp_path, monkeypatch):
    answers = together(lambda rank: (distributed.any_of(rank == 1), distributed.any_of(False)), tmp_path, monkeypatch)
    assert answers == [(True, False)] * 2


def test_processes_draw_different_numbers_in_a_batch_and_the_same_after_an_epoch(tmp_path, monkeypatch):
    def action(rank):
        torch.manual_seed(rank)
        distributed.reseed(types.SimpleNamespace(seed=5), 2, 3)
        inside = torch.rand(4)
        distributed.reseed(types.SimpleNamespace(seed=5), 2)
        return inside, torch.rand(4)

    (first, after_first), (second, after_second) = together(action, tmp_path, monkeypatch)
    assert not torch.equal(first, second) and torch.equal(after_first, after_second)


def test_processes_with_different_networks_are_refused(tmp_path, monkeypatch):
    def action(rank):
        torch.manual_seed(0)
        layer = torch.nn.Linear(2, 2)
        distributed.check_alike(layer)
        torch.nn.init.constant_(layer.bias, float(rank))
        try:
            distributed.check_alike(layer)
        except distributed.DistributedError as error:
            return str(error)

    for error in together(action, tmp_path, monkeypatch):
        assert "the method decides by its own part of a batch" in error and "'processes' to 1" in error


@pytest.mark.parametrize(("examples", "batch_size", "fits"), [(53, 16, True), (51, 16, False), (49, 16, True)])
def test_every_process_has_two_examples_of_every_batch(monkeypatch, examples, batch_size, fits):
    monkeypatch.setattr(distributed, "ranks", lambda: 2)
    loader = types.SimpleNamespace(num_examples=examples, batch_size=batch_size)
    if fits:
        distributed.check_batches(loader)
    else:
        with pytest.raises(distributed.DistributedError, match="a batch of 3 examples is too small for 2 processes"):
            distributed.check_batches(loader)
