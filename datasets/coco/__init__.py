"""COCO 2017: photographs, in grey, to train on out of domain."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from mrbench import DatasetCard, Options, hookimpl


class CocoOptions(Options):
    """Options of the data set ``coco``."""

    path: str = Field(default="", description="the folder that holds train2017 and val2017, or train2017.zip and val2017.zip")
    part: Literal["both", "train2017", "val2017"] = Field(default="both", description="which part; both: what is there")
    side: int = Field(
        default=64,
        ge=0,
        description="resize the centre square (antialiased bicubic) to this side, 64 as in MSP-SR; 0: as it is",
    )
    first: int = Field(default=0, ge=0, description="only the first so many pictures of each part, by id; 0: all")
    split: Literal["parts", "hash"] = Field(
        default="parts", description="parts: train2017 train, val2017 val; hash: 90/5/5 by a seeded hash of the picture's id"
    )
    split_seed: int = Field(default=0, description="seed of split=hash")


CARD = DatasetCard(
    name="coco",
    implementation="mrbench_datasets.coco.dataset:CocoDataset",
    summary="COCO 2017: 123,000 photographs, in grey, centre square: natural images to train on",
    options=CocoOptions,
    version="1",
    home="https://cocodataset.org/#download",
    licence="pictures: the terms of Flickr and of each photographer's licence; annotations (not used): CC BY 4.0",
    citation="T.-Y. Lin, M. Maire, S. Belongie, J. Hays, P. Perona, D. Ramanan, P. Dollar, C. L. Zitnick. Microsoft COCO: common "
    "objects in context. ECCV 2014.",
    access="open",
    redistribution="none",
    group_key="the picture's id: each is a subject of its own",
    split_rule="train2017: train, val2017: val; split=hash: 90/5/5 by a seeded hash of the id",
    path_options=("path",),
    steps=(
        "Fetch train2017.zip (18 GB) or val2017.zip (0.8 GB) from the page",
        "Leave them packed, or unpack them there",
    ),
    download="mrbench_datasets.coco.download:fetch",
    expected="118,287 pictures in train2017, 5,000 in val2017; a few are smaller than 64 pixels and left out",
    notes="To train on, not to compare on: nothing in it is MRI. Colour becomes luminance (ITU-R BT.601) in floating point. Every "
    "pixel is foreground. MSP-SR takes 98,000 of them and does not say which: first=100000 takes the first by id.",
)


@hookimpl
def mrbench_datasets() -> Sequence[DatasetCard]:
    """The card of the data set ``coco``."""
    return [CARD]
