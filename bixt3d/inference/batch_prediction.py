"""Predict many files: name and write the results, skip unusable files and write a summary."""

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
# Errors of one file, which do not stop the others.
UNUSABLE = (*USER_ERRORS, MemoryError)


def check_samples(samples: int | None) -> None:
    """Raise a ValueError if ``samples``, the number of points to draw from a mesh, is below 1; None is valid."""
    if samples is not None and samples < 1:
        raise ValueError(f"samples: expected at least 1, got {samples}.")


def chosen_up(predictor: Predictor, up: str | None) -> str:
    """Return the up axis of the files: ``up``, with a warning if training had another one, or that of the predictor."""
    trained = trained_up(predictor.config.get("data", {}))
    if up is not None and trained is not None and up != trained:
        logger.warning(
            "up: reading files with %s up, but the model was trained on files with %s up (data.up)",
            up,
            trained,
        )
    return up or predictor.up


def what_is_wrong(file: Path, error: BaseException) -> str:
    """Describe an error with a file in one line, with a converter for it if its format is not supported."""
    message = sentence(error)
    how = CONVERTERS.get(file.suffix.lower())
    if how is not None and isinstance(error, ValueError):
        message = f"{message.rstrip('.')}; convert it to .ply, with {how}."
    return message if str(file) in message else f"{file}: {message}"


def warn_of_doubts(cloud: Cloud, num_points: int) -> None:
    """Warn about clouds that can be predicted, but whose predictions may mean little.

    Args:
        cloud: as read from its file.
        num_points: number of points per cloud in training.
    """
    points, count = cloud.points, len(cloud)
    if 4 * count < num_points:
        logger.warning(
            "%s: has %d point%s, and the model was trained on %s; a prediction from so few may mean little",
            *(cloud.path, count, "s" if count > 1 else "", f"{num_points:,}"),
        )
    doubts = []
    # hash each point: equal for points that coincide and, with rare exceptions, for no others
    mixed = np.sort(np.ascontiguousarray(points + 0.0).view(np.int64) @ _ODD)
    distinct = 1 + np.count_nonzero(mixed[1:] != mixed[:-1])
    if 2 * distinct < count:
        doubts.append(f"only {distinct:,} of {count:,} points are distinct")
    with np.errstate(over="ignore", invalid="ignore"):  # float64 values may overflow float32
        step, size = np.spacing(np.abs(points).max().astype(np.float32)), np.ptp(points, axis=0).max()
    if 0 < size < 100 * step and np.array_equal(points, points.astype(np.float32)):
        doubts.append("coordinates this large lose their digits in float32; subtract an offset before saving")
    if doubts:
        logger.warning("%s: %s", cloud.path, ": ".join(doubts))


def output_stems(files: Sequence[Path]) -> list[Path]:
    """Return a unique relative path without suffix for the results of each file.

    Paths are relative to the common parent folder. Files that differ only in their suffix keep it as part of the name,
    and a number is appended to names that are already taken.
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
    """A file that has been read and waits for its batch."""

    file: Path
    stem: Path
    cloud: Cloud
    job: Job


@dataclass
class BatchPredictor:
    """Predict files in batches and write the results of each.

    Args:
        predictor: predictor of classes or of parts.
        out: output folder.
        category: category of all clouds, for a segmenter. None if the predictor's classifier predicts it, or the model
            needs none.
        samples: number of points to draw from a mesh; None for the reader's default.
        png: whether to write a picture of the parts as well.
        up: up axis of the files, turned to y for the model and pictures. None for that of training.
        report: called with the message of each error, one sentence.
        stop: called before each file. If it returns True, the remaining files are skipped.

    Raises:
        ValueError: a number is out of range, the model cannot use the category, pictures of parts are requested
            for a classifier, or ``out`` is not writable.
        ImportError: pictures are requested and open3d is not installed.
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
        """Predict ``files`` and yield each when it is done or has failed; results are in :attr:`rows`."""
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
        """Number of files that failed."""
        return sum("error" in row for row in self.rows.values())

    def answer(self, file: Path) -> str:
        """Describe the result of a file in one line: its class, or its largest parts. Empty if the file failed."""
        row = self.rows[file]
        if "error" in row:
            return ""
        if "top" in row:
            best = row["top"][0]
            return f"{best['class']} {100 * best['probability']:.1f} %  {file}"
        # with one class, the prefix is redundant
        known = row["category"] is not None
        parts = [
            f"{name.rpartition('/')[2] if known else name} {100 * share:.0f} %"
            for name, share in row["parts"]
        ]
        what = f"parts of {row['category']}" if known else "parts"
        return f"{what}: {', '.join(parts[:TOP])}{', ...' if len(parts) > TOP else ''}  {file}"

    def write_summary(self, files: Sequence[Path], suffix: str = "") -> list[Path]:
        """Write ``predictions.csv`` and, for a classifier, ``predictions.json``; returns the files written.

        If no file was predicted, nothing is written, so the tables of an earlier run are kept.

        Args:
            files: as given to :meth:`run`. Rows have their order; files that were not reached have none.
            suffix: appended to the stem of the file names, to tell the processes of a distributed run apart.
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
        # with a known category, all other parts have probability 0
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
    """Return the predicted parts and their fractions of the points, which sum to 1, largest first."""
    counts = np.bincount(prediction.labels, minlength=len(prediction.names))
    order = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
    return [(prediction.names[i], float(counts[i] / counts.sum())) for i in order]


def _table(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[Sequence[object]]:
    """Return the rows of a CSV file, header first. Fields that a row lacks are empty."""
    return [columns, *([row.get(name, "") for name in columns] for row in rows)]
