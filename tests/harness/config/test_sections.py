"""Sections of config.yaml: one description that needs no library, and the schema and page that are made from it."""

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from harness.config import recipe, whole
from harness.config.dataset import Dataset

ROOT = Path(__file__).resolve().parents[3]
SECTIONS = [whole.Configuration, whole.Data, whole.Table, Dataset, recipe.Recipe, recipe.Schedule, recipe.Augmentation]
SECTIONS += recipe.OPTIMIZERS.values()


@pytest.fixture
def keys(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import keys

    return keys


def test_the_schema_and_the_tables_of_the_page_are_current(keys):
    assert keys.SCHEMA.read_text(encoding="utf-8") == keys.schema(), "run `python docs/keys.py`"
    text = keys.PAGE.read_text(encoding="utf-8")
    assert text == keys.page(text), "run `python docs/keys.py`"


def test_every_section_has_a_table_on_the_page(keys):
    text = keys.PAGE.read_text(encoding="utf-8")
    for section in SECTIONS:
        assert f"<!-- keys of {section.__name__} -->" in text
        assert all(f"| `{field.name}` |" in keys.table(section.__name__) for field in fields(section))


def test_the_sections_need_no_library():
    code = "import sys; before = set(sys.modules); import harness.config.whole; print(*set(sys.modules) - before)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in answer.stdout.split()} <= sys.stdlib_module_names | {"harness"}


@pytest.mark.parametrize("name", recipe.OPTIMIZERS)
def test_the_defaults_of_an_optimiser_are_torchs(name):
    section = recipe.OPTIMIZERS[name]
    theirs = inspect.signature(getattr(torch.optim, section.__name__)).parameters
    for field in fields(section):
        if field.name not in ("name", "lr"):
            assert field.default == theirs[field.name].default, field.name


def test_a_recipe_makes_the_optimiser_that_its_section_names():
    optimizer = {"name": "adamw", "lr": 0.5, "betas": [0.1, 0.2]}
    made = recipe.Recipe.of(epochs=2, prune_epoch=1, batch_size=3, optimizer=optimizer, schedule={})
    parameters = [torch.nn.Parameter(torch.ones(1))]
    defaults = made.make_optimizer(parameters).defaults
    assert (defaults["lr"], defaults["betas"], defaults["weight_decay"]) == (0.5, (0.1, 0.2), 0.01)
    assert isinstance(made.make_optimizer(parameters), torch.optim.AdamW)
