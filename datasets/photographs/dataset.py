"""Reader of the photographs inside two packages."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mrbench.cards import NoOptions, Options
from mrbench.data.grey import luminance
from mrbench.data.hashing import file_sha256
from mrbench.data.images import read_image
from mrbench.data.reading import NO_VOXEL
from mrbench.data.records import BadSource, Volume, VolumeRef
from mrbench.errors import DataError


@dataclass(frozen=True)
class Photograph:
    """A file of a package: its place in it and the SHA-256 of its bytes."""

    package: str
    file: str
    sha256: str

    @property
    def name(self) -> str:
        """The file's name without ending: subject and volume."""
        return Path(self.file).stem


_SKIMAGE, _SKLEARN = "skimage", "sklearn"
_INSTALL = {_SKIMAGE: "scikit-image", _SKLEARN: "scikit-learn"}

#: As in scikit-image 0.26 and scikit-learn 1.9.
PHOTOGRAPHS = (
    Photograph(_SKIMAGE, "data/astronaut.png", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
    Photograph(_SKIMAGE, "data/brick.png", "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf"),
    Photograph(_SKIMAGE, "data/camera.png", "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a"),
    Photograph(_SKIMAGE, "data/chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
    Photograph(_SKIMAGE, "data/coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
    Photograph(_SKIMAGE, "data/coins.png", "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba"),
    Photograph(_SKIMAGE, "data/grass.png", "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89"),
    Photograph(_SKIMAGE, "data/gravel.png", "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12"),
    Photograph(_SKIMAGE, "data/hubble_deep_field.jpg", "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4"),
    Photograph(_SKIMAGE, "data/rocket.jpg", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"),
    Photograph(_SKLEARN, "datasets/images/china.jpg", "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29"),
    Photograph(_SKLEARN, "datasets/images/flower.jpg", "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638"),
)


class PhotographsDataset:
    """Each picture is a subject and a volume of one grey slice; all of them train."""

    def __init__(self, options: Options | None = None) -> None:
        """The data set has no options."""
        self.options = options or NoOptions()

    def refs(self) -> list[VolumeRef | BadSource]:
        """The pictures in alphabetical order of package and name.

        A picture whose package is not installed, or whose bytes are not the pinned ones, is a ``BadSource``. The files are
        hashed, not decoded.
        """
        return [_ref(photograph, _folder(photograph.package)) for photograph in PHOTOGRAPHS]

    def read(self, ref: VolumeRef) -> Volume:
        """The luminance (:func:`mrbench.data.grey.luminance`), 0 to 255, ``[1, 1, H, W]``; every pixel is foreground.

        Raises
        ------
        DataError : the file is damaged.
        """
        array = luminance(read_image(ref.files[0]))[:, None]
        return Volume(array, NO_VOXEL, mask=np.ones(array.shape[1:], dtype=np.bool_))


def _folder(package: str) -> Path | None:
    """The package's folder, without importing it."""
    spec = importlib.util.find_spec(package)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def _ref(photograph: Photograph, folder: Path | None) -> VolumeRef | BadSource:
    name, package = photograph.name, _INSTALL[photograph.package]
    if folder is None:
        return BadSource(
            name, name, photograph.file, f"it is a file of the package {package}, which is not installed: pip install {package}"
        )
    file = folder / photograph.file
    try:
        found = file_sha256(file)
    except DataError as error:
        return BadSource(name, name, str(file), f"{error.reason} The installed version of {package} may not bring it.")
    if found != photograph.sha256:
        return BadSource(
            name, name, str(file),
            f"the installed version of {package} brings another file under this name (SHA-256 {found[:12]}..., expected "
            f"{photograph.sha256[:12]}...)",
        )  # fmt: skip
    return VolumeRef(name, name, (file,), split="train")


__all__ = ["PHOTOGRAPHS", "Photograph", "PhotographsDataset"]
