"""On what times were measured: those of different hardware never share a column."""

from __future__ import annotations

from dataclasses import dataclass

from mrbench.report.comparable import Comparison


@dataclass(frozen=True)
class Hardware:
    """What times depend on."""

    device: str
    threads: int
    precision: str

    def __str__(self) -> str:
        """As footnotes print it."""
        return f"{self.device}, {self.threads} thread{'' if self.threads == 1 else 's'}, {self.precision}"


def hardware_of(comparison: Comparison) -> dict[Hardware, list[int]]:
    """Device (with the processor's name, for CPUs), threads and precision of the ok rows -> indices of the runs."""
    found: dict[Hardware, list[int]] = {}
    for i, a in enumerate(comparison.runs):
        names = ["device", "threads", "precision"]
        if not all(n in a.rows for n in names):
            continue
        processor = str(a.run.manifest.environment.get("processor", ""))
        for device, threads, precision in a.rows[names][a.ok].drop_duplicates().itertuples(index=False):
            name = f"{device} ({processor})" if processor and not str(device).startswith("cuda") else str(device)
            found.setdefault(Hardware(name, int(threads), str(precision)), []).append(i)
    return found
