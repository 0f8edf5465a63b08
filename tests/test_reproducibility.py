"""What is recorded of the machine and of the source."""

import importlib.util
import shutil
import subprocess

import pytest

from bixt3d import reproducibility


@pytest.fixture
def vendored(tmp_path):
    """The module, lying in a repository of somebody else, and git there."""
    if shutil.which("git") is None:
        pytest.skip("no git")

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", *who, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    (tmp_path / "lib").mkdir()
    (tmp_path / ".gitignore").write_text("lib/\n")
    path = tmp_path / "lib" / "reproducibility.py"
    shutil.copy(reproducibility.__file__, path)
    git("init", "-q")
    git("add", ".gitignore")
    git("commit", "-q", "-m", "theirs")
    spec = importlib.util.spec_from_file_location("vendored", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, git


def test_the_commit_of_a_repository_that_the_package_only_lies_in_is_none_of_its_own(vendored):
    module, git = vendored
    assert module.git_commit() is None
    git("add", "-f", "lib")
    git("commit", "-q", "-m", "now it is part of it")
    assert module.git_commit() == git("rev-parse", "HEAD")


def test_the_job_of_the_scheduler_is_noted(monkeypatch):
    for name in reproducibility.JOBS:
        monkeypatch.delenv(name, raising=False)
    assert reproducibility.environment()["job"] is None
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert reproducibility.environment()["job"] == "4711"
