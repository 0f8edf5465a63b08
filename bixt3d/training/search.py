"""Search: train named settings with the same seeds, and compare them on the validation split."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import load_checkpoint
from ..config import build_settings, compose, differences, from_yaml, read_yaml
from ..config.overrides import quoted
from ..errors import placed
from ..signatures import check
from .search_results import Run, write_tables
from .settings import AUTO, TrainSettings
from .signals import StopRequest

KEYS = ("base", "common", "seeds", "settings")
# Settings that the search itself makes for every run.
OWN = ("run_dir", "train.measure_test", "train.resume", "train.seed")
# Settings that may differ between an existing run and the same run of the current search.
FREE = ("data.root", "run_dir", "train.resume")
# Seconds that an interrupted run has to exit: more than the 30 after which torchrun kills its own processes.
PATIENCE = 40.0


@dataclass(frozen=True)
class Search:
    """Definition of a search.

    Args:
        base: the config that every run starts from.
        settings: overrides by the name of the setting. The first setting is the baseline for the others.
        seeds: seeds with which every setting is trained.
        common: overrides of every run.
    """

    base: Path
    settings: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    common: tuple[str, ...] = ()

    def runs(self, out: Path) -> list[Run]:
        """Return the runs in order: all settings with the first seed, then all with the next."""
        return [
            Run(
                setting=name,
                seed=seed,
                overrides=("train.measure_test=false", *self.common, *overrides, f"train.seed={seed}"),
                folder=out / f"{_slug(name)}_seed{seed}",
            )
            for seed in self.seeds
            for name, overrides in self.settings.items()
        ]


def read_search(path: str | Path, assignments: Sequence[str] = (), *, config_root: Path) -> Search:
    """Read the definition of a search.

    Args:
        path: YAML file with ``base`` (the name of a config in ``config_root``, or a path relative to the file),
            ``seeds``, ``common`` (a list of overrides) and ``settings`` (lists of overrides by name).
        assignments: further overrides of every run.
        config_root: folder with the configs that the toolkit ships.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError, TypeError: a key, a name or an override is invalid.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such search; expected the path of a YAML file, such as cfgs/search/naive.yaml."
        )
    node = read_yaml(path)
    needed = set(KEYS) - {"common"}
    if not isinstance(node, Mapping) or set(node) - set(KEYS) or needed - set(node):
        got = ", ".join(sorted(map(str, node))) if isinstance(node, Mapping) else type(node).__name__
        raise ValueError(f"{path}: expected the keys {', '.join(KEYS)} (common may be left out), got {got}.")
    seeds, settings = node["seeds"], node["settings"]
    whole = isinstance(seeds, list) and all(type(s) is int for s in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"{path}: seeds: expected a list of different whole numbers, got {seeds!r}.")
    if not isinstance(settings, Mapping) or not settings:
        raise ValueError(f"{path}: settings: expected names with lists of overrides, got {settings!r}.")
    common = _overrides(node.get("common"), f"{path}: common") + _overrides(list(assignments), "arguments")
    named = {str(k): _overrides(v, f"{path}: settings: {k}") for k, v in settings.items()}
    slugs = [_slug(name) for name in named]
    same = [name for name, slug in zip(named, slugs, strict=True) if slugs.count(slug) > 1 or not slug]
    if same:
        raise ValueError(
            f"{path}: settings: {' and '.join(map(repr, same))} give no distinct folder names (only letters, digits, "
            "dots and minus signs count); rename them."
        )
    candidates = (config_root / f"{node['base']}.yaml", path.parent / str(node["base"]))
    base = next((p for p in candidates if p.is_file()), None)
    if base is None:
        shipped = ", ".join(sorted(p.stem for p in config_root.glob("*.yaml")))
        raise ValueError(
            f"{path}: base: no config {node['base']!r}; expected one of {shipped}, or the path of a YAML file."
        )
    return Search(base=base, settings=named, seeds=tuple(seeds), common=common)


def check_search(search: Search, out: Path, *, config_root: Path) -> None:
    """Compose and check the config of every run, so that errors are found before the first run starts.

    Raises:
        ValueError, TypeError: an override does not fit the base config, a run would select on a split other than
            ``val``, or a folder holds a run with other settings.
    """
    for run in search.runs(out):
        where = f"setting {run.setting!r}"
        try:
            config = compose(search.base, run.overrides, config_root=config_root)
            settings = build_settings(TrainSettings, config["train"], "train")
            for node in ("augment", "data", "model", "optim", "task"):
                check(config[node], node)
        except (ValueError, TypeError) as error:
            raise placed(error, f"{where}: ") from error
        if settings.select_on != "val":
            raise ValueError(
                f"{where}: train.select_on: expected val, which a search compares on, got {settings.select_on}."
            )
        saved = run.folder / "config.yaml"
        if saved.is_file():
            changed = differences(from_yaml(saved.read_text(encoding="utf-8")), config, besides=FREE)
            if changed:
                key, before, now = changed[0]
                raise ValueError(
                    f"{where}: {run.folder} holds a run with {key}={before}, the search now says {now}; choose another "
                    "--out, or remove that folder."
                )


def run_search(search: Search, out: Path, *, script: Path) -> int:
    """Train the runs that are not finished, one after the other, and write the tables after each.

    A run that fails is listed with the reason, and the search goes on. If called again, it skips finished runs,
    continues an interrupted one and retries failed ones.

    Args:
        search: a search that passed :func:`check_search`.
        out: folder for the runs (for each a folder, and beside it a ``.log`` with its output), ``results.csv`` and
            ``results.md``.
        script: the training script, such as ``train_cls.py``, started as a process for each run.

    Returns:
        Exit status: 0 on success, 1 if a run failed, ``128 + signal`` if the search was stopped.
    """
    out.mkdir(parents=True, exist_ok=True)
    runs = search.runs(out)
    failures: dict[Run, str] = {}
    with StopRequest() as stop:
        for i, run in enumerate(runs):
            if not run.finished:
                print(f"[{i + 1}/{len(runs)}] {run.setting}, seed {run.seed} ...", flush=True)
                status = _train(search, run, script, stop)
                if stop.requested is not None:
                    break
                if status:
                    failures[run] = _last_line(run.log) or f"exit status {status}"
                    print(f"  failed: {failures[run]}", flush=True)
                else:
                    figures = ", ".join(f"val {name} {value:.2f}" for name, value in run.figures().items())
                    print(f"  {figures}, {run.minutes:.1f} minutes", flush=True)
            write_tables(runs, failures, out)
    if stop.requested is not None:
        print(f"stopped; the same command continues in {out}", flush=True)
        return 128 + stop.requested
    table = (out / "results.md").read_text(encoding="utf-8")
    print(f"\n{table}\ntables: {out / 'results.csv'}, {out / 'results.md'}")
    return 1 if failures else 0


def _train(search: Search, run: Run, script: Path, stop: StopRequest) -> int:
    """Start or continue a run, wait for it, mark it as finished if it succeeds, and return its exit status."""
    run.folder.mkdir(parents=True, exist_ok=True)
    arguments = [*run.overrides, f"run_dir={quoted(str(run.folder))}", f"train.resume={AUTO}"]
    with run.log.open("a", encoding="utf-8") as log:
        # in a session of its own, so that Ctrl-C reaches the run only once, through this process
        process = subprocess.Popen(
            [sys.executable, str(script), str(search.base), *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        told = False
        try:
            while process.poll() is None:
                if stop.requested is not None and not told:
                    process.send_signal(_sendable(stop.requested))
                    told = True
                time.sleep(0.1)
        finally:
            _end(process)  # on a second Ctrl-C, which leaves the loop at once, the process still runs
    if process.returncode == 0:
        run.finish(load_checkpoint(run.folder / "last.pt")["progress"]["seconds"])
    return process.returncode


def _end(process: subprocess.Popen) -> None:
    """Interrupt a process if it still runs, and kill it only after that, since torchrun, if killed, leaves orphans."""
    try:
        if process.poll() is None:
            process.send_signal(_sendable(signal.SIGINT))
            process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        pass
    finally:  # on a third Ctrl-C too
        process.kill()
        process.wait()


def _sendable(number: int) -> int:
    """Return the signal to pass on to another process group: on Windows always Ctrl-Break."""
    return getattr(signal, "CTRL_BREAK_EVENT", number)


def _overrides(node: Any, where: str) -> tuple[str, ...]:
    """Return a list of overrides as a tuple, after checking it."""
    node = [] if node is None else node
    if not isinstance(node, list):
        raise TypeError(f"{where}: expected a list of overrides such as train.epochs=3, got {node!r}.")
    for text in node:
        if not isinstance(text, str) or not ("=" in text or text.startswith("~")):
            raise ValueError(f"{where}: expected overrides such as train.epochs=3, got {text!r}.")
        if text.partition("=")[0].lstrip("+~") in OWN:
            raise ValueError(f"{where}: {text}: the search itself sets {', '.join(OWN)}; leave it out.")
    return tuple(node)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_.")


def _last_line(path: Path) -> str:
    # read as text, which turns a carriage return into the end of a line
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
