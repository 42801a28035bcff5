"""What a checkpoint settles, what a user asked for, and what happens where they differ (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from mrbench.cards import Options, parse_options
from mrbench.errors import UserError

from .residual_shift_options import DiffusionConfig

O = TypeVar("O", bound=Options)  # noqa: E741


def saved_options(config: Mapping[str, Any], model: type[O], what: str) -> O:
    """The "method_options" of a checkpoint's ``config.json``, validated (``UserError``); defaults where it has none."""
    parsed = parse_options(model, config.get("method_options") or {}, f'{what}: "method_options" of config.json')
    assert isinstance(parsed, model)
    return parsed


def filled(options: O, saved: O) -> O:
    """``options``, with what was left open (``None``) as the checkpoint says."""
    open_fields = [name for name in type(options).model_fields if getattr(options, name) is None]
    return options.model_copy(update={name: getattr(saved, name) for name in open_fields})


def choose_diffusion(
    variants: Mapping[str, DiffusionConfig],
    asked: str | None,
    saved: str | None,
    stored: DiffusionConfig | None,
    default: str | None,
    what: str,
) -> DiffusionConfig:
    """The diffusion that a network was trained with.

    Parameters
    ----------
    asked : the variant that the user named, if any.
    saved, stored : the variant or the settings that the checkpoint names, if any (settings count more).
    default : the variant for checkpoints that say nothing; ``None``: then the user has to.

    Raises
    ------
    UserError : the user asks for another diffusion than the checkpoint's, or nobody says which.
    """
    names = ", ".join(variants)
    known = stored or (variants[saved] if saved else None)
    if asked is not None:
        if known not in (None, variants[asked]):
            raise UserError(
                f"{what} was trained with the diffusion {saved or known}, not with variant {asked!r}: it would be told steps and "
                "noise levels that it never saw. Leave the option variant out, or name another checkpoint."
            )
        return variants[asked]
    if known is not None:
        return known
    if default is None:
        raise UserError(f"{what} does not say which diffusion it was trained with. Name it with the option variant: {names}.")
    return variants[default]


def check_steps(steps: int | None, diffusion: DiffusionConfig, default: int | None, what: str) -> int:
    """Sampling steps: as asked for, else ``default``, else all training steps (``UserError`` if there are not so many)."""
    if steps is None:
        return diffusion.steps if default is None else min(default, diffusion.steps)
    if steps > diffusion.steps:
        raise UserError(
            f"steps {steps}: {what} was trained with {diffusion.steps} step(s), so between 1 and {diffusion.steps} can be sampled."
        )
    return steps
