"""Where data sets are on this machine: what ``mrbench data add`` remembers, and how commands find it again.

A place is a data set with its options (the folder among them) under a name. ``--dataset NAME`` takes the place of that name;
nothing else about a place enters a result.

A card's ``download`` names a function that gets the files of a data set whose licence allows it::

    def fetch(target: Path, <options of the card, by name>, report: Callable[[int, int | None], None]) -> object

``target`` is the folder that is added afterwards; ``report(done, total)`` takes bytes of the file at hand.
It goes on where an earlier call stopped (see :mod:`mrbench.data.download`).
"""

from __future__ import annotations

import contextlib
import datetime
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrbench.cards import DatasetCard, Options
from mrbench.errors import PluginError, UserError
from mrbench.plugins import Registry, did_you_mean

if TYPE_CHECKING:  # listings need no numpy
    from mrbench.data.records import BadSource, Dataset, VolumeRef

#: Environment variable that names the folder of what a user told mrbench.
DATA_VARIABLE = "MRBENCH_DATA"
FILE = "places.json"
FORMAT = 1
LOCK_SECONDS = 30


@dataclass(frozen=True)
class Place:
    """A data set on this machine: its card's name, its options (places on disk as absolute paths), when it was added (UTC)."""

    alias: str
    dataset: str
    options: Mapping[str, Any] = field(default_factory=dict)
    added: str = ""

    def folder(self, card: DatasetCard) -> Path | None:
        """The folder that holds the files; ``None`` where the card has no such option, or the record does not say."""
        found = self.options.get(card.path_options[0]) if card.path_options else None
        return Path(str(found)) if found else None


@dataclass(frozen=True)
class Places:
    """The remembered places. Several processes may add at once: changes are made under a lock, atomically."""

    file: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Places:
        """The user's own: ``$MRBENCH_DATA``, else the user's data folder of the system."""
        given = (os.environ if environ is None else environ).get(DATA_VARIABLE)
        if given:
            return cls(Path(given).expanduser() / FILE)
        from platformdirs import user_data_path

        return cls(user_data_path("mrbench", appauthor=False) / FILE)

    def all(self) -> dict[str, Place]:
        """All places by name, sorted.

        Raises
        ------
        UserError : the file is damaged, or of a newer version.
        """
        try:
            text = self.file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._damaged(error) from None
        try:
            document = json.loads(text)
            version = document["format"]
            if isinstance(version, int) and version > FORMAT:
                raise UserError(f"{self.file}: has the format {version}, this mrbench reads {FORMAT}. Update mrbench.")
            found = {alias: _place(alias, record) for alias, record in document["places"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(error) from None
        return dict(sorted(found.items()))

    def refuse_taken(self, place: Place, path: str = "path") -> None:
        """Refuse a name that stands for another folder or data set (``UserError``). ``path``: the option that names the folder."""
        other = self.all().get(place.alias)
        if other is not None and (other.dataset, other.options.get(path)) != (place.dataset, place.options.get(path)):
            raise UserError(
                f"the name {place.alias!r} is taken: it stands for {other.dataset} in {other.options.get(path, '?')}. Give this one "
                "a name of its own with --as NAME, or say --replace."
            )

    def add(self, place: Place, replace: bool = False, path: str = "path") -> Place:
        """Remember a place, stamped with the time. Other options of the same folder take the place of earlier ones.

        Parameters
        ----------
        replace : take a name that stands for another folder. path : the option that names the folder.

        Raises
        ------
        UserError : the name is taken and ``replace`` is not set; or the file is damaged.
        """
        stamped = Place(place.alias, place.dataset, dict(place.options), now())
        with self._lock():
            if not replace:
                self.refuse_taken(place, path)
            self._write({**self.all(), place.alias: stamped})
        return stamped

    def remove(self, alias: str) -> Place:
        """Forget a place; its files stay (``UserError`` if there is none of this name)."""
        with self._lock():
            known = self.all()
            if alias not in known:
                raise UserError(f"no place named {alias!r}.{did_you_mean(alias, known)} Known: {', '.join(known) or 'none'}.")
            found = known.pop(alias)
            self._write(known)
        return found

    def _damaged(self, error: Exception) -> UserError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return UserError(
            f"{self.file}: the list of data sets' places cannot be read ({reason}). Mend it, or delete it and add the data sets "
            "again with `mrbench data add`."
        )

    def _lock(self) -> AbstractContextManager[object]:
        from filelock import FileLock

        self.file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.file.with_name(f".{self.file.name}.lock"), timeout=LOCK_SECONDS)

    def _write(self, places: Mapping[str, Place]) -> None:
        records = {
            alias: {"dataset": p.dataset, "options": dict(p.options), "added": p.added} for alias, p in sorted(places.items())
        }
        handle, temporary = tempfile.mkstemp(prefix=".tmp-", dir=self.file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump({"format": FORMAT, "places": records}, stream, indent=1, ensure_ascii=False)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, self.file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def find_dataset(name: str, registry: Registry, places: Places) -> tuple[DatasetCard, Place | None]:
    """The data set that a name stands for: a card's name or that of a remembered place.

    The file of places is read only where it can matter: for unknown names, and for data sets that need files.

    Returns
    -------
    The card, and the place of that name, if one is remembered.

    Raises
    ------
    UserError : unknown (with near names), or a place whose data set is not there any more or whose options do not fit it.
    """
    if name in registry.datasets.names():
        card = registry.datasets.get(name)
        place = places.all().get(name) if card.path_options else None
        if place is not None and place.dataset != name:
            raise UserError(
                f"{name!r} is the name of a data set and of a place of {place.dataset!r}. Forget the place (mrbench data remove {name}) "
                f"and add it again under another name: mrbench data add {place.dataset} PATH --as OTHER."
            )
    else:
        known = places.all()
        if name not in known:
            cards = registry.datasets.names()
            near = did_you_mean(name, [*cards, *known])
            own = f" Added: {', '.join(known)}." if known else ""
            raise UserError(f"no data set named {name!r}.{near} Known: {', '.join(cards) or 'none'}.{own}")
        place = known[name]
        if place.dataset not in registry.datasets.names():
            raise UserError(
                f"{name!r} was added as the data set {place.dataset!r}, which is not installed here. Install its plugin, or name its file with "
                "--plugin."
            )
        card = registry.datasets.get(place.dataset)
    if place is not None:
        try:
            card.parse(place.options, name)
        except UserError as error:
            raise UserError(
                f"what is remembered of {name} does not fit any more: {error} Add it again: mrbench data add {card.name} PATH"
                f"{'' if name == card.name else f' --as {name}'}."
            ) from None
    return card, place


def options_of(card: DatasetCard, place: Place | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Remembered options with those that are given now before them.

    A folder that is given now is another place: nothing remembered holds for it.
    """
    if place is None or any(key in given for key in card.path_options[:1]):
        return dict(given)
    return {**place.options, **given}


def moved(card: DatasetCard, options: Mapping[str, Any], alias: str, places: Places) -> dict[str, Any]:
    """Recorded options of a data set, with the folder that is remembered now where the recorded one is gone.

    Parameters
    ----------
    alias : the name that the data set went by; its place is looked for first, then that of the card's own name.
    """
    found = dict(options)
    folder = found.get(card.path_options[0]) if card.path_options else None
    if not folder or Path(str(folder)).is_dir():
        return found
    known = places.all()
    for place in (known.get(alias), known.get(card.name)):
        if place is not None and place.dataset == card.name:
            found.update({k: v for k, v in place.options.items() if k in card.path_options})
            break
    return found


def open_dataset(card: DatasetCard, options: Options, name: str) -> Dataset:
    """The implementation of a data set with its options, places on disk from the root.

    Raises
    ------
    PluginError, UserError : it cannot be loaded, or refuses its options.
    """
    values: dict[str, Any] = options.model_dump(mode="json")
    for key in card.path_options:
        if values.get(key):
            values[key] = absolute(values[key])
    made: Dataset = card.load()(card.parse(values, name))
    return made


def protocol_filters(dataset: Dataset, refs: Sequence[VolumeRef | BadSource]) -> list[str]:
    """Which volumes the filters of named protocols would drop, in sentences, where the data set's module tells
    (``protocol_filters(refs)``)."""
    tell = getattr(sys.modules.get(type(dataset).__module__), "protocol_filters", None)
    return list(map(str, tell(refs))) if callable(tell) else []


def fetch(card: DatasetCard, target: Path, options: Options, report: Callable[[int, int | None], None]) -> None:
    """Carry out a card's ``download`` (see the top of this module).

    Raises
    ------
    UserError : it needs another option, or the download is not possible.
    PluginError : the function cannot be loaded, or asks for what is no option of the card.
    """
    function = replace(card, implementation=card.download).load()
    names = [n for n in inspect.signature(function).parameters if n not in ("target", "report")]
    unknown = [n for n in names if n not in type(options).model_fields]
    if unknown:
        raise PluginError(f"{card.name}: its download asks for {', '.join(unknown)}, which is no option of the data set")
    target.mkdir(parents=True, exist_ok=True)
    try:
        function(target=target, report=report, **{n: getattr(options, n) for n in names})
    except UserError as error:
        with contextlib.suppress(OSError):
            target.rmdir()  # if nothing came
        hint = f"The download takes {', '.join(f'--set {n}=VALUE' for n in names)}." if names else ""
        separator = "\n" if "\n" in str(error) else " "
        raise UserError(separator.join(filter(None, [str(error), hint]))) from error


def absolute(path: str) -> str:
    """A place on disk from the root, ``~`` resolved; links stay (what they point to may move)."""
    return os.path.abspath(Path(path).expanduser())


def now() -> str:
    """The time (UTC) to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _place(alias: str, record: Mapping[str, Any]) -> Place:
    """A record of the file; fields of newer versions are passed over."""
    options = record["options"]
    if not isinstance(options, dict) or not isinstance(record["dataset"], str):
        raise TypeError(f"{alias}: not a place")
    return Place(alias, record["dataset"], options, str(record.get("added", "")))
