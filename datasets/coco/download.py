"""The automatic download of COCO 2017, over the address of its storage that has a certificate of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mrbench.data.download import download
from mrbench.errors import UserError

Report = Callable[[int, int | None], None]

_BASE = "https://s3.amazonaws.com/images.cocodataset.org/zips"
#: MD5 of the archives, as pinned by many.
MD5 = {"val2017": "442b8da7639aecaf257c1dceb8ba8c80", "train2017": "cced6f7f71b7629ddf16f17bbcfab6b2"}


def fetch(target: Path, part: str, report: Report) -> list[Path]:
    """Download one part as ``target/<part>.zip``. It stays packed: the data set reads the archive.

    Parameters
    ----------
    target : folder of the data set; it is made.
    part : val2017 (0.8 GB), train2017 (18 GB); both, the option's default, means the small one.
    report : bytes so far and in all.

    Returns
    -------
    The archive.

    Raises
    ------
    UserError : an unknown part, or the download is not possible.
    DataError : what came is not the pinned file.
    """
    part = "val2017" if part == "both" else part
    if part not in MD5:
        raise UserError(f"coco: no part {part!r} to download. There are: {', '.join(MD5)}.")
    return [download(f"{_BASE}/{part}.zip", target / f"{part}.zip", md5=MD5[part], report=report)]
