"""Readers of OASIS-1 and OASIS-2."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mrbench.cards import Options
from mrbench.data.missing import place_of
from mrbench.data.nifti import check_axcodes, nifti_files, read_nifti, stated_axcodes
from mrbench.data.records import BadSource, Volume, VolumeRef
from mrbench.data.splits import hash_split
from mrbench.data.symmetry import mirror_correlations
from mrbench.data.walking import files_below
from mrbench.errors import DataError, UserError

from . import OASIS1, OASIS2, Oasis1Options, Oasis2Options

_VISIT = r"(?P<subject>OAS\d_\d{4})_MR(?P<visit>\d+)"
_HALF = r"\.(hdr|img)(\.gz)?"
_NAMES = {
    "raw": rf"{_VISIT}_mpr-(?P<repeat>\d)_anon{_HALF}",
    "subj_111": rf"{_VISIT}_mpr_n\d_anon_sbj_111{_HALF}",  # n4: four acquisitions were averaged
    "t88_111": rf"{_VISIT}_mpr_n\d_anon_111_t88_gfc{_HALF}",
    "t88_111_masked": rf"{_VISIT}_mpr_n\d_anon_111_t88_masked_gfc{_HALF}",
}
#: Where the stored axes run to: sagittal storage of the scanner (anterior, superior, left), and the atlas's.
STORED_AXES = {"raw": "ASL", "subj_111": "ASL", "t88_111": "LAS", "t88_111_masked": "LAS"}
_REPEAT = re.compile(rf"mpr-(?P<repeat>\d)\.nifti{_HALF}")
_VISIT_FOLDER = re.compile(r"(?P<subject>OAS2_\d{4})_MR(?P<visit>\d+)")
_ASYMMETRY = 0.03  # by which the left-right axis may be less symmetric than another; at most 0 in 43 real heads


@dataclass(frozen=True)
class _Found:
    """One file of an acquisition or product of a visit."""

    subject: str
    visit: int
    repeat: int
    name: str
    file: Path


class Oasis1Dataset:
    """T1 volumes of OASIS-1. After :meth:`refs`, ``warnings`` holds what headers say against the known storage."""

    def __init__(self, options: Options) -> None:
        """Check ``axcodes`` (``UserError``); files are looked at by :meth:`refs`."""
        if not isinstance(options, Oasis1Options):
            raise TypeError(f"expected Oasis1Options, got {type(options).__name__}")
        self.options = options
        self.axcodes = check_axcodes(options.axcodes or STORED_AXES[options.product])
        self.warnings: list[str] = []

    def refs(self) -> list[VolumeRef | BadSource]:
        """All volumes of the product, by person, visit and repeat. Only headers are read.

        Raises
        ------
        UserError : no place is known, or no volume of the product is there.
        """
        self.warnings = []
        root = place_of(OASIS1, self.options.path)
        pattern = re.compile(_NAMES[self.options.product])
        found = []
        for file in files_below(root):
            match = pattern.fullmatch(file.name)
            if match:
                repeat = int(match["repeat"]) if "repeat" in pattern.groupindex else 0
                name = file.name[: re.search(rf"{_HALF}$", file.name).start()]  # type: ignore[union-attr]
                found.append(_Found(match["subject"], int(match["visit"]), repeat, name, file))
        if not found:
            raise UserError(
                f"oasis1: no file of product={self.options.product} below {root}; expected files that match "
                f"{_NAMES[self.options.product]}. Choose another with --set oasis1.product=..., or unpack the discs there."
            )
        chosen = _chosen(found, self.options.visits, self.options.repeats)
        result = _refs(root, chosen, self.options.split_seed, self.axcodes)
        self._compare(result, self.axcodes)
        return result

    def read(self, ref: VolumeRef) -> Volume:
        """The volume with the affine of its product; arbitrary units.

        Raises
        ------
        DataError : damaged, half of the pair is missing, or the head is clearly more symmetric along another axis than along
            the one that is taken for left-right.
        """
        volume = read_nifti(ref.files[0], assume_axcodes=ref.extra["axcodes"])
        _check_symmetry(ref.files[0], volume, ref.extra["axcodes"], OASIS1.name)
        return volume

    def _compare(self, result: list[VolumeRef | BadSource], codes: str) -> None:
        """Warn where the header's orient byte speaks against the known storage (0, not said, is what it usually is)."""
        said: dict[str, int] = {}
        for ref in result:
            if isinstance(ref, VolumeRef):
                try:
                    found = stated_axcodes(ref.files[0])
                except DataError:
                    continue  # reading it will say what is wrong
                if found not in ("", codes):
                    said[found] = said.get(found, 0) + 1
        for found, count in sorted(said.items()):
            self.warnings.append(
                f"{count} header(s) say that the axes run to {found}; {codes} is used (product={self.options.product}, option "
                "axcodes). Look at a slice."
            )


class Oasis2Dataset:
    """T1 volumes of OASIS-2."""

    def __init__(self, options: Options) -> None:
        """Check ``axcodes`` (``UserError``); files are looked at by :meth:`refs`."""
        if not isinstance(options, Oasis2Options):
            raise TypeError(f"expected Oasis2Options, got {type(options).__name__}")
        self.options = options
        self.axcodes = check_axcodes(options.axcodes)
        self.warnings: list[str] = []

    def refs(self) -> list[VolumeRef | BadSource]:
        """All volumes by person, visit and repeat; no file but the table is opened.

        Raises
        ------
        UserError : no place is known, no volume is there, or the table of groups is missing or not such a table.
        """
        self.warnings = []
        root = place_of(OASIS2, self.options.path)
        groups = _groups(self.options)
        found = []
        for file in files_below(root):
            match = _REPEAT.fullmatch(file.name)
            visit = next((m for part in reversed(file.relative_to(root).parts) if (m := _VISIT_FOLDER.fullmatch(part))), None)
            visit = visit or _VISIT_FOLDER.fullmatch(root.name)
            if match and visit:
                name = f"{visit['subject']}_MR{visit['visit']}_mpr-{match['repeat']}"
                found.append(_Found(visit["subject"], int(visit["visit"]), int(match["repeat"]), name, file))
        if not found:
            raise UserError(
                f"oasis2: no volume below {root}; expected files like OAS2_0001_MR1/RAW/mpr-1.nifti.img. Unpack the parts there."
            )
        if self.options.group != "all":
            unknown = sorted({f.subject for f in found} - set(groups))
            if unknown:
                self.warnings.append(f"{len(unknown)} people are not in the table and are left out: {', '.join(unknown[:3])}")
            found = [f for f in found if groups.get(f.subject) == self.options.group]
            if not found:
                raise UserError(f"oasis2: nobody below {root} is of the group {self.options.group} in {self.options.table}.")
        chosen = _chosen(found, self.options.visits, self.options.repeats)
        return _refs(root, chosen, self.options.split_seed, self.axcodes)

    def read(self, ref: VolumeRef) -> Volume:
        """The volume; its affine is the header's, else that of the option ``axcodes``. Arbitrary units.

        Raises
        ------
        DataError : damaged, half of the pair is missing, or the head is clearly more symmetric along another axis than along
            the one that ``axcodes`` calls left-right.
        """
        volume = read_nifti(ref.files[0], assume_axcodes=ref.extra["axcodes"])
        if not stated_axcodes(ref.files[0]):
            _check_symmetry(ref.files[0], volume, ref.extra["axcodes"], OASIS2.name)
        return volume


def _check_symmetry(file: Path, volume: Volume, codes: str, name: str) -> None:
    symmetry = mirror_correlations(volume.array[0])
    claimed = next(axis for axis, code in enumerate(codes) if code in "LR")
    best = max(range(3), key=lambda axis: -math.inf if math.isnan(symmetry[axis]) else symmetry[axis])
    if symmetry[best] - symmetry[claimed] > _ASYMMETRY:
        raise DataError(
            file,
            f"its header does not say how it is stored; {codes} is taken, so axis {claimed} is left-right, but the head is its "
            f"own mirror image along axis {best} (correlations {', '.join(f'{c:.2f}' for c in symmetry)}).",
            f"Look at the volume and say where its axes run to: --set {name}.axcodes=...",
        )


def _chosen(found: list[_Found], visits: Literal["first", "all"], repeats: Literal["first", "all"]) -> list[_Found]:
    """One file of each acquisition (the header's, if there), of the visits and repeats that are wanted, in their order."""
    ordered = sorted(found, key=lambda f: (f.subject, f.visit, f.repeat, f.name, f.file))
    if visits == "first":
        first = {f.subject: f.visit for f in reversed(ordered)}
        ordered = [f for f in ordered if f.visit == first[f.subject]]
    if repeats == "first":
        least = {(f.subject, f.visit): f.repeat for f in reversed(ordered)}
        ordered = [f for f in ordered if f.repeat == least[f.subject, f.visit]]
    return ordered


def _refs(root: Path, chosen: list[_Found], seed: int, axcodes: str) -> list[VolumeRef | BadSource]:
    """References to the acquisitions; both halves of a pair are one, further copies elsewhere are reported."""
    result: list[VolumeRef | BadSource] = []
    seen: dict[str, Path] = {}
    for one in chosen:
        relative = one.file.relative_to(root).as_posix()
        try:
            files = nifti_files(one.file)
        except DataError as error:
            result.append(BadSource(one.subject, one.name, relative, f"{error.reason} {error.fix}".strip()))
            continue
        other = seen.get(one.name)
        if other == files[0]:
            continue  # the other half
        if other is not None:
            if one.file == files[0]:
                reason = f"a second copy of this volume; {other.relative_to(root).as_posix()} is used"
                result.append(BadSource(one.subject, one.name, relative, reason))
            continue
        seen[one.name] = files[0]
        split = hash_split(one.subject, seed)
        result.append(VolumeRef(one.subject, one.name, files, split=split, extra={"axcodes": axcodes}))
    return result


def _groups(options: Oasis2Options) -> Mapping[str, str]:
    """Group of each person, from the table."""
    if options.group == "all":
        return {}
    if not options.table:
        raise UserError(
            f"oasis2: group={options.group} needs the demographics table. Save the one of the page as CSV and name it: "
            "--set oasis2.table=FILE.csv"
        )
    path = Path(options.table).expanduser()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"oasis2: the table {path} cannot be read as CSV: {error}. Save it as CSV (UTF-8).") from None
    if not rows or not {"Subject ID", "Group"} <= set(rows[0]):
        have = ", ".join(rows[0]) if rows else "none"
        raise UserError(f"oasis2: the table {path} needs the columns 'Subject ID' and 'Group'. It has: {have}.")
    return {(row["Subject ID"] or "").strip(): (row["Group"] or "").strip() for row in rows}


__all__ = ["STORED_AXES", "Oasis1Dataset", "Oasis2Dataset"]
