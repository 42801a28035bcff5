"""What the conformance suites share: checks that build on each other, their results, expected failures (no torch here).

A check is judged only when those that it builds on hold, so a defect is reported once, under its own name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from pydantic import ValidationError

from mrbench.cards import Card, Options
from mrbench.errors import UserError

CheckStatus = Literal["pass", "fail", "expected", "skip", "unexpected_pass"]
T = TypeVar("T")

_BLOCKED = "not judged: it builds on "


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check; ``detail`` says what was found, or why it was not judged."""

    name: str
    status: CheckStatus
    detail: str


class Failed(Exception):
    """What a check asks for does not hold; the text says what was found."""


class Skipped(Exception):
    """A check does not apply, with the reason; those that build on it are judged."""


class Absent(Exception):
    """A check cannot be judged here, with the reason; nor can those that build on it."""


@dataclass(frozen=True)
class Check(Generic[T]):
    """A check: its name in ``expected_failures``, what it asks, and the checks that must hold before it can be judged."""

    name: str
    asks: str
    run: Callable[[T], str]
    needs: tuple[str, ...] = ()


def run_checks(checks: Sequence[Check[T]], trial: T, expected: Mapping[str, str]) -> list[CheckResult]:
    """Run checks in order; ``needs`` name earlier ones.

    Parameters
    ----------
    trial : what every check is given.
    expected : reasons of known failures by check. A known failure that does not come true counts as a failure.
    """
    held: dict[str, bool] = {}
    results = []
    for check in checks:
        blocker = next((n for n in check.needs if not held[n]), None)
        result, held[check.name] = _judge(check, trial, blocker)
        results.append(_expectation(result, expected.get(check.name)))
    return results


def conforms(results: Sequence[CheckResult]) -> bool:
    """Whether nothing failed and every expected failure came true."""
    return all(r.status not in ("fail", "unexpected_pass") for r in results)


def expected_failures(card: Card) -> Mapping[str, str]:
    """The known failures that a card names, with reasons; none where cards of its kind have no such field."""
    found: Mapping[str, str] = getattr(card, "expected_failures", {})
    return found


def text_of(error: BaseException) -> str:
    """An error as results show it: type and message."""
    return f"{type(error).__name__}: {str(error).strip() or 'no message'}"


def refuse(problems: Sequence[str]) -> None:
    """Raise ``Failed`` with all of them, if there are any."""
    if problems:
        raise Failed("; ".join(problems))


def _judge(check: Check[T], trial: T, blocker: str | None) -> tuple[CheckResult, bool]:
    if blocker is not None:
        return CheckResult(check.name, "skip", _BLOCKED + blocker), False
    try:
        return CheckResult(check.name, "pass", check.run(trial)), True
    except Failed as failure:
        return CheckResult(check.name, "fail", str(failure)), False
    except Skipped as reason:
        return CheckResult(check.name, "skip", str(reason)), True
    except Absent as reason:
        return CheckResult(check.name, "skip", str(reason)), False
    except Exception as error:  # whatever a plugin raises is its result
        return CheckResult(check.name, "fail", text_of(error)), False


def _expectation(result: CheckResult, reason: str | None) -> CheckResult:
    if reason is None or result.status == "skip":
        return result
    if result.status == "fail":
        return CheckResult(result.name, "expected", f"{reason} ({result.detail})")
    text = f"the card expects a failure ({reason}), but it passes: take it off the card"
    return CheckResult(result.name, "unexpected_pass", text)


# -- what all cards have -------------------------------------------------------------------------------------------
def card_problems(card: Card, checks: Sequence[str]) -> list[str]:
    """What is wrong with the fields that all cards share. ``checks``: names that ``expected_failures`` may hold."""
    known = expected_failures(card)
    unknown = sorted(set(known) - set(checks))
    wrong = {
        "summary is empty": not card.summary.strip(),
        "summary is longer than one line of 120 characters": "\n" in card.summary or len(card.summary) > 120,
        f"expected_failures names unknown checks: {', '.join(unknown)}": bool(unknown),
        "expected_failures has an entry without a reason": any(not r.strip() for r in known.values()),
    }
    return [text for text, is_wrong in wrong.items() if is_wrong]


def check_options(model: type[Options], options: Options, in_docstring: bool = False) -> str:
    """Every option has a description, and the model is frozen.

    Parameters
    ----------
    in_docstring : a line ``name : text`` in the docstring of the model will do.

    Raises
    ------
    Failed : naming the options.
    """
    text = model.__doc__ or ""
    bare = [
        name
        for name, info in model.model_fields.items()
        if not (info.description or "").strip()
        and not (in_docstring and re.search(rf"^\s*(\w+, )*{re.escape(name)}(, \w+)* : \S", text, re.MULTILINE))
    ]
    if bare:
        raise Failed(f"options without a description: {', '.join(bare)}")
    if not model.model_config.get("frozen"):
        raise Failed("the option model is not frozen: derive it from mrbench.Options")
    options.model_dump_json()
    return ", ".join(model.model_fields) or "no options"


def check_unknown_option(card: Card, options: Options) -> str:
    """An unknown option is refused, and the refusal names the known ones (``Failed`` otherwise)."""
    model = card.options
    name = "no_such_option" + "_" * sum(k.startswith("no_such_option") for k in model.model_fields)
    try:
        card.parse({name: 1})
    except UserError as error:
        unnamed = [k for k in model.model_fields if k not in str(error)]
        if unnamed:
            raise Failed(f"the refusal does not name the known options {', '.join(unnamed)}: {error}") from None
    else:
        raise Failed("an unknown option is taken without complaint")
    try:
        model.model_validate({**options.model_dump(), name: 1})
    except ValidationError:
        return "refused" + (", naming the known ones" if model.model_fields else "")
    raise Failed("the option model takes unknown keys: it must keep extra='forbid'")
