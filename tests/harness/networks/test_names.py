"""Names of architectures: a file that is there is registered, a library's names are known without importing it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.networks import build, names

ROOT = Path(__file__).resolve().parents[3]
NETWORK = "from torch import nn\n{}\ndef build(name, *, num_classes, input_shape):\n    {}\n"
LINEAR = (
    "return nn.Sequential(nn.Flatten(), nn.Linear(4, int(name.split('_')[1])), nn.Linear(int(name[-1]), num_classes))"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "FOLDER", tmp_path / "architectures")
    (tmp_path / "architectures").mkdir()
    return tmp_path / "architectures"


def test_a_file_that_is_there_is_registered_under_every_name_that_it_says(folder):
    (folder / "mine.py").write_text(NETWORK.format("NAMES = ['small', r'mine_\\d']", LINEAR))
    (folder / "shared.py").write_text("VALUE = 1\n")
    assert names.file_of("small") == names.file_of("mine_5") == folder / "mine.py"
    assert all(names.file_of(name) is None for name in ("mine", "mine_x", "mine_55", "shared", "a small", "resnet18"))
    network = build.build("mine_5", num_classes=3, input_shape=(1, 2, 2))
    assert network[1].out_features == 5 and network(torch.zeros(2, 1, 2, 2)).shape == (2, 3)


def test_without_names_a_file_is_called_what_it_is_called_and_wins_over_the_libraries(folder):
    (folder / "alexnet.py").write_text(
        NETWORK.format("", "return nn.Sequential(nn.Flatten(), nn.Linear(4, num_classes))")
    )
    assert names.is_known("alexnet") and len(build.build("alexnet", num_classes=3, input_shape=(1, 2, 2))) == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def build(:\n", r"architectures/mine.py, line 1, is no valid Python"),
        (NETWORK.format("NAMES = 'mine'", "pass"), r"NAMES in architectures/mine.py must be a list"),
        (NETWORK.format("NAMES = ['mine', 3]", "pass"), r"NAMES in architectures/mine.py must be a list"),
        (NETWORK.format("NAMES = ['mine(']", "pass"), r"NAMES in architectures/mine.py must be a list"),
        (NETWORK.format("NAMES = sorted('ab')", "pass"), r"NAMES in architectures/mine.py must be a list"),
        (NETWORK.format("NAMES = ['min.']", "pass"), r"'mine' is built by mine.py and by mine2.py"),
        (
            NETWORK.format("NAMES = ['mine']", "raise ValueError('why')"),
            r"mine cannot be built for .* 1 x 2 x 2 \(why\)",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(folder, text, sentence):
    (folder / "mine.py").write_text(text)
    if "min." in text:
        (folder / "mine2.py").write_text(text)
    with pytest.raises(names.ModelError, match=sentence) as caught:
        build.build("mine", num_classes=3, input_shape=(1, 2, 2))
    assert "\n" not in str(caught.value)


def test_torchvisions_names_are_those_that_it_registers():
    from torchvision import models

    assert names.torchvisions() == set(models.list_models(module=models))


def test_every_architecture_of_ours_is_built_by_its_file():
    for name, path in names.ours():
        assert path.parent == ROOT / "architectures"
        assert not name.isidentifier() or names.file_of(name) == path


def test_names_are_known_without_importing_torch():
    code = (
        "import sys; from harness.networks import names;"
        "assert names.is_known('resnet8') and names.is_known('resnet18');"
        "assert not names.is_known('timm.resnet18') and not {'torch', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
