"""The trainer of one cell: build, fit, remove what is zero, evaluate once on the test set, write the result."""

from __future__ import annotations

import copy
import datetime
import hashlib
import importlib.util
import math
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn

from harness import kinds
from harness.config.recipe import Recipe
from harness.data import dataset
from harness.machine import distributed, provenance
from harness.machine.devices import choose_device, make_deterministic, wanted_device
from harness.machine.files import replacing
from harness.measure import metrics
from harness.networks import saved
from harness.networks.build import build
from harness.plan import made_of
from harness.plan.code import digest
from harness.pruning import structured
from harness.runs import measured, result
from harness.runs.supervisor import STOPPED, end_with_parent, error_file, parse
from harness.runs.tracking import Tracker
from harness.training import checkpoint
from harness.training.memory import Interrupted, Run
from harness.training.task import Task


class CellError(ValueError):
    """A cell that cannot start; the message is one sentence."""


def main() -> int:
    arguments = parse()
    # Of several processes none may outlive torchrun, which holds the folder's lock.
    if distributed.launched():
        end_with_parent(signal.SIGKILL)
    folder, cell = arguments.out.parent, arguments.cell
    interval = float(os.environ.get("EDROPOUT_CHECKPOINT_SECONDS", "10"))
    say = _say if distributed.leads() else _quiet
    run = Run(folder=folder, key=cell["config_hash"], say=say, checkpoint_seconds=interval)
    signal.signal(signal.SIGTERM, lambda *_: setattr(run, "stopping", True))
    started, clock = time.time(), time.monotonic()
    say(f"{cell['dataset']}/{cell['model']}/{cell['method']}/seed{cell['seed']} (config {cell['config_hash']})")
    if distributed.leads():
        tracker = Tracker(folder, cell, tables=[name for name in arguments.tables.split(",") if name], say=_say)
        run.on_row = tracker.row

    def write(outcome: dict[str, Any]) -> dict[str, Any]:
        seconds = round(time.monotonic() - clock, 3)
        clocks = {"started": _iso(started), "finished": _iso(time.time()), "seconds": seconds}
        outcome["time"] = {**outcome.get("time", {}), **clocks}
        if distributed.leads():
            result.write(arguments.out, outcome)
        return outcome

    try:
        outcome = write(run_cell(arguments, run))
    except Interrupted:
        say("stopped; the checkpoint is written")
        return STOPPED
    except Exception as error:  # Whatever a method raises: the cell is recorded as failed and the others go on.
        traceback.print_exc()
        outcome = write(result.failure(cell, sentence(error, cell["config"]["recipe"])))
    status = _end_of_one_of_several(outcome, folder) if distributed.launched() else 0
    if not distributed.leads():
        return status
    tracker.finish(outcome)
    if outcome["status"] == "done":
        main = kinds.named(outcome["kind"]).main.name
        _say(f"done: test {main} {outcome['test'][main]:.4f}, kept ratio {outcome['size']['kept_ratio']:.4f}")
    return status


def _end_of_one_of_several(outcome: Mapping[str, Any], folder: Path) -> int:
    """The exit code at which torchrun ends the others too: they would wait for a process that has failed."""
    if outcome["status"] == "done":
        return 0
    distributed.report(outcome["error"], error_file(folder))
    return 1


def run_cell(arguments: Any, run: Run) -> dict[str, Any]:
    """Everything between the command line and the result; of several processes the leader alone has one."""
    cell, folder = arguments.cell, arguments.out.parent
    recipe = Recipe.of(**cell["config"]["recipe"])
    device = choose_device(arguments.device or wanted_device())
    distributed.start(device)
    torch.set_num_threads(recipe.threads)
    make_deterministic(device)
    loaded = dataset.load(
        arguments.data,
        recipe=recipe,
        device=device,
        seed=derived_seed(cell["dataset"], cell["seed"]),
        split=cell["seed"],
        image_size=cell["config"]["data"].get("image_size"),
    )
    distributed.check_batches(loaded.train)
    architecture = {
        "name": cell["model"],
        "num_classes": loaded.num_classes,
        "input_shape": loaded.input_shape,
        "kind": loaded.kind,
    }
    torch.manual_seed(derived_seed(cell["dataset"], cell["model"], cell["seed"]))
    model = build(**architecture).to(device, memory_format=torch.channels_last)
    dense = copy.deepcopy(model)
    inputs = {name: Path(path) for name, _, path in (entry.partition("=") for entry in arguments.input)}
    if "init" in inputs:
        load_dense(model, inputs["init"], name=cell["model"])
        run.epoch = recipe.prune_epoch
    # Before the method is read, as the provenance below: whoever edits it while it trains changes nothing of either.
    recorded = made_of.record(cell, fit=arguments.fit, data=arguments.data, inputs=inputs.values())
    run.key = digest([cell["config_hash"], recorded])
    if arguments.start:
        run.save_start = folder / "start.pending"
    seed = derived_seed(cell["dataset"], cell["model"], cell["method"], cell["seed"])
    torch.manual_seed(seed)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    task = Task(
        train_loader=loaded.train,
        val_loader=loaded.val,
        num_classes=loaded.num_classes,
        input_shape=loaded.input_shape,
        recipe=recipe,
        device=device,
        seed=seed,
        inputs=inputs,
        run=run,
        kind=loaded.kind,
    )
    dense_epochs = run.epoch
    origin = provenance.describe(data_checksum=loaded.checksum, device=device)
    network = load_fit(arguments.fit)(model, task, **cell["config"]["hyperparameters"])
    if not isinstance(network, nn.Module):
        raise CellError(f"fit() in {arguments.fit} must return a torch.nn.Module, not {type(network).__name__}")
    if not distributed.leads():
        return {"status": "done"}
    example = next(iter(loaded.val))[0][:2]
    network = structured.remove(network.eval(), example).to(memory_format=torch.channels_last)
    _say("evaluating once on the test set")
    saved.save(folder, network, **architecture)
    val = metrics.evaluate(network, loaded.val, loaded.kind)
    full_test = None
    if run.full is not None:
        full_val = metrics.evaluate(run.full, loaded.val, loaded.kind)
        full_test = metrics.evaluate(run.full, loaded.test, loaded.kind, val=full_val)
    test = metrics.evaluate(network, loaded.test, loaded.kind, val=val)
    outcome = {
        **result.header(cell),
        "made_of": recorded,
        "kind": loaded.kind.name,
        "test": test,
        "val": val,
        "full_test": full_test,
        "chance": loaded.chance(),
        "size": measured.sizes(network, dense, folder, task),
        "layers": metrics.layer_ratios(network, dense),
        "budget": {
            "dense_epochs": dense_epochs,
            "own_epochs": run.epoch - dense_epochs,
            "total_epochs": run.epoch,
        },
        "extra": dict(run.logged),
        "latency": measured.latency({"model": network, "dense": dense}, loaded.input_shape, loaded.kind),
        "time": measured.training_time(run.history),
        "provenance": origin,
    }
    if recipe.samples:
        torch.manual_seed(derived_seed(seed, "samples"))
        outcome |= measured.uncertain(network, run.sampled, loaded, recipe.samples, test)
    for section in result.EVALUATIONS:
        if outcome.get(section) and not math.isfinite(outcome[section]["loss"]):
            raise CellError(f"the {section} loss is {outcome[section]['loss']}: the method's network is not usable")
    if arguments.start:
        # A copy: after a kill from here on, the next start finds the original.
        with replacing(arguments.start) as temporary:
            shutil.copyfile(run.save_start, temporary)
    return outcome


def load_fit(path: Path) -> Callable[..., nn.Module]:
    """The function `fit` of a method's file, found by its path: being named by a rule is the registration."""
    spec = importlib.util.spec_from_file_location(f"method_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "fit", None)):
        raise CellError(f"{path} has no function fit(model, task, **hyper_parameters)")
    return module.fit


def load_dense(model: nn.Module, path: Path, *, name: str) -> None:
    """Load the dense weights that a pruning method starts from.

    Raises:
        CellError: the dense cell failed, the file is damaged, or it holds another architecture.
    """
    if path.stat().st_size == 0:
        raise CellError(f"the dense network to start from failed: see {path.parent / 'log.txt'}")
    try:
        weights = checkpoint.load_weights(path)
    except checkpoint.DamagedError as error:
        raise CellError(f"{error}: delete it and start again") from error
    expected = model.state_dict()
    if {key: value.shape for key, value in weights.items()} != {key: value.shape for key, value in expected.items()}:
        raise CellError(f"{path} holds the weights of another architecture than {name}: delete it and start again")
    model.load_state_dict(weights)


def derived_seed(*parts: str | int) -> int:
    """A seed of its own for everything that is named differently; methods with equal `parts` share it on purpose."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:6], "big")


def sentence(error: Exception, recipe: Mapping[str, Any]) -> str:
    """One line for the result file; errors that are ours already are sentences."""
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, torch.OutOfMemoryError | metrics.EvaluationMemoryError):
        key = "batch_size" if isinstance(error, torch.OutOfMemoryError) else "eval_batch_size"
        now = recipe.get(key, Recipe.eval_batch_size)
        if now == 1:
            return f"CUDA ran out of memory with a single image: the network needs a larger GPU ({text[:200]})"
        return (
            f"CUDA ran out of memory: set {key} in the dataset's recipe in config.yaml to {now // 2},"
            f" now it is {now} ({text[:200]})"
        )
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _quiet(text: str) -> None:
    """What the leader says, the others need not repeat."""


def _say(text: str) -> None:
    print(f"{datetime.datetime.now():%H:%M:%S} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
