"""Any folder of images or volumes as a data set: ``mrbench run --dataset folder --set folder.path=DIR``."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from mrbench import DatasetCard, Options, hookimpl


class FolderOptions(Options):
    """Options of the data set ``folder``. With a ``manifest.csv`` in the folder, ``subject`` and ``pattern`` are not used."""

    path: str = Field(default="", description="the folder (required)")
    subject: str = Field(
        default="parent",
        min_length=1,
        description="how files tell their subject: 'parent' (the sub-XX folder of a BIDS tree if there is one, else the folder "
        "that the file is in, relative to path; for DICOM: PatientID), 'file' (each file or DICOM series is a subject), or a regular expression searched in the "
        "relative path, whose group named 'subject' (or only group) is the subject",
    )
    pattern: str = Field(
        default="*", min_length=1, description="which files: a glob for the file name, or for the relative path if it has a '/'"
    )
    recursive: bool = Field(default=True, description="look into subfolders")
    volume_index: int | None = Field(default=None, ge=0, description="which volume of 4-D NIfTI and HDF5 files, from 0")
    assume_axcodes: str | None = Field(
        default=None, description="where the stored axes run to, e.g. LAS, for NIfTI and Analyze files that do not say"
    )
    key: str | None = Field(
        default=None, min_length=1, description="name of the array in .npz and HDF5 files that hold several"
    )
    split: Literal["all_test", "all_train", "hash"] = Field(
        default="all_test",
        description="'all_test', 'all_train', or 'hash': 70/15/15 by a seeded hash of the subject (a manifest's split column "
        "goes first)",
    )
    shared_subjects: bool = Field(
        default=False,
        description="take a manifest whose splits share subjects (a slice-level split); results carry the warning",
    )
    licence: str = Field(default="", description="licence of the files, for the cards of weights that are trained on them")
    split_seed: int = Field(default=0, description="seed of split=hash")


@hookimpl
def mrbench_datasets() -> Sequence[DatasetCard]:
    """The card of the data set ``folder``."""
    return [
        DatasetCard(
            name="folder",
            implementation="mrbench_datasets.folder.dataset:FolderDataset",
            summary="your own folder of PNG, JPEG, TIFF, NIfTI, Analyze, DICOM, HDF5, .npy or .npz files",
            options=FolderOptions,
            version="1",
            licence="that of your files",
            access="your own files: --set folder.path=DIR",
            redistribution="none",
            group_key="manifest.csv column 'subject', or the option 'subject'",
            split_rule="all test; split=all_train: all train; split=hash: 70/15/15 by a seeded hash of the subject; or manifest.csv column 'split'",
            path_options=("path",),
            notes="A manifest.csv (columns file, subject, volume) makes volumes of single slices and names the subjects. "
            "Without one every file is a volume of its own, and every 2-D image is scaled by itself; the DICOM files of one series "
            "are one volume, and PatientID is the subject (it appears in item ids).",
        )
    ]
