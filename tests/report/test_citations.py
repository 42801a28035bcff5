"""What to cite, and methods paragraphs."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner
from typesetting import typeset

import mrbench
from mrbench.cards import DatasetCard, MethodCard
from mrbench.cli.cite import cite as command
from mrbench.errors import UserError
from mrbench.plugins import PluginInfo, Registry, discover
from mrbench.protocol import named_protocols, resolve
from mrbench.report.bibtex import KINDS, BadBibTeX, Reference, escape, free_key, known_references, parse_bibtex
from mrbench.report.citations import cite_runs, unrecorded
from mrbench.report.protocol_words import protocol_sentences
from mrbench.stats.presets import Plan
from mrbench.store.manifest import ProtocolInfo

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = r'<script>alert(1)</script> $x_{1}$ 100% \input{/etc/passwd} "q" ~ #& }{ {'
SCORES = {"psnr": [30.0, 31.0, 29.0, 28.0, 27.0, 26.0], "ssim": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]}
FOUR = {"a": 2, "b": 2, "c": 1, "d": 1}


def everything() -> Registry:
    """All cards that ship, also of data sets that are not installed as plugins here."""
    registry = discover()
    for folder in sorted((ROOT / "datasets").iterdir()):
        module = f"mrbench_datasets.{folder.name}"
        if (folder / "__init__.py").is_file() and all(p.origin != module for p in registry.plugins):
            registry.register(importlib.import_module(module), PluginInfo(f"test_{folder.name}", module))
    return registry


# -- the data ----------------------------------------------------------------------------------------------------------
def test_every_card_with_a_publication_has_an_entry() -> None:
    assert unrecorded(everything()) == []


def test_entries_belong_to_cards_that_exist_and_have_unique_keys() -> None:
    registry, references = everything(), known_references()
    shelves = {
        "method": registry.methods,
        "dataset": registry.datasets,
        "metric": registry.metrics,
        "degradation": registry.degradations,
    }
    assert len({r.key for r in references}) == len(references) > 40
    for reference in references:
        assert reference.kind in KINDS
        assert reference.cards, reference.key
        for card in reference.cards:
            kind, _, name = card.partition(".")
            assert name in shelves[kind].names(), card


def test_entries_hold_facts_of_their_cards_and_no_others() -> None:
    """Years, identifiers, volumes and pages of an entry stand on a card that it belongs to."""
    registry = everything()
    shelves: dict[str, Any] = {"method": registry.methods, "dataset": registry.datasets, "metric": registry.metrics}
    for reference in known_references():
        texts = ""
        for card in reference.cards:
            kind, _, name = card.partition(".")
            if kind in shelves:
                found = shelves[kind].card(name)
                texts += f" {getattr(found, 'paper', '')} {getattr(found, 'citation', '')} {getattr(found, 'home', '')} {found.licence}"
        for field in ("year", "doi", "eprint", "volume", "number", "url"):
            assert reference.fields.get(field, "") in texts, (reference.key, field)
        for number in re.findall(r"\w+", reference.fields.get("pages", "")):
            assert number in texts, (reference.key, "pages")
        for author in reference.fields.get("author", "").removesuffix(" and others").split(" and "):
            assert author in texts, (reference.key, author)


def test_what_is_written_reads_as_the_same() -> None:
    references = known_references()
    again = parse_bibtex("\n".join(r.bibtex() for r in references))
    assert [(r.kind, r.key, dict(r.fields)) for r in again] == [(r.kind, r.key, dict(r.fields)) for r in references]


@pytest.mark.parametrize(
    "text",
    ["@misc{a, title = {x}", "@misc{a, title = {{x}, }", "@misc{a, title = x,}", "@misc{a, title={x}, title={y}}",
     "@misc{a,}@misc{a,}", "@misc{1a,}", "@misc a", "@misc{a, t_x = {x},}"],
)  # fmt: skip
def test_a_broken_file_is_not_read(text: str) -> None:
    with pytest.raises(BadBibTeX):
        parse_bibtex(text)


def test_texts_become_literal_values() -> None:
    made = parse_bibtex(Reference("misc", "k", {"note": escape(HOSTILE)}).bibtex())[0].fields["note"]
    bare = re.sub(r"\\[$&#%_]|\{\\text\w+\}", "", made)
    assert not re.search(r"[\\{}$&#%_^~\"]", bare)
    assert r"{\textbackslash}input{\textbraceleft}" in made
    assert made.count("{") == made.count("}")  # BibTeX counts them all, whatever stands before them
    assert [free_key(n, ["a", "a_2"]) for n in ("a", "b c", "1", "")] == ["a_3", "b_c", "x1", "entry"]


# -- protocols in words ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(named_protocols()))
def test_every_protocol_is_told_in_whole_sentences(name: str) -> None:
    resolved = resolve(named_protocols()[name], discover())
    told = protocol_sentences(ProtocolInfo(name=name, hash=resolved.hash, rules=dict(resolved.rules)))
    assert all(s.endswith(".") and "None" not in s and "{" not in s for s in told)
    text = " ".join(told)
    assert resolved.rules["degradation"]["name"] in text
    assert " x ".join(f"{s:g}" for s in resolved.rules["scale"]) in text
    noise = named_protocols()[name].noise
    assert (f"standard deviation of {noise.sigma:g}" if noise.kind != "none" else "No noise") in text
    assert ("3-D" in text) == (named_protocols()[name].dimensions == 3)


def test_rules_of_other_versions_are_no_reason_to_fail() -> None:
    assert protocol_sentences(ProtocolInfo(name="x", hash="h")) == []
    assert (
        protocol_sentences(ProtocolInfo(name="x", hash="h", rules={"noise": 3, "preparation": None, "degradation": []})) == []
    )


# -- runs --------------------------------------------------------------------------------------------------------------
def rules() -> dict[str, Any]:
    return dict(resolve(named_protocols()["uniform-x4"], discover()).rules)


def test_runs_are_cited_with_data_methods_metrics_and_mrbench(make_run: Any) -> None:
    runs = [
        make_run(n, SCORES, subjects=FOUR, dataset="sample", rules=rules(), method=m)
        for n, m in (("bicubic", ""), ("mine", "edsr"))
    ]
    found = cite_runs(runs, discover(), Plan(resamples=100))
    assert [r.key for r in found.references] == [
        "mrbench", "holmes1998colin27", "keys1981cubic", "lim2017edsr", "wang2004ssim",
    ]  # fmt: skip
    text = found.text()
    assert "6 slices of 4 subjects of sample [holmes1998colin27], version 1" in text
    assert (
        "bicubic_aa (a = -0.5, border = renorm), version 1, with factors 4 x 4 along rows and columns [keys1981cubic]." in text
    )
    assert "Methods. bicubic [keys1981cubic]; mine (edsr) [lim2017edsr]." in text
    assert "PSNR (PSNR|L:1|mrbench:1)" in text
    assert "Scores were averaged per subject. " in text
    assert "mrbench 0.1.0 [mrbench]" in text
    assert found.notes == ("no publication is recorded of metric psnr",)
    keys = {r.key for r in parse_bibtex(found.bibtex())}
    assert {k for group in re.findall(r"\\cite\{([^}]*)\}", found.latex()) for k in group.split(",")} == keys


def test_weights_draws_options_and_controls_are_named(make_run: Any) -> None:
    run = make_run("res_srdiff", SCORES, draws=4, tier="demo", dataset="sample")
    m = run.manifest.method
    m.checkpoint, m.checkpoint_sha256, m.nfe, m.track, m.options = "x4", "ab" * 32, 1, "set", {"steps": 3, "tile": None}
    m.training = "overlap"
    control = make_run("gt", SCORES, control=True, dataset="sample")
    found = cite_runs([run, control], discover(), Plan())
    assert (
        "(demo weights x4, SHA-256 abababababab; 4 posterior samples; 1 network call a slice; options set: steps = 3; trained on subjects of "
        "this test)" in found.text()
    )
    assert "gt (a control, which sees the ground truth)." in found.text()
    assert "No test was made (one method: nothing to compare)." in found.text()
    assert any("demonstration weights" in n for n in found.notes)


def test_foreground_signatures_are_told_in_a_word(make_run: Any) -> None:
    signed = {"psnr": "PSNR|mask:none|mrbench:1", "psnr_fg": "PSNR|mask:fg|mrbench:1", "gmsd": "GMSD|mask:fg|mrbench:1"}
    run = make_run("a", {c: SCORES["psnr"] for c in signed}, signatures=signed)
    text = cite_runs([run], Registry(), Plan()).text()
    assert "PSNR (PSNR|mask:none|mrbench:1, also with mask:fg); GMSD [xue2014gmsd] (GMSD|mask:fg|mrbench:1)." in text


def test_two_subjects_are_not_tested_and_tasks_are_told_apart(make_run: Any) -> None:
    runs = [make_run(n, SCORES, dataset=d) for d in ("one", "two") for n in ("a", "b")]
    text = cite_runs(runs, Registry(), Plan()).text()
    assert text.count("Data (") == 2
    assert "No test was made (2 subjects: no test" in text


def test_runs_that_cannot_be_compared_are_cited_all_the_same(make_run: Any) -> None:
    runs = [make_run("a", SCORES), make_run("b", SCORES, drop=[0])]
    assert "No test was made (" in cite_runs(runs, Registry(), Plan()).text()
    with pytest.raises(UserError, match="nothing to cite"):
        cite_runs([], Registry(), Plan())


class _Outside:
    """A plugin of somebody else."""

    @mrbench.hookimpl
    def mrbench_methods(self) -> list[MethodCard]:
        paper = f"Doe 2026, A method {HOSTILE}"
        return [
            MethodCard("theirs", print, paper=paper),
            MethodCard("keys1981cubic", print, paper="Roe 2026"),
            MethodCard("plain", print),
        ]

    @mrbench.hookimpl
    def mrbench_datasets(self) -> list[DatasetCard]:
        return [DatasetCard("toy", print, citation="standard toy data")]


def test_outside_cards_are_cited_in_their_own_words(make_run: Any) -> None:
    registry = discover()
    registry.register(_Outside(), PluginInfo("outside", "outside"))
    runs = [make_run(HOSTILE if n == "theirs" else n, SCORES, method=n) for n in ("theirs", "keys1981cubic", "plain")]
    found = cite_runs(runs, registry, Plan(resamples=100))
    references = {r.key: r for r in parse_bibtex(found.bibtex())}
    assert references["theirs"].fields["note"].startswith(r"Doe 2026, A method {\textless}script{\textgreater}")
    assert references["keys1981cubic_2"].fields["note"] == "Roe 2026"
    assert "method plain" in found.notes[0]
    assert "dataset toy" in found.notes[0]
    compile_text(found.latex(), found.bibtex())
    body = re.sub(r"\\[\\{}$&#%_]", "", "\n".join(found.latex().splitlines()[1:]))
    assert set(re.findall(r"\\[A-Za-z]+", body)) <= {
        r"\paragraph", r"\cite", r"\textless", r"\textgreater", r"\textbar", r"\textbackslash", r"\textquotedbl", r"\textasciitilde",
        r"\textasciicircum", r"\textquotesingle", r"\textbraceleft", r"\textbraceright", r"\allowbreak", r"\sloppy", r"\par",
    }  # fmt: skip
    assert body.count("{") == body.count("}")


def compile_text(latex: str, bib: str) -> None:
    """Typeset the text with its references, where a TeX engine is there."""
    log = typeset(latex.splitlines()[0].partition("needs ")[2].partition(" and the")[0], latex, bib)
    assert log is None or "undefined" not in log
    assert log is None or not re.search(r"Overfull \\hbox \((\d{2,})\.", log)


# -- the command -------------------------------------------------------------------------------------------------------
APP = typer.Typer()
APP.command()(command)


def test_the_command_prints_and_writes(make_run: Any, tmp_path: Path) -> None:
    make_run("bicubic", SCORES, dataset="sample")
    done = CliRunner().invoke(APP, [str(tmp_path / "runs")])
    assert done.exit_code == 0
    assert done.stdout.index("Methods. bicubic") < done.stdout.index("@article{keys1981cubic,")
    assert "warning: no publication is recorded of metric psnr" in done.stderr
    done = CliRunner().invoke(APP, [str(tmp_path / "runs"), "--out", str(tmp_path / "cite")])
    assert done.exit_code == 0
    assert done.stdout == ""
    assert sorted(p.name for p in (tmp_path / "cite").iterdir()) == ["methods.tex", "methods.txt", "references.bib"]
    assert parse_bibtex((tmp_path / "cite" / "references.bib").read_text())[0].key == "mrbench"
    done = CliRunner().invoke(APP, [str(tmp_path / "runs"), "--out", str(tmp_path / "cite" / "methods.txt")])
    assert "is a file" in str(done.exception)
