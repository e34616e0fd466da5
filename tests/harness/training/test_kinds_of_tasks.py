"""Texts resume with the same bits at any batch, gradients are clipped, and each kind makes a whole cell."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from harness import kinds
from harness.config.recipe import Recipe
from harness.data.texts import Text
from harness.kinds.language import RecurrentState
from harness.measure.metrics import evaluate
from harness.networks import saved
from harness.networks.build import build
from harness.plan import grid
from harness.runs import cell
from harness.sources.prepare import prepare
from harness.training.memory import Interrupted, Run
from harness.training.task import Task

ROOT = Path(__file__).resolve().parents[3]
LANGUAGE = kinds.named("language")
RECIPE = Recipe.of(
    epochs=2,
    prune_epoch=1,
    batch_size=3,
    unroll=5,
    clip=0.5,
    optimizer={"name": "sgd", "lr": 1.0},
    schedule={},
)
TOKENS = torch.randint(11, (80,), generator=torch.Generator().manual_seed(0))


class Stopping(Text):
    """Has its run stop, as a signal would, when it has handed out so many batches."""

    def epoch(self, index, start=0):
        for batch in super().epoch(index, start):
            self.left[0] -= 1
            self.run.stopping |= self.left[0] == 0
            yield batch


def make_task(folder, stop=None, recipe=RECIPE):
    folder.mkdir(exist_ok=True)
    run = Run(folder=folder, key="0" * 16, say=lambda text: None)
    train = Text(TOKENS, 0, 3, 5)
    if stop is not None:
        train = Stopping(TOKENS, 0, 3, 5)
        object.__setattr__(train, "left", [stop])
        object.__setattr__(train, "run", run)
    return Task(
        train_loader=train,
        val_loader=Text(TOKENS[:20], 0, 1, 9),
        num_classes=11,
        input_shape=(5,),
        recipe=recipe,
        device=torch.device("cpu"),
        seed=7,
        inputs={},
        run=run,
        kind=LANGUAGE,
    )


def network():
    torch.manual_seed(0)
    model = build("lstm_6x2", num_classes=11, input_shape=(5,), kind=LANGUAGE)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.2
    return model


def bits(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("stop", [1, 4, 5, 6, 11])
def test_a_text_that_stopped_goes_on_with_the_same_bits(tmp_path, stop):
    whole = bits(make_task(tmp_path / "whole").train(network()))
    with pytest.raises(Interrupted):
        make_task(tmp_path / "parts", stop).train(network())
    assert torch.equal(bits(make_task(tmp_path / "parts").train(network())), whole)


def test_the_state_is_what_makes_it_so(tmp_path, monkeypatch):
    whole = bits(make_task(tmp_path / "whole").train(network()))
    with pytest.raises(Interrupted):
        make_task(tmp_path / "parts", 4).train(network())
    monkeypatch.setattr(RecurrentState, "load_state_dict", lambda self, state: None)
    assert not torch.equal(bits(make_task(tmp_path / "parts").train(network())), whole)


def test_every_epoch_and_every_evaluation_starts_its_text_anew(tmp_path):
    model, task = network().eval(), make_task(tmp_path)
    for module in model.modules():
        module.train = lambda mode=True: None  # Nothing is drawn and nothing moves: both epochs are alike.
    task.train(model, step=lambda optimizer: None)
    first, second = task.run.history
    assert first["train_loss"] == second["train_loss"] and first["val_loss"] == second["val_loss"]
    assert first["val_loss"] == evaluate(model, task.val_loader, LANGUAGE)["loss"]


def test_history_and_progress_name_the_kinds_metric(tmp_path):
    task = make_task(tmp_path)
    task.train(network())
    assert {"val_loss", "val_perplexity"} <= task.run.history[0].keys() and "val_top1" not in task.run.history[0]
    assert "val_perplexity" in json.loads((tmp_path / "progress.json").read_text())


def test_the_gradient_is_cut_to_its_norm_before_the_step(tmp_path):
    norms = []

    def step(optimizer):
        gradients = [parameter.grad for parameter in model.parameters()]
        norms.append(nn.utils.get_total_norm(gradients).item())
        optimizer.step()

    model = network()
    make_task(tmp_path, recipe=replace(RECIPE, clip=1e-3)).train(model, step=step)
    assert norms == pytest.approx([1e-3] * len(norms), rel=1e-2)


CELLS = {
    "language": ({"source": "grammar", "train_examples": 600, "val_examples": 60, "test_examples": 90}, "lstm_8x1"),
    "regression": ({"source": "diabetes"}, "mlp_8_4"),
}


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("language", "baselines/dense.py"),
        ("language", "baselines/dropout.py"),
        ("regression", "baselines/dropout.py"),
        ("regression", "edropout/method.py"),
    ],
)
def test_a_whole_cell_from_its_data_to_its_result(tmp_path, name, method):
    data, model = CELLS[name]
    recipe = {"epochs": 4, "prune_epoch": 2, "batch_size": 10, "optimizer": {"name": "adam", "lr": 0.01}}
    config = {
        "datasets": {"d": {**data, "recipe": "r"}},
        "recipes": {"r": {**recipe, "schedule": {}, "unroll": 6}},
        "methods": {"m": {}},
    }
    planned = grid.cell(config, dataset="d", model=model, method="m", seed=1)
    prepare("d", config["datasets"]["d"], root=tmp_path, out=tmp_path / "data")
    arguments = SimpleNamespace(
        fit=ROOT / method,
        cell=planned,
        data=tmp_path / "data",
        out=tmp_path / "metrics.json",
        input=[],
        start=None,
        code="",
        device="cpu",
    )
    outcome = cell.run_cell(arguments, Run(folder=tmp_path, key="0" * 16, say=lambda text: None))
    kind = kinds.named(name)
    assert outcome["kind"] == name and outcome["test"].keys() >= {metric.name for metric in kind.metrics}
    cell.result.write(arguments.out, outcome)  # Valid under the schema and the kind.
    assert outcome["test"][kind.main.name] < 1.2 * outcome["chance"]
    assert outcome["size"]["macs"] > 0 and outcome["test"]["examples"] == {"language": 90, "regression": 88}[name]
    if name == "regression":
        assert outcome["test"]["noise_std"] == outcome["val"]["rmse"]
    network = saved.load(tmp_path)
    assert isinstance(network, nn.Module) and not any(module._forward_hooks for module in network.modules())
