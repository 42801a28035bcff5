"""Text and numbers as tables and pictures print them."""

from __future__ import annotations

import math
import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, format, surrogate, private, unassigned, separators

NOT_AVAILABLE = "n/a"


def clean(text: object) -> str:
    """``text`` on one line without control, bidirectional or unencodable characters, spaces collapsed."""
    visible = "".join(" " if unicodedata.category(c) in _HIDDEN else c for c in str(text))
    return " ".join(visible.split())


def shorten(text: str, width: int) -> str:
    """At most ``width`` characters: the middle gives way to an ellipsis, so that endings still tell names apart."""
    if len(text) <= width:
        return text
    head = (width - 1) - (width - 1) // 3
    tail = width - 1 - head
    return f"{text[:head]}…{text[len(text) - tail :]}"


def number(value: float, digits: int) -> str:
    """Fixed point with ``digits`` decimals; values that would round to zero in scientific notation."""
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value != 0 and abs(value) < 0.5 * 10.0**-digits:
        return f"{value:.1e}"
    return f"{value:.{digits}f}"


def mean_and_sd(mean: float, sd: float | None, digits: int) -> tuple[str, str | None]:
    """The two printed parts of ``mean ± sd``; the second is ``None`` where there is no sd (one value, or an infinite mean)."""
    return number(mean, digits), None if sd is None else number(sd, digits)


def significant(value: float, digits: int = 3) -> str:
    """``digits`` significant digits without exponent: 0.0123, 1.23, 12.3, 1230."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, decimals):.{max(0, decimals)}f}"


def count(n: int, what: str) -> str:
    """``1 slice``, ``2 slices``."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def listing(names: list[str], limit: int = 6) -> str:
    """``a, b, c`` or ``a, b, c and 7 more``."""
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"
