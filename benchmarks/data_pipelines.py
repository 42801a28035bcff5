"""The pipelines that `benchmarks/data.py` compares: NIfTI files to low-resolution axial slices, one volume at a time.

The same work in each: read, turn to canonical axes, divide by the volume's 99.9th percentile and clip to [0, 1], cut axial
slices, crop them to multiples of 8, and reduce them 4x in plane. What is not the same is said by `NOTES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrbench.data.items import SliceReader, list_items
from mrbench.data.nifti import read_nifti
from mrbench.data.records import Volume, VolumeRef
from mrbench.degradation.cards import BicubicAAOptions
from mrbench.degradation.image_space import BicubicAA
from mrbench.degradation.measurement import degrade
from mrbench.settings import CropSpec, ForegroundSpec, IntensitySpec, PreparationSpec

SCALE, MULTIPLE, PERCENTILE = 4, 8, 99.9

#: A pass over files with a cache folder: low-resolution slices ``[S, 1, h, w]`` of one volume after the other.
Pipeline = Callable[[Sequence[Path], Path], Iterator[Tensor]]

NOTES = {
    "mrbench": "as in a run: also SHA-256 of the sources, foreground masks, prepared volumes kept on disk (memory-mapped)",
    "mrbench, no masks": "the same without foreground masks, which the others do not make either",
    "torchio": "SubjectsDataset; no cache; degradation by mrbench",
    "torchio, own": "SubjectsDataset; no cache; its Resample(antialias=True) in place of the degradation",
    "monai": "Dataset; no cache; degradation by mrbench",
    "monai, cached": "PersistentDataset (prepared volumes on disk); degradation by mrbench",
    "monai, own": "Dataset; no cache; its Resize(bicubic, anti_aliasing=True) in place of the degradation",
}
#: Pipelines whose slices must be the same as those of mrbench (to rounding of the percentile).
SAME = ("mrbench", "mrbench, no masks", "torchio", "monai", "monai, cached")


class Files:
    """A data set of NIfTI files, each a volume of a person of its own."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Take the files in their order."""
        self.files = files

    def refs(self) -> list[Any]:
        """One volume a file."""
        return [VolumeRef(f.name, f.name, (f,), split="test") for f in self.files]

    def read(self, ref: VolumeRef) -> Volume:
        """As stored, with its affine."""
        return read_nifti(ref.files[0])


def reduced(hr: Tensor) -> Tensor:
    """mrbench's degradation: antialiased bicubic, 4x in plane. ``hr [S, 1, H, W]``."""
    names = [str(i) for i in range(len(hr))]
    return degrade(hr, names, BicubicAA(BicubicAAOptions()), (SCALE, SCALE), noise_kind="none", sigma=0, seed_key="benchmark").y


def _mrbench(masks: bool) -> Pipeline:
    spec = PreparationSpec(
        plane="axial",
        intensity=IntensitySpec(kind="percentile", percentile=PERCENTILE),
        foreground=ForegroundSpec(min_fraction=0) if masks else ForegroundSpec(method="whole", min_fraction=0),
        crop=CropSpec(multiple=MULTIPLE),
    )

    def run(files: Sequence[Path], cache: Path) -> Iterator[Tensor]:
        listing = list_items("benchmark", "1", Files(files), spec, "all", cache_dir=cache)
        reader = SliceReader()
        for _, items in groupby(listing.items, lambda item: item.folder):
            yield reduced(torch.from_numpy(np.stack([reader.load(item).image for item in items])))

    return run


def _cropped(shape: Sequence[int]) -> list[int]:
    """Sides of axial slices cut to the multiple; all slices stay. ``shape``: canonical, (left-right, back-front, feet-head)."""
    return [shape[0] // MULTIPLE * MULTIPLE, shape[1] // MULTIPLE * MULTIPLE, shape[2]]


def _axial(volume: Tensor) -> Tensor:
    """``[1, X, Y, Z]`` to ``[Z, 1, Y, X]``."""
    return volume.permute(3, 0, 2, 1).contiguous()


def _torchio(own: bool) -> Pipeline:
    import torchio

    steps = torchio.Compose([torchio.ToCanonical(), torchio.RescaleIntensity((0, 1), percentiles=(0, PERCENTILE))])

    def run(files: Sequence[Path], cache: Path) -> Iterator[Tensor]:
        subjects = [torchio.Subject(mri=torchio.ScalarImage(f)) for f in files]
        dataset = torchio.SubjectsDataset(subjects, transform=steps)
        for number in range(len(dataset)):
            image = dataset[number].mri
            image = torchio.CropOrPad(_cropped(image.spatial_shape))(image)
            if own:
                x, y, z = image.spacing
                yield _axial(torchio.Resample((x * SCALE, y * SCALE, z), antialias=True)(image).data)
            else:
                yield reduced(_axial(image.data))

    return run


def _monai(own: bool = False, cached: bool = False) -> Pipeline:
    from monai import data, transforms

    steps: list[Any] = [
        transforms.LoadImage(ensure_channel_first=True),
        transforms.Orientation("RAS", labels=None),
        transforms.ScaleIntensityRangePercentiles(0, PERCENTILE, 0, 1, clip=True),
    ]

    def run(files: Sequence[Path], cache: Path) -> Iterator[Tensor]:
        names = [str(f) for f in files]
        if cached:
            dataset: Any = data.PersistentDataset(names, steps, cache_dir=cache)
        else:
            dataset = data.Dataset(names, transforms.Compose(steps))
        for number in range(len(dataset)):
            volume = dataset[number]
            volume = transforms.CenterSpatialCrop(_cropped(volume.shape[1:]))(volume)
            slices = _axial(torch.as_tensor(volume.as_tensor() if hasattr(volume, "as_tensor") else volume))
            if own:
                size = [n // SCALE for n in slices.shape[2:]]
                resize = transforms.Resize(size, mode="bicubic", anti_aliasing=True)
                yield torch.stack([torch.as_tensor(resize(image)) for image in slices])
            else:
                yield reduced(slices)

    return run


def pipeline(name: str) -> Pipeline:
    """A pipeline by its name in ``NOTES``; ``ImportError`` where its library is not installed."""
    makers: dict[str, Callable[[], Pipeline]] = {
        "mrbench": lambda: _mrbench(True),
        "mrbench, no masks": lambda: _mrbench(False),
        "torchio": lambda: _torchio(False),
        "torchio, own": lambda: _torchio(True),
        "monai": lambda: _monai(),
        "monai, cached": lambda: _monai(cached=True),
        "monai, own": lambda: _monai(own=True),
    }
    return makers[name]()
