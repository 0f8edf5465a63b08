"""Compose the config of one or several runs from the command line."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import report_errors, sentence
from .overrides import quoted, readable
from .sentences import as_value_errors, resolved

if TYPE_CHECKING:
    from omegaconf import DictConfig


def launch(main: Callable[[dict[str, Any]], None], *, config_root: Path) -> None:
    """Run ``main(config)`` with the config that the command line names.

    The command line is ``script.py CONFIG.yaml [key=value ...]``: the path of a config, then overrides and options of
    Hydra (``--multirun``, ``--cfg job``, ``--help`` and so on). Config groups are looked up beside the file and in
    ``config_root``. An error that the user can fix is printed as one line, and the exit status is 1. With
    ``BIXT3D_TRACEBACK=1`` in the environment the traceback is shown instead. If a combination of ``--multirun`` fails,
    the others still run. Those that failed are listed at the end, and the exit status is 1.

    Args:
        main: called with the composed and resolved config, as plain containers.
        config_root: folder with the config groups that the toolkit ships.
    """
    program, *arguments = sys.argv
    yamls = [a for a in arguments if a.endswith((".yaml", ".yml"))]
    # skip overrides that end in a file name; but a path may contain "=" too, as the folders of a sweep do
    given = next((a for a in yamls if "=" not in a or Path(a).is_file()), None)
    if given is None:
        shipped = ", ".join(sorted(p.stem for p in config_root.glob("*.yaml")))
        wants_help = bool({"-h", "--help"} & set(arguments))
        print(
            f"usage: python {program} CONFIG.yaml [key=value ...] [--multirun] [--cfg job] [--help]\n"
            f"configs in {config_root}: {shipped}",
            file=sys.stdout if wants_help else sys.stderr,
        )
        sys.exit(0 if wants_help else 2)
    path = Path(given)
    name = report_errors(lambda: _name(path))
    arguments.remove(given)
    defaults = [
        _search_path(config_root),
        "hydra.output_subdir=null",
        "hydra.run.dir=.",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]
    # all overrides together and before the options, as the argument parser requires; the last of two wins
    overrides = [a for a in arguments if a.startswith("~") or ("=" in a and not a.startswith("-"))]
    options = [a for a in arguments if a not in overrides]
    sys.argv = [program, *defaults, *map(readable, overrides), *options]

    import hydra

    notes: Path | None = None

    def job(config: DictConfig) -> None:
        if notes is None:
            report_errors(lambda: main(resolved(config)))
        else:
            _run_noted(lambda: report_errors(lambda: main(resolved(config))), notes)

    # by default Hydra prints its errors over many lines and exits; this makes it raise them
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    decorated = hydra.main(version_base="1.3", config_path=str(path.parent.resolve()), config_name=name)
    with contextlib.ExitStack() as stack:
        if {"-m", "--multirun"} & set(options):
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            notes = scratch / "notes"
            notes.mkdir()
            # Hydra's own folder for a sweep is not needed, since every run has its run folder
            sys.argv.insert(1, f"hydra.sweep.dir={quoted(str(scratch / 'sweep'))}")
        report_errors(as_value_errors()(decorated(job)))
        # of several processes only rank 0 reports: when one exits with a failure, torchrun ends the others, and rank 0
        # may still be evaluating
        first = os.environ.get("RANK", "0") == "0"
        if notes is not None and first and (failures := _failures(notes)):
            sys.exit(failures)


def _run_noted(run: Callable[[], None], notes: Path) -> None:
    """Run one combination of ``--multirun``, and record in a file how it ended, as it may run in another process.

    Raises:
        SystemExit: it exited for a reason other than an error. This ends the other combinations as well.
    """
    from hydra.core.hydra_config import HydraConfig

    failure = ""
    try:
        run()
    except SystemExit as ended:
        # a number is the status of a run that was stopped, or of processes that have run all combinations
        if not isinstance(ended.code, str):
            raise
        failure = ended.code
        print(failure, file=sys.stderr, flush=True)
    except Exception as error:
        traceback.print_exception(error)
        failure = sentence(error)
    job = HydraConfig.get()
    note = {"overrides": list(job.overrides.task), "failure": failure.removeprefix("error: ")}
    (notes / f"{job.job.num:06}.json").write_text(json.dumps(note), encoding="utf-8")


def _failures(folder: Path) -> str:
    """List the combinations that failed, by the overrides that not all of them share; empty if none failed."""
    notes = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.iterdir())]
    shared = set.intersection(*(set(note["overrides"]) for note in notes)) if len(notes) > 1 else set()
    lines = [
        f"  {' '.join(text for text in note['overrides'] if text not in shared)}: {note['failure']}"
        for note in notes
        if note["failure"]
    ]
    return "\n".join([f"error: {len(lines)} of {len(notes)} combinations failed:", *lines]) if lines else ""


def compose(path: str | Path, overrides: Sequence[str] = (), *, config_root: Path) -> dict[str, Any]:
    """Compose a config as :func:`launch` does, without running anything.

    Args:
        path: the YAML file.
        overrides: Hydra overrides, such as ``"train.epochs=3"``.
        config_root: see :func:`launch`.

    Returns:
        The composed and resolved config, as plain containers.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file, a config group option or an override is invalid.
    """
    import hydra

    path = Path(path)
    folder = str(path.parent.resolve())
    with as_value_errors(), hydra.initialize_config_dir(config_dir=folder, version_base="1.3"):
        told = [_search_path(config_root), *map(readable, overrides)]
        return resolved(hydra.compose(_name(path), overrides=told))


def _search_path(config_root: Path) -> str:
    return f"hydra.searchpath=[{quoted(f'file://{config_root.resolve()}')}]"


def _name(path: Path) -> str:
    """Return the config name for Hydra, which would append .yaml to a file name that ends in anything else."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such config; expected the path of a YAML file.")
    if path.suffix != ".yaml":
        raise ValueError(f"{path}: expected a config whose name ends in .yaml; rename it.")
    return path.stem
