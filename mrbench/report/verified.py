"""What boards say about verifications: a word behind the tier, and a sentence below, only where one is on file for these very rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mrbench.report.text import clean, count, listing

if TYPE_CHECKING:
    from mrbench.store.runs import RunData
    from mrbench.store.verifications import Standing

VERIFIED = "verified"


def standing(run: RunData) -> Standing:
    """What is on file for a run, looked up against its rows as they are stored now."""
    from mrbench.store.verifications import standing_of

    return standing_of(run.folder, run.manifest)


def badge(found: Standing) -> str:
    """``verified``, or nothing."""
    return VERIFIED if found.valid is not None else ""


def verification_notes(entries: Sequence[tuple[str, Standing]]) -> list[str]:
    """A sentence for each verified entry, by name, and for each whose records are of other rows."""
    notes = []
    for name, found in entries:
        record = found.valid
        if record is None:
            continue
        who = f" by {clean(record.by)}" if record.by else ""
        apart = f"; not checked: {listing([clean(c) for c in record.unchecked])}" if record.unchecked else ""
        notes.append(
            f"{VERIFIED}: {name}: {len(record.recomputed)} of {count(record.of, 'slice')} recomputed{who} on {clean(record.at)[:10]}, all within "
            f"tolerance{apart}."
        )
    void = [name for name, found in entries if found.valid is None and found.void]
    if void:
        notes.append(f"verifications on file for {listing(void)} are of other rows or claims than these, and do not count.")
    return notes
