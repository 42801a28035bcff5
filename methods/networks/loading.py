"""Weights into networks: nothing missing, nothing left over, nothing of another shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from torch import Tensor, nn

from mrbench.errors import UserError
from mrbench.hub.checkpoint import LocalCheckpoint, record_from_files, weights_in

CONTAINERS = ("state_dict", "model_state_dict", "params_ema", "params")  # what published files wrap their tensors in


def load_strict(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    prefixes: Sequence[str] = (),
    drop: Sequence[str] = (),
    rename: Callable[[str], str] | None = None,
    derived: Sequence[str] = (),
    what: str = "these weights",
) -> None:
    """Copy ``tensors`` into ``module`` (converted to the module's types), or refuse.

    Parameters
    ----------
    prefixes : the first of these that begins some key selects the keys under it; without a match all keys are taken.
        ``module.`` and ``_orig_mod.`` are always taken off.
    drop : patterns (``*.num_batches_tracked``) of keys to ignore.
    rename : applied to every key that is left.
    derived : last parts of the keys of buffers that follow from the configuration (``attn_mask``). They are never copied
        and may be absent as a whole or have another size, but a file that holds some must hold those of this module.
    what : names the weights in errors.

    Raises
    ------
    UserError : keys are missing or left over, or shapes differ; the first of each are named.
    """
    given = selected(tensors, prefixes)
    given = {(rename(key) if rename else key): value for key, value in given.items() if not _matches(key, drop)}
    own = {key: value for key, value in module.state_dict().items() if not _is_derived(key, derived)}
    expected = list(own)
    if any(_is_derived(key, derived) for key in given):
        expected += [key for key, _ in module.named_buffers() if _is_derived(key, derived)]
    different = [
        f"{key} is {list(given[key].shape)}, expected {list(value.shape)}"
        for key, value in own.items()
        if key in given and given[key].shape != value.shape
    ]
    problems = [
        *_some("missing", [key for key in expected if key not in given]),
        *_some("not part of the network", [key for key in given if key not in set(expected)]),
        *_some("of another shape", different),
    ]
    if problems:
        raise UserError(
            f"{what} do not fit the network {type(module).__name__}: {'; '.join(problems)}. They belong to another "
            "architecture: check the checkpoint's config.json, or name another checkpoint."
        )
    module.load_state_dict(module.state_dict() | {key: given[key] for key in own})


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file of weights (or of a checkpoint folder) that an option names, on the CPU.

    Raises
    ------
    UserError : there is no such file, it is damaged, or it holds more than tensors in plain containers.
    """
    file = weights_in(Path(path))
    record, _ = record_from_files(file, {}, None)
    return LocalCheckpoint(record, file).tensors("cpu", CONTAINERS)


def unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same without what distributed training (in front) and compilation (anywhere) add to keys."""
    plain = {key.replace("_orig_mod.", ""): value for key, value in tensors.items()}
    while plain and all(key.startswith("module.") for key in plain):
        plain = {key.removeprefix("module."): value for key, value in plain.items()}
    return plain


def selected(tensors: Mapping[str, Tensor], prefixes: Sequence[str] = ()) -> dict[str, Tensor]:
    """The tensors under the first of ``prefixes`` that begins some key, without it; all of them if none does. Unwrapped."""
    plain = unwrapped(tensors)
    for prefix in prefixes:
        chosen = {key.removeprefix(prefix): value for key, value in plain.items() if key.startswith(prefix)}
        if chosen:
            return unwrapped(chosen)
    return plain


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _is_derived(key: str, names: Sequence[str]) -> bool:
    return key.rpartition(".")[2] in names


def _some(kind: str, entries: Sequence[str], count: int = 3) -> list[str]:
    if not entries:
        return []
    more = f" and {len(entries) - count} more" if len(entries) > count else ""
    return [f"{len(entries)} {kind} ({', '.join(entries[:count])}{more})"]
