"""The status view tells finished, failed, running, stopped and waiting cells apart; the estimate counts them."""

import fcntl
import json
import sys
import typing

import pytest
import torch

from harness.config.dataset import Dataset
from harness.data import prepared
from harness.plan import current, estimate, grid, made_of
from harness.plan.status import cell_state, render
from harness.sources.prepare import prepare

CONFIG = {
    "datasets": {"digits": {"source": "digits", "recipe": "quick"}},
    "recipes": {"quick": {"epochs": 20}},
    "methods": {"l1": {}, "dense": {}},
}
CELL = grid.cell(CONFIG, dataset="digits", model="resnet8", method="l1", seed=0)


@pytest.fixture(autouse=True)
def own_settings_of_torch():
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(mode)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The cell's folder, as seen from the working folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / grid.folder(CELL)
    folder.mkdir(parents=True)
    return folder


PROGRESS = {"epoch": 3, "epochs": 20, "loss": 0.25, "val_top1": 0.9, "seconds_left": 90, "pid": 1}


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content))


def write_result(folder, cell=CELL, **changes):
    """A result that was made of what is there now, apart from the changes."""
    code, _ = made_of.asked(cell)
    now = {"code": {name: made_of.Present().code(name) for name in code}, "packages": {}, "data": {}, "inputs": {}}
    metrics = {**cell, "made_of": now, "status": "done", "error": None, "test": {"top1": 0.9}, **changes}
    write(folder, "metrics.json", {**metrics, "checksum": made_of.checksum(metrics)})


def state():
    return cell_state(CELL, current.Current(CONFIG))


def test_each_state_is_told(folder):
    assert state()["state"] == "waiting"
    write(folder, "progress.json", PROGRESS)
    assert state()["state"] == "stopped"
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert state()["state"] == "running"
    write_result(folder, status="failed", error="why", test=None)
    assert state() == {"state": "failed", "reason": "why"}
    (folder / "progress.json").unlink()
    write_result(folder, made_of=None)
    assert state()["state"] == "stale" and "does not say what it was made of" in state()["reason"]
    write_result(folder)
    assert state() == {"state": "done", "test": "top1 0.9000"}


@pytest.mark.parametrize("content", [[], "x", 1, None, {}, {"config_hash": CELL["config_hash"]}])
def test_a_damaged_result_is_not_done(folder, content):
    write(folder, "metrics.json", content)
    assert state()["state"] in ("waiting", "stale")


@pytest.mark.parametrize("damaged", [None, "x", [], {"train_seconds": "x", "top1": "x"}])
def test_a_result_without_its_numbers_is_done_and_tells_none(folder, monkeypatch, damaged):
    monkeypatch.setattr(grid, "cells", lambda *_: [CELL])
    write_result(folder, test=damaged, time=damaged)
    assert state()["state"] == "done" and "test top1" not in render([{"cell": "a", **state()}], everything=True)
    assert estimate.relative_costs({"tables": ["quick"]}, current.Current(CONFIG)) == {}


def test_a_method_costs_what_it_costs_in_the_precision_of_the_recipe(monkeypatch):
    def cell(method, precision):
        recipe = {} if precision == "float32" else {"precision": precision}
        return {**CELL, "method": method, "config": {"recipe": recipe, "data": {}}}

    of_float32 = {("dense", "float32"): 10, ("edropout", "float32"): 15, ("l1", "float32"): 20}
    took = {**of_float32, ("dense", "bfloat16"): 4, ("edropout", "bfloat16"): 9}

    class Finished:
        def objection(self, cell):
            return None if estimate._rule_and_precision(cell) in took else "not there"

        def result(self, cell):
            return {"time": {"train_seconds": took[estimate._rule_and_precision(cell)]}}

    class Nothing:
        def objection(self, cell):
            return "not there"

    cells = [cell(*key) for key in took]
    monkeypatch.setattr(grid, "cells", lambda *_: cells)
    costs = estimate.relative_costs({"tables": ["quick"]}, Finished())
    assert costs == {("dense", "float32"): 1, ("dense", "bfloat16"): 1, ("edropout", "float32"): 1.5,
                     ("edropout", "bfloat16"): 2.25, ("l1", "float32"): 2}  # fmt: skip
    monkeypatch.setattr(estimate, "cost_of_dense", lambda *_: (3600.0, 0))
    for asked, hours, marked in [("edropout", 2.25, "-"), ("l1", 2, "l1"), ("thinet", 1, "thinet")]:
        cells[:] = [cell(asked, "bfloat16")]
        fields = estimate.line({}, "quick", Nothing(), costs, {}, 1).split()
        assert float(fields[3]) == hours and fields[-1] == marked


@pytest.mark.parametrize(
    ("batch_size", "side", "fits", "timed"),
    [(256, 224, 8, [8]), (256, 224, 2, [8, 4, 2]), (3, 224, 8, [3]), (256, 32, 256, [256])],
)
def test_few_large_images_are_timed_on_a_cpu_and_fewer_if_memory_is_short(monkeypatch, batch_size, side, fits, timed):
    shapes = []

    def time_step(model, recipe, blank, steps):
        shapes.append(tuple(blank.shape))
        if len(blank) > fits:
            raise torch.OutOfMemoryError
        return 0.5 * len(blank)

    monkeypatch.setattr(estimate, "time_step", time_step)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    recipe = {
        "epochs": 2,
        "prune_epoch": 1,
        "batch_size": batch_size,
        "optimizer": {"name": "sgd", "lr": 1},
        "schedule": {},
    }
    config = {"data": {"source": "digits", "train_examples": 10 * batch_size, "image_size": side}, "recipe": recipe}
    known = {}
    seconds, _ = estimate.cost_of_dense({"model": "resnet8", "config": config}, known, steps=1)
    assert shapes == [(images, 1, side, side) for images in timed]
    assert seconds == 0.5 * batch_size * 10 * 2
    coloured = {**config, "data": {**config["data"], "source": "cifar100", "train_examples": 20 * batch_size}}
    seconds, _ = estimate.cost_of_dense({"model": "resnet8", "config": coloured}, known, steps=1)
    assert len(shapes) == len(timed) and seconds == 0.5 * batch_size * 20 * 2


@pytest.mark.parametrize(("device", "seconds"), [("cpu", 0.5 * 10 + 0.25 * 2000 / 2), ("cuda", 0.25 * 2000 / 2)])
def test_reading_files_slows_a_cpu_and_bounds_a_gpu(monkeypatch, device, seconds):
    monkeypatch.setattr(estimate, "device_of_jobs", lambda: torch.device(device))
    monkeypatch.setattr(estimate, "time_batch", lambda *_: 0.5)
    monkeypatch.setattr(estimate, "time_photo", lambda _: 0.25)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)
    sgd = {"name": "sgd", "lr": 1}
    recipe = {"epochs": 1, "prune_epoch": 1, "batch_size": 200, "threads": 2, "optimizer": sgd, "schedule": {}}
    data = {"source": "flowers", "train_examples": 2000, "image_size": 224}
    cell = {"model": "resnet8", "config": {"data": data, "recipe": recipe}}
    assert estimate.cost_of_dense(cell, {}, steps=1)[0] == seconds
    small = {**cell, "config": {"data": {**data, "image_size": 32}, "recipe": recipe}}
    assert estimate.cost_of_dense(small, {}, steps=1)[0] == 5


def test_what_was_timed_is_kept_for_the_next_plan(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["harness.estimate", "quick"])
    monkeypatch.setattr(estimate, "CALIBRATION", tmp_path / "calibration.json")
    calls = []
    monkeypatch.setattr(estimate, "time_batch", lambda *arguments: calls.append(arguments) or 0.5)
    assert estimate.main() == 0
    first, count = capsys.readouterr().out, len(calls)
    assert count > 0 and "PyTorch" in first.splitlines()[0]
    assert estimate.main() == 0
    assert capsys.readouterr().out == first and len(calls) == count
    (tmp_path / "calibration.json").write_text(
        json.dumps({key: [] for key in estimate.read_json(estimate.CALIBRATION)})
    )
    assert estimate.main() == 0 and len(calls) == 2 * count
    monkeypatch.setenv("EDROPOUT_DEVICE", "cuda:1")
    assert estimate.main() == 1


@pytest.mark.parametrize("content", [[], "x", {"epoch": 1}, {**PROGRESS, "loss": None}])
def test_damaged_progress_is_not_shown(folder, content):
    write(folder, "progress.json", content)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shown = state()
    assert shown == {"state": "running"}
    assert render([{"cell": "a", **shown}], everything=False).endswith("running  a")


def test_the_view_counts_all_and_lists_what_needs_a_look():
    states = [
        {"state": "done", "cell": "a", "test": "top1 0.5000"},
        {"state": "running", "cell": "b", **PROGRESS},
        {"state": "failed", "cell": "c", "reason": "the reason"},
        {"state": "stale", "cell": "d", "reason": "made of something else"},
        {"state": "waiting", "cell": "waits", "reason": "its result is missing"},
    ]
    text = render(states, everything=False)
    assert text.startswith("1 done, 1 running, 1 failed, 1 stale, 1 waiting of 5 cells")
    assert "epoch 3/20  loss 0.2500  1.5 min left" in text and "the reason" in text and "something else" in text
    assert " a " not in text and "waits" not in text and "test top1 0.5000" in render(states, everything=True)


@pytest.mark.parametrize("source", ["digits", "diabetes", "grammar"])
def test_what_the_estimate_takes_for_granted_is_what_the_source_holds(tmp_path, source):
    prepare(source, {"source": source}, root=tmp_path, out=tmp_path / "data")
    stored = prepared.read(tmp_path / "data")
    match stored.description.kind:
        case "classification":
            found = len(stored.tensors["train_y"]), stored.description.shape, len(stored.description.class_names)
        case "regression":
            found = int((stored.tensors["parts"][0] == 0).sum()), stored.description.shape, 1
        case "language":
            found = len(stored.tensors["train_tokens"]), (), len(stored.description.class_names)
    assert estimate.TRAINING_EXAMPLES[source] == found


def test_a_plan_knows_how_large_each_source_is():
    assert set(estimate.TRAINING_EXAMPLES) == set(typing.get_args(typing.get_type_hints(Dataset)["source"]))


def test_sentences_are_timed_as_words():
    data = {"source": "polarity", "vocabulary": 50}
    recipe = {"epochs": 2, "prune_epoch": 1, "batch_size": 8}
    recipe |= {"optimizer": {"name": "sgd", "lr": 0.1}, "schedule": {"name": "cosine"}}
    cell = {"model": "bag_50_8_8", "config": {"data": data, "recipe": recipe}}
    seconds, weight_bytes = estimate.cost_of_dense(cell, {}, steps=1)
    assert seconds > 0 and weight_bytes > 50 * 8 * 4
