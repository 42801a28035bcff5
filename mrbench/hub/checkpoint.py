"""A checkpoint whose files are on this machine, and how its tensors are read without running what is in them."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from mrbench.cards import Checkpoint, Tier
from mrbench.errors import UserError
from mrbench.hub.hashing import weights_sha256
from mrbench.hub.places import CONFIG, PICKLED, SAFETENSORS, TRAINING, WEIGHTS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMAT = 1  # of config.json
WEIGHT_TIERS = tuple(t for t in get_args(Tier) if t not in ("none", "files"))
KINDS = ("network", "prior")
UNSTATED_TIER: Tier = "author"
SHOWN_KEYS = 8


@dataclass(frozen=True)
class LocalCheckpoint:
    """Weights at hand, as a method's ``load(checkpoint, device)`` gets them.

    record : what is known about them; its SHA-256 was found equal to the file's.
    file : the weights (safetensors, or an official ``.pt``, ``.pth``, ``.ckpt``).
    config : ``config.json`` beside it: ``architecture``, ``method_options``, ...; empty for official files.
    training : ``training.json`` beside it, or ``None``.
    """

    record: Checkpoint
    file: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] | None = None

    def tensors(self, device: str | torch.device = "cpu", unwrap: Sequence[str] = ()) -> dict[str, Tensor]:
        """The tensors by name, in the file's own dtypes, on ``device``.

        Parameters
        ----------
        unwrap : keys that official files wrap their tensors in (``"state_dict"``, ``"params_ema"``, ...). The first one
            that the file has is opened; a file with none of them must hold the tensors themselves. Entries that are no
            tensors are left out.

        Raises
        ------
        UserError : a damaged file, one that holds code, or one without tensors there (naming the keys that it has).
        """
        content = self.contents(device)
        wrapped = next((k for k in unwrap if isinstance(content, Mapping) and isinstance(content.get(k), Mapping)), None)
        inner = content if wrapped is None else content[wrapped]
        where = "" if wrapped is None else f" under {wrapped!r}"
        if not isinstance(inner, Mapping):
            raise UserError(f"{self.file}: holds a {type(inner).__name__}, expected tensors by name.")

        from torch import Tensor

        found = {str(k): v for k, v in inner.items() if isinstance(v, Tensor)}
        if not found:
            keys = ", ".join(repr(str(k)) for k in list(inner)[:SHOWN_KEYS]) or "none"
            more = f" and {len(inner) - SHOWN_KEYS} more" if len(inner) > SHOWN_KEYS else ""
            tried = f" (looked for {', '.join(map(repr, unwrap))})" if unwrap else ""
            raise UserError(f"{self.file}: no tensors by name{where}{tried}. Its keys{where}: {keys}{more}.")
        return found

    def contents(self, device: str | torch.device = "cpu") -> Any:
        """What the file holds: tensors by name, or for official files whatever nesting of tensors and plain containers.

        Raises
        ------
        UserError : a damaged file, one that holds code, or another kind of file.
        """
        suffix = self.file.suffix.lower()
        if suffix == SAFETENSORS:
            return _read_safetensors(self.file, str(device))
        if suffix in PICKLED:
            return _read_pickled(self.file, device)
        raise UserError(f"{self.file}: weights are read from {_suffixes()} files. {_CONVERT}")


_CONVERT = "Convert it to safetensors where you trust it (safetensors.torch.save_file)."


def _suffixes() -> str:
    return ", ".join((SAFETENSORS, *PICKLED))


def _read_safetensors(file: Path, device: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file, device=device)
    except SafetensorError as error:
        raise UserError(
            f"{file}: not a whole safetensors file ({error}; {file.stat().st_size} bytes): it is cut short or of another kind. "
            "Get it again."
        ) from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error}).") from None


def _read_pickled(file: Path, device: str | torch.device) -> Any:
    import pickle

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # says that an unusual pickle may be refused
            return torch.load(file, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"names the Python object {named[1]}" if named else "holds something else than tensors in plain containers"
        raise UserError(
            f"{file}: refused: it {what}. Loading it could run code, so nothing of it was executed. {_CONVERT}"
        ) from None
    except (RuntimeError, EOFError, KeyError, ValueError, AttributeError, TypeError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{file}: not a whole PyTorch file ({reason}; {file.stat().st_size} bytes): it is cut short or of another kind. "
            "Get it again."
        ) from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error}).") from None


# -- config.json and training.json ---------------------------------------------------------------------------------
def read_json(file: Path) -> dict[str, Any] | None:
    """A JSON object, or ``None`` where there is no such file (``UserError`` if it is damaged)."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({error}). Get the checkpoint again.") from None
    if not isinstance(document, dict):
        raise UserError(f"{file}: expected a JSON object, got {type(document).__name__}.")
    return document


def notes_beside(file: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """``config.json`` and ``training.json`` beside a weights file.

    Other projects' files of these names are not ours: beside official ``.pth`` files nothing is read, and
    ``training.json`` counts only beside a ``config.json`` that names its method.
    """
    if file.suffix.lower() != SAFETENSORS:
        return {}, None
    config = read_json(file.with_name(CONFIG)) or {}
    return config, read_json(file.with_name(TRAINING)) if "method" in config else None


def check_config(config: Mapping[str, Any], record: Checkpoint, method: str, file: Path) -> None:
    """Refuse a checkpoint of another method, another scale, or of a newer format (``UserError``).

    A prior belongs to no method: whichever samples from it checks itself whether it can.
    """
    if "method" not in config:
        return
    if config["method"] != method and config.get("kind") != "prior":
        raise UserError(
            f"{file}: a checkpoint of method {config['method']}, not of {method} (its {CONFIG} says so). "
            f"Use it with --method {config['method']}@PATH."
        )
    known = config.get("format", FORMAT)
    if not isinstance(known, int) or known > FORMAT:
        raise UserError(
            f"{file}: {CONFIG} has the format {known}, this version of mrbench reads up to {FORMAT}. Update mrbench."
        )
    scale = config.get("scale")
    if scale is not None and record.scale is not None and scale != record.scale:
        raise UserError(
            f"{file}: {CONFIG} says {scale}x, the record of {record.name} says {record.scale}x. One of them is wrong."
        )


def record_from_files(
    file: Path,
    config: Mapping[str, Any],
    training: Mapping[str, Any] | None,
    *,
    name: str = "",
    place: str = "",
    tier: str = "",
) -> tuple[Checkpoint, list[str]]:
    """A record of a weights file from what lies beside it, and notes on what nobody states.

    Parameters
    ----------
    name : instead of the one in ``config.json``, or the file's own.
    place : what the record's ``file`` says (default: the absolute path).
    tier : where ``config.json`` states none.

    Raises
    ------
    UserError : ``config.json`` holds a value that no checkpoint can have.
    """
    ours = "method" in config
    facts: Mapping[str, Any] = config if ours else {}
    trained: Mapping[str, Any] = training or {}
    notes = []
    stated: Any = facts.get("tier") or tier or UNSTATED_TIER
    if not (facts.get("tier") or tier):
        notes.append(f"nothing says where the weights {file.name} come from: shown as tier {stated!r}")
    problems = {
        f"tier {stated!r} is none of {', '.join(WEIGHT_TIERS)}": stated not in WEIGHT_TIERS,
        f"scale {facts.get('scale')!r} is no whole number": not isinstance(facts.get("scale"), (int, type(None))),
        f"channels {facts.get('channels')!r} is no whole number": not isinstance(facts.get("channels", 1), int),
        f"kind {facts.get('kind')!r} is none of {', '.join(KINDS)}": facts.get("kind", "network") not in KINDS,
    }
    wrong = [text for text, is_wrong in problems.items() if is_wrong]
    if wrong:
        raise UserError(f"{file.with_name(CONFIG)}: {'; '.join(wrong)}.")
    probe = trained.get("probe")
    scores = probe.get("scores") if isinstance(probe, Mapping) else None
    folder = file.resolve().parent.name
    record = Checkpoint(
        name=name or str(facts.get("name") or (folder if ours and file.name == WEIGHTS else file.stem)),
        file=place or str(file.resolve()),
        sha256=weights_sha256(file),
        tier=stated,
        scale=facts.get("scale"),
        degradation=str(facts.get("degradation") or ""),
        channels=facts.get("channels", 1),
        kind=facts.get("kind", "network"),
        trained_on=_joined(trained.get("data")),
        optimised_for=tuple(map(str, trained.get("optimised_for") or ())),
        licence=str(facts.get("licence") or ""),
        probe_scores=dict(scores) if isinstance(scores, Mapping) else {},
    )
    return record, notes


def _joined(value: Any) -> str:
    """Data sets by name, however ``training.json`` lists them."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return str(value.get("alias") or value.get("name") or value)
    return ", ".join(map(_joined, value)) if isinstance(value, (list, tuple)) else str(value)


def weights_in(path: Path) -> Path:
    """The weights file that a path means: the file itself, or ``model.safetensors`` of a checkpoint folder.

    Raises
    ------
    UserError : nothing there, or neither of both.
    """
    path = path.expanduser()
    if path.is_dir():
        missing = [n for n in (WEIGHTS, CONFIG) if not (path / n).is_file()]
        if missing:
            raise UserError(
                f"{path}: no checkpoint folder, {' and '.join(missing)} missing (mrbench train --out writes such folders). "
                "A weights file alone is given by its own path."
            )
        return path / WEIGHTS
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder. Give a checkpoint folder or a weights file ({_suffixes()}).")
    if path.suffix.lower() not in (SAFETENSORS, *PICKLED):
        raise UserError(f"{path}: weights are read from {_suffixes()} files. {_CONVERT}")
    return path


def read_folder(folder: Path, method: str = "") -> LocalCheckpoint:
    """A checkpoint folder as ``mrbench train`` writes it.

    Parameters
    ----------
    method : refuse a checkpoint of another one (empty: take any).

    Raises
    ------
    UserError : not such a folder, or one of another method.
    """
    file = weights_in(folder)
    config, training = notes_beside(file)
    if "method" not in config:
        raise UserError(f"{file.with_name(CONFIG)}: names no method, so it is not of mrbench's format.")
    record, _ = record_from_files(file, config, training)
    check_config(config, record, method or str(config["method"]), file)
    return LocalCheckpoint(record, file, config, training)
