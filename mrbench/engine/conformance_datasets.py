"""The conformance suite for data sets: does a plugin keep its contract, and its card its word? (no torch here)

Without the files, the card, its options and what the user is told are checked; with them, also ids, splits and the volumes that
are read: the first, one in the middle and the last. ``mrbench data check`` reads all of them.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from mrbench.cards import DatasetCard, Options, Redistribution
from mrbench.data.cache import extra_json
from mrbench.data.checks import check_volume
from mrbench.data.items import item_id
from mrbench.data.records import BadSource, Volume, VolumeRef
from mrbench.data.splits import SPLITS
from mrbench.data.survey import SHARED, shared_subjects
from mrbench.engine.conformance_base import (
    Check,
    CheckResult,
    Failed,
    Skipped,
    card_problems,
    check_options,
    check_unknown_option,
    expected_failures,
    refuse,
    run_checks,
)
from mrbench.engine.dataset_trial import DatasetTrial, described, digest, listings_shuffled, pixels_watched
from mrbench.errors import DataError, PluginError, UserError

#: How the licence of a card begins whose files are the user's own: it has no page and no citation of its own.
OWN_FILES = "that of your files"

_MEMBERS = ("refs", "read")
_VOXEL_TOLERANCE = 1e-3  # relative, between voxel sizes and the columns of the affine


def check_dataset(card: DatasetCard, options: Options | None = None, name: str = "") -> list[CheckResult]:
    """Run every check of :data:`CHECKS` on a data set, in order.

    Parameters
    ----------
    options : the option that names the files among them; ``None``: the card's defaults. name : what commands call the data set.

    Raises
    ------
    UserError : the card has options without a default and ``options`` is ``None``.
    """
    trial = DatasetTrial(card, card.parse({}) if options is None else options, name or card.name)
    return run_checks(CHECKS, trial, expected_failures(card))


# -- the card ------------------------------------------------------------------------------------------------------
def _card(trial: DatasetTrial) -> str:
    card = trial.card
    theirs = not card.licence.startswith(OWN_FILES)
    fields = type(trial.options).model_fields
    wrong = {f"{field} is empty": not str(getattr(card, field)).strip() for field in ("version", "licence", "access")}
    wrong |= {f"{field} is empty": not getattr(card, field).strip() for field in ("group_key", "split_rule")}
    wrong |= {
        f"redistribution {card.redistribution!r} is none of {', '.join(get_args(Redistribution))}": card.redistribution
        not in get_args(Redistribution),
        f"home is empty (the licence of a set of the user's own files begins with {OWN_FILES!r})": theirs and not card.home,
        "citation is empty": theirs and not card.citation,
        "steps are empty: how does one get the files?": theirs and bool(card.path_options) and not card.steps,
        "a step is empty": any(not s.strip() for s in card.steps),
        "download gets files, but path_options names no place to put them": bool(card.download) and not card.path_options,
    }
    wrong |= {f"path_options names {p!r}, which is no option": p not in fields for p in card.path_options}
    wrong |= {
        f"the option {p!r} names a place: its default is the empty text": p in fields and fields[p].default != ""
        for p in card.path_options
    }
    problems = card_problems(card, [c.name for c in CHECKS])
    refuse([*problems, *(text for text, is_wrong in wrong.items() if is_wrong)])
    if card.download:
        replace(card, implementation=card.download).load()
    return f"version {card.version}, redistribution {card.redistribution}"


def _options(trial: DatasetTrial) -> str:
    return check_options(trial.card.options, trial.options)


def _unknown_option(trial: DatasetTrial) -> str:
    return check_unknown_option(trial.card, trial.options)


def _load(trial: DatasetTrial) -> str:
    implementation = trial.card.load()
    if not isinstance(implementation, type):
        raise Failed(f"the implementation is no class, but {type(implementation).__name__}")
    missing = [m for m in _MEMBERS if not callable(getattr(implementation, m, None))]
    if missing:
        raise Failed(f"the class has no method {' and no method '.join(missing)}")
    trial.opened(**dict.fromkeys(trial.card.path_options, ""))  # nothing is looked at before refs()
    return implementation.__name__


def _missing_path(trial: DatasetTrial) -> str:
    card = trial.card
    if not card.path_options:
        raise Skipped("it needs no files of the user's")
    text = _refusal(trial, "without a place", **dict.fromkeys(card.path_options, ""))
    command = f"mrbench data add {card.name}"
    wanted = {"the command": command, "the page": card.home, "the licence": card.licence if card.home else ""}
    unsaid = [f"{what} ({said})" for what, said in wanted.items() if said and said not in text]
    if unsaid:
        raise Failed(f"without a place, the refusal does not name {' and '.join(unsaid)}: {text.splitlines()[0]}")
    with tempfile.TemporaryDirectory(prefix="mrbench-check-") as folder:
        nowhere = str(Path(folder) / "no-such-folder")
        if nowhere not in (text := _refusal(trial, "for a folder that does not exist", **{card.path_options[0]: nowhere})):
            raise Failed(f"the refusal does not name the folder that does not exist: {text.splitlines()[0]}")
        _refusal(trial, "for an empty folder", **{card.path_options[0]: folder})
    return f"refused, with {command!r}; so are a folder that does not exist and an empty one"


def _refusal(trial: DatasetTrial, when: str, **changes: str) -> str:
    try:
        found = trial.opened(**changes).refs()
    except UserError as error:
        return str(error)
    except Exception as error:
        raise Failed(f"{when}: raised {described(error)}, expected UserError (see mrbench.data.missing.place_of)") from None
    raise Failed(f"{when}: refs() gave {len(found)} entries, expected UserError (see mrbench.data.missing.place_of)")


# -- what it holds -------------------------------------------------------------------------------------------------
def _refs(trial: DatasetTrial) -> str:
    found = trial.found()
    if not isinstance(found, list):
        raise Failed(f"refs() gave {type(found).__name__}, expected a list")
    foreign = {type(r).__name__ for r in found if not isinstance(r, (VolumeRef, BadSource))}
    if foreign:
        raise Failed(f"refs() gave {', '.join(sorted(foreign))}, expected VolumeRef or BadSource")
    bad = [r for r in found if isinstance(r, BadSource)]
    silent = [b for b in bad if not b.file or not b.reason.strip()]
    if silent:
        raise Failed(f"a BadSource names no file or no reason: {silent[0]}")
    if not trial.refs:
        raise Failed(f"no volume can be used; {bad[0].file}: {bad[0].reason}" if bad else "it holds no volume")
    subjects = len({r.subject for r in trial.refs})
    return f"{len(trial.refs)} volumes of {subjects} subjects" + (f", {len(bad)} unusable files" if bad else "")


def _no_pixels(trial: DatasetTrial) -> str:
    trial.found()  # what must be read once (hashes that group near-copies) is remembered from here on
    dataset = trial.opened()
    with pixels_watched() as seen:
        dataset.refs()
    if seen:
        raise Failed(f"refs() reads pixels: it calls {', '.join(sorted(seen))}. Headers are enough; pixels are read by read()")
    return "refs() calls no decoder"


def _stable(trial: DatasetTrial) -> str:
    first = trial.found()
    for again, when in ((trial.dataset, "called again"), (trial.opened(), "of another instance")):
        _same(first, again.refs(), when)
    with listings_shuffled():
        other = trial.opened().refs()
    _same(first, other, "with the folders' entries in another order (sort what the file system lists)")
    return "the same when called again, of another instance, and whatever order folders list their files in"


def _same(first: Sequence[object], other: Sequence[object], when: str) -> None:
    if list(first) == list(other):
        return
    if len(first) != len(other):
        raise Failed(f"refs() {when} gives {len(other)} entries, not {len(first)}")
    k = next(k for k, (a, b) in enumerate(zip(first, other, strict=True)) if a != b)
    raise Failed(f"refs() {when} is another list, from entry {k} on: {_short(first[k])}, then {_short(other[k])}")


def _short(entry: object) -> str:
    return f"{entry.subject}/{entry.volume}" if isinstance(entry, (VolumeRef, BadSource)) else repr(entry)


def _ids(trial: DatasetTrial) -> str:
    seen: dict[str, VolumeRef] = {}
    for ref in trial.refs:
        for what, text in (("subject", ref.subject), ("volume", ref.volume), *(("slice label", s) for s in ref.slices)):
            if not isinstance(text, str) or not text.strip() or text != text.strip() or not text.isprintable():
                raise Failed(
                    f"{_short(ref)}: the {what} {text!r} is empty, or has spaces around it or characters that cannot be shown"
                )
        twice = [s for s in ref.slices if ref.slices.count(s) > 1] if len(set(ref.slices)) < len(ref.slices) else []
        if twice:
            raise Failed(f"{_short(ref)}: two slices have the label {twice[0]!r}")
        name = item_id(trial.name, ref.subject, ref.volume)
        if name in seen:
            raise Failed(f"two volumes have the name {name}: {_files(seen[name])} and {_files(ref)}")
        seen[name] = ref
    return f"unique, for example {next(iter(seen))}"


def _files(ref: VolumeRef) -> str:
    return str(ref.files[0]) if ref.files else "no file"


def _splits(trial: DatasetTrial) -> str:
    unknown = sorted({r.split for r in trial.refs} - set(SPLITS))
    if unknown:
        raise Failed(f"splits {', '.join(map(repr, unknown))} are none of {', '.join(SPLITS)}")
    shared = shared_subjects(trial.refs)
    counts = ", ".join(f"{s}: {n}" for s in SPLITS if (n := len({r.subject for r in trial.refs if r.split == s})))
    if shared and not getattr(trial.dataset, SHARED, False):
        subject, splits = next(iter(shared.items()))
        raise Failed(f"{len(shared)} subjects are in several splits, for example {subject!r} in {' and '.join(splits)}")
    told = f"; {len(shared)} subjects in several, as asked for" if shared else ""
    return f"subjects in {counts}{told}" + ("" if trial.card.subjects else "; the card says that nobody knows the subjects")


def _sources(trial: DatasetTrial) -> str:
    place = str(Path(trial.place).expanduser().absolute()) if trial.place else ""
    for ref in trial.refs:
        if not ref.files or not all(isinstance(f, Path) for f in ref.files):
            raise Failed(f"{_short(ref)}: files are {ref.files!r}, expected the paths of all files that determine the volume")
        gone = next((f for f in ref.files if not f.is_file()), None)
        if gone is not None:
            raise Failed(f"{_short(ref)}: there is no file {gone}")
        try:
            extra = extra_json(ref)
        except PluginError as error:
            raise Failed(str(error)) from None
        if place and any(place in text for text in (ref.subject, ref.volume, *ref.slices, extra)):
            raise Failed(f"{_short(ref)}: ids or extra hold the folder {place}: results would change when it is moved")
    return f"{sum(len(r.files) for r in trial.refs)} files; ids and extra do not depend on where they are"


# -- volumes -------------------------------------------------------------------------------------------------------
def _read(trial: DatasetTrial) -> str:
    problems, shown = [], []
    for index in trial.chosen():
        ref = trial.refs[index]
        volume = trial.read(index)
        if isinstance(volume, DataError):
            problems.append(str(volume))
            continue
        _check_read(ref, volume)
        trial.digests[index] = digest(volume)
        shown.append(" x ".join(map(str, volume.array.shape)))
    if not shown:
        raise Failed(f"none of {len(problems)} volumes can be read; {problems[0]}")
    kinds = ", ".join(dict.fromkeys(shown))
    return f"float32 {kinds}" + (f"; {len(problems)} volumes cannot be read ({problems[0]})" if problems else "")


def _check_read(ref: VolumeRef, volume: Volume) -> None:
    name = _short(ref)
    if not isinstance(volume, Volume):
        raise Failed(f"{name}: read() gave {type(volume).__name__}, expected mrbench.Volume")
    try:
        check_volume(volume, name)
    except DataError as error:
        raise Failed(str(error)) from None
    if not isinstance(volume.units, str) or not volume.units.strip():
        raise Failed(f"{name}: units are {volume.units!r}; where none are known they are 'arbitrary'")
    if len(volume.voxel) != 3:
        raise Failed(f"{name}: voxel is {volume.voxel}, expected millimetres along the three axes")
    if volume.mask is not None and not volume.mask.any():
        raise Failed(f"{name}: the foreground mask is empty")
    if volume.affine is not None:
        columns = np.linalg.norm(volume.affine[:3, :3], axis=0)
        known = [(v, float(c)) for v, c in zip(volume.voxel, columns, strict=True) if not math.isnan(v)]
        if any(abs(v - c) > _VOXEL_TOLERANCE * c for v, c in known):
            raise Failed(
                f"{name}: voxel sizes {volume.voxel} are not those of the affine ({', '.join(f'{c:.4g}' for c in columns)})"
            )
    allowed = set(volume.array.shape[1:] if volume.affine is not None else volume.array.shape[1:2])
    if ref.slices and len(ref.slices) not in allowed:
        raise Failed(f"{name}: {len(ref.slices)} slice labels for an array of {list(volume.array.shape)}")


def _read_again(trial: DatasetTrial) -> str:
    other = trial.opened()
    other.refs()
    for index in reversed(trial.digests):  # in another order, of another instance
        volume = trial.read(index, other)
        if isinstance(volume, DataError) or digest(volume) != trial.digests[index]:
            raise Failed(
                f"{_short(trial.refs[index])}: read again, of another instance and in another order, it is another volume"
            )
        if volume.array.flags.writeable:
            volume.array += 1  # a caller may do with it what it likes
        again = trial.read(index, other)
        if isinstance(again, DataError) or digest(again) != trial.digests[index]:
            raise Failed(
                f"{_short(trial.refs[index])}: what the caller did to the array shows when it is read again: give a copy"
            )
    return f"{len(trial.digests)} volumes are the same, bit by bit"


def _damaged(trial: DatasetTrial) -> str:
    ref = trial.refs[next(iter(trial.digests))]
    root = os.path.commonpath([f.parent for f in ref.files])  # pairs of files stay beside each other
    contents = {"empty files": b"", "files of random bytes": np.random.default_rng(0).bytes(4096)}
    with tempfile.TemporaryDirectory(prefix="mrbench-check-") as folder:
        for what, content in contents.items():
            files = tuple(Path(folder, "damaged", f.relative_to(root)) for f in ref.files)
            for file in files:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            _refuses(trial, replace(ref, files=files), what)
        gone = tuple(Path(folder, "gone", f.relative_to(root)) for f in ref.files)
        _refuses(trial, replace(ref, files=gone), "files that are gone")
    return f"DataError for {', '.join(contents)} and files that are gone"


def _refuses(trial: DatasetTrial, ref: VolumeRef, what: str) -> None:
    try:
        trial.dataset.read(ref)
    except DataError:
        return
    except Exception as error:
        raise Failed(f"{what}: read() raised {described(error)}, expected DataError naming the file") from None
    raise Failed(f"{what} are read without complaint")


_LISTED = ("refs",)
_READ = ("refs", "read")

CHECKS: tuple[Check[DatasetTrial], ...] = (
    Check("card", "the card is complete: licence, access, group key, split rule, source", _card),
    Check("options", "every option has a description", _options),
    Check("unknown_option", "unknown options are refused, naming the known ones", _unknown_option),
    Check("load", "the implementation loads, has the right form, and looks at nothing before refs()", _load),
    Check("missing_path", "without the files, the user is told where to get them and what to type", _missing_path, ("load",)),
    Check("refs", "it lists its volumes", _refs, ("load",)),
    Check("no_pixels", "refs() reads no pixels", _no_pixels, _LISTED),
    Check(
        "stable",
        "refs() is the same list whenever it is called, and whatever order folders list their files in",
        _stable,
        _LISTED,
    ),
    Check("ids", "subjects, volumes and slice labels are unique and legal", _ids, _LISTED),
    Check("splits", "every subject is in one split", _splits, _LISTED),
    Check("sources", "files exist, extra is JSON, and nothing depends on where the files are", _sources, _LISTED),
    Check(
        "read",
        "volumes are float32 [C, D0, D1, D2], finite, with fitting voxel sizes, affine, mask and labels",
        _read,
        ("refs", "ids"),
    ),
    Check("read_again", "a volume is the same whenever it is read", _read_again, _READ),
    Check("damaged", "unusable files are refused with DataError", _damaged, (*_READ, "sources")),
)

__all__ = ["CHECKS", "OWN_FILES", "CheckResult", "check_dataset"]
