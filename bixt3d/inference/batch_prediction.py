"""Predict many files: name their results, go on after a bad one, write results and a summary."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import USER_ERRORS, sentence
from ..io import Cloud, read_points
from ..io.finding import CONVERTERS
from ..io.writing import check_folder, write_csv, write_json, write_npz, write_ply
from ..viewer.palette import part_colors
from .loading import trained_up
from .prediction import Job, Prediction
from .predictor import Predictor

logger = logging.getLogger(__name__)

TOP = 5
_ODD = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64).view(np.int64)
# What can be wrong with one file, without a reason to give up the others.
UNUSABLE = (*USER_ERRORS, MemoryError)


def check_samples(samples: int | None) -> None:
    """Raise a ValueError where so many points cannot be drawn from a mesh; None stands for the reader's default."""
    if samples is not None and samples < 1:
        raise ValueError(f"samples: expected at least 1, got {samples}.")


def chosen_up(predictor: Predictor, up: str | None) -> str:
    """Return the axis that is up in files: what the user says, with a note if training said another, or that one."""
    trained = trained_up(predictor.config.get("data", {}))
    if up is not None and trained is not None and up != trained:
        logger.warning(
            "up: files are taken with %s up; those that the model was trained on had %s up (data.up)",
            up,
            trained,
        )
    return up or predictor.up


def what_is_wrong(file: Path, error: BaseException) -> str:
    """Say in one line what is wrong with a file, and how to convert one of a format that is not read."""
    message = sentence(error)
    how = CONVERTERS.get(file.suffix.lower())
    if how is not None and isinstance(error, ValueError):
        message = f"{message.rstrip('.')}; convert it to .ply, with {how}."
    return message if str(file) in message else f"{file}: {message}"


def warn_of_doubts(cloud: Cloud, num_points: int) -> None:
    """Warn where a cloud can be predicted, but what comes out may mean little.

    Args:
        cloud: as it was read.
        num_points: how many points the model was trained on.
    """
    points, count = cloud.points, len(cloud)
    if 4 * count < num_points:
        logger.warning(
            "%s: has %d point%s, and the model was trained on %s; a prediction from so few may mean little",
            *(cloud.path, count, "s" if count > 1 else "", f"{num_points:,}"),
        )
    doubts = []
    # one number for each point, the same for points that coincide and, but for rare chance, for no others
    mixed = np.sort(np.ascontiguousarray(points + 0.0).view(np.int64) @ _ODD)
    distinct = 1 + np.count_nonzero(mixed[1:] != mixed[:-1])
    if 2 * distinct < count:
        doubts.append(f"only {distinct:,} of {count:,} points are distinct")
    with np.errstate(over="ignore", invalid="ignore"):  # float64 goes further than float32
        step, size = np.spacing(np.abs(points).max().astype(np.float32)), np.ptp(points, axis=0).max()
    if 0 < size < 100 * step and np.array_equal(points, points.astype(np.float32)):
        doubts.append("coordinates this large lose their digits in float32; subtract an offset before saving")
    if doubts:
        logger.warning("%s: %s", cloud.path, ": ".join(doubts))


def output_stems(files: Sequence[Path]) -> list[Path]:
    """Return a relative path without suffix for the results of each file, no two the same.

    The folders that the files have in common are left out; two files that differ in their suffix alone keep
    it as part of the name, and a number goes behind a name that is taken.
    """
    absolute = [Path(os.path.abspath(file)) for file in files]
    common = Path(os.path.commonpath([file.parent for file in absolute])) if files else Path()
    relative = [file.relative_to(common) for file in absolute]
    plain = [path.with_suffix("") for path in relative]
    times = Counter(plain)
    taken = {stem for stem in plain if times[stem] == 1}
    stems = []
    for path, stem in zip(relative, plain, strict=True):
        if times[stem] > 1:
            full = stem = path.with_name(path.name.replace(".", "_"))
            number = 2
            while stem in taken:
                stem, number = full.with_name(f"{full.name}_{number}"), number + 1
            taken.add(stem)
        stems.append(stem)
    return stems


@dataclass
class _Pending:
    """A file that was read and waits for its batch."""

    file: Path
    stem: Path
    cloud: Cloud
    job: Job


@dataclass
class BatchPredictor:
    """Predict files one after the other and write a result for each.

    Args:
        predictor: of classes or of parts.
        out: folder of the results.
        category: class of all clouds, for parts; None where each has its own or the model needs none.
        samples: points to draw from a mesh; None for the reader's default.
        png: also write a picture of the parts.
        up: the axis that is up in the files; models and pictures see it as y. None for that of training.
        report: called with each error, one sentence.
        stop: asked before each file; where it says yes, the files that are left are not reached.

    Raises:
        ValueError: a number out of range; a category that the model cannot use; pictures of parts asked of a
            classifier; or nothing can be written into ``out``.
        ImportError: pictures are asked for and open3d is not installed.
    """

    predictor: Predictor
    out: Path
    category: str | None = None
    samples: int | None = None
    png: bool = False
    up: str | None = None
    report: Callable[[str], None] = print
    stop: Callable[[], bool] = lambda: False
    rows: dict[Path, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_samples(self.samples)
        self.up = chosen_up(self.predictor, self.up)
        if self.png and not self.predictor.parts:
            raise ValueError("png: this model is a classifier, and pictures show parts; leave it out.")
        self.predictor.check_category(self.category)
        check_folder(self.out)
        if self.png:
            from ..viewer.pictures import import_open3d

            import_open3d()

    def run(self, files: Sequence[Path], stems: Sequence[Path]) -> Iterator[Path]:
        """Predict ``files``; yields each when it is done, failed ones too. See :attr:`rows`, :attr:`failed`."""
        waiting: list[_Pending] = []
        for file, stem in zip(files, stems, strict=True):
            if self.stop():
                break
            try:
                cloud = read_points(file, num_samples=self.samples, seed=self.predictor.seed)
                job = self.predictor.prepare(cloud, category=self.category, up=self.up)
            except UNUSABLE as error:
                yield self._fail(file, error)
                continue
            warn_of_doubts(cloud, self.predictor.num_points)
            waiting.append(_Pending(file, stem, cloud, job))
            if sum(len(one.job.pieces) for one in waiting) >= self.predictor.batch_size:
                yield from self._flush(waiting)
                waiting = []
        yield from self._flush(waiting)

    @property
    def failed(self) -> int:
        """Number of files without a result."""
        return sum("error" in row for row in self.rows.values())

    def answer(self, file: Path) -> str:
        """Say in one line what a file of :attr:`rows` is: its class, or its largest parts; empty where it failed."""
        row = self.rows[file]
        if "error" in row:
            return ""
        if "top" in row:
            best = row["top"][0]
            return f"{best['class']} {100 * best['probability']:.1f} %  {file}"
        # with one class the prefix says nothing
        known = row["category"] is not None
        parts = [
            f"{name.rpartition('/')[2] if known else name} {100 * share:.0f} %"
            for name, share in row["parts"]
        ]
        what = f"parts of {row['category']}" if known else "parts"
        return f"{what}: {', '.join(parts[:TOP])}{', ...' if len(parts) > TOP else ''}  {file}"

    def write_summary(self, files: Sequence[Path], suffix: str = "") -> list[Path]:
        """Write ``predictions.csv``, for a classifier ``predictions.json`` too, in the order of ``files``.

        Where no file was predicted, nothing is written, so that the tables of an earlier run stay.

        Args:
            files: as given to :meth:`run`; those without a row were not reached.
            suffix: goes before the file's own, to tell the processes of a shared run apart.
        """
        rows = [self.rows[file] for file in files if file in self.rows]
        if all("error" in row for row in rows):
            return []
        table = self.out / f"predictions{suffix}.csv"
        columns = ["file", "points", *(["strays"] if self.predictor.drop_strays else [])]
        if self.predictor.parts:
            said = ("; ".join(f"{n} {100 * s:.2f} %" for n, s in row.get("parts", ())) for row in rows)
            rows = [row | {"parts": parts} for row, parts in zip(rows, said, strict=True)]
            write_csv(table, _table([*columns, "category", "parts", "error"], rows))
            return [table]
        for place in range(1, min(TOP, len(self.predictor.classes)) + 1):
            columns += [f"class_{place}", f"probability_{place}"]
        wide = [dict(row) for row in rows]
        for row in wide:
            for place, one in enumerate(row.get("top", ()), start=1):
                row |= {f"class_{place}": one["class"], f"probability_{place}": f"{one['probability']:.6f}"}
        write_csv(table, _table([*columns, "error"], wide))
        listed = self.out / f"predictions{suffix}.json"
        write_json(listed, rows)
        return [table, listed]

    def _flush(self, waiting: Sequence[_Pending]) -> Iterator[Path]:
        if not waiting:
            return
        predictions = self.predictor.run([one.job for one in waiting])
        for one, prediction in zip(waiting, predictions, strict=True):
            row: dict[str, Any] = {"file": str(one.file), "points": len(one.cloud)}
            if self.predictor.drop_strays:
                row["strays"] = one.job.strays
            try:
                if self.predictor.parts:
                    self._write_parts(one, prediction)
                    row |= {"category": prediction.category, "parts": shares(prediction)}
                else:
                    row["top"] = [{"class": name, "probability": p} for name, p in prediction.top(TOP)]
            except UNUSABLE as error:
                yield self._fail(one.file, error)
                continue
            self.rows[one.file] = row
            yield one.file

    def _write_parts(self, one: _Pending, prediction: Prediction) -> None:
        target = self.out / one.stem
        points = one.cloud.points
        names = np.array(prediction.names)
        # a known category leaves the other parts a probability of 0
        own = [i for i, n in enumerate(names) if prediction.category in (None, n.rpartition("/")[0])]
        colors = part_colors(prediction.names)[prediction.labels]
        ply = target.with_name(f"{target.name}_parts.ply")
        write_ply(ply, points, colors, prediction.labels, one.cloud.normals)
        arrays = {
            "points": points,
            "labels": prediction.labels,
            "names": names,
            "probabilities": prediction.probabilities[:, own].astype(np.float16),
            "probability_names": names[own],
        }
        if one.cloud.normals is not None:
            arrays["normals"] = one.cloud.normals
        write_npz(target.with_name(f"{target.name}_parts.npz"), arrays)
        if self.png:
            from ..viewer.pictures import save_png
            from ..viewer.scene import part_scene

            shown = one.cloud.turned(self.up).points  # type: ignore[arg-type]
            scene = part_scene(one.file.name, shown, prediction.labels, prediction.names)
            save_png(target.with_name(f"{target.name}_parts.png"), [scene])

    def _fail(self, file: Path, error: BaseException) -> Path:
        message = what_is_wrong(file, error)
        self.rows[file] = {"file": str(file), "error": message}
        self.report(message)
        return file


def shares(prediction: Prediction) -> list[tuple[str, float]]:
    """Return the parts that occur with their shares of the points, 1 in all, largest first."""
    counts = np.bincount(prediction.labels, minlength=len(prediction.names))
    order = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
    return [(prediction.names[i], float(counts[i] / counts.sum())) for i in order]


def _table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[Sequence[object]]:
    """Return the rows of a CSV file, headings first; a row without some column leaves that field empty."""
    return [columns, *([row.get(name, "") for name in columns] for row in rows)]
