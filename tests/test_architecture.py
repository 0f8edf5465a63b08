"""Who may import whom, read from the syntax trees, and what importing the package costs: nothing."""

import ast
import importlib.util
import json
import os
import subprocess
import sys

import pytest
from places import ROOT

PACKAGE = ROOT / "bixt3d"
# What each part imports of the package (itself always) and of other packages, at the top of a file or inside a
# function, no more and no less. A new module has to be given its place here.
RULES = {
    "agreement": (set(), {"lightning", "torch"}),
    "checkpoint": ({"io", "weights"}, {"torch"}),
    "config": ({"errors", "signatures"}, {"hydra", "omegaconf", "yaml"}),
    "datasets": ({"io"}, {"h5py", "numpy", "pooch", "requests", "rich", "torch"}),
    "divergence": (set(), {"torch"}),
    "engine": ({"agreement", "checkpoint", "divergence", "reproducibility", "seams"}, {"lightning", "torch"}),
    "errors": (set(), set()),
    "evaluation": (
        {"checkpoint", "config", "datasets", "engine", "inference", "io", "seams", "tasks", "training"},
        {"matplotlib", "numpy", "rich", "torch"},
    ),
    "inference": (
        {"checkpoint", "config", "errors", "io", "layers", "ops", "signatures", "training", "viewer"},
        {"numpy", "onnxruntime", "open3d", "torch"},
    ),
    "io": (set(), {"laspy", "lazrs", "numpy", "pypcd4", "trimesh"}),
    "layers": ({"ops"}, {"torch"}),
    "metrics": (set(), {"matplotlib", "torch", "torchmetrics"}),
    "model_card": ({"inference"}, set()),
    "models": ({"layers", "ops"}, {"torch"}),
    "operations": ({"layers"}, {"torch"}),
    "ops": (set(), {"pointnet2_ops", "torch", "torch_cluster", "triton"}),
    "optim": (set(), {"torch"}),
    "options": (set(), set()),
    "reproducibility": (set(), {"numpy", "torch"}),
    "seams": (set(), {"torch"}),
    "signatures": (set(), set()),
    "tasks": ({"metrics"}, {"torch"}),
    "training": (
        {
            "checkpoint",
            "config",
            "datasets",
            "engine",
            "errors",
            "io",
            "operations",
            "optim",
            "reproducibility",
            "seams",
            "signatures",
        },
        {"lightning", "matplotlib", "rich", "torch"},
    ),
    "viewer": ({"io"}, {"matplotlib", "numpy", "open3d"}),
    "weights": ({"io"}, {"safetensors", "torch"}),
}
# Loaded only inside a function, when something needs it.
HEAVY = {
    "h5py", "hydra", "laspy", "lazrs", "lightning", "matplotlib", "omegaconf", "onnxruntime", "open3d",
    "pointnet2_ops", "pooch", "pypcd4", "requests", "rich", "scipy", "tensorboard", "torch_cluster",
    "trimesh", "triton", "yaml",
}  # fmt: skip
FREE = HEAVY | {"torch", "torchmetrics", "numpy"}
MODULES = sorted(PACKAGE.rglob("*.py"))
# The files of each part; those of bixt3d/__init__.py are tested by what importing it costs.
PARTS = {
    part: [path for path in MODULES if path.relative_to(PACKAGE).with_suffix("").parts[0] == part]
    for part in sorted(
        {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in MODULES} - {"__init__"}
    )
}


def is_kernel(path):
    """Whether a file holds triton kernels alone, and is itself imported inside functions."""
    return path.name.startswith("triton_") and path.name.endswith("_kernels.py")


def dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path, *, top_level=False):
    """Absolute names that a file imports; ``top_level`` for those that importing it loads."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = dotted(path).split(".") if path.name == "__init__.py" else dotted(path).split(".")[:-1]

    def walk(node):
        if top_level and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        ):
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{origin}.{alias.name}"
                yield name if importlib.util.find_spec("bixt3d") and is_module(name) else origin
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    return set(walk(tree))


def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return name.startswith("bixt3d.") and (path.with_suffix(".py").is_file() or path.is_dir())


def test_every_part_has_its_place():
    """A part that is missing here is missing in docs/design.md too."""
    assert PARTS.keys() == RULES.keys()


@pytest.mark.parametrize("part", RULES)
def test_a_part_imports_what_its_place_says(part):
    own, others = set(), set()
    for path in PARTS[part]:
        for name in imports(path):
            top, *rest = name.split(".")
            if top == "bixt3d":
                own |= {*rest[:1]} - {part}  # without more it is bixt3d itself, its version
            elif top not in sys.stdlib_module_names:
                others.add(top)
    assert (own, others) == RULES[part]


def test_the_loop_knows_what_it_is_given_by_protocols_alone():
    loaded = {
        name for part in ("engine", "seams") for name in imports(PACKAGE / f"{part}.py", top_level=True)
    }
    assert {n for n in loaded if n.startswith("bixt3d.")} == {
        f"bixt3d.{part}" for part in ("agreement", "checkpoint", "divergence", "reproducibility", "seams")
    }


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_heavy_packages_are_imported_inside_functions(path):
    loaded = {name.split(".")[0] for name in imports(path, top_level=True)}
    if is_kernel(path):
        assert loaded <= {"__future__", "triton", "torch"}
    else:
        assert not loaded & HEAVY


def test_kernels_are_imported_inside_functions():
    kernels = {dotted(path) for path in MODULES if is_kernel(path)}
    for path in MODULES:
        if not is_kernel(path):
            assert not kernels & imports(path, top_level=True), dotted(path)


def test_nothing_imports_scripts_or_tests():
    for path in MODULES:
        assert not {"scripts", "tests", "conftest", "pytest"} & {n.split(".")[0] for n in imports(path)}


def test_the_reader_of_imports_sees_them_all(tmp_path, monkeypatch):
    """The other tests stand on it."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    folder = tmp_path / "bixt3d" / "layers"
    folder.mkdir(parents=True)
    (tmp_path / "bixt3d" / "engine.py").touch()
    code = "import a.b\nfrom ..engine import x\nfrom .. import engine\nfrom . import y\ndef f():\n    import h5py\n"
    (folder / "new.py").write_text(code + "class C:\n    from d import e\n")
    expected = {"a.b", "bixt3d.engine", "bixt3d.layers", "d"}
    assert imports(folder / "new.py", top_level=True) == expected
    assert imports(folder / "new.py") == expected | {"h5py"}


def python(code):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def test_importing_the_package_loads_nothing():
    done = python("import sys, json; import bixt3d; print(json.dumps(sorted(sys.modules)))")
    assert (done.returncode, done.stderr) == (0, "")
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert "bixt3d" in loaded
    assert not loaded & FREE


def test_a_script_without_a_config_loads_nothing_that_reads_one():
    done = python(
        "import json, runpy, sys\n"
        f"main = runpy.run_path({str(ROOT / 'scripts' / 'plot_runs.py')!r})['main']\n"
        "try: main(['nowhere'])\n"
        "except SystemExit as ended: assert 'nowhere' in ended.code\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not {name.split(".")[0] for name in json.loads(done.stdout)} & {"hydra", "omegaconf", "yaml"}


def test_importing_every_module_is_silent_and_touches_no_heavy_package():
    names = [dotted(path) for path in MODULES if not is_kernel(path)]
    # a library that matplotlib and others put in sys.modules by themselves would show up here, too
    done = python(
        "import importlib, json, os, sys, warnings\n"
        "warnings.simplefilter('always')\n"
        "import torch, torchmetrics.classification  # what they load and say is theirs\n"
        "before, environment = set(sys.modules), dict(os.environ)\n"
        "sys.stderr.write('--')\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "changed = {k for k, v in os.environ.items() if environment.get(k) != v}\n"
        "assert not {k for k in changed if not k.startswith('TORCH')}, changed  # torch sets its own\n"
        "assert not torch.cuda.is_initialized()\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.rpartition("--")[2] == ""
    assert done.stdout.count("\n") == 1, done.stdout
    assert not {name.split(".")[0] for name in json.loads(done.stdout)} & HEAVY


def test_a_clone_in_the_current_folder_does_not_hide_the_package(tmp_path):
    (tmp_path / "bixt3d").mkdir()  # as a clone: no package, yet found by its name
    found = subprocess.run(
        [sys.executable, "-c", "import bixt3d; bixt3d.load"], cwd=tmp_path, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
