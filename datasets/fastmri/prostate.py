"""fastMRI prostate."""

from __future__ import annotations

import re

from mrbench.cards import Options
from mrbench.data.fastmri import read_scan
from mrbench.data.missing import place_of
from mrbench.data.records import BadSource, Volume, VolumeRef
from mrbench.data.splits import Split, hash_split
from mrbench.errors import UserError

from . import ProstateOptions, prostate_card
from .labels import Labels, read_labels
from .scans import Scan, find_scans, first_patients, one_side, refuse_twins

_NUMBER = re.compile(r"prostate\w*?_(\d{1,4})$")
_DIFFUSION = re.compile(r"dwi|axdiff|(?<![a-z])diff(usion)?(?![a-z])", re.IGNORECASE)


class ProstateDataset:
    """Axial prostate scans, T2-weighted or diffusion-weighted. After :meth:`refs`, ``warnings`` holds what the user should know."""

    def __init__(self, options: Options) -> None:
        """Refuse what the set cannot give (``UserError``)."""
        if not isinstance(options, ProstateOptions):
            raise TypeError(f"expected ProstateOptions, got {type(options).__name__}")
        if options.image == "complex":
            raise UserError(
                "fastmri_prostate.image=complex: each average of the k-space lacks lines that GRAPPA has to fill (about a quarter of "
                "an hour a scan), and the stored images are means of magnitudes over the averages, so no complex image belongs to "
                "them. Use image=rss; for complex images, fastmri_knee or fastmri_brain with image=complex."
            )
        self.options = options
        self.warnings: list[str] = []

    def refs(self) -> list[VolumeRef | BadSource]:
        """All scans of the sequence, by path. Files are opened; no pixels are read. Slices are labelled 001, 002, ...

        Raises
        ------
        UserError : no place known, no ``.h5`` file there, no scan of that sequence, a bad label table, or one scan twice.
        """
        options = self.options
        root = place_of(prostate_card(), options.path)
        self.warnings = []
        labels = read_labels(root, options.labels)
        scans, bad = find_scans(root, "fastmri_prostate")
        own = [scan for scan in scans if not _foreign(scan)]
        bad += [BadSource(s.patient, s.stem, str(s.relative), _foreign(s)) for s in scans if _foreign(s)]
        wanted = [scan for scan in own if is_diffusion(scan) == (options.sequence == "dwi")]
        if own and not wanted:
            raise UserError(
                f"fastmri_prostate: none of the {len(own)} scans is a {options.sequence} scan. "
                f"Use sequence={'t2' if options.sequence == 'dwi' else 'dwi'}, or add the other archives."
            )
        found = [self._from_scan(scan, labels) for scan in wanted]
        refs = [ref for ref in found if isinstance(ref, VolumeRef)]
        refuse_twins(refs, root, "fastmri_prostate")
        sided, warnings = one_side(refs, root)
        self._warn(wanted, labels)
        self.warnings += warnings
        usable = first_patients([r for r in sided if isinstance(r, VolumeRef)], options.patients, options.split_seed)
        unusable = [r for r in (*sided, *found) if isinstance(r, BadSource)]
        return [*usable, *unusable, *bad]

    def read(self, ref: VolumeRef) -> Volume:
        """Read one scan, slice by slice, as stored: the images were turned upright when they were made.

        Raises
        ------
        DataError : truncated or damaged; the last slice is read first.
        """
        return read_scan(ref.files[0], str(ref.extra["image"]), flip_rows=False)

    def _from_scan(self, scan: Scan, labels: Labels) -> VolumeRef | BadSource:
        name, options = scan.path.name, self.options
        patient = patient_of(scan, labels)
        key = options.dwi_map if options.sequence == "dwi" else "reconstruction_rss"
        if key not in scan.info.images:
            listing = ", ".join(scan.info.images) or "none"
            return BadSource(patient, scan.stem, str(scan.relative), f"it has no images {key!r} (it has: {listing}).")
        official = labels.splits.get(int(patient)) if patient.isdigit() else None
        if official and scan.folder and official != scan.folder and options.split == "official":
            reason = f"its folder says {scan.folder!r}, but the label table says {official!r} ({name})."
            return BadSource(patient, scan.stem, str(scan.relative), reason)
        side: Split | None = official or scan.folder
        split = side if side and options.split == "official" else hash_split(patient, options.split_seed)
        numbers = tuple(f"{n:03d}" for n in range(1, scan.info.images[key][0] + 1))
        return VolumeRef(patient, scan.stem, (scan.path,), numbers, split=split, extra={"image": key, "rows": "stored"})

    def _warn(self, scans: list[Scan], labels: Labels) -> None:
        if self.options.split == "official":
            loose = sum(scan.folder is None and not _listed(scan, labels) for scan in scans)
            if loose:
                self.warnings.append(
                    f"{loose} of {len(scans)} files are in no label table and in no folder that names a split: their patients are split "
                    "70/15/15 by a seeded hash. Put t2_slice_level_labels.csv (or the diffusion table) into the folder"
                )
        short = [s for s in scans if labels.slices.get(s.path.name, s.info.slices) != s.info.slices]
        if short:
            first = short[0]
            self.warnings.append(
                f"{len(short)} file(s) have other numbers of slices than the label table says, for instance {first.relative}: "
                f"{first.info.slices}, not {labels.slices[first.path.name]}"
            )


def patient_of(scan: Scan, labels: Labels) -> str:
    """The patient's number with three digits, from the label table or the file's name; else the attribute ``patient_id``."""
    number = labels.patients.get(scan.path.name)
    if number is None:
        match = _NUMBER.search(scan.stem)
        if match is None:
            return scan.patient
        number = int(match[1])
    return f"{number:03d}"


def is_diffusion(scan: Scan) -> bool:
    """Whether a scan is diffusion-weighted: by its coil maps, its acquisition, its name, or the folder that it is in."""
    texts = (scan.info.acquisition, scan.stem, scan.relative.parent.name)
    return scan.info.dwi or any(_DIFFUSION.search(text) for text in texts)


def _listed(scan: Scan, labels: Labels) -> bool:
    patient = patient_of(scan, labels)
    return patient.isdigit() and int(patient) in labels.splits


def _foreign(scan: Scan) -> str:
    if scan.info.layout in ("singlecoil", "multicoil"):
        axes = len(scan.info.kspace)
        return f"its k-space has {axes} axes, not five: it is of fastMRI brain or knee. Use fastmri_brain or fastmri_knee."
    return ""
