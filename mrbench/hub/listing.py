"""Which checkpoints exist, where they are, and what they are said to score."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mrbench.cards import Checkpoint, MethodCard
from mrbench.errors import UserError
from mrbench.hub.client import Hub
from mrbench.hub.finding import takes_weights, whereabouts
from mrbench.hub.places import Source, shipped_file, source_of
from mrbench.hub.registered import RegisteredFiles

State = Literal["here", "to pull", "to download", "missing", "none"]


@dataclass(frozen=True)
class Listed:
    """A checkpoint in a listing.

    record : ``None``: the method takes weights, and none is public or registered.
    state : ``here`` (usable without a network), ``to pull``, ``to download`` (by the user, from the URL that is named),
        ``missing`` (the file should be here and is not), ``none``.
    path : of the file, where it is here.
    """

    method: str
    record: Checkpoint | None
    source: Source | None
    state: State
    path: str = ""
    registered: bool = False

    @property
    def where(self) -> str:
        """The place in words."""
        if self.record is None:
            return "no public checkpoint"
        return f"registered {self.record.file}" if self.registered else whereabouts(self.record)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        facts = asdict(self.record) if self.record is not None else {}
        head = {"method": self.method, "source": self.source, "state": self.state, "where": self.where}
        return {**head, "path": self.path, "registered": self.registered, **facts}


def listing(cards: Iterable[MethodCard], hub: Hub | None = None, registered: RegisteredFiles | None = None) -> list[Listed]:
    """All checkpoints of some methods. Nothing is downloaded, and no network is asked.

    A registered file stands in for the record of the same name that is hosted elsewhere. Methods without weights are left
    out; one that takes weights and has none gets one entry that says so.
    """
    hub = hub or Hub.from_environment()
    own = (registered or RegisteredFiles.from_environment()).all()
    found: list[Listed] = []
    for card in cards:
        mine = {r.name: r for r in own.get(card.name, ())}
        rows = [_listed(card.name, mine.get(r.name, r), hub, r.name in mine) for r in card.checkpoints]
        rows += [_listed(card.name, r, hub, True) for n, r in mine.items() if n not in {c.name for c in card.checkpoints}]
        if not rows and takes_weights(card):
            rows = [Listed(card.name, None, None, "none")]
        found += rows
    return found


def _listed(method: str, record: Checkpoint, hub: Hub, registered: bool) -> Listed:
    source = source_of(record)
    state: State = "missing"
    path = ""
    match source:
        case "shipped":
            try:
                path, state = str(shipped_file(record)), "here"
            except UserError:
                path = ""
        case "local":
            state = "here" if Path(record.file).is_file() else "missing"
            path = record.file if state == "here" else ""
        case "hub":
            cached = hub.cached(record.repo_id, record.revision, record.file)
            path, state = (str(cached.file), "here") if cached is not None else ("", "to pull")
        case "elsewhere":
            state = "to download"
    return Listed(method, record, source, state, path, registered)
