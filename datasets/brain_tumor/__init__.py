"""The "Brain Tumor MRI Dataset": JPEG slices of four classes, without patient ids."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from mrbench import DatasetCard, Options, hookimpl

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


class BrainTumorOptions(Options):
    """Options of the data set ``brain_tumor``."""

    path: str = Field(default="", description="the folder that holds Training and Testing")
    classes: Literal["all", "glioma", "meningioma", "notumor", "pituitary"] = Field(
        default="all", description="one class or all; MSP-SR's target set is notumor"
    )
    side: int = Field(
        default=256,
        ge=0,
        description="pad to a square with zeros and resize (antialiased bicubic) to this side; 0: as stored, in any size",
    )
    distance: int = Field(
        default=6,
        ge=0,
        le=10,
        description="pictures whose 64-bit perceptual hashes differ in at most so many bits are one group",
    )
    split_seed: int = Field(default=0, description="seed of the validation part of Training, by a hash of the group")


CARD = DatasetCard(
    name="brain_tumor",
    implementation="mrbench_datasets.brain_tumor.dataset:BrainTumorDataset",
    summary="Brain Tumor MRI Dataset: about 7,000 JPEG slices in four classes, without patient ids",
    options=BrainTumorOptions,
    version="1",
    home="https://www.kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset",
    licence="CC0-1.0 as stated there; its sources (figshare, SARTAJ, Br35H) have terms of their own",
    citation="M. Nickparvar. Brain Tumor MRI Dataset. Kaggle, 2021. Also J. Chaki, M. Wozniak. Brain Tumor MRI Dataset. IEEE "
    "DataPort, doi 10.21227/1jny-g144.",
    access="log in at Kaggle or IEEE DataPort",
    redistribution="figures",
    group_key="groups of near-copies by a perceptual hash: nobody knows whom the slices show",
    split_rule="Testing: test; Training: train, 15 % of its groups val, by a seeded hash; a group with pictures in both: train",
    path_options=("path",),
    steps=(
        "Log in at the page and download the archive (about 150 MB)",
        "Unpack it: there are Training/ and Testing/, each with glioma, meningioma, notumor and pituitary",
    ),
    expected="5,712 pictures in Training and 1,311 in Testing; a variant of about 7,200 is around as well",
    subjects=False,
    notes="Slices of one person are surely on both sides of the split: results cannot be called subject-disjoint. Mixed planes, "
    "contrasts and sizes, already resampled and compressed by JPEG, whose 8 x 8 blocks are part of the ground truth.",
)


@hookimpl
def mrbench_datasets() -> Sequence[DatasetCard]:
    """The card of the data set ``brain_tumor``."""
    return [CARD]
