"""Model cards of published weights: training, figures, intended use, limits and licence."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .inference.loading import ANYWHERE, training_points

# Terms of each data set, by the name of the class that loads it.
LICENCES = {
    "ModelNet40": "Trained on ModelNet40, whose terms allow academic research alone (the shapes belong to their "
    "authors). Treat these weights as **research weights**.",
    "ShapeNetPart": "Trained on ShapeNet, whose terms allow non-commercial research and education. Treat these "
    "weights as **research weights**.",
    "ScanObjectNN": "Trained on ScanObjectNN, which its authors give on request, under terms of their own. Read those "
    "before you use these weights for more than research.",
    "Shapes": "Trained on procedural shapes that the toolkit makes itself, so the licence of the toolkit (MIT) "
    "applies.",
}
OTHER_LICENCE = "Trained on files of the person who published the weights: ask them what the data allows."
# Settings of paths, interruption and resumption, which do not affect the result.
PRIVATE = ("out", "run_dir", "train.max_minutes", "train.resume")


def gather_facts(
    checkpoint: Path, content: Mapping[str, Any], robustness: Path | None = None
) -> dict[str, Any]:
    """Collect what a run folder records about one of its checkpoints.

    Args:
        checkpoint: the file, or its run folder. ``results.json`` and ``environment*.json`` are read from beside it.
        content: the loaded checkpoint.
        robustness: a ``robustness.json`` written by ``scripts/evaluate.py``, or None.

    Returns:
        The facts, for :func:`write_card` and JSON. What a missing file would have said is left out.

    Raises:
        FileNotFoundError: there is no such robustness file.
        RuntimeError: one of the files is not valid JSON.
    """
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    which = "selected" if "selection" in content else "last"
    progress = content.get("progress", {})
    facts: dict[str, Any] = {
        "weights": which,
        "epoch": progress.get("epoch"),
        "steps": progress.get("step"),
        "selection": dict(content.get("selection", {})),
    }
    environments = [_read(path) for path in sorted(folder.glob("environment*.json"))]
    if environments:
        first = environments[0]  # where the run was started; the others are from resuming it
        facts["command"] = public_command(first["command"])
        for key in ("git_commit", "torch", "bixt3d"):
            facts[key] = first[key]
        facts["devices"] = sorted({", ".join(e["cuda"]) or e["processor"] for e in environments})
    if (folder / "results.json").is_file():
        results = _read(folder / "results.json")
        kept = ("split", "clouds", "points", "select_on", "seed", "minutes", "minutes_to")
        facts |= {key: results[key] for key in kept if key in results}
        facts["results"] = results["results"].get(which, {})
    if robustness is not None:
        if not robustness.is_file():
            raise FileNotFoundError(
                f"{robustness}: no such file; make it with 'python scripts/evaluate.py CHECKPOINT corruption=all "
                "out=DIR'."
            )
        measured = _read(robustness)
        facts["robustness"] = {
            "clean": measured["clean"],
            "mean": measured["mean_over_severities"],
            "drop_strays": measured.get("drop_strays", False),
        }
    return facts


def write_card(
    name: str,
    config: Mapping[str, Any],
    classes: Sequence[str],
    parts: Sequence[str],
    facts: Mapping[str, Any],
    *,
    dtype: str,
    size: int,
    note: str | None = None,
) -> str:
    """Write a model card in Markdown.

    Args:
        name: name of the weights.
        config: the resolved config.
        classes, parts: names in label order.
        facts: the result of :func:`gather_facts`.
        dtype: dtype of the matrices in the file.
        size: size of the file in bytes.
        note: a sentence to add about the training data.
    """
    data, held_out = config["data"], config["data"].get("val_fraction")
    dataset = data["_target_"].rpartition(".")[2]
    task, what = "classifies shapes", f"{len(classes)} classes"
    if parts:
        task, what = "segments parts", f"{what}, {len(parts)} parts"
    told = bool(parts) and len(classes) > 1
    category = f" --category {classes[0]}" if told else ""
    files, root = "", ""
    if data.get("root"):
        files, root = f", files of `{Path(data['root']).name}`", " data.root=DIR"
    sections = {
        f"# {name}": [
            f"A `{config['model']['_target_'].rpartition('.')[2]}` that {task}: {what}, "
            f"{training_points(data):,} points a cloud. {size:,} bytes, matrices in {dtype}.",
            "",
            "```sh",
            f"python scripts/predict.py {name}.safetensors FILES...{category}",
            f"python scripts/evaluate.py {name}.safetensors{root}",
            "```",
        ],
        "## Training data": [
            f"{dataset}{files}: {', '.join(classes)}.",
            *(
                [f"{100 * held_out:g} % of the train split was held out, to select the weights."]
                if held_out
                else []
            ),
            *([note] if note else []),
        ],
        "## Training": _how(facts, config["train"]),
        "## Evaluation": _measured(facts, config),
        "## Intended use": [
            f"Research on point clouds: {'labelling the parts of' if parts else 'classifying'} single objects of the "
            "classes above, and a start for further training. Clouds have to be centred and scaled to the unit sphere, "
            "which `scripts/predict.py` does by itself."
        ],
        "## Limits": _limits(config, facts, told),
        "## Licence": [LICENCES.get(dataset, OTHER_LICENCE)],
    }
    return "\n".join(line for heading, lines in sections.items() for line in (heading, "", *lines, ""))


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a config without the paths of the machine that it was used on."""
    data = dict(config["data"])
    for key in ("root", "cache"):
        if data.get(key):
            data[key] = f"data/{Path(data[key]).name}"
    train = {**config["train"], **ANYWHERE}
    if train.get("start_from"):
        train["start_from"] = Path(train["start_from"]).name
    return {**config, "run_dir": None, "data": data, "train": train}


def public_command(command: str) -> str:
    """Return a command line without the paths of the machine that it ran on."""
    shown = []
    for word in shlex.split(command):
        key, _, value = word.lstrip("+").partition("=")
        if key in PRIVATE:
            continue
        if key in ("data.root", "data.cache"):
            word = f"{key}=DIR"
        elif key == "train.start_from":
            word = f"{key}={Path(value).name}"
        elif Path(word).is_absolute():
            word = "/".join(Path(word).parts[-2:])
        shown.append(word)
    return shlex.join(shown)


def _how(facts: Mapping[str, Any], train: Mapping[str, Any]) -> list[str]:
    lines = ["The command was not recorded. The config is in the file's metadata."]
    if "command" in facts:
        commit = facts["git_commit"] or "unknown"
        lines = ["```sh", facts["command"], "```", "", f"Commit {commit}, torch {facts['torch']}."]
        lines += [f"Device: {'; '.join(facts['devices'])}."]
    if train.get("start_from"):
        origin = Path(train["start_from"]).name
        lines += [f"Started from the weights `{origin}`, so their training data counts as well."]
    whole = ""
    if "minutes" in facts:
        whole = f" The whole run took {facts['minutes']:g} minutes, selection included."
    seed = facts.get("seed", train["seed"])
    return [*lines, f"Seed {seed}, {facts['epoch']} epochs, {facts['steps']:,} steps.{whole}"]


def _measured(facts: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    select_on = facts.get("select_on", config["train"].get("select_on"))
    lines = ["These are the weights of the end of training: no split selected them."]
    if facts["weights"] == "selected":
        figures = ", ".join(f"{name} {value:.2f}" for name, value in facts["selection"].items())
        lines = [f"These weights scored best on the split `{select_on}` (epoch {facts['epoch']}: {figures})."]
        if select_on == "test":
            lines += ["They were selected on the split they are measured on, so the figures are too high."]
    if not facts.get("results"):
        return [*lines, "They were not measured on the test split."]
    points = f", {facts['points']}" if "points" in facts else ""
    figures = " | ".join(f"{value:.2f}" for value in facts["results"].values())
    return [
        *lines,
        "",
        f"| measured on | {' | '.join(facts['results'])} |",
        "|---|" + "---|" * len(facts["results"]),
        f"| {facts['split']} ({facts['clouds']:,} clouds{points}) | {figures} |",
        "",
        "In percent, measured with the float32 weights, before any rounding in this file.",
    ]


def _limits(config: Mapping[str, Any], facts: Mapping[str, Any], told: bool) -> list[str]:
    lines = ["- An object of another class still gets one of these classes. A high probability is no proof."]
    if told:
        lines = [
            "- It does not predict the class: name it (`--category`) or have it predicted (`--classifier CHECKPOINT`). "
            "A named class is taken as true, and a high probability is no proof.",
        ]
    augment = json.dumps(config["augment"])
    seen = (
        ", from whole surfaces of single objects. Scans with noise, holes or background are another matter."
    )
    if "RandomCorruption" in augment:
        seen = (
            " of single objects, in part corrupted by `RandomCorruption` as its config says. Scans may be worse in "
            "other ways."
        )
    lines += [f"- Trained on {training_points(config['data']):,} points a cloud{seen}"]
    if "RandomRotation" not in augment:
        lines += ["- No free rotation in training: objects have to be oriented as in the training data."]
    if "robustness" not in facts:
        return lines
    robustness = facts["robustness"]
    cleaned = ", stray points dropped first" if robustness.get("drop_strays") else ""
    return [
        *lines,
        "",
        f"OA on corrupted test clouds{cleaned}, mean over five severities (`docs/robustness.md`):",
        "",
        "| corruption | OA | relative to clean |",
        "|---|---|---|",
        f"| none | {robustness['clean']['OA']:.2f} | |",
        *(
            f"| {name} | {figures['OA']:.2f} | {figures['OA relative']:.1f} % |"
            for name, figures in robustness["mean"].items()
        ),
    ]


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RuntimeError(f"{path}: expected JSON ({error}); write the file again.") from error
