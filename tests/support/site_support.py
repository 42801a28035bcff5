"""Synthetic runs with stored images, and pages read back as trees, for the tests of the static site."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from mrbench.store.images import truth_file, write_images, write_truth
from mrbench.store.manifest import ColumnInfo, DatasetInfo, Manifest, MethodInfo, ProtocolInfo
from mrbench.store.runs import RunFolder

SIZE = (24, 32)  # height and width of the images
COLUMNS = {
    "psnr": ColumnInfo(metric="psnr", signature="PSNR|L:1|mrbench:1", digits=2, title="PSNR", unit="dB"),
    "ssim": ColumnInfo(metric="ssim", signature="SSIM|gauss11|mrbench:1", title="SSIM"),
    "gmsd": ColumnInfo(metric="gmsd", signature="GMSD|mrbench:1", higher_is_better=False, title="GMSD"),
}


@dataclass(frozen=True)
class Made:
    """A method of a synthetic task: how much better than the first it is (dB), its draws, what goes wrong."""

    label: str
    gain: float = 0.0
    draws: int = 1
    control: bool = False
    tier: str = "none"
    failed: Sequence[int] = ()
    images: bool = True
    options: dict[str, Any] = field(default_factory=dict)


FOUR = (
    Made("bicubic"),
    Made("sharp", 2.0, tier="retrained"),
    Made("many_draws", 1.0, draws=3, tier="retrained"),
    Made("gt", control=True),
)


def make_task(
    root: Path,
    methods: Sequence[Made] = FOUR,
    *,
    dataset: str = "toy",
    protocol: str = "uniform-x4",
    subjects: int = 2,
    slices: int = 2,
    redistribution: str = "open",
    size: tuple[int, int] = SIZE,
    columns: Sequence[str] = tuple(COLUMNS),
    error: str = "it broke",
) -> Path:
    """Run folders of one task below ``root``; item i of subject s is harder for larger i. Equal arguments give equal runs."""
    items = [(f"{dataset}/s{s}/vol/{i:03d}", f"s{s}") for s in range(subjects) for i in range(slices)]
    level = np.random.default_rng(1).normal(0, 1, subjects)
    truths = [truth_of(n, size) for n in range(len(items))]
    for m, made in enumerate(methods):
        rng = np.random.default_rng(10 + m)
        path = root / dataset / protocol / f"run{m}"
        run = RunFolder(path)
        _, shards = run.extend_plan(3, [[item for item, _ in items]])
        number = {item: n for n, (item, _) in enumerate(items)}
        for shard in shards:
            rows, images = [], {}
            for item in shard.items:
                n = number[item]
                bad = n in made.failed
                row: dict[str, Any] = {
                    "run": path.name, "method": made.label, "label": made.label, "tier": made.tier, "checkpoint": "",
                    "dataset": dataset, "protocol": protocol, "protocol_hash": f"hash-{protocol}", "subject": items[n][1],
                    "volume": "vol", "item_id": item, "item_hash": f"{dataset}-{n}", "status": "failed" if bad else "ok",
                    "error": error if bad else "", "warning": "", "draws": made.draws, "seconds": 0.1 + m, "nfe": None,
                    "peak_memory": None, "device": "cpu", "precision": "fp32", "threads": 1, "batch": 3, "shard": shard.number,
                }  # fmt: skip
                if not bad:
                    psnr = 25 + level[n // slices] - n % slices + made.gain + rng.normal(0, 0.2)
                    values = {"psnr": np.inf, "ssim": 1.0, "gmsd": 0.0} if made.control else {}
                    row |= {"psnr": psnr, "ssim": psnr / 40, "gmsd": 0.3 - psnr / 200} | values
                    images[item] = estimate_of(truths[n], made, rng)
                rows.append({k: v for k, v in row.items() if k not in COLUMNS or k in columns})
                write_truth(truth_file(path, f"hash-{protocol}", f"{dataset}-{n}"), *truths[n])
            run.write_part(shard.number, rows, columns, {c: COLUMNS[c].signature for c in columns})
            if made.images:
                write_images(path, shard.number, images)
        run.write_manifest(
            Manifest(
                run=path.name,
                key="k",
                mrbench="0.1.0",
                task_hash="task1",
                draws=made.draws,
                items=len(items),
                subjects=subjects,
                method=MethodInfo(
                    name=made.label,
                    label=made.label,
                    tier=made.tier,
                    control=made.control,
                    options=dict(made.options),
                    deterministic=made.draws == 1,
                ),
                dataset=DatasetInfo(name=dataset, alias=dataset, redistribution=redistribution, licence="a licence"),
                protocol=ProtocolInfo(
                    name=protocol,
                    hash=f"hash-{protocol}",
                    rules={"scale": [4.0, 4.0], "noise": {"kind": "none"}},
                    assumptions=["no noise"],
                ),
                columns={c: COLUMNS[c] for c in columns},
                images=made.images,
                created="2026-01-01T00:00:00+00:00",
            )
        )
    return root


def truth_of(n: int, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """A disc with stripes, its measurement at 4x, its mask."""
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    mask = x**2 + y**2 < 0.8
    image = np.where(mask, 0.5 + 0.4 * np.sin((6 + n) * x + 3 * y), 0).astype(np.float32)[None]
    return image, image[:, ::4, ::4].copy(), mask


def estimate_of(truth: tuple[NDArray[np.float32], ...], made: Made, rng: np.random.Generator) -> NDArray[np.float32]:
    """``[K, 1, H, W]``: the truth with noise, less of it for better methods; controls are the truth itself."""
    hr = truth[0]
    noise = rng.normal(0, 0 if made.control else 0.1 / (1 + made.gain), (made.draws, *hr.shape))
    return (hr[None] + noise).astype(np.float32)


# -- pages read back -----------------------------------------------------------------------------------------------------
VOID = {"meta", "link", "img", "input", "br", "hr", "wbr", "source"}


class Tree(HTMLParser):
    """All elements of a page as ``(tag, attributes)``, with texts; ``faults`` where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.faults: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if len({name for name, _ in attrs}) < len(attrs):
            self.faults.append(f"<{tag}> has an attribute twice")
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        """All ids."""
        return [a["id"] for _, a in self.elements if "id" in a]

    @property
    def text(self) -> str:
        """All texts, spaces collapsed."""
        return " ".join(" ".join(self.texts).split())


def pages_of(site: Path) -> dict[str, Tree]:
    """All pages of a site by name."""
    return {p.name: Tree(p.read_text(encoding="utf-8")) for p in sorted(site.glob("*.html"))}


def data_of(page: Path) -> dict[str, Any]:
    """The numbers in a page of items."""
    text = page.read_text(encoding="utf-8")
    start = text.index('id="data">') + len('id="data">')
    found: dict[str, Any] = json.loads(text[start : text.index("</script>", start)])
    return found


def links_of(tree: Tree) -> list[str]:
    """Everything that an element points to, unquoted."""
    names = ("href", "src", "srcset", "data", "action", "poster", "formaction", "background", "ping", "xlink:href")
    return [unquote(a[n]) for _, a in tree.elements for n in names if n in a]
