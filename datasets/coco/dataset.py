"""Reader of COCO 2017, from folders or straight from the archives."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from mrbench.cards import Options
from mrbench.data.grey import luminance
from mrbench.data.images import decode_jpeg
from mrbench.data.missing import place_of
from mrbench.data.reading import NO_VOXEL
from mrbench.data.records import BadSource, Volume, VolumeRef
from mrbench.data.splits import Split, hash_split
from mrbench.data.squares import resized, square_crop
from mrbench.errors import DataError, UserError

from . import CARD, CocoOptions

_PARTS = ("train2017", "val2017")
_NAME = re.compile(r"(?P<id>\d{12})\.jpe?g", re.IGNORECASE)
_LEAST = 64  # pixels of the shorter side
_LARGEST = 2**26  # bytes of one picture; COCO's have less than 1 MB
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class _Picture:
    """A picture of COCO: its id, and the file or the archive and member that hold it."""

    name: str
    part: str
    file: Path
    member: str = ""

    @property
    def place(self) -> str:
        """As reports name it."""
        return f"{self.file.name}/{self.member}" if self.member else f"{self.part}/{self.file.name}"


class CocoDataset:
    """Each picture is a subject and a volume of one grey, square slice."""

    def __init__(self, options: Options) -> None:
        """Nothing is looked at before :meth:`refs`."""
        if not isinstance(options, CocoOptions):
            raise TypeError(f"expected CocoOptions, got {type(options).__name__}")
        self.options = options

    def refs(self) -> list[VolumeRef | BadSource]:
        """The pictures of each part by id. Of each only the header is read, for its size.

        A picture whose shorter side has less than 64 pixels, or whose header cannot be read, is a ``BadSource``.

        Raises
        ------
        UserError : no place is known, no picture of the part is there, or an archive is not whole.
        """
        root = place_of(CARD, self.options.path)
        wanted = _PARTS if self.options.part == "both" else (self.options.part,)
        result: list[VolumeRef | BadSource] = []
        for part in wanted:
            result += self._part(root, part)
        if not result:
            raise UserError(
                f"coco: no pictures of {' or '.join(wanted)} in {root}; expected {wanted[0]}/000000000009.jpg and so on, or "
                f"{wanted[0]}.zip. {CARD.steps[0]}."
            )
        return result

    def read(self, ref: VolumeRef) -> Volume:
        """The luminance of the centre square, ``[1, 1, N, N]``, values 0 to 255; every pixel is foreground.

        Raises
        ------
        DataError : damaged, or smaller than 64 pixels.
        """
        member = ref.extra["member"]
        name = ref.files[0] / member if member else ref.files[0]
        try:
            if member:
                with zipfile.ZipFile(ref.files[0]) as archive, archive.open(member) as stream:
                    data = stream.read(_LARGEST + 1)
            else:
                with ref.files[0].open("rb") as stream:
                    data = stream.read(_LARGEST + 1)
        except (OSError, KeyError, *_DAMAGED) as error:
            raise DataError(name, f"it cannot be read: {error}.", "Fetch it again.") from error
        if len(data) > _LARGEST:
            raise DataError(name, f"it has more than {_LARGEST} bytes.", "It is not a picture of COCO.")
        picture = square_crop(luminance(decode_jpeg(name, data)))
        if picture.shape[1] < _LEAST:
            raise DataError(name, _too_small(picture.shape[1]))
        if ref.extra["side"]:
            picture = resized(picture, int(ref.extra["side"]))
        return Volume(picture[:, None], NO_VOXEL, mask=np.ones((1, *picture.shape[1:]), dtype=np.bool_))

    def _part(self, root: Path, part: str) -> list[VolumeRef | BadSource]:
        folder = next((f for f in (root / part, root) if f.name == part and f.is_dir()), None)
        archive = root / f"{part}.zip"
        if folder is None and not archive.is_file():
            return []
        if folder is not None:
            pictures = sorted(
                (_Picture(m["id"], part, f) for f in folder.iterdir() if (m := _NAME.fullmatch(f.name))), key=lambda p: p.place
            )
            pictures = pictures[: self.options.first or None]
            return [self._ref(picture, self._side_of_file(picture)) for picture in pictures]
        try:
            with zipfile.ZipFile(archive) as opened:
                return [self._ref(p, s) for p, s in self._members(opened, archive, part)]
        except (OSError, *_DAMAGED) as error:
            raise UserError(f"coco: {archive} is not a whole archive ({error}). Fetch it again.") from None

    def _members(self, opened: zipfile.ZipFile, archive: Path, part: str) -> Iterator[tuple[_Picture, int | str]]:
        """Pictures of an archive by id, with the length of the shorter side or what is wrong."""
        found = []
        for member in opened.namelist():
            match = _NAME.fullmatch(PurePosixPath(member).name)
            if match and not member.startswith("__MACOSX"):
                found.append(_Picture(match["id"], part, archive, member))
        for picture in sorted(found, key=lambda p: (p.name, p.member))[: self.options.first or None]:
            try:
                with opened.open(picture.member) as stream:
                    yield picture, _side(stream)
            except (OSError, *_DAMAGED) as error:
                yield picture, f"it cannot be read: {error}. Fetch the archive again."

    def _side_of_file(self, picture: _Picture) -> int | str:
        try:
            with picture.file.open("rb") as stream:
                return _side(stream)
        except OSError as error:
            return f"it cannot be read: {error.strerror or error}. Check its permissions."

    def _ref(self, picture: _Picture, side: int | str) -> VolumeRef | BadSource:
        if isinstance(side, str):
            return BadSource(picture.name, picture.name, picture.place, side)
        if side < _LEAST:
            return BadSource(picture.name, picture.name, picture.place, _too_small(side))
        split: Split = "train" if picture.part == "train2017" else "val"
        if self.options.split == "hash":
            split = hash_split(picture.name, self.options.split_seed, (0.90, 0.05, 0.05))
        extra = {"side": self.options.side, "member": picture.member}
        return VolumeRef(picture.name, picture.name, (picture.file,), split=split, extra=extra)


def _side(stream: IO[bytes]) -> int | str:
    """The shorter side of a JPEG picture by its header, or what is wrong with it."""
    from PIL import Image

    try:
        with Image.open(stream, formats=["JPEG"]) as image:
            return min(image.size)
    except Exception as error:  # Pillow raises nearly anything on damaged files
        return f"it is not a readable JPEG file: {str(error).rstrip('.') or type(error).__name__}. Fetch it again."


def _too_small(side: int) -> str:
    return f"its shorter side has {side} pixels, fewer than {_LEAST}."


__all__ = ["CocoDataset"]
