"""A study's files.

::

    study.json          what readers see: criteria, scale, images under random codes, trials; no method is named
    key.json            what they must not see: which method and item each code stands for
    images/CODE.u16     [H, W] or [H, W, 3], 16-bit little-endian, 0..65535 for 0..1; equal size and date for all methods
    ratings/ID.jsonl    one line per rating of one reader (mrbench.study.store)
    README.txt          who may see what
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mrbench.errors import UserError

STUDY, KEY, README = "study.json", "key.json", "README.txt"
IMAGES, RATINGS = "images", "ratings"
FORMAT = 1
WHITE = 65535  # the stored value of intensity 1

Mode = Literal["single", "pair"]


class Record(BaseModel):
    """Base of the stored records. Unknown fields of newer versions are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)


class StudyImage(Record):
    """Size in pixels, and the window ``low`` to ``high`` (intensities in [0, 1]) that the page begins with.

    The window is that of the item's ground truth, so that it is the same for every method.
    """

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: Literal[1, 3] = 1
    low: float = 0.0
    high: float = 1.0

    @property
    def bytes(self) -> int:
        """Size of the stored file."""
        return 2 * self.height * self.width * self.channels


class Trial(Record):
    """What is on screen at once: one or two images to rate, and the code of the reference beside them (if the study has one).

    ``repeat_of``: the trial that this one shows again, under other codes.
    """

    id: str
    images: tuple[str, ...] = Field(min_length=1, max_length=2)
    reference: str = ""
    repeat_of: str = ""


class Study(Record):
    """``study.json``. ``scale``: the lowest and highest rating; ``anchors``: their meanings."""

    format: int = FORMAT
    id: str
    title: str
    created: str
    mrbench: str
    mode: Mode
    criteria: tuple[str, ...] = Field(min_length=1)
    scale: tuple[int, int]
    anchors: tuple[str, str]
    images: dict[str, StudyImage]
    trials: tuple[Trial, ...]
    redistribution: str = "none"
    licence: str = ""

    @property
    def rated(self) -> int:
        """Images that a reader rates, repeats included."""
        return sum(len(t.images) for t in self.trials)

    @property
    def expected(self) -> int:
        """Ratings of a reader who has finished."""
        return self.rated * len(self.criteria)


class MethodRecord(Record):
    """A method of the study: its run, and whether it is a control (never ranked)."""

    label: str
    name: str
    run: str
    tier: str = "none"
    control: bool = False
    checkpoint_sha256: str = ""


class Shown(Record):
    """What a code stands for. ``repeat_of``: the code of the same image in the trial that is repeated."""

    method: str
    item: str
    subject: str
    repeat_of: str = ""


class Key(Record):
    """``key.json``. ``references``: code -> item, of the images that are shown as reference and not rated."""

    format: int = FORMAT
    study: str
    dataset: str
    dataset_version: str
    protocol: str
    protocol_hash: str
    seed: int
    items: int  # items to choose from
    methods: tuple[MethodRecord, ...]
    images: dict[str, Shown]
    references: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


T = TypeVar("T", Study, Key)


def read_study(folder: Path) -> Study:
    """``study.json`` of a study folder.

    Raises
    ------
    UserError : it is no study folder, damaged, or of a newer format.
    """
    if not (folder / STUDY).is_file():
        raise UserError(
            f"{folder} is no reader study: it has no {STUDY}. Make one with `mrbench study create RUNS... --out DIR`."
        )
    return _read(Study, folder / STUDY)


def read_key(path: Path, study: Study) -> Key:
    """The key of a study (``UserError`` where it is missing, damaged, or that of another study)."""
    if not path.is_file():
        raise UserError(
            f"{path}: the key of the study is not there, so nobody can say which method a code stands for. "
            "Where it was kept apart from the readers, name it with --key FILE."
        )
    key = _read(Key, path)
    if key.study != study.id:
        raise UserError(f"{path}: this is the key of study {key.study}, and the ratings belong to study {study.id}.")
    codes = {code for trial in study.trials for code in trial.images}
    if codes != set(key.images):
        raise UserError(f"{path}: key and study do not name the same images. One of the two files was changed; restore it.")
    return key


def _read(kind: type[T], path: Path) -> T:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, dict) and isinstance(document.get("format"), int) and document["format"] > FORMAT:
            raise UserError(f"{path}: format {document['format']} is newer than this mrbench reads ({FORMAT}). Update mrbench.")
        return kind.model_validate(document)
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]}). Restore the file from a copy.") from None
