"""The file of a sweep, its plan, and its shares."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrbench.engine.sweep import Planned, Share, plan, variants
from mrbench.engine.sweep_file import SweepFile, read_sweep
from mrbench.errors import UserError
from mrbench.plugins import Registry

BASE = {"methods": ["bicubic", "lanczos"], "datasets": ["sample"], "scales": [2, 4]}


def sweep_of(**changes: object) -> SweepFile:
    return SweepFile.model_validate({**BASE, **changes})


def names(planned: list[Planned]) -> list[str]:
    return [str(p) for p in planned]


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: [bicubic]", "datasets: is missing."),
        ("methods: []\ndatasets: [sample]", "methods: "),
        ("methods: [bicubic]\ndatasets: [sample]\nscals: [4]", "scals: unknown field. Did you mean 'scales'"),
        ("methods: [bicubic, {nme: dps}]\ndatasets: [sample]", "methods[1].nme: unknown field. Did you mean 'name'?"),
        (
            "methods: [bicubic, {name: dps, options: {zeta: []}}]\ndatasets: [sample]",
            "methods[1]: options.zeta is an empty list",
        ),
        ("methods: [{name: dps, options: {zeta: {low: 1}}}]\ndatasets: [sample]", "methods[0]: options.zeta is {'low': 1}"),
        ("methods: [{name: dps, options: {zeta: .nan}}]\ndatasets: [sample]", "methods[0]: options.zeta is nan"),
        ("methods: [bicubic@]\ndatasets: [sample]", "methods[0]: nothing stands after the @"),
        ("methods: [3]\ndatasets: [sample]", "methods[0]: expected a name or a mapping of name, label, checkpoints, options"),
        ("methods: [bicubic]\ndatasets: [sample]\nscales: [2, four]", "scales[1]: "),
        ("methods: [bicubic]\ndatasets: [sample]\nprecision: fp8", "precision: "),
        ("methods: [bicubic]\ndatasets: [sample]\ndraws: 0", "draws: "),
        ("methods: [bicubic]\ndatasets: [sample]\nexclude: [{}]", "exclude[0]: is empty: name at least one of method"),
        (
            "methods: [bicubic]\ndatasets: [sample]\nexclude: [{scales: 2}]",
            "exclude[0].scales: unknown field. Did you mean 'scale'?",
        ),
        ("methods: [bicubic]\nscales: [2]\nscales: [4]", "the key 'scales' stands twice in one mapping, in lines 2 and 3"),
        ("- bicubic", "a sweep is a mapping"),
        ("", "got nothing"),
        ("methods: [", "not valid YAML"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read_sweep(write(tmp_path, text))
    assert message in str(error.value)
    assert "sweep.yaml" in str(error.value)


def test_texts_are_read_as_on_the_command_line(tmp_path: Path) -> None:
    spec = read_sweep(write(tmp_path, "methods: [a=edsr@demo-x4]\ndatasets: mine=folder\nscales: 4\n"))
    assert (spec.methods[0].label, spec.methods[0].name, spec.methods[0].checkpoints) == ("a", "edsr", ("demo-x4",))
    assert (spec.datasets[0].alias, spec.datasets[0].name, spec.scales) == ("mine", "folder", (4,))


def test_labels_are_derived_and_unique() -> None:
    spec = sweep_of(
        methods=[
            "bicubic",
            {"name": "dps", "options": {"zeta": [0.3, 1], "steps": 10}},
            {"name": "edsr", "checkpoints": ["default", "runs/mine v2"]},
            {"name": "edsr", "label": "tall", "checkpoints": ["runs/a/model.safetensors", "other/a/model.safetensors"]},
            {"name": "sr3", "options": {"steps": 5}},
            {"name": "sr3", "options": {"steps": 9}},
        ]
    )
    labels = [v.label for v in variants(spec.methods)]
    assert labels[:5] == ["bicubic", "dps-zeta0.3", "dps-zeta1", "edsr-default", "edsr-mine_v2"]
    assert labels[7:] == ["sr3-steps5", "sr3-steps9"]
    assert len(set(labels)) == len(labels)
    assert all(label.startswith("tall-model-") for label in labels[5:7])


def test_long_labels_are_cut_and_stay_unique() -> None:
    long = "x" * 120
    found = variants(sweep_of(methods=[{"name": "dps", "options": {"mode": [long + "a", long + "b"]}}]).methods)
    assert len({v.label for v in found}) == 2
    assert all(len(v.label) <= 80 for v in found)


def test_the_plan_is_the_product(registry: Registry) -> None:
    found = plan(sweep_of(), registry)
    assert names(found) == [f"{m} on sample under uniform-x{s}" for s in (2, 4) for m in ("bicubic", "lanczos")]
    assert [p.number for p in found] == [1, 2, 3, 4]
    assert all(p.open for p in found)
    assert {
        p.protocol.name for p in plan(SweepFile.model_validate({"methods": ["bicubic"], "datasets": ["sample"]}), registry)
    } == {"uniform-x4"}


def test_include_and_exclude(registry: Registry) -> None:
    kept = plan(sweep_of(exclude=[{"method": "lanczos", "scale": 2}]), registry)
    assert names(kept) == [
        "bicubic on sample under uniform-x2",
        "bicubic on sample under uniform-x4",
        "lanczos on sample under uniform-x4",
    ]
    kept = plan(sweep_of(include=[{"protocol": ["uniform-x4"]}], exclude=[{"method": "bicubic"}]), registry)
    assert names(kept) == ["lanczos on sample under uniform-x4"]
    zetas = [{"name": "dps", "options": {"zeta": [0.3, 1]}}]
    kept = plan(sweep_of(methods=zetas, scales=[4], exclude=[{"options": {"zeta": 1}}]), registry)
    assert [p.label for p in kept] == ["dps-zeta0.3"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exclude": [{"method": "bicubc"}]}, r"exclude\[0\]: matches no combination.*Labels: bicubic, lanczos"),
        ({"include": [{"scale": 8}]}, r"include\[0\]: matches no combination"),
        ({"exclude": [{"dataset": "sample"}]}, "leave no combination"),
        ({"datasets": ["sample", "sample"]}, r"datasets\[1\]: two data sets are called 'sample'"),
        ({"methods": [{"name": "bicubic", "label": "a b"}]}, r"methods\[0\].label: bad label 'a b'"),
        ({"metrics": ["psnr", "sim"]}, r"metrics\[1\]: .*'ssim'"),
        ({"metric_options": {"ssim": {"windw": 3}}}, r"metric_options.ssim: .*windw"),
    ],
)
def test_what_cannot_be_planned(registry: Registry, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan(sweep_of(**changes), registry)


def test_refusals_say_why(registry: Registry) -> None:
    found = plan(
        sweep_of(
            methods=["bicubc", {"name": "bicubic", "options": {"sharp": 1}}, "edsr@nothing", "edsr", "nearest"],
            datasets=["sample", "smaple", {"name": "folder", "options": {"pth": "x"}}],
            scales=[3, 4, 8],
            protocols=["uniform-x44"],
        ),
        registry,
    )
    reasons = {str(p): p.reason for p in found if p.state == "refused"}
    on, under = " on sample", " under uniform-x4"
    assert "methods[0]: " in reasons[f"bicubc{on}{under}"]
    assert "Did you mean 'bicubic'" in reasons[f"bicubc{on}{under}"]
    assert "methods[1]: bicubic has no option 'sharp'" in reasons[f"bicubic{on}{under}"]
    assert "methods[2]: method edsr: no checkpoint 'nothing'" in reasons[f"edsr-nothing{on}{under}"]
    assert "scales[0]: no uniform protocol for scale 3" in reasons[f"nearest{on} under uniform-x3"]
    assert "protocols[0]: no protocol named 'uniform-x44'" in reasons[f"nearest{on} under uniform-x44"]
    assert "datasets[1]: " in reasons[f"nearest on smaple{under}"]
    assert "datasets[2]: folder has no option 'pth'" in reasons[f"nearest on folder{under}"]
    assert "methods[3]: method edsr: no weights ship with it for 8x" in reasons[f"edsr{on} under uniform-x8"]
    assert [str(p) for p in found if p.open and p.dataset.name == "sample"] == [
        f"edsr{on}{under}",
        f"nearest{on}{under}",
        f"nearest{on} under uniform-x8",
    ]


def test_equal_combinations_are_planned_once(registry: Registry, tmp_path: Path) -> None:
    spec = sweep_of(
        methods=["a=bicubic", "b=bicubic", {"name": "dps", "options": {"zeta": [1, 1.0, 1.5]}}],
        scales=[4, 4],
        protocols=["uniform-x4"],
    )
    found = plan(spec, registry)
    assert next((p.label, p.state, p.reason) for p in found if p.state == "same") == ("b", "same", "equal to a")
    assert [p.state for p in found] == ["new", "same", "new", "same", "new"]
    text = (Path(__file__).parents[2] / "mrbench/protocols/uniform-x4.yaml").read_text()
    other = tmp_path / "other.yaml"
    other.write_text(text.replace("scale: 4", "scale: 2"))
    with pytest.raises(UserError, match=r"protocols\[0\]: another protocol is called 'uniform-x4' too \(scales\[0\]\)"):
        plan(sweep_of(scales=[4], protocols=[str(other)]), registry)


def test_shares_are_disjoint_and_complete(registry: Registry) -> None:
    spec = sweep_of(methods=["a=bicubic", "b=bicubic", "nearest", "lanczos", "bspline", "nothing"], skip=True)
    for of in (2, 3, 4, 20):
        taken = [p.number for i in range(1, of + 1) for p in Share(i, of).take(plan(spec, registry))]
        assert len(taken) == len(set(taken))
        assert set(taken) == {p.number for p in plan(spec, registry) if p.state != "same"}
    assert len(Share().take(plan(spec, registry))) == 12


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_shares_that_make_no_sense(text: str) -> None:
    with pytest.raises(UserError, match="expected I/N"):
        Share.parse(text)
