"""What the user has set for other purposes moves no number and stops no run."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from projects import ROOT, copy_of_the_repository, environment, reduced

from harness.runs import result

CELL = "results/digits/resnet8/dense/seed1/metrics.json"


@pytest.fixture
def checkout(tmp_path):
    """A copy of the repository in which nothing has been made, in a folder whose name has a space."""
    project = copy_of_the_repository(tmp_path / "check out")
    project.configure(reduced(project.config, ["dense"]))
    return project


def snakemake(checkout, folder, *arguments, **variables):
    """Exit code and output of a Snakemake that uses the checkout and works in `folder`."""
    command = [sys.executable, "-m", "snakemake", "-s", checkout.folder / "Snakefile", "-d", folder, "--cores", "2"]
    answer = subprocess.run(
        list(map(str, [*command, *arguments])),
        cwd=checkout.folder.parent,
        env={**environment(), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        umask=0o077,
    )
    return answer.returncode, answer.stdout


def test_a_hostile_environment_moves_no_number(checkout, project, tmp_path):
    elsewhere, poison, temporary = (tmp_path / name for name in ("else where", "poison", "t m p"))
    for folder in (elsewhere, poison, temporary):
        folder.mkdir()
    (poison / "torch.py").write_text("raise ImportError('not the torch of the lock')")
    (elsewhere / "harness").mkdir()  # ... of an older checkout
    (elsewhere / "harness" / "__init__.py").touch()
    (elsewhere / "harness" / "run.py").write_text("raise ImportError('not the code of this checkout')")
    hostile = {
        **{"PYTHONPATH": str(poison), "PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2"},
        **{"MPLBACKEND": "module://matplotlib_inline.backend_inline", "OMP_NUM_THREADS": "3"},
        **{"LC_ALL": "tr_TR.ISO-8859-9", "TZ": "Pacific/Kiritimati", "TMPDIR": str(temporary)},
        **{"HOME": "/dev/null", "XDG_CACHE_HOME": str(tmp_path / "cache")},
    }
    code, output = snakemake(checkout, elsewhere, CELL, **hostile)
    assert code == 0, output
    made, expected = (result.read(folder / CELL) for folder in (elsewhere, project.folder))
    assert made["checksum"] == expected["checksum"]
    assert not (checkout.folder / "results").exists() and not (checkout.folder / ".snakemake").exists()


def test_a_folder_with_a_configuration_of_its_own_uses_that(checkout, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "config").mkdir(parents=True)
    (elsewhere / "config" / "config.yaml").write_text(json.dumps(reduced(checkout.config, ["l1"])))
    code, output = snakemake(checkout, elsewhere, "quick", "-n", "--quiet", "progress")
    assert code == 0 and "rule l1:" in output


def test_a_folder_that_cannot_serve_is_a_sentence(checkout, tmp_path):
    (tmp_path / "other" / "baselines").mkdir(parents=True)
    code, output = snakemake(checkout, tmp_path / "other", "-n", "quick")
    other, own = tmp_path / "other" / "baselines", checkout.folder / "baselines"
    assert code == 1 and f"{other} is not {own}: choose another --directory or remove it" in output
    code, output = snakemake(checkout, "/proc", "-n", "quick")
    assert code == 1 and "/proc cannot be written" in output and "choose another --directory" in output
    (checkout.folder / ".snakemake").touch()  # As good as a checkout that nobody may write.
    code, output = snakemake(checkout, checkout.folder, "-n", "quick")
    assert code == 1 and f"{checkout.folder} cannot be written" in output and "name another folder by --dir" in output


@pytest.fixture
def bootstrap():
    """The module envs/run.py."""
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "envs" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bootstrap_leaves_pythons_variables_behind(bootstrap, monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "PIP_USER"):
        monkeypatch.setenv(name, "1")
    variables = bootstrap.tool_environment()
    assert not [name for name in variables if name.startswith("PYTHON")] and variables["PIP_USER"] == "0"


@pytest.mark.parametrize("home", ["/dev/null", "~"])
def test_the_bootstrap_replaces_a_home_that_cannot_be_written(bootstrap, monkeypatch, tmp_path, home):
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", home)
    variables = bootstrap.tool_environment()
    assert variables["XDG_CACHE_HOME"] == str(ROOT / ".tools" / "home" / ".cache")
    assert variables["XDG_DATA_HOME"] == str(ROOT / ".tools" / "home" / ".local" / "share")
    monkeypatch.setenv("HOME", str(tmp_path / "not yet made"))
    assert "XDG_CACHE_HOME" not in bootstrap.tool_environment()
    assert os.environ["PATH"] in variables["PATH"] and not list(Path(tmp_path).iterdir())
