"""BIDS trees of NIfTI files, among them quantitative maps (T1 maps of MP2RAGE) with their units and brain masks."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from mrbench import DatasetCard, Options, hookimpl


class BidsOptions(Options):
    """Options of the data set ``bids``."""

    path: str = Field(default="", description="the folder that holds sub-01, sub-02, ...")
    layout: Literal["bids", "res_srdiff"] = Field(
        default="bids",
        description="bids: sub-XX[/ses-YY]/.../sub-XX_..._SUFFIX.nii[.gz]; res_srdiff: PERSON/t1map_brain.nii.gz with "
        "PERSON/inv2_brain_mask.nii.gz, as the code of Res-SRDiff has it (suffix and entities are not used)",
    )
    suffix: str = Field(default="T1w", pattern="^[A-Za-z0-9]+$", description="T1w, T2w, T1map, UNIT1, MP2RAGE, ...")
    entities: str = Field(
        default="",
        description="only files with these entities, e.g. acq-mp2rage_inv-1; part-phase and the like only if asked for",
    )
    units: Literal["", "s", "ms"] = Field(
        default="", description="units of stored time maps (T1map, ...), before the sidecar's; both become milliseconds"
    )
    valid_low: float | None = Field(
        default=None, description="smaller values (in the units of the data set) become this; NaN too"
    )
    valid_high: float | None = Field(default=None, description="larger values (in the units of the data set) become this")
    mask: Literal["auto", "require", "none"] = Field(
        default="auto", description="brain masks from derivatives: if there (auto), or else the file is left out (require)"
    )
    mask_path: str = Field(default="derivatives", min_length=1, description="where the masks are, relative to path or absolute")
    mask_entities: str = Field(default="desc-brain", description="entities that a mask must have, e.g. desc-brain")
    volume_index: int | None = Field(default=None, ge=0, description="which volume of 4-D files, from 0")
    assume_axcodes: str | None = Field(
        default=None, description="where the stored axes run to, e.g. LAS, for files that do not say"
    )
    split: Literal["hash", "all_test", "all_train"] = Field(
        default="hash", description="hash: 70/15/15 by a seeded hash of the subject"
    )
    split_seed: int = Field(default=0, description="seed of split=hash")
    licence: str = Field(default="", description="licence of the files, for the cards of weights that are trained on them")


CARD = DatasetCard(
    name="bids",
    implementation="mrbench_datasets.bids.dataset:BidsDataset",
    summary="a BIDS tree of NIfTI files: any suffix, quantitative maps with units, brain masks from derivatives",
    options=BidsOptions,
    version="1",
    home="https://bids-specification.readthedocs.io",
    licence="that of your files",
    citation="K. J. Gorgolewski et al. The brain imaging data structure, a format for organizing and describing outputs of "
    "neuroimaging experiments. Sci. Data 3:160044, 2016.",
    access="your own files, or an open data set in BIDS (OpenNeuro)",
    redistribution="none",
    group_key="sub-XX: all sessions, runs and acquisitions of a person",
    split_rule="70/15/15 by a seeded hash of the subject; split=all_test or all_train",
    path_options=("path",),
    steps=(
        "Have the data set as a BIDS tree of NIfTI files (OpenNeuro has many; dcm2bids or heudiconv make one of DICOM)",
        "For T1 maps: look at whether they are stored in seconds or milliseconds, and have brain masks in derivatives/",
    ),
    expected="whatever the tree holds",
    notes="T1 and T2 maps become milliseconds, whatever they are stored in; a map that says no unit is refused until you say it. "
    "Metrics mae_native and bias_native are then in milliseconds inside the mask. The background of MP2RAGE maps is noise, not "
    "zero: use masks.",
)


@hookimpl
def mrbench_datasets() -> Sequence[DatasetCard]:
    """The card of the data set ``bids``."""
    return [CARD]
