"""What all pictures share: saving, literal text, fonts."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrbench.report.text import clean
from mrbench.store.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 200


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of ``width`` x ``height`` inches on the Agg canvas, without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def literal(text: str) -> dict[str, Any]:
    """Keyword arguments that make matplotlib print a text as it stands (no mathematics between dollar signs)."""
    return {"s": clean(text), "parse_math": False}


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write ``<stem>.png`` (200 dpi) and ``<stem>.pdf``, each atomically, equal bytes for equal figures. Returns both paths."""
    png, pdf = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.pdf")
    with warnings.catch_warnings():
        # names may hold scripts that the font lacks
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing", category=UserWarning)
        write_atomic(png, lambda stream: figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None}))
        write_atomic(pdf, lambda stream: figure.savefig(stream, format="pdf", dpi=DPI, metadata={"CreationDate": None}))
    return png, pdf


def save_as(figure: Figure, path: Path) -> None:
    """Write one file whose ending says the format (``.png`` at 200 dpi, ``.pdf``, ``.svg``), atomically, equal bytes for equal figures."""
    from matplotlib import rc_context

    form = path.suffix.lower().removeprefix(".")
    metadata: dict[str, Any] = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[form]
    with rc_context({"svg.hashsalt": "mrbench"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing", category=UserWarning)
        write_atomic(path, lambda stream: figure.savefig(stream, format=form, dpi=DPI, metadata=metadata))
