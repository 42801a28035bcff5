"""What the three fastMRI sets share: finding files, splits by patient, patients that stand on two sides."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from mrbench.data.fastmri import ScanInfo, inspect_scan
from mrbench.data.records import BadSource, VolumeRef
from mrbench.data.splits import Split, hash_split
from mrbench.data.walking import files_below
from mrbench.errors import DataError, UserError

Folder = Literal["train", "val", "test"]

_WORDS: dict[str, Folder] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test", "challenge": "test",
}  # fmt: skip
_FOLDER = re.compile(rf"(?:.*(?:single|multi)coil_)?({'|'.join(_WORDS)})(?:_full|_v\d+|_batch_\d+)*")
_SUFFIXES = (".h5", ".hdf5")
_ARCHIVES = (".tar", ".tar.xz", ".tar.gz", ".tgz", ".zip", ".xz")
#: A patient on several sides stays on the first of these.
_PRECEDENCE: tuple[Split, ...] = ("test", "val", "train")
_VAL_OF_TRAIN = (0.9, 0.1, 0.0)


@dataclass(frozen=True)
class Scan:
    """A file that could be opened: its path, the same relative to the root, what it holds, the split that its folder names."""

    path: Path
    relative: PurePosixPath
    info: ScanInfo
    folder: Folder | None

    @property
    def stem(self) -> str:
        """Its name without the ending."""
        return self.relative.stem

    @property
    def patient(self) -> str:
        """Its patient, or the file itself where it does not say."""
        return self.info.patient or self.stem


def find_scans(root: Path, card: str) -> tuple[list[Scan], list[BadSource]]:
    """Open all ``.h5`` files under ``root`` in the order of their paths; hidden files and folders do not count.

    No pixels are read: a truncated file shows when it is opened.

    Raises
    ------
    UserError : there is no such file (if there are packed archives, it says so).
    """
    scans: list[Scan] = []
    bad: list[BadSource] = []
    files = _files(root)
    if not files:
        packed = sorted(f.name for f in root.rglob("*") if f.name.lower().endswith(_ARCHIVES))
        hint = f" Unpack {packed[0]}{' and the others' if len(packed) > 1 else ''} first." if packed else ""
        raise UserError(f"{card}: no .h5 file in {root} or below.{hint or ' Name the folder with the unpacked archives.'}")
    for path in files:
        relative = PurePosixPath(path.relative_to(root).as_posix())
        try:
            scans.append(Scan(path, relative, inspect_scan(path), folder_split(relative, root.name)))
        except DataError as error:
            bad.append(BadSource("", relative.stem, str(relative), f"{error.reason} {error.fix}".strip()))
    return scans, bad


def folder_split(relative: PurePosixPath, root_name: str = "") -> Folder | None:
    """The split that a file's folders name; the innermost says, ``None`` if none does.

    A folder's whole name counts (``multicoil_val``, ``knee_singlecoil_train_batch_0``, ``training``), not a word in any name.
    """
    for part in (*reversed(relative.parent.parts), root_name):
        match = _FOLDER.fullmatch(part.lower())
        if match:
            return _WORDS[match[1]]
    return None


def split_of(patient: str, folder: Folder | None, rule: str, seed: int) -> Split:
    """The split of a scan; see the option ``split``. Without a folder that names one: 70/15/15 by a seeded hash of the patient."""
    if rule == "hash" or folder is None:
        return hash_split(patient, seed)
    if rule == "official":
        return folder
    return hash_split(patient, seed, _VAL_OF_TRAIN) if folder == "train" else "test"


def one_side(refs: Sequence[VolumeRef], root: Path) -> tuple[list[VolumeRef | BadSource], list[str]]:
    """Keep each patient in one split: test before val before train; volumes on the other sides become unusable, with the reason.

    Returns
    -------
    the volumes in their order, and warnings.
    """
    sides: dict[str, set[Split]] = defaultdict(set)
    for ref in refs:
        sides[ref.subject].add(_split(ref))
    keeps = {subject: next(s for s in _PRECEDENCE if s in found) for subject, found in sides.items()}
    result: list[VolumeRef | BadSource] = []
    lost: Counter[str] = Counter()
    for ref in refs:
        keep = keeps[ref.subject]
        if ref.split == keep:
            result.append(ref)
            continue
        lost[ref.subject] += 1
        reason = f"it is in the split {ref.split!r}, but its patient has scans in {keep!r}, too: left out, so that nobody is on two sides"
        result.append(BadSource(ref.subject, ref.volume, ref.files[0].relative_to(root).as_posix(), reason))
    warnings = []
    if lost:
        warnings.append(
            f"{len(lost)} patient(s) have scans in several splits; {lost.total()} scan(s) on the less protected side are left out "
            f"(test goes before val before train): {', '.join(sorted(lost)[:3])}{', ...' if len(lost) > 3 else ''}"
        )
    return result, warnings


def first_patients(refs: Sequence[VolumeRef], count: int, seed: int) -> list[VolumeRef]:
    """The volumes of the first ``count`` patients of each split, in the order of a seeded hash (0: all)."""
    if not count:
        return list(refs)
    chosen: set[tuple[str, str]] = set()
    for split in _PRECEDENCE:
        subjects = {ref.subject for ref in refs if ref.split == split}
        order = sorted(subjects, key=lambda s: hashlib.sha256(f"{seed}\x00patients\x00{s}".encode()).hexdigest())
        chosen |= {(split, subject) for subject in order[:count]}
    return [ref for ref in refs if (ref.split, ref.subject) in chosen]


def refuse_twins(refs: Sequence[VolumeRef], root: Path, card: str, advice: str = "") -> None:
    """Raise ``UserError`` where two files would be one volume of one patient, naming both."""
    seen: dict[tuple[str, str], VolumeRef] = {}
    for ref in refs:
        other = seen.setdefault((ref.subject, ref.volume), ref)
        if other is not ref:
            first, second = (r.files[0].relative_to(root).as_posix() for r in (other, ref))
            raise UserError(
                f"{card}: {first} and {second} are both the scan {ref.volume!r} of one patient. "
                f"{advice or 'Remove one, or name a narrower folder as path.'}"
            )


def without_masked_twins(bad: Sequence[BadSource], refs: Sequence[VolumeRef]) -> tuple[list[BadSource], int]:
    """Leave out scans without ground truth that are there with it, too (``test`` beside ``test_full``); and how many."""
    whole = {(ref.subject, ref.volume) for ref in refs}
    kept = [source for source in bad if (source.subject, source.volume) not in whole]
    return kept, len(bad) - len(kept)


def _split(ref: VolumeRef) -> Split:
    return next(s for s in _PRECEDENCE if s == ref.split)


def _files(root: Path) -> list[Path]:
    return [file for file in files_below(root) if file.name.lower().endswith(_SUFFIXES)]
