"""OASIS-1 and OASIS-2: T1 brain volumes of adults from 18 to 96 years, some with dementia."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from mrbench import DatasetCard, Options, hookimpl

_PATH = "the folder below which the visit folders are ({}), in any arrangement of discs or parts"
_REPEATS = "the 3 to 4 acquisitions of a visit: the first that is there, or all of them"
_VISITS = "of a person: the first that is there, or all of them"


class Oasis1Options(Options):
    """Options of the data set ``oasis1``."""

    path: str = Field(default="", description=_PATH.format("OAS1_0001_MR1"))
    product: Literal["raw", "subj_111", "t88_111", "t88_111_masked"] = Field(
        default="raw",
        description="raw: single acquisitions, 1 x 1 x 1.25 mm; subj_111: their average on a 1 mm grid; t88_111: that in "
        "Talairach space; t88_111_masked: and skull-stripped. All but raw are interpolated: super-resolution looks easier on them",
    )
    repeats: Literal["first", "all"] = Field(default="first", description=f"{_REPEATS} (product=raw only)")
    visits: Literal["first", "all"] = Field(default="all", description=_VISITS)
    axcodes: str = Field(
        default="",
        description="where the stored axes run to; empty: as known for the product (ASL; t88: LAS). Checked by the head's "
        "left-right symmetry",
    )
    split_seed: int = Field(default=0, description="seed of the split by a hash of the subject")


class Oasis2Options(Options):
    """Options of the data set ``oasis2``."""

    path: str = Field(default="", description=_PATH.format("OAS2_0001_MR1"))
    repeats: Literal["first", "all"] = Field(default="first", description=_REPEATS)
    visits: Literal["first", "all"] = Field(default="all", description=_VISITS)
    group: Literal["all", "Nondemented", "Demented", "Converted"] = Field(
        default="all", description="only people of this group, by the column Group of the table (needs table)"
    )
    table: str = Field(default="", description="the demographics table saved as CSV, with the columns 'Subject ID' and 'Group'")
    axcodes: str = Field(
        default="ASL",
        description="where the stored axes run to in files whose header does not say; ASL is deduced from OASIS-1, whose "
        "protocol is the same, and checked by the head's left-right symmetry",
    )
    split_seed: int = Field(default=0, description="seed of the split by a hash of the subject")


_TERMS = "data use terms of the OASIS project (no redistribution of images)"
_NEVER = "People may be in OASIS-1 and OASIS-2 both: never train on one and test on the other."

OASIS1 = DatasetCard(
    name="oasis1",
    implementation="mrbench_datasets.oasis.dataset:Oasis1Dataset",
    summary="OASIS-1: T1 brain volumes of 416 people from 18 to 96 years, cross-sectional",
    options=Oasis1Options,
    version="1",
    home="https://sites.wustl.edu/oasisbrains/home/oasis-1/",
    licence=_TERMS,
    citation="D. S. Marcus, T. H. Wang, J. Parker, J. G. Csernansky, J. C. Morris, R. L. Buckner. Open Access Series of Imaging "
    "Studies (OASIS): cross-sectional MRI data in young, middle aged, nondemented, and demented older adults. J. Cogn. Neurosci. "
    "19(9):1498-1507, 2007.",
    access="accept the data use terms on the page",
    redistribution="none",
    group_key="OAS1_#### : all visits (MR1, MR2) and repeats (mpr-1 to 4) of a person",
    split_rule="70/15/15 by a seeded hash of the subject",
    path_options=("path",),
    steps=(
        "Read and accept the data use terms on the page",
        "Fetch oasis_cross-sectional_disc1.tar.gz to disc12.tar.gz (any of them)",
        "Unpack them into one folder: for f in *.tar.gz; do tar -xzf $f; done",
    ),
    expected="416 subjects, 436 visits (20 people came twice), 3 to 4 acquisitions each",
    notes=f"Analyze files, whose headers do not say how they are stored: the axes are known for each product, and "
    f"checked by the head's left-right symmetry. {_NEVER} The popular "
    "'Alzheimer 4 classes' pictures are slices of OASIS-1 with the identities lost: never mix them with it.",
)

OASIS2 = DatasetCard(
    name="oasis2",
    implementation="mrbench_datasets.oasis.dataset:Oasis2Dataset",
    summary="OASIS-2: T1 brain volumes of 150 people from 60 to 96 years, longitudinal",
    options=Oasis2Options,
    version="1",
    home="https://sites.wustl.edu/oasisbrains/home/oasis-2/",
    licence=_TERMS,
    citation="D. S. Marcus, A. F. Fotenos, J. G. Csernansky, J. C. Morris, R. L. Buckner. Open Access Series of Imaging Studies: "
    "longitudinal MRI data in nondemented and demented older adults. J. Cogn. Neurosci. 22(12):2677-2684, 2010.",
    access="accept the data use terms on the page",
    redistribution="none",
    group_key="OAS2_#### : all visits and repeats of a person, wherever the parts put them",
    split_rule="70/15/15 by a seeded hash of the subject",
    path_options=("path", "table"),
    steps=(
        "Read and accept the data use terms on the page",
        "Fetch OAS2_RAW_PART1.tar.gz and OAS2_RAW_PART2.tar.gz (about 10 + 8 GB): the visits of one person may be in both",
        "Unpack both into one folder",
    ),
    expected="150 subjects, 373 visits, 3 to 4 acquisitions each; 72 Nondemented, 64 Demented, 14 Converted",
    notes="NIfTI pairs named mpr-1.nifti.hdr and .img whose headers may not say how they are stored: the option axcodes says it "
    f"then, and the head's symmetry is checked against it. {_NEVER}",
)


@hookimpl
def mrbench_datasets() -> Sequence[DatasetCard]:
    """The cards of ``oasis1`` and ``oasis2``."""
    return [OASIS1, OASIS2]
