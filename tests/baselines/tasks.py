"""A task on random images of any shape, for tests of single methods."""

import torch
from loaders import Loader

from harness.config.recipe import Recipe
from harness.training.memory import Run
from harness.training.task import Task


def make_task(folder, *, shape=(1, 8, 8), classes=3, epochs=2, used=0, inputs=(), examples=24):
    recipe = Recipe.of(
        epochs=epochs,
        prune_epoch=max(1, epochs // 2),
        batch_size=8,
        optimizer={"name": "adadelta", "lr": 1.0, "weight_decay": 1e-3},
        schedule={"step_epochs": epochs},
    )
    return Task(
        train_loader=Loader(examples=examples, shape=shape, classes=classes, seed=1),
        val_loader=Loader(examples=examples, shape=shape, classes=classes, seed=2),
        num_classes=classes,
        input_shape=shape,
        recipe=recipe,
        device=torch.device("cpu"),
        seed=3,
        inputs=dict(inputs),
        run=Run(folder=folder, key="0" * 16, epoch=used, say=lambda text: None),
    )
