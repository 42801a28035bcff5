"""IXI: T1, T2 and PD brain volumes of nearly 600 healthy people from three London hospitals."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from mrbench import DatasetCard, Options, hookimpl

Contrast = Literal["T1", "T2", "PD"]


class IxiOptions(Options):
    """Options of the data set ``ixi``."""

    path: str = Field(
        default="", description="the folder that holds IXI-T1, IXI-T2, IXI-PD (or T1, T2, PD, or the files themselves)"
    )
    contrast: Contrast = Field(
        default="T2", description="which acquisition: T1 (3-D), T2 or PD (axial 2-D stacks of one dual echo)"
    )
    site: Literal["all", "Guys", "HH", "IOP"] = Field(
        default="all", description="Guys: 1.5 T Philips, HH: 3 T Philips, IOP: 1.5 T GE"
    )
    split_seed: int = Field(default=0, description="seed of the split by a hash of the subject")


CARD = DatasetCard(
    name="ixi",
    implementation="mrbench_datasets.ixi.dataset:IxiDataset",
    summary="IXI: T1, T2 or PD brain volumes of nearly 600 healthy adults, three scanners",
    options=IxiOptions,
    version="1",
    home="https://brain-development.org/ixi-dataset/",
    licence="CC BY-SA 3.0",
    citation="IXI dataset, Information eXtraction from Images (EPSRC GR/S21533/02), https://brain-development.org/ixi-dataset/",
    access="open",
    redistribution="open",
    group_key="IXI### (first part of the file name): all contrasts of a person",
    split_rule="70/15/15 by a seeded hash of the subject, the same for every contrast and site",
    path_options=("path",),
    steps=(
        "Fetch IXI-T1.tar, IXI-T2.tar or IXI-PD.tar from the page",
        "Unpack each into a folder of its own: mkdir IXI-T2; tar -xf IXI-T2.tar -C IXI-T2",
    ),
    download="mrbench_datasets.ixi.download:fetch",
    expected="T1: 581 subjects, T2: 578, 577 with both; one volume each. IXI014 is left out of T2 and PD",
    notes="Derived images must carry the same licence (share alike). T1 is another acquisition than T2 and PD: other plane, other "
    "grid, not aligned. Slices are chosen by the affine, never by the stored index. Neighbouring slices (1.2 mm) are near-copies: "
    "splits are by person.",
)


@hookimpl
def mrbench_datasets() -> Sequence[DatasetCard]:
    """The card of the data set ``ixi``."""
    return [CARD]
