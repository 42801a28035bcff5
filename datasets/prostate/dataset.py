"""Axial T2-weighted DICOM series below a folder."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from mrbench.cards import Options
from mrbench.data.dicom import arrange, find_series, frames_of, is_dicom, read_dicom
from mrbench.data.missing import place_of
from mrbench.data.records import BadSource, Volume, VolumeRef
from mrbench.data.sniffing import start_of
from mrbench.data.splits import Split, hash_split
from mrbench.data.walking import files_below
from mrbench.errors import DataError, UserError

from . import ProstateOptions, mrbench_datasets
from .choice import Candidate, NotTaken, chosen, summary, why_not, why_not_arranged

#: The filters of the ``res_srdiff_*`` protocols' data set: distance between slices and its tolerance in mm, number of slices.
PAPER_SLICE_MM, PAPER_TOLERANCE_MM, PAPER_MIN_SLICES = 1.5, 0.1, 30


class ProstateDataset:
    """One volume a study: its axial T2w series. Chosen by headers alone; see the README of this data set for the rules.

    After :meth:`refs`, ``not_taken`` lists every readable series that is not part of the data set, with the reason, and
    ``warnings`` sums them up.
    """

    def __init__(self, options: Options) -> None:
        """Check ``description`` (``UserError``); the folder itself is looked at by :meth:`refs`."""
        if not isinstance(options, ProstateOptions):
            raise TypeError(f"expected ProstateOptions, got {type(options).__name__}")
        self.options = options
        self.warnings: list[str] = []
        self.not_taken: list[NotTaken] = []
        try:
            re.compile(options.description)
        except re.error as error:
            raise UserError(f"prostate.description={options.description!r} is not a regular expression: {error}.") from error

    def refs(self) -> list[VolumeRef | BadSource]:
        """All volumes, by subject and then series; and what should have been one and cannot be used.

        Only headers are read, anew on each call.

        Raises
        ------
        UserError : no path given (with how to get the files), no such folder, no DICOM file in it, no series that counts.
        """
        self.warnings, self.not_taken = [], []
        root = place_of(mrbench_datasets()[0], self.options.path)
        files, broken = _dicom_files(root)
        found = find_series(files)
        bad = broken + [_bad("", Path(error.file).name, root, error) for error in found.unreadable]
        if not found.series and not bad:
            raise UserError(
                f"prostate.path={self.options.path}: there is no DICOM file in it. Name the folder with the files as downloaded "
                "(unpack archives first): mrbench data add prostate PATH."
            )
        candidates: list[Candidate] = []
        for series in found.series:
            file = _relative(root, series.first.file)
            reason = why_not(series, self.options)
            try:
                if not reason and not series.subject:
                    raise DataError(
                        series.first.file, "neither PatientID nor StudyInstanceUID says whose it is.", "Leave it out."
                    )
                stack = arrange(series) if not reason else None
            except DataError as error:
                bad.append(_bad(series.subject, series.name, root, error))
                continue
            if stack is not None:
                reason = why_not_arranged(stack, self.options)
            if stack is None or reason:
                self.not_taken.append(NotTaken(series.subject, series.name, file, reason))
            else:
                candidates.append(Candidate(series, stack))
        refs = [self._ref(candidate) for candidate in self._choose(root, candidates)]
        self.warnings = summary(self.not_taken)
        if not refs and not bad:
            raise UserError(
                f"prostate.path={self.options.path}: none of its {len(found.series)} series is axial, T2-weighted and within the "
                "options.\n  " + "\n  ".join(self.warnings[:5])
            )
        return sorted([*refs, *bad], key=lambda ref: (ref.subject, ref.volume, getattr(ref, "file", "")))

    def read(self, ref: VolumeRef) -> Volume:
        """Read one volume, slice by slice.

        Raises
        ------
        DataError : see :func:`mrbench.data.dicom.read_dicom`.
        """
        return read_dicom(ref.files, ref.extra.get("frames", ()))

    def _choose(self, root: Path, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        if self.options.choose == "all":
            return candidates
        kept, left = chosen(candidates)
        for candidate, winner in left:
            series = candidate.series
            longer = len(winner.stack.slices) > len(candidate.stack.slices)
            reason = f"another series of the study {'is longer' if longer else 'comes first'} (choose=all takes both)"
            self.not_taken.append(NotTaken(series.subject, series.name, _relative(root, series.first.file), reason))
        return kept

    def _ref(self, candidate: Candidate) -> VolumeRef:
        files, frames = frames_of(candidate.stack)
        subject = candidate.series.subject
        split: Split = "test" if self.options.split == "all_test" else hash_split(subject, self.options.split_seed)
        extra = {"slices": len(candidate.stack.slices), "slice_mm": round(candidate.stack.spacing, 3)}
        return VolumeRef(
            subject, candidate.series.name, files, split=split, extra={**extra, **({"frames": frames} if frames else {})}
        )


def protocol_filters(
    refs: Sequence[VolumeRef | BadSource],
    slice_mm: float = PAPER_SLICE_MM,
    tolerance_mm: float = PAPER_TOLERANCE_MM,
    min_slices: int = PAPER_MIN_SLICES,
) -> list[str]:
    """Which volumes the filters of the ``res_srdiff_*`` protocols would drop.

    Parameters
    ----------
    refs : as :meth:`ProstateDataset.refs` gives them.
    slice_mm, tolerance_mm : distance between slice centres that is asked for.
    min_slices : least number of slices.

    Returns
    -------
    Nothing if all pass; else one sentence with the number, and one a volume, with what it is and what is asked for.
    """
    volumes = [ref for ref in refs if isinstance(ref, VolumeRef)]
    sentences = []
    for ref in volumes:
        spacing, slices = float(ref.extra.get("slice_mm", math.nan)), int(ref.extra.get("slices", 0))
        faults = []
        if not abs(spacing - slice_mm) <= tolerance_mm + 1e-9:
            faults.append(f"its slices are {spacing:.2f} mm apart, not {slice_mm:g} +/- {tolerance_mm:g} mm")
        if slices < min_slices:
            faults.append(f"it has {slices} slices, not {min_slices} or more")
        if faults:
            sentences.append(f"{ref.subject}/{ref.volume}: {', and '.join(faults)}")
    if not sentences:
        return []
    return [
        f"The filters of res_srdiff_* ({slice_mm:g} +/- {tolerance_mm:g} mm between slices, {min_slices} slices or more) would "
        f"drop {len(sentences)} of {len(volumes)} volumes.",
        *sentences,
    ]


def _dicom_files(root: Path) -> tuple[list[Path], list[BadSource]]:
    """DICOM files by content, sorted by relative path; and files that are called .dcm and are not DICOM."""
    files: list[Path] = []
    broken: list[BadSource] = []
    for file in files_below(root):
        if file.name.upper() == "DICOMDIR":
            continue
        try:
            if is_dicom(start_of(file)):
                files.append(file)
            elif file.name.lower().endswith((".dcm", ".ima")):
                raise DataError(file, "by its content it is not a DICOM file.", "Fetch it again.")
        except DataError as error:
            broken.append(_bad("", file.name, root, error))
    return files, broken


def _bad(subject: str, volume: str, root: Path, error: DataError) -> BadSource:
    return BadSource(subject, volume, _relative(root, Path(error.file)), f"{error.reason} {error.fix}".strip())


def _relative(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()
