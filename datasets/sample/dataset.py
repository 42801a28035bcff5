"""Reader of the slices in ``data/``."""

from __future__ import annotations

from pathlib import Path

from mrbench.cards import NoOptions, Options
from mrbench.data.manifest import NAME, read_manifest, voxel_from_json
from mrbench.data.reading import read_stack
from mrbench.data.records import BadSource, Volume, VolumeRef

#: The folder with the images, their manifest and their licences.
DATA = Path(__file__).parent / "data"


class SampleDataset:
    """Two volumes of eight slices each, in slice order; labels are the slice numbers of the sources."""

    def __init__(self, options: Options | None = None) -> None:
        """The data set has no options."""
        self.options = options or NoOptions()

    def refs(self) -> list[VolumeRef | BadSource]:
        """Both volumes, as ``manifest.csv`` lists them; all test.

        Raises
        ------
        UserError : the package's data files are missing or changed in number.
        """
        return [
            VolumeRef(v.subject, v.volume, v.files, v.labels, split="test", extra={"voxel": list(v.voxel)})
            for v in read_manifest(DATA / NAME).volumes
        ]

    def read(self, ref: VolumeRef) -> Volume:
        """The stored values, ``[1, slices, H, W]``, with voxel sizes and without an affine.

        Raises
        ------
        DataError : a file is damaged.
        """
        return read_stack(ref.files, voxel_from_json(ref.extra["voxel"]))
