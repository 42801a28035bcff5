"""fastMRI brain and knee."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from mrbench.cards import DatasetCard, Options
from mrbench.data.fastmri import image_size, read_complex, read_scan, why_not_complex
from mrbench.data.kspace import COMBINATION
from mrbench.data.missing import place_of
from mrbench.data.records import BadSource, Volume, VolumeRef
from mrbench.errors import UserError

from . import BrainOptions, KneeOptions, brain_card, knee_card
from .scans import Scan, find_scans, first_patients, one_side, refuse_twins, split_of, without_masked_twins

_COMPLEX = "complex"
_KEYS = {"rss": "reconstruction_rss", "esc": "reconstruction_esc"}


class _ScanDataset:
    """What brain and knee share. After :meth:`refs`, ``warnings`` holds what the user should know."""

    prefix: ClassVar[str]  # of the acquisitions
    other: ClassVar[str]  # the set that other acquisitions belong to
    options: BrainOptions | KneeOptions

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def card(self) -> DatasetCard:
        """The card of this set."""
        raise NotImplementedError

    def refs(self) -> list[VolumeRef | BadSource]:
        """All scans, by path: usable ones, and those that are not, with the reason. Files are opened; no pixels are read.

        Raises
        ------
        UserError : no place known, no ``.h5`` file there, no scan of that acquisition, or one scan twice.
        """
        card, options = self.card(), self.options
        root = place_of(card, options.path)
        self.warnings = []
        scans, bad = find_scans(root, card.name)
        wanted = self._wanted(scans, bad)
        refs: list[VolumeRef] = []
        targetless: list[BadSource] = []
        for scan in wanted:
            reason = self._unusable(scan)
            if reason:
                targetless.append(BadSource(scan.patient, scan.stem, str(scan.relative), reason))
            else:
                refs.append(self._ref(scan))
        refuse_twins(refs, root, card.name, self._advice(wanted))
        targetless, twins = without_masked_twins(targetless, refs)
        if twins:
            self.warnings.append(f"{twins} scan(s) without ground truth are there with it, too, and not reported")
        self._warn(wanted)
        sided, warnings = one_side(refs, root)
        self.warnings += warnings
        usable = first_patients([r for r in sided if isinstance(r, VolumeRef)], options.patients, options.split_seed)
        return [*usable, *(r for r in sided if isinstance(r, BadSource)), *targetless, *bad]

    def read(self, ref: VolumeRef) -> Volume:
        """Read one scan, slice by slice, as displayed (rows reversed: front of the head, upper end of the leg at the top).

        Raises
        ------
        DataError : truncated or damaged; the last slice is read first.
        """
        image = str(ref.extra["image"])
        if image == _COMPLEX:
            return read_complex(ref.files[0], flip_rows=True)
        return read_scan(ref.files[0], image, flip_rows=True)

    def _takes(self, scan: Scan) -> bool:
        """Whether the options ask for this scan (other than its acquisition)."""
        return True

    def _advice(self, scans: list[Scan]) -> str:
        """What to do about one scan in two files."""
        return ""

    def _wanted(self, scans: list[Scan], bad: list[BadSource]) -> list[Scan]:
        """The scans of this set that the options ask for; those of other sets are added to ``bad``."""
        own: list[Scan] = []
        for scan in scans:
            reason = self._foreign(scan)
            if reason:
                bad.append(BadSource(scan.patient, scan.stem, str(scan.relative), reason))
            else:
                own.append(scan)
        asked = {contrast_of(a) for a in self.options.acquisition.split(",") if a.strip()}
        present = Counter(contrast_of(scan.info.acquisition) for scan in own)
        if own and asked - set(present):
            listing = ", ".join(f"{name or '(none)'}: {count}" for name, count in sorted(present.items()))
            raise UserError(
                f"{self.card().name}: no scan has the acquisition {', '.join(sorted(asked - set(present)))}. "
                f"Acquisitions here: {listing}."
            )
        wanted = [s for s in own if (not asked or contrast_of(s.info.acquisition) in asked) and self._takes(s)]
        if own and not wanted:
            raise UserError(f"{self.card().name}: none of the {len(own)} scans is of the kind that the options ask for.")
        return wanted

    def _foreign(self, scan: Scan) -> str:
        info = scan.info
        if info.layout == "prostate":
            return "its k-space has five axes: it is of fastMRI prostate. Use the data set fastmri_prostate."
        if info.acquisition and not info.acquisition.upper().startswith(self.prefix):
            return f"its acquisition is {info.acquisition}. Use the data set {self.other}, or name a narrower folder."
        return ""

    def _unusable(self, scan: Scan) -> str:
        info = scan.info
        if self.options.image == _COMPLEX:
            return why_not_complex(info)
        key = _KEYS[self.options.image]
        if key in info.images:
            return ""
        if key == _KEYS["esc"] and info.layout == "multicoil":
            return "it has no reconstruction_esc: only the emulated single-coil files have it. Use image=rss, or those files."
        why = "it is a masked test scan" if info.undersampled or scan.folder == "test" else "it is incomplete"
        return f"it has no {key}, so there is no ground truth ({why})."

    def _ref(self, scan: Scan) -> VolumeRef:
        options = self.options
        if options.image == _COMPLEX:
            rule = COMBINATION if scan.info.layout == "multicoil" else "single"
            extra = {"image": _COMPLEX, "rows": "reversed", "coils": rule, "size": list(image_size(scan.info))}
        else:
            extra = {"image": _KEYS[options.image], "rows": "reversed"}
        split = split_of(scan.patient, scan.folder, options.split, options.split_seed)
        return VolumeRef(scan.patient, scan.stem, (scan.path,), split=split, extra=extra)

    def _warn(self, scans: list[Scan]) -> None:
        unnamed = sum(not scan.info.patient for scan in scans)
        if unnamed:
            self.warnings.append(
                f"{unnamed} of {len(scans)} files have no patient_id: each counts as a person of its own, and nothing can be said "
                "about scans of one person on two sides"
            )
        loose = sum(scan.folder is None for scan in scans)
        if loose and self.options.split != "hash":
            self.warnings.append(
                f"{loose} of {len(scans)} files lie in no folder that names an official split (multicoil_train, multicoil_val, ...): "
                "their patients are split 70/15/15 by a seeded hash"
            )
        headers = [scan for scan in scans if scan.info.header_error]
        if headers:
            first = headers[0]
            self.warnings.append(
                f"{len(headers)} file(s) have no voxel size, for instance {first.relative}: {first.info.header_error}"
            )


class BrainDataset(_ScanDataset):
    """Axial head scans of ``fastmri_brain``."""

    prefix, other = "AX", "fastmri_knee"

    def __init__(self, options: Options) -> None:
        if not isinstance(options, BrainOptions):
            raise TypeError(f"expected BrainOptions, got {type(options).__name__}")
        super().__init__()
        self.options = options

    def card(self) -> DatasetCard:
        """The card of ``fastmri_brain``."""
        return brain_card()


class KneeDataset(_ScanDataset):
    """Coronal knee scans of ``fastmri_knee``."""

    prefix, other = "COR", "fastmri_brain"

    def __init__(self, options: Options) -> None:
        if not isinstance(options, KneeOptions):
            raise TypeError(f"expected KneeOptions, got {type(options).__name__}")
        super().__init__()
        self.options: KneeOptions = options

    def card(self) -> DatasetCard:
        """The card of ``fastmri_knee``."""
        return knee_card()

    def _takes(self, scan: Scan) -> bool:
        return self.options.coils in ("any", scan.info.layout)

    def _advice(self, scans: list[Scan]) -> str:
        both = len({scan.info.layout for scan in scans}) > 1
        return "Choose one kind with the option coils=singlecoil or coils=multicoil." if both else ""


def contrast_of(acquisition: str) -> str:
    """An acquisition in one spelling: ``CORPD_FBK`` is ``CORPD``; ``CORPDFS_FBK`` and ``CORPDF`` are ``CORPDFS``."""
    name = acquisition.strip().upper().removesuffix("_FBK")
    return "CORPDFS" if name == "CORPDF" else name
