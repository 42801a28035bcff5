"""What to cite for some runs, and how they were made, as the methods section of a paper says it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mrbench.errors import UserError
from mrbench.report import as_latex
from mrbench.report.bibtex import Reference, escape, free_key, known_references
from mrbench.report.protocol_words import protocol_sentences, size_sentence
from mrbench.report.text import clean, count, listing

if TYPE_CHECKING:
    from mrbench.plugins import Registry, Shelf
    from mrbench.stats.presets import Plan
    from mrbench.store.manifest import Manifest
    from mrbench.store.runs import RunData

OWN_KEY = "mrbench"
PACKAGES = ("torch", "numpy", "scipy", "scikit-image", "SimpleITK", "Pillow", "lpips", "piq")
_PUBLISHED = re.compile(r"\b(1[89]|20)\d\d\b|arxiv|doi|https?://", re.IGNORECASE)  # else a description, no publication
_WHOLE, _FOREGROUND = "mask:none", "mask:fg"  # in signatures
_DIGITS = 12  # of a checkpoint's SHA-256
Form = Literal["text", "latex"]


@dataclass(frozen=True)
class Cite:
    """A place in a text where references are cited."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class Paragraph:
    """A text in pieces: words, and places that cite."""

    heading: str
    parts: tuple[str | Cite, ...]

    def render(self, form: Form) -> str:
        """Plain text with keys in brackets, or LaTeX with ``\\cite``."""
        made = []
        for part in self.parts:
            if isinstance(part, str):
                made.append(as_latex.breakable(part) if form == "latex" else part)
            elif part.keys:
                made.append(rf"~\cite{{{','.join(part.keys)}}}" if form == "latex" else f" [{', '.join(part.keys)}]")
        text = _joined(made)
        if form == "text":
            return f"{self.heading}. {text}"
        made_of = rf"\paragraph{{{as_latex.escape(self.heading)}.}} {text}"
        return rf"{{\sloppy{made_of}\par}}" if r"\allowbreak" in text else made_of  # long pieces cannot be set tightly


def _joined(pieces: Sequence[str]) -> str:
    """Pieces one after the other; escaping takes spaces at their ends away, so they hold none."""
    text = ""
    for piece in pieces:
        glue = "" if not text or piece[:1] in ("", ".", ",", ";", ")", "~") or piece.startswith(" [") else " "
        text += glue + piece
    return text


@dataclass(frozen=True)
class Citations:
    """References to cite, in the order of their first use, paragraphs, and what has no publication."""

    references: tuple[Reference, ...]
    paragraphs: tuple[Paragraph, ...]
    notes: tuple[str, ...]

    def bibtex(self) -> str:
        """All entries."""
        return "\n".join(r.bibtex() for r in self.references)

    def text(self) -> str:
        """The paragraphs as plain text."""
        return "\n\n".join(p.render("text") for p in self.paragraphs) + "\n"

    def latex(self) -> str:
        """The paragraphs as LaTeX; cites what :meth:`bibtex` defines."""
        head = r"% needs \usepackage[T1]{fontenc} \usepackage{textcomp} and the entries of the .bib file"
        return "\n\n".join([head, *(p.render("latex") for p in self.paragraphs)]) + "\n"


class _Library:
    """References of cards: known ones, else what the card itself says."""

    def __init__(self, references: Sequence[Reference]) -> None:
        self._known = references
        self._made: dict[str, Reference] = {}
        self.used: dict[str, Reference] = {}
        self.missing: list[str] = []

    def of(self, kind: str, name: str, words: str) -> Cite:
        """What to cite for a card; ``words``: its own reference, for cards that are not known here."""
        card = f"{kind}.{name}"
        found = [r for r in self._known if card in r.cards]
        if not found and card in self._made:
            found = [self._made[card]]
        if not found and _PUBLISHED.search(words):
            key = free_key(name, [*(r.key for r in self._known), *(r.key for r in self._made.values()), OWN_KEY])
            found = [Reference("misc", key, {"note": escape(words)}, (card,))]
            self._made[card] = found[0]
        if not found and kind != "degradation":
            self.missing.append(f"{kind} {clean(name)}")
        for reference in found:
            self.used.setdefault(reference.key, reference)
        return Cite(tuple(r.key for r in found))


def cite_runs(runs: Sequence[RunData], registry: Registry, plan: Plan) -> Citations:
    """References and methods paragraphs of runs: one for data and protocol of every task, then methods, metrics, statistics, software.

    Parameters
    ----------
    plan : of the statistics, as ``mrbench stats`` would do them on these runs.

    Raises
    ------
    UserError : no runs.
    """
    if not runs:
        raise UserError("no runs given: there is nothing to cite.")
    library = _Library(known_references())
    own = _own_reference(runs)
    library.used[own.key] = own
    groups: dict[tuple[str, str], list[RunData]] = {}
    for run in runs:
        groups.setdefault((run.manifest.dataset.alias, run.manifest.protocol.hash), []).append(run)
    paragraphs = [_task_paragraph(group, registry, library) for group in groups.values()]
    paragraphs += [_methods_paragraph(runs, registry, library), _metrics_paragraph(runs, registry, library)]
    paragraphs += [_statistics_paragraph(list(groups.values()), plan), _software_paragraph(runs)]
    missing = list(dict.fromkeys(library.missing))
    notes = [f"no publication is recorded of {listing(missing, 20)}"] if missing else []
    if any(r.manifest.method.tier == "demo" for r in runs):
        notes.append("demonstration weights are among these runs: their numbers say nothing about the published methods")
    return Citations(tuple(library.used.values()), tuple(p for p in paragraphs if p.parts), tuple(notes))


def _own_reference(runs: Sequence[RunData]) -> Reference:
    versions = ", ".join(dict.fromkeys(clean(r.manifest.mrbench) for r in runs))
    fields = {
        "title": "{mrbench}: a benchmark for {MRI} super-resolution",
        "note": f"version {escape(versions)}, Apache-2.0",
    }
    return Reference("misc", OWN_KEY, fields)


def _words(shelf: Shelf[Any], name: str, field: str) -> str:
    """A field of a card; empty if it is not installed here."""
    return str(getattr(shelf.card(name), field, "")) if name in shelf.names() else ""


def _task_paragraph(runs: Sequence[RunData], registry: Registry, library: _Library) -> Paragraph:
    first = runs[0].manifest
    info = first.dataset
    frames = [r.rows[r.rows["status"] == "ok"] for r in runs if "item_id" in r.rows]
    items = {i for f in frames for i in f["item_id"]}
    subjects = {s for f in frames for s in f["subject"]}
    called = clean(info.name) if info.alias == info.name else f"{clean(info.alias)} ({clean(info.name)})"
    cited = library.of("dataset", info.name, _words(registry.datasets, info.name, "citation"))
    parts: list[str | Cite] = [size_sentence(called, len(items), len(subjects)), cited]
    more = f", version {clean(info.version)}, were measured under the protocol {clean(first.protocol.name)} (hash {first.protocol.hash})."
    parts.append(more)
    if first.partial or len(items) < first.items:
        parts.append(f"These are a part of the {first.items} slices of the task.")
    parts += [f"{clean(w)[:1].upper()}{clean(w)[1:]}." for w in info.warnings]
    sentences = protocol_sentences(first.protocol)
    degradation = first.protocol.rules.get("degradation")
    name = str(degradation.get("name", "")) if isinstance(degradation, dict) else ""
    at = library.of("degradation", name, "")
    for sentence in sentences:
        cited_here = at.keys and sentence.startswith(("LR slices were made", "Volumes were degraded"))
        parts += [sentence[:-1], at, "."] if cited_here else [sentence]
    return Paragraph(f"Data ({clean(info.alias)}, {clean(first.protocol.name)})", tuple(parts))


def _methods_paragraph(runs: Sequence[RunData], registry: Registry, library: _Library) -> Paragraph:
    parts: list[str | Cite] = []
    distinct: dict[tuple[str, ...], Manifest] = {}
    for run in runs:
        m = run.manifest.method
        distinct.setdefault((m.label, m.name, m.checkpoint_sha256, repr(m.options), str(run.manifest.draws)), run.manifest)
    for i, manifest in enumerate(distinct.values()):
        m = manifest.method
        name = clean(m.label) if m.label == m.name else f"{clean(m.label)} ({clean(m.name)})"
        last = i == len(distinct) - 1
        parts += [name, library.of("method", m.name, m.paper or _words(registry.methods, m.name, "paper"))]
        details = _method_details(manifest)
        parts.append((f"({details})" if details else "") + ("." if last else ";"))
    return Paragraph("Methods", tuple(p for p in parts if p))


def _method_details(manifest: Manifest) -> str:
    m = manifest.method
    found = []
    if m.control:
        found.append("a control, which sees the ground truth")
    if m.checkpoint:
        sha = f", SHA-256 {clean(m.checkpoint_sha256)[:_DIGITS]}" if m.checkpoint_sha256 else ""
        found.append(f"{clean(m.tier)} weights {clean(m.checkpoint)}{sha}")
    elif m.tier == "files":
        found.append("images made elsewhere")
    if manifest.draws > 1:
        found.append(f"{manifest.draws} posterior samples")
    if m.nfe:
        found.append(f"{count(m.nfe, 'network call')} a slice")
    options = {k: v for k, v in m.options.items() if v is not None}
    if m.track and m.track != "default":
        given = ", ".join(f"{clean(k)} = {clean(v)}" for k, v in options.items())
        found.append(f"options {clean(m.track)}: {given}" if given else f"options {clean(m.track)}")
    if m.training == "overlap":
        found.append("trained on subjects of this test")
    return "; ".join(found)


def _metrics_paragraph(runs: Sequence[RunData], registry: Registry, library: _Library) -> Paragraph:
    from mrbench.report.columns import sort_key

    signatures: dict[str, list[str]] = {}
    titles: dict[str, str] = {}
    for run in runs:
        for name in sorted(run.manifest.columns, key=sort_key):
            info = run.manifest.columns[name]
            if "@" in name:
                continue
            titles.setdefault(info.metric, clean(info.title) or clean(info.metric))
            if info.signature not in signatures.setdefault(info.metric, []):
                signatures[info.metric].append(info.signature)
    parts: list[str | Cite] = []
    for i, (metric, signed) in enumerate(signatures.items()):
        cited = library.of("metric", metric, _words(registry.metrics, metric, "paper"))
        end = "." if i == len(signatures) - 1 else ";"
        parts += [titles[metric], cited, f"({' and '.join(map(clean, _without_masks(signed)))}){end}"]
    if parts:
        parts.insert(0, "Computed per slice, with their signatures:")
    return Paragraph("Metrics", tuple(parts))


def _without_masks(signatures: Sequence[str]) -> list[str]:
    """Signatures, those of the foreground in a word behind those of the whole frame that they equal otherwise."""
    masked = {s.replace(_WHOLE, _FOREGROUND): s for s in signatures if _WHOLE in s}
    kept = [s for s in signatures if s not in masked]
    return [
        f"{s}, also with {_FOREGROUND}" if s.replace(_WHOLE, _FOREGROUND) in signatures and _WHOLE in s else s for s in kept
    ]


def _statistics_paragraph(groups: Sequence[Sequence[RunData]], plan: Plan) -> Paragraph:
    from mrbench.report.columns import choose_columns
    from mrbench.report.statistics import build_statistics
    from mrbench.stats.sentences import methods_paragraph

    found: dict[str, list[str]] = {}
    for group in groups:
        entries = [r for r in group if not r.manifest.method.control]
        where = f"{clean(group[0].manifest.dataset.alias)}, {clean(group[0].manifest.protocol.name)}"
        try:
            columns = [c.name for c in choose_columns(entries) if c.ranked][:1]
            results = build_statistics(entries, plan, metrics=columns).results if len(entries) > 1 and columns else ()
            reason = "one method: nothing to compare" if len(entries) < 2 else "no metric that ranks"
        except UserError as error:
            results, reason = (), str(error).partition(". ")[0].rstrip(".")
        if results:
            reason = results[0].reason
        text = (
            f"No test was made ({reason})." if reason and (not results or results[0].reason) else methods_paragraph(results[0])
        )
        found.setdefault(text, []).append(where)
    parts = [text if len(found) == 1 else f"{'; '.join(places)}: {text}" for text, places in found.items()]
    return Paragraph(f"Statistics (mrbench stats, preset {plan.preset})", tuple(parts))


def _software_paragraph(runs: Sequence[RunData]) -> Paragraph:
    found: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        manifest = run.manifest
        packages = manifest.environment.get("packages")
        known = packages if isinstance(packages, dict) else {}
        versions = [f"{n} {clean(known[n])}" for n in PACKAGES if known.get(n, "absent") != "absent"]
        device = clean(manifest.environment.get("device_name") or manifest.environment.get("processor") or manifest.device)
        python = f"Python {clean(manifest.environment['python'])}" if manifest.environment.get("python") else ""
        rest = "".join(f", {part}" for part in (python, *versions) if part)
        rest = f"{rest}; {clean(manifest.precision)} on {device or 'an unknown device'}."
        found.setdefault((clean(manifest.mrbench), rest), []).append(clean(run.label))
    parts: list[str | Cite] = []
    for (version, rest), labels in found.items():
        who = f"{listing(labels, 20)}: " if len(found) > 1 else ""
        parts += [f"{who}mrbench {version}", Cite((OWN_KEY,)), rest]
    return Paragraph("Software", tuple(parts))


def unrecorded(registry: Registry) -> list[str]:
    """Cards with a publication that no entry of ``bib/*.bib`` belongs to, as ``method.NAME``."""
    known = {card for r in known_references() for card in r.cards}
    texts: Iterable[tuple[str, str]] = [
        *((f"method.{n}", registry.methods.card(n).paper) for n in registry.methods.names()),
        *((f"dataset.{n}", registry.datasets.card(n).citation) for n in registry.datasets.names()),
        *((f"metric.{n}", registry.metrics.card(n).paper) for n in registry.metrics.names()),
    ]
    return [card for card, text in texts if _PUBLISHED.search(text) and card not in known]


__all__ = ["Citations", "Cite", "Paragraph", "cite_runs", "unrecorded"]
