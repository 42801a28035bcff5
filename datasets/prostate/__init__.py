"""Axial T2-weighted prostate MRI from DICOM: TCIA Prostate-MRI-US-Biopsy, or any other such series."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mrbench import DatasetCard, Options, hookimpl


def _rising(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError("the first limit must not be larger than the second")
    return limits


Range = Annotated[tuple[float, float], AfterValidator(_rising)]


class ProstateOptions(Options):
    """Options of the data set ``prostate``: where it is, and which series count. Ranges are ``[lowest, highest]``."""

    path: str = Field(default="", description="the folder with the DICOM files, in any arrangement")
    description: str = Field(default="", description="regular expression that SeriesDescription must contain, e.g. t2_spc")
    echo_ms_above: float = Field(default=80.0, ge=0, description="EchoTime must be longer than this, in ms")
    repetition_ms: Range | None = Field(default=None, description="range of RepetitionTime in ms")
    tesla: Range | None = Field(default=None, description="range of MagneticFieldStrength in tesla, e.g. [1.4, 1.6]")
    rows: Range | None = Field(default=None, description="range of the stored number of rows")
    columns: Range | None = Field(default=None, description="range of the stored number of columns")
    pixel_mm: Range | None = Field(default=None, description="range of PixelSpacing in mm (both directions)")
    slice_mm: Range | None = Field(
        default=None, description="range of the distance between slice centres in mm, by their positions, e.g. [1.4, 1.6]"
    )
    min_slices: int = Field(default=5, ge=2, description="series with fewer slices are localisers and not taken")
    choose: Literal["longest", "all"] = Field(
        default="longest",
        description="which of several series of one study: 'longest' (equal ones: the lowest series number), or 'all'",
    )
    split: Literal["hash", "all_test"] = Field(
        default="hash", description="'hash': 70/15/15 by a seeded hash of PatientID, or 'all_test'"
    )
    split_seed: int = Field(default=0, description="seed of split=hash")


@hookimpl
def mrbench_datasets() -> Sequence[DatasetCard]:
    """The card of the data set ``prostate``."""
    return [
        DatasetCard(
            name="prostate",
            implementation="mrbench_datasets.prostate.dataset:ProstateDataset",
            summary="axial T2w prostate MRI from DICOM series (TCIA Prostate-MRI-US-Biopsy, or your own)",
            options=ProstateOptions,
            version="1",
            home="https://www.cancerimagingarchive.net/collection/prostate-mri-us-biopsy/",
            licence="CC BY 4.0",
            citation="S. Natarajan, A. Priester, D. Margolis, J. Huang, L. Marks. Prostate MRI and Ultrasound With Pathology and "
            "Coordinates of Tracked Biopsy (Prostate-MRI-US-Biopsy), version 2. The Cancer Imaging Archive, 2020. "
            "doi:10.7937/TCIA.2020.A61IOC1A",
            access="open: no account and no agreement; cite the collection",
            redistribution="open",
            group_key="PatientID (several studies of one person stay together)",
            split_rule="70/15/15 by a seeded hash of PatientID; split=all_test: all test",
            path_options=("path",),
            steps=(
                "Open the page of the collection. The T2w series alone are about 10 GB; all of it is about 82 GB.",
                "Download the MR series with the NBIA Data Retriever (a manifest file from the page), with idc-index (collection "
                "prostate_mri_us_biopsy; what the automatic download uses: pip install 'mrbench[idc]') or with tcia_utils. Any arrangement "
                "of folders will do; keep the files as they are.",
            ),
            download="mrbench_datasets.prostate.download:fetch",
            expected="842 patients with MR of 1,151 (the others: ultrasound only); 1,016 T2w series of 841 patients (IDC version 25); "
            "most have 60 slices, 1.5 mm apart, of 256 x 256 pixels, 0.66 mm. The 334 patients of the Res-SRDiff paper are not published.",
            notes="Series are chosen by their headers: MR, not echo-planar, EchoTime > 80 ms, one direction, axial. Order and "
            "slice distance come from positions along the normal (the series are oblique); SliceThickness is not used. "
            "PatientID is part of the item ids.",
        )
    ]
