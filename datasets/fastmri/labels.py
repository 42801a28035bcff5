"""The prostate set's label tables: which patient a file belongs to, and the official split."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

from mrbench.data.splits import Split
from mrbench.errors import UserError

COLUMNS = ("fastmri_pt_id", "slice", "fastmri_rawfile", "data_split")
_SPLITS: dict[str, Split] = {"training": "train", "train": "train", "validation": "val", "val": "val", "test": "test"}


@dataclass(frozen=True)
class Labels:
    """What the tables say.

    patients : file name -> patient number. splits : patient number -> split. slices : file name -> number of the last slice
    (slices are numbered from 1).
    """

    patients: dict[str, int] = field(default_factory=dict)
    splits: dict[int, Split] = field(default_factory=dict)
    slices: dict[str, int] = field(default_factory=dict)


def read_labels(root: Path, named: str) -> Labels:
    """Read the table ``named``, or every label table under ``root`` (CSV files with the columns of :data:`COLUMNS`).

    Raises
    ------
    UserError : the named table is not there or not such a table; a bad cell (with its line); slices that are not numbered from
        1; a patient in two splits, or a file of two patients.
    """
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise UserError(f"fastmri_prostate.labels={named}: there is no such file.")
        if not _is_table(path):
            raise UserError(f"{path} is no slice-level label table: expected the columns {', '.join(COLUMNS)}.")
        tables = [path]
    else:
        hidden = (p for p in sorted(root.rglob("*.csv")) if not any(n.startswith(".") for n in p.relative_to(root).parts))
        tables = [path for path in hidden if _is_table(path)]
    labels = Labels()
    for table in tables:
        _add(table, labels)
    return labels


def _is_table(path: Path) -> bool:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return set(COLUMNS) <= {name.strip() for name in next(csv.reader(file), [])}
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def _add(path: Path, labels: Labels) -> None:
    first = ""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = [name.strip() for name in next(reader)]
            for cells in reader:
                if not any(cells):
                    continue
                row = dict(zip(columns, cells, strict=False))
                first = first or row.get("slice", "")
                _add_row(f"{path}, line {reader.line_num}", row, labels)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}. Expected a CSV file in UTF-8.") from error


def _add_row(where: str, row: dict[str, str], labels: Labels) -> None:
    try:
        patient, number = int(row["fastmri_pt_id"]), int(row["slice"])
        name = row["fastmri_rawfile"].strip()
        split = _SPLITS[row["data_split"].strip().lower()]
    except (KeyError, ValueError) as error:
        raise UserError(f"{where}: {error} is missing or not as expected ({', '.join(COLUMNS)}).") from error
    if number < 1:
        raise UserError(f"{where}: slice {number}; slices are numbered from 1 in these tables.")
    if labels.splits.setdefault(patient, split) != split:
        raise UserError(f"{where}: patient {patient} is in two splits, {labels.splits[patient]} and {split}.")
    if labels.patients.setdefault(name, patient) != patient:
        raise UserError(f"{where}: {name} belongs to two patients, {labels.patients[name]} and {patient}.")
    labels.slices[name] = max(number, labels.slices.get(name, 0))
