"""The automatic download of Prostate-MRI-US-Biopsy, which its licence (CC BY 4.0) allows: its T2w series, from the IDC."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mrbench.data.download import Report
from mrbench.data.idc import RemoteSeries, download_series, installed, list_series, open_client
from mrbench.errors import UserError

from . import mrbench_datasets

COLLECTION = "prostate_mri_us_biopsy"
LICENCE = "CC BY 4.0"
#: By the descriptions, as the list of series has no echo times: T2-weighted, and neither diffusion nor another plane.
TAKEN = re.compile(r"t2", re.IGNORECASE)
NOT_TAKEN = re.compile(r"adc|bval|diff|dwi|trace|sag|cor", re.IGNORECASE)


def fetch(target: Path, description: str, min_slices: int, report: Report) -> None:
    """Download the axial T2w series into ``target/<PatientID>/<SeriesInstanceUID>/`` (about 10 GB in all).

    What has arrived is read by the data set's own rules: echo time, direction and number of slices come from the headers.

    Parameters
    ----------
    target : folder of the data set; it is made.
    description : regular expression that SeriesDescription must contain; empty: any.
    min_slices : series of fewer files are left out.
    report : bytes so far and in all.

    Raises
    ------
    UserError : the extra ``mrbench[idc]`` is not installed (with what to do by hand), nothing fits, or the download is not possible.
    """
    if not installed():
        raise UserError(_by_hand())
    client = open_client()
    download_series(client, chosen(list_series(client, COLLECTION, "MR"), description, min_slices), target, report)


def chosen(series: Sequence[RemoteSeries], description: str = "", min_slices: int = 0) -> list[RemoteSeries]:
    """The series that the data set may take, of the licence that the card states.

    Raises
    ------
    UserError : none.
    """
    found = [
        s
        for s in series
        if TAKEN.search(s.description)
        and not NOT_TAKEN.search(s.description)
        and re.search(description, s.description, re.IGNORECASE)
        and s.files >= min_slices
        and s.licence == LICENCE
    ]
    if not found:
        raise UserError(
            f"prostate: none of the {len(series)} MR series of {COLLECTION} is T2-weighted, under {LICENCE}, described as "
            f"{description!r} and of {min_slices} slices or more."
        )
    return found


def _by_hand() -> str:
    (card,) = mrbench_datasets()
    return "\n".join(
        [
            "the automatic download of prostate needs the package idc-index. Install it: pip install 'mrbench[idc]'",
            f"Or by hand, under {card.licence}, from {card.home}",
            *(f"{number}. {step}" for number, step in enumerate(card.steps, 1)),
            "Then: mrbench data add prostate PATH",
        ]
    )
