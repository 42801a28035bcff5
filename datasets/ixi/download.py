"""The automatic download of IXI, which its licence (CC BY-SA 3.0) allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mrbench.data.download import download, unpack
from mrbench.errors import UserError

Report = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Archive:
    """A tar of one contrast: where it is, its MD5 as pinned by others, and what it may unpack to at most, in bytes."""

    url: str
    md5: str
    limit: int


_BASE = "https://biomedic.doc.ic.ac.uk/brain-development/downloads/IXI"
#: The files inside are gzip-compressed already, so a tar holds little more than it unpacks to.
ARCHIVES = {
    "T1": Archive(f"{_BASE}/IXI-T1.tar", "34901a0593b41dd19c1a1f746eac2d58", 8 * 10**9),
    "T2": Archive(f"{_BASE}/IXI-T2.tar", "e3140d78730ecdd32ba92da48c0a9aaa", 8 * 10**9),
    "PD": Archive(f"{_BASE}/IXI-PD.tar", "88ecd9d1fa33cb4a2278183b42ffd749", 8 * 10**9),
}


def fetch(target: Path, contrast: str, report: Report) -> list[Path]:
    """Download one contrast into ``target/IXI-<contrast>/``; the archive is removed when it is unpacked.

    Parameters
    ----------
    target : folder of the data set; it is made.
    contrast : T1, T2 or PD (about 4 to 5 GB each).
    report : bytes so far and in all.

    Returns
    -------
    The unpacked files.

    Raises
    ------
    UserError : an unknown contrast, or the download is not possible.
    DataError : what came is not the pinned file.
    """
    if contrast not in ARCHIVES:
        raise UserError(f"ixi: no contrast {contrast!r} to download. There are: {', '.join(ARCHIVES)}.")
    chosen = ARCHIVES[contrast]
    archive = download(chosen.url, target / f"IXI-{contrast}.tar", md5=chosen.md5, report=report)
    files = unpack(archive, target / f"IXI-{contrast}", chosen.limit)
    archive.unlink()
    return files
