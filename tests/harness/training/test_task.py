"""The loop: one budget for all, the recipe's learning rates, and the same bits after an interruption."""

import csv
import math
import random
import shutil
from dataclasses import replace

import numpy
import pytest
import torch
from loaders import Loader
from torch import nn

from harness.config.recipe import SGD, Recipe, Schedule
from harness.training import checkpoint, phase
from harness.training.loop import TrainingError
from harness.training.memory import Interrupted, Run
from harness.training.task import BudgetError, Task

RECIPE = Recipe.of(
    epochs=6,
    prune_epoch=3,
    batch_size=8,
    optimizer={"name": "adadelta", "lr": 1.0},
    schedule={"step_epochs": 2, "gamma": 0.1},
)


def network(seed=0):
    torch.manual_seed(seed)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(144, 2)
    return nn.Sequential(*layers)


def make_task(folder, recipe=RECIPE, **options):
    folder.mkdir(exist_ok=True)
    run = Run(folder=folder, key="0" * 16, **options)
    return Task(
        train_loader=Loader(seed=1),
        val_loader=Loader(seed=2),
        num_classes=2,
        input_shape=(1, 8, 8),
        recipe=recipe,
        device=torch.device("cpu"),
        seed=7,
        inputs={},
        run=run,
    )


def bits(model):
    return [tensor.clone() for tensor in model.state_dict().values()]


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def rows(folder):
    with open(folder / "history.csv") as handle:
        kept = [name for name in next(csv.reader(handle)) if not name.endswith("seconds")]
        handle.seek(0)
        return [{name: row[name] for name in kept} for row in csv.DictReader(handle)]


def test_learning_rate_follows_the_position_in_the_whole_budget(tmp_path):
    task = make_task(tmp_path)
    model = network()
    task.train(model, epochs=3)
    task.train(model)
    assert [float(row["lr"]) for row in rows(tmp_path)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert [row["phase"] for row in rows(tmp_path)] == list("111222")
    assert task.epochs_left == 0


def test_cosine_schedule_starts_at_the_base_rate_and_halves_it_at_the_middle():
    recipe = replace(RECIPE, schedule=Schedule("cosine"))
    assert recipe.learning_rate(0) == 1.0 and recipe.learning_rate(3) == pytest.approx(0.5)


def test_more_epochs_than_the_budget_are_refused(tmp_path):
    task = make_task(tmp_path)
    with pytest.raises(BudgetError, match="asks for 7 epochs and 6"):
        task.train(network(), epochs=7)


def test_training_lowers_the_loss(tmp_path):
    make_task(tmp_path).train(network())
    losses = [float(row["val_loss"]) for row in rows(tmp_path)]
    assert losses[-1] < 0.7 * losses[0]


class StopAfter:
    """Asks the run to stop at its n-th batch, as a signal would."""

    def __init__(self, task, model, batch):
        self.task, self.model, self.left = task, model, batch

    def __call__(self, x, y):
        self.left -= 1
        self.task.run.stopping = self.left <= 0
        return nn.functional.cross_entropy(self.model(x), y)


@pytest.mark.parametrize("stop", [1, 4, 5, 13, 16, 24, 29])
def test_an_interrupted_run_ends_with_the_same_bits_and_history(tmp_path, stop):
    def fit(task, model, loss=None):
        task.train(model, epochs=3, loss=loss)
        with torch.no_grad():
            model[0].weight[0] = 0  # what a pruning method does between two phases
        return task.train(model, loss=loss)

    whole = network()
    torch.manual_seed(5)
    fit(make_task(tmp_path / "whole"), whole)

    broken = network()
    torch.manual_seed(5)
    task = make_task(tmp_path / "broken")
    with pytest.raises(Interrupted):
        fit(task, broken, StopAfter(task, broken, stop))
    resumed = network()
    torch.manual_seed(5)
    again = make_task(tmp_path / "broken")
    fit(again, resumed)
    assert again.train_loader.drawn == RECIPE.epochs * len(again.train_loader) - stop
    assert same(bits(whole), bits(resumed))
    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")


def test_a_finished_phase_is_not_trained_again(tmp_path):
    first = make_task(tmp_path)
    model = first.train(network(), epochs=3)
    again = make_task(tmp_path)
    restored = again.train(network(1), epochs=3)
    assert again.train_loader.drawn == 0 and again.run.epoch == 3 and same(bits(model), bits(restored))
    assert again.run.history == first.run.history


def test_a_checkpoint_of_every_batch_changes_nothing(tmp_path):
    first, second = network(), network()
    torch.manual_seed(1)
    make_task(tmp_path / "a").train(first)
    torch.manual_seed(1)
    make_task(tmp_path / "b", checkpoint_seconds=0.0).train(second)
    assert same(bits(first), bits(second))


def test_a_loss_that_is_not_finite_names_epoch_and_batch(tmp_path):
    model = network()

    def loss(x, y):
        return model(x).mean() * (math.nan if model[1].num_batches_tracked > 6 else 1.0)

    with pytest.raises(TrainingError, match="nan at epoch 2, batch 2"):
        make_task(tmp_path).train(model, loss=loss)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_network_learns_the_same_weights_and_resumes_with_its_own_bits(tmp_path):
    def fit(task):
        torch.manual_seed(0)
        return task.train(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2)))

    recipe = replace(RECIPE, epochs=3, optimizer=SGD("sgd", lr=0.1), compile=True)
    whole, stopped = make_task(tmp_path / "whole", recipe), make_task(tmp_path / "stopped", recipe)
    compiled = fit(whole)
    stopped.run.on_row = lambda row: setattr(stopped.run, "stopping", True)
    with pytest.raises(Interrupted):
        fit(stopped)
    assert same(bits(fit(make_task(tmp_path / "stopped", recipe))), bits(compiled))
    plain = fit(make_task(tmp_path / "plain", replace(recipe, compile=False)))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_the_start_of_the_pruning_methods_is_the_network_at_prune_epoch(tmp_path):
    from safetensors.torch import load_file

    torch.manual_seed(1)
    make_task(tmp_path / "a", save_start=tmp_path / "start").train(network())
    torch.manual_seed(1)
    half = make_task(tmp_path / "b").train(network(), epochs=3)
    start = load_file(tmp_path / "start")
    assert all(torch.equal(start[name], value) for name, value in half.state_dict().items())


def test_generators_are_reproducible_and_differ_by_purpose(tmp_path):
    task = make_task(tmp_path)
    draw = [torch.rand(3, generator=task.generator(purpose)) for purpose in ("a", "a", "b")]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])


def test_a_task_holds_no_test_data(tmp_path):
    assert not [name for name in vars(make_task(tmp_path)) if "test" in name]


def test_every_global_generator_goes_on_from_a_checkpoint(tmp_path):
    def draw():
        return random.random(), numpy.random.rand(), torch.rand(1).item()

    checkpoint.save(tmp_path / "c", phase._random_state(torch.device("cpu")), key="k")
    expected = draw()
    assert draw() != expected
    phase._restore_random_state(checkpoint.load(tmp_path / "c", key="k"), torch.device("cpu"))
    assert draw() == expected
