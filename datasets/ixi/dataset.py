"""Reader of IXI."""

from __future__ import annotations

import re
from pathlib import Path

from mrbench.cards import Options
from mrbench.data.missing import place_of
from mrbench.data.nifti import read_nifti
from mrbench.data.records import BadSource, Volume, VolumeRef
from mrbench.data.splits import hash_split
from mrbench.data.walking import files_below
from mrbench.errors import DataError, UserError

from . import CARD, IxiOptions

_NAME = re.compile(r"IXI(?P<id>\d{3})-(?P<site>Guys|HH|IOP)-(?P<number>\d{4})-(?P<contrast>T1|T2|PD|MRA)\.nii(\.gz)?")
_ARCHIVE = re.compile(r"IXI-(T1|T2|PD|MRA|DTI)\.tar")
#: Volumes that are not like the others, by person and contrast.
KNOWN_BAD = {
    ("IXI014", "T2"): "a stack of 28 slices of 5 mm, unlike all others (1.25 mm)",
    ("IXI014", "PD"): "a stack of 29 slices of 5 mm, unlike all others (1.25 mm)",
}
_THICKEST_MM = 3.0  # of T2 and PD; all but the one above have 1.25 mm


class IxiDataset:
    """One volume a person for the chosen contrast. After :meth:`refs`, ``warnings`` says which files were passed over."""

    def __init__(self, options: Options) -> None:
        """Nothing is looked at before :meth:`refs`."""
        if not isinstance(options, IxiOptions):
            raise TypeError(f"expected IxiOptions, got {type(options).__name__}")
        self.options = options
        self.warnings: list[str] = []

    def refs(self) -> list[VolumeRef | BadSource]:
        """All volumes of the contrast (and site), by person. ``extra["site"]`` is the hospital. No file is opened.

        Raises
        ------
        UserError : no place is known, or no volume of the contrast is there.
        """
        self.warnings = []
        root = place_of(CARD, self.options.path)
        files = files_below(root)
        found: list[tuple[re.Match[str], Path]] = []
        strangers = []
        for file in files:
            match = _NAME.fullmatch(file.name)
            if match:
                found.append((match, file))
            elif file.name.endswith((".nii", ".nii.gz")):
                strangers.append(file)
        wanted = [(m, f) for m, f in found if m["contrast"] == self.options.contrast]
        wanted = [(m, f) for m, f in wanted if self.options.site in ("all", m["site"])]
        if not wanted:
            raise UserError(self._nothing(root, files, found))
        if strangers:
            self.warnings.append(
                f"{len(strangers)} NIfTI file(s) are not named like IXI002-Guys-0828-T1.nii.gz and are not used: "
                f"{', '.join(f.name for f in strangers[:3])}{', ...' if len(strangers) > 3 else ''}"
            )
        result: list[VolumeRef | BadSource] = []
        seen: dict[str, Path] = {}
        for match, file in sorted(wanted, key=lambda pair: (pair[1].name, pair[1])):
            result.append(self._ref(root, match, file, seen))
        return result

    def read(self, ref: VolumeRef) -> Volume:
        """The volume as stored, with its affine; arbitrary units.

        Raises
        ------
        DataError : damaged, without orientation, or T2 or PD with slices thicker than 3 mm (another acquisition).
        """
        volume = read_nifti(ref.files[0])
        if self.options.contrast != "T1" and max(volume.voxel) > _THICKEST_MM:
            raise DataError(
                ref.files[0], f"its slices are {max(volume.voxel):.3g} mm thick; IXI's {self.options.contrast} has 1.25 mm.",
                "It is another acquisition: leave it out.",
            )  # fmt: skip
        return volume

    def _ref(self, root: Path, match: re.Match[str], file: Path, seen: dict[str, Path]) -> VolumeRef | BadSource:
        subject = f"IXI{match['id']}"
        volume = f"{subject}-{match['site']}-{match['number']}-{match['contrast']}"
        relative = file.relative_to(root).as_posix()
        bad = KNOWN_BAD.get((subject, match["contrast"]))
        if bad:
            return BadSource(subject, volume, relative, bad)
        other = seen.setdefault(volume, file)
        if other is not file:
            return BadSource(subject, volume, relative, f"a second file of this name; {other.relative_to(root)} is used")
        return VolumeRef(
            subject, volume, (file,), split=hash_split(subject, self.options.split_seed), extra={"site": match["site"]}
        )

    def _nothing(self, root: Path, files: list[Path], found: list[tuple[re.Match[str], Path]]) -> str:
        what = self.options.contrast + ("" if self.options.site == "all" else f" of {self.options.site}")
        text = f"ixi: no {what} volume below {root}; expected files like IXI002-Guys-0828-{self.options.contrast}.nii.gz."
        there = sorted({f"{m['contrast']} ({m['site']})" for m, _ in found})
        if there:
            return f"{text} There are: {', '.join(there)}. Choose with --set ixi.contrast=... and ixi.site=..."
        packed = [f.name for f in files if _ARCHIVE.fullmatch(f.name)]
        if packed:
            return f"{text} There is {', '.join(packed)}: unpack it (tar -xf)."
        return f"{text} {CARD.steps[0]}."


__all__ = ["KNOWN_BAD", "IxiDataset"]
