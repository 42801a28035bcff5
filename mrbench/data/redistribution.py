"""What the terms of a data set allow to be given to others: the one place where it is decided.

==========  ============================  ==============================================  ===============================
card says   pictures for yourself         figures (papers, slides, web pages)             images (archives, submissions)
==========  ============================  ==============================================  ===============================
``none``    yes, with a notice            refused                                         refused
``figures`` yes, with a notice            yes                                             refused
``open``    yes                           yes                                             yes
==========  ============================  ==============================================  ===============================

Numbers (rows, tables, statistics) are not images and are not restricted here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

from mrbench.errors import UserError

Use = Literal["figures", "images"]

_LEVELS = {"none": 0, "figures": 1, "open": 2}
_NEEDS: dict[Use, int] = {"figures": 1, "images": 2}


class Terms(Protocol):
    """What is known of a data set: its card, or what a run's manifest recorded of it."""

    @property
    def name(self) -> str:
        """The data set's name."""
        ...

    @property
    def licence(self) -> str:
        """Its licence, in words."""
        ...

    @property
    def redistribution(self) -> str:
        """``none``, ``figures`` or ``open``."""
        ...


def allows(data: Terms, use: Use) -> bool:
    """Whether the terms allow a use. Words that are not known count as ``none``."""
    return _LEVELS.get(data.redistribution, 0) >= _NEEDS[use]


def require(data: Terms | Iterable[Terms], what: str = "pictures for publication", use: Use = "figures") -> None:
    """Refuse to pack images for others where the terms of a data set do not allow it.

    Every command that puts pixels into something made for others calls this first.

    Parameters
    ----------
    data : one data set or several.
    what : what would be packed, as the message names it.
    use : ``figures`` for pictures in a publication or a page, ``images`` for the pixels themselves (files that others load).

    Raises
    ------
    UserError : names the data sets, their terms, and what can be done.
    """
    sets = _listed(data)
    refused = {d.name: d for d in sets if not allows(d, use)}
    if refused:
        names = "; ".join(
            f"{d.name} (redistribution: {d.redistribution}; {d.licence or 'no licence stated'})" for d in refused.values()
        )
        raise UserError(
            f"{what}: the terms of these data sets do not allow it: {names}. Numbers may be published: leave the pictures out, or "
            "use a data set whose card says otherwise (`mrbench datasets`)."
        )


def notice(data: Terms | Iterable[Terms]) -> str:
    """What to say beside pictures that are made for the user's own eyes; empty where the terms are open."""
    sets = _listed(data)
    own = sorted({d.name for d in sets if not allows(d, "figures")})
    figures = sorted({d.name for d in sets if allows(d, "figures") and not allows(d, "images")})
    parts = []
    if own:
        parts.append(f"pictures of {', '.join(own)} are for your own use (redistribution: none)")
    if figures:
        parts.append(f"figures of {', '.join(figures)} may be published, its image files may not")
    return "; ".join(parts)


def _listed(data: Terms | Iterable[Terms]) -> list[Terms]:
    if isinstance(data, Iterable) and not hasattr(data, "redistribution"):  # pydantic models are iterable too
        return list(data)
    return [data]  # type: ignore[list-item]
