"""A folder of files as a data set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from mrbench.cards import Options
from mrbench.data.dicom import Series, read_dicom
from mrbench.data.manifest import NAME, ManifestVolume, read_manifest, stem_of, voxel_from_json
from mrbench.data.nifti import check_axcodes, is_pair_image, nifti_files
from mrbench.data.reading import read_stack, read_volume
from mrbench.data.records import BadSource, Volume, VolumeRef
from mrbench.data.sniffing import ARRAYS, DICOM, HDF5, IMAGES, NIFTI_LIKE, NOT_TAKEN, Kind, sniff
from mrbench.data.splits import Split, hash_split
from mrbench.data.walking import files_below
from mrbench.errors import DataError, UserError

from . import FolderOptions
from .series import listed_series, series_refs

_IGNORED_STEMS = {
    "license", "licence", "copying", "notice", "readme", "source", "changes", "changelog", "citation", "authors", "manifest",
    "thumbs", "desktop", "dicomdir",
}  # fmt: skip
_IGNORED_SUFFIXES = {".md", ".txt", ".json", ".tsv", ".csv", ".bval", ".bvec", ".ini", ".db"}
_BIDS_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")
_ROOT = "root"  # subject of files that lie directly in the folder


class FolderDataset:
    """Volumes from a folder, with or without a ``manifest.csv``; see the README of this data set for the rules.

    After :meth:`refs`, ``warnings`` holds what the user should know about subjects and scaling.
    """

    def __init__(self, options: Options) -> None:
        """Check ``subject`` and ``assume_axcodes`` (``UserError``); the folder itself is looked at by :meth:`refs`."""
        if not isinstance(options, FolderOptions):
            raise TypeError(f"expected FolderOptions, got {type(options).__name__}")
        self.options = options
        self.warnings: list[str] = []
        self.shared_subjects = options.shared_subjects
        if options.assume_axcodes is not None:
            check_axcodes(options.assume_axcodes)
        self._subject_regex = _subject_regex(options.subject)

    def refs(self) -> list[VolumeRef | BadSource]:
        """All volumes, sorted by (first) path (with a manifest: in its order). Only the first bytes of the files are read, and
        the headers of DICOM files.

        Raises
        ------
        UserError : no path given, no such folder, an empty one, mistakes in the manifest, two files with one name.
        """
        self.warnings = []
        root = self._root()
        if (root / NAME).is_file():
            return self._from_manifest(root)
        found = self._found(root)
        if not found:
            raise UserError(
                f"folder.path={self.options.path}: no file in it matches pattern={self.options.pattern!r} "
                f"(recursive={self.options.recursive}; hidden and text files do not count)."
            )
        refs = [ref for ref in found if isinstance(ref, VolumeRef)]
        self._check_names(root, refs)
        self._warn([ref for ref in refs if ref.extra["reader"] != "dicom"])  # those say themselves whose they are
        return found

    def read(self, ref: VolumeRef) -> Volume:
        """Read one volume: a stack of pictures, or one file.

        Raises
        ------
        DataError : a file is unusable; it is named.
        """
        voxel = voxel_from_json(ref.extra.get("voxel", (None, None, None)))
        if ref.extra["reader"] == "stack":
            return read_stack(ref.files, voxel)
        if ref.extra["reader"] == "dicom":
            return read_dicom(ref.files, ref.extra.get("frames", ()))
        extra = ref.extra
        return read_volume(ref.files[0], extra.get("volume_index"), extra.get("assume_axcodes"), extra.get("key"), voxel)

    def _root(self) -> Path:
        if not self.options.path:
            raise UserError(
                "the data set 'folder' needs a folder: --set folder.path=DIR, or once for all: mrbench data add folder DIR"
            )
        root = Path(os.path.abspath(Path(self.options.path).expanduser()))
        if not root.exists():
            raise UserError(f"folder.path={self.options.path}: there is no such folder ({root}).")
        if not root.is_dir():
            raise UserError(
                f"folder.path={self.options.path} is a file. Give the folder that it is in: --set folder.path={root.parent}"
            )
        try:
            os.listdir(root)
        except OSError as error:
            raise UserError(
                f"folder.path={self.options.path} cannot be read: {error.strerror}. Check its permissions."
            ) from error
        return root

    # --- without a manifest

    def _files(self, root: Path) -> Iterator[Path]:
        for file in self._walk(root):
            relative = file.relative_to(root).as_posix()
            if fnmatch(relative if "/" in self.options.pattern else file.name, self.options.pattern):
                yield file

    def _walk(self, root: Path) -> list[Path]:
        """Candidate files in the order of their relative paths; links to folders are followed once."""
        enter = None if self.options.recursive else lambda name: False
        return [file for file in files_below(root, enter) if not _ignored(file.name)]

    def _found(self, root: Path) -> list[VolumeRef | BadSource]:
        found: list[tuple[str, VolumeRef | BadSource]] = []
        dicom: list[Path] = []
        for file in self._files(root):
            if _is_dicom(file):
                dicom.append(file)
            elif not is_pair_image(file):
                found.append((file.relative_to(root).as_posix(), self._from_file(root, file)))
        found += series_refs(root, dicom, self._series_subject, self._split)
        return [ref for _, ref in sorted(found, key=lambda entry: entry[0])]

    def _from_file(self, root: Path, file: Path) -> VolumeRef | BadSource:
        relative = file.relative_to(root).as_posix()
        subject, volume = self._subject(relative), stem_of(relative)
        if subject is None:
            reason = f"the regular expression subject={self.options.subject!r} finds nothing in its path"
            return BadSource("", volume, relative, reason)
        try:
            kind = sniff(file)
            half = file.name.lower().endswith((".img", ".img.gz"))
            if kind in NOT_TAKEN and kind not in HDF5 and not half:
                raise DataError(file, *NOT_TAKEN[kind])
            files = nifti_files(file) if half or kind in NIFTI_LIKE else (file,)
        except DataError as error:
            return BadSource(subject, volume, relative, f"{error.reason} {error.fix}".strip())
        return VolumeRef(subject, volume, files, split=self._split(subject), extra={"reader": "file", **self._reading(kind)})

    def _subject(self, relative: str) -> str | None:
        parent = PurePosixPath(relative).parent
        if self._subject_regex is not None:
            match = self._subject_regex.search(relative)
            if match is None:
                return None
            return match["subject"] if "subject" in self._subject_regex.groupindex else match[1]
        if self.options.subject == "file":
            return stem_of(relative)
        bids = next((part for part in parent.parts if _BIDS_SUBJECT.fullmatch(part)), None)
        return bids or (str(parent) if parent.parts else _ROOT)

    def _series_subject(self, series: Series, relative: str) -> str | None:
        if self.options.subject == "file":
            return series.name
        return (series.subject if self.options.subject == "parent" else "") or self._subject(relative)

    def _check_names(self, root: Path, refs: list[VolumeRef]) -> None:
        seen: dict[tuple[str, str], VolumeRef] = {}
        for ref in refs:
            other = seen.setdefault((ref.subject, ref.volume), ref)
            if other is not ref:
                first, second = (r.files[0].relative_to(root) for r in (other, ref))
                raise UserError(
                    f"folder.path={self.options.path}: {first} and {second} would both be volume {ref.volume!r} of subject "
                    f"{ref.subject!r}. Rename one, narrow the pattern, choose another rule for subject, or write a {NAME}."
                )

    def _warn(self, refs: list[VolumeRef]) -> None:
        subjects = {ref.subject for ref in refs}
        if len(refs) > 1 and len(subjects) == 1:
            self.warnings.append(
                f"all {len(refs)} files count as one subject, {subjects.pop()!r} (subject={self.options.subject}); if they are "
                f"several people, say how to tell: subject=file, a regular expression, or a {NAME}"
            )
        pictures = sum(len(ref.files) == 1 and ref.extra.get("picture", False) for ref in refs)
        if pictures:
            self.warnings.append(
                f"{pictures} picture(s) without a {NAME}: each is a volume of its own and is scaled by its own values; a "
                f"{NAME} groups the slices of one volume, which then share one scale"
            )

    # --- with a manifest

    def _from_manifest(self, root: Path) -> list[VolumeRef | BadSource]:
        manifest = read_manifest(root / NAME, self.options.shared_subjects)
        self.warnings += manifest.warnings
        for name in ("subject", "pattern"):
            if getattr(self.options, name) != FolderOptions.model_fields[name].default:
                self.warnings.append(f"the option {name} is not used: the folder has a {NAME}")
        listed = {file for volume in manifest.volumes for file in volume.files}
        unlisted = [f for f in self._walk(root) if f not in listed and not is_pair_image(f)]
        if unlisted:
            shown = ", ".join(file.relative_to(root).as_posix() for file in unlisted[:3])
            self.warnings.append(
                f"{len(unlisted)} file(s) not listed in {NAME} are not used: {shown}{', ...' if len(unlisted) > 3 else ''}"
            )
        return [self._from_rows(root, volume) for volume in manifest.volumes]

    def _from_rows(self, root: Path, volume: ManifestVolume) -> VolumeRef | BadSource:
        first = volume.files[0]
        split = volume.split or self._split(volume.subject)
        try:
            kinds = [sniff(file) for file in volume.files]
            if all(kind in DICOM for kind in kinds):
                return listed_series(root, volume.files, volume.subject, volume.volume, split)
            for file, kind in zip(volume.files, kinds, strict=True):
                if kind in NOT_TAKEN and kind not in HDF5 and not is_pair_image(file):
                    raise DataError(file, *NOT_TAKEN[kind])
                if len(volume.files) > 1 and kind not in IMAGES:
                    raise DataError(
                        file, f"{NAME} makes it one slice of {len(volume.files)}, but it is a {kind} file.",
                        "Give a volume in one file a row and a volume name of its own.",
                    )  # fmt: skip
            if len(volume.files) == 1 and (kinds[0] in NIFTI_LIKE or is_pair_image(first)):
                extra = {"reader": "file", **self._reading("nifti")}
                return VolumeRef(volume.subject, volume.volume, nifti_files(first), split=split, extra=extra)
        except DataError as error:
            name = Path(error.file).relative_to(root).as_posix()
            return BadSource(volume.subject, volume.volume, name, f"{error.reason} {error.fix}".strip())
        extra = {"reader": "file", **self._reading(kinds[0])} if len(volume.files) == 1 else {"reader": "stack"}
        return VolumeRef(
            volume.subject,
            volume.volume,
            volume.files,
            volume.labels,
            split=split,
            extra={**extra, "voxel": list(volume.voxel)},
        )

    # --- both

    def _split(self, subject: str) -> Split:
        if self.options.split == "hash":
            return hash_split(subject, self.options.split_seed)
        return "train" if self.options.split == "all_train" else "test"

    def _reading(self, kind: Kind) -> dict[str, Any]:
        """Only the options that matter for this kind: they enter the cache key and the item hash."""
        if kind in ARRAYS:
            return {"key": self.options.key} if kind == "npz" else {}
        if kind in HDF5:
            return {"key": self.options.key, "volume_index": self.options.volume_index}
        if kind in IMAGES:
            return {"picture": True}
        axcodes = self.options.assume_axcodes
        return {"volume_index": self.options.volume_index, "assume_axcodes": axcodes.upper() if axcodes else None}


def _is_dicom(file: Path) -> bool:
    try:
        return sniff(file) in DICOM
    except DataError:
        return False


def _subject_regex(rule: str) -> re.Pattern[str] | None:
    if rule in ("parent", "file"):
        return None
    try:
        regex = re.compile(rule)
    except re.error as error:
        raise UserError(f"folder.subject={rule!r} is neither 'parent' nor 'file' nor a regular expression: {error}.") from error
    if regex.groups != 1 and "subject" not in regex.groupindex:
        raise UserError(
            f"folder.subject={rule!r} is neither 'parent' nor 'file', and as a regular expression it has {regex.groups} "
            "groups. Expected one group, or one named 'subject': e.g. (sub-[0-9]+)"
        )
    return regex


def _ignored(name: str) -> bool:
    if name.startswith(".") or name.lower().split(".")[0] in _IGNORED_STEMS:
        return True
    return PurePosixPath(name.lower()).suffix in _IGNORED_SUFFIXES
