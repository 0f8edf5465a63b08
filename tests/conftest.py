"""What the tests of training share: the tiny config, one finished run of it, and the command line."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import PATIENCE, ROOT


@pytest.fixture(scope="session")
def compose():
    """Compose a config as the command line does: the path of a YAML file, then overrides."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    def composed(path, *overrides):
        search = f"hydra.searchpath=[file://{ROOT / 'cfgs'}]"
        with initialize_config_dir(config_dir=str(Path(path).parent.resolve()), version_base="1.3"):
            node = compose(Path(path).stem, overrides=[search, *overrides])
        return OmegaConf.to_container(node, resolve=True)

    return composed


@pytest.fixture(scope="session")
def tiny(compose):
    """Compose tests/tiny.yaml with overrides."""
    return lambda *overrides: compose(ROOT / "tests" / "tiny.yaml", *overrides)


@pytest.fixture(scope="session")
def one_thread():
    """Sum in the same order as a subprocess with OMP_NUM_THREADS=1."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_run(tiny, one_thread, tmp_path_factory):
    """The folder of an uninterrupted run of tests/tiny.yaml."""
    from bixt3d.training.experiment import train

    return train(tiny(f"run_dir={tmp_path_factory.mktemp('runs') / 'tiny'}"))


@pytest.fixture(scope="session")
def start():
    """Start a script of the repository as a user would; returns the Popen object."""

    def started(script, *arguments, cwd=None, python_options=()):
        environment = {
            k: v for k, v in os.environ.items() if k not in ("HYDRA_FULL_ERROR", "BIXT3D_TRACEBACK")
        }
        environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, *python_options, str(ROOT / "scripts" / script), *map(str, arguments)],
            cwd=cwd or ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return started


@pytest.fixture(scope="session")
def call(start):
    """Run a script of the repository to its end; returns exit status, stdout and stderr."""

    def called(*arguments, **options):
        process = start(*arguments, **options)
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        return process.returncode, out, err

    return called


@pytest.fixture(scope="session")
def same_run():
    """Assert that two run folders hold the same run, to the last bit; only clock times may differ."""

    def compare(left, right):
        for name in ("last.pt", "best.pt"):
            a, b = (torch.load(folder / name, weights_only=True) for folder in (left, right))
            for content in (a, b):
                del content["config"]  # names the folder
                del content["progress"]["seconds"]
            _assert_identical(a, b, name)
        for name in ("train.csv", "selection.csv"):
            assert _rows(left / name) == _rows(right / name), name

    return compare


def _rows(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows, f"{path} is empty"
    return [{k: v for k, v in row.items() if k not in ("samples_per_second", "minutes")} for row in rows]


def _assert_identical(a, b, where):
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            _assert_identical(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            _assert_identical(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    else:
        assert a == b, where
