"""What to say about a data set whose place on this machine is not known."""

from __future__ import annotations

from pathlib import Path

from mrbench.cards import DatasetCard
from mrbench.errors import UserError


def place_of(card: DatasetCard, path: str) -> Path:
    """The folder that holds the data set.

    Parameters
    ----------
    card : its home, licence, access and steps are told to a user who has not got the files.
    path : the option of that name; empty: not known.

    Raises
    ------
    UserError : no place is known (with the page, the licence step and the `mrbench data add` command), or there is no such folder.
    """
    if not path:
        raise UserError(missing(card))
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"{card.name}: there is no folder {folder}. Name the folder that holds the files: mrbench data add {card.name} PATH."
        )
    return folder


def missing(card: DatasetCard) -> str:
    """The page, the licence, what to do, and the command that tells mrbench where the files are."""
    lines = [f"The data set {card.name} has no place on this machine yet."]
    if card.home:
        lines.append(f"Page: {card.home}")
    if card.licence:
        lines.append(f"Licence: {card.licence}")
    if card.access:
        lines.append(f"Access: {card.access}")
    lines += [f"{number}. {step}" for number, step in enumerate(card.steps, 1)]
    if card.download:
        lines.append(f"The licence allows an automatic download: mrbench data get {card.name}")
    lines.append(f"Then: mrbench data add {card.name} PATH")
    return "\n".join(lines)
