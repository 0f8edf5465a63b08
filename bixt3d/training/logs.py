"""Log the curves of a run to CSV files and TensorBoard."""

from __future__ import annotations

import csv
from pathlib import Path

from ..io.writing import naming, write_csv


class RunLog:
    """Write named values by step to ``<name>.csv`` and to TensorBoard.

    Args:
        folder: the run's folder.
        step: step that the run starts or continues from. Rows of later steps, written before a crash, are removed, so
            that the curves of a resumed run equal those of an uninterrupted one.
    """

    def __init__(self, folder: Path, step: int = 0):
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        self._columns: dict[str, list[str]] = {}
        self._written: dict[str, int] = {}
        for path in sorted(folder.glob("[!.]*.csv")):
            self._rewind(path, step)
        # purge even at step 0: a run that was killed before its first checkpoint may have left points
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def _rewind(self, path: Path, step: int) -> None:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if not reader.fieldnames or "step" not in reader.fieldnames:
                return
            # a killed run may have left an incomplete last row
            rows = [r for r in reader if (r["step"] or "").isdigit() and None not in r.values()]
            columns = list(reader.fieldnames)
        kept = [r for r in rows if int(r["step"]) <= step]
        write_csv(path, [columns, *([r[column] for column in columns] for r in kept)])
        self._columns[path.stem] = columns
        self._written[path.stem] = max((int(r["step"]) for r in kept), default=-1)

    def write(self, name: str, step: int, **values: float) -> None:
        """Append one row to ``<name>.csv``; all rows of a name must have the same columns.

        Steps up to the last one in the file are skipped: they were written before the run was interrupted.
        """
        if step <= self._written.get(name, -1):
            return
        row = {"step": step, **values}
        path = self.folder / f"{name}.csv"
        new = name not in self._columns
        columns = self._columns.setdefault(name, list(row))
        with naming(path), path.open("a", newline="", encoding="utf-8") as file:
            # a file begun by an older version may lack a column; the new value is then not written
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            if new:
                writer.writeheader()
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        with naming(self.folder / "tensorboard"):
            for key, value in values.items():
                self._board.add_scalar(f"{name}/{key}", value, step)

    def close(self) -> None:
        """Flush and close the TensorBoard log."""
        with naming(self.folder / "tensorboard"):
            self._board.close()
