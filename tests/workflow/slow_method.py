"""A method whose batches take as long as a test wants and can be counted, for tests that stop it half-way."""

METHOD = '''
"""A method for a test: every batch leaves a mark, and takes long while a file `slowly` is there; or the first fails."""

import time
from pathlib import Path

from torch.nn.functional import cross_entropy


def fit(model, task, *, marks="drawn", fails=False):
    def loss(x, y):
        if fails:
            raise ValueError("it fails by design")
        with open(marks, "a") as drawn:
            drawn.write(".")
        if Path("slowly").exists():
            time.sleep(0.3)
        return cross_entropy(model(x), y)

    return task.train(model, loss=loss)
'''
RULE = '''
"""A method for a test."""


use rule cell as slow with:
    input:
        fit="baselines/slow.py",
        data=DATA,
    wildcard_constraints:
        method="slow(-.+)?",
'''
BATCHES = 4
"""In an epoch."""


def add(project, epochs, **methods):
    """Give a project variants of the method, with these hyper-parameters, and have its batches take long."""
    config = project.config
    config["methods"] |= methods
    config["recipes"]["quick"].update(epochs=epochs, prune_epoch=1)
    project.configure(config)
    project.write("baselines/slow.py", METHOD)
    project.write("workflow/baselines/slow.smk", RULE)
    project.write("slowly", "")


def drawn(project, marks="drawn"):
    """How many batches have been drawn."""
    path = project.folder / marks
    return len(path.read_text()) if path.exists() else 0
