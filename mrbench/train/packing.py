"""A checkpoint folder from weights that mrbench did not train: a safetensors file, or a published ``.pth``.

Pickled files are read with ``weights_only=True`` and written as safetensors; nothing in them is executed. The folder holds what
``mrbench train`` would leave, as far as anybody knows it: ``mrbench push`` publishes it, ``--method METHOD@DIR`` uses it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mrbench
from mrbench.cards import Checkpoint, MethodCard
from mrbench.data.leaks import subject_hash
from mrbench.errors import MrbenchError, UserError
from mrbench.hub import LocalCheckpoint, read_folder
from mrbench.hub.checkpoint import FORMAT, KINDS, UNSTATED_TIER, WEIGHT_TIERS, weights_in
from mrbench.hub.hashing import weights_sha256
from mrbench.hub.places import CONFIG, TRAINING
from mrbench.plugins import did_you_mean
from mrbench.train.checkpoint import write_checkpoint

#: What published files wrap their tensors in, one of which may be opened without being asked for.
CONTAINERS = ("state_dict", "model_state_dict", "params_ema", "params", "ema", "model", "net")
KEYS = ("architecture", "method_options", "scale", "degradation", "channels", "kind")  # of config.json that --config sets
STATED = ("method", "name", "tier", "licence")  # those that have options of their own
_MAPPINGS = ("architecture", "method_options")


@dataclass(frozen=True)
class Packed:
    """The folder, what was read from it again, and what its maker should know."""

    folder: Path
    checkpoint: LocalCheckpoint
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """What nobody can tell from the file.

    trained_on : in words. subjects : ids of the people, or ``None``: unknown. tier : empty: as the configuration says, else
    "author". optimised_for : metrics that were the loss.
    """

    name: str
    licence: str
    trained_on: str
    subjects: tuple[str, ...] | None = None
    tier: str = ""
    optimised_for: tuple[str, ...] = ()


def pack(card: MethodCard, file: Path, given: Mapping[str, Any], said: Said, out: Path, unwrap: Sequence[str] = ()) -> Packed:
    """Make the checkpoint folder ``out``, after loading it into the method: what does not fit is refused.

    Parameters
    ----------
    given : what ``--config`` said, see :func:`parse_config`. unwrap : the key that the file wraps its tensors in.

    Raises
    ------
    UserError : a damaged file or one that holds code, wrong or missing statements, weights that do not fit the method, or ``out``
        holds something already.
    """
    out = Path(os.path.abspath(out.expanduser()))
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"--out {out}: exists already, and nothing is overwritten. Name another folder.")
    config = config_document(card, given, said)
    source = weights_in(file)
    tensors, notes = read_tensors(source, unwrap)
    training = training_document(config, source, said)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=out.parent))
    try:
        folder = temporary / out.name
        write_checkpoint(folder, tensors, config, training, card_text(card, config, training, tensors))
        _check_loads(card, read_folder(folder, card.name), source)
        if out.is_dir():
            out.rmdir()
        os.rename(folder, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if said.subjects is None:
        notes.append("nobody says whom the weights were trained on (--subjects FILE): runs will say so")
    return Packed(out, read_folder(out, card.name), tuple(notes))


# -- what is said --------------------------------------------------------------------------------------------------
def parse_config(texts: Sequence[str]) -> dict[str, Any]:
    """``FILE.json`` and ``KEY=VALUE`` texts, the later ones before the earlier.

    ``KEY`` may be a path (``architecture.width=64``); ``VALUE`` is JSON, or else a text.

    Raises
    ------
    UserError : no such file, no JSON object, or a text that is neither.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or Path(text).is_file():
            found = _merged(found, _json_file(Path(text)))
            continue
        parts = key.split(".")
        if not all(parts):
            raise UserError(f"--config {text}: expected FILE.json or KEY=VALUE, for example architecture.width=64.")
        try:
            document: Any = json.loads(value)
        except ValueError:
            document = value
        for part in reversed(parts):
            document = {part: document}
        found = _merged(found, document)
    return found


def _json_file(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"--config {file}: no such file. Expected FILE.json or KEY=VALUE.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"--config {file}: cannot be read as JSON ({error}).") from None
    if not isinstance(document, dict):
        raise UserError(f"--config {file}: expected a JSON object, got {type(document).__name__}.")
    return document


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(first)
    for key, value in second.items():
        both = isinstance(found.get(key), dict) and isinstance(value, dict)
        found[key] = _merged(found[key], value) if both else value
    return found


def read_subjects(file: Path) -> tuple[str, ...]:
    """Ids of people, one a line, as the data sets that the weights will be tested on call them.

    Raises
    ------
    UserError : the file cannot be read, or names nobody.
    """
    try:
        lines = file.expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            f"--subjects {file}: cannot be read ({error}). Expected a text file with one subject id a line."
        ) from None
    found = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise UserError(f"--subjects {file}: names nobody. Expected one subject id a line.")
    return found


def config_document(card: MethodCard, given: Mapping[str, Any], said: Said) -> dict[str, Any]:
    """``config.json``.

    Raises
    ------
    UserError : unknown keys, values of another kind, statements that contradict each other, or a licence that is missing.
    """
    known = (*KEYS, *STATED, "format")
    unknown = [k for k in given if k not in known]
    if unknown:
        raise UserError(
            f"--config {unknown[0]}: unknown.{did_you_mean(unknown[0], known)} Known: {', '.join(KEYS)} (what describes the network "
            "goes under architecture: --config architecture.KEY=VALUE)."
        )
    options = {"method": card.name, "name": said.name, "tier": said.tier, "licence": said.licence}
    stated = {}
    for key, value in options.items():
        if value and given.get(key) not in (None, "", value):
            raise UserError(f"--{key} {value}: the configuration says {given[key]!r}. One of them is wrong.")
        stated[key] = value or given.get(key) or ""
    config = {
        "format": FORMAT,
        **stated,
        "tier": stated["tier"] or UNSTATED_TIER,
        "kind": given.get("kind", "network"),
        "scale": given.get("scale"),
        "degradation": given.get("degradation", ""),
        "channels": given.get("channels", card.channels[0]),
        "method_options": given.get("method_options", {}),
        "architecture": given.get("architecture", {}),
    }
    scale, channels = config["scale"], config["channels"]
    wrong = {
        f"format {given.get('format')!r} is not {FORMAT}": given.get("format", FORMAT) != FORMAT,
        "no licence: nobody may use weights without one (--licence)": not str(config["licence"]).strip(),
        "no name (--name)": not config["name"],
        f"tier {config['tier']!r} is none of {', '.join(WEIGHT_TIERS)}": config["tier"] not in WEIGHT_TIERS,
        f"kind {config['kind']!r} is none of {', '.join(KINDS)}": config["kind"] not in KINDS,
        f"scale {scale!r} is no whole number of 2 or more": scale is not None
        and (not isinstance(scale, int) or isinstance(scale, bool) or scale < 2),
        f"scale {scale} is none of the method's ({', '.join(map(str, card.scales or ()))})": card.scales is not None
        and isinstance(scale, int) and scale not in card.scales,
        f"channels {channels!r} are none of the method's ({', '.join(map(str, card.channels))})": channels not in card.channels,
        f"degradation {config['degradation']!r} is no text": not isinstance(config["degradation"], str),
    }  # fmt: skip
    wrong |= {f"{k} is {config[k]!r}, expected a JSON object": not isinstance(config[k], dict) for k in _MAPPINGS}
    problems = [text for text, is_wrong in wrong.items() if is_wrong]
    if problems:
        raise UserError(f"the configuration of these weights: {'; '.join(problems)}.")
    return config


def training_document(config: Mapping[str, Any], source: Path, said: Said) -> dict[str, Any]:
    """``training.json``: what is known of a training that mrbench did not see. Without subjects, none are listed: unknown.

    Raises
    ------
    UserError : nothing is said about the training data.
    """
    if not said.trained_on.strip():
        raise UserError("--trained-on is empty. Say in words what the weights were trained on ('unknown' if nobody knows).")
    people = {} if said.subjects is None else {"subjects": sorted(map(subject_hash, said.subjects))}
    return {
        "format": FORMAT,
        "method": config["method"],
        "data": [said.trained_on.strip()],
        **people,
        "items": [],
        "optimised_for": list(said.optimised_for),
        "packed_from": {"file": source.name, "sha256": weights_sha256(source)},
        "versions": {"mrbench": mrbench.__version__, "torch": torch.__version__},
        "probe": {"name": "", "scores": {}},
    }


# -- the tensors ---------------------------------------------------------------------------------------------------
def read_tensors(file: Path, unwrap: Sequence[str] = ()) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a weights file by name, and notes on what was left out.

    Parameters
    ----------
    unwrap : the key (or path of keys, one after the other) that holds them; empty: the file itself, or the only one of
        :data:`CONTAINERS` that it has.

    Raises
    ------
    UserError : a damaged file, one that holds code, no tensors, or several keys that may be meant.
    """
    content: Any = LocalCheckpoint(Checkpoint(file.stem, str(file), "", "author"), file).contents("cpu")
    where = str(file)
    if unwrap:
        for key in unwrap:
            if not isinstance(content, Mapping) or key not in content:
                raise UserError(f"--unwrap {key}: {where} has no such key. Its keys: {_keys(content)}.")
            content, where = content[key], f"{where} under {key!r}"
    elif isinstance(content, Mapping) and not any(isinstance(v, Tensor) for v in content.values()):
        held = [k for k in CONTAINERS if isinstance(content.get(k), Mapping) and _tensors(content[k])]
        if len(held) > 1:
            raise UserError(
                f"{file}: holds tensors under {' and '.join(map(repr, held))}. Say which are meant: --unwrap {held[0]}"
            )
        if not held:
            raise UserError(
                f"{file}: no tensors by name. Its keys: {_keys(content)}. Name the one that holds them: --unwrap KEY"
            )
        content, where = content[held[0]], f"{where} under {held[0]!r}"
    if not isinstance(content, Mapping):
        raise UserError(f"{where}: holds a {type(content).__name__}, expected tensors by name.")
    tensors = _tensors(content)
    if not tensors:
        raise UserError(f"{where}: no tensors by name. Its keys: {_keys(content)}.")
    left = [str(k) for k in content if str(k) not in tensors]
    notes = [f"left out, as no tensors ({len(left)}): {', '.join(left[:5])}"] if left else []
    return tensors, notes


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(k): v for k, v in content.items() if isinstance(v, Tensor)}


def _keys(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"none, it is a {type(content).__name__}"
    shown = [repr(str(k)) for k in list(content)[:8]]
    return ", ".join(shown) + (f" and {len(content) - 8} more" if len(content) > 8 else "") or "none"


def _check_loads(card: MethodCard, checkpoint: LocalCheckpoint, source: Path) -> None:
    implementation = card.load()
    if not callable(getattr(implementation, "load", None)):
        raise UserError(f"method {card.name} takes no weights: it has no load(checkpoint, device).")
    try:
        implementation(card.parse({})).load(checkpoint, torch.device("cpu"))
    except MrbenchError as error:
        message = str(error).replace(str(checkpoint.file), str(source))
        raise UserError(f"method {card.name} refuses these weights with this configuration: {message}") from None
    except Exception as error:  # a plugin may raise anything
        raise UserError(
            f"method {card.name} cannot load these weights with this configuration: {type(error).__name__}: {error}"
        ) from error


# -- the card ------------------------------------------------------------------------------------------------------
def card_text(card: MethodCard, config: Mapping[str, Any], training: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """``README.md``: the same for people."""
    count = sum(t.numel() for t in tensors.values() if t.is_floating_point())
    scale = f"{config['scale']}x" if config["scale"] else "any scale"
    people = len(training["subjects"]) if "subjects" in training else None
    packed = training["packed_from"]
    told = (
        f"`{TRAINING}` holds hashes of the {people} subjects: tests on any of them are refused."
        if people is not None
        else "Nobody says which subjects these were: runs warn that the weights may have seen whom they are tested on."
    )
    goals = ", ".join(training["optimised_for"])
    return "\n".join(
        [
            f"# {card.name}: {config['name']}", "", card.summary or card.name, "",
            "| | |", "|---|---|",
            f"| method | {card.name} (version {card.version}){': ' + card.paper if card.paper else ''} |",
            f"| task | {scale}, degradation {config['degradation'] or 'any'}, {config['channels']} channel(s) |",
            f"| weights | {count:,} numbers ({config['kind']}), tier {config['tier']} |",
            f"| licence of the weights | {config['licence']} |",
            f"| packed from | `{packed['file']}`, SHA-256 `{packed['sha256']}` |",
            f"| made with | mrbench {training['versions']['mrbench']}, torch {training['versions']['torch']}; not trained with mrbench |",
            "", "## Data", "", training["data"][0], "", told, "",
            *([f"Trained for: {goals}. Scores in these are no surprise.", ""] if goals else []),
            "## Use", "",
            f"    mrbench run --method {card.name}@DIR --dataset NAME --scale {config['scale'] or 'S'}", "",
            f"`DIR` is this folder; `{CONFIG}` describes the network.", "",
        ]
    )  # fmt: skip
