"""Projects for the tests of the workflow: one that is finished, and copies of it to change."""

import shutil

import pytest
from projects import Project, copy_of_the_repository, reduced


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A copy whose table `quick` has been made once with two methods."""
    project = copy_of_the_repository(tmp_path_factory.mktemp("project"))
    project.configure(reduced(project.config, ["dense", "l1"]))
    code, output = project.snakemake()
    assert code == 0, output
    return project


@pytest.fixture
def fresh(project, tmp_path):
    """A copy of the finished project, results included, to change at will."""
    folder = tmp_path / "project"
    shutil.copytree(project.folder, folder, symlinks=True)
    return Project(folder)
