"""The fastMRI data sets (brain, knee, prostate) from a local folder: nothing is ever downloaded."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from mrbench import DatasetCard, Options, hookimpl

HOME = "https://fastmri.med.nyu.edu/"
LICENCE = "fastMRI Dataset Sharing Agreement (research and education only; data, links and patient-level derivatives may not be passed on)"
ACCESS = "registration form of NYU Langone Health; download links come by mail and expire"
CITATION = "J. Zbontar, F. Knoll, A. Sriram, et al. fastMRI: An open dataset and benchmarks for accelerated MRI. arXiv:1811.08839, 2018."
_SPLITS = (
    "'val_is_test': the official validation scans (and fully sampled test scans) are the test split, and 10 % of the official "
    "training patients, by a seeded hash, are the validation split; 'official': as the folders are named; 'hash': 70/15/15 of all "
    "patients by a seeded hash"
)


class FastMRIOptions(Options):
    """Options of all fastMRI sets."""

    path: str = Field(default="", description="the folder with the unpacked .h5 files, or one above it (required)")
    split_seed: int = Field(default=0, description="seed of splits by hash")
    patients: int = Field(
        default=0,
        ge=0,
        description="use only that many patients of each split, in the order of a seeded hash of their ids (0: all)",
    )


class BrainOptions(FastMRIOptions):
    """Options of ``fastmri_brain``."""

    image: Literal["rss", "complex"] = Field(
        default="rss",
        description="'rss': the stored root-sum-of-squares magnitude; 'complex': from k-space, coils combined (two channels)",
    )
    acquisition: str = Field(
        default="", description="only these contrasts, separated by commas: AXT1, AXT1PRE, AXT1POST, AXT2, AXFLAIR (empty: all)"
    )
    split: Literal["val_is_test", "official", "hash"] = Field(default="val_is_test", description=_SPLITS)


class KneeOptions(FastMRIOptions):
    """Options of ``fastmri_knee``."""

    image: Literal["rss", "esc", "complex"] = Field(
        default="rss",
        description="'rss': the stored root-sum-of-squares magnitude; 'esc': the stored magnitude of the emulated single coil "
        "(single-coil files only); 'complex': from k-space (two channels; several coils are combined)",
    )
    acquisition: str = Field(
        default="", description="only these contrasts, separated by commas: CORPD (proton density), CORPDFS (fat-suppressed)"
    )
    split: Literal["val_is_test", "official", "hash"] = Field(default="val_is_test", description=_SPLITS)
    coils: Literal["any", "singlecoil", "multicoil"] = Field(
        default="any", description="which files, where both the single-coil and the multi-coil archives lie in the folder"
    )


class ProstateOptions(FastMRIOptions):
    """Options of ``fastmri_prostate``."""

    sequence: Literal["t2", "dwi"] = Field(default="t2", description="T2-weighted or diffusion-weighted scans")
    image: Literal["rss", "complex"] = Field(
        default="rss",
        description="'rss': the stored magnitude; 'complex' is refused with the reason (k-space needs GRAPPA and holds averages)",
    )
    dwi_map: str = Field(
        default="b1500", min_length=1, description="which stored images of diffusion files, e.g. b1500, adc_map"
    )
    labels: str = Field(
        default="",
        description="a slice-level label table (CSV) with the official split; empty: every such table found under path",
    )
    split: Literal["official", "hash"] = Field(
        default="official",
        description="'official': by the label tables, else by the folders' names; 'hash': 70/15/15 of all patients by a seeded hash",
    )


def brain_card() -> DatasetCard:
    """The card of ``fastmri_brain``."""
    return DatasetCard(
        name="fastmri_brain",
        implementation="mrbench_datasets.fastmri.dataset:BrainDataset",
        summary="fastMRI brain: axial T1, T2 and FLAIR, raw multi-coil k-space and magnitude images",
        options=BrainOptions,
        version="1",
        home=HOME,
        licence=LICENCE,
        citation=f"{CITATION} Brain: M. J. Muckley et al. IEEE Trans. Med. Imaging 40(9):2306-2317, 2021.",
        access=ACCESS,
        redistribution="none",
        group_key="attribute patient_id (several contrasts of one patient are several files)",
        split_rule="official validation (and test_full) scans: test; official training patients: 90 % train, 10 % val by a seeded "
        "hash; other rules by the option split",
        path_options=("path",),
        steps=(
            f"Ask for access at {HOME} (sign the data sharing agreement).",
            "Download brain_multicoil_val_batch_0..2 (test) and, for training, brain_multicoil_train_batch_0..9; "
            "brain_multicoil_test_full_batch_0..2 adds test scans. The archives are about 100 GB each; one batch is enough to begin.",
            "Unpack them into one folder, keeping the folders' names (multicoil_train, multicoil_val, ...): they tell the split.",
        ),
        expected="4469 training, 1378 validation and 558 test scans; AXT2 2678/815/322, AXT1POST 949/287/122, AXFLAIR 344/107/49, "
        "AXT1PRE 250/77/36, AXT1 248/92/29",
        notes="Masked test scans have no ground truth and are reported. Root-sum-of-squares images have a noise floor above 0 and "
        "sizes from 213 to 384. Complex images are adaptively combined from the coils; see the README.",
    )


def knee_card() -> DatasetCard:
    """The card of ``fastmri_knee``."""
    return DatasetCard(
        name="fastmri_knee",
        implementation="mrbench_datasets.fastmri.dataset:KneeDataset",
        summary="fastMRI knee: coronal proton density with and without fat suppression, raw k-space and magnitude images",
        options=KneeOptions,
        version="1",
        home=HOME,
        licence=LICENCE,
        citation=f"{CITATION} Knee: F. Knoll et al. Radiology: Artificial Intelligence 2(1):e190007, 2020.",
        access=ACCESS,
        redistribution="none",
        group_key="attribute patient_id",
        split_rule="official validation scans: test (the official test scans have no ground truth); official training patients: 90 % "
        "train, 10 % val by a seeded hash; other rules by the option split",
        path_options=("path",),
        steps=(
            f"Ask for access at {HOME} (sign the data sharing agreement).",
            "Download knee_singlecoil_val or knee_multicoil_val (test) and, for training, knee_singlecoil_train or "
            "knee_multicoil_train_batch_0..4. The single-coil archives are much smaller.",
            "Unpack them into one folder, keeping the folders' names (singlecoil_train, singlecoil_val, ...): they tell the split.",
        ),
        expected="973 training and 199 validation scans, single-coil and multi-coil alike; 108 single-coil and 118 multi-coil test scans",
        notes="Single-coil k-space is emulated from several coils: its noise and phase are not physical. Images are 320 x 320.",
    )


def prostate_card() -> DatasetCard:
    """The card of ``fastmri_prostate``."""
    return DatasetCard(
        name="fastmri_prostate",
        implementation="mrbench_datasets.fastmri.prostate:ProstateDataset",
        summary="fastMRI prostate: axial T2 and diffusion, magnitude images",
        options=ProstateOptions,
        version="1",
        home=HOME,
        licence=LICENCE,
        citation="R. Tibrewala, T. Dutt, A. Tong, et al. FastMRI Prostate: A public, biparametric MRI dataset to advance machine "
        "learning for prostate cancer imaging. Scientific Data 11:404, 2024.",
        access=ACCESS,
        redistribution="none",
        group_key="fastmri_pt_id (001-312, in file names and label tables), shared by T2 and diffusion",
        split_rule="official, from the label tables (data_split) or the folders training, validation, test; neither: 70/15/15 by a "
        "seeded hash of the patient",
        path_options=("path", "labels"),
        steps=(
            f"Ask for access at {HOME} (sign the data sharing agreement).",
            "Download the T2 archives (fastMRI_prostate_T2_IDS_001_020 and so on; 16 of them) or the diffusion ones.",
            "Unpack them into one folder and put t2_slice_level_labels.csv (or the diffusion table) of "
            "https://github.com/cai2r/fastMRI_prostate beside them: it holds the official split.",
        ),
        expected="312 patients: 218 training, 48 validation, 46 test; T2 slices 6647/1462/1399, diffusion slices 6637/1458/1395",
        notes="Slices are labelled from 1 on, as the label tables number them. k-space is undersampled with averages: no complex images.",
    )


@hookimpl
def mrbench_datasets() -> Sequence[DatasetCard]:
    """The cards of the three fastMRI sets."""
    return [brain_card(), knee_card(), prostate_card()]
