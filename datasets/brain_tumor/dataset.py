"""Reader of the Brain Tumor MRI Dataset."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mrbench.cards import Options
from mrbench.data.cache import cache_root
from mrbench.data.grey import luminance
from mrbench.data.images import read_image
from mrbench.data.missing import place_of
from mrbench.data.phash import near_groups
from mrbench.data.picture_hashes import picture_hashes
from mrbench.data.reading import NO_VOXEL
from mrbench.data.records import BadSource, Volume, VolumeRef
from mrbench.data.splits import Split, hash_split
from mrbench.data.squares import resized, square_pad
from mrbench.data.walking import files_below
from mrbench.errors import DataError, UserError

from . import CARD, CLASSES, BrainTumorOptions

_PARTS = ("Training", "Testing")
_PICTURES = (".jpg", ".jpeg", ".png")
_VAL = 0.15  # of the groups in Training


class BrainTumorDataset:
    """Each picture is a volume of one slice; its subject is the group of its near-copies.

    After :meth:`refs`, ``warnings`` says that the split is one of slices.
    """

    def __init__(self, options: Options) -> None:
        """Nothing is looked at before :meth:`refs`."""
        if not isinstance(options, BrainTumorOptions):
            raise TypeError(f"expected BrainTumorOptions, got {type(options).__name__}")
        self.options = options
        self.warnings: list[str] = []

    def refs(self) -> list[VolumeRef | BadSource]:
        """All pictures by part, class and name.

        The perceptual hashes of all pictures (of every class, so that groups do not depend on the option) are computed on the
        first call, a few milliseconds each, and remembered in the cache.

        Raises
        ------
        UserError : no place is known, or Training and Testing are not there, or hold no picture of the class.
        """
        root = place_of(CARD, self.options.path)
        files = [f for f in files_below(root) if f.suffix.lower() in _PICTURES and _place(root, f) is not None]
        if not files:
            raise UserError(
                f"brain_tumor: no pictures below {root}; expected Training/notumor/*.jpg, Testing/notumor/*.jpg and so on "
                f"(classes: {', '.join(CLASSES)})."
            )
        hashes = picture_hashes(files, root, cache_root() / "phash")
        good = [(f, h) for f, h in zip(files, hashes, strict=True) if isinstance(h, int)]
        groups = near_groups([h for _, h in good], self.options.distance)
        names = [_volume(root, f) for f, _ in good]
        members: dict[int, list[str]] = {}
        for name, group in zip(names, groups, strict=True):
            members.setdefault(group, []).append(name)
        parts = {group: {name.split("-")[0] for name in found} for group, found in members.items()}
        group_of = {f: group for (f, _), group in zip(good, groups, strict=True)}
        result: list[VolumeRef | BadSource] = []
        for file, found in zip(files, hashes, strict=True):
            place = _place(root, file)
            if place is None or self.options.classes not in ("all", place[1]):
                continue
            volume = _volume(root, file)
            if isinstance(found, DataError):
                reason = f"{found.reason} {found.fix}".strip()
                result.append(BadSource(volume, volume, file.relative_to(root).as_posix(), reason))
                continue
            group = group_of[file]
            subject = f"group-{members[group][0]}"
            split = self._split(subject, parts[group])
            result.append(VolumeRef(subject, volume, (file,), split=split, extra={"side": self.options.side}))
        if not result:
            raise UserError(f"brain_tumor: no picture of classes={self.options.classes} below {root}.")
        both = sum(len(found) == len(_PARTS) for found in parts.values())
        moved = sum(name.startswith(_PARTS[1]) for g, found in members.items() if len(parts[g]) > 1 for name in found)
        self.warnings = [_warning(len(good), len(members), both, moved)]
        return result

    def read(self, ref: VolumeRef) -> Volume:
        """The luminance, ``[1, 1, side, side]`` (``side=0``: ``[1, 1, H, W]``), values 0 to 255.

        Raises
        ------
        DataError : the file is damaged.
        """
        picture = luminance(read_image(ref.files[0]))
        side = int(ref.extra["side"])
        if side:
            picture = resized(square_pad(picture), side)
        return Volume(picture[:, None], NO_VOXEL)

    def _split(self, group: str, parts: Iterable[str]) -> Split:
        if set(parts) == {_PARTS[1]}:
            return "test"
        return hash_split(group, self.options.split_seed, (1 - _VAL, _VAL, 0.0))


def _place(root: Path, file: Path) -> tuple[str, str] | None:
    """Part and class of a file, by the two folders that it is in."""
    folders = file.relative_to(root).parts[:-1]
    if len(folders) < 2 or folders[-2].capitalize() not in _PARTS or folders[-1].lower() not in CLASSES:
        return None
    return folders[-2].capitalize(), folders[-1].lower()


def _volume(root: Path, file: Path) -> str:
    part, kind = _place(root, file) or ("", "")
    return f"{part}-{kind}-{file.name.replace('.', '_')}"


def _warning(pictures: int, groups: int, both: int, moved: int) -> str:
    text = (
        f"the {pictures} pictures do not say whom they show: the split is one of slices ({groups} groups of near-copies), and "
        "slices of one person are likely on both sides"
    )
    if not both:
        return text
    return (
        f"{text}; {both} groups have pictures in Training and Testing, and count as train with their {moved} Testing pictures"
    )


__all__ = ["BrainTumorDataset"]
