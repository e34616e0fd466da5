"""What a method says of its hyper-parameters is read from its source, and a value outside is refused before it runs."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from harness.plan.hyperparameters import check_hyperparameters
from harness.plan.validation import ConfigError

ROOT = Path(__file__).resolve().parents[3]
FITS = [*(ROOT / "baselines").glob("*.py"), *(ROOT / "baselines").glob("*/fit.py"), ROOT / "edropout" / "method.py"]
METHOD = '''
"""A method."""

import torch
from elsewhere import Other

Ratio = Annotated[float, "[0, 1)"]


def fit(
    model,
    task,
    *,
    ratio: Ratio | Sequence[Ratio] = 0.5,
    share: Annotated[float, "(0, 1]", "of all"] | None = None,
    count: Annotated[int, "[2, inf)"] = 3,
    order: Literal["early", "late"] = "early",
    exact: bool = True,
    pair: tuple[float, float] = (0.1, 0.2),
    name: str = "x",
    other: Other = 1,
    called: torch.dtype = None,
    untyped=1,
):
    ...
'''


@pytest.fixture
def fit(tmp_path):
    path = tmp_path / "fit.py"
    path.write_text(METHOD)
    return path


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ratio", 1.5, "methods.mine.ratio' is 1.5: it must be less than 1"),
        ("ratio", -0.1, "greater than or equal to 0"),
        ("ratio", [0.5, 1], "methods.mine.ratio.1' is 1: it must be less than 1"),
        ("ratio", "half", "is 'half': it must be a number or it must be a list"),
        ("ratio", True, "it must be a number"),
        ("share", 0, "it must be greater than 0"),
        ("count", 1, "it must be greater than or equal to 2"),
        ("count", 2.0, "it must be an integer"),
        ("count", None, "methods.mine.count' is None: it must be an integer"),
        ("order", "erly", "methods.mine.order' is 'erly': did you mean 'early'"),
        ("exact", 1, "it must be a boolean"),
        ("pair", [0.1], "methods.mine.pair.1' is missing"),
        ("name", 3, "it must be a string"),
        ("share", "1e-3", "YAML reads this as text: write 0.001"),
        ("rate", 0.5, "no hyper-parameter of fit.*did you mean 'ratio'"),
        ("model", 1, "no hyper-parameter of fit"),
    ],
)
def test_a_value_that_fit_does_not_allow_is_named_in_one_sentence(fit, name, value, said):
    with pytest.raises(ConfigError, match=said) as caught:
        check_hyperparameters("mine", {name: value}, fit)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"ratio": 0, "share": None, "count": 10**9, "exact": False, "pair": [0, 1]},
        {"ratio": [0, 0.5], "share": 1},
        {"other": "anything", "called": 3, "untyped": [1]},
    ],
)
def test_other_values_pass_and_types_of_other_modules_are_not_judged(fit, given):
    check_hyperparameters("mine", given, fit)


@pytest.mark.parametrize("note", ["[0; 1)", "[0, one)", "(0, 1", "[1.2.3, 4]"])
def test_what_looks_like_an_interval_and_is_none_is_no_silent_pass(fit, note):
    fit.write_text(METHOD.replace("[0, 1)", note))
    with pytest.raises(ConfigError, match="is no interval such as"):
        check_hyperparameters("mine", {}, fit)


@pytest.mark.parametrize("path", FITS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_default_lies_in_the_range_that_the_method_states(path):
    signature = next(node.args for node in ast.parse(path.read_text()).body if getattr(node, "name", "") == "fit")
    for argument, default in zip(signature.kwonlyargs, signature.kw_defaults, strict=True):
        value = eval(compile(ast.Expression(default), "default", "eval"))
        value = list(value) if isinstance(value, tuple) else value
        check_hyperparameters("method", {argument.arg: value}, path)


def test_the_shipped_hyper_parameters_are_in_their_ranges():
    methods = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())["methods"]
    rules = "".join(path.read_text() for path in sorted((ROOT / "workflow").glob("*/*.smk")))
    fits = dict(re.findall(r'use rule cell as (\w+) with:.*?fit="([^"]+)"', rules, flags=re.DOTALL))
    for method, given in methods.items():
        check_hyperparameters(method, given or {}, ROOT / fits[method.split("-")[0]])
