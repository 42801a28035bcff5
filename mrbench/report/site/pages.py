"""From records to HTML: the templates, with everything that comes from runs cleaned and escaped."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from mrbench.report.text import clean

if TYPE_CHECKING:
    from jinja2 import Environment

PACKAGE = "mrbench.report.site"
ASSETS = ("style.css", "table.js", "tools.js", "viewer.js", "icon.svg")

# No request leaves the folder. `file:` stands beside 'self' because browsers differ on what 'self' is without a server.
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file: data:; "
    "base-uri 'none'; form-action 'none'"
)


def page(template: str, context: Mapping[str, Any]) -> bytes:
    """A page as UTF-8. A name that a template uses and ``context`` lacks is an error."""
    return environment().get_template(template).render(policy=POLICY, **context).encode()


def asset(name: str) -> bytes:
    """A file of the site that is the same everywhere."""
    return resources.files(PACKAGE).joinpath("assets", name).read_bytes()


@cache
def environment() -> Environment:
    """The templates. Every text is cleaned of control and bidirectional characters, then escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader(PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_literal,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["exact"] = exact
    made.filters["data"] = data_block
    made.filters["sentence"] = sentence
    return made


def exact(value: float | None) -> str:
    """A number to sort by: ``Infinity``, ``-Infinity``, or all its digits; empty where there is none."""
    if value is None or math.isnan(value):
        return ""
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(float(value))


def sentence(text: str) -> str:
    """The text with a capital letter in front."""
    return text[:1].upper() + text[1:]


def data_block(document: Any) -> Any:
    """JSON that is safe between ``<script type="application/json">`` and its end: no ``<``, ``>`` or ``&`` is left."""
    from markupsafe import Markup

    text = json.dumps(document, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _literal(value: Any) -> Any:
    return clean(value) if type(value) is str else value
