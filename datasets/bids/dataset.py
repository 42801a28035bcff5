"""Reader of BIDS trees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrbench.cards import Options
from mrbench.data.bids_names import BidsName, parse_entities, parse_name, sidecar
from mrbench.data.missing import place_of
from mrbench.data.nifti import check_axcodes, read_nifti
from mrbench.data.records import BadSource, Volume, VolumeRef
from mrbench.data.splits import Split, hash_split
from mrbench.data.walking import files_below
from mrbench.errors import DataError, UserError

from . import CARD, BidsOptions

_ENDINGS = (".nii", ".nii.gz")
_TIME_MAPS = {"T1map", "T2map", "T2starmap"}
_MILLISECONDS = {"s": 1000.0, "ms": 1.0}
_SPELLINGS = {
    "s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "ms": "ms", "msec": "ms", "msecs": "ms", "millisecond": "ms", "milliseconds": "ms",
}  # fmt: skip
_LONGEST_S = 100.0  # no relaxation time is longer; values of a thousand are milliseconds that were called seconds
_SHORTEST_MS = 20.0  # a map that stays below this in "milliseconds" is in seconds (T1 and T2 of tissue and fluid: below 10 s)
_GRID_MM = 1e-3  # by how much affines of image and mask may differ
_LOOSE = {"desc", "label", "space", "res"}  # entities of a mask that its image need not have


@dataclass(frozen=True)
class _Mask:
    """A mask that was found: its name taken apart."""

    name: BidsName
    file: Path


@dataclass(frozen=True)
class _Image:
    """An image that was found, with what it is called."""

    subject: str
    volume: str
    file: Path
    name: BidsName | None = None
    masks: tuple[_Mask, ...] = field(default=())


class BidsDataset:
    """Volumes of one suffix from a BIDS tree. After :meth:`refs`, ``warnings`` says how many have no mask."""

    def __init__(self, options: Options) -> None:
        """Check ``entities``, ``mask_entities``, the valid range and ``assume_axcodes`` (``UserError``)."""
        if not isinstance(options, BidsOptions):
            raise TypeError(f"expected BidsOptions, got {type(options).__name__}")
        self.options = options
        self.warnings: list[str] = []
        self._wanted = parse_entities(options.entities)
        self._mask_wanted = parse_entities(options.mask_entities)
        if options.assume_axcodes is not None:
            check_axcodes(options.assume_axcodes)
        if options.valid_low is not None and options.valid_high is not None and options.valid_low >= options.valid_high:
            raise UserError(f"bids: valid_low={options.valid_low:g} is not below valid_high={options.valid_high:g}.")

    def refs(self) -> list[VolumeRef | BadSource]:
        """All volumes by person and name. Only JSON sidecars are opened.

        Raises
        ------
        UserError : no place is known, no subject folders or no such files are there, or volumes have different units.
        """
        self.warnings = []
        root = place_of(CARD, self.options.path)
        images = self._bids(root) if self.options.layout == "bids" else _res_srdiff(root)
        result = [self._ref(root, image) for image in images]
        refs = [ref for ref in result if isinstance(ref, VolumeRef)]
        units = sorted({ref.extra["units"] for ref in refs})
        if len(units) > 1:
            raise UserError(
                f"bids: the volumes have different units ({', '.join(units)}). Choose those of one with --set bids.entities=..."
            )
        unmasked = sum(ref.extra["mask"] is None for ref in refs)
        if unmasked and self.options.mask != "none" and (units != ["arbitrary"] or unmasked < len(refs)):
            self.warnings.append(
                f"{unmasked} of {len(refs)} volumes have no brain mask; a threshold of the values is used for them, which is "
                "unreliable where the background is noise (MP2RAGE)"
            )
        return result

    def read(self, ref: VolumeRef) -> Volume:
        """The volume with its affine, units and mask. Time maps are in milliseconds.

        Raises
        ------
        DataError : damaged, without orientation, in evidently other units than said, or with a mask on another grid.
        """
        extra = ref.extra
        volume = read_nifti(ref.files[0], extra["volume_index"], extra["assume_axcodes"])
        volume.units = extra["units"]
        stored = extra["stored"]
        if stored:
            _check_time(ref.files[0], volume.array, stored)
            volume.array = volume.array * np.float32(_MILLISECONDS[stored])
        volume.array = _within(volume.array, extra["valid"][0], extra["valid"][1])
        if extra["mask"] is not None:
            volume.mask = _read_mask(ref.files[int(extra["mask"])], ref.files[0], volume, extra["assume_axcodes"])
        return volume

    # --- finding

    def _bids(self, root: Path) -> list[_Image]:
        people = sorted(f for f in root.iterdir() if f.is_dir() and f.name.startswith("sub-"))
        if not people:
            raise UserError(
                f"bids: there is no folder sub-... in {root}. Name the folder of the data set (the one with dataset_description.json)."
            )
        masks = self._masks(root)
        images = []
        suffixes: set[str] = set()
        for person in people:
            for file in files_below(person):
                name = parse_name(file.name)
                if name is None or name.extension not in _ENDINGS or name.entities.get("sub") != person.name[4:]:
                    continue
                suffixes.add(name.suffix)
                if name.suffix == self.options.suffix and self._fits(name):
                    images.append(_Image(person.name, name.stem, file, name, self._masks_for(name, masks.get(person.name, ()))))
        if not images:
            raise UserError(
                f"bids: no file with suffix={self.options.suffix}, entities={self.options.entities!r} below {root}. Suffixes there: "
                f"{', '.join(sorted(suffixes)) or 'none'}."
            )
        return images

    def _fits(self, name: BidsName) -> bool:
        """Whether a file has the wanted entities; phase, real and imaginary parts only if asked for."""
        if any(name.entities.get(key) != value for key, value in self._wanted.items()):
            return False
        return "part" in self._wanted or name.entities.get("part", "mag") == "mag"

    def _masks(self, root: Path) -> dict[str, list[_Mask]]:
        """Masks by person."""
        found: dict[str, list[_Mask]] = {}
        folder = root / Path(self.options.mask_path).expanduser()
        if self.options.mask == "none" or not folder.is_dir():
            return found
        for file in files_below(folder):
            name = parse_name(file.name)
            if name is None or name.suffix != "mask" or name.extension not in _ENDINGS:
                continue
            if all(name.entities.get(key) == value for key, value in self._mask_wanted.items()):
                found.setdefault(f"sub-{name.entities.get('sub', '')}", []).append(_Mask(name, file))
        return found

    def _masks_for(self, image: BidsName, masks: Sequence[_Mask]) -> tuple[_Mask, ...]:
        """The masks that share most entities with an image and contradict none (several: it is not clear which is meant)."""
        fitting = [m for m in masks if _belongs(m.name.entities, image.entities)]
        shared = [len(m.name.entities.items() & image.entities.items()) for m in fitting]
        return tuple(m for m, count in zip(fitting, shared, strict=True) if count == max(shared))

    # --- one image

    def _ref(self, root: Path, image: _Image) -> VolumeRef | BadSource:
        relative = image.file.relative_to(root).as_posix()
        try:
            stored, units = self._units(root, image)
        except DataError as error:
            return BadSource(image.subject, image.volume, relative, f"{error.reason} {error.fix}".strip())
        if len(image.masks) > 1:
            names = ", ".join(m.file.name for m in image.masks[:3])
            reason = f"{len(image.masks)} masks fit it ({names}). Say which with mask_path and mask_entities, or mask=none."
            return BadSource(image.subject, image.volume, relative, reason)
        if self.options.mask == "require" and not image.masks:
            return BadSource(image.subject, image.volume, relative, "it has no brain mask, and mask=require.")
        files = (image.file, *(m.file for m in image.masks))
        codes = self.options.assume_axcodes
        extra: dict[str, Any] = {
            "volume_index": self.options.volume_index,
            "assume_axcodes": codes.upper() if codes else None,
            "stored": stored,
            "units": units,
            "valid": [self.options.valid_low, self.options.valid_high],
            "mask": 1 if image.masks else None,
        }
        return VolumeRef(image.subject, image.volume, files, split=self._split(image.subject), extra=extra)

    def _units(self, root: Path, image: _Image) -> tuple[str, str]:
        """Units in which a time map is stored (empty for other images), and those of the volume that comes out.

        Raises
        ------
        DataError : a time map that does not say, or says something unknown; an unreadable sidecar.
        """
        suffix = image.name.suffix if image.name else "T1map"
        said = sidecar(image.file, root).get("Units") if image.name else None
        if suffix not in _TIME_MAPS:
            return "", str(said) if said and suffix.endswith("map") else "arbitrary"
        stored = self.options.units or _SPELLINGS.get(str(said or "").strip().lower(), "")
        if not stored:
            what = f"its sidecar gives the units {said!r}" if said else "it does not say its units"
            raise DataError(
                image.file, f"{what}: scanners store milliseconds, BIDS means seconds.",
                "Look at the values and say --set bids.units=s or bids.units=ms.",
            )  # fmt: skip
        return stored, "ms"

    def _split(self, subject: str) -> Split:
        if self.options.split == "hash":
            return hash_split(subject, self.options.split_seed)
        return "train" if self.options.split == "all_train" else "test"


def _belongs(mask: Mapping[str, str], image: Mapping[str, str]) -> bool:
    """Whether no entity of a mask contradicts its image. Person and session must be the same."""
    if any(mask.get(key) != image.get(key) for key in ("sub", "ses")):
        return False
    return all(image[key] == value if key in image else key in _LOOSE for key, value in mask.items())


def _res_srdiff(root: Path) -> list[_Image]:
    """``PERSON/t1map_brain.nii.gz``, each with ``inv2_brain_mask.nii.gz`` beside it."""
    images = []
    for folder in sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith(".")):
        file = next((f for f in (folder / f"t1map_brain{ending}" for ending in _ENDINGS) if f.is_file()), None)
        if file is None:
            continue
        mask = next((f for f in (folder / f"inv2_brain_mask{ending}" for ending in _ENDINGS) if f.is_file()), None)
        masks = (_Mask(BidsName({}, "mask", ""), mask),) if mask else ()
        images.append(_Image(folder.name, f"{folder.name}_t1map", file, None, masks))
    if not images:
        raise UserError(f"bids: no PERSON/t1map_brain.nii.gz below {root} (layout=res_srdiff).")
    return images


def _check_time(file: Path, array: NDArray[np.float32], stored: str) -> None:
    """Refuse maps whose values cannot be relaxation times in the units that they are said to have."""
    finite = array[np.isfinite(array) & (array > 0)]
    if finite.size == 0:
        return
    middle, top = float(np.median(finite)), float(np.percentile(finite, 99))
    if stored == "s" and middle > _LONGEST_S:
        raise DataError(
            file, f"it is said to be in seconds, but half of its values are above {middle:.4g}: these are milliseconds.",
            "Say --set bids.units=ms.",
        )  # fmt: skip
    if stored == "ms" and top < _SHORTEST_MS:
        raise DataError(
            file, f"it is said to be in milliseconds, but its values reach {top:.3g} only: these are seconds.",
            "Say --set bids.units=s.",
        )  # fmt: skip


def _within(array: NDArray[np.float32], low: float | None, high: float | None) -> NDArray[np.float32]:
    """Values clipped to the valid range; NaN becomes ``low`` if there is one (else it stays, and is refused later)."""
    if low is not None:
        array = np.where(np.isnan(array), np.float32(low), array)
    if low is not None or high is not None:
        array = np.clip(array, low, high)
    return array


def _read_mask(file: Path, image: Path, volume: Volume, axcodes: str | None) -> NDArray[np.bool_]:
    mask = read_nifti(file, assume_axcodes=axcodes)
    same = mask.array.shape[1:] == volume.array.shape[1:]
    if (
        not same
        or mask.affine is None
        or volume.affine is None
        or not _same_grid(mask.affine, volume.affine, mask.array.shape[1:])
    ):
        raise DataError(
            file, f"it is not on the grid of {image.name} (shapes {mask.array.shape[1:]} and {volume.array.shape[1:]}).",
            "Resample the mask to the image, or use --set bids.mask=none.",
        )  # fmt: skip
    inside: NDArray[np.bool_] = mask.array[0] > 0.5
    if not inside.any():
        raise DataError(file, "the mask is empty.", "Make it again, or use --set bids.mask=none.")
    return inside


def _same_grid(one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Whether two affines place the corners of a volume within a thousandth of a millimetre of each other."""
    far = np.array([n - 1 for n in shape] + [1.0])
    return bool((np.abs(one - other)[:3] @ far < _GRID_MM).all())


__all__ = ["BidsDataset"]
