"""Plans of the papers' tables and figures: their commands are real, and cells are found or named."""

from __future__ import annotations

import csv
import importlib
import io
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from pydantic import ValidationError
from typer.testing import CliRunner

from mrbench.cli import attribute, cite, data, paper, study
from mrbench.cli.main import app
from mrbench.engine.entries import parse_settings
from mrbench.errors import UserError
from mrbench.plugins import PluginInfo, Registry, discover
from mrbench.protocol import named_protocols, parse_protocol, resolve
from mrbench.report.paper_cells import build_table, differences, find_run
from mrbench.report.paper_documents import render_table, script
from mrbench.report.paper_figures import attribution_figures, panels_of, uncertainty_figure
from mrbench.report.paper_numbers import load_numbers
from mrbench.report.paper_plans import COSTS, PaperPlan, PlannedFigure, PlannedTable, Step, Where, load_plan, plan_names
from mrbench.store.attributions import Attribution, Picture, Region, write_attributions
from mrbench.train.presets import read_options
from mrbench.train.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = r"<script>alert(1)</script> $x_{ & % | `q` \input{x}"
PLANS = [load_plan(n) for n in plan_names()]
PARTS = [
    (p, k, n, part) for p in PLANS for k, parts in (("table", p.tables), ("figure", p.figures)) for n, part in parts.items()
]
COMMANDS = sorted({c for *_, part in PARTS for s in part.steps if s.command for c in s.commands()})
SCORES = [30.0, 31.0, 29.0, 28.0, 27.0, 26.0]


@pytest.fixture(scope="module")
def registry() -> Registry:
    """All cards that ship, also of data sets that are not installed as plugins here."""
    found = discover()
    for folder in sorted((ROOT / "datasets").iterdir()):
        module = f"mrbench_datasets.{folder.name}"
        if (folder / "__init__.py").is_file() and all(p.origin != module for p in found.plugins):
            found.register(importlib.import_module(module), PluginInfo(f"test_{folder.name}", module))
    return found


@pytest.fixture(scope="module")
def commands() -> Any:
    """The whole command line."""
    root = typer.Typer()
    for have in app.registered_commands:
        root.command(have.name)(have.callback)  # type: ignore[arg-type]
    groups = {g.name for g in app.registered_groups}
    for group in app.registered_groups:
        root.add_typer(group.typer_instance, name=group.name)
    names = {c.name for c in app.registered_commands}
    for name, module in (("attribute", attribute), ("cite", cite), ("paper", paper)):
        if name not in names:
            root.command(name)(getattr(module, name))
    for name, group in (("data", data.app), ("study", study.app)):
        if name not in groups:
            root.add_typer(group, name=name)
    return typer.main.get_command(root)


# -- plans -------------------------------------------------------------------------------------------------------------
def test_the_tables_and_figures_of_the_papers_are_planned() -> None:
    found = {p.paper: (list(p.tables), list(p.figures)) for p in PLANS}
    assert found == {
        "msp_sr": (["3", "4", "5", "6", "7"], ["3", "4", "6"]),
        "res_srdiff": (["1", "2"], ["7", "reading"]),
        "scale_cascaded": (["1", "2"], []),
    }


@pytest.mark.parametrize("text", COMMANDS, ids=lambda c: c[:60])
def test_every_command_is_one_that_mrbench_takes(text: str, commands: Any, registry: Registry) -> None:
    program, *words = shlex.split(text)
    assert program == "mrbench"
    command = commands
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    given = command.make_context(command.name, list(words)).params  # options and values are known
    known = named_protocols()
    files = {s.file for *_, part in PARTS for s in part.steps if s.file}
    assert given.get("protocol") is None or given["protocol"] in known or given["protocol"] in files
    for entry in given["method"] if isinstance(given.get("method"), list | tuple) else ():
        assert entry.partition("@")[0].rpartition("=")[2] in registry.methods.names()
    datasets = given.get("dataset") or ()
    for choice in (datasets,) if isinstance(datasets, str) else datasets:
        assert choice.rpartition("=")[2] in registry.datasets.names()
    if command.name == "train":
        _check_training(given, registry)
    elif text.startswith("mrbench data add"):
        card = registry.datasets.get(given["name"])
        settings = dict(s.split("=", 1) for s in given["settings"] or ())
        card.parse({**settings, card.path_options[0]: "DIR"})
    elif "settings" in given:
        _check_settings(given, registry)


def _check_training(given: dict[str, Any], registry: Registry) -> None:
    card = registry.methods.get(given["method"])
    recipe = load_recipe(card)
    own = parse_settings(given["settings"] or [])
    changes = {f"{target}.{k}".removeprefix(f"{card.name}.").removeprefix(card.name).lstrip("."): v for target, values in own.values.items() for k, v in values.items()}  # fmt: skip
    options = read_options(recipe, card.name, given["preset"], changes)
    for name in (given["ablation"] or "full").split(","):
        assert name in ("full", *recipe.ablations)
    stages = [s.name for s in options.stages]
    for name in (given["stages"] or stages[0]).split(","):
        assert name in stages
    aliases = {d.partition("=")[0] for d in given["dataset"]}
    needed = {a for s in options.stages for a in s.data or ()}
    assert needed <= aliases
    for limit in given["max_slices"] or ():
        assert "=" not in limit or limit.partition("=")[0] in aliases


def _check_settings(given: dict[str, Any], registry: Registry) -> None:
    labels = {m.partition("@")[0].partition("=")[0]: m.partition("@")[0].rpartition("=")[2] for m in given.get("method") or ()}
    for target, values in parse_settings(given["settings"] or []).values.items():
        registry.methods.get(labels[target]).parse(values)


def test_the_files_of_plans_are_protocols(registry: Registry) -> None:
    files = {s.file: s.text for *_, part in PARTS for s in part.steps if s.file}
    assert files
    for name, text in files.items():
        protocol = parse_protocol(yaml.safe_load(text), name)
        assert f"{protocol.name}.yaml" == name
        assert resolve(protocol, registry).protocol.dimensions == 2  # training wants an operator in the plane


@pytest.mark.parametrize(("plan", "kind", "number", "part"), PARTS, ids=lambda v: v if isinstance(v, str) else "")
def test_cells_ask_for_things_that_exist(plan: PaperPlan, kind: str, number: str, part: Any, registry: Registry) -> None:
    columns = part.columns if isinstance(part, PlannedTable) else ()
    wheres = [r.where for r in (part.rows if isinstance(part, PlannedTable) else part.panels)]
    for where in [*wheres, *(c.where for c in columns)]:
        assert not where.method or where.method in registry.methods.names()
        assert not where.protocol or where.protocol in named_protocols()
        if where.dataset:
            registry.datasets.get(where.dataset).parse(where.data)
        if where.method:
            registry.methods.get(where.method).parse(where.options)
        if where.factors:
            recipe = load_recipe(registry.methods.get(where.method))
            names = {"OOD", "ID", "TD", "ControlNet"} if where.method == "msp_sr" else set()
            assert set(where.factors) == names, recipe
    for column in columns:
        assert column.metric in COSTS or column.metric.removesuffix("_miss") in registry.metrics.names()
    assert script(plan, f"{kind} {number}", part).startswith(f"# {plan.name}, {kind} {number}: ")


def test_rows_name_numbers_that_are_printed_and_lose_none() -> None:
    numbers = load_numbers()
    for plan in PLANS:
        for number, table in plan.tables.items():
            view = build_table(plan, number, table, [], numbers)
            for row in view.cells:
                planned = next(r for r in table.rows if r.label == row[0].row)
                assert bool(planned.printed.method) == any(c.printed for c in row), (plan.paper, number, planned.label)
            shown = sum(bool(c.printed) for c in view.all_cells)
            recorded = [n for n in numbers if (n.paper, n.table) == (plan.paper, number)]
            assert shown >= len(recorded), (plan.paper, number)


@pytest.mark.parametrize(
    "step",
    [
        {},
        {"command": "a", "file": "b", "text": "c"},
        {"file": "b"},
        {"command": "a {x}"},
        {"command": "a", "each": {"x": ["1"]}},
    ],
)
def test_a_step_is_a_command_or_a_file(step: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Step(**step)


def test_values_are_put_into_commands() -> None:
    step = Step(command="mrbench {a}\n  --x {b} '{'", each={"a": ("1", "2"), "b": ("3", "{a}")})
    assert list(step.commands())[:2] == ["mrbench 1 --x 3 '{'", "mrbench 1 --x {a} '{'"]
    assert len(list(step.commands())) == 4


def test_unknown_papers_and_numbers_are_refused_with_what_there_is() -> None:
    with pytest.raises(UserError, match=r"Did you mean 'msp_sr'\?.* Known: msp_sr, res_srdiff, scale_cascaded"):
        load_plan("mspsr")
    with pytest.raises(UserError, match=r"no plan for table 9.* Planned: --table 1, --table 2, --figure 7, --figure reading"):
        load_plan("res_srdiff").find("table", "9")


# -- cells -------------------------------------------------------------------------------------------------------------
SMALL = yaml.safe_load(
    """
paper: small
name: Small
tables:
  "1":
    title: A table
    steps: [{command: mrbench methods}]
    rows:
      - {label: Bicubic, where: {method: bicubic}, printed: {method: Bicubic}}
      - {label: Two levels, where: {method: scale_cascaded, options: {levels: 2}}}
      - {label: With Swin, where: {method: res_srdiff, recipe: {unet.swin: true}, factors: {OOD: true}, stages: [ood, td]}}
      - {label: Blocked, where: {method: spsr}, blocked: {B: no such scale}}
    columns:
      - {metric: psnr, group: A, where: {dataset: toy, data: {contrast: T2}, protocol: uniform-x4}, printed: {dataset: T, scale: "4"}}
      - {metric: ssim, group: A, where: {dataset: toy, data: {contrast: T2}, protocol: uniform-x4}}
      - {metric: seconds, group: A, where: {dataset: toy, data: {contrast: T2}, protocol: uniform-x4}}
      - {metric: parameters, group: A, where: {dataset: toy, data: {contrast: T2}, protocol: uniform-x4}}
      - {metric: psnr, group: B, where: {dataset: toy, protocol: uniform-x8}}
    notes: ["A note."]
figures:
  "2":
    title: A figure
    draw: segment
    steps: [{command: mrbench methods}]
    panels:
      - {label: One, where: {method: bicubic, draws: 3}}
      - {label: Two, where: {method: edsr, draws: 3}}
"""
)
PLAN = PaperPlan.model_validate(SMALL)
TABLE = PLAN.tables["1"]


def made(make_run: Any, label: str, **more: Any) -> Any:
    run = make_run(label, {"psnr": SCORES, "ssim": [0.9] * 6, **more.pop("scores", {})}, **more)
    run.manifest.dataset.options = {"contrast": "T2"}
    return run


def view_of(runs: list[Any], numbers: Any = ()) -> Any:
    return build_table(PLAN, "1", TABLE, runs, numbers)


def test_cells_are_means_of_the_runs_that_fit(make_run: Any) -> None:
    bicubic = made(make_run, "anything", method="bicubic", parameters=1_500_000)
    two = made(make_run, "two", method="scale_cascaded", options={"levels": 2})
    three = made(make_run, "three", method="scale_cascaded", options={"levels": 3})
    recipe = {"options": {"unet": {"swin": True}}, "factors": {"OOD": True, "ID": False}, "stages": ["ood", "td"]}
    swin = made(make_run, "swin", method="res_srdiff", recipe=recipe)
    view = view_of([bicubic, two, three, swin])
    cells = {(c.row, c.group, c.metric): c for c in view.all_cells}
    found = cells["Bicubic", "A", "psnr"].found
    assert found is not None
    assert (found.mean, found.n) == (28.5, 6)
    assert cells["Bicubic", "A", "seconds"].number == "0.500"
    assert cells["Bicubic", "A", "parameters"].number == "1.50"
    assert cells["Two levels", "A", "psnr"].run is two
    assert cells["With Swin", "A", "psnr"].run is swin
    assert cells["Bicubic", "B", "psnr"].reason.startswith("no run of bicubic on toy under uniform-x8; near: ")
    assert cells["Blocked", "B", "psnr"].reason == "no such scale"
    assert "missing: Two levels, A (parameters): " in "\n".join(view.missing)
    assert "missing: Blocked, A: no run of spsr on toy (contrast = T2) under uniform-x4" in view.missing


def test_a_run_with_other_data_options_weights_or_draws_is_another(make_run: Any) -> None:
    run = made(make_run, "a", method="bicubic", recipe={"options": {"unet": {"swin": False}}, "stages": ["td"]})
    for where, reason in (
        (Where(data={"contrast": "T1"}), "has contrast: T2"),
        (Where(data={"site": "HH"}), "has site: unknown"),
        (Where(options={"levels": 2}), "was run with levels: unknown"),
        (Where(recipe={"unet.swin": True}), "was trained with unet.swin: no"),
        (Where(factors={"OOD": True}), "was trained with OOD: unknown"),
        (Where(stages=("ood", "td")), "was trained in the stages td"),
        (Where(draws=10), "has 1 draw"),
        (Where(dataset="other"), "is on toy"),
    ):
        assert differences(run.manifest, where) == [reason]
        assert find_run([run], where)[2].endswith(f"near: {run.manifest.run} {reason}")
    assert differences(run.manifest, Where(method="bicubic", dataset="toy")) == []
    assert find_run([], Where())[0] is None


def test_of_several_runs_the_one_with_most_slices_is_used_and_the_others_are_named(make_run: Any) -> None:
    few, many = made(make_run, "few", method="bicubic", drop=[0, 1]), made(make_run, "many", method="bicubic")
    view = view_of([few, many])
    cell = view.all_cells[0]
    assert cell.run is many
    assert cell.others == (few.manifest.run,)
    assert any("is used" in n and few.manifest.run in n for n in view.sheet().footnotes)


def test_unequal_slices_demonstration_weights_and_missing_metrics_are_told(make_run: Any) -> None:
    one = made(make_run, "a", method="bicubic", tier="demo")
    other = make_run("b", {"psnr": SCORES}, method="spsr", drop=[0], unavailable={"ssim": "no weights here"})
    other.manifest.dataset.options = {"contrast": "T2"}
    view = view_of([one, other])
    sheet = view.sheet()
    assert sheet.banner
    assert "A: not all are on the same slices (5, 6)" in sheet.footnotes
    assert f"missing: Blocked, A (ssim): {other.manifest.run}: no weights here" in view.missing
    assert sheet.footnotes[-1] == "A note."
    assert sheet.signatures == {"psnr": "PSNR|L:1|mrbench:1", "ssim": "SSIM|L:1|mrbench:1"}


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "html", "csv", "json"])
def test_every_format_shows_numbers_missing_cells_and_the_papers_own(make_run: Any, form: str, check_latex: Any) -> None:
    from mrbench.report.paper_numbers import PaperNumber

    number = PaperNumber("small", "1", "toy", "T", "4", "bicubic", "Bicubic", "psnr", "22.75", "0.16", "")
    run = made(make_run, HOSTILE, method="bicubic")
    run.manifest.run = HOSTILE
    text = render_table(view_of([run], [number]), form, 200)
    assert "28.5" in text
    assert "22.75" in text
    assert "<script>" not in text or form not in ("html", "markdown")
    if form == "latex":
        check_latex(text)
    elif form == "json":
        document = json.loads(text)
        assert document["cells"][0]["value"]["n"] == 6
        assert document["cells"][0]["printed"] == "22.75 ± 0.16"
        assert sum("missing" in c for c in document["cells"]) == 17
    elif form == "csv":
        lines = list(csv.DictReader(io.StringIO(text)))
        assert (lines[0]["mean"], lines[0]["printed"], lines[0]["table"]) == ("28.5", "22.75 ± 0.16", "1")
        assert sum(bool(line["missing"]) for line in lines) == 17
    else:
        assert text.count("missing") > 5
    with pytest.raises(UserError, match="no table format"):
        render_table(view_of([]), "word")


# -- figures -----------------------------------------------------------------------------------------------------------
def with_draws(make_run: Any, label: str, **more: Any) -> Any:
    rng = np.random.default_rng(0)
    hr = np.clip(rng.normal(0.5, 0.2, (1, 24, 20)), 0, 1).astype(np.float32)
    truth = (hr, hr[:, ::4, ::4], np.ones((24, 20), bool))
    images = [np.clip(hr + 0.05 * rng.normal(size=(3, 1, 24, 20)), 0, 1).astype(np.float32) for _ in range(2)]
    return make_run(
        label, {"psnr": [30.0, 31.0]}, subjects={"s1": 2}, method=label, draws=3, images=images, truth=[truth] * 2, **more
    )


@pytest.mark.parametrize("draw", ["segment", "maps"])
def test_panels_stand_side_by_side_and_missing_ones_are_named(make_run: Any, draw: str) -> None:
    figure = PLAN.figures["2"].model_copy(update={"draw": draw})
    run = with_draws(make_run, "bicubic")
    made = uncertainty_figure(PLAN, "2", figure, panels_of(figure, [run]), None, None)
    assert made.missing == ("missing: Two: no run of edsr with 3 draws",)
    texts = [t.get_text().replace("\n", " ") for a in made.figure.axes for t in a.texts]
    assert "missing: no run of edsr with 3 draws" in texts
    assert [a.get_title() for a in made.figure.axes[:2]] == ["One", "Two"]
    both = uncertainty_figure(PLAN, "2", figure, panels_of(figure, [run, with_draws(make_run, "edsr")]), "toy/s1/vol/001", None)
    assert both.missing == ()
    assert both.items == ("toy/s1/vol/001",)


def test_a_figure_without_any_panel_or_with_bad_places_is_refused(make_run: Any) -> None:
    figure = PLAN.figures["2"]
    bare = make_run("bicubic", {"psnr": [1.0, 2.0]}, subjects={"s1": 2}, method="bicubic", draws=3)
    with pytest.raises(UserError, match=r"no panel can be drawn.*images were not stored"):
        uncertainty_figure(PLAN, "2", figure, panels_of(figure, [bare]), None, None)
    panels = panels_of(figure, [with_draws(make_run, "bicubic")])
    with pytest.raises(UserError, match="nothing"):
        uncertainty_figure(PLAN, "2", figure, panels, "nothing", None)
    with pytest.raises(UserError, match="segment"):
        uncertainty_figure(PLAN, "2", figure, panels, None, "0,0,99,99")


def test_attributions_are_drawn_from_their_files(tmp_path: Path) -> None:
    plan = load_plan("res_srdiff")
    figure = plan.figures["7"]
    assert isinstance(figure, PlannedFigure)
    with pytest.raises(UserError, match="no attributions of bicubic, pix2pix"):
        attribution_figures(plan, "7", figure, [tmp_path])
    hr, y = np.zeros((1, 16, 16), np.float32), np.zeros((1, 4, 4), np.float32)
    picture = Picture("d/s/v/1", "d", "d", "uniform-x4", "ab", Region(4, 4, 8, 8), hr, y, ((4.0, 1.5), (4.0, 1.5)))
    found = [Attribution(m, m, "none", "", 3.0, (1.0, 2.0), np.ones((1, 4, 4)), hr, np.ones(2)) for m in ("bicubic", "lanczos")]
    write_attributions(tmp_path / "runs" / "lam", picture, found, {})
    (tmp_path / "runs" / "other.npz").write_bytes(b"")
    (made,) = attribution_figures(plan, "7", figure, [tmp_path])
    assert len(made.figure.axes) == 6  # the reference and one method of the plan
    assert len(made.missing) == 6


# -- the command -------------------------------------------------------------------------------------------------------
APP = typer.Typer()
APP.command()(paper.paper)


def call(*arguments: object) -> Any:
    return CliRunner().invoke(APP, [*map(str, arguments)])


def test_the_command_lists_plans_and_fills_tables(make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("msp_sr")
    assert done.exit_code == 0
    assert "--table 7" in done.stdout
    assert "--figure 6" in done.stdout
    plan = call("scale_cascaded", "--table", "1", "--plan")
    assert plan.stdout.startswith("# Scale-cascaded DiffPIR, table 1: 2x\n")
    assert "\nmrbench data add fastmri_knee FASTMRI_KNEE\n" in plan.stdout
    empty = call("scale_cascaded", "--table", "1")
    assert empty.exit_code == 0
    assert plan.stdout in empty.stdout
    assert "missing: DPS, brain: no run of dps on fastmri_brain under scale_cascaded-x2" in " ".join(empty.stdout.split())
    make_run("diffpir", {"psnr": SCORES}, dataset="fastmri_brain", protocol="scale_cascaded-x2")
    filled = call("scale_cascaded", "--table", "1", "--format", "csv")
    line = next(row for row in csv.DictReader(io.StringIO(filled.stdout)) if row["row"] == "DiffPIR")
    assert (line["mean"], line["printed"]) == ("28.5", "30.14")
    written = call("scale_cascaded", "--table", "1", tmp_path / "runs", "--out", tmp_path / "t.tex")
    assert written.exit_code == 0
    assert "warning: missing: DPS, brain" in written.stderr
    assert (tmp_path / "t.tex").read_text().startswith("% needs ")


def test_the_command_draws_figures(make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrbench.report.paper_plans.load_plan", lambda name: PLAN)
    with_draws(make_run, "bicubic")
    done = call("small", "--figure", "2", tmp_path / "runs", "--out", tmp_path / "figure.png")
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in tmp_path.glob("figure*")) == ["figure.pdf", "figure.png"]
    assert "warning: missing: Two" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("other",), "no paper 'other'"),
        (("msp_sr", "--table", "99"), "no plan for table 99"),
        (("msp_sr", "--table", "3", "--figure", "3"), "exclude each other"),
        (("msp_sr", "--plan"), "say which"),
        (("msp_sr", "--table", "3", "nowhere"), "no such file or folder"),
        (("res_srdiff", "--figure", "7"), "no attributions"),
        (("res_srdiff", "--figure", "reading"), "no study"),
        (("msp_sr", "--table", "3", "--format", "word"), "no table format"),
    ],
)
def test_mistakes_are_named(arguments: tuple[str, ...], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert isinstance(done.exception, UserError)
    assert reason in str(done.exception)
